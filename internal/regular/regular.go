// Package regular opens regular files in folders that are not trusted, and
// nothing else.
package regular

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// ErrNotRegular says that something is there, and is no regular file.
var ErrNotRegular = errors.New("no regular file")

// Open opens a file below dir to be read, and never waits for anybody: opening
// a pipe waits for who writes to it, opening a device can make it do something,
// and both can be read for ever. What takes the place of the file after the
// first look is opened without waiting, and looked at again.
func Open(dir *os.Root, name string) (*os.File, error) {
	info, err := dir.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "open", Path: name, Err: ErrNotRegular}
	}
	f, err := dir.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err = f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: name, Err: ErrNotRegular}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
