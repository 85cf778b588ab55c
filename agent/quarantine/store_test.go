package quarantine_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"komainu/agent/quarantine"
	"komainu/fault"
	"komainu/finding"
)

const content = "inert content that stands for malware"

func place(t *testing.T, name string) (path string, f *os.File) {
	t.Helper()
	path = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o640); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return path, f
}

func open(t *testing.T, dir string) *quarantine.Store {
	t.Helper()
	s, err := quarantine.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func request(id finding.ID, path string, f *os.File) quarantine.Request {
	sum := sha256.Sum256([]byte(content))
	return quarantine.Request{ID: id, File: f, Path: path, Threat: "Test:Inert/Sample", SHA256: hex.EncodeToString(sum[:]), Time: time.Now()}
}

func TestSealAndRestore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "quarantine")
	s := open(t, dir)
	path, f := place(t, "bad")
	o, err := s.Add(t.Context(), request("11111111-1111-4111-8111-111111111111", path, f))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the original is still there: %v", err)
	}
	_ = filepath.WalkDir(dir, func(name string, d fs.DirEntry, _ error) error {
		if text, err := os.ReadFile(name); err == nil && bytes.Contains(text, []byte(content)) {
			t.Errorf("%s holds the content in clear", d.Name())
		}
		if info, err := d.Info(); err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", d.Name(), info.Mode())
		}
		return nil
	})
	// As after a restart.
	s = open(t, dir)
	list, err := s.List()
	if err != nil || len(list) != 1 || list[0].Path != path || list[0].SHA256 != o.SHA256 {
		t.Fatalf("list %+v, %v", list, err)
	}
	back, err := s.Restore(t.Context(), o.ID, "")
	if err != nil || back != path {
		t.Fatalf("restored to %q, %v", back, err)
	}
	text, err := os.ReadFile(path)
	info, _ := os.Stat(path)
	if err != nil || string(text) != content || info.Mode().Perm() != 0o640 {
		t.Errorf("came back as %q, mode %v, %v", text, info.Mode(), err)
	}
	if _, err := s.Get(o.ID); !fault.Is(err, fault.NotFound) {
		t.Errorf("still sealed: %v", err)
	}
}

func TestRestoreIntoAFolderNeverOverwrites(t *testing.T) {
	s := open(t, t.TempDir())
	path, f := place(t, "bad")
	o, err := s.Add(t.Context(), request("a", path, f))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Restore(t.Context(), o.ID, filepath.Join(t.TempDir(), "missing")); !fault.Is(err, fault.NotFound) {
		t.Errorf("a folder that is not there: %v", err)
	}
	dest := t.TempDir()
	if err := os.WriteFile(filepath.Join(dest, "bad"), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Restore(t.Context(), o.ID, dest); !fault.Is(err, fault.Conflict) {
		t.Errorf("a file in the way: %v", err)
	}
	if text, _ := os.ReadFile(filepath.Join(dest, "bad")); string(text) != "mine" {
		t.Error("the file in the way was overwritten")
	}
	if _, err := s.Restore(t.Context(), o.ID, t.TempDir()); err != nil {
		t.Errorf("after two refusals: %v", err)
	}
}

func TestAnotherFileAtThePathIsLeftAlone(t *testing.T) {
	s := open(t, t.TempDir())
	path, f := place(t, "bad")
	if err := os.Rename(path, path+".moved"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("innocent"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Add(t.Context(), request("a", path, f)); !fault.Is(err, fault.Conflict) {
		t.Errorf("error %v", err)
	}
	// A link to the file is not the file either.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(path+".moved", path); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Add(t.Context(), request("b", path, f)); !fault.Is(err, fault.Conflict) {
		t.Errorf("through a link: %v", err)
	}
	if _, err := os.Stat(path + ".moved"); err != nil {
		t.Error("a file was removed that was not asked for")
	}
	if list, _ := s.List(); len(list) != 0 {
		t.Errorf("sealed all the same: %+v", list)
	}
}

func TestContentThatChangedSinceTheScanStays(t *testing.T) {
	s := open(t, t.TempDir())
	path, f := place(t, "bad")
	r := request("a", path, f)
	if err := os.WriteFile(path, []byte("something else by now"), 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Add(t.Context(), r); !fault.Is(err, fault.Conflict) {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error("the changed file is gone")
	}
}

func TestACancelledSealLeavesTheOriginal(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	path, f := place(t, "bad")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Add(ctx, request("a", path, f)); err == nil {
		t.Fatal("no error")
	}
	if _, err := os.Stat(path); err != nil {
		t.Error("the original is gone")
	}
	if names, _ := filepath.Glob(filepath.Join(dir, "*.partial")); len(names) != 0 {
		t.Errorf("left behind: %v", names)
	}
}

func TestHalfWrittenObjectsAreSwept(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"x.partial": "half", "damaged.sealed": "KMQ1\xff\xff\xff\xff", "short.sealed": "KM"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, dir)
	if list, err := s.List(); err != nil || len(list) != 0 {
		t.Errorf("list %+v, %v", list, err)
	}
	if names, _ := filepath.Glob(filepath.Join(dir, "*.partial")); len(names) != 0 {
		t.Errorf("not swept: %v", names)
	}
}

func TestDamagedContentIsNotRestored(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	path, f := place(t, "bad")
	o, err := s.Add(t.Context(), request("a", path, f))
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "a.sealed")
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	text[len(text)-1] ^= 1
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Restore(t.Context(), o.ID, t.TempDir()); !fault.Is(err, fault.Invalid) {
		t.Errorf("error %v", err)
	}
	if _, err := s.Get(o.ID); err != nil {
		t.Error("the damaged object is gone")
	}
}

func TestPurge(t *testing.T) {
	s := open(t, t.TempDir())
	path, f := place(t, "old")
	r := request("old", path, f)
	r.Time = time.Now().Add(-100 * time.Hour)
	if _, err := s.Add(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	path, f = place(t, "new")
	if _, err := s.Add(t.Context(), request("new", path, f)); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Purge(time.Now().Add(-time.Hour)); n != 1 || err != nil {
		t.Errorf("purged %d, %v", n, err)
	}
	if list, _ := s.List(); len(list) != 1 || list[0].ID != "new" {
		t.Errorf("left %+v", list)
	}
}

func TestHistory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "history")
	h, err := quarantine.OpenHistory(file, quarantine.HistoryLimits{Items: 50})
	if err != nil {
		t.Fatal(err)
	}
	base := time.Now().Add(-time.Hour)
	for i := range 200 {
		err := h.Add(quarantine.Threat{ID: finding.ID(strings.Repeat("i", i+1)), Name: "n", Severity: finding.Low, State: finding.Detected, Time: base.Add(time.Duration(i) * time.Second)})
		if err != nil {
			t.Fatal(err)
		}
	}
	last := finding.ID(strings.Repeat("i", 200))
	if err := h.SetState(last, finding.Quarantined, ""); err != nil {
		t.Fatal(err)
	}
	if err := h.SetState("nobody", finding.Removed, ""); !fault.Is(err, fault.NotFound) {
		t.Errorf("a threat that is not there: %v", err)
	}
	// A crash in the middle of a line.
	f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"id":"half","na`); err != nil {
		t.Fatal(err)
	}
	f.Close()
	h, err = quarantine.OpenHistory(file, quarantine.HistoryLimits{Items: 50})
	if err != nil {
		t.Fatal(err)
	}
	list := h.List()
	if len(list) != 50 || list[0].ID != last || list[0].State != finding.Quarantined {
		t.Errorf("%d entries, first %+v", len(list), list[0])
	}
}

func FuzzOpen(f *testing.F) {
	f.Add([]byte("KMQ1\x20\x00\x00\x000123456789abcdef{\"id\":\"a\",\"size\":1}"))
	f.Fuzz(func(t *testing.T, object []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "a.sealed"), object, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := quarantine.Open(dir)
		if err != nil {
			return
		}
		list, _ := s.List()
		for _, o := range list {
			if path, err := s.Restore(t.Context(), o.ID, t.TempDir()); err == nil && o.Size > int64(len(object)) {
				t.Errorf("restored %s with more bytes than there are", path)
			}
		}
	})
}

func FuzzHistory(f *testing.F) {
	f.Add([]byte(`{"id":"a","severity":"Low"}` + "\n{"))
	f.Fuzz(func(t *testing.T, text []byte) {
		file := filepath.Join(t.TempDir(), "history")
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		h, err := quarantine.OpenHistory(file, quarantine.HistoryLimits{})
		if err != nil {
			return // an entry that cannot be written back is refused, not lost silently
		}
		if err := h.Add(quarantine.Threat{ID: "new", Severity: finding.Low, Time: time.Now()}); err != nil {
			t.Fatal(err)
		}
		if _, ok := h.Get("new"); !ok {
			t.Error("an entry is lost")
		}
	})
}
