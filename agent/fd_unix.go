//go:build unix

package agent

import (
	"os"
	"syscall"
)

// reopen returns a second descriptor of an open file, with a life of its own.
func reopen(f *os.File) (*os.File, error) {
	fd, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		return nil, err
	}
	syscall.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), f.Name()), nil
}
