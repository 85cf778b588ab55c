package upgrade

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"komainu/deploy"
	"komainu/health"
)

// TestGapOfAStuckUpgrade has an upgrade end while nobody protects the host, and
// the agent come back later.
func TestGapOfAStuckUpgrade(t *testing.T) {
	dir := t.TempDir()
	in := NewInstaller(InstallerConfig{Dir: dir, Drop: func() error { return nil }, Log: slog.New(slog.DiscardHandler)})
	j := journal{Status: deploy.UpgradeStatus{ID: "u", From: "1.0.0", To: "1.1.0"}, Step: StepReprobe, Before: &health.Report{RealTimeEnabled: true}}
	if err := os.WriteFile(filepath.Join(dir, goFile), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	Protected(dir, false)
	if err := in.end(&j, deploy.UpgradeStateFailed); err != nil {
		t.Fatal(err)
	}
	if err := in.letGo(); err != nil {
		t.Fatal(err)
	}
	if j.Status.Gap <= 0 {
		t.Error("a gap that is still open is not counted")
	}

	var told []deploy.UpgradeStatus
	var r *Runner
	r = New(Config{Dir: dir, Log: slog.New(slog.DiscardHandler), Told: func() {
		s, _ := r.Status()
		told = append(told, s)
	}})
	r.follow()
	if len(told) != 0 {
		t.Errorf("told while the gap is open: %+v", told)
	}
	Protected(dir, false) // the agent is restarted once more
	Protected(dir, true)
	r.follow()
	r.follow()
	if len(told) != 1 || told[0].Gap <= j.Status.Gap || told[0].State != deploy.UpgradeStateFailed {
		t.Fatalf("told after it has closed: %+v; it was %v", told, j.Status.Gap)
	}
	kept, err := loadJournal(dir)
	if err != nil || kept.Status.Gap != told[0].Gap {
		t.Errorf("kept %v, %v", kept.Status.Gap, err)
	}
	Protected(dir, false) // without an upgrade nothing is noted
	Protected(dir, true)
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestGapOfAnotherUpgrade has the next upgrade begin while the gap of the one
// before is open: it is not counted for both.
func TestGapOfAnotherUpgrade(t *testing.T) {
	dir := t.TempDir()
	note(dir, false, "agent")
	r := New(Config{Dir: dir, Log: slog.New(slog.DiscardHandler), Now: time.Now, Told: func() {}})
	r.finish(&journal{Status: deploy.UpgradeStatus{ID: "v"}}, deploy.ReasonOf(deploy.UpgradeFailed, ""))
	Protected(dir, true)
	r.follow()
	if s, _ := r.Status(); s.Gap != 0 {
		t.Errorf("the gap is %v", s.Gap)
	}
}
