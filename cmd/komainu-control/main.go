// Command komainu-control is the control plane.
package main

import (
	"os"

	"komainu/control"
)

// version is set when a release is linked.
var version = "0.1.0-dev"

func main() { os.Exit(control.Main(version)) }
