//go:build !linux

package ondemand

import (
	"io/fs"
	"os"
	"path/filepath"
)

func lowerPriority() {}

func mountPoints() map[string]bool { return nil }

// running does not know the processes here.
func (w *walker) running() error { return nil }

// tree walks a folder, or sends the one file that the path is.
func (w *walker) tree(root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case w.ctx.Err() != nil:
			return w.ctx.Err()
		case err != nil:
			w.skip(err)
			return nil
		case d.IsDir() && !w.wanted(path):
			return fs.SkipDir
		case !d.Type().IsRegular():
			return nil
		}
		f, err := OpenRegular(path)
		if err != nil {
			w.skip(err)
			return nil
		}
		return w.send(path, f)
	})
}

// OpenRegular opens a regular file for reading.
func OpenRegular(path string) (*os.File, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errNotRegular
	}
	return os.Open(path)
}
