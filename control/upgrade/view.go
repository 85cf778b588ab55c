package upgrade

import (
	"slices"
	"strings"
	"time"

	"komainu/control/rest"
	"komainu/deploy"
)

// Gap is how long devices were unprotected while they were upgraded.
type Gap struct {
	Median int64 `json:"median" doc:"milliseconds"`
	Worst  int64 `json:"worst" doc:"milliseconds"`
}

// Progress is how far a ring is. Its numbers are those of the list of devices.
type Progress struct {
	Ring    string `json:"ring"`
	Devices int    `json:"devices"`
	Done    int    `json:"done"`
	Failed  int    `json:"failed"`
	Waiting int    `json:"waiting" doc:"for their turn, their window, or in the middle of it"`
	Gap     *Gap   `json:"gapMs"`
}

// View is how the upgrades of an organization stand.
type View struct {
	Saved
	State    State          `json:"state" doc:"idle, running, halted, done"`
	Rollout  string         `json:"rollout" doc:"the version on its way, or the last one"`
	Rollback bool           `json:"rollback" doc:"it takes another version back"`
	Current  string         `json:"current" doc:"the ring that is upgraded now"`
	Halted   *deploy.Reason `json:"halted" doc:"why it has halted by itself"`
	Progress []Progress     `json:"progress"`
	Held     []Held         `json:"held" doc:"how many devices wait for something that nobody waits for, and why"`
}

// Held is how many devices wait for one reason.
type Held struct {
	Reason  deploy.Reason `json:"reason"`
	Devices int           `json:"devices"`
}

// Get returns how the upgrades of an organization stand.
func (e *Engine) Get(organization string) View {
	e.mu.Lock()
	defer e.mu.Unlock()
	u := e.of(organization)
	v := View{Saved: u.settings, State: Idle, Progress: []Progress{}, Held: []Held{}}
	v.Rings = slices.Clone(v.Rings)
	if r := u.rollout; r != nil {
		v.State, v.Rollout, v.Rollback, v.Halted = r.State, r.Version, r.Origin != "", reasonOf(r.Halted)
		if r.Origin == "" && r.State == Running && !u.settings.Automatic {
			v.State = Idle
		}
		if v.State == Running || v.State == Halted {
			v.Current = ringIDs[r.Ring]
		}
	}
	list := e.members(u)
	for ring, id := range ringIDs {
		p := Progress{Ring: id}
		var gaps []int64
		for _, m := range list {
			if m.ring != ring {
				continue
			}
			p.Devices++
			v.hold(m.why())
			switch m.stand() {
			case standDone:
				p.Done++
			case standFailed:
				p.Failed++
			default:
				p.Waiting++
			}
			if m.job != nil && m.job.ended() && m.job.Gap > 0 {
				gaps = append(gaps, m.job.Gap.Milliseconds())
			}
		}
		if len(gaps) > 0 {
			slices.Sort(gaps)
			p.Gap = &Gap{gaps[len(gaps)/2], gaps[len(gaps)-1]}
		}
		v.Progress = append(v.Progress, p)
	}
	return v
}

// hold counts a device that waits for a reason. The detail is that of one of
// them.
func (v *View) hold(why *deploy.Reason) {
	if why == nil {
		return
	}
	i := slices.IndexFunc(v.Held, func(h Held) bool { return h.Reason.ID == why.ID })
	if i < 0 {
		i, v.Held = len(v.Held), append(v.Held, Held{Reason: *why})
	}
	v.Held[i].Devices++
}

// why is what a device waits for that its ring does not, nil for nothing.
func (m *member) why() *deploy.Reason {
	switch {
	case m.to == "" || m.stand() != standWaiting:
		return nil
	case m.job.held():
		return m.job.Reason // while it is asked again there is none
	case m.job.active():
		return nil
	}
	return m.lacks
}

// What the numbers of a ring count.
const (
	standDone    = "done"
	standFailed  = "failed"
	standWaiting = "waiting"
)

func (m *member) stand() string {
	switch {
	case m.job.bad() && (m.to != "" || m.job.State == unhealthy):
		return standFailed
	case m.to != "" || m.job.active() || m.busy:
		return standWaiting
	}
	return standDone
}

// state is what a list shows of a device.
func (m *member) state() string {
	switch {
	case m.job == nil && m.to == "":
		return current
	case m.job == nil:
		return waiting
	case m.stand() == standDone && m.job.State != succeeded:
		return current // it got there by another way
	}
	return m.job.State
}

// Line is a device in a rollout.
type Line struct {
	Device    rest.Ref       `json:"device"`
	Ring      string         `json:"ring"`
	State     string         `json:"state" doc:"current, waiting, asked, fetching, ready, installing, probation, succeeded, failed, rolled_back, unhealthy"`
	Connected bool           `json:"connected"`
	From      string         `json:"from" doc:"the version before, or the one that it has"`
	To        string         `json:"to"`
	Waits     string         `json:"waits" doc:"what one that waits waits for: device, window, turn; empty for others"`
	Reason    *deploy.Reason `json:"reason"`
	GapMs     *int64         `json:"gapMs" doc:"how long it was unprotected"`
	StartedAt *time.Time     `json:"startedAt"`
	EndedAt   *time.Time     `json:"endedAt"`
}

// Query asks for devices of a rollout.
type Query struct {
	rest.Paging
	Ring  string `query:"ring" enum:"canary,early,broad" doc:"a ring"`
	State string `query:"state" enum:"done,failed,waiting,current,asked,fetching,ready,installing,probation,succeeded,rolled_back,unhealthy" doc:"done, failed and waiting are what the progress counts; the others are states"`
	Text  string `query:"q" maxLength:"200" doc:"part of a name"`
	Held  string `query:"held" maxLength:"100" doc:"id of the reason for which a device waits"`
}

// Devices returns the devices of a rollout that a query asks for, ring by
// ring.
func (e *Engine) Devices(organization string, q Query) []Line {
	e.mu.Lock()
	defer e.mu.Unlock()
	u := e.of(organization)
	list := []Line{}
	for _, m := range e.members(u) {
		if m.ring < 0 || q.Ring != "" && q.Ring != ringIDs[m.ring] || !strings.Contains(strings.ToLower(m.Name), strings.ToLower(q.Text)) {
			continue
		}
		if q.State != "" && q.State != m.stand() && q.State != m.state() {
			continue
		}
		if (q.State == standFailed || q.State == standWaiting) && q.State != m.stand() {
			continue // also names of states: what the progress counts goes first
		}
		if why := m.why(); q.Held != "" && (why == nil || string(why.ID) != q.Held) {
			continue
		}
		list = append(list, m.line())
	}
	return list
}

func (m *member) line() Line {
	l := Line{Device: rest.Ref{ID: string(m.ID), Name: m.Name}, Ring: ringIDs[m.ring], State: m.state(), Connected: m.Connected, From: m.Version, To: m.to}
	if j := m.job; j != nil {
		l.From, l.Reason, l.StartedAt, l.EndedAt = j.FromVersion, reasonOf(j.Reason), &j.StartedAt, j.EndedAt
		l.To = j.ToVersion
		if j.ended() && j.Gap > 0 {
			l.GapMs = new(j.Gap.Milliseconds())
		}
		if j.EndedAt != nil {
			l.EndedAt = new(*j.EndedAt)
		}
		l.StartedAt = new(j.StartedAt)
	}
	if why := m.why(); why != nil {
		l.Reason = reasonOf(why)
	}
	if l.State == waiting && l.Reason == nil {
		switch {
		case !m.Connected:
			l.Waits = "device"
		case !m.Open:
			l.Waits = "window"
		default:
			l.Waits = "turn"
		}
	}
	return l
}
