package main

import (
	"context"
	"strings"

	"komainu/fault"
)

// benches measure the figures of the design; the last line of each is its
// name and key=value pairs.
var benches = map[string]func(context.Context, *House) error{
	"react": benchReact,
}

func benchNames() string {
	var names []string
	for name := range benches {
		names = append(names, name)
	}
	return strings.Join(names, ", ")
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
