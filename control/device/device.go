// Package device is the registry of devices: what they are, whether they are
// connected, and what their agents say of their health.
//
// A device is created when it enrols and never deleted: offboarding marks it.
// Health reports and last-seen times are kept in memory and written in
// batches by Run; after a crash they are as old as the last batch, and the
// agents report again when they reconnect.
package device

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/uptrace/bun"

	"komainu/control/db"
	"komainu/control/rest"
	"komainu/event"
	"komainu/fault"
	"komainu/health"
)

// Migrations are the tables of this package.
//
//go:embed migrations
var Migrations embed.FS

// Facts describe a host, as its agent tells them.
type Facts struct {
	Hostname     string   `json:"hostname"`
	OS           string   `json:"os"`
	Distribution string   `json:"distribution"`
	OSVersion    string   `json:"osVersion"`
	OSName       string   `json:"osName"`
	Kernel       string   `json:"kernel"`
	Arch         string   `json:"arch"`
	BootID       string   `json:"bootId"`
	MachineID    string   `json:"machineId"`
	IPAddresses  []string `json:"ipAddresses"`
	MACAddresses []string `json:"macAddresses"`
	AgentVersion string   `json:"agentVersion"`
}

type row struct {
	bun.BaseModel `bun:"table:devices"`

	ID                event.DeviceID `bun:",pk"`
	OrganizationID    string
	EnvironmentID     string
	Name              string
	Facts             Facts `bun:"type:json"`
	FirstSeen         time.Time
	LastSeen          time.Time
	OffboardedAt      *time.Time
	Health            *health.Report `bun:"type:json"`
	HealthAt          *time.Time
	PolicyConfirmed   uint64
	PolicyConfirmedAt *time.Time
	PolicyError       string
}

// live is what is known of a device beyond its row.
type live struct {
	connected  bool
	since      time.Time // of the connection, or of its loss
	lastSeen   time.Time
	report     *health.Report
	reportedAt time.Time
	dirty      bool
}

// Registry holds the devices. It is safe for concurrent use.
type Registry struct {
	db  *bun.DB
	log *slog.Logger
	now func() time.Time

	mu   sync.Mutex
	live map[event.DeviceID]*live
}

// New returns the registry over a migrated database.
func New(d *bun.DB, log *slog.Logger) *Registry {
	return &Registry{db: d, log: log, now: time.Now, live: map[event.DeviceID]*live{}}
}

// Register creates a device for a host that enrols. A host that enrols again
// becomes a new device: whoever has its disk could have been a clone.
func (r *Registry) Register(ctx context.Context, organization, environment string, f Facts) (event.DeviceID, error) {
	if strings.TrimSpace(f.Hostname) == "" || len(f.Hostname) > 253 {
		return "", fault.New(fault.Invalid, "the host's name is missing or too long")
	}
	now := r.now().UTC()
	d := row{ID: event.DeviceID(rest.NewID()), OrganizationID: organization, EnvironmentID: environment, Name: f.Hostname, Facts: f, FirstSeen: now, LastSeen: now}
	_, err := r.db.NewInsert().Model(&d).Exec(ctx)
	return d.ID, err
}

// Connected notes a new connection and the facts that came with it.
func (r *Registry) Connected(ctx context.Context, id event.DeviceID, f Facts) error {
	now := r.now().UTC()
	res, err := r.db.NewUpdate().Model((*row)(nil)).Set("facts = ?", jsonText(f)).Set("name = ?", f.Hostname).Set("last_seen = ?", now).
		Where("id = ? AND offboarded_at IS NULL", id).Exec(ctx)
	if err != nil {
		return err
	}
	if n, _ := res.RowsAffected(); n == 0 {
		return fault.New(fault.Unauthentic, "this device is offboarded or not known")
	}
	r.change(id, func(l *live) { l.connected, l.since, l.lastSeen = true, now, now })
	return nil
}

// Disconnected notes that a connection has ended.
func (r *Registry) Disconnected(id event.DeviceID) {
	now := r.now().UTC()
	r.change(id, func(l *live) { l.connected, l.since, l.dirty = false, now, true })
}

// Report keeps the health that an agent tells.
func (r *Registry) Report(id event.DeviceID, report health.Report) {
	now := r.now().UTC()
	r.change(id, func(l *live) { l.report, l.reportedAt, l.lastSeen, l.dirty = &report, now, now, true })
}

func (r *Registry) change(id event.DeviceID, edit func(*live)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.live[id]
	if l == nil {
		l = &live{}
		r.live[id] = l
	}
	edit(l)
}

// PolicyConfirmed notes what became of a policy on a device.
func (r *Registry) PolicyConfirmed(ctx context.Context, id event.DeviceID, version uint64, problem string) error {
	q := r.db.NewUpdate().Model((*row)(nil)).Set("policy_error = ?", problem).Where("id = ?", id)
	if problem == "" {
		q = q.Set("policy_confirmed = ?", version).Set("policy_confirmed_at = ?", r.now().UTC())
	}
	_, err := q.Exec(ctx)
	return err
}

// Offboard marks a device as gone. Its history stays.
func (r *Registry) Offboard(ctx context.Context, id event.DeviceID) error {
	res, err := r.db.NewUpdate().Model((*row)(nil)).Set("offboarded_at = ?", r.now().UTC()).Where("id = ? AND offboarded_at IS NULL", id).Exec(ctx)
	if err != nil {
		return err
	}
	if n, _ := res.RowsAffected(); n == 0 {
		return fault.New(fault.NotFound, "there is no onboarded device %s", id)
	}
	return nil
}

// EnvironmentOf returns where a device belongs.
func (r *Registry) EnvironmentOf(ctx context.Context, id event.DeviceID) (organization, environment string, err error) {
	var d row
	err = r.db.NewSelect().Model(&d).Column("organization_id", "environment_id").Where("id = ?", id).Scan(ctx)
	return d.OrganizationID, d.EnvironmentID, db.NotFound(err, "device", id)
}

// InEnvironment lists the onboarded devices of an environment.
func (r *Registry) InEnvironment(ctx context.Context, environment string) ([]event.DeviceID, error) {
	var ids []event.DeviceID
	err := r.db.NewSelect().Model((*row)(nil)).Column("id").Where("environment_id = ? AND offboarded_at IS NULL", environment).Scan(ctx, &ids)
	return ids, err
}

// flushEvery is how much of last-seen and health a crash may lose.
const flushEvery = 10 * time.Second

// Run writes what changed in memory until ctx ends, and a last time then.
func (r *Registry) Run(ctx context.Context) error {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return r.flush(context.WithoutCancel(ctx))
		case <-tick.C:
			if err := r.flush(ctx); err != nil {
				r.log.Warn("device states wait to be written", "error", err)
			}
		}
	}
}

func (r *Registry) flush(ctx context.Context) error {
	type change struct {
		id event.DeviceID
		l  live
	}
	var changes []change
	r.mu.Lock()
	for id, l := range r.live {
		if l.dirty {
			changes = append(changes, change{id, *l})
			l.dirty = false
		}
	}
	r.mu.Unlock()
	if changes == nil {
		return nil
	}
	err := r.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		for _, c := range changes {
			q := tx.NewUpdate().Model((*row)(nil)).Where("id = ?", c.id)
			if !c.l.lastSeen.IsZero() {
				q = q.Set("last_seen = ?", c.l.lastSeen)
			} else {
				q = q.Set("last_seen = last_seen")
			}
			if c.l.report != nil {
				q = q.Set("health = ?", jsonText(c.l.report)).Set("health_at = ?", c.l.reportedAt)
			}
			if _, err := q.Exec(ctx); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		for _, c := range changes {
			r.change(c.id, func(l *live) { l.dirty = true })
		}
	}
	return err
}

// jsonText encodes plain data of ours, which cannot fail.
func jsonText(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(errors.New("encode device state: " + err.Error()))
	}
	return string(b)
}
