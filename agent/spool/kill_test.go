package spool_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"komainu/agent/spool"
)

// childDir tells the test binary to be the process that is killed.
const childDir = "KOMAINU_SPOOL_TEST_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		if err := appendForever(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// appendForever appends numbers and says each one when Append has returned.
func appendForever(dir string) error {
	s, err := spool.Open(dir, spool.Limits{Segment: 500})
	if err != nil {
		return err
	}
	for i := uint64(1); ; i++ {
		if err := s.Append(1, fmt.Appendf(nil, "%d", i)); err != nil {
			return err
		}
		fmt.Println(i)
		if i%20 == 0 {
			if err := s.Sync(); err != nil {
				return err
			}
		}
	}
}

func TestKillLosesNothing(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, lines := range []int{1, 40, 333} {
		dir := t.TempDir()
		child := exec.Command(exe)
		child.Env = append(os.Environ(), childDir+"="+dir)
		child.Stderr = os.Stderr
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		said := 0
		for scan := bufio.NewScanner(out); said < lines && scan.Scan(); {
			if said, err = strconv.Atoi(scan.Text()); err != nil {
				t.Fatal(err)
			}
		}
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = child.Wait() // it was killed
		s := mustOpen(t, dir, spool.Limits{})
		b := read(t, s, 0, 1<<20)
		for after := b.Last(); ; {
			more := read(t, s, after, 1<<20)
			if len(more.Records) == 0 {
				break
			}
			b.Records = append(b.Records, more.Records...)
			after = more.Last()
		}
		if len(b.Records) < said {
			t.Errorf("%d records are left of %d that were appended", len(b.Records), said)
		}
		for i, r := range b.Records {
			if string(r) != strconv.Itoa(i+1) {
				t.Fatalf("record %d holds %q", i+1, r)
			}
		}
		if lost := s.Lost(); lost[0]+lost[1] != 0 {
			t.Errorf("lost %v", lost)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
