package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"komainu/agent/ondemand"
	"komainu/finding"
	"komainu/policy"
)

// TestScanAfterNewDefinitions: with the setting, new definitions make one
// quick scan; the first ones, and the same ones again, make none.
func TestScanAfterNewDefinitions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		jobs, err := ondemand.New(ondemand.Config{
			Scan: func(context.Context, *os.File) (finding.Verdict, error) {
				return finding.Verdict{Outcome: finding.Clean}, nil
			},
			Found: func(context.Context, string, string, *os.File, finding.Verdict) {}, Settings: func() policy.Effective { return policy.Merge(nil, policy.Settings{}) },
			History: filepath.Join(dir, "scans"), Mounts: func() []string { return nil }, Log: discard(),
		})
		if err != nil {
			t.Fatal(err)
		}
		sign := newSigner(t)
		w := &worker{cfg: Config{State: dir}, log: discard(), settings: mustOpen(t, dir, sign.pub), jobs: jobs}
		start := func(version string, scans int) {
			t.Helper()
			if err := w.scanAfterUpdate(t.Context(), version, time.Second); err != nil {
				t.Fatalf("%s: %v", version, err)
			}
			if n := len(jobs.Jobs()); n != scans {
				t.Errorf("after a start with %s: %d scans, want %d", version, n, scans)
			}
		}
		start("1", 0)
		if _, err := w.settings.ApplyPolicy("d1", sign.policy(1, nil)); err != nil {
			t.Fatal(err)
		}
		start("2", 0) // nobody wants it
		if _, err := w.settings.ApplyPolicy("d1", sign.policy(2, func(d *policy.Document) { d.Managed.ScanAfterUpdate = new(true) })); err != nil {
			t.Fatal(err)
		}
		start("2", 0)
		start("3", 1)
		start("3", 1)

		// Another scan is in the way: it is waited for, and an agent that stops
		// meanwhile does it after its next start.
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := w.scanAfterUpdate(ctx, "4", time.Second); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("behind another scan: %v", err)
		}
		if text, err := os.ReadFile(w.cfg.path("definitions")); err != nil || string(text) != "3\n" {
			t.Errorf("noted %q, %v before the scan has begun", text, err)
		}
	})
}
