package content_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"komainu/agent/content"
	server "komainu/control/content"
	"komainu/fault"
)

// house is a real repository and a device that was given its root.
type house struct {
	t      testing.TB
	dir    string
	repo   *server.Repository
	now    time.Time
	client *content.Client
	state  string
}

func open(t testing.TB, dir string, now func() time.Time) *server.Repository {
	t.Helper()
	r, err := server.Open(server.Config{Dir: filepath.Join(dir, "repository"), Keys: filepath.Join(dir, "keys"), Log: slog.New(slog.DiscardHandler), Now: now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func newHouse(t testing.TB) *house {
	t.Helper()
	h := &house{t: t, dir: t.TempDir(), now: time.Now(), state: filepath.Join(t.TempDir(), "content")}
	if err := os.Mkdir(filepath.Join(h.dir, "keys"), 0o700); err != nil {
		t.Fatal(err)
	}
	h.repo = open(t, h.dir, h.clock)
	root, err := h.repo.Root()
	if err != nil {
		t.Fatal(err)
	}
	h.client = content.New(content.Config{Dir: h.state, Root: root, Now: h.clock})
	h.add("1.0.0")
	return h
}

func (h *house) clock() time.Time { return h.now }

// file is what passes for a package: it begins like one.
func file(version string) string { return "!<arch>\npackage " + version }

func (h *house) add(version string) {
	h.t.Helper()
	name := filepath.Join(h.t.TempDir(), "komainu-agent_"+version+"_amd64.deb")
	if err := os.WriteFile(name, []byte(file(version)), 0o644); err != nil {
		h.t.Fatal(err)
	}
	if _, err := h.repo.Add(name); err != nil {
		h.t.Fatal(err)
	}
}

// copy is the repository as it is now, for somebody who keeps it.
func (h *house) copy() string {
	h.t.Helper()
	dir := h.t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(h.dir, "repository"))); err != nil {
		h.t.Fatal(err)
	}
	return dir
}

func (h *house) source() content.Source { return content.Folder(filepath.Join(h.dir, "repository")) }

func (h *house) refresh() {
	h.t.Helper()
	if err := h.client.Refresh(h.t.Context(), h.source()); err != nil {
		h.t.Fatal(err)
	}
}

// knows checks which versions are known.
func (h *house) knows(want ...string) {
	h.t.Helper()
	list, err := h.client.Packages(h.now)
	if err != nil {
		h.t.Fatal(err)
	}
	got := []string{}
	for _, p := range list {
		got = append(got, p.Version)
	}
	if d := gocmp.Diff(want, got); d != "" {
		h.t.Errorf("known versions:\n%s", d)
	}
}

// refuses checks that a source is not believed and that nothing has changed.
func (h *house) refuses(from content.Source, says string) {
	h.t.Helper()
	before, err := h.client.Packages(h.now)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := h.client.Refresh(h.t.Context(), from); !fault.Is(err, fault.Unauthentic) || !strings.Contains(err.Error(), says) {
		h.t.Errorf("refresh: %v, want it to be unauthentic and to say %q", err, says)
	}
	after, err := h.client.Packages(h.now)
	if d := gocmp.Diff(before, after); err != nil || d != "" {
		h.t.Errorf("what was known has changed: %v\n%s", err, d)
	}
}

func TestRefresh(t *testing.T) {
	h := newHouse(t)
	if _, err := h.client.Packages(h.now); !fault.Is(err, fault.NotFound) {
		t.Errorf("before anything was read: %v", err)
	}
	h.refresh()
	h.knows("1.0.0")
	h.refresh()
	h.add("1.1.0")
	h.add("1.0.1")
	h.refresh()
	h.knows("1.1.0", "1.0.1", "1.0.0")
	if _, err := h.repo.Remove("1.0.1"); err != nil {
		t.Fatal(err)
	}
	h.refresh()
	h.knows("1.1.0", "1.0.0")
	// What is known survives the agent, and belongs to the root of its enrolment.
	root, err := h.repo.Root()
	if err != nil {
		t.Fatal(err)
	}
	h.client = content.New(content.Config{Dir: h.state, Root: root, Now: h.clock})
	h.knows("1.1.0", "1.0.0")
	other := newHouse(t)
	elsewhere, err := other.repo.Root()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := content.New(content.Config{Dir: h.state, Root: elsewhere}).Packages(h.now); !fault.Is(err, fault.NotFound) {
		t.Errorf("enrolled elsewhere: %v", err)
	}
	if err := content.New(content.Config{Dir: h.state}).Refresh(t.Context(), h.source()); !fault.Is(err, fault.Conflict) {
		t.Errorf("without a root: %v", err)
	}
}

func TestOldAndReplayedIsRefused(t *testing.T) {
	h := newHouse(t)
	old := h.copy()
	h.add("1.1.0")
	h.refresh()
	h.refuses(content.Folder(old), "older than what was seen before")
}

// TestFrozen: a copy that is shown for ever is told by its age.
func TestFrozen(t *testing.T) {
	h := newHouse(t)
	h.refresh()
	frozen := h.copy()
	h.now = h.now.Add(3 * 24 * time.Hour)
	if err := h.client.Refresh(t.Context(), content.Folder(frozen)); !fault.Is(err, fault.Unauthentic) || !strings.Contains(err.Error(), "has expired") {
		t.Errorf("a frozen copy: %v", err)
	}
	if _, err := h.client.Packages(h.now); !fault.Is(err, fault.Unauthentic) {
		t.Errorf("what is known has expired too: %v", err)
	}
	if list, err := h.client.Packages(h.now.Add(-3 * 24 * time.Hour)); err != nil || len(list) != 1 {
		t.Errorf("by the clock of when it was fetched: %v, %v", list, err)
	}
	// Signed again, it counts again.
	if err := h.repo.Renew(); err != nil {
		t.Fatal(err)
	}
	h.refresh()
	h.knows("1.0.0")
}

// newest returns the file of the newest version of a role.
func newest(t testing.TB, dir, role string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "metadata", "*."+role+".json"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no %s in %s: %v", role, dir, err)
	}
	return slices.MaxFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) })
}

// TestMixed: each file is genuine, and they do not belong together.
func TestMixed(t *testing.T) {
	h := newHouse(t)
	before := h.copy()
	h.add("1.1.0")
	h.refresh()
	h.add("1.2.0")
	mixed := h.copy()
	for _, role := range []string{"targets", "snapshot"} {
		t.Run(role, func(t *testing.T) {
			file := newest(t, mixed, role)
			whole, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			defer os.WriteFile(file, whole, 0o644)
			older, err := os.ReadFile(newest(t, before, role))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, older, 0o644); err != nil {
				t.Fatal(err)
			}
			h.refuses(content.Folder(mixed), "older than what was seen")
		})
	}
	if err := h.client.Refresh(t.Context(), content.Folder(mixed)); err != nil {
		t.Errorf("put right again: %v", err)
	}
	h.knows("1.2.0", "1.1.0", "1.0.0")
}

// TestEveryByteOfMetadataCounts changes bytes of what is signed.
func TestEveryByteOfMetadataCounts(t *testing.T) {
	h := newHouse(t)
	h.refresh()
	h.add("1.1.0")
	known, err := os.ReadFile(filepath.Join(h.state, "trusted.json"))
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(rt *rapid.T) {
		if err := os.WriteFile(filepath.Join(h.state, "trusted.json"), known, 0o600); err != nil {
			rt.Fatal(err)
		}
		role, changed := rapid.SampledFrom([]string{"timestamp.json", "snapshot.json", "targets.json"}).Draw(rt, "role"), false
		from := content.SourceFunc(func(ctx context.Context, name string) (io.ReadCloser, error) {
			in, err := h.source().Open(ctx, name)
			if err != nil || !strings.HasSuffix(name, role) {
				return in, err
			}
			changed = true
			defer in.Close()
			text, err := io.ReadAll(in)
			if err != nil {
				return nil, err
			}
			at := bytes.Index(text, []byte(`"signed"`)) + 10
			at += rapid.IntRange(0, len(text)-at-2).Draw(rt, "at")
			if rapid.Bool().Draw(rt, "cut") {
				text = text[:at]
			} else {
				text[at] ^= 1 << rapid.IntRange(0, 6).Draw(rt, "bit")
			}
			return io.NopCloser(bytes.NewReader(text)), nil
		})
		err := h.client.Refresh(t.Context(), from)
		if !changed {
			rt.Fatal("nothing was changed")
		}
		if err == nil {
			// A changed space outside of what is canonical changes nothing.
			h.knows("1.1.0", "1.0.0")
			rt.Skip()
		}
		list, err := h.client.Packages(h.now)
		if err != nil || len(list) != 1 || list[0].Version != "1.0.0" {
			rt.Fatalf("what was known is now %v, %v", list, err)
		}
	})
}

func TestSignedByAnother(t *testing.T) {
	h, other := newHouse(t), newHouse(t)
	h.refresh()
	other.add("9.9.9")
	other.add("9.9.10")
	h.refuses(other.source(), "not signed by whom this device trusts")
}

// TestRotation: a device that was away follows from root to root; what the
// old keys sign does not count any more.
func TestRotation(t *testing.T) {
	h := newHouse(t)
	h.refresh()
	stolen := h.copy()
	for range 3 {
		if err := h.repo.Rotate(server.RootKeys{}); err != nil {
			t.Fatal(err)
		}
	}
	h.add("1.1.0")
	h.refresh()
	h.knows("1.1.0", "1.0.0")
	h.refuses(content.Folder(stolen), "not signed by whom this device trusts")

	// A root that skips one is no root.
	if err := h.repo.Rotate(server.RootKeys{}); err != nil {
		t.Fatal(err)
	}
	if err := h.repo.Rotate(server.RootKeys{}); err != nil {
		t.Fatal(err)
	}
	gap := h.copy()
	if err := os.Rename(filepath.Join(gap, "metadata/10.root.json"), filepath.Join(gap, "metadata/8.root.json")); err != nil {
		t.Fatal(err)
	}
	h.refuses(content.Folder(gap), "not signed by whom this device trusts")
	h.refresh()
}

// TestRestoredFromBackup: what a control plane signs after it was restored is
// older than what devices have seen, which they must refuse. New keys tell
// that it is meant.
func TestRestoredFromBackup(t *testing.T) {
	h := newHouse(t)
	backup := t.TempDir()
	if err := os.CopyFS(backup, os.DirFS(h.dir)); err != nil {
		t.Fatal(err)
	}
	for _, v := range []string{"1.1.0", "1.2.0", "1.3.0"} {
		h.add(v)
	}
	h.refresh()
	h.dir, h.repo = backup, open(t, backup, h.clock)
	h.refuses(h.source(), "komainu-control content rotate")
	if err := h.repo.Rotate(server.RootKeys{}); err != nil {
		t.Fatal(err)
	}
	h.refresh()
	h.knows("1.0.0")
}

func TestEndlessData(t *testing.T) {
	h := newHouse(t)
	h.refresh()
	h.add("1.1.0")
	for _, file := range []string{"timestamp.json", "snapshot.json", "targets.json", "root.json"} {
		t.Run(file, func(t *testing.T) {
			given := 0
			h.refuses(content.SourceFunc(func(ctx context.Context, name string) (io.ReadCloser, error) {
				if strings.HasSuffix(name, file) {
					return io.NopCloser(endless{&given}), nil
				}
				return h.source().Open(ctx, name)
			}), "does not end")
			if given > 6<<20 {
				t.Errorf("%d bytes were taken", given)
			}
		})
	}
}

type endless struct{ given *int }

func (e endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = ' '
	}
	*e.given += len(b)
	return len(b), nil
}

func TestFetch(t *testing.T) {
	h := newHouse(t)
	h.refresh()
	list, err := h.client.Packages(h.now)
	if err != nil {
		t.Fatal(err)
	}
	p, ok := content.Find(list, "komainu-agent", "", "amd64", "deb")
	if !ok {
		t.Fatalf("no package in %+v", list)
	}
	if _, ok := content.Find(list, "komainu-agent", "", "amd64", "rpm"); ok {
		t.Error("a package in a form that is not there")
	}
	dir := t.TempDir()
	to, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	gives := func(text string) content.Source {
		return content.SourceFunc(func(context.Context, string) (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader(text)), nil
		})
	}
	given := 0
	for name, from := range map[string]content.Source{
		"truncated": gives(file("1.0")), "changed": gives(file("1.0.1")), "longer": gives(file("1.0.0 and more")), "empty": gives(""),
		"endless": content.SourceFunc(func(context.Context, string) (io.ReadCloser, error) { return io.NopCloser(endless{&given}), nil }),
	} {
		if err := content.Fetch(t.Context(), from, p, to, "agent.deb"); !fault.Is(err, fault.Unauthentic) {
			t.Errorf("%s: %v", name, err)
		}
		if left, _ := os.ReadDir(dir); len(left) != 0 {
			t.Errorf("%s: left behind: %v", name, left)
		}
	}
	if given > 1<<20 {
		t.Errorf("%d bytes of an endless package were taken", given)
	}
	if err := content.Fetch(t.Context(), h.source(), p, to, "agent.deb"); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "agent.deb")); err != nil || string(text) != file("1.0.0") {
		t.Errorf("fetched %q, %v", text, err)
	}
	// A file that is there and right is not fetched again; one that was changed is.
	if err := content.Fetch(t.Context(), gives("nothing"), p, to, "agent.deb"); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "agent.deb"), []byte(file("1.0.X")), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := content.Verify(p, to, "agent.deb"); !fault.Is(err, fault.Unauthentic) {
		t.Errorf("a file that was changed: %v", err)
	}
	if err := content.Fetch(t.Context(), h.source(), p, to, "agent.deb"); err != nil {
		t.Error(err)
	}
}

func TestSources(t *testing.T) {
	h := newHouse(t)
	web := httptest.NewServer(http.StripPrefix("/komainu", h.repo.Handler("", http.NotFound)))
	defer web.Close()
	mirror, err := content.Mirror(web.URL+"/komainu", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.client.Refresh(t.Context(), mirror); err != nil {
		t.Fatal(err)
	}
	h.knows("1.0.0")
	exported := t.TempDir()
	if _, err := server.Export(filepath.Join(h.dir, "repository"), exported, nil, h.now); err != nil {
		t.Fatal(err)
	}
	if err := h.client.Refresh(t.Context(), content.Folder(exported)); err != nil {
		t.Errorf("an exported copy: %v", err)
	}
	if err := h.client.Refresh(t.Context(), content.Folder(t.TempDir())); !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "holds no repository") {
		t.Errorf("an empty folder: %v", err)
	}
	if _, err := content.Mirror("ftp://mirror", nil); !fault.Is(err, fault.Invalid) {
		t.Errorf("an address that is none: %v", err)
	}
	// A link that leads out of the medium is not followed.
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(exported, "metadata/timestamp.json")
	if err := errors.Join(os.Remove(out), os.Symlink(secret, out)); err != nil {
		t.Fatal(err)
	}
	if _, err := content.Folder(exported).Open(t.Context(), "metadata/timestamp.json"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a link out of the medium: %v", err)
	}
}

// TestMirrorThatDenies: stores of objects that may not be listed say of what
// they do not have that it is forbidden.
func TestMirrorThatDenies(t *testing.T) {
	h := newHouse(t)
	forbidden := func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "AccessDenied", http.StatusForbidden) }
	web := httptest.NewServer(h.repo.Handler("", forbidden))
	defer web.Close()
	mirror, err := content.Mirror(web.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.client.Refresh(t.Context(), mirror); err != nil {
		t.Fatal(err)
	}
	h.knows("1.0.0")
	closed := httptest.NewServer(http.HandlerFunc(forbidden))
	defer closed.Close()
	if mirror, err = content.Mirror(closed.URL, nil); err != nil {
		t.Fatal(err)
	}
	if err := h.client.Refresh(t.Context(), mirror); err == nil || !strings.Contains(err.Error(), "403") {
		t.Errorf("a mirror that gives nothing out: %v", err)
	}
}

// TestDamagedState: what cannot be read is begun anew from the root.
func TestDamagedState(t *testing.T) {
	h := newHouse(t)
	h.refresh()
	file := filepath.Join(h.state, "trusted.json")
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(whole) {
		if n%97 != 0 {
			continue
		}
		if err := os.WriteFile(file, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		h.refresh()
		h.knows("1.0.0")
	}
}

// FuzzMetadata gives a device metadata that somebody made up.
func FuzzMetadata(f *testing.F) {
	h := newHouse(f)
	h.refresh()
	files := []string{"timestamp.json", "snapshot.json", "targets.json", "root.json"}
	for i, name := range files {
		path := filepath.Join(h.dir, "repository", "metadata", name)
		if i > 0 {
			path = newest(f, filepath.Join(h.dir, "repository"), strings.TrimSuffix(name, ".json"))
		}
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), text)
		f.Add(uint8(i), text[:len(text)/2])
	}
	f.Add(uint8(0), []byte(`{"signatures":[],"signed":{"_type":"timestamp","meta":{},"version":9,"expires":"2999-01-01T00:00:00Z","spec_version":"1.0.31"}}`))
	root, err := h.repo.Root()
	if err != nil {
		f.Fatal(err)
	}
	known, err := os.ReadFile(filepath.Join(h.state, "trusted.json"))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, which uint8, text []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "trusted.json"), known, 0o600); err != nil {
			t.Fatal(err)
		}
		name := files[int(which)%len(files)]
		c := content.New(content.Config{Dir: dir, Root: root, Now: h.clock})
		_ = c.Refresh(t.Context(), content.SourceFunc(func(ctx context.Context, file string) (io.ReadCloser, error) {
			if strings.HasSuffix(file, name) && name != "root.json" || file == "metadata/2.root.json" && name == "root.json" {
				return io.NopCloser(bytes.NewReader(text)), nil
			}
			return h.source().Open(ctx, file)
		}))
		list, err := c.Packages(h.now)
		if err != nil || len(list) != 1 || list[0].Version != "1.0.0" {
			t.Fatalf("what was known is now %v, %v", list, err)
		}
		// The same bytes where the agent keeps its own.
		var s map[string]any
		if json.Unmarshal(known, &s) != nil {
			t.Fatal("no JSON")
		}
		s[[]string{"timestamp", "snapshot", "targets", "root"}[int(which)%4]] = text
		changed, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "trusted.json"), changed, 0o600); err != nil {
			t.Fatal(err)
		}
		if list, err := c.Packages(h.now); err == nil && (len(list) != 1 || list[0].Version != "1.0.0") {
			t.Fatalf("unsigned: %v", list)
		}
	})
}
