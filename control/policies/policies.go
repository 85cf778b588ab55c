// Package policies holds what operators decide about protection: policies,
// the groups of devices that they are assigned to, and the document that
// follows from them for each device.
//
// The plan comes first: what it says, no policy changes. Then policies count
// in the order of their precedence (see [Policies.compose]). What policies and
// groups there are is kept in memory in a view that never changes; saving
// something makes a new one. The document of a device has a version of its
// own, which rises when its content changes and stays above everything that
// its agent has ever reported, so that a control plane that was restored from
// an old backup is listened to.
package policies

import (
	"context"
	"embed"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/uptrace/bun"

	"komainu/control/access"
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

// Bounds of an organization.
const (
	MaxPolicies    = 500
	MaxGroups      = 500
	maxAssignments = 200
	// maxSettings bounds the settings of all policies together, in bytes of
	// JSON, so that the document of a device that gets all of them fits a
	// frame of the link.
	maxSettings = 512 << 10
)

// Device is what policies and groups look at in a device.
type Device struct {
	ID           event.DeviceID
	Organization string
	Environment  string
	Name         string
	Platform     string
	Tags         []policy.Tag
	Settings     []health.Setting // who set what, as its agent reports
	Plan         policy.Tier      // of its machine alone, "" for that of its environment
	Observe      bool             // its machine is only watched for now
}

// What can change.
const (
	APolicy = "policy"
	AGroup  = "group"
)

// Config is what policies need of their neighbours.
type Config struct {
	Now func() time.Time
	// Sign signs a document with the policy key.
	Sign func(*policy.Document) (policy.Signed, error)
	// Record writes to the audit log.
	Record access.Recorder
	// Plan returns the document that the plan of a device makes, without
	// version and device. What it says depends on the place of the device, its
	// own plan and whether it is observed, on nothing else.
	Plan func(ctx context.Context, d Device) (policy.Document, error)
	// Environments returns the names of an organization's environments by id.
	Environments func(ctx context.Context, organization string) (map[string]string, error)
	// Devices returns all devices that are not offboarded, and Device one.
	Devices func() []Device
	Device  func(event.DeviceID) (Device, error)
	// Changed is told what was changed after it is saved: APolicy or AGroup,
	// and its id. It must not block. May be nil.
	Changed func(organization, what, id string)
}

// Policies holds policies, groups and documents. It is safe for concurrent
// use.
type Policies struct {
	db  *bun.DB
	cfg Config

	saving sync.Mutex // one change of policies and groups at a time
	view   atomic.Pointer[view]

	documents documents
}

// row is a policy as it is stored. What a view holds is never changed.
type row struct {
	bun.BaseModel `bun:"table:policies"`

	ID             string `bun:",pk"`
	OrganizationID string
	Name           string
	Description    string
	Type           policy.Section
	Settings       policy.Settings `bun:"type:json"`
	Priority       int
	Assignments    []Assignment `bun:"type:json"`
	Version        uint64
	UpdatedAt      time.Time
	UpdatedBy      string
}

// Kinds of assignments, from the one that counts most.
const (
	ToGroup       = "group"
	ToEnvironment = "environment"
	ToAll         = "all"
)

// Assignment says which devices a policy is for.
type Assignment struct {
	Kind string `json:"kind" enum:"all,environment,group"`
	ID   string `json:"id,omitempty" maxLength:"64" doc:"of the environment or group; empty for all"`
	Name string `json:"name,omitempty" maxLength:"200" doc:"of the environment or group; answered, not taken"`
}

// Policy is a policy as the API shows it.
type Policy struct {
	ID          string          `json:"id"`
	Name        string          `json:"name"`
	Description string          `json:"description"`
	Type        policy.Section  `json:"type" doc:"antivirus, exclusions or edr"`
	Settings    policy.Settings `json:"settings"`
	Priority    int             `json:"priority" doc:"the lower number wins"`
	Assignments []Assignment    `json:"assignments"`
	Version     uint64          `json:"version"`
	UpdatedAt   time.Time       `json:"updatedAt"`
	UpdatedBy   string          `json:"updatedBy"`
	Devices     Counts          `json:"devices"`
}

// Counts are the devices that a policy is for.
type Counts struct {
	Assigned  int `json:"assigned"`
	Confirmed int `json:"confirmed" doc:"whose agents have applied the newest document"`
	Pending   int `json:"pending" doc:"whose agents have not answered yet"`
	Failed    int `json:"failed" doc:"whose agents refuse the newest document"`
}

// Change is what somebody saves of a policy.
type Change struct {
	Version     uint64       `json:"version,omitempty" doc:"that the change is based on; needed to change a policy"`
	Name        string       `json:"name"`
	Description string       `json:"description,omitempty" maxLength:"2000"`
	Type        string       `json:"type" doc:"antivirus, exclusions or edr"`
	Settings    Raw          `json:"settings,omitempty" doc:"values by the names of the catalogue"`
	Priority    int          `json:"priority,omitempty" minimum:"0" maximum:"10000" doc:"the lower number wins"`
	Assignments []Assignment `json:"assignments,omitempty" doc:"none: the policy is a draft"`
}

// Open reads policies, groups and documents from a migrated database.
func Open(ctx context.Context, d *bun.DB, cfg Config) (*Policies, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Changed == nil {
		cfg.Changed = func(string, string, string) {}
	}
	p := &Policies{db: d, cfg: cfg}
	if err := p.load(ctx); err != nil {
		return nil, err
	}
	return p, p.documents.load(ctx, d)
}

func (p *Policies) now() time.Time { return p.cfg.Now().UTC().Truncate(time.Millisecond) }

// load makes a new view of what is stored.
func (p *Policies) load(ctx context.Context) error {
	var policies []*row
	if err := p.db.NewSelect().Model(&policies).Scan(ctx); err != nil {
		return fmt.Errorf("read policies: %w", err)
	}
	var groups []*group
	if err := p.db.NewSelect().Model(&groups).Scan(ctx); err != nil {
		return fmt.Errorf("read device groups: %w", err)
	}
	p.view.Store(newView(policies, groups))
	return nil
}

// Refresh forgets what was composed: a plan has changed.
func (p *Policies) Refresh() {
	for {
		old := p.view.Load()
		if p.view.CompareAndSwap(old, newView(old.policies, old.groups)) {
			return
		}
	}
}

// List returns the policies of an organization in the order of their
// priority.
func (p *Policies) List(ctx context.Context, organization string) ([]Policy, error) {
	v := p.view.Load()
	names, err := p.cfg.Environments(ctx, organization)
	if err != nil {
		return nil, err
	}
	counts, err := p.count(ctx, v, organization)
	if err != nil {
		return nil, err
	}
	var list []Policy
	for _, r := range v.policies {
		if r.OrganizationID == organization {
			list = append(list, r.view(v, names, counts[r.ID]))
		}
	}
	slices.SortFunc(list, func(a, b Policy) int {
		if a.Priority != b.Priority {
			return a.Priority - b.Priority
		}
		return strings.Compare(a.Name, b.Name)
	})
	return list, nil
}

// Get returns one policy.
func (p *Policies) Get(ctx context.Context, organization, id string) (Policy, error) {
	v := p.view.Load()
	r, err := v.policy(organization, id)
	if err != nil {
		return Policy{}, err
	}
	names, err := p.cfg.Environments(ctx, organization)
	if err != nil {
		return Policy{}, err
	}
	counts, err := p.count(ctx, v, organization)
	if err != nil {
		return Policy{}, err
	}
	return r.view(v, names, counts[id]), nil
}

func (r *row) view(v *view, environments map[string]string, c Counts) Policy {
	s := Policy{ID: r.ID, Name: r.Name, Description: r.Description, Type: r.Type, Settings: r.Settings, Priority: r.Priority,
		Assignments: slices.Clone(r.Assignments), Version: r.Version, UpdatedAt: r.UpdatedAt, UpdatedBy: r.UpdatedBy, Devices: c}
	if s.Assignments == nil {
		s.Assignments = []Assignment{}
	}
	for i, a := range s.Assignments {
		switch a.Kind {
		case ToEnvironment:
			s.Assignments[i].Name = environments[a.ID]
		case ToGroup:
			if g := v.group(a.ID); g != nil {
				s.Assignments[i].Name = g.Name
			}
		}
	}
	return s
}

// Create makes a policy.
func (p *Policies) Create(ctx context.Context, organization string, c Change) (Policy, error) {
	r := &row{ID: rest.NewID(), OrganizationID: organization}
	return p.save(ctx, r, nil, c)
}

// Save changes a policy. A version that is not the newest is a conflict.
func (p *Policies) Save(ctx context.Context, organization, id string, c Change) (Policy, error) {
	old, err := p.view.Load().policy(organization, id)
	if err != nil {
		return Policy{}, err
	}
	return p.save(ctx, &row{ID: id, OrganizationID: organization}, old, c)
}

// save checks and stores a policy, and is the only one that does.
func (p *Policies) save(ctx context.Context, r, old *row, c Change) (Policy, error) {
	environments, err := p.cfg.Environments(ctx, r.OrganizationID)
	if err != nil {
		return Policy{}, err
	}
	p.saving.Lock()
	defer p.saving.Unlock()
	v := p.view.Load()
	action, changed := "policy.create", any(nil)
	if old != nil {
		// Again, now that nobody else saves.
		if old, err = v.policy(r.OrganizationID, r.ID); err != nil {
			return Policy{}, err
		}
		if c.Version != old.Version {
			return Policy{}, stale("policy", old.Name, old.UpdatedBy, old.Version, c.Version)
		}
		action = "policy.change"
	}
	if err := r.take(c); err != nil {
		return Policy{}, err
	}
	if old != nil && old.Type != r.Type {
		return Policy{}, fault.New(fault.Invalid, "type: a policy of type %s stays one; make another policy of type %s", old.Type, r.Type)
	}
	if err := v.admit(r, environments); err != nil {
		return Policy{}, err
	}
	r.Version, r.UpdatedAt, r.UpdatedBy = 1, p.now(), access.ActorOf(ctx).Name
	if old != nil {
		r.Version = old.Version + 1
	}
	changed = differences(old, r)
	err = p.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		if _, err := tx.NewInsert().Model(r).On("CONFLICT (id) DO UPDATE").Exec(ctx); err != nil {
			return err
		}
		return p.cfg.Record(ctx, tx, access.Change{Action: action, Target: r.ID, Name: r.Name, Detail: changed})
	})
	if err != nil {
		return Policy{}, err
	}
	if err := p.committed(ctx, r.OrganizationID, APolicy, r.ID); err != nil {
		return Policy{}, err
	}
	return p.Get(ctx, r.OrganizationID, r.ID)
}

func (p *Policies) committed(ctx context.Context, organization, what, id string) error {
	// The change is stored: it has to be seen even if who made it is gone.
	if err := p.load(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	p.cfg.Changed(organization, what, id)
	return nil
}

// Delete removes a policy. One that is assigned is removed only with force:
// its devices fall back to what else applies to them.
func (p *Policies) Delete(ctx context.Context, organization, id string, force bool) error {
	environments, err := p.cfg.Environments(ctx, organization)
	if err != nil {
		return err
	}
	p.saving.Lock()
	defer p.saving.Unlock()
	v := p.view.Load()
	r, err := v.policy(organization, id)
	if err != nil {
		return err
	}
	if len(r.Assignments) > 0 && !force {
		var uses []string
		for _, a := range r.view(v, environments, Counts{}).Assignments {
			uses = append(uses, strings.TrimSpace(a.Kind+" "+a.Name))
		}
		return fault.New(fault.Conflict, "the policy %q is assigned to %s; take the assignments away first, or delete it with force=true: its devices then get what else applies to them", r.Name, strings.Join(uses, ", "))
	}
	err = p.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		if _, err := tx.NewDelete().Model(r).WherePK().Exec(ctx); err != nil {
			return err
		}
		return p.cfg.Record(ctx, tx, access.Change{Action: "policy.delete", Target: r.ID, Name: r.Name, Detail: map[string]any{"type": r.Type, "settings": r.Settings, "assignments": r.Assignments}})
	})
	if err != nil {
		return err
	}
	return p.committed(ctx, organization, APolicy, id)
}

func stale(what, name, by string, version, yours uint64) error {
	if by == "" {
		by = "somebody"
	}
	return fault.New(fault.Conflict, "the %s %q was changed meanwhile by %s (version %d, yours was %d); load it again and repeat the change", what, name, by, version, yours)
}

// view is what there is at one time. It is never changed, but for what was
// composed from it.
type view struct {
	policies []*row
	groups   []*group // by rank
	byGroup  map[string]*group

	mu       sync.Mutex
	composed map[string]*composed // by organization, environment and groups
}

func newView(policies []*row, groups []*group) *view {
	groups = slices.Clone(groups) // what another view reads is not moved
	v := &view{policies: policies, groups: groups, byGroup: map[string]*group{}, composed: map[string]*composed{}}
	slices.SortFunc(v.groups, byRank)
	for _, g := range groups {
		v.byGroup[g.ID] = g
	}
	return v
}

func (v *view) group(id string) *group { return v.byGroup[id] }

func (v *view) policy(organization, id string) (*row, error) {
	for _, r := range v.policies {
		if r.ID == id && r.OrganizationID == organization {
			return r, nil
		}
	}
	return nil, fault.New(fault.NotFound, "there is no policy %s", id)
}
