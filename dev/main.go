// Command dev is the front door for people who try or change Komainu:
//
//	go run ./dev up            a control plane and an agent on this machine
//	go run ./dev test          every test that this machine can run
//
// It builds what is needed, keeps everything it makes under .komainu/ in the
// checkout, and needs only Go, a C compiler and Node.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"komainu/fault"
)

// command is one row of the usage text.
type command struct {
	name string
	help string
	run  func(ctx context.Context, h *House, args []string) error
}

func commands() []command {
	return []command{
		{"up", "start a control plane and an agent here; stays in the foreground", up},
		{"down", "stop what up started and leave the machine as it was", down},
		{"test", "run all tests, installing what they need when root", test},
		{"check", "static checks: format, vet, staticcheck, layers, licences, generated files", check},
		{"bench", "measure one figure of the design: " + benchNames(), bench},
		{"resilience", "break a running control plane and agent on purpose and see that they hold", resilience},
		{"hostile", "give them what they must not be given: wrong tokens and clocks, odd frames, full disks, newer state", hostile},
		{"soak", "break them at random for many rounds while an oracle compares; -rounds, -seed", soak},
		{"packages", "build .deb and .rpm of the control plane and the agent; -o DIR", packages},
		{"vm", "run resilience, soak or tests under another kernel in QEMU; -kernel 5.10|6.1|6.12", vm},
		{"gen", "rebuild generated files: protobuf and eBPF objects", gen},
		{"walkthrough", "do the first-day walk-through with the real binaries and a browser", walkthrough},
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := dispatch(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "dev:", err)
	}
	os.Exit(exitCode(err))
}

func exitCode(err error) int {
	if errors.Is(err, flag.ErrHelp) {
		return fault.ExitUsage
	}
	return fault.Exit(err)
}

func dispatch(ctx context.Context, args []string) error {
	if len(args) == 0 {
		usage()
		return flag.ErrHelp
	}
	h, err := OpenHouse()
	if err != nil {
		return err
	}
	for _, c := range commands() {
		if c.name == args[0] {
			return c.run(ctx, h, args[1:])
		}
	}
	usage()
	return fault.New(fault.Invalid, "no command %q", args[0])
}

func usage() {
	fmt.Fprintln(os.Stderr, "usage: go run ./dev COMMAND [flags]")
	for _, c := range commands() {
		fmt.Fprintf(os.Stderr, "  %-12s %s\n", c.name, c.help)
	}
}
