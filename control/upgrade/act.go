package upgrade

import (
	"context"
	"time"

	"github.com/uptrace/bun"

	"komainu/control/access"
	"komainu/deploy"
	"komainu/event"
	"komainu/fault"
)

// Halt lets no further device begin. Those that are in the middle finish.
func (e *Engine) Halt(ctx context.Context, organization string) error {
	return e.act(ctx, organization, "upgrade.halt", func(ctx context.Context, tx bun.IDB, u *upgrades) error {
		if u.rollout.State != Running {
			return fault.New(fault.Conflict, "no upgrade is on its way; it is %s", u.rollout.State)
		}
		u.rollout.State = Halted
		return nil
	})
}

// Resume goes on where it was halted. What failed is tried again; devices that
// are less healthy count no more.
func (e *Engine) Resume(ctx context.Context, organization string) error {
	return e.act(ctx, organization, "upgrade.resume", func(ctx context.Context, tx bun.IDB, u *upgrades) error {
		if u.rollout.State != Halted {
			return fault.New(fault.Conflict, "the upgrade is not halted; it is %s", u.rollout.State)
		}
		jobs := map[event.DeviceID]*job{}
		for id, j := range u.jobs {
			switch {
			case !j.bad():
			case j.State == unhealthy:
				j = new(*j)
				j.Forgiven = true
				if err := e.keep(ctx, tx, j); err != nil {
					return err
				}
			default:
				if _, err := tx.NewDelete().Model(j).WherePK().Exec(ctx); err != nil {
					return err
				}
				continue
			}
			jobs[id] = j
		}
		u.jobs = jobs
		u.rollout.State, u.rollout.Halted, u.rollout.EndedAt = Running, nil, nil
		return nil
	})
}

// Rollback gives every device that was upgraded the version back that it had,
// and has new machines get that too.
func (e *Engine) Rollback(ctx context.Context, organization string) error {
	return e.act(ctx, organization, "upgrade.rollback", func(ctx context.Context, tx bun.IDB, u *upgrades) error {
		was := u.rollout
		if was.Origin != "" {
			return fault.New(fault.Conflict, "this is a rollback already; choose the version that is wanted as the target")
		}
		counts := map[string]int{}
		for _, j := range u.jobs {
			if j.State != waiting {
				counts[j.FromVersion]++
			}
		}
		version := most(counts)
		if version == "" {
			return fault.New(fault.Conflict, "no device was upgraded, so there is nothing to go back from; halt the upgrade instead")
		}
		if !e.cfg.Offers(version) {
			return fault.New(fault.Conflict, "the repository does not offer version %s any more, which most devices had; add its packages again", version)
		}
		was.State = Done
		if was.EndedAt == nil {
			was.EndedAt = new(e.now())
		}
		if err := e.keepRollout(ctx, tx, was); err != nil {
			return err
		}
		started := e.now()
		if !started.After(was.StartedAt) {
			started = was.StartedAt.Add(time.Millisecond)
		}
		u.rollout = &rollout{ID: newID(), OrganizationID: organization, Version: version, Origin: was.ID, Base: version, State: Running, StartedAt: started}
		u.before, u.beforeOf, u.jobs, u.unwell = u.jobs, was.Version, map[event.DeviceID]*job{}, map[event.DeviceID]time.Time{}
		s := u.settings.Settings
		s.Target = version
		return e.set(ctx, tx, u, s)
	})
}

// act is what a person does to the rollout.
func (e *Engine) act(ctx context.Context, organization, action string, f func(context.Context, bun.IDB, *upgrades) error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	u := e.of(organization)
	if u.rollout == nil {
		return fault.New(fault.Conflict, "no upgrade has begun; switch upgrades on first")
	}
	version := u.rollout.Version
	err := e.change(ctx, u, func(ctx context.Context, tx bun.IDB) error {
		if err := f(ctx, tx, u); err != nil {
			return err
		}
		if err := e.keepRollout(ctx, tx, u.rollout); err != nil {
			return err
		}
		return e.cfg.Record(ctx, tx, access.Change{Action: action, Target: u.rollout.ID, Name: version})
	})
	e.Wake()
	return err
}

// Wanted returns the version that new machines of an organization get, and one
// that they must not get. Empty is none: the newest is as good as any other.
//
// What is on its way is not given to new machines before its rollout is
// through, if there is a version from before.
func (e *Engine) Wanted(organization string) (version, avoid string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	u := e.of(organization)
	r := u.rollout
	target := u.settings.Target
	if target == Newest {
		target = ""
	}
	switch {
	case r == nil, r.State == Done && r.Origin == "" && target != "" && target != r.Version:
		return target, ""
	case r.Origin != "":
		return r.Version, u.beforeOf
	case r.State == Done:
		return r.Version, ""
	case r.State == Halted:
		return r.Base, r.Version
	}
	if r.Base == "" {
		return r.Version, ""
	}
	return r.Base, ""
}

// reasonOf returns a copy, so that nobody shares what a job keeps.
func reasonOf(r *deploy.Reason) *deploy.Reason {
	if r == nil {
		return nil
	}
	return new(*r)
}
