package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// demoSize is enough for archives of test files and small enough to forget.
const demoSize = "64m"

// mountDemo gives the demo folder a filesystem of its own when root, so that
// blocking there can reach nothing else. It reports whether it did.
func mountDemo(dir string) (bool, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return false, err
	}
	if os.Geteuid() != 0 {
		return false, nil
	}
	if err := unmountDemo(dir); err != nil {
		return false, err
	}
	if err := unix.Mount("komainu-demo", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0777,size="+demoSize); err != nil {
		return false, fmt.Errorf("mount the demo folder %s: %w", dir, err)
	}
	return true, nil
}

// unmountDemo takes away what mountDemo mounted, also what a former run that
// crashed has left. Programs that still stand in the folder keep it until
// they leave.
func unmountDemo(dir string) error {
	for {
		mounted, err := isMountPoint(dir)
		if err != nil || !mounted {
			return err
		}
		err = unix.Unmount(dir, 0)
		if errors.Is(err, unix.EBUSY) {
			err = unix.Unmount(dir, unix.MNT_DETACH)
		}
		if err != nil {
			return fmt.Errorf("unmount %s: %w", dir, err)
		}
	}
}

func isMountPoint(dir string) (bool, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) > 4 && unescapeMount(fields[4]) == dir {
			return true, nil
		}
	}
	return false, nil
}

// unescapeMount undoes the octal escapes of proc(5).
func unescapeMount(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
