//go:build !linux

package ondemand

import "os"

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

// deviceOf does not tell filesystems apart here.
func deviceOf(path string) (uint64, error) {
	_, err := os.Lstat(path)
	return 0, err
}
