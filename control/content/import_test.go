package content

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"komainu/fault"
	"komainu/internal/regular"
)

func export(t *testing.T, p *place) string {
	t.Helper()
	to := t.TempDir()
	if _, err := Export(p.repository(), to, nil, p.clock.now()); err != nil {
		t.Fatal(err)
	}
	return to
}

func TestExportIsAMirror(t *testing.T) {
	p := newPlace(t)
	r := p.open(t)
	add(t, r, "1.0.0")
	to := t.TempDir()
	c := newClient(t, to, rootOf(t, r), p.clock)
	for _, act := range story(t)[1:] {
		if err := act(p, r); err != nil {
			t.Fatal(err)
		}
		copied, err := Export(p.repository(), to, nil, p.clock.now())
		if err != nil {
			t.Fatal(err)
		}
		var versions []string
		for _, p := range copied.Packages {
			versions = append(versions, p.Version)
		}
		c.must(t, versions...)
		newClient(t, to, c.root, p.clock).must(t, versions...)
	}
	if left, _ := filepath.Glob(filepath.Join(to, "*", ".*")); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
	// A damaged package does not travel, and the copy stays as it was.
	last := r.List()[0]
	if err := os.WriteFile(filepath.Join(p.repository(), fileOf(last)), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	fresh := t.TempDir()
	if _, err := Export(p.repository(), fresh, nil, p.clock.now()); !fault.Is(err, fault.Invalid) {
		t.Errorf("a damaged package was copied: %v", err)
	}
	if _, err := os.Stat(filepath.Join(fresh, published)); err == nil {
		t.Error("a copy was published that is not whole")
	}
}

// TestCopyLasts carries a medium for as long as it was promised to be good for.
func TestCopyLasts(t *testing.T) {
	p := newPlace(t)
	r := p.open(t)
	add(t, r, "1.0.0")
	root := rootOf(t, r)
	connected := newClient(t, p.repository(), root, p.clock)
	for _, days := range []int{2, 3, 14} {
		p.clock.forward(23*time.Hour + 50*time.Minute) // nothing is to be renewed yet
		if err := r.Renew(); err != nil {
			t.Fatal(err)
		}
		connected.must(t, "1.0.0")
		good := time.Duration(days) * 24 * time.Hour
		timestamp, err := r.SignCopy(good)
		if err != nil {
			t.Fatal(err)
		}
		to := t.TempDir()
		copied, err := Export(p.repository(), to, timestamp, p.clock.now())
		if err != nil || !copied.Expires.Equal(p.clock.now().Add(good)) {
			t.Fatalf("good until %v, %v", copied.Expires, err)
		}
		// Who reads the copy goes on with what is published, and the other way round
		// nobody waits longer than before to be told what is new.
		traveller := newClient(t, to, root, p.clock)
		traveller.must(t, "1.0.0")
		traveller.dir = p.repository()
		traveller.must(t, "1.0.0")
		connected.must(t, "1.0.0")
		if left := r.Status().Timestamp.Expires.Sub(p.clock.now()); left != lives[metadata.TIMESTAMP] {
			t.Errorf("what is published is good for %v", left)
		}
		for at, want := range map[time.Duration]bool{good - time.Minute: true, good + time.Minute: false} {
			s, err := OpenSource(to, root, t.TempDir(), p.clock.now().Add(at))
			if err == nil {
				s.Close()
			}
			if (err == nil) != want {
				t.Errorf("a copy for %d days is read after %v: %v", days, at, err)
			}
			if _, err := Export(to, t.TempDir(), nil, p.clock.now().Add(at)); (err == nil) != want || err != nil && !fault.Is(err, fault.Conflict) {
				t.Errorf("a copy for %d days is copied after %v: %v", days, at, err)
			}
		}
	}
	if _, err := r.SignCopy(MaxCopy + time.Hour); !fault.Is(err, fault.Invalid) {
		t.Errorf("a copy for too long: %v", err)
	}
}

func TestImport(t *testing.T) {
	from, to := newPlace(t), newPlace(t)
	to.clock = from.clock
	r, mine := from.open(t), to.open(t)
	add(t, r, "1.0.0", "2.0.0")
	root, memory, medium := rootOf(t, r), t.TempDir(), export(t, from)
	take := func(dir string, root []byte) error {
		s, err := OpenSource(dir, root, memory, from.clock.now())
		if err != nil {
			return err
		}
		defer s.Close()
		for _, p := range s.Packages() {
			f, err := s.Open(p)
			if err != nil {
				return err
			}
			staged, err := mine.Stage(filepath.Base(p.Target), f, p.SHA256)
			f.Close()
			if err != nil {
				return err
			}
			if _, err := mine.Take(staged); err != nil {
				return err
			}
		}
		return nil
	}
	c := newClient(t, to.repository(), rootOf(t, mine), to.clock)
	if err := take(medium, root); err != nil {
		t.Fatal(err)
	}
	c.must(t, "1.0.0", "2.0.0")

	// Later, and after its keys were replaced; whichever of its roots is named.
	from.clock.forward(time.Hour)
	add(t, r, "3.0.0")
	if err := r.Rotate(RootKeys{}); err != nil {
		t.Fatal(err)
	}
	newer := export(t, from)
	if err := take(newer, root); err != nil {
		t.Fatal(err)
	}
	c.must(t, "1.0.0", "2.0.0", "3.0.0")
	for name, named := range map[string][]byte{"first root": root, "newest root": rootOf(t, r)} {
		if err := take(medium, named); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: what is older than what was imported before is taken: %v", name, err)
		}
	}
	other := newPlace(t).open(t)
	if err := take(newer, rootOf(t, other)); !fault.Is(err, fault.Invalid) {
		t.Errorf("with the root of another repository: %v", err)
	}
	if err := take(newer, nil); !fault.Is(err, fault.Invalid) {
		t.Errorf("without a root: %v", err)
	}
	from.clock.forward(3 * 24 * time.Hour)
	if err := take(newer, root); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "expired") {
		t.Errorf("expired: %v", err)
	}
	if err := mine.Renew(); err != nil {
		t.Fatal(err)
	}
	c.must(t, "1.0.0", "2.0.0", "3.0.0")
}

// TestImportOfABrokenMedium cuts and changes every file of an export.
func TestImportOfABrokenMedium(t *testing.T) {
	p := newPlace(t)
	r := p.open(t)
	add(t, r, "1.0.0")
	root := rootOf(t, r)
	good := export(t, p)
	tries := 0
	err := filepath.WalkDir(good, func(name string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(name, ".root.json") { // the trusted one is not read again
			return err
		}
		whole, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		for what, text := range map[string][]byte{"truncated": whole[:len(whole)-2], "empty": nil, "changed": bytes.Replace(whole, []byte("a"), []byte("b"), 1), "longer": append(bytes.Clone(whole), 'x')} {
			tries++
			if err := os.WriteFile(name, text, 0o600); err != nil {
				return err
			}
			if s, err := OpenSource(good, root, t.TempDir(), p.clock.now()); err == nil {
				s.Close()
				t.Errorf("%s, %s: is taken", filepath.Base(name), what)
			}
		}
		if err := os.Remove(name); err != nil {
			return err
		}
		if s, err := OpenSource(good, root, t.TempDir(), p.clock.now()); err == nil {
			s.Close()
			t.Errorf("%s is not there: is taken", filepath.Base(name))
		}
		return os.WriteFile(name, whole, 0o600)
	})
	if err != nil || tries < 16 {
		t.Fatal(tries, err)
	}
	s, err := OpenSource(good, root, t.TempDir(), p.clock.now())
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
}

// TestImportOfAPipe has pipes where files are looked for. The test does not
// end when one of them is waited for.
func TestImportOfAPipe(t *testing.T) {
	p := newPlace(t)
	r := p.open(t)
	add(t, r, "1.0.0")
	for _, k := range []struct {
		dir, file string
		root      []byte
	}{
		{export(t, p), published, rootOf(t, r)},
		{export(t, p), fileOf(r.List()[0]), rootOf(t, r)},
		{t.TempDir(), sumsFile, nil},
	} {
		pipe := filepath.Join(k.dir, k.file)
		if err := os.Remove(pipe); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		if err := syscall.Mkfifo(pipe, 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := OpenSource(k.dir, k.root, t.TempDir(), p.clock.now()); !errors.Is(err, regular.ErrNotRegular) {
			t.Errorf("%s is a pipe: %v, %v", k.file, s, err)
		}
	}
}

func TestImportOfPlainPackages(t *testing.T) {
	dir := filepath.Dir(pkg(t, "1.0.0", "package 1.0.0"))
	open := func() error {
		s, err := OpenSource(dir, nil, t.TempDir(), time.Now())
		if err == nil {
			defer s.Close()
			f, err := s.Open(s.Packages()[0])
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = io.Copy(io.Discard, f)
			return err
		}
		return err
	}
	if err := open(); !fault.Is(err, fault.Invalid) {
		t.Errorf("without sums: %v", err)
	}
	sum := sha256.Sum256([]byte("!<arch>\npackage 1.0.0"))
	write := func(text string) {
		if err := os.WriteFile(filepath.Join(dir, sumsFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	name := Agent + "_1.0.0_amd64.deb"
	write(hex.EncodeToString(sum[:]) + "  " + name + "\n")
	if err := open(); err != nil {
		t.Error(err)
	}
	for _, text := range []string{"", strings.Repeat("0", 64) + "  " + name, hex.EncodeToString(sum[:]) + "  ../" + name, hex.EncodeToString(sum[:]) + "  " + Agent + "_2.0.0_amd64.deb"} {
		write(text)
		if err := open(); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestEndlessPackage: a file on a medium that is larger than any package is not
// read to its end.
func TestEndlessPackage(t *testing.T) {
	dir, name := t.TempDir(), "komainu-agent_1.2.0_amd64.deb"
	if err := errors.Join(os.WriteFile(filepath.Join(dir, name), nil, 0o644), os.Truncate(filepath.Join(dir, name), 1<<42)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "SHA256SUMS"), []byte(strings.Repeat("0", 64)+"  "+name+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenSource(dir, nil, t.TempDir(), time.Now()); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "larger than") {
		t.Error(err)
	}
}
