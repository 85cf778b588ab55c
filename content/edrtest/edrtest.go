// Package edrtest holds the test that shows whether behaviour detection works
// on a Linux server: a shell script that reads decoy secrets the way an
// intruder looks for real ones, and the archives that it is downloaded in.
package edrtest

import (
	"archive/zip"
	_ "embed"
	"fmt"
	"io"
	"time"
)

//go:embed edr_test_linux.sh
var script []byte

// ExitNeeds is how the script ends when a program is missing that a variant
// needs.
const ExitNeeds = 7

// Title and Severity are what a run of the test raises, exactly once.
const (
	Title    = "Enumeration of files with sensitive data"
	Severity = "Low"
)

// archives maps the name of a download to the name of the script within it.
var archives = map[string]string{
	"edr-test-linux.zip":    "edr_test_linux.sh",
	"MDE-Linux-EDR-DIY.zip": "mde_linux_edr_diy.sh",
}

// Names lists the archives that Zip can write.
func Names() []string { return []string{"edr-test-linux.zip", "MDE-Linux-EDR-DIY.zip"} }

// Script returns the test.
func Script() []byte { return append([]byte(nil), script...) }

// Zip writes the archive with this name, the same bytes every time. The script
// in it is executable.
func Zip(w io.Writer, name string) error {
	member, ok := archives[name]
	if !ok {
		return fmt.Errorf("archive %q: want one of %v", name, Names())
	}
	z := zip.NewWriter(w)
	header := &zip.FileHeader{
		Name:     member,
		Method:   zip.Deflate,
		Modified: time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC),
	}
	header.SetMode(0o755)
	file, err := z.CreateHeader(header)
	if err != nil {
		return err
	}
	if _, err := file.Write(script); err != nil {
		return err
	}
	return z.Close()
}
