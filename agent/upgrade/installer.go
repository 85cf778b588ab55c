package upgrade

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"komainu/deploy"
	"komainu/fault"
	"komainu/health"
	"komainu/internal/atomicfile"
)

// Manager installs packages of one form.
type Manager interface {
	// Busy reports whether somebody else uses the package manager.
	Busy() bool
	// Install installs a package in the place of any other version, an older
	// one too, and mends what an installation that was cut off has left. It may
	// be repeated.
	Install(ctx context.Context, file string) error
}

// InstallerConfig is what an Installer needs.
type InstallerConfig struct {
	Dir string // of upgrades
	// Verify checks a package in the folder against what was signed, by the
	// clock of when it was fetched.
	Verify  func(p Package, staged time.Time, dir *os.Root, name string) error
	Manager func(format string) (Manager, error)
	// Probe asks the agent how it is.
	Probe func(ctx context.Context) (health.Report, error)
	// Service is what the service manager knows of the agent.
	Service func(ctx context.Context) (Service, error)
	// Start has the service manager start the agent, if it does not run.
	Start func(ctx context.Context) error
	// Reach tries whether this program, which is the one from before, reaches
	// the control plane through a proxy, "" for none.
	Reach func(ctx context.Context, proxy string) error
	// Drop removes the copy of the program that this is. It is done before the
	// upgrade is let go of: what would stay else is not the program from before
	// the next one.
	Drop  func() error
	Log   *slog.Logger
	Times Times
}

// Service is what the service manager knows of the agent.
type Service struct {
	PID      int // of the main process, 0 when there is none
	Restarts int // since it was started
}

// Times of an installer.
type Times struct {
	Lock   time.Duration // to wait while somebody else uses the package manager
	Before time.Duration // for the agent to answer before anything is changed
	Well   time.Duration // for a version to be well
	Settle time.Duration // that it has to stay so
	Again  time.Duration // between attempts
	Alone  time.Duration // to wait for a control plane that nobody reaches
}

func (t *Times) complete() {
	for _, d := range []struct {
		at   *time.Duration
		unit time.Duration
	}{{&t.Lock, 10 * time.Minute}, {&t.Before, 30 * time.Second}, {&t.Well, 2 * time.Minute}, {&t.Settle, 5 * time.Second}, {&t.Again, 2 * time.Second}, {&t.Alone, 24 * time.Hour}} {
		if *d.at == 0 {
			*d.at = d.unit
		}
	}
}

// Bounds of an installer.
const (
	mostAttempts = 5 // at a step, by processes that were killed at it too
	mostRestarts = 3 // of a version that has not answered yet
	probeEvery   = 100 * time.Millisecond
	reachEvery   = 10 * time.Second
	probeLimit   = 5 * time.Second
	installLimit = 10 * time.Minute
)

// Installer makes the upgrade that was handed over.
type Installer struct{ cfg InstallerConfig }

// NewInstaller returns an installer.
func NewInstaller(cfg InstallerConfig) *Installer {
	cfg.Times.complete()
	return &Installer{cfg}
}

// Run goes on with the upgrade from the step that the journal names, until it
// has ended one way or the other. When ctx ends it stops before the next step;
// what the package manager has begun is finished.
func (in *Installer) Run(ctx context.Context) error {
	if !handedOver(in.cfg.Dir) {
		return nil
	}
	j, err := loadJournal(in.cfg.Dir)
	if err != nil {
		// Nobody knows what was going on. What runs is left as it is.
		return errors.Join(err, in.letGo())
	}
	watching, stop := context.WithCancel(context.WithoutCancel(ctx))
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		in.watchMain(watching)
	}()
	defer func() { stop(); <-watched }()
	for j.Step != StepDone {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := in.step(ctx, &j); err != nil {
			return err
		}
	}
	in.cfg.Log.Info("the upgrade has ended", "id", j.Status.ID, "state", j.Status.State, "gap", j.Status.Gap)
	return in.letGo()
}

// letGo gives the journal back to the agent.
func (in *Installer) letGo() error {
	if err := in.cfg.Drop(); err != nil {
		in.cfg.Log.Error("the next upgrade is made by the program of this one", "error", err)
	}
	if err := os.Remove(filepath.Join(in.cfg.Dir, goFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	atomicfile.SyncDir(in.cfg.Dir)
	return sweep(in.cfg.Dir)
}

// next notes what is to be done before it is done.
func (in *Installer) next(j *journal, step Step, state deploy.UpgradeState) error {
	j.Step, j.Status.State, j.Attempts = step, state, 0
	in.cfg.Log.Info("upgrade", "id", j.Status.ID, "step", step, "state", state)
	return j.save(in.cfg.Dir)
}

// end notes how it has ended.
func (in *Installer) end(j *journal, state deploy.UpgradeState) error {
	j.Status.Ended = time.Now().UTC()
	if j.Before != nil && j.Before.RealTimeEnabled {
		j.Status.Gap = gap(in.cfg.Dir)
	}
	return in.next(j, StepDone, state)
}

// step does what the journal names and notes what comes next.
func (in *Installer) step(ctx context.Context, j *journal) error {
	j.Attempts++
	if err := j.save(in.cfg.Dir); err != nil {
		return err
	}
	switch j.Step {
	case StepPrepare:
		if why := in.prepare(ctx, j); why != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			j.Status.Reason = why
			return in.end(j, deploy.UpgradeStateFailed)
		}
		return in.next(j, StepInstall, deploy.UpgradeStateInstalling)
	case StepInstall:
		return in.install(ctx, j)
	case StepProbe:
		err := in.well(ctx, j, j.New.Version)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			j.Status.Reason = new(deploy.ReasonOf(deploy.UpgradeRolledBack, err.Error()))
			return in.next(j, StepBack, deploy.UpgradeStateProbation)
		}
		return in.end(j, deploy.UpgradeStateSucceeded)
	case StepBack:
		return in.back(ctx, j)
	case StepReprobe:
		return in.reprobe(ctx, j)
	}
	return fmt.Errorf("the journal names the step %q, which this version does not know", j.Step)
}

// prepare makes sure that nothing stands in the way, before anything is
// changed.
func (in *Installer) prepare(ctx context.Context, j *journal) *deploy.Reason {
	if err := in.verify(j); err != nil {
		return new(reasonOf(err, deploy.UpgradeRefused))
	}
	if err := in.free(ctx, j.New.Format, time.Now().Add(in.cfg.Times.Lock)); err != nil {
		return new(deploy.ReasonOf(deploy.PackageManagerBusy, err.Error()))
	}
	report, err := in.answer(ctx, in.cfg.Times.Before)
	if err != nil {
		return new(deploy.ReasonOf(deploy.UpgradeRefused, "the agent does not answer before the upgrade: "+err.Error()))
	}
	j.Before = &report
	return nil
}

func (in *Installer) verify(j *journal) error {
	dir, err := os.OpenRoot(in.cfg.Dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	return errors.Join(in.cfg.Verify(j.New, j.Staged, dir, newFile), in.cfg.Verify(j.Old, j.Staged, dir, oldFile))
}

// errBusy is that somebody else uses the package manager, and for how long.
type errBusy time.Duration

func (e errBusy) Error() string { return "for more than " + time.Duration(e).String() }

// free waits until nobody else uses the package manager, up to a limit.
func (in *Installer) free(ctx context.Context, format string, limit time.Time) error {
	m, err := in.cfg.Manager(format)
	if err != nil {
		return err
	}
	for m.Busy() {
		if time.Now().After(limit) {
			return errBusy(in.cfg.Times.Lock)
		}
		if err := pause(ctx, in.cfg.Times.Again/4); err != nil {
			return err
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// install installs the new version.
func (in *Installer) install(ctx context.Context, j *journal) error {
	err := fmt.Errorf("%d attempts did not come to an end", mostAttempts)
	if j.Attempts <= mostAttempts {
		err = in.put(ctx, j.New.Format, newFile)
	}
	switch {
	case err == nil:
		return in.next(j, StepProbe, deploy.UpgradeStateProbation)
	case ctx.Err() != nil:
		return ctx.Err()
	}
	if _, busy := errors.AsType[errBusy](err); busy && j.Attempts == 1 {
		// It was never free, nothing was changed.
		j.Status.Reason = new(deploy.ReasonOf(deploy.PackageManagerBusy, err.Error()))
		return in.end(j, deploy.UpgradeStateFailed)
	}
	id := deploy.UpgradeFailed
	if fault.Is(err, fault.Exhausted) {
		id = deploy.DiskFull
	}
	j.Status.Reason = new(deploy.ReasonOf(id, err.Error()))
	return in.next(j, StepBack, deploy.UpgradeStateInstalling)
}

// put has the package manager install a file, to its end. Somebody may begin to
// use it between the look at it and the installation: then that is tried again.
func (in *Installer) put(ctx context.Context, format, file string) error {
	m, err := in.cfg.Manager(format)
	if err != nil {
		return err
	}
	limit := time.Now().Add(in.cfg.Times.Lock)
	var failed error
	for failed == nil || m.Busy() && time.Now().Before(limit) {
		if err := in.free(ctx, format, limit); err != nil {
			if failed == nil {
				failed = err
			}
			return failed
		}
		whole, cancel := context.WithTimeout(context.WithoutCancel(ctx), installLimit)
		failed = m.Install(whole, filepath.Join(in.cfg.Dir, file))
		cancel()
		if failed == nil {
			return nil
		}
	}
	return failed
}

// back installs the version from before. It is tried for as long as it takes:
// there is nothing else to do.
func (in *Installer) back(ctx context.Context, j *journal) error {
	err := in.put(ctx, j.Old.Format, oldFile)
	if err == nil {
		return in.next(j, StepReprobe, j.Status.State)
	}
	in.cfg.Log.Error("the version from before could not be installed", "version", j.Old.Version, "attempt", j.Attempts, "error", err)
	if j.Attempts >= 2*mostAttempts {
		// What cannot be installed may never have been gone.
		lacks, stopped := in.settles(ctx, j, j.Old.Version, new(bool))
		switch {
		case stopped != nil:
			return stopped
		case lacks.text == "":
			return in.next(j, StepReprobe, j.Status.State)
		}
		j.Status.Reason = new(deploy.ReasonOf(deploy.UpgradeStuck, err.Error()))
		return in.end(j, deploy.UpgradeStateFailed)
	}
	return pause(ctx, in.cfg.Times.Again)
}

// reprobe sees whether the version from before is as well as it was.
func (in *Installer) reprobe(ctx context.Context, j *journal) error {
	if err := in.cfg.Start(ctx); err != nil {
		in.cfg.Log.Error("the agent could not be started", "error", err)
	}
	err := in.well(ctx, j, j.Old.Version)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		j.Status.Reason = new(deploy.ReasonOf(deploy.UpgradeStuck, fmt.Sprintf("%s; then the version from before: %v", j.Status.Reason.Detail, err)))
		return in.end(j, deploy.UpgradeStateFailed)
	case j.Status.Reason.ID == deploy.UpgradeFailed, j.Status.Reason.ID == deploy.DiskFull:
		return in.end(j, deploy.UpgradeStateFailed)
	}
	return in.end(j, deploy.UpgradeStateRolledBack)
}

// answer asks the agent until it answers.
func (in *Installer) answer(ctx context.Context, within time.Duration) (health.Report, error) {
	limit := time.Now().Add(within)
	for {
		report, err := in.ask(ctx)
		if err == nil || time.Now().After(limit) {
			return report, err
		}
		if err := pause(ctx, probeEvery); err != nil {
			return report, err
		}
	}
}

func (in *Installer) ask(ctx context.Context) (health.Report, error) {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	return in.cfg.Probe(ctx)
}

// well waits until a version answers and lacks nothing that the agent had
// before, and stays so for a while. The error says what it lacks.
//
// That nothing but the link is missing says nothing about the version as long
// as the program from before does not reach the control plane either. The
// version has its time from when that ends: the link pauses between attempts.
func (in *Installer) well(ctx context.Context, j *journal, version string) error {
	began, tried, answered := time.Now(), time.Time{}, false
	limit, between := began.Add(in.cfg.Times.Well), probeEvery
	for {
		lacks, err := in.settles(ctx, j, version, &answered)
		if err != nil || lacks.text == "" {
			return err
		}
		if lacks.link && time.Since(tried) >= reachEvery {
			between = probeEvery
			if err := in.cfg.Reach(ctx, j.Before.Proxy); err != nil && ctx.Err() == nil {
				between = in.cfg.Times.Again
				if time.Since(began) > in.cfg.Times.Alone {
					in.cfg.Log.Warn("nobody reaches the control plane; the version is well without it", "version", version, "error", err)
					return nil
				}
				limit = time.Now().Add(2 * in.cfg.Times.Well)
			}
			tried = time.Now()
		}
		if time.Now().After(limit) {
			return errors.New(lacks.text)
		}
		if s, err := in.cfg.Service(ctx); err == nil && !answered && s.Restarts >= mostRestarts {
			return fmt.Errorf("it ended %d times before it answered; journalctl -u komainu-agent says why", s.Restarts)
		}
		if err := pause(ctx, between); err != nil {
			return err
		}
	}
}

// lack is what was well before and is not now.
type lack struct {
	text string // "" for nothing
	link bool   // nothing but the link to the control plane
}

// settles looks at an agent for as long as it has to stay well, and says what
// it lacks.
func (in *Installer) settles(ctx context.Context, j *journal, version string, answered *bool) (lack, error) {
	for until := time.Now().Add(in.cfg.Times.Settle); ; {
		report, err := in.ask(ctx)
		switch {
		case err != nil:
			return lack{text: "it does not answer: " + err.Error()}, ctx.Err()
		case report.AppVersion != version:
			return lack{text: fmt.Sprintf("version %s answers instead of %s", report.AppVersion, version)}, nil
		}
		*answered = true
		if lacks := lacking(j.Before, &report); lacks.text != "" || time.Now().After(until) {
			return lacks, nil
		}
		if err := pause(ctx, probeEvery); err != nil {
			return lack{}, err
		}
	}
}

// lacking says what was well before and is not now.
func lacking(before, now *health.Report) lack {
	if before == nil {
		return lack{}
	}
	had := map[string]bool{}
	for _, c := range before.Conditions {
		had[c.Part] = c.State == health.OK
	}
	var lacks []string
	link := true
	for _, c := range now.Conditions {
		if had[c.Part] && c.State != health.OK {
			lacks = append(lacks, fmt.Sprintf("%s is %s: %s", c.Part, c.State, c.Reason))
			link = link && c.Part == "link"
		}
	}
	if before.RealTimeEnabled && !now.RealTimeEnabled {
		lacks = append(lacks, "real-time protection is off")
		link = false
	}
	return lack{strings.Join(lacks, "; "), link && len(lacks) > 0}
}
