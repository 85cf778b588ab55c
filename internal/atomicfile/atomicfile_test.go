package atomicfile_test

import (
	"os"
	"path/filepath"
	"testing"

	"komainu/internal/atomicfile"
)

func TestWriteReplaces(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	for _, want := range []string{"one", "two, and longer", ""} {
		if err := atomicfile.Write(name, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(name)
		if err != nil || string(got) != want {
			t.Errorf("read %q, %v; want %q", got, err, want)
		}
	}
	info, err := os.Stat(name)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestFailureLeavesTheOldFileAlone(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "f")
	if err := os.Mkdir(name, 0o755); err != nil { // a folder in the way: the rename fails
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(name, "inside"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.Write(name, []byte("x"), 0o600); err == nil {
		t.Fatal("no error")
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 || left[0].Name() != "f" {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
