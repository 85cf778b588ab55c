package control

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"komainu/fault"
)

// lockState makes the state folder and keeps every other control plane out of
// it until the returned file is closed, or this process ends in any way.
func lockState(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "make the state folder")
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "lock the state folder")
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		pid, _ := os.ReadFile(f.Name()) // who holds it; unreadable is not important
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fault.New(fault.Conflict, "another control plane (process %s) uses the state folder %s; stop it, or name another folder with --state", strings.TrimSpace(string(pid)), dir)
		}
		return nil, fault.Wrap(fault.Unavailable, err, "lock the state folder %s", dir)
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = fmt.Fprintf(f, "%d\n", os.Getpid())
	}
	if err != nil {
		f.Close()
		return nil, fault.Wrap(fault.Unavailable, err, "lock the state folder %s", dir)
	}
	return f, nil
}
