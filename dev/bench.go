package main

import (
	"context"
	"maps"
	"os"
	"slices"
	"strings"

	"komainu/fault"
)

// benches measure the figures of the design; the last line of each is its
// name and key=value pairs.
var benches = map[string]func(context.Context, *House) error{
	"agent":    benchAgent,
	"machines": benchMachines,
	"onboard":  benchOnboard,
	"portal":   benchPortal,
	"push":     benchPush,
	"react":    benchReact,
}

func benchNames() string {
	return strings.Join(slices.Sorted(maps.Keys(benches)), ", ")
}

func bench(ctx context.Context, h *House, args []string) error {
	if len(args) != 1 {
		return fault.New(fault.Invalid, "name one of: %s", benchNames())
	}
	run, ok := benches[args[0]]
	if !ok {
		return fault.New(fault.Invalid, "no bench %q; there are: %s", args[0], benchNames())
	}
	return run(ctx, h)
}

// benchStack starts a stack of its own for a measurement.
func benchStack(ctx context.Context, h *House, port int) (*Stack, func(), error) {
	if os.Geteuid() != 0 {
		return nil, nil, fault.New(fault.NeedsRoot, "real-time protection needs root")
	}
	return benchWith(ctx, h, port, func(s *Stack, port int) error { return s.start(ctx, port, false) })
}

// benchControl starts a control plane alone for a measurement.
func benchControl(ctx context.Context, h *House) (*Stack, func(), error) {
	return benchWith(ctx, h, 27443, func(s *Stack, port int) error { return s.StartControl(ctx, port) })
}

// benchWith starts what is measured, and returns what takes it away again.
func benchWith(ctx context.Context, h *House, port int, start func(*Stack, int) error) (*Stack, func(), error) {
	bin, err := h.Build(ctx)
	if err != nil {
		return nil, nil, err
	}
	dir, err := os.MkdirTemp("", "komainu-bench-")
	if err != nil {
		return nil, nil, err
	}
	s := NewStack(h, bin, dir)
	done := func() {
		if err := s.Close(); err != nil {
			h.Say("%v", err)
		}
		os.RemoveAll(dir)
	}
	if port, err = freePort(port); err == nil {
		err = start(s, port)
	}
	if err != nil {
		s.PrintLogs()
		done()
		return nil, nil, err
	}
	return s, done, nil
}
