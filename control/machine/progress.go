package machine

import (
	"context"
	"slices"
	"time"

	"github.com/uptrace/bun"

	"komainu/control/access"
	"komainu/deploy"
	"komainu/event"
	"komainu/fault"
)

// Line is an entry of the journal of a machine.
type Line struct {
	bun.BaseModel `bun:"table:machine_journal"`

	ID      int64          `bun:",pk,autoincrement" json:"-"`
	Machine string         `bun:"machine_id" json:"-"`
	At      time.Time      `json:"at"`
	Step    deploy.Step    `json:"step"`
	State   string         `json:"state" enum:"ok,failed,info"`
	Text    string         `json:"text"`
	Reason  *deploy.Reason `bun:"type:json" json:"reason"`
}

// States of a line.
const (
	LineOK     = "ok"
	LineFailed = "failed"
	LineInfo   = "info"
)

// Journal returns what happened on a machine lately, the oldest first.
func (r *Registry) Journal(ctx context.Context, id string) ([]Line, error) {
	lines := []Line{}
	err := r.db.NewSelect().Model(&lines).Where("machine_id = ?", id).Order("id").Scan(ctx)
	return lines, err
}

// Note changes the extension of a machine, and adds a line to its journal
// unless the line's step is "".
func (r *Registry) Note(ctx context.Context, id string, l Line, change func(*Extension)) error {
	now := r.now()
	l.Machine, l.At = id, now
	var write func(context.Context, bun.Tx, *Machine) error
	if l.Step != "" {
		write = l.write
	}
	return r.edit(ctx, id, write, func(m *Machine) error {
		m.note(now, change)
		return nil
	})
}

// note changes the extension, and keeps since when it is in its state.
func (m *Machine) note(now time.Time, change func(*Extension)) {
	was := m.Extension.State
	change(&m.Extension)
	if m.Extension.State != was {
		m.Extension.Since = now
	}
}

// Noted is a change of the extension of a machine that its journal does not
// speak of.
type Noted struct {
	Machine string
	Change  func(*Extension)
}

// notedAtOnce bounds how long many notes keep others from writing.
const notedAtOnce = 500

// NoteAll changes the extensions of many machines. Those that are not there
// any more are left out.
func (r *Registry) NoteAll(ctx context.Context, all []Noted) error {
	for part := range slices.Chunk(all, notedAtOnce) {
		if err := r.noteAll(ctx, part); err != nil {
			return err
		}
	}
	return nil
}

func (r *Registry) noteAll(ctx context.Context, part []Noted) error {
	r.writing.Lock()
	defer r.writing.Unlock()
	now := r.now()
	changed := make([]*Machine, 0, len(part))
	for _, n := range part {
		m, ok := r.Lookup(n.Machine)
		if !ok {
			continue
		}
		m.note(now, n.Change)
		changed = append(changed, &m)
	}
	return r.put(ctx, nil, nil, changed)
}

// write adds a line to the journal of its machine, and drops the oldest.
func (l Line) write(ctx context.Context, tx bun.Tx, m *Machine) error {
	if _, err := tx.NewInsert().Model(&l).Exec(ctx); err != nil {
		return err
	}
	_, err := tx.NewDelete().Model((*Line)(nil)).
		Where("machine_id = ? AND id <= (SELECT id FROM machine_journal WHERE machine_id = ? ORDER BY id DESC LIMIT 1 OFFSET ?)", m.ID, m.ID, keptJournal).Exec(ctx)
	return err
}

// Described keeps what a preflight has seen of a machine.
func (r *Registry) Described(ctx context.Context, id, os, arch string) error {
	return r.edit(ctx, id, nil, func(m *Machine) error {
		m.System, m.OS, m.Arch = "linux", os, arch
		return nil
	})
}

// Linked notes which device runs on a machine, without an enrolment.
func (r *Registry) Linked(ctx context.Context, id string, device event.DeviceID) error {
	return r.edit(ctx, id, nil, func(m *Machine) error {
		m.Device = device
		return nil
	})
}

// Link is Linked by a person who has been on the machine. A machine that came to
// be when the agent enrolled by itself is the same one then: see Merge. Errors:
// fault.Conflict for a device that is elsewhere.
func (r *Registry) Link(ctx context.Context, organization, id string, device event.DeviceID) error {
	m, err := r.Get(organization, id)
	if err != nil {
		return err
	}
	other, ok := r.Of(device)
	switch {
	case ok && other.ID == id:
		return nil
	case ok && other.Environment != m.Environment:
		return fault.New(fault.Conflict, "the agent on %s is enrolled in another environment; offboard its machine %s there first", m.Name, other.ID)
	case ok && other.Connector != "":
		return fault.New(fault.Conflict, "the agent on %s is that of the machine %s (%s), which another connector lists; take one of the two out of its list", m.Name, other.Name, other.ID)
	case ok:
		return r.Merge(ctx, id, other.ID)
	}
	change := access.Change{Action: "machine.link", Detail: map[string]any{"device": device}}
	return r.edit(ctx, id, r.audited(&change), func(m *Machine) error {
		m.Device, m.LastSeen, m.Extension.Next = device, r.now(), time.Time{}
		return nil
	})
}

// Sample is how many machines of an environment were protected at a time.
type Sample struct {
	bun.BaseModel `bun:"table:machine_coverage"`

	Environment   string    `bun:"environment_id,pk" json:"-"`
	At            time.Time `bun:",pk" json:"at"`
	Machines      int       `json:"machines"`
	Protected     int       `json:"protected"`
	Failed        int       `json:"failed"`
	NotApplicable int       `json:"notApplicable"`
}

// Quarter is how often coverage is kept.
const Quarter = 15 * time.Minute

// keptCoverage is how long.
const keptCoverage = 400 * 24 * time.Hour

// Sample keeps the coverage of every environment, at most one row for each
// quarter of an hour: the latest.
func (r *Registry) Sample(ctx context.Context) error {
	at := r.now().Truncate(Quarter)
	byEnvironment := map[string]*Sample{}
	for _, m := range r.All("") {
		if m.Gone {
			continue
		}
		s := byEnvironment[m.Environment]
		if s == nil {
			s = &Sample{Environment: m.Environment, At: at}
			byEnvironment[m.Environment] = s
		}
		s.Machines++
		switch m.Extension.State {
		case deploy.Succeeded:
			s.Protected++
		case deploy.Failed:
			s.Failed++
		case deploy.NotApplicable:
			s.NotApplicable++
		}
	}
	if len(byEnvironment) == 0 {
		return nil
	}
	return r.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		for _, s := range byEnvironment {
			if _, err := tx.NewInsert().Model(s).On("CONFLICT (environment_id, at) DO UPDATE").Exec(ctx); err != nil {
				return err
			}
		}
		_, err := tx.NewDelete().Model((*Sample)(nil)).Where("at < ?", at.Add(-keptCoverage)).Exec(ctx)
		return err
	})
}

// Coverage returns the samples of an environment since a time, the oldest
// first, thinned out to at most most of them.
func (r *Registry) Coverage(ctx context.Context, environment string, since time.Time, most int) ([]Sample, error) {
	var all []Sample
	if err := r.db.NewSelect().Model(&all).Where("environment_id = ? AND at >= ?", environment, since.UTC()).Order("at").Scan(ctx); err != nil {
		return nil, err
	}
	step := max(1, (len(all)+most-1)/most)
	points := []Sample{}
	for i := len(all) - 1; i >= 0; i -= step { // the latest is always one of them
		points = append(points, all[i])
	}
	slices.Reverse(points)
	return points, nil
}
