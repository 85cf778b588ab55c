// Package incident turns findings into alerts, and alerts that belong together
// into incidents.
//
// A finding is taken once per state, by its id: a queue that delivers again
// changes nothing. Findings that tell of one thing (a threat in a file, a rule
// and a process) within a minute of each other are one alert, which shows the
// one that tells most. Alerts of one device within a day of each other that
// share an entity (see role) are one incident; an alert that connects two
// incidents joins them into the older one. What comes out does not depend on
// the order in which findings arrive, as long as nobody resolves an incident
// in between: a resolved incident takes no further alerts.
package incident

import (
	"cmp"
	"context"
	"embed"
	"fmt"
	"slices"
	"time"

	"github.com/uptrace/bun"

	"komainu/control/access"
	"komainu/control/rest"
	"komainu/event"
	"komainu/finding"
)

// Migrations are the tables of this package.
//
//go:embed migrations
var Migrations embed.FS

// Statuses of alerts.
const (
	StatusNew        = "New"
	StatusInProgress = "InProgress" // also of incidents
	StatusResolved   = "Resolved"   // also of incidents
	StatusActive     = "Active"     // of incidents
)

// How near in time things have to be.
const (
	foldWindow      = time.Minute
	correlateWindow = 24 * time.Hour
)

type alertRow struct {
	bun.BaseModel `bun:"table:alerts"`

	ID              string `bun:",pk"`
	OrganizationID  string
	DeviceID        event.DeviceID
	IncidentID      *int64
	MergedInto      *string
	Fold            string
	Title           string
	Severity        finding.Severity `bun:"type:integer"`
	Status          string
	Category        finding.Category
	DetectionSource finding.DetectionSource
	ThreatName      string
	State           finding.State
	Brief           brief           `bun:"type:json"` // of Finding, for lists
	Finding         finding.Finding `bun:"type:json"` // the most telling one
	Occurrences     int             // findings, each once
	Test            bool
	Assignee        string
	Classification  string
	Determination   string
	CreatedAt       time.Time
	FirstActivity   time.Time
	LastActivity    time.Time
}

// brief is what lists show of a finding; the whole of it can be large.
type brief struct {
	Summary    string       `json:"summary"`
	Techniques []string     `json:"techniques"`
	Rule       finding.Rule `json:"rule"`
}

type incidentRow struct {
	bun.BaseModel `bun:"table:incidents"`

	ID             int64 `bun:",pk,autoincrement"`
	OrganizationID string
	DeviceID       event.DeviceID
	Name           string           // "" for what the alerts say
	Severity       finding.Severity `bun:"type:integer"` // 0 for what the alerts say
	Status         string
	Assignee       string
	Classification string
	Determination  string
	MergedInto     *int64
	CreatedAt      time.Time
	FirstActivity  time.Time
	LastActivity   time.Time
}

// Desk holds alerts and incidents. It is safe for concurrent use.
type Desk struct {
	db  *bun.DB
	cfg Config
}

// Config is what a desk needs.
type Config struct {
	Now func() time.Time
	// Record writes to the audit log.
	Record access.Recorder
	// Changed is told what was made or changed, after it is saved. It must not
	// block. May be nil.
	Changed func(organization string, c Changed)
	// Tell is told what people may want to know, within the transaction that
	// makes it true. May be nil.
	Tell func(ctx context.Context, tx bun.IDB, organization string, n News) error
}

// New returns the desk over a migrated database.
func New(d *bun.DB, cfg Config) *Desk {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Changed == nil {
		cfg.Changed = func(string, Changed) {}
	}
	return &Desk{db: d, cfg: cfg}
}

func (d *Desk) now() time.Time { return d.cfg.Now().UTC().Truncate(time.Millisecond) }

// Changed names what a call has made or changed.
type Changed struct {
	Alerts    []string
	Incidents []int64
	Devices   []event.DeviceID
}

// Take takes findings that a device has reported. It is atomic: on an error
// nothing of the list is kept, and the same list can be given again.
func (d *Desk) Take(ctx context.Context, organization string, device event.DeviceID, list []finding.Finding) (Changed, error) {
	var changed Changed
	err := d.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		changed = Changed{}
		b := newBefore()
		for i := range list {
			f := list[i]
			f.Device = device
			if err := d.take(ctx, tx, organization, &f, &changed, b); err != nil {
				return fmt.Errorf("finding %s: %w", f.ID, err)
			}
		}
		return d.report(ctx, tx, organization, b)
	})
	if err != nil {
		return Changed{}, err
	}
	if len(changed.Alerts) > 0 {
		changed.Devices = []event.DeviceID{device}
		d.cfg.Changed(organization, changed)
	}
	return changed, nil
}

func (d *Desk) take(ctx context.Context, tx bun.Tx, organization string, f *finding.Finding, changed *Changed, b *before) error {
	f.Time = f.Time.UTC()
	var states []finding.State
	if err := tx.NewSelect().Table("findings").Column("state").Where("id = ?", f.ID).Scan(ctx, &states); err != nil {
		return err
	}
	if slices.Contains(states, f.State) {
		return nil
	}
	a, err := d.alertFor(ctx, tx, organization, f, b)
	if err != nil {
		return err
	}
	if len(states) == 0 {
		a.Occurrences++
	}
	if _, err := tx.NewRaw("INSERT INTO findings (id, state, alert_id) VALUES (?, ?, ?)", f.ID, f.State, a.ID).Exec(ctx); err != nil {
		return err
	}
	for _, e := range entities(f) {
		_, err := tx.NewRaw("INSERT INTO alert_keys (device_id, key, role, alert_id) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", f.Device, e.key, e.role, a.ID).Exec(ctx)
		if err != nil {
			return err
		}
	}
	if !a.Test {
		if err := d.correlate(ctx, tx, a, changed, b); err != nil {
			return err
		}
	}
	if _, err := tx.NewUpdate().Model(a).WherePK().Exec(ctx); err != nil {
		return err
	}
	if !slices.Contains(changed.Alerts, a.ID) {
		changed.Alerts = append(changed.Alerts, a.ID)
	}
	return nil
}

// alertFor returns the alert that a finding belongs to, with the finding
// folded into it: the one that has the finding in another state, the one that
// is near in time, or a new one.
func (d *Desk) alertFor(ctx context.Context, tx bun.Tx, organization string, f *finding.Finding, b *before) (*alertRow, error) {
	var list []alertRow
	err := tx.NewSelect().Model(&list).Where("merged_into IS NULL AND id IN (SELECT alert_id FROM findings WHERE id = ?)", f.ID).Scan(ctx)
	if err == nil && len(list) == 0 {
		list, err = near(ctx, tx, &alertRow{Fold: foldKey(f), FirstActivity: f.Time, LastActivity: f.Time})
	}
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		a := newAlert(organization, f, d.now())
		b.alert(a.ID, 0)
		_, err := tx.NewInsert().Model(a).Exec(ctx)
		return a, err
	}
	a := &list[0]
	b.alert(a.ID, a.Severity)
	a.fold(f)
	// The finding may be the missing link to other alerts.
	for {
		others, err := near(ctx, tx, a)
		if err != nil || len(others) == 0 {
			return a, err
		}
		for i := range others {
			if err := d.absorb(ctx, tx, a, &others[i]); err != nil {
				return nil, err
			}
		}
	}
}

// near returns the alerts that tell of the same thing as a, near in time,
// oldest first.
func near(ctx context.Context, tx bun.Tx, a *alertRow) ([]alertRow, error) {
	var list []alertRow
	err := tx.NewSelect().Model(&list).Where("fold = ? AND merged_into IS NULL AND id <> ?", a.Fold, a.ID).
		Where("first_activity <= ? AND last_activity >= ?", a.LastActivity.Add(foldWindow), a.FirstActivity.Add(-foldWindow)).
		Order("created_at", "id").Scan(ctx)
	return list, err
}

func newAlert(organization string, f *finding.Finding, now time.Time) *alertRow {
	a := &alertRow{
		// The prefix says where an alert comes from, as in portals that people
		// know.
		ID: "da" + rest.NewID(), OrganizationID: organization, DeviceID: f.Device, Fold: foldKey(f), Status: StatusNew, Classification: NotSet, Category: f.Category,
		DetectionSource: f.Source, Test: f.Test, CreatedAt: now, FirstActivity: f.Time, LastActivity: f.Time,
	}
	if f.Threat != nil {
		a.ThreatName = f.Threat.Name
	}
	a.show(f)
	return a
}

// show makes f the finding that the alert shows.
func (a *alertRow) show(f *finding.Finding) {
	a.Finding, a.Title, a.Severity, a.State = *f, title(f), severity(f), f.State
	a.Brief = brief{f.Summary, f.Techniques, f.Rule}
}

// telling orders states by how much they say of what became of a threat.
var telling = []finding.State{finding.Detected, finding.Allowed, finding.Failed, finding.Blocked, finding.Quarantined, finding.Removed, finding.Restored}

// fold adds a further finding to an alert. It is commutative: of two findings
// that say equally much, the earlier and then the one with the smaller id is
// the one that is shown.
func (a *alertRow) fold(f *finding.Finding) {
	if f.Time.Before(a.FirstActivity) {
		a.FirstActivity = f.Time
	}
	if f.Time.After(a.LastActivity) {
		a.LastActivity = f.Time
	}
	if moreTelling(f, &a.Finding) {
		a.show(f)
	}
}

func moreTelling(f, than *finding.Finding) bool {
	return cmp.Or(
		cmp.Compare(slices.Index(telling, f.State), slices.Index(telling, than.State)),
		than.Time.Compare(f.Time),
		cmp.Compare(than.ID, f.ID),
	) > 0
}

// absorb moves everything of an alert into another one. The empty one stays,
// pointing to where its findings went, so that links to it still lead there.
func (d *Desk) absorb(ctx context.Context, tx bun.Tx, into, other *alertRow) error {
	into.fold(&other.Finding)
	if other.FirstActivity.Before(into.FirstActivity) {
		into.FirstActivity = other.FirstActivity
	}
	if other.LastActivity.After(into.LastActivity) {
		into.LastActivity = other.LastActivity
	}
	into.Occurrences += other.Occurrences
	if other.Status != StatusNew && into.Status == StatusNew {
		into.Status = other.Status
	}
	if into.Assignee == "" {
		into.Assignee = other.Assignee
	}
	if into.Classification == NotSet {
		into.Classification, into.Determination = other.Classification, other.Determination
	}
	for _, q := range []string{
		"UPDATE findings SET alert_id = ? WHERE alert_id = ?",
		"UPDATE OR REPLACE alert_keys SET alert_id = ? WHERE alert_id = ?",
		"UPDATE incident_activity SET alert_id = ? WHERE alert_id = ?",
		"UPDATE incident_comments SET alert_id = ? WHERE alert_id = ?",
	} {
		if _, err := tx.NewRaw(q, into.ID, other.ID).Exec(ctx); err != nil {
			return err
		}
	}
	// The incident of the other one has to be found again through this one.
	if other.IncidentID != nil {
		if into.IncidentID == nil {
			into.IncidentID = other.IncidentID
		} else if *into.IncidentID != *other.IncidentID {
			if err := d.joinInto(ctx, tx, *into.IncidentID, *other.IncidentID); err != nil {
				return err
			}
		}
	}
	other.MergedInto, other.IncidentID = &into.ID, nil
	_, err := tx.NewUpdate().Model(other).WherePK().Exec(ctx)
	return err
}

// correlate puts an alert into its incident, and joins incidents that it
// connects.
func (d *Desk) correlate(ctx context.Context, tx bun.Tx, a *alertRow, changed *Changed, b *before) error {
	incidents, err := sharing(ctx, tx, a)
	if err != nil {
		return err
	}
	var in incidentRow
	if len(incidents) == 0 {
		in = incidentRow{OrganizationID: a.OrganizationID, DeviceID: a.DeviceID, Status: StatusActive, Classification: NotSet, CreatedAt: d.now(), FirstActivity: a.FirstActivity, LastActivity: a.LastActivity}
		if _, err := tx.NewInsert().Model(&in).Exec(ctx); err != nil {
			return err
		}
		b.incident(in.ID, 0)
		if err := d.note(ctx, tx, &in.ID, nil, systemActor, "created", "", ""); err != nil {
			return err
		}
	} else {
		in = incidents[0]
		list, err := pages(ctx, tx, incidents[:1])
		if err != nil {
			return err
		}
		b.incident(in.ID, list[0].Severity)
		for _, other := range incidents[1:] {
			if err := d.join(ctx, tx, &in, &other); err != nil {
				return err
			}
		}
		in.widen(a.FirstActivity, a.LastActivity)
		if _, err := tx.NewUpdate().Model(&in).WherePK().Exec(ctx); err != nil {
			return err
		}
	}
	a.IncidentID = &in.ID
	if !slices.Contains(changed.Incidents, in.ID) {
		changed.Incidents = append(changed.Incidents, in.ID)
	}
	return nil
}

// sharing returns the incidents that an alert belongs to, oldest first: the
// one it is in, and open ones with an alert that shares an entity with it and
// is near in time.
func sharing(ctx context.Context, tx bun.Tx, a *alertRow) ([]incidentRow, error) {
	var list []incidentRow
	err := tx.NewRaw(`SELECT * FROM incidents WHERE merged_into IS NULL AND (id = ? OR status <> ? AND id IN (
			SELECT other.incident_id FROM alert_keys mine
			JOIN alert_keys theirs ON theirs.device_id = mine.device_id AND theirs.key = mine.key AND (mine.role = ? OR theirs.role = ?)
			JOIN alerts other ON other.id = theirs.alert_id
			WHERE mine.alert_id = ? AND other.id <> mine.alert_id AND other.first_activity <= ? AND other.last_activity >= ?))
		ORDER BY id`,
		a.IncidentID, StatusResolved, acts, acts, a.ID, a.LastActivity.Add(correlateWindow), a.FirstActivity.Add(-correlateWindow)).Scan(ctx, &list)
	own := slices.IndexFunc(list, func(in incidentRow) bool { return a.IncidentID != nil && in.ID == *a.IncidentID })
	if own >= 0 && list[own].Status == StatusResolved {
		// It stays where somebody has looked at it.
		list = list[own : own+1]
	}
	return list, err
}

func (in *incidentRow) widen(first, last time.Time) {
	if first.Before(in.FirstActivity) {
		in.FirstActivity = first
	}
	if last.After(in.LastActivity) {
		in.LastActivity = last
	}
}

// join moves everything of an incident into another one. The empty one stays,
// pointing to where its alerts went, so that links to it still lead there.
func (d *Desk) join(ctx context.Context, tx bun.Tx, into, other *incidentRow) error {
	into.widen(other.FirstActivity, other.LastActivity)
	if into.Assignee == "" {
		into.Assignee = other.Assignee
	}
	if into.Status == StatusResolved {
		into.Status = other.Status
	}
	if into.Name == "" {
		into.Name = other.Name
	}
	into.Severity = max(into.Severity, other.Severity)
	if into.Classification == NotSet {
		into.Classification, into.Determination = other.Classification, other.Determination
	}
	for _, q := range []string{
		"UPDATE alerts SET incident_id = ? WHERE incident_id = ?",
		"UPDATE incident_activity SET incident_id = ? WHERE incident_id = ?",
		"UPDATE incident_comments SET incident_id = ? WHERE incident_id = ?",
	} {
		if _, err := tx.NewRaw(q, into.ID, other.ID).Exec(ctx); err != nil {
			return err
		}
	}
	if err := d.note(ctx, tx, &into.ID, nil, systemActor, "joined", fmt.Sprint(other.ID), fmt.Sprint(into.ID)); err != nil {
		return err
	}
	other.MergedInto, other.Status = &into.ID, StatusResolved
	_, err := tx.NewUpdate().Model(other).WherePK().Exec(ctx)
	return err
}

func (d *Desk) joinInto(ctx context.Context, tx bun.Tx, intoID, otherID int64) error {
	into, other := &incidentRow{ID: intoID}, &incidentRow{ID: otherID}
	if err := tx.NewSelect().Model(into).WherePK().Scan(ctx); err != nil {
		return err
	}
	if err := tx.NewSelect().Model(other).WherePK().Scan(ctx); err != nil {
		return err
	}
	if err := d.join(ctx, tx, into, other); err != nil {
		return err
	}
	_, err := tx.NewUpdate().Model(into).WherePK().Exec(ctx)
	return err
}
