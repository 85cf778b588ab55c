package quarantine

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"komainu/fault"
)

// destination is the folder that a file is restored into, by handle.
type destination struct {
	folder string
	follow bool // symbolic links on the way are the caller's wish
	fd     int
	file   int    // that was created
	tmp    string // its name, "" if it has none yet
}

func (d *destination) open() error {
	const flags = unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC
	var err error
	if d.follow {
		d.fd, err = unix.Open(d.folder, flags, 0)
	} else {
		d.fd, err = openWithoutLinks(d.folder, flags)
	}
	switch {
	case errors.Is(err, unix.ENOENT):
		return fault.Wrap(fault.NotFound, err, "the folder %s does not exist; restore into another one with --destination-path", d.folder)
	case !d.follow && (errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR)):
		return fault.Wrap(fault.Conflict, err, "the way to %s goes through a link by now; restore into another folder with --destination-path", d.folder)
	case err != nil:
		return fault.Wrap(fault.NotFound, err, "the folder %s", d.folder)
	}
	return nil
}

// openWithoutLinks opens an absolute path one step at a time, so that no step
// can be a link.
func openWithoutLinks(path string, flags int) (int, error) {
	fd, err := unix.Open("/", flags, 0)
	if err != nil {
		return -1, err
	}
	for step := range strings.SplitSeq(strings.Trim(filepath.Clean(path), "/"), "/") {
		if step == "" {
			continue // the root itself
		}
		next, err := unix.Openat(fd, step, flags|unix.O_NOFOLLOW, 0)
		unix.Close(fd)
		if err != nil {
			return -1, err
		}
		fd = next
	}
	return fd, nil
}

// create makes a file that only this user can read. It has no name yet, where
// the filesystem can do that: if the agent is killed, nothing is left of it.
func (d *destination) create() (*os.File, error) {
	const flags = unix.O_RDWR | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(d.fd, ".", unix.O_TMPFILE|flags, 0o600)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EINVAL) {
		d.tmp = ".komainu-" + rand.Text()
		fd, err = unix.Openat(d.fd, d.tmp, unix.O_CREAT|unix.O_EXCL|flags, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("restore into %s: %w", d.folder, err)
	}
	d.file = fd
	return os.NewFile(uintptr(fd), d.folder), nil
}

// commit gives the file its name, unless something has it.
func (d *destination) commit(name string) error {
	if err := d.give(name); err != nil {
		if errors.Is(err, unix.EEXIST) {
			return fault.New(fault.Conflict, "%s exists; move it away, or restore into another folder with --destination-path", filepath.Join(d.folder, name))
		}
		return fmt.Errorf("restore %s: %w", name, err)
	}
	// The object goes next: the name has to be on the disk before.
	folder, err := unix.Openat(d.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil // a folder that cannot be read cannot be flushed
	}
	_ = unix.Fsync(folder)
	return unix.Close(folder)
}

func (d *destination) give(name string) error {
	if d.tmp == "" {
		return unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(d.file), d.fd, name, unix.AT_SYMLINK_FOLLOW)
	}
	err := unix.Renameat2(d.fd, d.tmp, d.fd, name, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		// This filesystem cannot; a link does not replace anything either.
		if err = unix.Linkat(d.fd, d.tmp, d.fd, name, 0); err == nil {
			err = unix.Unlinkat(d.fd, d.tmp, 0)
		}
	}
	return err
}

func (d *destination) discard() {
	if d.tmp != "" {
		_ = unix.Unlinkat(d.fd, d.tmp, 0)
	}
}

func (d *destination) close() { _ = unix.Close(d.fd) }
