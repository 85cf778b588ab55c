package quarantine

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"komainu/fault"
)

// destination is the folder that a file is restored into, by handle.
type destination struct {
	folder string
	follow bool // symbolic links on the way are the caller's wish
	fd     int
	tmp    string
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

// create makes a file that only this user can read.
func (d *destination) create() (*os.File, error) {
	d.tmp = ".komainu-" + rand.Text()
	fd, err := unix.Openat(d.fd, d.tmp, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("restore into %s: %w", d.folder, err)
	}
	return os.NewFile(uintptr(fd), d.tmp), nil
}

// commit gives the file its name, unless something has it.
func (d *destination) commit(name string) error {
	err := unix.Renameat2(d.fd, d.tmp, d.fd, name, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		// This filesystem cannot; a link does not replace anything either.
		if err = unix.Linkat(d.fd, d.tmp, d.fd, name, 0); err == nil {
			err = unix.Unlinkat(d.fd, d.tmp, 0)
		}
	}
	if errors.Is(err, unix.EEXIST) {
		return fault.New(fault.Conflict, "%s exists; move it away, or restore into another folder with --destination-path", filepath.Join(d.folder, name))
	}
	if err != nil {
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

func (d *destination) discard() { _ = unix.Unlinkat(d.fd, d.tmp, 0) }

func (d *destination) close() { _ = unix.Close(d.fd) }
