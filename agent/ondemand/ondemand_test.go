package ondemand_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"komainu/agent/ondemand"
	"komainu/fault"
	"komainu/finding"
	"komainu/policy"
)

// bench is a runner whose scanner takes files that hold "BAD" for malware.
type bench struct {
	*ondemand.Runner
	mu      sync.Mutex
	found   []string
	scanned []string
	hold    chan struct{} // when set, scans wait for it
}

func newBench(t *testing.T, history string, settings policy.Settings) *bench {
	t.Helper()
	b := &bench{}
	r, err := ondemand.New(ondemand.Config{
		Scan: func(ctx context.Context, f *os.File) (finding.Verdict, error) {
			b.mu.Lock()
			b.scanned = append(b.scanned, f.Name())
			hold := b.hold
			b.mu.Unlock()
			if hold != nil {
				select {
				case <-hold:
				case <-ctx.Done():
					return finding.Verdict{}, ctx.Err()
				}
			}
			text, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<20))
			if err != nil {
				return finding.Verdict{}, err
			}
			v := finding.Verdict{Outcome: finding.Clean, Size: int64(len(text))}
			if strings.Contains(string(text), "BAD") {
				v.Outcome = finding.Malicious
			}
			return v, nil
		},
		Found: func(_ context.Context, _, path string, _ *os.File, _ finding.Verdict) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.found = append(b.found, path)
		},
		Settings: func() policy.Effective { return policy.Merge(nil, settings) },
		History:  history,
		Mounts:   func() []string { return nil },
		Log:      slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	b.Runner = r
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := r.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return b
}

func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// finish waits for the end of a scan.
func (b *bench) finish(t *testing.T, id string) ondemand.Job {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var last ondemand.Job
	if err := b.Watch(ctx, id, func(j ondemand.Job) error { last = j; return nil }); err != nil {
		t.Fatal(err)
	}
	return last
}

func TestCustomScan(t *testing.T) {
	dir := tree(t, map[string]string{"a": "fine", "sub/b": "BAD", "sub/skipped/c": "BAD", "d.log": "BAD"})
	if err := os.Symlink("/etc", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	history := filepath.Join(t.TempDir(), "scans")
	b := newBench(t, history, policy.Settings{Exclusions: []policy.Exclusion{
		{Type: policy.ExcludeFolder, Value: filepath.Join(dir, "sub/skipped"), Scope: policy.ScopeEPP},
		{Type: policy.ExcludeExtension, Value: ".log", Scope: policy.ScopeEPP},
	}})
	j, err := b.Start(ondemand.Request{Type: ondemand.Custom, Path: dir})
	if err != nil {
		t.Fatal(err)
	}
	j = b.finish(t, j.ID)
	if j.State != ondemand.Completed || j.Files != 2 || j.Threats != 1 || !slices.Equal(b.found, []string{filepath.Join(dir, "sub/b")}) {
		t.Errorf("job %+v, found %v", j, b.found)
	}
	j, err = b.Start(ondemand.Request{Type: ondemand.Custom, Path: dir, IgnoreExclusions: true})
	if err != nil {
		t.Fatal(err)
	}
	if j = b.finish(t, j.ID); j.Files != 4 || j.Threats != 3 {
		t.Errorf("without exclusions: %+v", j)
	}
	for _, path := range b.scanned {
		if !strings.HasPrefix(path, dir) {
			t.Errorf("a link was followed to %s", path)
		}
	}
	if jobs := newBench(t, history, policy.Settings{}).Jobs(); len(jobs) != 2 || jobs[0].ID != j.ID || jobs[0].Threats != 3 {
		t.Errorf("after a restart: %+v", jobs)
	}
}

func TestOneScanAtATimeAndCancel(t *testing.T) {
	dir := tree(t, map[string]string{"a": "x", "b": "x", "c": "x", "d": "x"})
	b := newBench(t, filepath.Join(t.TempDir(), "scans"), policy.Settings{})
	b.hold = make(chan struct{})
	j, err := b.Start(ondemand.Request{Type: ondemand.Custom, Path: dir})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Start(ondemand.Request{Type: ondemand.Quick}); !fault.Is(err, fault.Conflict) {
		t.Errorf("a second scan: %v", err)
	}
	if _, err := b.Cancel("somebody else's"); !fault.Is(err, fault.NotFound) {
		t.Errorf("cancel of another scan: %v", err)
	}
	if c, err := b.Cancel(""); err != nil || c.ID != j.ID || c.State != ondemand.Cancelled {
		t.Errorf("cancelled %+v, %v", c, err)
	}
	if _, err := b.Cancel(""); !fault.Is(err, fault.NotFound) {
		t.Errorf("cancel without a scan: %v", err)
	}
	b.mu.Lock()
	b.hold = nil
	b.mu.Unlock()
	j, err = b.Start(ondemand.Request{Type: ondemand.Custom, Path: dir})
	if err != nil {
		t.Fatal(err)
	}
	if j = b.finish(t, j.ID); j.State != ondemand.Completed || j.Files != 4 {
		t.Errorf("the next scan: %+v", j)
	}
}

func TestWrongRequests(t *testing.T) {
	b := newBench(t, filepath.Join(t.TempDir(), "scans"), policy.Settings{})
	for _, c := range []struct {
		request ondemand.Request
		kind    fault.Kind
	}{
		{ondemand.Request{Type: "deep"}, fault.Invalid},
		{ondemand.Request{Type: ondemand.Custom, Path: "relative"}, fault.Invalid},
		{ondemand.Request{Type: ondemand.Custom, Path: "/no/such/path"}, fault.NotFound},
	} {
		if _, err := b.Start(c.request); !fault.Is(err, c.kind) {
			t.Errorf("%+v: %v", c.request, err)
		}
	}
	if err := b.Watch(t.Context(), "7", func(ondemand.Job) error { return nil }); !fault.Is(err, fault.NotFound) {
		t.Errorf("watch of nothing: %v", err)
	}
}

func TestAScanThatARestartInterruptedHasFailed(t *testing.T) {
	history := filepath.Join(t.TempDir(), "scans")
	if err := os.WriteFile(history, []byte(`[{"id":"7","type":"full","state":"running"}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	if jobs := newBench(t, history, policy.Settings{}).Jobs(); len(jobs) != 1 || jobs[0].State != ondemand.Failed || jobs[0].Error == "" {
		t.Errorf("jobs %+v", jobs)
	}
}

func TestOpenRegularWaitsForNothing(t *testing.T) {
	dir := tree(t, map[string]string{"file": "x"})
	if err := os.Symlink("file", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"link", ".", "missing"} {
		if f, err := ondemand.OpenRegular(filepath.Join(dir, name)); err == nil {
			f.Close()
			t.Errorf("%s was opened", name)
		}
	}
	f, err := ondemand.OpenRegular(filepath.Join(dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Close()); err != nil {
		t.Fatal(err)
	}
}
