//go:build !unix

package agent

import (
	"os"

	"komainu/fault"
)

func reopen(*os.File) (*os.File, error) {
	return nil, fault.New(fault.Unsupported, "descriptors cannot be kept on this platform")
}

func openStill(path string) (*os.File, error) { return os.Open(path) }
