package upgrade

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"github.com/uptrace/bun"
	"golang.org/x/mod/semver"

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

// Resume goes on where it was halted, or where devices have failed without
// halting it. What failed is tried again; devices that are less healthy count
// no more.
func (e *Engine) Resume(ctx context.Context, organization string) error {
	return e.act(ctx, organization, "upgrade.resume", func(ctx context.Context, tx bun.IDB, u *upgrades) error {
		r := u.rollout
		switch target := e.target(u); {
		case r.State == Halted:
		case !slices.ContainsFunc(slices.Collect(maps.Values(u.jobs)), (*job).bad):
			return fault.New(fault.Conflict, "the upgrade is not halted and no device has failed; it is %s", r.State)
		case r.Origin == "" && r.Version != target:
			return fault.New(fault.Conflict, "the target is %s now; make %s the target again to try what failed", target, r.Version)
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
		r.State, r.Halted, r.EndedAt, r.QuietSince = Running, nil, nil, nil
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
		version := u.good()
		if version == "" {
			return fault.New(fault.Conflict, "no device was upgraded from a version that nothing speaks against, so there is nothing to go back to; halt the upgrade instead")
		}
		if !e.cfg.Offers(version, "", "") {
			return fault.New(fault.Conflict, "the repository does not offer version %s any more, which most devices had; add its packages again", version)
		}
		was.State = Done
		if was.EndedAt == nil {
			was.EndedAt = new(e.now())
		}
		if err := e.keepRollout(ctx, tx, was); err != nil {
			return err
		}
		jobs := u.jobs
		u.follows(&rollout{ID: newID(), OrganizationID: organization, Version: version, Origin: was.ID, Base: version, State: Running, StartedAt: u.next(e.now())})
		u.before, u.beforeOf = jobs, was.Version
		s := u.settings.Settings
		s.Target = version
		return e.set(ctx, tx, u, s)
	})
}

// good is the version to go back to, "" for none: the one that most devices
// had before, that of the last rollout that came to its end, or the one that
// most of those had that were upgraded. It is none that was halted or taken
// back.
func (u *upgrades) good() string {
	counts := map[string]int{}
	distrusted := u.distrusted()
	fits := func(version string) bool {
		return version != "" && !distrusted[version] && newer(u.rollout.Version, version)
	}
	for _, j := range u.jobs {
		if j.State != waiting && fits(j.FromVersion) {
			counts[j.FromVersion]++
		}
	}
	if !slices.ContainsFunc(slices.Collect(maps.Values(u.jobs)), func(j *job) bool { return j.State != waiting }) {
		return ""
	}
	if fits(u.rollout.Base) {
		return u.rollout.Base
	}
	for _, r := range slices.Backward(u.past) {
		if r.Origin == "" && r.State == Done && fits(r.Version) {
			return r.Version
		}
	}
	return most(counts)
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

// Wanted returns the version that new machines of an organization get, empty
// for none: the newest is as good as any other. And it returns those that they
// must not get, also when there is no package of the one for them: the newest
// first.
//
// What is on its way is not given to new machines before its rollout is
// through, if there is a version from before.
func (e *Engine) Wanted(organization string) (version string, avoid []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	u := e.of(organization)
	r := u.rollout
	target := u.settings.Target
	if target == Newest {
		target = ""
	}
	distrusted := u.distrusted()
	switch {
	case r == nil, (r.State == Done || r.replaced()) && r.Origin == "" && target != "" && target != r.Version:
		version = target
	case r.Origin != "", r.State == Done:
		version = r.Version
	case r.State == Halted:
		version, distrusted[r.Version] = r.Base, true
	default:
		version = cmp.Or(r.Base, r.Version)
	}
	return version, slices.SortedFunc(maps.Keys(distrusted), func(a, b string) int { return semver.Compare("v"+b, "v"+a) })
}

// Due returns the version that a device is to have now, which has one: what is
// rolled out when its turn has come, else the one that it has. why says then
// what keeps it from a newer one, in words; it is empty when there is none.
//
// Whoever installs on a host asks this, so that no way in goes past the rings.
func (e *Engine) Due(organization string, device event.DeviceID, has string) (version, why string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	u := e.of(organization)
	r := u.rollout
	if r != nil && r.Origin != "" {
		return has, "" // who gets what back is between the rollback and its devices
	}
	goal := e.goal(u)
	list := e.members(u)
	at := slices.IndexFunc(list, func(m member) bool { return m.ID == device })
	if at < 0 || goal == "" || !newer(goal, has) {
		return has, "" // a plan that is off upgrades nothing
	}
	if why = e.holds(u, &list[at]); why != "" {
		return has, goal + " " + why
	}
	return goal, ""
}

// holds says why a device does not get the version of the rollout now.
func (e *Engine) holds(u *upgrades, m *member) string {
	r := u.rollout
	switch {
	case r == nil && u.settings.Automatic:
		return "has not come to its ring yet" // the rollout is about to begin
	case r == nil:
	case r.State == Halted:
		return "was halted"
	case m.job.bad():
		return "has failed on it"
	case m.job.active():
		return "is being installed by its rollout"
	case r.State == Running && !u.settings.Automatic:
		return "waits until upgrades are switched on again"
	case r.State == Running && (m.ring < 0 || m.ring > r.Ring):
		return "has not come to its ring yet"
	}
	if !m.Open {
		return "waits for its maintenance window"
	}
	return ""
}

// reasonOf returns a copy, so that nobody shares what a job keeps.
func reasonOf(r *deploy.Reason) *deploy.Reason {
	if r == nil {
		return nil
	}
	return new(*r)
}
