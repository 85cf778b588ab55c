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

// openStill opens a file that was there before, and waits for nobody if it is
// a pipe by now.
func openStill(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
}
