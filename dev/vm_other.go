//go:build !linux

package main

import (
	"context"

	"komainu/fault"
)

func vm(context.Context, *House, []string) error {
	return fault.New(fault.Unsupported, "the virtual machine is made on Linux")
}
