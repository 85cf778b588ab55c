package content

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"komainu/fault"
)

func TestClientFollows(t *testing.T) {
	p := newPlace(t)
	r := p.open(t)
	c := newClient(t, p.repository(), rootOf(t, r), p.clock)
	c.must(t)
	add(t, r, "1.0.0", "1.1.0-rc.1")
	c.must(t, "1.0.0", "1.1.0-rc.1")
	add(t, r, "1.1.0")
	c.must(t, "1.0.0", "1.1.0-rc.1", "1.1.0")
	var order []string
	for _, p := range r.List() {
		order = append(order, p.Version)
	}
	if diff := cmp.Diff([]string{"1.1.0", "1.1.0-rc.1", "1.0.0"}, order); diff != "" {
		t.Error(diff)
	}
	if n, err := r.Remove("1.1.0-rc.1"); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	c.must(t, "1.0.0", "1.1.0")
	if _, err := r.Remove("1.1.0-rc.1"); !fault.Is(err, fault.NotFound) {
		t.Errorf("removed twice: %v", err)
	}
	r.Close()
	p.open(t)
	c.must(t, "1.0.0", "1.1.0")
}

// TestRemovedStaysRemoved fills the repository from the same folder at each
// start.
func TestRemovedStaysRemoved(t *testing.T) {
	p := newPlace(t)
	file := pkg(t, "1.0.0", "package 1.0.0")
	start := func(want ...string) *Repository {
		t.Helper()
		r := p.open(t)
		if _, err := r.Fill(filepath.Dir(file)); err != nil {
			t.Fatal(err)
		}
		if err := r.Renew(); err != nil {
			t.Fatal(err)
		}
		newClient(t, p.repository(), rootOf(t, r), p.clock).must(t, want...)
		return r
	}
	r := start("1.0.0")
	full := false
	r.cfg.step = func(what string) error {
		if full && what == "write "+published {
			return syscall.ENOSPC
		}
		return nil
	}
	full = true
	if n, err := r.Remove("1.0.0"); n != 0 || !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(n, err)
	}
	full = false
	if list, err := r.removed(); err != nil || len(list) != 0 {
		t.Errorf("it is not removed, and is remembered as such: %v, %v", list, err)
	}
	if n, err := r.Remove("1.0.0"); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	r.Close()
	r = start()
	var saved []string
	save := func(name string, _ func(io.Writer) error) error { saved = append(saved, name); return nil }
	if err := r.Save(save, save); err != nil || !slices.Contains(saved, removedFile) {
		t.Errorf("a backup has %q, %v", saved, err)
	}
	p.clock.forward(5 * 24 * time.Hour)
	r.Close()
	r = start()
	add(t, r, "1.0.0") // by hand
	r.Close()
	r = start("1.0.0")

	// Another build of that version is another package.
	if _, err := r.Remove("1.0.0"); err != nil {
		t.Fatal(err)
	}
	file = pkg(t, "1.0.0", "package 1.0.0, mended")
	if added, err := r.Fill(filepath.Dir(file)); err != nil || len(added) != 1 {
		t.Errorf("%v, %v", added, err)
	}

	// What is not known is not filled in, and keeps nobody from removing.
	if err := os.WriteFile(filepath.Join(p.repository(), removedFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Fill(filepath.Dir(file)); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
	if n, err := r.Remove("1.0.0"); n != 1 || err != nil {
		t.Error(n, err)
	}
}

func TestRotationIsFollowedFromTheFirstRoot(t *testing.T) {
	p := newPlace(t)
	r := p.open(t)
	add(t, r, "1.0.0")
	first := rootOf(t, r)
	old := newClient(t, p.repository(), first, p.clock)
	old.must(t, "1.0.0")
	before := r.root.Signed.Keys
	for range 3 {
		if err := r.Rotate(RootKeys{}); err != nil {
			t.Fatal(err)
		}
		old.must(t, "1.0.0")
		newClient(t, p.repository(), first, p.clock).must(t, "1.0.0")
		newClient(t, p.repository(), rootOf(t, r), p.clock).must(t, "1.0.0")
	}
	for id := range before {
		if _, named := r.root.Signed.Keys[id]; named {
			t.Errorf("the key %s is still named", id)
		}
		if _, err := os.Stat(r.keyFile(id)); err == nil {
			t.Errorf("the key %s is still there", id)
		}
	}
	r.Close()
	add(t, p.open(t), "2.0.0")
	old.must(t, "1.0.0", "2.0.0")
}

// TestYears moves the clock by three years, half a day at a time.
func TestYears(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	r := p.open(t)
	add(t, r, "1.0.0", "1.5.0")
	c := newClient(t, p.repository(), rootOf(t, r), p.clock)
	if _, err := r.Remove("1.5.0"); err != nil {
		t.Fatal(err)
	}
	for range 3 * 365 {
		p.clock.forward(23 * time.Hour)
		if err := r.Renew(); err != nil {
			t.Fatal(err)
		}
		c.must(t, "1.0.0")
	}
	if v := r.Status().Root.Version; v < 5 || v > 8 {
		t.Errorf("root %d after three years", v)
	}
	files, err := os.ReadDir(filepath.Join(p.repository(), metadataFolder))
	if err != nil || len(files) > int(r.Status().Root.Version)+10 {
		t.Errorf("%d files of metadata, %v", len(files), err)
	}
	if left, _ := filepath.Glob(filepath.Join(p.repository(), targetsFolder, Agent, "*")); len(left) != 1 {
		t.Errorf("left: %q", left)
	}
	// Off for a year: everything has expired, and is good again at once.
	p.clock.forward(400 * 24 * time.Hour)
	if _, err := c.look(); err == nil {
		t.Error("the client takes what has expired")
	}
	r.Close()
	r = p.open(t)
	if err := r.Renew(); err != nil {
		t.Fatal(err)
	}
	c.must(t, "1.0.0")
}

func TestRefused(t *testing.T) {
	p := newPlace(t)
	r := p.open(t)
	add(t, r, "1.0.0")
	c := newClient(t, p.repository(), rootOf(t, r), p.clock)
	named := func(name, content string) string {
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	for what, k := range map[string]struct {
		files []string
		want  fault.Kind
	}{
		"other content":       {[]string{pkg(t, "2.0.0", "package 2.0.0"), pkg(t, "1.0.0", "not the same")}, fault.Conflict},
		"no package":          {[]string{pkg(t, "2.0.0", "package 2.0.0"), named("notes.txt", "!<arch>\n")}, fault.Invalid},
		"another kind":        {[]string{named(Agent+"_2.0.0_amd64.tar.gz", "!<arch>\n")}, fault.Invalid},
		"empty":               {[]string{named(Agent+"_2.0.0_amd64.deb", "")}, fault.Invalid},
		"bad version":         {[]string{named(Agent+"_.._amd64.deb", "!<arch>\n")}, fault.Invalid},
		"not there":           {[]string{"/nonexistent/" + Agent + "_2.0.0_amd64.deb"}, fault.NotFound},
		"twice, two contents": {[]string{pkg(t, "2.0.0", "one"), pkg(t, "2.0.0", "two")}, fault.Conflict},
	} {
		if _, err := r.Add(k.files...); !fault.Is(err, k.want) {
			t.Errorf("%s: %v, want %v", what, err, k.want)
		}
		c.must(t, "1.0.0")
	}
	for _, name := range []string{"../" + Agent + "_2.0.0_amd64.deb", "/etc/passwd", "..", "", Agent + "_2.0.0_amd64.deb/..", Agent + "_2.0.0/../1_amd64.deb"} {
		if _, err := r.Stage(name, strings.NewReader("!<arch>\n"), ""); !fault.Is(err, fault.Invalid) {
			t.Errorf("staged %q: %v", name, err)
		}
	}
	if _, err := r.Stage(Agent+"_2.0.0_amd64.deb", strings.NewReader("!<arch>\n"), strings.Repeat("0", 64)); !fault.Is(err, fault.Invalid) {
		t.Errorf("another sum: %v", err)
	}
	if added, err := r.Add(pkg(t, "1.0.0", "package 1.0.0")); added != nil || err != nil {
		t.Errorf("the same again: %v, %v", added, err)
	}
	if left, err := os.ReadDir(filepath.Join(p.repository(), incomingFolder)); len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if left, _ := filepath.Glob(filepath.Join(p.repository(), targetsFolder, Agent, "*", "*")); len(left) != 1 {
		t.Errorf("left: %q", left)
	}
}

// story is what a repository goes through: everything that writes.
func story(t *testing.T) []func(*place, *Repository) error {
	adding := func(version string) func(*place, *Repository) error {
		file := pkg(t, version, "package "+version)
		return func(_ *place, r *Repository) error { _, err := r.Add(file); return err }
	}
	return []func(*place, *Repository) error{
		adding("1.0.0"), adding("2.0.0"),
		func(_ *place, r *Repository) error {
			_, err := r.Remove("1.0.0")
			if fault.Is(err, fault.NotFound) {
				return nil // it never came in
			}
			return err
		},
		func(_ *place, r *Repository) error { return r.Rotate(RootKeys{}) },
		func(p *place, r *Repository) error { p.clock.forward(26 * time.Hour); return r.Renew() },
		func(p *place, r *Repository) error { p.clock.forward(200 * 24 * time.Hour); return r.Renew() },
		adding("3.0.0"),
	}
}

// TestInterruptedAnywhere ends the process before each change of the disk, one
// after the other, and has the disk be full there. A client is never refused
// and never goes back.
func TestInterruptedAnywhere(t *testing.T) {
	t.Parallel()
	acts, places := story(t), 0
	for _, mode := range []string{"crash", "full"} {
		for n := 1; ; n++ {
			p := newPlace(t)
			r := p.open(t)
			c := newClient(t, p.repository(), rootOf(t, r), p.clock)
			c.must(t)
			r.Close()
			steps, where, aged := 0, "", false
			p.step = func(what string) error {
				if steps++; steps == n || mode == "crash" && steps > n {
					if where == "" {
						where = what
					}
					return syscall.ENOSPC
				}
				return nil
			}
			r = p.open(t)
			for i, act := range acts {
				err := act(p, r)
				if steps >= n && mode == "crash" && p.step != nil {
					expired := i == 5 // nothing could be signed while half a year passed
					if _, err := c.look(); err != nil && !expired {
						t.Fatalf("ended before step %d (%s): %v", n, where, err)
					}
					r.Close()
					p.step = nil
					r = p.open(t)
					err = r.Renew()
				} else if err != nil && (steps < n || p.step == nil) {
					t.Fatal(err)
				}
				if err != nil && mode == "full" {
					err = r.Renew() // as Run does
				}
				if err != nil {
					t.Fatalf("%s at step %d (%s): %v", mode, n, where, err)
				}
				if _, err := c.look(); err != nil {
					t.Fatalf("%s at step %d (%s), act %d: %v", mode, n, where, i, err)
				}
				if steps >= n && !aged {
					aged = true
					staysWhole(t, p, r, fmt.Sprintf("%s at step %d (%s), act %d", mode, n, where, i))
				}
			}
			count := steps
			p.step, r.cfg.step = nil, func(string) error { return nil }
			add(t, r, "4.0.0")
			got, err := c.look()
			if err != nil || got["4.0.0"] == "" {
				t.Fatalf("%s at step %d (%s): %v, %v", mode, n, where, got, err)
			}
			newClient(t, p.repository(), c.root, p.clock).must(t, keysOf(got)...)
			if count < n {
				places += n - 1
				break
			}
		}
	}
	if places < 60 {
		t.Errorf("only %d places; the story does not write any more", places)
	}
	t.Logf("%d places", places)
}

// staysWhole has three days pass, and then a package refused. What clients use
// is still there, also for the next start.
func staysWhole(t *testing.T, p *place, r *Repository, after string) {
	t.Helper()
	want := len(r.List())
	for range 6 {
		p.clock.forward(12 * time.Hour)
		if err := r.Renew(); err != nil {
			t.Fatalf("%s: %v", after, err)
		}
	}
	if _, err := r.Add(pkg(t, "9.0.0", "one"), pkg(t, "9.0.0", "two")); !fault.Is(err, fault.Conflict) {
		t.Fatalf("%s: two contents of one version: %v", after, err)
	}
	if got, err := newClient(t, p.repository(), rootOf(t, r), p.clock).look(); err != nil || len(got) != want {
		t.Fatalf("%s, three days and a refusal later: %d packages of %d, %v", after, len(got), want, err)
	}
	for role, current := range map[string]int64{metadata.SNAPSHOT: r.snapshot.Signed.Version, metadata.TARGETS: r.targets.Signed.Version} {
		if list := r.versions(role); list[len(list)-1] != current {
			t.Errorf("%s: of %s %d is in use, there are %d", after, role, current, list)
		}
	}
	again := &Repository{cfg: r.cfg, seal: r.seal, dir: r.dir}
	if err := again.open(); err != nil || again.Status().Problem != "" || len(again.List()) != want {
		t.Fatalf("%s, at the start after: %v, %q, %d packages of %d", after, err, again.Status().Problem, len(again.List()), want)
	}
}

func keysOf(m map[string]string) (keys []string) {
	for k := range m {
		keys = append(keys, k)
	}
	return keys
}

// TestInterruptedBegin ends the first start anywhere; the next one works.
func TestInterruptedBegin(t *testing.T) {
	for n := 1; n < 12; n++ {
		p := newPlace(t)
		steps := 0
		p.step = func(string) error {
			if steps++; steps >= n {
				return syscall.ENOSPC
			}
			return nil
		}
		if r, err := Open(p.config()); err == nil {
			r.Close()
		}
		p.step = nil
		r := p.open(t)
		if err := r.Renew(); err != nil {
			t.Fatal(n, err)
		}
		add(t, r, "1.0.0")
		if s := r.Status(); s.Problem != "" {
			t.Errorf("%d: %s", n, s.Problem)
		}
		newClient(t, p.repository(), rootOf(t, r), p.clock).must(t, "1.0.0")
	}
}

// TestSetBack brings the state folder of yesterday back, as a backup or a
// snapshot of the machine does.
func TestSetBack(t *testing.T) {
	p := newPlace(t)
	r := p.open(t)
	add(t, r, "1.0.0")
	c := newClient(t, p.repository(), rootOf(t, r), p.clock)
	yesterday := t.TempDir()
	if err := os.CopyFS(yesterday, os.DirFS(p.dir)); err != nil {
		t.Fatal(err)
	}
	p.clock.forward(24 * time.Hour)
	for _, v := range []string{"2.0.0", "3.0.0", "4.0.0"} {
		add(t, r, v)
		p.clock.forward(time.Minute)
	}
	c.must(t, "1.0.0", "2.0.0", "3.0.0", "4.0.0")
	p.clock.forward(time.Minute)
	back := &place{dir: yesterday, clock: p.clock}
	c.dir = back.repository()
	if _, err := c.look(); err == nil {
		t.Error("the client takes a repository that was set back, so it would take a replayed one")
	}
	r = back.open(t)
	if err := r.Renew(); err != nil {
		t.Fatal(err)
	}
	c.must(t, "1.0.0")
}

func TestForeignListIsNotSigned(t *testing.T) {
	p, evil := newPlace(t), newPlace(t)
	r, other := p.open(t), evil.open(t)
	add(t, r, "1.0.0")
	add(t, other, "6.6.6")
	root := rootOf(t, r)
	newest := numbered(r.targets.Signed.Version, metadata.TARGETS)
	r.Close()
	text, err := os.ReadFile(filepath.Join(evil.repository(), numbered(other.targets.Signed.Version, metadata.TARGETS)))
	if err == nil {
		err = os.WriteFile(filepath.Join(p.repository(), newest), text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	r = p.open(t)
	if err := r.Renew(); err != nil {
		t.Fatal(err)
	}
	if s := r.Status(); len(s.Packages) != 0 || s.Problem == "" {
		t.Errorf("%+v", s)
	}
	c := newClient(t, p.repository(), root, p.clock)
	c.must(t)
	add(t, r, "1.0.0")
	c.must(t, "1.0.0")
	if s := r.Status(); s.Problem != "" {
		t.Error(s.Problem)
	}
}

// TestDamaged breaks each file of the metadata in turn. Nothing keeps the
// control plane from starting but a broken root.
func TestDamaged(t *testing.T) {
	for _, content := range []string{"", "{", "null", "[]", `{"signed":{},"signatures":[]}`} {
		for _, which := range []string{"timestamp.json", "*.snapshot.json", "*.targets.json"} {
			p := newPlace(t)
			r := p.open(t)
			add(t, r, "1.0.0")
			c := newClient(t, p.repository(), rootOf(t, r), p.clock)
			c.must(t, "1.0.0")
			r.Close()
			names, err := filepath.Glob(filepath.Join(p.repository(), metadataFolder, which))
			if err != nil || len(names) == 0 {
				t.Fatal(names, err)
			}
			for _, name := range names {
				if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			p.clock.forward(time.Minute)
			r = p.open(t)
			if err := r.Renew(); err != nil || r.Status().Problem == "" {
				t.Errorf("%s %q: %v, %q", which, content, err, r.Status().Problem)
			}
			add(t, r, "1.0.0")
			c.must(t, "1.0.0")
		}
	}
}

func TestRootKeyThatIsNotHere(t *testing.T) {
	p := newPlace(t)
	r := p.open(t)
	add(t, r, "1.0.0")
	c := newClient(t, p.repository(), rootOf(t, r), p.clock)
	key, text, err := NewRootKey()
	if err != nil {
		t.Fatal(err)
	}
	if parsed, err := ParseRootKey(text); err != nil || !parsed.Equal(key) {
		t.Fatal(err)
	}
	if err := r.Rotate(RootKeys{Next: key}); err != nil {
		t.Fatal(err)
	}
	c.must(t, "1.0.0")
	if !r.Status().Root.Offline {
		t.Error("the root key is said to be here")
	}
	files, _ := os.ReadDir(filepath.Join(p.dir, "keys"))
	for _, f := range files {
		if held, _ := os.ReadFile(filepath.Join(p.dir, "keys", f.Name())); bytes.Contains(held, key.Seed()) {
			t.Errorf("%s holds the root key", f.Name())
		}
	}
	for range 600 { // ten months of everything else
		p.clock.forward(12 * time.Hour)
		if err := r.Renew(); err != nil {
			t.Fatal(err)
		}
	}
	c.must(t, "1.0.0")
	p.clock.forward(10 * 24 * time.Hour)
	if err := r.Renew(); !fault.Is(err, fault.Denied) || !strings.Contains(r.Status().Problem, "--root-key") {
		t.Errorf("nobody says that the root ends: %v", err)
	}
	c.must(t, "1.0.0") // the rest was renewed all the same
	_, wrong, _ := ed25519.GenerateKey(nil)
	for _, keys := range []RootKeys{{}, {Have: wrong}} {
		if err := r.Rotate(keys); !fault.Is(err, fault.Denied) {
			t.Errorf("rotated without the key: %v", err)
		}
	}
	if err := r.Rotate(RootKeys{Have: key}); err != nil {
		t.Fatal(err)
	}
	if err := r.Renew(); err != nil || r.Status().Root.Offline {
		t.Error(err, "the new key is not here")
	}
	c.must(t, "1.0.0")
}

// TestRotationAfterAnInterruptedOne interrupts a rotation anywhere, and then
// has the root key be kept elsewhere. What was asked for last is what holds.
func TestRotationAfterAnInterruptedOne(t *testing.T) {
	t.Parallel()
	away, _, err := NewRootKey()
	if err != nil {
		t.Fatal(err)
	}
	next, _, err := NewRootKey()
	if err != nil {
		t.Fatal(err)
	}
	_, id, err := public(next)
	if err != nil {
		t.Fatal(err)
	}
	for what, first := range map[string]RootKeys{"kept here": {}, "kept elsewhere": {Next: away}} {
		interrupted := 0
		for n := 1; ; n++ {
			p := newPlace(t)
			r := p.open(t)
			add(t, r, "1.0.0")
			c := newClient(t, p.repository(), rootOf(t, r), p.clock)
			steps := 0
			r.cfg.step = func(string) error {
				if steps++; steps == n {
					return syscall.ENOSPC
				}
				return nil
			}
			_ = r.Rotate(first)
			r.cfg.step = func(string) error { return nil }
			if steps < n {
				break
			}
			keys := RootKeys{Next: next}
			if r.rotating() {
				interrupted++
			}
			if named, err := RootKey(p.repository(), away); err != nil {
				t.Fatal(err)
			} else if named {
				if err := r.Rotate(keys); !fault.Is(err, fault.Denied) {
					t.Errorf("%s, step %d: without the root key: %v", what, n, err)
				}
				if named, err := RootKey(p.repository(), next); named || err != nil {
					t.Errorf("%s, step %d: what was refused is the root key: %v", what, n, err)
				}
				keys.Have = away
			}
			if err := r.Rotate(keys); err != nil {
				t.Fatalf("%s, step %d: %v", what, n, err)
			}
			if ids := r.root.Signed.Roles[metadata.ROOT].KeyIDs; len(ids) != 1 || ids[0] != id || r.holds(metadata.ROOT) || r.rotating() {
				t.Errorf("%s, step %d: the root keys are %q, want %s, not here", what, n, ids, id)
			}
			c.must(t, "1.0.0")
		}
		if interrupted < 3 {
			t.Errorf("%s: only %d interrupted", what, interrupted)
		}
	}
}

// TestLostKey replaces a key that is gone.
func TestLostKey(t *testing.T) {
	p := newPlace(t)
	r := p.open(t)
	add(t, r, "1.0.0")
	c := newClient(t, p.repository(), rootOf(t, r), p.clock)
	if err := os.Remove(r.keyFile(r.root.Signed.Roles[metadata.TIMESTAMP].KeyIDs[0])); err != nil {
		t.Fatal(err)
	}
	p.clock.forward(36 * time.Hour)
	if err := r.Renew(); !fault.Is(err, fault.Denied) {
		t.Fatal(err)
	}
	if err := r.Rotate(RootKeys{}); err != nil {
		t.Fatal(err)
	}
	if err := r.Renew(); err != nil {
		t.Fatal(err)
	}
	c.must(t, "1.0.0")
}

// TestTogether has everybody work at once.
func TestTogether(t *testing.T) {
	p := newPlace(t)
	r := p.open(t)
	add(t, r, "0.0.1")
	root := rootOf(t, r)
	var files []string
	for _, v := range []string{"1.0.0", "1.0.1", "1.0.2", "1.0.3", "1.0.4", "1.0.5"} {
		files = append(files, pkg(t, v, "package "+v))
	}
	var all, readers sync.WaitGroup
	done := make(chan struct{})
	for _, f := range files {
		all.Go(func() {
			if _, err := r.Add(f); err != nil {
				t.Error(err)
			}
		})
	}
	all.Go(func() {
		for range 3 {
			if err := r.Rotate(RootKeys{}); err != nil {
				t.Error(err)
			}
			if err := r.Renew(); err != nil {
				t.Error(err)
			}
		}
	})
	c := newClient(t, p.repository(), root, p.clock)
	readers.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			if _, err := c.look(); err != nil {
				t.Error(err)
				return
			}
			if _, err := Export(p.repository(), filepath.Join(p.dir, "copy"), nil, p.clock.now()); err != nil {
				t.Error(err)
				return
			}
			r.Status()
		}
	})
	all.Wait()
	close(done)
	readers.Wait()
	c.must(t, "0.0.1", "1.0.0", "1.0.1", "1.0.2", "1.0.3", "1.0.4", "1.0.5")
}

func TestServesNothingElse(t *testing.T) {
	p := newPlace(t)
	r := p.open(t)
	add(t, r, "1.0.0")
	for _, name := range []string{"incoming/package-1", "metadata/.x", "loose"} {
		if err := os.WriteFile(filepath.Join(p.repository(), name), []byte("secret"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(p.dir, "keys", "seal.key"), filepath.Join(p.repository(), "metadata", "out.json")); err != nil {
		t.Fatal(err)
	}
	h := r.Handler("/repository/", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) })
	found := r.List()[0]
	for path, want := range map[string]int{
		"metadata/timestamp.json": 200, "metadata/1.root.json": 200, fileOf(found): 200,
		"": 404, "metadata": 404, "metadata/": 404, "incoming/package-1": 404, "metadata/.x": 404, "loose": 404, "metadata/out.json": 404,
		"../keys/seal.key": 404, "metadata/../../keys/seal.key": 404, "metadata/..%2f..%2fkeys%2fseal.key": 404,
	} {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequest("GET", "/repository/"+path, nil))
		if rec.Code != want {
			t.Errorf("%q answers %d, want %d", path, rec.Code, want)
		}
	}
}

// FuzzDescribe looks for a name that leads out of the repository.
func FuzzDescribe(f *testing.F) {
	for _, s := range []string{Agent + "_1.2.3_amd64.deb", Agent + "-1.2.3~rc1-1.x86_64.rpm", Agent + "_1.2.3+a_arm64.tar.gz", "../x", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		p, ok := Describe(name)
		if ok && (!filepath.IsLocal(p.Target) || filepath.Clean(p.Target) != p.Target || strings.Count(p.Target, "/") != 2) {
			t.Errorf("%q is kept as %q", name, p.Target)
		}
	})
}
