package upgrade

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/uptrace/bun"
	"golang.org/x/mod/semver"

	"komainu/deploy"
	"komainu/event"
)

// member is a device as a rollout sees it.
type member struct {
	Device
	ring   int // -1: in none
	job    *job
	to     string         // what it is to get, "" when it has it
	busy   bool           // the rollout that is taken back is still at work on it
	lacks  *deploy.Reason // which package the repository has to have first
	silent bool           // it cannot speak for the version, and nobody waits for it
	order  float64        // within its ring
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
	version, now, lacks := e.goal(u), e.now(), e.lacking()
	back := u.rollout != nil && u.rollout.Origin != ""
	distrusted := u.distrusted()
	for _, d := range e.cfg.Devices(u.organization) {
		m := member{Device: d, ring: u.settings.ringOf(&d), job: u.jobs[d.ID], order: place("order", d.ID)}
		counted := m.job // it stays in the ring where it was counted
		if back {
			before := u.before[d.ID]
			m.busy = before.active() && now.Sub(before.UpdatedAt) < slowest
			m.to = u.backTo(&d, before, distrusted)
			if m.job == nil && m.to == "" && (before == nil || !m.busy) {
				continue // it was not upgraded, or is not any more
			}
			if before != nil {
				counted = before
			}
		} else if version != "" && (newer(version, d.Version) || u.left(&d, version, distrusted)) {
			m.to = version
		}
		if counted != nil {
			m.ring = slices.Index(ringIDs, counted.Ring)
		}
		m.lacks = lacks(&m)
		m.silent = m.mute(version, now)
		list = append(list, m)
	}
	if !back && u.settings.Rings[0].Share > 0 {
		first(list)
	}
	slices.SortFunc(list, func(a, b member) int {
		return cmp.Or(cmp.Compare(a.ring, b.ring), cmp.Compare(a.order, b.order), cmp.Compare(a.ID, b.ID))
	})
	return list
}

// backTo is the version that a device gets when a rollout is taken back, ""
// for none: the one that it had, or that of the rollback when it had one that
// did no good either.
func (u *upgrades) backTo(d *Device, before *job, distrusted map[string]bool) string {
	switch {
	case before == nil:
		return ""
	case d.Version == u.beforeOf && !distrusted[before.FromVersion]:
		return before.FromVersion
	case d.Version == u.beforeOf, distrusted[d.Version]:
		return u.rollout.Version
	}
	return ""
}

// left reports whether a device was away while the version that it has was
// taken back, and has to leave it for another one yet.
func (u *upgrades) left(d *Device, version string, distrusted map[string]bool) bool {
	return u.before[d.ID] != nil && d.Version == u.beforeOf && distrusted[d.Version] && newer(d.Version, version)
}

// lacking returns what says which package a device has to wait for: the one
// that it is to get, and the one that it has, which is its way back.
func (e *Engine) lacking() func(m *member) *deploy.Reason {
	known := map[[3]string]bool{}
	offers := func(version, form, arch string) bool {
		k := [3]string{version, form, arch}
		if _, ok := known[k]; !ok {
			known[k] = e.cfg.Offers(version, form, arch)
		}
		return known[k]
	}
	return func(m *member) *deploy.Reason {
		what := func(version string) string { return strings.Join(strings.Fields(version+" "+m.Form+" "+m.Arch), " ") }
		switch {
		case m.to == "":
			return nil
		case !offers(m.to, m.Form, m.Arch):
			return new(deploy.ReasonOf(deploy.NoPackage, what(m.to)))
		case !offers(m.Version, m.Form, m.Arch):
			return new(deploy.ReasonOf(deploy.UpgradeNoWayBack, what(m.Version)))
		}
		return nil
	}
}

// mute reports whether a device cannot speak for a version, so that another
// one has to.
func (m *member) mute(version string, now time.Time) bool {
	begun := m.job != nil && m.job.State != waiting
	switch {
	case !m.Connected && now.Sub(m.LastSeen) > forgotten:
		return true // nobody knows where it is
	case m.job.bad():
		return m.job.Forgiven || m.job.back()
	case m.to == "" && begun:
		return newer(m.Version, version) && m.job.ended() // somebody has given it another one since
	case m.to == "": // it got there by another way
		return newer(m.Version, version) || !m.Connected || !m.Healthy
	}
	return m.job.held() || !begun && m.lacks != nil
}

// speaks reports whether a device shows that the version is good: it is here,
// and was well for long enough. One that was not well before needs not to be.
func (m *member) speaks(began, now time.Time) bool {
	if m.to != "" || !m.Connected || m.job.active() || m.job.bad() {
		return false
	}
	if m.job == nil || m.job.State != succeeded {
		return m.Healthy && m.Reported.After(began)
	}
	return (m.Healthy || !m.job.WasHealthy) && m.Reported.Sub(*m.job.EndedAt) >= probation
}

// first gives the first ring a device if the shares of a small fleet gave it
// none that speaks: otherwise all of them would get a version that nobody has
// tried.
func first(list []member) {
	least := -1
	for i, m := range list {
		switch {
		case m.silent:
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
	if superseded {
		return nil // what is on its way has to end first
	}
	if err := e.obey(ctx, u); err != nil {
		return err
	}
	if r.State == Halted || r.Origin == "" && (!u.settings.Automatic || r.Version != e.target(u)) {
		return nil
	}
	if err := e.dispatch(ctx, u, list); err != nil {
		return err
	}
	return e.advance(ctx, u, e.members(u))
}

// superseded reports whether another version is to be rolled out than the one
// that is. What was taken back to is not rolled out by that: devices may have
// had something older yet.
func (e *Engine) superseded(u *upgrades) bool {
	version, r := e.target(u), u.rollout
	if !u.settings.Automatic || version == "" || r != nil && r.Origin == "" && r.Version == version {
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

// obey halts a rollout whose version is not the target any more, and goes on
// with it when it is again. Nobody has to be told: somebody has decided it.
func (e *Engine) obey(ctx context.Context, u *upgrades) error {
	r, version := u.rollout, e.target(u)
	if r.Origin != "" || !u.settings.Automatic || version == "" {
		return nil
	}
	switch {
	case r.State == Running && r.Version != version:
		return e.change(ctx, u, func(ctx context.Context, tx bun.IDB) error {
			r.State, r.Halted, r.QuietSince = Halted, new(deploy.ReasonOf(deploy.UpgradeReplaced, version)), nil
			e.cfg.Log.Info("the upgrade has halted: another version is the target", "version", r.Version, "target", version)
			return e.keepRollout(ctx, tx, r)
		})
	case r.replaced() && r.Version == version:
		return e.change(ctx, u, func(ctx context.Context, tx bun.IDB) error {
			r.State, r.Halted = Running, nil
			return e.keepRollout(ctx, tx, r)
		})
	}
	return nil
}

// begin begins to roll a version out.
func (e *Engine) begin(ctx context.Context, u *upgrades, version string) error {
	return e.change(ctx, u, func(ctx context.Context, tx bun.IDB) error {
		base := e.usual(u, version)
		if was := u.rollout; was != nil && was.Origin != "" && was.Version == version {
			base = version // devices went back to it, and new machines get it already
		}
		u.follows(&rollout{ID: newID(), OrganizationID: u.organization, Version: version, Base: base, State: Running, StartedAt: u.next(e.now())})
		e.cfg.Log.Info("an upgrade begins", "version", version, "organization", u.organization)
		return e.keepRollout(ctx, tx, u.rollout)
	})
}

// usual is the version that most devices have beside one, that the repository
// offers, and that nothing speaks against.
func (e *Engine) usual(u *upgrades, beside string) string {
	counts, distrusted := map[string]int{}, u.distrusted()
	for _, d := range e.cfg.Devices(u.organization) {
		if d.Version != beside && !distrusted[d.Version] && e.cfg.Offers(d.Version, "", "") {
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
		case j.State == succeeded && m.to != "" && m.Connected:
			u.lose(m, now)
		case j.State == succeeded:
			delete(u.lost, m.ID)
			u.watch(m, now, e.up)
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
	m.job = u.jobs[m.ID]
	e.cfg.Changed(u.organization)
	return true, nil
}

// late decides about a device that has not told how its upgrade ended, and
// reports whether it is to wait as if it had not been asked. Nobody is late
// for a control plane that was not there itself.
func (e *Engine) late(m *member, now time.Time) (drop bool) {
	j, up := m.job, now.Sub(e.up)
	quiet := min(now.Sub(j.UpdatedAt), up)
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
	tried := min(now.Sub(j.StartedAt), up)
	switch {
	case arrived: // somebody else has installed it
		j.State, j.UpdatedAt, j.EndedAt = succeeded, now, &now
	case away:
		return true
	case j.State == asked && m.Connected && quiet > askAgain && tried < slowest:
		return true // nobody is asked now
	case m.Connected && (quiet > slowest || j.State == asked && tried >= slowest):
		j.wait(deploy.ReasonOf(deploy.UpgradeRefused, "it has told nothing for "+slowest.String()), now)
	}
	return false
}

// lose has a device asked again that had the version and has an older one: a
// snapshot was put back, or somebody has installed it. It is not asked for ever.
func (u *upgrades) lose(m *member, now time.Time) {
	j := m.job
	since, ok := u.lost[m.ID]
	if !ok {
		u.lost[m.ID] = now
		return
	}
	if now.Sub(since) < lostAfter {
		return
	}
	delete(u.lost, m.ID)
	if j.Lost++; j.Lost > mostLost {
		j.end(failed, now, deploy.ReasonOf(deploy.UpgradeFailed, fmt.Sprintf("it had version %s and has %s again, %d times", j.ToVersion, m.Version, j.Lost)))
		return
	}
	j.State, j.Reason, j.UpdatedAt, j.EndedAt = waiting, nil, now, nil
}

// watch looks at a device that is through: it has to stay, and one that was
// healthy before has to be again. What it lacked is not forgotten while it is
// away: one that comes and goes would never be unwell for long.
func (u *upgrades) watch(m *member, now, up time.Time) {
	j, running := m.job, u.rollout.State == Running
	ended := *j.EndedAt
	unwell := func(detail string) {
		delete(u.unwell, m.ID)
		j.end(unhealthy, now, deploy.ReasonOf(deploy.UpgradeUnhealthy, detail))
		j.EndedAt = &ended
	}
	ill := u.unwell[m.ID]
	switch gone := m.LastSeen.Sub(ended); {
	case !m.Connected && (gone < probation || running && gone < watched) && min(now.Sub(m.LastSeen), now.Sub(up)) > comeback:
		unwell("it has not come back for " + comeback.String())
		return
	case !m.Connected:
		if ill.total > 0 || !ill.seen.IsZero() {
			u.unwell[m.ID] = illness{total: ill.total}
		}
		return
	case !running && now.Sub(ended) >= probation+grace, !j.WasHealthy, m.Healthy, !m.Reported.After(ended):
		delete(u.unwell, m.ID)
		return
	}
	if !ill.seen.IsZero() {
		ill.total += now.Sub(ill.seen)
	}
	if ill.seen = now; ill.total >= grace {
		unwell(short(m.Problem))
		return
	}
	u.unwell[m.ID] = ill
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
			if m.job.bad() && !m.job.Forgiven && !m.job.back() {
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
	case m.to == "" || !m.Connected || !m.Open || m.busy || m.lacks != nil:
		return false
	case r.Origin == "" && (m.ring < 0 || r.State == Running && m.ring > r.Ring):
		return false
	}
	// One that could not be told may have got another agent meanwhile.
	return m.job == nil || m.job.State == waiting && (m.job.FromVersion != m.Version || now.Sub(m.job.UpdatedAt) >= m.job.patience())
}

// dispatch asks those whose turn it is. Those that could not begin the last
// time come last, so that they keep nobody waiting.
func (e *Engine) dispatch(ctx context.Context, u *upgrades, list []member) error {
	room, now := e.cfg.AtOnce, e.now()
	here := map[event.DeviceID]bool{}
	for _, m := range list {
		if here[m.ID] = true; m.job.active() || m.busy {
			room--
		}
	}
	for id, j := range u.jobs {
		if !here[id] && j.active() && now.Sub(j.UpdatedAt) < slowest {
			room-- // its plan was switched off in the middle of it
		}
	}
	for _, again := range []bool{false, true} {
		for i := range list {
			m := &list[i]
			if room <= 0 || m.job.held() != again || !m.ready(u, now) {
				continue
			}
			if err := e.order(ctx, u, m, now); err != nil {
				return err
			}
			room--
		}
	}
	return nil
}

// order notes the job of a device, and asks it.
func (e *Engine) order(ctx context.Context, u *upgrades, m *member, now time.Time) error {
	j := &job{
		RolloutID: u.rollout.ID, DeviceID: m.ID, ID: newID(), Ring: ringIDs[max(m.ring, 0)], State: asked, FromVersion: m.Version, ToVersion: m.to,
		WasHealthy: m.Healthy, StartedAt: now, UpdatedAt: now,
	}
	if m.job != nil {
		j.Waited, j.Lost = m.job.Waited, m.job.Lost
	}
	if err := e.keep(ctx, e.cfg.DB, j); err != nil {
		return err
	}
	u.jobs[m.ID], m.job = j, j
	e.ask(ctx, u, j)
	e.cfg.Changed(u.organization)
	return nil
}

// through says whether a ring has nothing left to do, and whether it can speak
// for the version: one that has no devices needs not to.
func (u *upgrades) through(list []member, ring int, began, now time.Time) (quiet, speaks, empty bool) {
	quiet, empty = true, true
	for _, m := range list {
		if m.ring > ring || m.ring < 0 && u.rollout.Origin == "" {
			continue
		}
		switch {
		case m.job.active() && !m.job.held(), m.busy:
			quiet = false
		case m.job != nil && m.job.State == succeeded && now.Sub(*m.job.EndedAt) < probation:
			quiet = false
		case m.to != "" && m.Connected && !m.silent && !m.job.bad():
			quiet = false // also when its window is shut: it is waited for
		}
		if m.ring != ring || m.silent {
			continue
		}
		empty = false
		speaks = speaks || m.speaks(began, now)
	}
	return quiet, speaks, empty
}

// untried reports whether devices are to get a version and none of them can
// speak for it. It is not through then: the first that can would not be alone.
func untried(list []member) bool {
	wants := func(m member) bool { return m.to != "" }
	return slices.ContainsFunc(list, wants) && !slices.ContainsFunc(list, func(m member) bool { return !m.silent })
}

// advance goes to the next ring when its time has come. Only what is quiet
// without a break is a soak.
func (e *Engine) advance(ctx context.Context, u *upgrades, list []member) error {
	r, now := u.rollout, e.now()
	if r.State != Running {
		return nil
	}
	last := len(ringIDs) - 1
	ring, back := r.Ring, r.Origin != ""
	if back {
		ring = last
	}
	began := r.StartedAt
	if began.After(now) {
		began = e.up // the clock was set back since
	}
	quiet, speaks, empty := u.through(list, ring, began, now)
	quiet = quiet && (back || empty && !untried(list) || speaks)
	soak := time.Duration(u.settings.Rings[ring].SoakMinutes) * time.Minute
	over := quiet && (empty || back || soak == 0 || r.QuietSince != nil && now.Sub(*r.QuietSince) >= soak)
	if !over && quiet == (r.QuietSince != nil) {
		return nil
	}
	return e.change(ctx, u, func(ctx context.Context, tx bun.IDB) error {
		switch {
		case !quiet:
			r.QuietSince = nil
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
