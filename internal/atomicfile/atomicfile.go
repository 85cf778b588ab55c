// Package atomicfile replaces whole files so that a reader, or a restart after
// a crash at any moment, sees the old content or the new one, never a part.
package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Write replaces the file name with data. The data is on disk when it
// returns nil; on an error the old file is untouched. The folder must exist.
func Write(name string, data []byte, mode fs.FileMode) (err error) {
	dir := filepath.Dir(name)
	f, err := os.CreateTemp(dir, "."+filepath.Base(name)+".*")
	if err != nil {
		return fmt.Errorf("write %q: %w", name, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("write %q: %w", name, err), os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	if err = os.Rename(f.Name(), name); err != nil {
		return err
	}
	SyncDir(dir)
	return nil
}

// SyncDir makes the names in a folder durable, where the platform can: a
// rename is otherwise only as safe as the next flush of the filesystem.
func SyncDir(dir string) {
	d, err := os.Open(dir)
	if err != nil {
		return
	}
	// Windows and some filesystems refuse to sync a folder; the rename has
	// happened all the same.
	_ = d.Sync()
	_ = d.Close()
}
