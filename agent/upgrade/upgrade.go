// Package upgrade replaces the agent by another version of it, and goes back
// when the new one is not well.
//
// Two processes share the work. The agent itself (Runner) fetches and verifies
// the package of the new version and that of its own, to have a way back,
// before anything is changed; then it hands over. The installer (Installer)
// is a unit of its own, which the restart of the agent does not touch, and runs
// from a copy of the program that the package manager does not know.
//
// What was decided is in the journal, on disk, before it is done. Whatever ends
// the installer, it is started again and goes on from there: forwards while
// nothing speaks against the new version, backwards after that, never to and
// fro. DESIGN.md has the states.
package upgrade

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"komainu/deploy"
	"komainu/fault"
	"komainu/health"
	"komainu/internal/atomicfile"
)

// Files in the folder of upgrades.
const (
	journalFile = "journal.json"
	// goFile hands over: while it is there, the journal is the installer's. The
	// unit komainu-upgrade.path starts the installer when it appears, at boot
	// too.
	goFile  = "go"
	newFile = "new"
	oldFile = "old"
	// marksFile gets a line whenever protection begins or ends.
	marksFile = "protection"
	// archiveFolder is where an archive is unpacked.
	archiveFolder = "archive"
)

// Step is what the installer is to do next.
type Step string

// The steps.
const (
	StepPrepare Step = "prepare" // verify, wait for the package manager, see how well the agent is
	StepInstall Step = "install" // the new version
	StepProbe   Step = "probe"   // it has to show that it is well
	StepBack    Step = "back"    // install the old version again
	StepReprobe Step = "reprobe" // that has to be well again
	StepDone    Step = "done"
)

// Package is a package that waits in the folder of upgrades.
type Package struct {
	Version string `json:"version"`
	Arch    string `json:"arch"`
	Format  string `json:"format"`
	SHA256  string `json:"sha256"`
	Target  string `json:"target"`
	Size    int64  `json:"size"`
}

// journal is the state of an upgrade.
type journal struct {
	Status   deploy.UpgradeStatus `json:"status"`
	Step     Step                 `json:"step"`
	New      Package              `json:"new"`
	Old      Package              `json:"old"`
	Staged   time.Time            `json:"staged"`           // when both were verified
	Before   *health.Report       `json:"before,omitempty"` // how well the agent was
	Attempts int                  `json:"attempts"`         // at the step
}

func loadJournal(dir string) (journal, error) {
	var j journal
	text, err := os.ReadFile(filepath.Join(dir, journalFile))
	if err != nil {
		return j, err
	}
	if err := json.Unmarshal(text, &j); err != nil {
		return j, fault.New(fault.Invalid, "%s is damaged: %w", filepath.Join(dir, journalFile), err)
	}
	return j, nil
}

func (j *journal) save(dir string) error {
	text, err := json.MarshalIndent(j, "", "\t")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("note the state of the upgrade: %w", err)
	}
	return atomicfile.Write(filepath.Join(dir, journalFile), text, 0o600)
}

// handedOver reports whether the installer has the upgrade.
func handedOver(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, goFile))
	return err == nil
}

// sweep removes what an upgrade leaves behind, but its journal, and the marks of
// a gap that is still open: the agent tells how long it was when it closes.
func sweep(dir string) error {
	errs := []error{os.RemoveAll(filepath.Join(dir, archiveFolder))}
	names := []string{newFile, oldFile, newFile + ".partial", oldFile + ".partial"}
	if !unprotected(dir) {
		names = append(names, marksFile)
	}
	for _, name := range names {
		if err := os.Remove(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// reasonOf says why an upgrade was not begun. None of it but what is not signed
// says something about the version: a fleet must not halt because one host
// cannot begin.
func reasonOf(err error, missing deploy.ReasonID) deploy.Reason {
	id := deploy.UpgradeRefused
	switch kind := fault.KindOf(err); {
	case kind == fault.NotFound:
		id = missing
	case kind == fault.Unauthentic:
		id = deploy.UpgradeUntrusted
	// The journal, and what is trusted, are written before a package is.
	case kind == fault.Exhausted, errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		id = deploy.DiskFull
	case kind == fault.Unavailable:
		id = deploy.TransferFailed
	}
	return deploy.ReasonOf(id, err.Error())
}
