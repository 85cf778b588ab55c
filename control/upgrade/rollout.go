package upgrade

import (
	"context"
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

func (j *job) end(state string, now time.Time, why deploy.Reason) {
	j.State, j.Reason, j.UpdatedAt, j.EndedAt = state, &why, now, &now
}

// limits of what a device tells.
const (
	maxDetail = 500
	maxGap    = 24 * time.Hour
)

func short(text string) string { return text[:min(len(text), maxDetail)] }

// tell takes a status over and reports whether it is news.
func (j *job) tell(s deploy.UpgradeStatus, now time.Time) bool {
	gap := min(max(s.Gap, 0), maxGap)
	if !slices.Contains(deploy.UpgradeStates(), s.State) || j.State == string(s.State) && j.Gap == gap {
		return false
	}
	j.State, j.Gap, j.UpdatedAt, j.Reason = string(s.State), gap, now, nil
	if s.From != "" && len(s.From) <= 64 {
		j.FromVersion = s.From
	}
	if !s.State.Terminal() {
		return true
	}
	j.EndedAt = &now // by the clock of the control plane
	if j.State != succeeded {
		why := deploy.ReasonOf(deploy.UpgradeFailed, "")
		if s.State == deploy.UpgradeStateRolledBack {
			why = deploy.ReasonOf(deploy.UpgradeRolledBack, "")
		}
		if s.Reason != nil {
			// The texts are ours: a device names the reason and its detail.
			if slices.Contains(deploy.ReasonIDs(), s.Reason.ID) {
				why = deploy.ReasonOf(s.Reason.ID, "")
			}
			why.Detail = short(s.Reason.Detail)
		}
		j.Reason = &why
	}
	return true
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
		e.of(r.OrganizationID).rollout = r // the last one stays
	}
	for _, u := range e.all {
		if u.rollout == nil {
			continue
		}
		var err error
		if u.jobs, err = e.jobsOf(ctx, u.rollout.ID); err != nil {
			return err
		}
		if origin := u.rollout.Origin; origin != "" {
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

// drop lets a device wait as if it had not been asked.
func (e *Engine) drop(ctx context.Context, u *upgrades, j *job) error {
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
