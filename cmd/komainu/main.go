// Command komainu is the local command line of the agent. Under the name
// mdatp it takes what runbooks type for that command.
package main

import (
	"os"

	"komainu/agent/cli"
)

// version is set when a release is linked.
var version = "0.1.0-dev"

func main() { os.Exit(cli.Main(version)) }
