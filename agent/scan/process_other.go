//go:build !linux

package scan

import (
	"context"
	"os"

	"komainu/fault"
	"komainu/finding"
)

// Socket is the descriptor that the child finds its connection at.
const Socket = 3

type processState struct{}

func (p *processState) init() {}

var errPlatform = fault.New(fault.Unsupported, "the scanner process needs Linux")

func (p *Process) run(context.Context) error { return errPlatform }

func (p *Process) scan(context.Context, *os.File, Options) (finding.Verdict, error) {
	return finding.Verdict{}, errPlatform
}

func (p *Process) status() Status { return Status{Problem: errPlatform.Error()} }

// Serve is the main loop of the child. It needs Linux.
func Serve(*os.File) error { return errPlatform }
