// Command komainud is the agent of a protected server.
package main

import (
	"os"

	"komainu/agent"
)

func main() { os.Exit(agent.Main(os.Args[1:])) }
