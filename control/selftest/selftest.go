// Package selftest keeps the runs of detection tests and says how far each has
// come on the control plane's side.
//
// A device tells of its stages, up to the one in which the control plane has
// the finding; from there on they are looked up here, and what a device says
// of them is passed over.
package selftest

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/uptrace/bun"

	"komainu/control/access"
	"komainu/control/db"
	"komainu/control/rest"
	"komainu/drill"
	"komainu/event"
	"komainu/fault"
)

// Migrations are the tables of this package.
//
//go:embed migrations
var Migrations embed.FS

// Config is what the runs need of others.
type Config struct {
	Now func() time.Time
	// Record writes to the audit log.
	Record access.Recorder
	// Begin asks a device to run a test. Errors: fault.Unavailable when it is
	// not connected, fault.Conflict with what the device says.
	Begin func(ctx context.Context, device event.DeviceID, run, test string) error
	// Trace finds what became of a finding of a device.
	Trace func(ctx context.Context, organization string, device event.DeviceID, finding string) (Trace, error)
	// Notified says what became of the notifications of an alert. May be nil.
	Notified func(ctx context.Context, organization, alert string) (drill.Stage, error)
	// Changed is told of a run that has changed. It must not block.
	Changed func(organization, run string)
}

// Trace is what became of a finding. Alert is "" before there is one.
type Trace struct {
	Alert, Title string
	AlertAt      time.Time
	Incident     string
	Test         bool
}

// Bounds of what is kept.
const (
	keptPerDevice = 100
	// silence is how long a run may go without news of its device: a test takes
	// less.
	silence = 3 * time.Minute
	// beginLimit is how long a device may take to begin.
	beginLimit = 10 * time.Second
)

type row struct {
	bun.BaseModel  `bun:"table:detection_test_runs"`
	ID             string `bun:",pk"`
	OrganizationID string
	DeviceID       event.DeviceID
	Test           string
	StartedAt      time.Time
	UpdatedAt      time.Time
	StartedBy      string
	AlertID        string
	IncidentID     string
	Run            drill.Run `bun:"type:json"`
}

// Run is a run as it is shown.
type Run struct {
	drill.Run
	Device     rest.Ref  `json:"device"`
	StartedBy  string    `json:"startedBy" doc:"a person or token, empty when somebody on the device did"`
	UpdatedAt  time.Time `json:"updatedAt"`
	AlertID    string    `json:"alertId"`
	IncidentID string    `json:"incidentId"`
}

// Runs are the runs of all devices. It is safe for concurrent use.
type Runs struct {
	db  *bun.DB
	cfg Config
}

// New returns the runs over a migrated database.
func New(b *bun.DB, cfg Config) *Runs {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Changed == nil {
		cfg.Changed = func(string, string) {}
	}
	return &Runs{b, cfg}
}

func (r *Runs) now() time.Time { return r.cfg.Now().UTC().Truncate(time.Millisecond) }

// Start asks a device for a run. That the device is of the organization is the
// caller's to check. A device that cannot be reached is a run with a reason,
// not an error: that is what the test is for.
func (r *Runs) Start(ctx context.Context, organization string, device event.DeviceID, test string) (Run, error) {
	scenario, ok := drill.Find(test)
	if !ok {
		return Run{}, fault.New(fault.Invalid, "there is no detection test %q; GET /api/v1/detection-tests lists them", test)
	}
	now := r.now()
	entry := &row{
		ID: rest.NewID(), OrganizationID: organization, DeviceID: device, Test: test, StartedAt: now, UpdatedAt: now, StartedBy: access.ActorOf(ctx).Name,
	}
	entry.Run = drill.New(entry.ID, test, now)
	err := r.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		if err := insert(ctx, tx, entry); err != nil {
			return err
		}
		return r.cfg.Record(ctx, tx, access.Change{Action: "device.detection_test", Target: string(device), Name: scenario.Name, Detail: map[string]string{"test": test, "run": entry.ID}})
	})
	if err != nil {
		return Run{}, err
	}
	asking, cancel := context.WithTimeout(ctx, beginLimit)
	defer cancel()
	if err := r.cfg.Begin(asking, device, entry.ID, test); err != nil {
		return r.notBegun(context.WithoutCancel(ctx), organization, entry.ID, err)
	}
	r.cfg.Changed(organization, entry.ID)
	return r.Get(ctx, organization, entry.ID)
}

// notBegun ends a run that the device did not begin.
func (r *Runs) notBegun(ctx context.Context, organization, id string, cause error) (Run, error) {
	reason := drill.Reason{ID: drill.ScenarioFailed, Text: "the device did not begin: " + cause.Error(), Remedy: "try again; upgrade the agent if it does not know the test", Detail: cause.Error()}
	if fault.Is(cause, fault.Unavailable) {
		reason = drill.Reason{ID: drill.LinkDown, Text: "the device has no connection to the control plane: " + cause.Error(),
			Remedy: "on the device, run: komainu connectivity test", Detail: cause.Error()}
	}
	err := r.edit(ctx, id, func(e *row) error {
		if e.Run.Outcome == drill.Running {
			e.Run.Explain(reason)
		}
		return nil
	})
	if err != nil {
		return Run{}, err
	}
	r.cfg.Changed(organization, id)
	return r.Get(ctx, organization, id)
}

// insert adds a run and forgets the oldest of its device.
func insert(ctx context.Context, tx bun.Tx, entry *row) error {
	if _, err := tx.NewInsert().Model(entry).Exec(ctx); err != nil {
		return err
	}
	_, err := tx.NewRaw(`DELETE FROM detection_test_runs WHERE device_id = ? AND id NOT IN (
		SELECT id FROM detection_test_runs WHERE device_id = ? ORDER BY started_at DESC, id LIMIT ?)`, entry.DeviceID, entry.DeviceID, keptPerDevice).Exec(ctx)
	return err
}

// Forget deletes the runs of a device that is no longer there.
func (r *Runs) Forget(ctx context.Context, device event.DeviceID) error {
	_, err := r.db.NewDelete().Model((*row)(nil)).Where("device_id = ?", device).Exec(ctx)
	return err
}

func (r *Runs) edit(ctx context.Context, id string, change func(*row) error) error {
	return r.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		e := new(row)
		if err := tx.NewSelect().Model(e).Where("id = ?", id).Scan(ctx); err != nil {
			return db.NotFound(err, "run", id)
		}
		if err := change(e); err != nil {
			return err
		}
		e.UpdatedAt = r.now()
		_, err := tx.NewUpdate().Model(e).WherePK().Exec(ctx)
		return err
	})
}

// own are the stages that only the control plane knows of.
var own = []drill.StageID{drill.Alert, drill.Incident, drill.Notification}

// Report takes what a device tells of a run and returns the stages that it
// cannot know. Errors: fault.Invalid for what is no run of a test.
func (r *Runs) Report(ctx context.Context, organization string, device event.DeviceID, told drill.Run) ([]drill.Stage, error) {
	if err := check(told); err != nil {
		return nil, err
	}
	trace := Trace{}
	if told.Finding != "" {
		var err error
		if trace, err = r.cfg.Trace(ctx, organization, device, told.Finding); err != nil {
			return nil, err
		}
	}
	stages, err := r.stages(ctx, organization, trace)
	if err != nil {
		return nil, err
	}
	for _, s := range stages {
		if told.Outcome != drill.Running && s.State == drill.Waiting {
			s.State = drill.Missing
		}
		*told.Stage(s.ID) = s
	}
	changed := false
	err = r.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		e, now := new(row), r.now()
		switch err := tx.NewSelect().Model(e).Where("id = ?", told.ID).Scan(ctx); {
		case errors.Is(err, sql.ErrNoRows):
			e = &row{ID: told.ID, OrganizationID: organization, DeviceID: device, Test: told.Test, StartedAt: now, UpdatedAt: now}
			e.Run, e.AlertID, e.IncidentID, changed = told, trace.Alert, trace.Incident, true
			return insert(ctx, tx, e)
		case err != nil:
			return err
		case e.DeviceID != device || e.Test != told.Test:
			return fault.New(fault.Denied, "run %s is not of this device", told.ID)
		case e.Run.Outcome != drill.Running:
			return nil // it has ended
		}
		changed = !same(e.Run, told)
		e.Run, e.AlertID, e.IncidentID, e.UpdatedAt = told, trace.Alert, trace.Incident, now
		_, err := tx.NewUpdate().Model(e).WherePK().Exec(ctx)
		return err
	})
	if err == nil && changed {
		r.cfg.Changed(organization, told.ID)
	}
	return stages, err
}

// check refuses what is no run, so that what is shown is of known shape.
func check(told drill.Run) error {
	_, known := drill.Find(told.Test)
	switch {
	case !known || told.ID == "" || len(told.ID) > 64 || strings.ContainsFunc(told.ID, func(c rune) bool { return c <= ' ' || c > '~' }):
		return fault.New(fault.Invalid, "a report of a detection test that there is none of")
	case !slices.Contains([]drill.Outcome{drill.Running, drill.Passed, drill.Explained}, told.Outcome), (told.Outcome == drill.Explained) != (told.Reason != nil):
		return fault.New(fault.Invalid, "the outcome of a detection test makes no sense")
	}
	for i, id := range drill.Stages() {
		if i >= len(told.Stages) || told.Stages[i].ID != id || !slices.Contains([]drill.State{drill.OK, drill.Waiting, drill.Missing, drill.Skipped}, told.Stages[i].State) {
			return fault.New(fault.Invalid, "the stages of a detection test make no sense")
		}
	}
	if len(told.Stages) != len(drill.Stages()) {
		return fault.New(fault.Invalid, "the stages of a detection test make no sense")
	}
	return nil
}

func same(a, b drill.Run) bool {
	return a.Outcome == b.Outcome && a.Finding == b.Finding && a.Folder == b.Folder && slices.Equal(a.Stages, b.Stages)
}

// stages looks up what the control plane knows.
func (r *Runs) stages(ctx context.Context, organization string, t Trace) ([]drill.Stage, error) {
	list := make([]drill.Stage, len(own))
	for i, id := range own {
		list[i] = drill.Stage{ID: id, State: drill.Waiting}
	}
	if t.Alert == "" {
		return list, nil
	}
	list[0] = drill.Stage{ID: drill.Alert, State: drill.OK, At: t.AlertAt.UTC(), Detail: t.Title}
	switch {
	case t.Incident != "":
		list[1] = drill.Stage{ID: drill.Incident, State: drill.OK, At: t.AlertAt.UTC(), Detail: "incident " + t.Incident}
	case t.Test:
		list[1] = drill.Stage{ID: drill.Incident, State: drill.Skipped, Detail: "alerts of tests open no incident"}
	}
	if r.cfg.Notified == nil {
		list[2] = drill.Stage{ID: drill.Notification, State: drill.Skipped, Detail: "no notification is set up"}
		return list, nil
	}
	n, err := r.cfg.Notified(ctx, organization, t.Alert)
	n.ID = drill.Notification
	list[2] = n
	return list, err
}

// Get returns a run.
func (r *Runs) Get(ctx context.Context, organization, id string) (Run, error) {
	e := new(row)
	if err := r.db.NewSelect().Model(e).Where("id = ? AND organization_id = ?", id, organization).Scan(ctx); err != nil {
		return Run{}, db.NotFound(err, "run", id)
	}
	return r.view(e), nil
}

// Query selects runs.
type Query struct {
	rest.Paging
	Device string `query:"device"`
}

// List returns a page of runs, newest first.
func (r *Runs) List(ctx context.Context, organization string, q Query) (rest.List[Run], error) {
	offset, err := q.Offset()
	if err != nil {
		return rest.List[Run]{}, err
	}
	var rows []row
	sel := r.db.NewSelect().Model(&rows).Where("organization_id = ?", organization).Order("started_at DESC", "id")
	if q.Device != "" {
		sel = sel.Where("device_id = ?", q.Device)
	}
	total, err := sel.Limit(int64(q.Limit)).Offset(int64(offset)).ScanAndCount(ctx)
	if err != nil {
		return rest.List[Run]{}, err
	}
	list := make([]Run, len(rows))
	for i := range rows {
		list[i] = r.view(&rows[i])
	}
	return rest.NewList(list, int(total), q.Next(offset, len(list), int(total))), nil
}

func (r *Runs) view(e *row) Run {
	run := e.Run.Clone()
	if quiet := r.now().Sub(e.UpdatedAt); run.Outcome == drill.Running && quiet > silence {
		detail := "since " + e.UpdatedAt.UTC().Format(time.RFC3339)
		run.Explain(drill.Reason{ID: drill.LinkDown, Text: "the device has told nothing of this run " + detail, Remedy: "on the device, run: komainu connectivity test", Detail: detail})
	}
	return Run{Run: run, Device: rest.Ref{ID: string(e.DeviceID)}, StartedBy: e.StartedBy, UpdatedAt: e.UpdatedAt, AlertID: e.AlertID, IncidentID: e.IncidentID}
}
