//go:build !linux

package main

import (
	"context"

	"komainu/fault"
)

func benchPush(ctx context.Context, h *House) error { return benchOnboard(ctx, h) }

func benchOnboard(context.Context, *House) error {
	return fault.New(fault.Unsupported, "pretend servers are made of Linux containers")
}
