package upgrade

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/uptrace/bun"
	"golang.org/x/mod/semver"

	"komainu/deploy"
	"komainu/event"
)

// member is a device as a rollout sees it.
type member struct {
	Device
	ring  int // -1: in none
	job   *job
	to    string  // what it is to get, "" when it has it
	busy  bool    // the rollout that is taken back is still at work on it
	order float64 // within its ring
}

func newer(a, b string) bool { return semver.Compare("v"+a, "v"+b) > 0 }

// target is the version that the settings lead to now, "" when the repository
// is empty.
func (e *Engine) target(u *upgrades) string {
	if u.settings.Target == Newest {
		return e.cfg.Newest()
	}
	return u.settings.Target
}

// members are the devices that a rollout is about.
func (e *Engine) members(u *upgrades) []member {
	var list []member
	version, now := e.goal(u), e.now()
	back := u.rollout != nil && u.rollout.Origin != ""
	for _, d := range e.cfg.Devices(u.organization) {
		m := member{Device: d, ring: u.settings.ringOf(&d), job: u.jobs[d.ID], order: place("order", d.ID)}
		counted := m.job // it stays in the ring where it was counted
		if back {
			before := u.before[d.ID]
			m.busy = before.active() && now.Sub(before.UpdatedAt) < slowest
			if m.job == nil && (before == nil || d.Version != u.beforeOf && !m.busy) {
				continue // it was not upgraded, or is not any more
			}
			if before != nil {
				counted = before
				if d.Version == u.beforeOf {
					m.to = before.FromVersion
				}
			}
		} else if version != "" && newer(version, d.Version) {
			m.to = version
		}
		if counted != nil {
			m.ring = slices.Index(ringIDs, counted.Ring)
		}
		list = append(list, m)
	}
	if !back && u.settings.Rings[0].Share > 0 {
		first(list, now)
	}
	slices.SortFunc(list, func(a, b member) int {
		return cmp.Or(cmp.Compare(a.ring, b.ring), cmp.Compare(a.order, b.order), cmp.Compare(a.ID, b.ID))
	})
	return list
}

// silent reports whether a device cannot speak for a version: it could not be
// told, or nobody knows where it is.
func (m *member) silent(now time.Time) bool {
	return m.job != nil && m.job.State == waiting || !m.Connected && now.Sub(m.LastSeen) > forgotten
}

// first gives the first ring a device if the shares of a small fleet gave it
// none that speaks: otherwise all of them would get a version that nobody has
// tried.
func first(list []member, now time.Time) {
	least := -1
	for i, m := range list {
		switch {
		case m.silent(now):
		case m.ring == 0:
			return
		case m.job == nil && m.ring > 0 && (least < 0 || place(ringIDs[0], m.ID) < place(ringIDs[0], list[least].ID)):
			least = i
		}
	}
	if least >= 0 && len(list) > 1 {
		list[least].ring = 0
	}
}

// goal is the version that is rolled out, or would be.
func (e *Engine) goal(u *upgrades) string {
	if u.rollout != nil && u.rollout.Origin == "" {
		return u.rollout.Version
	}
	return e.target(u)
}

// look goes one step. The caller holds mu.
func (e *Engine) look(ctx context.Context, u *upgrades) error {
	list := e.members(u)
	if err := e.follow(ctx, u, list); err != nil {
		return err
	}
	busy := slices.ContainsFunc(list, func(m member) bool { return m.job.active() })
	superseded := e.superseded(u)
	if superseded && !busy {
		if err := e.begin(ctx, u, e.target(u)); err != nil {
			return err
		}
		list, superseded = e.members(u), false
	}
	r := u.rollout
	if r == nil {
		return nil
	}
	if why := u.verdict(list); why != nil && (r.State == Running || r.State == Done) {
		return e.halt(ctx, u, *why)
	}
	if superseded || r.State == Halted || r.Origin == "" && !u.settings.Automatic {
		return nil
	}
	if err := e.dispatch(ctx, u, list); err != nil {
		return err
	}
	return e.advance(ctx, u, e.members(u))
}

// superseded reports whether another version is to be rolled out than the one
// that is.
func (e *Engine) superseded(u *upgrades) bool {
	version, r := e.target(u), u.rollout
	if !u.settings.Automatic || version == "" || r != nil && r.Version == version {
		return false
	}
	if r != nil && r.State == Halted && r.Halted == nil && u.settings.Target == Newest {
		return false // a person has halted it, and did not name another version
	}
	if r != nil && r.Origin != "" && r.State != Done {
		return false // first everything goes back
	}
	return slices.ContainsFunc(e.cfg.Devices(u.organization), func(d Device) bool { return newer(version, d.Version) })
}

// begin begins to roll a version out.
func (e *Engine) begin(ctx context.Context, u *upgrades, version string) error {
	return e.change(ctx, u, func(ctx context.Context, tx bun.IDB) error {
		u.rollout = &rollout{ID: newID(), OrganizationID: u.organization, Version: version, Base: e.usual(u, version), State: Running, StartedAt: e.now()}
		u.jobs, u.before, u.beforeOf, u.unwell = map[event.DeviceID]*job{}, nil, "", map[event.DeviceID]time.Time{}
		e.cfg.Log.Info("an upgrade begins", "version", version, "organization", u.organization)
		return e.keepRollout(ctx, tx, u.rollout)
	})
}

// usual is the version that most devices have beside one, and that the
// repository offers.
func (e *Engine) usual(u *upgrades, beside string) string {
	counts := map[string]int{}
	for _, d := range e.cfg.Devices(u.organization) {
		if d.Version != beside && e.cfg.Offers(d.Version) {
			counts[d.Version]++
		}
	}
	return most(counts)
}

func most(counts map[string]int) string {
	best := ""
	for v, n := range counts {
		if n > counts[best] || n == counts[best] && newer(v, best) {
			best = v
		}
	}
	return best
}

// follow looks after devices that are in the middle of it, and at the health
// of those that are through.
func (e *Engine) follow(ctx context.Context, u *upgrades, list []member) error {
	now := e.now()
	for i := range list {
		m := &list[i]
		j := m.job
		if j == nil || u.rollout == nil {
			continue
		}
		was := *j
		switch {
		case j.active():
			if done, err := e.chase(ctx, u, m, now); done || err != nil {
				if err != nil {
					return err
				}
				continue
			}
		case j.State == succeeded:
			u.watch(m, now)
		}
		if was.State != j.State {
			if err := e.keep(ctx, e.cfg.DB, j); err != nil {
				*j = was
				return err
			}
			e.cfg.Changed(u.organization)
		}
	}
	return nil
}

// chase deals with a device that is in the middle of it, and reports whether
// there is nothing to be kept of what it did.
func (e *Engine) chase(ctx context.Context, u *upgrades, m *member, now time.Time) (done bool, err error) {
	j := m.job
	if j.State == asked && m.Connected && m.Version != j.ToVersion && now.Sub(j.UpdatedAt) > askAgain && now.Sub(j.StartedAt) < slowest && u.rollout.State != Halted {
		// It did not hear of it, or said nothing: the same again is the same.
		was := j.UpdatedAt
		j.UpdatedAt = now
		if err := e.keep(ctx, e.cfg.DB, j); err != nil {
			j.UpdatedAt = was
			return false, err
		}
		e.ask(ctx, u, j)
		return true, nil
	}
	if !e.late(m, now) {
		return false, nil
	}
	if err := e.drop(ctx, u, j); err != nil {
		return false, err
	}
	m.job = nil
	e.cfg.Changed(u.organization)
	return true, nil
}

// late decides about a device that has not told how its upgrade ended, and
// reports whether it is to wait as if it had not been asked.
func (e *Engine) late(m *member, now time.Time) (drop bool) {
	j := m.job
	quiet := now.Sub(j.UpdatedAt)
	away := !m.Connected && min(quiet, now.Sub(m.LastSeen)) > comeback
	arrived := m.Connected && m.Version == j.ToVersion && quiet > askAgain
	switch j.State {
	case string(deploy.UpgradeStateInstalling), string(deploy.UpgradeStateProbation):
		switch {
		case away:
			j.end(unhealthy, now, deploy.ReasonOf(deploy.UpgradeUnhealthy, "it has not come back for "+comeback.String()))
		case m.Connected && quiet > comeback && m.Version == j.ToVersion:
			j.State, j.UpdatedAt, j.EndedAt = succeeded, now, &now
		case m.Connected && quiet > comeback:
			j.end(failed, now, deploy.ReasonOf(deploy.UpgradeFailed, "it has told nothing for "+comeback.String()))
		}
		return false
	}
	switch {
	case arrived: // somebody else has installed it
		j.State, j.UpdatedAt, j.EndedAt = succeeded, now, &now
	case away:
		return true
	case j.State == asked && m.Connected && quiet > askAgain && now.Sub(j.StartedAt) < slowest:
		return true // nobody is asked now
	case m.Connected && (quiet > slowest || j.State == asked && now.Sub(j.StartedAt) >= slowest):
		j.end(failed, now, deploy.ReasonOf(deploy.UpgradeFailed, "it has told nothing for "+slowest.String()))
	}
	return false
}

// watch looks at a device that is through: one that was healthy before has to
// be again.
func (u *upgrades) watch(m *member, now time.Time) {
	j := m.job
	watched := u.rollout.State == Running || now.Sub(*j.EndedAt) < probation+grace
	if !watched || !j.WasHealthy || !m.Connected || m.Healthy || !m.Reported.After(*j.EndedAt) {
		delete(u.unwell, m.ID)
		return
	}
	since, ok := u.unwell[m.ID]
	if !ok {
		u.unwell[m.ID] = now
		return
	}
	if now.Sub(since) >= grace {
		ended := *j.EndedAt
		j.end(unhealthy, now, deploy.ReasonOf(deploy.UpgradeUnhealthy, short(m.Problem)))
		j.EndedAt = &ended
	}
}

// bound is how many devices of a ring may end badly before it is too many: in
// the first ring one is.
func bound(ring, devices int) int {
	if ring == 0 {
		return 1
	}
	return max(1, int(math.Ceil(float64(devices)*0.05)))
}

// verdict returns why a rollout has to halt, nil when it may go on. What is
// taken back is not halted: nothing would be better by that.
func (u *upgrades) verdict(list []member) *deploy.Reason {
	if u.rollout.Origin != "" {
		return nil
	}
	for ring, id := range ringIDs {
		devices, bad := 0, 0
		var last *job
		for _, m := range list {
			if m.ring != ring {
				continue
			}
			devices++
			if m.job.bad() && !m.job.Forgiven {
				bad++
				if last == nil || m.job.UpdatedAt.After(last.UpdatedAt) {
					last = m.job
				}
			}
		}
		if bad >= bound(ring, devices) && last != nil {
			detail := fmt.Sprintf("%d of %d devices in the ring %s", bad, devices, id)
			if last.Reason != nil && last.Reason.Detail != "" {
				detail += ": " + last.Reason.Detail
			}
			reason := deploy.UpgradeFailed
			switch last.State {
			case unhealthy:
				reason = deploy.UpgradeUnhealthy
			case string(deploy.UpgradeStateRolledBack):
				reason = deploy.UpgradeRolledBack
			}
			return new(deploy.ReasonOf(reason, short(detail)))
		}
	}
	return nil
}

func (e *Engine) halt(ctx context.Context, u *upgrades, why deploy.Reason) error {
	return e.change(ctx, u, func(ctx context.Context, tx bun.IDB) error {
		u.rollout.State, u.rollout.Halted = Halted, &why
		if err := e.keepRollout(ctx, tx, u.rollout); err != nil {
			return err
		}
		e.cfg.Log.Warn("the upgrade has halted", "version", u.rollout.Version, "reason", why.Text, "detail", why.Detail)
		if e.cfg.Halted == nil {
			return nil
		}
		return e.cfg.Halted(ctx, tx, u.organization, u.rollout.ID, u.rollout.Version, why)
	})
}

// ready reports whether a device may be asked now.
func (m *member) ready(u *upgrades, now time.Time) bool {
	r := u.rollout
	switch {
	case m.to == "" || !m.Connected || !m.Open || m.busy:
		return false
	case r.Origin == "" && (m.ring < 0 || r.State == Running && m.ring > r.Ring):
		return false
	}
	// One that could not be told may have got another agent meanwhile.
	return m.job == nil || m.job.State == waiting && (m.job.FromVersion != m.Version || now.Sub(m.job.UpdatedAt) > tooOldAgain)
}

// dispatch asks those whose turn it is.
func (e *Engine) dispatch(ctx context.Context, u *upgrades, list []member) error {
	room, now := e.cfg.AtOnce, e.now()
	for _, m := range list {
		if m.job.active() || m.busy {
			room--
		}
	}
	for i := range list {
		m := &list[i]
		if room <= 0 || !m.ready(u, now) {
			continue
		}
		j := &job{
			RolloutID: u.rollout.ID, DeviceID: m.ID, ID: newID(), Ring: ringIDs[max(m.ring, 0)], State: asked, FromVersion: m.Version, ToVersion: m.to,
			WasHealthy: m.Healthy, StartedAt: now, UpdatedAt: now,
		}
		if err := e.keep(ctx, e.cfg.DB, j); err != nil {
			return err
		}
		u.jobs[m.ID], m.job = j, j
		room--
		e.ask(ctx, u, j)
		e.cfg.Changed(u.organization)
	}
	return nil
}

// through says whether a ring has nothing left to do, and whether it can speak
// for the version: one that has no devices needs not to.
func (u *upgrades) through(list []member, ring int, now time.Time) (quiet, speaks, empty bool) {
	quiet, empty = true, true
	for _, m := range list {
		if m.ring > ring || m.ring < 0 && u.rollout.Origin == "" {
			continue
		}
		switch {
		case m.job.active(), m.busy:
			quiet = false
		case m.job != nil && m.job.State == succeeded && now.Sub(*m.job.EndedAt) < probation:
			quiet = false
		case m.to != "" && m.Connected && !m.silent(now) && !m.job.bad():
			quiet = false // also when its window is shut: it is waited for
		}
		if m.ring != ring || m.silent(now) {
			continue
		}
		empty = false
		speaks = speaks || m.to == "" && !m.job.bad()
	}
	return quiet, speaks, empty
}

// advance goes to the next ring when its time has come.
func (e *Engine) advance(ctx context.Context, u *upgrades, list []member) error {
	r, now := u.rollout, e.now()
	if r.State != Running {
		return nil
	}
	last := len(ringIDs) - 1
	ring := r.Ring
	if r.Origin != "" {
		ring = last
	}
	quiet, speaks, empty := u.through(list, ring, now)
	if r.Origin != "" {
		speaks = true
	}
	if !quiet || !empty && !speaks {
		return nil
	}
	soak := time.Duration(u.settings.Rings[ring].SoakMinutes) * time.Minute
	over := empty || r.Origin != "" || r.QuietSince != nil && now.Sub(*r.QuietSince) >= soak || soak == 0
	if !over && r.QuietSince != nil {
		return nil
	}
	return e.change(ctx, u, func(ctx context.Context, tx bun.IDB) error {
		switch {
		case !over:
			r.QuietSince = &now
		case ring == last:
			r.State, r.EndedAt, r.Ring = Done, &now, last
			e.cfg.Log.Info("the upgrade is through", "version", r.Version)
		default:
			r.Ring, r.QuietSince = ring+1, nil
			e.Wake()
		}
		return e.keepRollout(ctx, tx, r)
	})
}
