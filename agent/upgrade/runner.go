package upgrade

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"golang.org/x/mod/semver"

	"komainu/deploy"
	"komainu/fault"
	"komainu/internal/atomicfile"
)

// Request asks for an upgrade.
type Request struct {
	deploy.Upgrade
	From string // folder or address of a mirror; "" for the control plane
}

// Config is what a Runner needs.
type Config struct {
	Dir     string // of upgrades; made with mode 0700
	Version string // that runs
	// Ready says by which form of package this agent was installed, or why it
	// cannot be upgraded by itself.
	Ready func() (format string, err error)
	// Stage brings the package of a version into a folder, verified, under a
	// name. Errors: fault.NotFound when there is no such package, and those of
	// who carries and verifies it.
	Stage func(ctx context.Context, from, version, format string, dir *os.Root, name string) (Package, error)
	// Told is called when the status has changed. It must not block.
	Told func()
	Log  *slog.Logger
	Now  func() time.Time
}

// Runner is the agent's part of an upgrade. It is safe for concurrent use.
type Runner struct {
	cfg  Config
	work chan Request // capacity 1

	mu     sync.Mutex
	busy   bool // from Begin until the upgrade has ended
	handed bool // to the installer, which has not ended yet
	status deploy.UpgradeStatus
}

// New returns a runner that knows how the last upgrade ended, or goes on.
func New(cfg Config) *Runner {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	r := &Runner{cfg: cfg, work: make(chan Request, 1)}
	j, err := loadJournal(cfg.Dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return r
	case err != nil:
		cfg.Log.Error("how the last upgrade went is not known", "error", err)
		return r
	}
	r.handed = handedOver(cfg.Dir)
	r.status, r.busy = seen(j.Status, r.handed), r.handed
	if !r.busy && !j.Status.State.Terminal() {
		r.finish(&j, deploy.ReasonOf(deploy.UpgradeInterrupted, ""))
	}
	return r
}

// Status returns how far the last upgrade is, false when there was none.
func (r *Runner) Status() (deploy.UpgradeStatus, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status, r.status.ID != ""
}

// What an id and a version may look like. Ids of the control plane are
// base64url: they may begin with any of its characters.
var (
	anID     = regexp.MustCompile(`^[0-9A-Za-z_-]{1,128}$`)
	aVersion = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z.+_-]{0,127}$`)
)

// Begin checks whether an upgrade may be made and begins it. One that was
// asked for before is not begun again.
//
// Errors: fault.Invalid for a version that is none; fault.Conflict for the one
// that runs, for an older one that was not asked for as such, and while another
// upgrade goes on; fault.Unsupported where the agent cannot be upgraded by
// itself.
func (r *Runner) Begin(q Request) error {
	if !anID.MatchString(q.ID) || !aVersion.MatchString(q.Version) || !semver.IsValid("v"+q.Version) {
		return fault.New(fault.Invalid, "upgrade %q to %q: an upgrade has an id, and a version like 1.2.3", q.ID, q.Version)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch older := semver.Compare("v"+q.Version, "v"+r.cfg.Version) < 0; {
	case r.status.ID == q.ID:
		return nil
	case r.busy:
		return fault.New(fault.Conflict, "the upgrade %s to %s goes on", r.status.ID, r.status.To)
	case q.Version == r.cfg.Version:
		return fault.New(fault.Conflict, "version %s runs already", q.Version)
	case older && !q.Downgrade:
		return fault.New(fault.Conflict, "version %s is older than %s, which runs; a downgrade has to be asked for as one", q.Version, r.cfg.Version)
	}
	if _, err := r.cfg.Ready(); err != nil {
		return err
	}
	r.busy = true
	r.status = deploy.UpgradeStatus{ID: q.ID, From: r.cfg.Version, To: q.Version, State: deploy.UpgradeStateFetching, Started: r.cfg.Now().UTC()}
	r.work <- q
	return nil
}

// look is how often the installer's journal is read while it works.
const look = 500 * time.Millisecond

// fetchLimit bounds how long packages may take to come.
const fetchLimit = 30 * time.Minute

// Run works until ctx ends.
func (r *Runner) Run(ctx context.Context) error {
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case q := <-r.work:
			r.prepare(ctx, q)
		case <-tick.C:
			r.follow()
		}
	}
}

// follow reads what the installer has noted.
func (r *Runner) follow() {
	r.mu.Lock()
	handed, was := r.handed, r.status
	r.mu.Unlock()
	if !handed {
		r.closeGap()
		return
	}
	going := handedOver(r.cfg.Dir) // before the journal: what it says then is final
	j, err := loadJournal(r.cfg.Dir)
	if err != nil {
		r.cfg.Log.Error("the state of the upgrade cannot be read", "error", err)
		return
	}
	now := seen(j.Status, going)
	r.mu.Lock()
	r.status, r.busy, r.handed = now, going, going
	r.mu.Unlock()
	if was.State != now.State {
		r.tell(now)
	}
}

// seen is the status that others see. An upgrade has ended for them when the
// installer has let go of it: then the next one may begin.
func seen(s deploy.UpgradeStatus, going bool) deploy.UpgradeStatus {
	if going && s.State.Terminal() {
		s.State = deploy.UpgradeStateProbation
	}
	return s
}

// closeGap corrects the gap of an upgrade that has ended without protection,
// once there is protection again.
func (r *Runner) closeGap() {
	if _, err := os.Stat(filepath.Join(r.cfg.Dir, marksFile)); err != nil || unprotected(r.cfg.Dir) {
		return
	}
	j, err := loadJournal(r.cfg.Dir)
	longer := max(j.Status.Gap, gap(r.cfg.Dir)) // after a boot less of it is known
	told := err != nil || j.Before == nil || !j.Before.RealTimeEnabled || longer == j.Status.Gap
	r.mu.Lock()
	if r.busy {
		r.mu.Unlock()
		return // the next one has begun
	}
	if !told {
		j.Status.Gap = longer
		err = j.save(r.cfg.Dir)
		r.status = j.Status
	}
	r.mu.Unlock()
	if err = errors.Join(err, sweep(r.cfg.Dir)); err != nil {
		r.cfg.Log.Error("how long an upgrade left the host without protection could not be noted", "error", err)
	}
	if !told {
		r.tell(j.Status)
	}
}

func (r *Runner) tell(s deploy.UpgradeStatus) {
	r.cfg.Log.Info("upgrade", "id", s.ID, "from", s.From, "to", s.To, "state", s.State)
	r.cfg.Told()
}

// note keeps a state and tells of it.
func (r *Runner) note(j *journal) error {
	if err := j.save(r.cfg.Dir); err != nil {
		return err
	}
	r.mu.Lock()
	r.status = j.Status
	r.mu.Unlock()
	r.tell(j.Status)
	return nil
}

// finish ends an upgrade before anything was changed.
func (r *Runner) finish(j *journal, why deploy.Reason) {
	j.Status.State, j.Status.Reason, j.Status.Ended, j.Step = deploy.UpgradeStateFailed, &why, r.cfg.Now().UTC(), StepDone
	err := errors.Join(j.save(r.cfg.Dir), sweep(r.cfg.Dir), forgetGap(r.cfg.Dir))
	if err != nil {
		r.cfg.Log.Error("the end of an upgrade could not be noted", "error", err)
	}
	r.mu.Lock()
	r.status, r.busy = j.Status, false
	r.mu.Unlock()
	r.cfg.Log.Warn("an upgrade was not made", "id", j.Status.ID, "to", j.Status.To, "reason", why.Text, "detail", why.Detail)
	r.cfg.Told()
}

// prepare brings both packages here and hands over.
func (r *Runner) prepare(ctx context.Context, q Request) {
	s, _ := r.Status()
	j := journal{Status: s, Step: StepPrepare}
	if err := r.note(&j); err != nil {
		r.finish(&j, reasonOf(err, deploy.UpgradeRefused))
		return
	}
	ctx, cancel := context.WithTimeout(ctx, fetchLimit)
	defer cancel()
	if why := r.stage(ctx, q, &j); why != nil {
		r.finish(&j, *why)
		return
	}
	j.Status.State, j.Staged = deploy.UpgradeStateReady, r.cfg.Now().UTC()
	err := r.note(&j)
	if err == nil {
		err = atomicfile.Write(filepath.Join(r.cfg.Dir, goFile), nil, 0o600)
	}
	if err != nil {
		r.finish(&j, reasonOf(err, deploy.UpgradeRefused))
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.handed = true
}

// stage fetches both packages. The one of the version that runs is the way
// back: without it nothing is begun.
func (r *Runner) stage(ctx context.Context, q Request, j *journal) *deploy.Reason {
	format, err := r.cfg.Ready()
	if err != nil {
		return new(reasonOf(err, deploy.UpgradeRefused))
	}
	if err := errors.Join(sweep(r.cfg.Dir), forgetGap(r.cfg.Dir)); err != nil {
		return new(reasonOf(err, deploy.UpgradeRefused))
	}
	dir, err := os.OpenRoot(r.cfg.Dir)
	if err != nil {
		return new(reasonOf(err, deploy.UpgradeRefused))
	}
	defer dir.Close()
	if j.New, err = r.cfg.Stage(ctx, q.From, q.Version, format, dir, newFile); err != nil {
		return new(reasonOf(err, deploy.NoPackage))
	}
	if j.Old, err = r.cfg.Stage(ctx, q.From, r.cfg.Version, format, dir, oldFile); err != nil {
		return new(reasonOf(err, deploy.UpgradeNoWayBack))
	}
	return nil
}
