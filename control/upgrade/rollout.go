package upgrade

import (
	"cmp"
	"context"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/uptrace/bun"

	"komainu/deploy"
	"komainu/event"
)

// State of the upgrades of an organization.
type State string

// The states.
const (
	Idle    State = "idle"
	Running State = "running"
	Halted  State = "halted"
	Done    State = "done"
)

// rollout is one version on its way.
type rollout struct {
	bun.BaseModel `bun:"table:upgrade_rollouts"`

	ID             string `bun:",pk"`
	OrganizationID string
	Version        string
	Origin         string
	Base           string
	State          State
	Ring           int
	QuietSince     *time.Time
	Halted         *deploy.Reason `bun:"type:json"`
	StartedAt      time.Time
	EndedAt        *time.Time
}

// replaced reports whether it was halted because another version is the
// target now.
func (r *rollout) replaced() bool {
	return r.State == Halted && r.Halted != nil && r.Halted.ID == deploy.UpgradeReplaced
}

// distrusted are the versions whose last rollout was halted or taken back.
func (u *upgrades) distrusted() map[string]bool {
	versions, of := map[string]bool{}, map[string]string{}
	for r := range u.rollouts() {
		switch {
		case r.Origin != "":
			versions[of[r.Origin]] = true
		case r.State == Done:
			delete(versions, r.Version)
		case r.State == Halted && !r.replaced():
			versions[r.Version] = true
		}
		of[r.ID] = r.Version
	}
	return versions
}

// rollouts goes through all of them, the latest last.
func (u *upgrades) rollouts() iter.Seq[*rollout] {
	return func(yield func(*rollout) bool) {
		for _, r := range u.past {
			if !yield(r) {
				return
			}
		}
		if u.rollout != nil {
			yield(u.rollout)
		}
	}
}

// The states of a job beside those that devices tell.
const (
	waiting   = "waiting"   // for its turn, its window, or that it comes back
	current   = "current"   // it had the version already
	asked     = "asked"     // it was sent
	unhealthy = "unhealthy" // it succeeded, and the device is not as well as before
	succeeded = string(deploy.UpgradeStateSucceeded)
	failed    = string(deploy.UpgradeStateFailed)
)

// job is the upgrade of one device in a rollout.
type job struct {
	bun.BaseModel `bun:"table:upgrade_jobs"`

	RolloutID   string         `bun:",pk"`
	DeviceID    event.DeviceID `bun:",pk"`
	ID          string
	Ring        string
	State       string
	FromVersion string
	ToVersion   string
	WasHealthy  bool
	Forgiven    bool
	Waited      bool           // it could not begin before, for a reason that says nothing about the version
	Lost        int            // how often it had the version and has an older one again
	Reason      *deploy.Reason `bun:"type:json"`
	Gap         time.Duration
	StartedAt   time.Time
	UpdatedAt   time.Time
	EndedAt     *time.Time
}

// active reports whether the device is in the middle of it.
func (j *job) active() bool { return j != nil && !j.ended() && j.State != waiting }

// ended reports whether the device has told how it ended.
func (j *job) ended() bool { return j.EndedAt != nil }

// bad reports whether it ended in a way that counts against the version.
func (j *job) bad() bool { return j != nil && j.ended() && j.State != succeeded }

// back reports whether it leads to an older version. How that goes says nothing
// about it.
func (j *job) back() bool { return newer(j.FromVersion, j.ToVersion) }

// held reports whether a device waits for something that its ring does not
// wait for. While it tries again whether that is there now, it still does.
func (j *job) held() bool {
	switch {
	case j == nil:
		return false
	case j.State == waiting:
		return j.Reason != nil
	}
	return j.Waited && (j.State == asked || j.State == string(deploy.UpgradeStateFetching))
}

// wait has a device wait for a reason that says nothing about the version.
func (j *job) wait(why deploy.Reason, now time.Time) {
	j.State, j.Reason, j.Waited, j.UpdatedAt, j.EndedAt = waiting, &why, true, now, nil
}

// patience is after which time one that waits is asked again.
func (j *job) patience() time.Duration {
	switch {
	case j.Reason == nil:
		return 0
	case j.Reason.ID == deploy.UpgradeTooOld:
		return tooOldAgain
	}
	return heldAgain
}

// neutral are the reasons of devices that say nothing about the version:
// nothing was changed, and the next attempt may well succeed.
var neutral = []deploy.ReasonID{
	deploy.NoPackage, deploy.UpgradeNoWayBack, deploy.PackageManagerBusy, deploy.TransferFailed, deploy.DiskFull, deploy.UpgradeInterrupted, deploy.UpgradeRefused,
}

func (j *job) end(state string, now time.Time, why deploy.Reason) {
	j.State, j.Reason, j.UpdatedAt, j.EndedAt = state, &why, now, &now
}

// noLater has nothing be after a time.
func (j *job) noLater(now time.Time) {
	for _, at := range []*time.Time{&j.StartedAt, &j.UpdatedAt} {
		if at.After(now) {
			*at = now
		}
	}
	if j.EndedAt != nil && j.EndedAt.After(now) {
		j.EndedAt = &now
	}
}

// limits of what a device tells.
const (
	maxDetail = 500
	maxGap    = 24 * time.Hour
)

func short(text string) string { return text[:min(len(text), maxDetail)] }

// tell takes a status over and reports whether it is news. Which version the
// device had is known from when it was asked.
func (j *job) tell(s deploy.UpgradeStatus, now time.Time) bool {
	gap := min(max(s.Gap, 0), maxGap)
	switch {
	case j.ended(): // what can still come is that protection was away for longer
		if gap <= j.Gap {
			return false
		}
		j.Gap = gap
		return true
	case !slices.Contains(deploy.UpgradeStates(), s.State), j.State == string(s.State) && j.Gap == gap:
		return false
	case j.State == waiting && (j.Reason == nil || s.State == deploy.UpgradeStateFailed):
		return false // told again on a new connection: it is known, and is why it waits
	}
	j.State, j.Gap, j.UpdatedAt, j.Reason = string(s.State), gap, now, nil
	switch {
	case !s.State.Terminal():
	case s.State == deploy.UpgradeStateSucceeded:
		j.EndedAt = &now // by the clock of the control plane
	default:
		why := reasonTold(s)
		if s.State == deploy.UpgradeStateFailed && slices.Contains(neutral, why.ID) {
			j.wait(why, now)
		} else {
			j.end(string(s.State), now, why)
		}
	}
	return true
}

// reasonTold is why an upgrade did not succeed. The texts are ours: a device
// names the reason and its detail.
func reasonTold(s deploy.UpgradeStatus) deploy.Reason {
	id := deploy.UpgradeFailed
	if s.State == deploy.UpgradeStateRolledBack {
		id = deploy.UpgradeRolledBack
	}
	if s.Reason == nil {
		return deploy.ReasonOf(id, "")
	}
	if deploy.Known(s.Reason.ID) {
		id = s.Reason.ID
	}
	return deploy.ReasonOf(id, short(s.Reason.Detail))
}

// load reads settings and the last rollout of each organization.
func (e *Engine) load(ctx context.Context) error {
	var settings []settingsRow
	if err := e.cfg.DB.NewSelect().Model(&settings).Scan(ctx); err != nil {
		return err
	}
	for _, r := range settings {
		e.of(r.OrganizationID).settings = Saved{Settings{r.Automatic, r.Target, r.Rings}, r.Version, r.UpdatedAt, r.UpdatedBy}
	}
	var rollouts []*rollout
	if err := e.cfg.DB.NewSelect().Model(&rollouts).Order("started_at", "id").Scan(ctx); err != nil {
		return err
	}
	for _, r := range rollouts {
		u := e.of(r.OrganizationID)
		u.follows(r) // the last one stays
	}
	for _, u := range e.all {
		if u.rollout == nil {
			continue
		}
		var err error
		if u.jobs, err = e.jobsOf(ctx, u.rollout.ID); err != nil {
			return err
		}
		origin := ""
		for r := range u.rollouts() {
			origin = cmp.Or(r.Origin, origin)
		}
		if origin != "" {
			if u.before, err = e.jobsOf(ctx, origin); err != nil {
				return err
			}
			i := slices.IndexFunc(rollouts, func(r *rollout) bool { return r.ID == origin })
			u.beforeOf = rollouts[i].Version
		}
	}
	return nil
}

func (e *Engine) jobsOf(ctx context.Context, rollout string) (map[event.DeviceID]*job, error) {
	var list []*job
	if err := e.cfg.DB.NewSelect().Model(&list).Where("rollout_id = ?", rollout).Scan(ctx); err != nil {
		return nil, err
	}
	jobs := make(map[event.DeviceID]*job, len(list))
	for _, j := range list {
		jobs[j.DeviceID] = j
	}
	return jobs, nil
}

func (e *Engine) keep(ctx context.Context, tx bun.IDB, j *job) error {
	_, err := tx.NewInsert().Model(j).On("CONFLICT (rollout_id, device_id) DO UPDATE").Exec(ctx)
	return err
}

func (e *Engine) keepRollout(ctx context.Context, tx bun.IDB, r *rollout) error {
	_, err := tx.NewInsert().Model(r).On("CONFLICT (id) DO UPDATE").Exec(ctx)
	return err
}

// drop lets a device wait as if it had not been asked. What happened to it
// before is not forgotten.
func (e *Engine) drop(ctx context.Context, u *upgrades, j *job) error {
	if j.Waited || j.Lost > 0 {
		again := *j
		again.State, again.Reason, again.UpdatedAt = waiting, nil, e.now()
		if err := e.keep(ctx, e.cfg.DB, &again); err != nil {
			return err
		}
		u.jobs[j.DeviceID] = &again
		return nil
	}
	if _, err := e.cfg.DB.NewDelete().Model(j).WherePK().Exec(ctx); err != nil {
		return err
	}
	delete(u.jobs, j.DeviceID)
	return nil
}

// change makes a change in memory and in the database, in both or in none. The
// caller holds mu; f does not alter jobs in place.
func (e *Engine) change(ctx context.Context, u *upgrades, f func(ctx context.Context, tx bun.IDB) error) error {
	was := *u
	was.jobs = maps.Clone(u.jobs)
	if u.rollout != nil {
		was.rollout = new(*u.rollout)
	}
	err := e.cfg.DB.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error { return f(ctx, tx) })
	if err != nil {
		*u = was
		return err
	}
	e.cfg.Changed(u.organization)
	return nil
}
