// Package incident turns findings into alerts, and alerts that belong together
// into incidents.
//
// A finding is taken once, by its id: a queue that delivers again changes
// nothing. Findings of one threat in one file within ten minutes are one
// alert, whose state is the furthest that any of them reached. Alerts of one
// device that share an entity (the top of a process tree, a file's hash)
// within a day are one incident; an alert that connects two incidents joins
// them into the older one. What comes out does not depend on the order in
// which findings arrive, as long as nobody resolves an incident in between.
package incident

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/uptrace/bun"

	"komainu/control/access"
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

const (
	foldWindow      = 10 * time.Minute
	correlateWindow = 24 * time.Hour
)

type alertRow struct {
	bun.BaseModel `bun:"table:alerts"`

	ID              string `bun:",pk"`
	OrganizationID  string
	DeviceID        event.DeviceID
	IncidentID      *int64
	Title           string
	Severity        finding.Severity
	Status          string
	Category        finding.Category
	DetectionSource finding.DetectionSource
	ThreatName      string
	State           finding.State
	Finding         finding.Finding `bun:"type:json"` // the most telling one
	Keys            []string        `bun:"type:json"`
	Occurrences     int
	Test            bool
	CreatedAt       time.Time
	FirstActivity   time.Time
	LastActivity    time.Time
}

type incidentRow struct {
	bun.BaseModel `bun:"table:incidents"`

	ID             int64 `bun:",pk,autoincrement"`
	OrganizationID string
	DeviceID       event.DeviceID
	Status         string
	Assignee       string
	MergedInto     *int64
	CreatedAt      time.Time
	FirstActivity  time.Time
	LastActivity   time.Time
}

type keyRow struct {
	bun.BaseModel `bun:"table:incident_keys"`

	DeviceID   event.DeviceID
	Key        string
	IncidentID int64
	Last       time.Time
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
	Changed func(Changed)
}

// New returns the desk over a migrated database.
func New(d *bun.DB, cfg Config) *Desk {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Changed == nil {
		cfg.Changed = func(Changed) {}
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
		for i := range list {
			f := list[i]
			f.Device = device
			if err := d.take(ctx, tx, organization, &f, &changed); err != nil {
				return fmt.Errorf("finding %s: %w", f.ID, err)
			}
		}
		return nil
	})
	return changed, err
}

func (d *Desk) take(ctx context.Context, tx bun.Tx, organization string, f *finding.Finding, changed *Changed) error {
	id := alertID(f)
	known, err := tx.NewSelect().Table("findings").Where("id = ?", f.ID).Count(ctx)
	if err != nil || known > 0 {
		return err
	}
	var a alertRow
	err = tx.NewSelect().Model(&a).Where("id = ?", id).Scan(ctx)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		a = newAlert(organization, id, f, d.now())
		if _, err := tx.NewInsert().Model(&a).Exec(ctx); err != nil {
			return err
		}
	case err != nil:
		return err
	default:
		a.fold(f)
	}
	if !a.Test {
		if err := d.correlate(ctx, tx, &a, changed); err != nil {
			return err
		}
	}
	if _, err := tx.NewUpdate().Model(&a).WherePK().Exec(ctx); err != nil {
		return err
	}
	if _, err := tx.NewRaw("INSERT INTO findings (id, alert_id) VALUES (?, ?)", f.ID, a.ID).Exec(ctx); err != nil {
		return err
	}
	if !slices.Contains(changed.Alerts, a.ID) {
		changed.Alerts = append(changed.Alerts, a.ID)
	}
	return nil
}

// alertID gives findings that are one alert the same id. The prefix says
// where the alert comes from, as in the portals that people know.
func alertID(f *finding.Finding) string {
	parts := []string{string(f.Device), string(f.Source), f.Rule.ID}
	if f.Source == finding.SourceAntivirus && f.Threat != nil {
		parts = append(parts, f.Threat.Name, mainPath(f), f.Time.Truncate(foldWindow).UTC().Format(time.RFC3339))
	} else {
		parts = append(parts, string(f.ID))
	}
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return "da" + hex.EncodeToString(h.Sum(nil)[:16])
}

func mainPath(f *finding.Finding) string {
	for _, e := range f.Evidence {
		if e.File != nil {
			return e.File.Path
		}
	}
	return ""
}

func newAlert(organization, id string, f *finding.Finding, now time.Time) alertRow {
	a := alertRow{
		ID: id, OrganizationID: organization, DeviceID: f.Device, Title: f.Title, Severity: f.Severity, Status: StatusNew, Category: f.Category,
		DetectionSource: f.Source, State: f.State, Finding: *f, Keys: correlationKeys(f), Occurrences: 1, Test: f.Test, CreatedAt: now,
		FirstActivity: f.Time, LastActivity: f.Time,
	}
	if f.Threat != nil {
		a.ThreatName = f.Threat.Name
	}
	return a
}

// telling orders states by how much they say of what became of a threat.
var telling = []finding.State{finding.Detected, finding.Allowed, finding.Failed, finding.Blocked, finding.Quarantined, finding.Removed, finding.Restored}

// fold adds a further finding to an alert. It is commutative: of two findings
// that say equally much, the earlier and then the one with the smaller id is
// the one that is shown.
func (a *alertRow) fold(f *finding.Finding) {
	a.Occurrences++
	if f.Time.Before(a.FirstActivity) {
		a.FirstActivity = f.Time
	}
	if f.Time.After(a.LastActivity) {
		a.LastActivity = f.Time
	}
	for _, k := range correlationKeys(f) {
		if !slices.Contains(a.Keys, k) {
			a.Keys = append(a.Keys, k)
		}
	}
	slices.Sort(a.Keys)
	if moreTelling(f, &a.Finding) {
		a.Finding, a.Title, a.Severity, a.State = *f, f.Title, f.Severity, f.State
	}
}

func moreTelling(f, than *finding.Finding) bool {
	a, b := slices.Index(telling, f.State), slices.Index(telling, than.State)
	switch {
	case a != b:
		return a > b
	case !f.Time.Equal(than.Time):
		return f.Time.Before(than.Time)
	default:
		return f.ID < than.ID
	}
}

// correlationKeys names the entities that join alerts into an incident.
func correlationKeys(f *finding.Finding) []string {
	var keys []string
	if n := len(f.Tree); n > 0 {
		if root := sessionTop(f.Tree); !root.IsZero() {
			keys = append(keys, "process:"+root.String())
		}
	}
	for _, e := range f.Evidence {
		if e.File != nil && e.File.Hashes.SHA256 != "" && f.Source == finding.SourceAntivirus {
			keys = append(keys, "sha256:"+e.File.Hashes.SHA256)
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// sessionTop returns the highest ancestor below init: Tree holds the acting
// process and its ancestors, nearest first, and then others that took part.
func sessionTop(tree []event.Process) event.ProcessKey {
	top := tree[0]
	for _, p := range tree[1:] {
		if !p.Key.Same(top.Parent) {
			break
		}
		if p.Key.PID <= 1 || p.Parent.IsZero() && p.Key.PID <= 2 {
			break
		}
		top = p
	}
	return top.Key
}

// correlate puts an alert into its incident, and joins incidents that it
// connects.
func (d *Desk) correlate(ctx context.Context, tx bun.Tx, a *alertRow, changed *Changed) error {
	incidents, err := d.sharing(ctx, tx, a)
	if err != nil {
		return err
	}
	var in incidentRow
	if len(incidents) == 0 {
		in = incidentRow{OrganizationID: a.OrganizationID, DeviceID: a.DeviceID, Status: StatusActive, CreatedAt: d.now(), FirstActivity: a.FirstActivity, LastActivity: a.LastActivity}
		if _, err := tx.NewInsert().Model(&in).Exec(ctx); err != nil {
			return err
		}
	} else {
		in = incidents[0]
		for _, other := range incidents[1:] {
			if err := join(ctx, tx, &in, other); err != nil {
				return err
			}
		}
		in.widen(a.FirstActivity, a.LastActivity)
		if _, err := tx.NewUpdate().Model(&in).WherePK().Exec(ctx); err != nil {
			return err
		}
	}
	for _, k := range a.Keys {
		_, err := tx.NewRaw(`INSERT INTO incident_keys (device_id, key, incident_id, last) VALUES (?, ?, ?, ?)
			ON CONFLICT DO UPDATE SET last = max(last, excluded.last)`, a.DeviceID, k, in.ID, a.LastActivity).Exec(ctx)
		if err != nil {
			return err
		}
	}
	a.IncidentID = &in.ID
	if !slices.Contains(changed.Incidents, in.ID) {
		changed.Incidents = append(changed.Incidents, in.ID)
	}
	return nil
}

// sharing returns the open incidents that an alert belongs to, oldest first:
// the one it is in, and those with a key of its own within the window.
func (d *Desk) sharing(ctx context.Context, tx bun.Tx, a *alertRow) ([]incidentRow, error) {
	var list []incidentRow
	q := tx.NewSelect().Model(&list).Where("merged_into IS NULL AND device_id = ?", a.DeviceID).
		WhereGroup(" AND ", func(q *bun.SelectQuery) *bun.SelectQuery {
			if len(a.Keys) > 0 {
				q = q.Where(`status != ? AND id IN (SELECT incident_id FROM incident_keys WHERE device_id = ? AND key IN (?) AND last > ?)`,
					StatusResolved, a.DeviceID, bun.List(a.Keys), a.FirstActivity.Add(-correlateWindow))
			} else {
				q = q.Where("FALSE")
			}
			if a.IncidentID != nil {
				q = q.WhereOr("id = ?", *a.IncidentID)
			}
			return q
		}).Order("id")
	err := q.Scan(ctx)
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
func join(ctx context.Context, tx bun.Tx, into *incidentRow, other incidentRow) error {
	into.widen(other.FirstActivity, other.LastActivity)
	if _, err := tx.NewRaw("UPDATE alerts SET incident_id = ? WHERE incident_id = ?", into.ID, other.ID).Exec(ctx); err != nil {
		return err
	}
	if _, err := tx.NewRaw("UPDATE OR REPLACE incident_keys SET incident_id = ? WHERE incident_id = ?", into.ID, other.ID).Exec(ctx); err != nil {
		return err
	}
	other.MergedInto, other.Status = &into.ID, StatusResolved
	_, err := tx.NewUpdate().Model(&other).WherePK().Exec(ctx)
	return err
}
