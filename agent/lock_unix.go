//go:build unix

package agent

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"

	"komainu/fault"
)

// lockState keeps a second agent off a state folder. The kernel lets go of
// the lock when the process ends, however it ends.
func lockState(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fault.New(fault.Conflict, "another agent runs on %s; stop it first, or use --state with another folder", dir)
		}
		return nil, err
	}
	return func() { f.Close() }, nil
}
