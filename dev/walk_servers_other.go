//go:build !linux

package main

import "context"

// serversPhase needs containers, which only Linux has.
func serversPhase(_ context.Context, h *House) (tally, error) {
	h.Say("skip the walk-through of servers: it needs Linux")
	return tally{skipped: 1}, nil
}
