// Command komainuctl administers a control plane over its API.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"komainu/fault"
)

// version is set when a release is linked.
var version = "0.1.0-dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := root(os.Stdin, os.Stdout, os.Stderr).ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "komainuctl:", err)
	}
	os.Exit(fault.Exit(err))
}
