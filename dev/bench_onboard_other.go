//go:build !linux

package main

import (
	"context"

	"komainu/fault"
)

func benchOnboard(context.Context, *House) error {
	return fault.New(fault.Unsupported, "pretend servers are made of Linux containers")
}
