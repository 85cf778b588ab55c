package upgrade

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"komainu/deploy"
	"komainu/fault"
	"komainu/health"
)

// site is a pretend host on which an upgrade has been handed over.
type site struct {
	dir     string
	version string // that runs
	lacks   func() []string
	reaches func() bool // the program from before, the control plane
	busy    func() bool // somebody else uses the package manager
	refuses func() error
	mute    bool                 // the agent does not answer
	verify  error                // of the packages
	status  deploy.UpgradeStatus // in the end
	dropped []bool               // the program of the installer; whether the upgrade was still its own then
}

// Busy implements Manager.
func (s *site) Busy() bool { return s.busy != nil && s.busy() }

// Install implements Manager: the file is named after what is in it.
func (s *site) Install(_ context.Context, file string) error {
	if s.refuses != nil {
		if err := s.refuses(); err != nil {
			return err
		}
	}
	s.version = map[string]string{newFile: "1.2.0", oldFile: "1.1.0"}[filepath.Base(file)]
	return nil
}

func (s *site) probe(context.Context) (health.Report, error) {
	if s.mute {
		return health.Report{}, errors.New("connection refused")
	}
	r := health.Report{AppVersion: s.version, RealTimeEnabled: true, Proxy: "proxy"}
	for _, part := range []string{"link", "sensor"} {
		c := health.Condition{Part: part, State: health.OK}
		if s.version == "1.2.0" {
			for _, lacks := range s.lacks() {
				if lacks == part {
					c.State, c.Code = health.Starting, health.NoConnection
				}
			}
		}
		r.Conditions = append(r.Conditions, c)
	}
	return r, nil
}

// upgrade makes the upgrade and returns how it ended, and after which time.
func (s *site) upgrade(t *testing.T) (deploy.UpgradeState, time.Duration) {
	t.Helper()
	s.dir, s.version = t.TempDir(), "1.1.0"
	j := journal{Status: deploy.UpgradeStatus{ID: "u", From: "1.1.0", To: "1.2.0"}, Step: StepPrepare, New: Package{Version: "1.2.0"}, Old: Package{Version: "1.1.0"}}
	if err := errors.Join(j.save(s.dir), os.WriteFile(filepath.Join(s.dir, goFile), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	in := NewInstaller(InstallerConfig{
		Dir: s.dir, Log: slog.New(slog.DiscardHandler), Probe: s.probe, Times: Times{Alone: 2 * time.Hour},
		Verify:  func(Package, time.Time, *os.Root, string) error { return s.verify },
		Manager: func(string) (Manager, error) { return s, nil },
		Service: func(context.Context) (Service, error) { return Service{}, nil },
		Start:   func(context.Context) error { return nil },
		Drop:    func() error { s.dropped = append(s.dropped, handedOver(s.dir)); return nil },
		Reach: func(_ context.Context, proxy string) error {
			if proxy != "proxy" {
				t.Errorf("it is reached through %q", proxy)
			}
			if !s.reaches() {
				return errors.New("connection refused")
			}
			return nil
		},
	})
	began := time.Now()
	if err := in.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	j, err := loadJournal(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	s.status = j.Status
	return j.Status.State, time.Since(began)
}

// TestBusy: what somebody else does with the package manager after the
// preparation says nothing about the version.
func TestBusy(t *testing.T) {
	well := func() []string { return nil }
	t.Run("between the look and the installation", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			until := time.Time{}
			s := &site{lacks: well, busy: func() bool { return time.Now().Before(until) }}
			s.refuses = func() error {
				if until.IsZero() {
					until = time.Now().Add(time.Minute)
					return errors.New("dpkg frontend lock was locked by another process")
				}
				return nil
			}
			if state, took := s.upgrade(t); state != deploy.UpgradeStateSucceeded || took < time.Minute {
				t.Errorf("%s after %s: %+v", state, took, s.status.Reason)
			}
		})
	})
	t.Run("for longer than it waits", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			looks := 0
			s := &site{lacks: well, busy: func() bool { looks++; return looks > 1 }, refuses: func() error { return errors.New("it was installed") }}
			state, _ := s.upgrade(t)
			if state != deploy.UpgradeStateFailed || s.status.Reason.ID != deploy.PackageManagerBusy || s.version != "1.1.0" {
				t.Errorf("%s, version %s: %+v", state, s.version, s.status.Reason)
			}
		})
	})
	t.Run("a package that cannot be installed goes back", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tries := 0
			s := &site{lacks: well, refuses: func() error {
				if tries++; tries == 1 {
					return errors.New("no space left on device")
				}
				return nil
			}}
			state, _ := s.upgrade(t)
			if state != deploy.UpgradeStateFailed || s.status.Reason.ID != deploy.UpgradeFailed || s.version != "1.1.0" {
				t.Errorf("%s, version %s: %+v", state, s.version, s.status.Reason)
			}
		})
	})
}

// TestPackageThatCannotBeRead is told apart from one that is not what was
// signed, which halts the upgrades of others.
func TestPackageThatCannotBeRead(t *testing.T) {
	for want, err := range map[deploy.ReasonID]error{
		deploy.UpgradeRefused:   fmt.Errorf("read the package: %w", syscall.EIO),
		deploy.UpgradeUntrusted: fault.New(fault.Unauthentic, "the package is not the one that was signed"),
	} {
		s := &site{verify: err}
		if state, _ := s.upgrade(t); state != deploy.UpgradeStateFailed || s.status.Reason.ID != want || s.version != "1.1.0" {
			t.Errorf("%v: %s, %+v", err, state, s.status.Reason)
		}
	}
}

// TestFullDisk: nothing can be installed, the version from before either, which
// runs all the same.
func TestFullDisk(t *testing.T) {
	well := func() []string { return nil }
	for name, c := range map[string]struct {
		refuses func(runs string) error
		lacks   func() []string
		state   deploy.UpgradeState
		reason  deploy.ReasonID
	}{
		"from the beginning":                 {func(string) error { return fault.New(fault.Exhausted, "no space left on device") }, well, deploy.UpgradeStateFailed, deploy.DiskFull},
		"a package that cannot be installed": {func(string) error { return errors.New("it is damaged") }, well, deploy.UpgradeStateFailed, deploy.UpgradeFailed},
		"after the new version": {func(runs string) error {
			if runs == "1.2.0" {
				return fault.New(fault.Exhausted, "no space left on device")
			}
			return nil
		}, func() []string { return []string{"sensor"} }, deploy.UpgradeStateFailed, deploy.UpgradeStuck},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &site{lacks: c.lacks}
			s.refuses = func() error { return c.refuses(s.version) }
			if state, _ := s.upgrade(t); state != c.state || s.status.Reason.ID != c.reason {
				t.Errorf("%s: %s, %+v", name, state, s.status.Reason)
			}
		})
	}
}

// TestNextUpgradeHasItsOwnProgram: an installer that is ended between the two
// leaves no program that the next upgrade would take for its own.
func TestNextUpgradeHasItsOwnProgram(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &site{lacks: func() []string { return nil }}
		if state, _ := s.upgrade(t); state != deploy.UpgradeStateSucceeded || len(s.dropped) != 1 || !s.dropped[0] || handedOver(s.dir) {
			t.Errorf("%s, dropped while it is handed over: %v", state, s.dropped)
		}
	})
}

// TestNoAnswer: an agent that does not answer before anything was changed says
// nothing about the version.
func TestNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &site{mute: true}
		state, _ := s.upgrade(t)
		if state != deploy.UpgradeStateFailed || s.status.Reason.ID != deploy.UpgradeRefused || s.version != "1.1.0" {
			t.Errorf("%s, version %s: %+v", state, s.version, s.status.Reason)
		}
	})
}

// TestNoLink: a version without a link goes back when the program from before
// has one, and waits when nobody has.
func TestNoLink(t *testing.T) {
	type table struct {
		lacks   func(age time.Duration) []string
		reaches func(age time.Duration) bool
		want    deploy.UpgradeState
		took    time.Duration // about
	}
	link := func(time.Duration) []string { return []string{"link"} }
	never := func(time.Duration) bool { return false }
	for what, c := range map[string]table{
		"well":                      {func(time.Duration) []string { return nil }, never, deploy.UpgradeStateSucceeded, 0},
		"it alone has none":         {link, func(time.Duration) bool { return true }, deploy.UpgradeStateRolledBack, 2 * time.Minute},
		"nobody has one":            {link, never, deploy.UpgradeStateSucceeded, 2 * time.Hour},
		"it lacks something beside": {func(time.Duration) []string { return []string{"link", "sensor"} }, never, deploy.UpgradeStateRolledBack, 2 * time.Minute},
		"until it comes back": {func(age time.Duration) []string {
			if age < 61*time.Minute {
				return []string{"link"}
			}
			return nil
		}, func(age time.Duration) bool { return age > time.Hour }, deploy.UpgradeStateSucceeded, time.Hour},
		"it alone has none after it": {link, func(age time.Duration) bool { return age > time.Hour }, deploy.UpgradeStateRolledBack, time.Hour + 4*time.Minute},
	} {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			s := &site{lacks: func() []string { return c.lacks(time.Since(began)) }, reaches: func() bool { return c.reaches(time.Since(began)) }}
			state, took := s.upgrade(t)
			if state != c.want || took < c.took-time.Minute || took > c.took+2*time.Minute {
				t.Errorf("%s: %s after %s, want %s after %s", what, state, took, c.want, c.took)
			}
		})
	}
}
