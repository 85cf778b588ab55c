// Package privilege takes away from a process what it does not need: the
// capabilities of root that it has no use for, and the way to new ones.
package privilege

import (
	"errors"
	"fmt"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/psx"
)

// Keep leaves the process with these capabilities alone, on all its threads
// and for everything that it starts: no_new_privs is set, and the bounding set
// loses the others too. A process that has none of root's loses nothing.
func Keep(capabilities ...uintptr) error {
	errs := []error{call("no_new_privs", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0)}
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		if slices.Contains(capabilities, c) {
			continue
		}
		in, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0)
		if err != nil {
			break // the kernel knows no more of them
		}
		if in == 0 {
			continue
		}
		if err := call("bounding set", unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, c, 0); err != nil {
			errs = append(errs, err) // without CAP_SETPCAP: what follows still counts
			break
		}
	}
	errs = append(errs, call("ambient set", unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0))
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return errors.Join(append(errs, fmt.Errorf("capget: %w", err))...)
	}
	var keep [2]uint32
	for _, c := range capabilities {
		keep[c/32] |= 1 << (c % 32)
	}
	for i := range data {
		data[i].Effective &= keep[i]
		data[i].Permitted &= keep[i]
		data[i].Inheritable = 0
	}
	errs = append(errs, call("capset", unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data[0])), 0))
	return errors.Join(errs...)
}

// call makes a system call on every thread.
func call(what string, trap, a1, a2, a3 uintptr) error {
	if _, _, errno := psx.Syscall6(trap, a1, a2, a3, 0, 0, 0); errno != 0 {
		return fmt.Errorf("%s: %w", what, errno)
	}
	return nil
}
