package spool_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"komainu/agent/spool"
	"komainu/fault"
	"komainu/internal/need"
)

// TestFullDisk fills a real filesystem of its own, in a mount namespace of its
// own, and gives it room again.
func TestFullDisk(t *testing.T) {
	need.Root(t)
	if os.Getenv("KOMAINU_SPOOL_TEST_MOUNT") == "" {
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		child := exec.Command(exe, "-test.run", "^TestFullDisk$")
		child.Env = append(os.Environ(), "KOMAINU_SPOOL_TEST_MOUNT=1")
		child.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
		if out, err := child.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	dir := t.TempDir()
	if err := unix.Mount("test", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	s := mustOpen(t, filepath.Join(dir, "spool"), spool.Limits{Segment: 8 << 10, Memory: 8 << 10})
	var lost uint64
	for range 100 {
		if err := s.Append(2, make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Sync(); !fault.Is(err, fault.Exhausted) {
		t.Errorf("sync on a full disk: %v", err)
	}
	lost += s.Lost()[2]
	st := s.Stats()
	if st.InMemory != 8 || lost == 0 || st.Waiting+lost != 100 {
		t.Errorf("stats %+v, lost %d: waiting and lost are not what was appended", st, lost)
	}
	got := positions(t, s)
	if uint64(len(got))+lost != 100 || !slices.IsSorted(got) {
		t.Errorf("read %d records, lost %d", len(got), lost)
	}
	// A restart on a disk that is still full keeps what is on it.
	if err := s.Close(); err == nil {
		t.Error("closing says nothing of the records that are only in memory")
	}
	numbers, err := spool.OpenNumbers(filepath.Join(dir, "epoch"))
	if err != nil || numbers.Unnoted() == nil || numbers.Note() == nil {
		t.Errorf("numbers on a full disk: %v, noted: %v", err, numbers.Unnoted())
	}
	s = mustOpen(t, filepath.Join(dir, "spool"), spool.Limits{Segment: 8 << 10})
	if kept := positions(t, s); len(kept) != len(got)-8 {
		t.Errorf("%d records are left on disk, want %d", len(kept), len(got)-8)
	}
	// What is delivered makes room for what comes.
	if err := s.Ack(got[len(got)-9]); err != nil {
		t.Fatal(err)
	}
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if err := s.Append(2, make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Sync(); err != nil {
		t.Errorf("after the acknowledgement: %v", err)
	}
	if err := numbers.Note(); err != nil || numbers.Unnoted() != nil {
		t.Errorf("there is room, and the epoch is not noted: %v", err)
	}
	if st := s.Stats(); st.Waiting != 20 || st.InMemory != 0 {
		t.Errorf("stats %+v", st)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
