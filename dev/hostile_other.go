//go:build !linux

package main

import (
	"context"

	"komainu/fault"
)

func hostile(context.Context, *House, []string) error {
	return fault.New(fault.Unsupported, "the agent protects Linux alone in this version")
}

func hostilePhase(_ context.Context, h *House) (tally, error) {
	h.Say("skip hostile: the agent protects Linux alone in this version")
	return tally{skipped: 1}, nil
}
