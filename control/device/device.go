// Package device is the registry of devices: what they are, whether they are
// connected, and what their agents say of their health.
//
// A device is created when it enrols and never deleted: offboarding marks it.
// What lists and filters need is kept in memory for every device; the rest is
// read for the page that is shown. Health reports and last-seen times are
// written in batches by Run: after a crash they are at most ten minutes old,
// and agents report again when they reconnect.
package device

import (
	"context"
	"embed"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/uptrace/bun"

	"komainu/control/access"
	"komainu/control/db"
	"komainu/control/rest"
	"komainu/event"
	"komainu/fault"
	"komainu/health"
	"komainu/policy"
)

// Migrations are the tables of this package.
//
//go:embed migrations
var Migrations embed.FS

// Facts describe a host, as its agent tells them. The fields are those of
// wire.Facts, so that one converts to the other.
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
	ExpiredAt         *time.Time     // nothing but its name is kept since then
	Health            *health.Report `bun:"type:json"`
	HealthAt          *time.Time
	PolicyConfirmed   uint64
	PolicyConfirmedAt *time.Time
	PolicyError       string
}

// entry is what is kept in memory of a device.
type entry struct {
	id           event.DeviceID
	organization string
	environment  string
	name         string
	addresses    []string
	platform     string
	distribution string
	arch         string
	agentVersion string
	firstSeen    time.Time
	refused      bool // the agent refuses its policy
	offboarded   bool
	expired      bool // it has a name and nothing else
	connected    bool
	lastSeen     time.Time
	report       *health.Report // the latest, nil before the first
	reportedAt   time.Time
	writtenAt    time.Time
	dirty        bool // lastSeen and report wait to be written
}

// Config is what a registry needs of its neighbours.
type Config struct {
	Log *slog.Logger
	Now func() time.Time
	// Tier returns the plan of a device in an environment.
	Tier func(environment string, id event.DeviceID) policy.Tier
	// Placed returns what is decided for the machine of a device alone: a plan
	// of its own, "" for that of its environment, and whether it is only
	// watched for now. May be nil.
	Placed func(id event.DeviceID) (own policy.Tier, observe bool)
	// Record writes to the audit log.
	Record access.Recorder
	// Changed is told which device changed. It must not block. May be nil.
	Changed func(organization string, id event.DeviceID)
}

// Registry holds the devices. It is safe for concurrent use.
type Registry struct {
	db  *bun.DB
	cfg Config

	mu      sync.Mutex
	entries map[event.DeviceID]*entry
}

// Open reads the registry from a migrated database.
func Open(ctx context.Context, d *bun.DB, cfg Config) (*Registry, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Changed == nil {
		cfg.Changed = func(string, event.DeviceID) {}
	}
	if cfg.Placed == nil {
		cfg.Placed = func(event.DeviceID) (policy.Tier, bool) { return "", false }
	}
	r := &Registry{db: d, cfg: cfg, entries: map[event.DeviceID]*entry{}}
	var rows []row
	if err := d.NewSelect().Model(&rows).Scan(ctx); err != nil {
		return nil, fmt.Errorf("read devices: %w", err)
	}
	for i := range rows {
		r.entries[rows[i].ID] = rows[i].entry()
	}
	return r, nil
}

func (d *row) entry() *entry {
	e := &entry{
		id: d.ID, organization: d.OrganizationID, environment: d.EnvironmentID, name: d.Name,
		offboarded: d.OffboardedAt != nil, expired: d.ExpiredAt != nil, firstSeen: d.FirstSeen, lastSeen: d.LastSeen, report: d.Health, refused: d.PolicyError != "",
	}
	e.describe(d.Facts)
	if d.HealthAt != nil {
		e.reportedAt = *d.HealthAt
	}
	return e
}

// describe keeps of a host's facts what devices are selected by.
func (e *entry) describe(f Facts) {
	e.name, e.addresses, e.platform, e.distribution, e.arch, e.agentVersion = f.Hostname, f.IPAddresses, platform(f.OS), f.Distribution, f.Arch, f.AgentVersion
}

func (r *Registry) now() time.Time { return r.cfg.Now().UTC().Truncate(time.Millisecond) }

// MaxName is the longest name of a host, in bytes.
const MaxName = 253

// Register creates a device for a host that enrols. A host that enrols again
// becomes a new device: whoever has its disk could have been a clone.
func (r *Registry) Register(ctx context.Context, organization, environment string, f Facts) (event.DeviceID, error) {
	if err := f.check(); err != nil {
		return "", err
	}
	now := r.now()
	d := &row{ID: event.DeviceID(rest.NewID()), OrganizationID: organization, EnvironmentID: environment, Name: f.Hostname, Facts: f, FirstSeen: now, LastSeen: now}
	if _, err := r.db.NewInsert().Model(d).Exec(ctx); err != nil {
		return "", err
	}
	r.mu.Lock()
	r.entries[d.ID] = d.entry()
	r.mu.Unlock()
	r.cfg.Changed(organization, d.ID)
	return d.ID, nil
}

func (f Facts) check() error {
	if strings.TrimSpace(f.Hostname) == "" || len(f.Hostname) > MaxName {
		return fault.New(fault.Invalid, "the name of the host is missing or longer than %d bytes", MaxName)
	}
	return nil
}

// errGone is what a device hears that is not, or no longer, one of ours.
func errGone(id event.DeviceID) error {
	return fault.New(fault.Unauthentic, "device %s is offboarded or not known; enrol it again", id)
}

// Connected notes a new connection and the facts that came with it.
func (r *Registry) Connected(ctx context.Context, id event.DeviceID, f Facts) error {
	if err := f.check(); err != nil {
		return err
	}
	now := r.now()
	d := &row{ID: id, Name: f.Hostname, Facts: f, LastSeen: now}
	res, err := r.db.NewUpdate().Model(d).Column("name", "facts", "last_seen").Where("id = ? AND offboarded_at IS NULL", id).Exec(ctx)
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return errGone(id)
	}
	r.change(id, func(e *entry) {
		e.describe(f)
		e.connected, e.lastSeen = true, now
	})
	return nil
}

// Disconnected notes that the last connection of a device has ended.
func (r *Registry) Disconnected(id event.DeviceID) {
	now := r.now()
	r.change(id, func(e *entry) { e.connected, e.lastSeen, e.dirty = false, now, true })
}

// Report keeps the health that an agent tells.
func (r *Registry) Report(id event.DeviceID, report health.Report) {
	now := r.now()
	r.mu.Lock()
	e := r.entries[id]
	changed := false
	if e != nil {
		changed = e.report == nil || !alike(*e.report, report)
		// What says nothing new is written now and then, so that its age is
		// right after a restart without a write per heartbeat.
		e.dirty = e.dirty || changed || now.Sub(e.writtenAt) > rewriteAfter
		e.report, e.reportedAt, e.lastSeen = &report, now, now
	}
	r.mu.Unlock()
	if changed {
		r.cfg.Changed(e.organization, id) // which a device never changes
	}
}

// alike reports whether two reports differ in nothing but the time.
func alike(a, b health.Report) bool {
	a.Time, a.DefinitionsMinutes = b.Time, b.DefinitionsMinutes
	return reflect.DeepEqual(a, b)
}

func (r *Registry) change(id event.DeviceID, edit func(*entry)) {
	r.mu.Lock()
	e := r.entries[id]
	if e != nil {
		edit(e)
	}
	r.mu.Unlock()
	if e != nil {
		r.cfg.Changed(e.organization, id)
	}
}

// PolicyConfirmed notes what became of a policy on a device.
func (r *Registry) PolicyConfirmed(ctx context.Context, id event.DeviceID, version uint64, problem string) error {
	q := r.db.NewUpdate().Model((*row)(nil)).Set("policy_error = ?", problem).Where("id = ?", id)
	if problem == "" {
		q = q.Set("policy_confirmed = ?", version).Set("policy_confirmed_at = ?", r.now())
	}
	_, err := q.Exec(ctx)
	r.change(id, func(e *entry) { e.refused = problem != "" })
	return err
}

// Offboard marks a device as gone. Its history stays. Errors: fault.Conflict
// when it is gone already.
func (r *Registry) Offboard(ctx context.Context, organization string, id event.DeviceID, reason string) error {
	return r.end(ctx, organization, id, access.Change{Action: "device.revoke", Detail: map[string]string{"reason": reason}}, nil)
}

// Leave is Offboard by the host of the device itself. tell, in the same
// transaction, lets people know.
func (r *Registry) Leave(ctx context.Context, organization string, id event.DeviceID, tell func(context.Context, bun.IDB) error) error {
	return r.end(ctx, organization, id, access.Change{Action: "device.leave"}, tell)
}

func (r *Registry) end(ctx context.Context, organization string, id event.DeviceID, change access.Change, tell func(context.Context, bun.IDB) error) error {
	err := r.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		d := new(row)
		if err := tx.NewSelect().Model(d).Where("id = ? AND organization_id = ?", id, organization).Scan(ctx); err != nil {
			return db.NotFound(err, "device", id)
		}
		if d.OffboardedAt != nil {
			return fault.New(fault.Conflict, "device %s is offboarded already", d.Name)
		}
		d.OffboardedAt = new(r.now())
		if _, err := tx.NewUpdate().Model(d).Column("offboarded_at").WherePK().Exec(ctx); err != nil {
			return err
		}
		if tell != nil {
			if err := tell(ctx, tx); err != nil {
				return err
			}
		}
		change.Target, change.Name = string(id), d.Name
		return r.cfg.Record(ctx, tx, change)
	})
	if err == nil {
		r.change(id, func(e *entry) { e.offboarded = true })
	}
	return err
}

// Expire forgets what is known of devices that are offboarded for longer than
// keep says for their environment; 0 means for good. Their names stay, for
// the alerts and incidents that speak of them. forget deletes what others keep
// of a device; it is called again for one whose expiry does not end well.
func (r *Registry) Expire(ctx context.Context, keep func(environment string) time.Duration, forget func(context.Context, event.DeviceID) error) error {
	var rows []row
	if err := r.db.NewSelect().Model(&rows).Column("id", "organization_id", "environment_id", "name", "offboarded_at").Where("offboarded_at IS NOT NULL AND expired_at IS NULL").Scan(ctx); err != nil {
		return err
	}
	now := r.now()
	for _, d := range rows {
		if kept := keep(d.EnvironmentID); kept == 0 || now.Sub(*d.OffboardedAt) < kept {
			continue
		}
		d.ExpiredAt, d.Facts, d.Health, d.HealthAt, d.PolicyError = &now, Facts{Hostname: d.Name}, nil, nil, ""
		if err := forget(ctx, d.ID); err != nil {
			return fmt.Errorf("forget what is kept of device %s: %w", d.ID, err)
		}
		ctx := access.WithActor(ctx, access.Actor{Kind: access.System, Name: "onboarding", Organization: d.OrganizationID})
		err := r.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
			if _, err := tx.NewUpdate().Model(&d).Column("expired_at", "facts", "health", "health_at", "policy_error").WherePK().Exec(ctx); err != nil {
				return err
			}
			return r.cfg.Record(ctx, tx, access.Change{Action: "device.expire", Target: string(d.ID), Name: d.Name})
		})
		if err != nil {
			return err
		}
		r.change(d.ID, func(e *entry) {
			e.describe(d.Facts)
			e.expired, e.report, e.dirty = true, nil, false
		})
	}
	return nil
}

// Place returns the organization and the environment that a device belongs
// to. An offboarded device keeps its place.
func (r *Registry) Place(id event.DeviceID) (organization, environment string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.entries[id]; e != nil {
		return e.organization, e.environment, nil
	}
	return "", "", fault.New(fault.NotFound, "there is no device %s", id)
}

// Names returns the names of devices.
func (r *Registry) Names(ids ...event.DeviceID) map[event.DeviceID]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	names := make(map[event.DeviceID]string, len(ids))
	for _, id := range ids {
		if e := r.entries[id]; e != nil {
			names[id] = e.name
		}
	}
	return names
}

// rewriteAfter is how old a report on disk may get.
const rewriteAfter = 10 * time.Minute

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
				r.cfg.Log.Warn("device states wait to be written", "error", err)
			}
		}
	}
}

func (r *Registry) flush(ctx context.Context) error {
	var changed []entry
	r.mu.Lock()
	now := r.now()
	for _, e := range r.entries {
		if e.connected {
			e.lastSeen = now
		}
		if e.dirty {
			changed = append(changed, *e)
			e.dirty, e.writtenAt = false, now
		}
	}
	r.mu.Unlock()
	if changed == nil {
		return nil
	}
	err := r.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		for _, e := range changed {
			d := &row{ID: e.id, LastSeen: e.lastSeen, Health: e.report, HealthAt: &e.reportedAt}
			columns := []string{"last_seen"}
			if e.report != nil {
				columns = append(columns, "health", "health_at")
			}
			if _, err := tx.NewUpdate().Model(d).Column(columns...).WherePK().Exec(ctx); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, c := range changed {
			if e := r.entries[c.id]; e != nil {
				e.dirty = true
			}
		}
	}
	return err
}
