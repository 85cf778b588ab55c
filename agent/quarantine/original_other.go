//go:build !linux

package quarantine

import (
	"io/fs"
	"os"

	"komainu/fault"
)

type original struct{}

var errPlatform = fault.New(fault.Unsupported, "quarantine is not available on this platform in this version")

func findOriginal(string, fs.FileInfo) (*original, error) { return nil, errPlatform }

func (o *original) remove() error { return nil }
func (o *original) close()        {}

func (o *original) realFolder() string { return "" }

// destination is where a file is restored; nothing is sealed here.
type destination struct {
	folder string
	follow bool
}

func (d *destination) open() error               { return errPlatform }
func (d *destination) create() (*os.File, error) { return nil, errPlatform }
func (d *destination) commit(string) error       { return errPlatform }
func (d *destination) discard()                  {}
func (d *destination) close()                    {}

func ownerOf(fs.FileInfo) (uid, gid int, name string) { return -1, -1, "" }

func giveBack(f *os.File, o Object) error { return f.Chmod(fs.FileMode(o.Mode)) }

func enoughSpace(string, int64) error { return nil }
