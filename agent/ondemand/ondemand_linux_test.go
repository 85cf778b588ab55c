package ondemand

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"komainu/agent/scan"
	"komainu/fault"
	"komainu/finding"
	"komainu/internal/need"
	"komainu/policy"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "scan-mounts" {
		fmt.Println(scanMounts(os.Args[2]))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// sample is our inert test content, put together here.
func sample() []byte {
	return []byte("KOMAINU-INERT-" + "SAMPLE:6d1f0c52-harmless-" + "lion-dog-at-the-gate")
}

// host is a runner over a folder with the real engine.
type host struct {
	*Runner
	dir      string
	settings policy.Effective
	hold     chan struct{} // when not nil, a scan waits for it

	mu      sync.Mutex
	scanned []string
	found   []string
}

func newHost(t *testing.T, dir string) *host {
	t.Helper()
	h := &host{dir: dir, settings: policy.Merge(nil, policy.Settings{})}
	h.open(t)
	return h
}

func (h *host) open(t *testing.T) {
	t.Helper()
	engine := scan.New(scan.Embedded(), scan.DefaultLimits())
	r, err := New(Config{
		Scan: func(ctx context.Context, f *os.File) (finding.Verdict, error) {
			if h.hold != nil {
				select {
				case <-h.hold:
				case <-ctx.Done():
					return finding.Verdict{}, ctx.Err()
				}
			}
			info, err := f.Stat()
			if err != nil {
				return finding.Verdict{}, err
			}
			h.mu.Lock()
			h.scanned = append(h.scanned, f.Name())
			h.mu.Unlock()
			return engine.Scan(ctx, f, info.Size(), scan.Options{}), nil
		},
		Found: func(_ context.Context, _, path string, _ *os.File, _ finding.Verdict) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.found = append(h.found, path)
		},
		Settings: func() policy.Effective { return h.settings },
		History:  filepath.Join(t.TempDir(), "scans"),
		Mounts:   func() []string { return []string{h.dir} },
		Log:      slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	h.Runner = r
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// run starts a scan and waits for its end.
func (h *host) run(t *testing.T, q Request) Job {
	t.Helper()
	h.scanned, h.found = nil, nil
	j, err := h.Start(q)
	if err != nil {
		t.Fatal(err)
	}
	var last Job
	if err := h.Watch(t.Context(), j.ID, func(j Job) error { last = j; return nil }); err != nil {
		t.Fatal(err)
	}
	slices.Sort(h.scanned)
	slices.Sort(h.found)
	return last
}

// tree makes files; a name that ends in a slash is a folder.
func tree(t *testing.T, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, text, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestCustom(t *testing.T) {
	dir := tree(t, map[string][]byte{"a": []byte("harmless"), "deep/er/bad": sample(), "deep/x.log": sample(), "cache/bad": sample()})
	outside := tree(t, map[string][]byte{"bad": sample()})
	if err := errors.Join(
		os.Symlink(outside, filepath.Join(dir, "link")), os.Symlink(filepath.Join(outside, "bad"), filepath.Join(dir, "deep", "link")),
		unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	h := newHost(t, dir)
	h.settings.Exclusions = []policy.Exclusion{
		{Type: policy.ExcludeFolder, Value: filepath.Join(dir, "cache"), Scope: policy.ScopeEPP},
		{Type: policy.ExcludeExtension, Value: ".log", Scope: policy.ScopeEPP},
		{Type: policy.ExcludeFile, Value: filepath.Join(dir, "a"), Scope: policy.ScopeGlobal}, // not of scans on demand
	}
	for _, c := range []struct {
		request Request
		files   int64
		found   []string
	}{
		{Request{Type: Custom, Path: dir}, 2, []string{"deep/er/bad"}},
		{Request{Type: Custom, Path: dir, IgnoreExclusions: true}, 4, []string{"cache/bad", "deep/er/bad", "deep/x.log"}},
		{Request{Type: Custom, Path: filepath.Join(dir, "deep/er/bad")}, 1, []string{"deep/er/bad"}},
		{Request{Type: Custom, Path: filepath.Join(dir, "cache")}, 0, nil},
		{Request{Type: Full}, 2, []string{"deep/er/bad"}},
	} {
		j := h.run(t, c.request)
		var want []string
		for _, name := range c.found {
			want = append(want, filepath.Join(dir, name))
		}
		if j.State != Completed || j.Files != c.files || j.Threats != int64(len(c.found)) || j.Skipped != 0 || j.Error != "" || j.Current != "" || j.End.IsZero() || !slices.Equal(h.found, want) {
			t.Errorf("%+v: %+v, found %v", c.request, j, h.found)
		}
	}
	if j := h.run(t, Request{Type: Custom, Path: dir, IgnoreExclusions: true}); j.Bytes != int64(len("harmless")+3*len(sample())) {
		t.Errorf("%+v", j)
	}
}

// TestQuick looks at this host, which can hold much: once the running test is
// scanned, it has seen what it wants.
func TestQuick(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	h := newHost(t, t.TempDir())
	j, err := h.Start(Request{Type: Quick})
	if err != nil {
		t.Fatal(err)
	}
	scanned := func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return slices.Contains(h.scanned, self)
	}
	seen := errors.New("seen")
	err = h.Watch(t.Context(), j.ID, func(j Job) error {
		if j.Files > 0 && scanned() {
			return seen
		}
		return nil
	})
	if !scanned() {
		t.Errorf("a running program was not scanned: %v", err)
	}
	if _, err := h.Cancel(j.ID); err != nil && !fault.Is(err, fault.NotFound) { // it may have ended
		t.Error(err)
	}
}

func TestRefuses(t *testing.T) {
	h := newHost(t, t.TempDir())
	for q, want := range map[Request]fault.Kind{
		{Type: Custom, Path: "relative"}:             fault.Invalid,
		{Type: Custom, Path: "/nowhere/to/be/found"}: fault.NotFound,
		{Type: "thorough"}:                           fault.Invalid,
	} {
		if _, err := h.Start(q); !fault.Is(err, want) {
			t.Errorf("%+v: %v", q, err)
		}
	}
	if err := h.Watch(t.Context(), "none", nil); !fault.Is(err, fault.NotFound) {
		t.Errorf("%v", err)
	}
	if _, err := h.Cancel(""); !fault.Is(err, fault.NotFound) {
		t.Errorf("%v", err)
	}
}

func TestCancel(t *testing.T) {
	files := map[string][]byte{}
	for i := range 100 {
		files[fmt.Sprint(i)] = []byte("x")
	}
	h := newHost(t, tree(t, files))
	h.hold = make(chan struct{})
	j, err := h.Start(Request{Type: Full})
	if err != nil || j.State != Running {
		t.Fatalf("%+v, %v", j, err)
	}
	if _, err := h.Start(Request{Type: Full}); !fault.Is(err, fault.Conflict) {
		t.Errorf("two scans at once: %v", err)
	}
	// Let one file through, and see it.
	h.hold <- struct{}{}
	seen := errors.New("seen")
	if err := h.Watch(t.Context(), j.ID, func(j Job) error {
		if j.Files > 0 && strings.HasPrefix(j.Current, h.dir) {
			return seen
		}
		return nil
	}); !errors.Is(err, seen) {
		t.Errorf("%v", err)
	}
	if _, err := h.Cancel("another"); !fault.Is(err, fault.NotFound) {
		t.Errorf("%v", err)
	}
	last, err := h.Cancel(j.ID)
	if err != nil || last.State != Cancelled || last.Files != 1 || last.End.IsZero() {
		t.Errorf("%+v, %v", last, err)
	}
	if open, err := os.ReadDir("/proc/self/fd"); err != nil || len(open) > 60 {
		t.Errorf("%d descriptors are open", len(open))
	}
}

func TestRemembered(t *testing.T) {
	h := newHost(t, tree(t, map[string][]byte{"a": []byte("x")}))
	first := h.run(t, Request{Type: Full})
	h.hold = make(chan struct{})
	second, err := h.Start(Request{Type: Full})
	if err != nil {
		t.Fatal(err)
	}
	// A restart while it runs: what is on the disk is all that is left.
	again, err := New(h.cfg)
	if err != nil {
		t.Fatal(err)
	}
	jobs := again.Jobs()
	if len(jobs) != 2 || jobs[0].ID != second.ID || jobs[0].State != Failed || jobs[0].Error == "" || jobs[1].ID != first.ID || jobs[1].State != Completed || jobs[1].Files != 1 {
		t.Errorf("%+v", jobs)
	}
	if err := again.Watch(t.Context(), first.ID, func(j Job) error {
		if j.State != Completed {
			t.Errorf("%+v", j)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	close(h.hold)
	if err := h.Watch(t.Context(), second.ID, func(Job) error { return nil }); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(h.cfg.History, []byte("{damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if damaged, err := New(h.cfg); err != nil || len(damaged.Jobs()) != 0 {
		t.Errorf("%v", err)
	}
}

// TestSwapped: what was a folder or a file when it was listed and is a link by
// the time it is opened leads nowhere.
func TestSwapped(t *testing.T) {
	dir := tree(t, map[string][]byte{"folder/bad": sample(), "file": sample()})
	outside := tree(t, map[string][]byte{"bad": sample()})
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Fatal(err)
	}
	if err := errors.Join(
		os.RemoveAll(filepath.Join(dir, "folder")), os.Symlink(outside, filepath.Join(dir, "folder")),
		os.Remove(filepath.Join(dir, "file")), os.Symlink(filepath.Join(outside, "bad"), filepath.Join(dir, "file")),
	); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	targets := make(chan target, 10)
	w := &walker{ctx: t.Context(), scan: &job{}, targets: targets}
	for _, e := range entries {
		if err := w.entry(fd, filepath.Join(dir, e.Name()), e, 0); err != nil {
			t.Error(err)
		}
	}
	if len(targets) != 0 || w.scan.skipped.Load() != 2 {
		t.Errorf("%d targets, %d skipped", len(targets), w.scan.skipped.Load())
	}
}

func TestDeep(t *testing.T) {
	dir := t.TempDir()
	deep := filepath.Join(dir, strings.Repeat("d/", maxDepth+5))
	if err := errors.Join(os.MkdirAll(deep, 0o755), os.WriteFile(filepath.Join(deep, "bad"), sample(), 0o644)); err != nil {
		t.Fatal(err)
	}
	if j := newHost(t, dir).run(t, Request{Type: Full}); j.Files != 0 || j.Skipped != 1 || j.State != Completed {
		t.Errorf("what is too deep is counted: %+v", j)
	}
}

// TestMounts looks at filesystems within a path, in a mount namespace of its
// own.
func TestMounts(t *testing.T) {
	need.Root(t)
	cmd := exec.Command("/proc/self/exe", "scan-mounts", t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	want := "custom [foreign? no, local a, own]; full [own]; the mount itself [foreign]"
	if err != nil || strings.TrimSpace(string(out)) != want {
		t.Errorf("%s, %v; want %s", out, err, want)
	}
}

func scanMounts(dir string) string {
	local, foreign := filepath.Join(dir, "local a"), filepath.Join(dir, "foreign")
	if err := errors.Join(
		unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""), os.Mkdir(local, 0o755), os.Mkdir(foreign, 0o755),
		unix.Mount("tmpfs", local, "tmpfs", 0, ""), unix.Mount("tmpfs", foreign, "tmpfs", 0, ""),
		os.WriteFile(filepath.Join(dir, "own"), nil, 0o644), os.WriteFile(filepath.Join(local, "file"), nil, 0o644), os.WriteFile(filepath.Join(foreign, "file"), nil, 0o644),
	); err != nil {
		return err.Error()
	}
	names := func(root string, enter map[string]bool) []string {
		targets := make(chan target, 10)
		w := &walker{ctx: context.Background(), scan: &job{}, targets: targets, points: mountPoints(), enter: enter}
		if err := w.tree(root); err != nil {
			return []string{err.Error()}
		}
		close(targets)
		var list []string
		for t := range targets {
			name, _ := filepath.Rel(dir, t.path)
			list = append(list, strings.TrimSuffix(name, "/file"))
		}
		slices.Sort(list)
		return list
	}
	custom := names(dir, map[string]bool{local: true})
	if !slices.Contains(custom, "foreign") {
		custom = slices.Insert(custom, 0, "foreign? no")
	}
	return fmt.Sprintf("custom [%s]; full %v; the mount itself %v", strings.Join(custom, ", "), names(dir, nil), names(foreign, nil))
}

func BenchmarkWalk(b *testing.B) {
	root := os.Getenv("KOMAINU_BENCH_TREE")
	if root == "" {
		root = "."
	}
	files := 0
	began := time.Now()
	for b.Loop() {
		targets := make(chan target, 16)
		w := &walker{ctx: b.Context(), scan: &job{}, targets: targets, points: mountPoints()}
		go func() {
			defer close(targets)
			if err := w.tree(root); err != nil {
				b.Error(err)
			}
		}()
		for t := range targets {
			files++
			t.file.Close()
		}
	}
	b.ReportMetric(float64(files)/time.Since(began).Seconds(), "files/s")
}
