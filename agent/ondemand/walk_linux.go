package ondemand

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// lowerPriority makes the walk yield to everybody else. It belongs to the
// thread, which ends with the goroutine because it is never given back.
func lowerPriority() {
	runtime.LockOSThread()
	const (
		ioprioWhoProcess = 1
		bestEffortLowest = 2<<13 | 7
	)
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, 10) // neither is worth failing for
	_, _, _ = unix.Syscall(unix.SYS_IOPRIO_SET, ioprioWhoProcess, 0, bestEffortLowest)
}

// tree walks a folder, or sends the one file that the path is.
func (w *walker) tree(root string) error {
	root = filepath.Clean(root)
	fd, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOTDIR) {
		f, err := OpenRegular(root)
		if err != nil {
			w.skip(err)
			return nil
		}
		return w.send(root, f)
	}
	if err != nil {
		w.skip(err)
		return nil
	}
	if w.scan.matcher.Folder(root) {
		return unix.Close(fd)
	}
	return w.folder(fd, root, 0)
}

// folder walks what is below an open folder, and closes it.
func (w *walker) folder(fd int, path string, depth int) error {
	dir := os.NewFile(uintptr(fd), path)
	defer dir.Close()
	for {
		entries, err := dir.ReadDir(512)
		for _, e := range entries {
			if err := w.ctx.Err(); err != nil {
				return err
			}
			if err := w.entry(fd, filepath.Join(path, e.Name()), e, depth); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			w.skip(err)
			return nil
		}
	}
}

func (w *walker) entry(fd int, path string, e fs.DirEntry, depth int) error {
	switch {
	case e.Type().IsRegular():
		f, err := openAt(fd, e.Name(), path)
		if err != nil {
			w.skip(err)
			return nil
		}
		return w.send(path, f)
	case e.IsDir() && w.wanted(path):
		if depth == maxDepth {
			w.scan.skipped.Add(1)
			return nil
		}
		below, err := unix.Openat(fd, e.Name(), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			w.skip(err)
			return nil
		}
		return w.folder(below, path, depth+1)
	}
	return nil
}

// running sends the programs of all processes, each once: also those whose
// file is deleted.
func (w *walker) running() error {
	type inode struct{ dev, ino uint64 }
	seen := map[inode]bool{}
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		return err
	}
	for _, link := range links {
		path, err := os.Readlink(link)
		if err != nil {
			continue // a kernel thread, or gone
		}
		fd, err := unix.Open(link, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			w.skip(err)
			continue
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil || seen[inode{st.Dev, st.Ino}] {
			unix.Close(fd)
			continue
		}
		seen[inode{st.Dev, st.Ino}] = true
		if err := w.send(path, os.NewFile(uintptr(fd), path)); err != nil {
			return err
		}
	}
	return nil
}

// mountPoints lists all mount points. Paths decide, because the device numbers
// of a btrfs subvolume are not those of its mount.
func mountPoints() map[string]bool {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	points := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 4 {
			points[unescape(fields[4])] = true
		}
	}
	return points
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// OpenRegular opens a regular file for reading. It follows no link at the end
// of the path, waits for nothing (a named pipe would), and leaves the access
// time alone where it may.
func OpenRegular(path string) (*os.File, error) { return openAt(unix.AT_FDCWD, path, path) }

func openAt(folder int, name, path string) (*os.File, error) {
	const flags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	fd, err := unix.Openat(folder, name, flags|unix.O_NOATIME, 0)
	if errors.Is(err, unix.EPERM) {
		fd, err = unix.Openat(folder, name, flags, 0) // somebody else's file
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = errNotRegular
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), path), nil
}
