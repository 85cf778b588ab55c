//go:build !linux

package main

import (
	"context"

	"komainu/fault"
)

func benchAgent(context.Context, *House) error {
	return fault.New(fault.Unsupported, "the agent protects Linux alone in this version")
}
