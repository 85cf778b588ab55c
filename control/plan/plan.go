// Package plan holds environments, the plan and the settings of each, and
// says what follows from them for the policy of a device.
//
// Saving a plan is one step with a version: who saves over somebody else's
// change is told so.
package plan

import (
	"context"
	"embed"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/uptrace/bun"

	"komainu/control/access"
	"komainu/control/db"
	"komainu/control/rest"
	"komainu/fault"
	"komainu/policy"
)

// Migrations are the tables of this package.
//
//go:embed migrations
var Migrations embed.FS

type row struct {
	bun.BaseModel `bun:"table:environments"`

	ID             string `bun:",pk"`
	OrganizationID string
	Name           string
	Kind           string
	ExternalID     string
	CreatedAt      time.Time
	Servers        bool
	Tier           policy.Tier
	Settings       map[string]bool         `bun:"type:json"`
	Filesystems    []policy.FilesystemRule `bun:"type:json"`
	Version        uint64
	UpdatedAt      time.Time
	UpdatedBy      string
}

// Environment is the scope of a plan.
type Environment struct {
	ID        string      `json:"id"`
	Name      string      `json:"name"`
	Kind      string      `json:"kind" doc:"onprem, azure, aws or gcp"`
	External  string      `json:"externalId" doc:"subscription, account or project that it stands for; empty for a site"`
	CreatedAt time.Time   `json:"createdAt"`
	Plan      policy.Tier `json:"plan" doc:"off, P1 or P2"`
}

// Setting is a setting of a plan as the page shows it.
type Setting struct {
	ID          string        `json:"id"`
	Name        string        `json:"name"`
	Enabled     bool          `json:"enabled"`
	Default     bool          `json:"default"`
	AvailableIn []policy.Tier `json:"availableIn"`
	Engine      bool          `json:"engine" doc:"whether this version has it"`
	Changeable  bool          `json:"changeable"`
	Reason      string        `json:"reason" doc:"why it cannot be changed: plan_off, requires_p2, not_in_this_version, or empty"`
}

// Settings are the plan of an environment.
type Settings struct {
	Environment string                  `json:"environment"`
	Servers     bool                    `json:"servers"`
	Tier        policy.Tier             `json:"tier"`
	Version     uint64                  `json:"version"`
	UpdatedAt   time.Time               `json:"updatedAt"`
	UpdatedBy   string                  `json:"updatedBy"`
	Settings    []Setting               `json:"settings"`
	Filesystems []policy.FilesystemRule `json:"filesystems" doc:"modes of filesystems; empty: all local ones block"`
}

// Change is what somebody saves.
type Change struct {
	Version     uint64                  `json:"version" doc:"version that the change is based on"`
	Servers     bool                    `json:"servers"`
	Tier        policy.Tier             `json:"tier,omitempty" enum:"P1,P2" required:"false" doc:"left out: stays, and is P2 for a plan that is switched on"`
	Settings    map[string]bool         `json:"settings,omitempty" doc:"settings by id; one that is not named stays"`
	Filesystems []policy.FilesystemRule `json:"filesystems,omitempty" required:"false"`
}

// Plans holds environments and their plans. It is safe for concurrent use.
type Plans struct {
	db  *bun.DB
	cfg Config

	mu    sync.Mutex
	tiers map[string]policy.Tier // plan by environment, of what is committed
}

// Config is what Plans needs.
type Config struct {
	Now func() time.Time
	// Record writes to the audit log.
	Record access.Recorder
	// Changed is told which environment's plan changed, after it is saved. It
	// must not block. May be nil.
	Changed func(organization, environment string)
}

// Open reads the plans from a migrated database.
func Open(ctx context.Context, d *bun.DB, cfg Config) (*Plans, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Changed == nil {
		cfg.Changed = func(string, string) {}
	}
	p := &Plans{db: d, cfg: cfg, tiers: map[string]policy.Tier{}}
	var rows []row
	if err := d.NewSelect().Model(&rows).Scan(ctx); err != nil {
		return nil, fmt.Errorf("read environments: %w", err)
	}
	for i := range rows {
		p.tiers[rows[i].ID] = rows[i].plan()
	}
	return p, nil
}

func (p *Plans) now() time.Time { return p.cfg.Now().UTC().Truncate(time.Millisecond) }

// Tier returns the plan of an environment: off for one that does not exist.
func (p *Plans) Tier(environment string) policy.Tier {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t, ok := p.tiers[environment]; ok {
		return t
	}
	return policy.Off
}

func (p *Plans) committed(e *row) {
	p.mu.Lock()
	p.tiers[e.ID] = e.plan()
	p.mu.Unlock()
	p.cfg.Changed(e.OrganizationID, e.ID)
}

// Begin makes a first environment when there is none.
func (p *Plans) Begin(ctx context.Context, organization, name string) error {
	n, err := p.db.NewSelect().Model((*row)(nil)).Count(ctx)
	if err == nil && n == 0 {
		_, err = p.Create(ctx, organization, Creation{Name: name})
	}
	return err
}

// Create makes an environment, with the plan off.
func (p *Plans) Create(ctx context.Context, organization string, c Creation) (Environment, error) {
	if err := c.check(); err != nil {
		return Environment{}, err
	}
	now := p.now()
	e := &row{ID: rest.NewID(), OrganizationID: organization, Name: c.Name, Kind: c.Kind, ExternalID: c.External, CreatedAt: now, Tier: policy.P2,
		Settings: map[string]bool{}, Filesystems: []policy.FilesystemRule{}, Version: 1, UpdatedAt: now, UpdatedBy: access.ActorOf(ctx).Name}
	err := p.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		if err := unique(ctx, tx, e); err != nil {
			return err
		}
		if _, err := tx.NewInsert().Model(e).Exec(ctx); err != nil {
			return err
		}
		return p.cfg.Record(ctx, tx, access.Change{Action: "environment.create", Target: e.ID, Name: e.Name, Detail: map[string]string{"kind": e.Kind, "externalId": e.ExternalID}})
	})
	if err != nil {
		return Environment{}, err
	}
	p.committed(e)
	return e.view(), nil
}

// List returns the environments by name.
func (p *Plans) List(ctx context.Context, organization string) ([]Environment, error) {
	var rows []row
	if err := p.db.NewSelect().Model(&rows).Where("organization_id = ?", organization).Order("name").Scan(ctx); err != nil {
		return nil, err
	}
	list := make([]Environment, len(rows))
	for i := range rows {
		list[i] = rows[i].view()
	}
	return list, nil
}

// Get returns one environment of an organization.
func (p *Plans) Get(ctx context.Context, organization, id string) (Environment, error) {
	e, err := p.row(ctx, p.db, organization, id)
	return e.view(), err
}

func (p *Plans) row(ctx context.Context, d bun.IDB, organization, id string) (row, error) {
	var e row
	err := d.NewSelect().Model(&e).Where("id = ? AND organization_id = ?", id, organization).Scan(ctx)
	return e, db.NotFound(err, "environment", id)
}

func (e *row) view() Environment {
	return Environment{ID: e.ID, Name: e.Name, Kind: e.Kind, External: e.ExternalID, CreatedAt: e.CreatedAt, Plan: e.plan()}
}

func (e *row) plan() policy.Tier {
	if !e.Servers {
		return policy.Off
	}
	return e.Tier
}

// enabled returns whether a setting is in effect.
func (e *row) enabled(c Capability) bool {
	if c.reason(e.Servers, e.Tier) != "" {
		return false
	}
	if on, chosen := e.Settings[c.ID]; chosen {
		return on
	}
	return c.Default
}

// Settings returns the plan of an environment.
func (p *Plans) Settings(ctx context.Context, organization, id string) (Settings, error) {
	e, err := p.row(ctx, p.db, organization, id)
	if err != nil {
		return Settings{}, err
	}
	return e.settings(), nil
}

func (e *row) settings() Settings {
	s := Settings{Environment: e.ID, Servers: e.Servers, Tier: e.Tier, Version: e.Version, UpdatedAt: e.UpdatedAt, UpdatedBy: e.UpdatedBy, Filesystems: e.Filesystems}
	if s.Filesystems == nil {
		s.Filesystems = []policy.FilesystemRule{}
	}
	for _, c := range capabilities {
		if !c.Setting {
			continue
		}
		reason := c.reason(e.Servers, e.Tier)
		s.Settings = append(s.Settings, Setting{ID: c.ID, Name: c.Name, Enabled: e.enabled(c), Default: c.Default, AvailableIn: c.Tiers,
			Engine: c.Engine, Changeable: reason == "", Reason: reason})
	}
	return s
}

// Save changes the plan of an environment. It refuses a stale version, and a
// setting that cannot be switched on.
func (p *Plans) Save(ctx context.Context, organization, id string, c Change) (Settings, error) {
	var e row
	by := access.ActorOf(ctx).Name
	err := p.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		var err error
		if e, err = p.row(ctx, tx, organization, id); err != nil {
			return err
		}
		was := e.settings()
		if c.Version != e.Version {
			return fault.New(fault.Conflict, "the plan was changed meanwhile by %s (version %d, yours was %d); reload the page and change it again", nobody(e.UpdatedBy), e.Version, c.Version)
		}
		switch {
		case c.Tier != "":
		case c.Servers && !e.Servers:
			c.Tier = policy.P2
		default:
			c.Tier = e.Tier
		}
		if c.Tier != policy.P1 && c.Tier != policy.P2 {
			return fault.New(fault.Invalid, "tier %q: want P1 or P2", c.Tier)
		}
		e.Servers, e.Tier = c.Servers, c.Tier
		if e.Settings == nil {
			e.Settings = map[string]bool{}
		}
		if err := e.choose(c.Settings); err != nil {
			return err
		}
		if c.Filesystems != nil {
			rules := policy.Settings{Filesystems: c.Filesystems}
			if err := rules.Validate(); err != nil {
				return fault.New(fault.Invalid, "%w", err)
			}
			e.Filesystems = c.Filesystems
		}
		e.Version, e.UpdatedAt, e.UpdatedBy = e.Version+1, p.now(), by
		if _, err = tx.NewUpdate().Model(&e).WherePK().Exec(ctx); err != nil {
			return err
		}
		return p.cfg.Record(ctx, tx, access.Change{Action: "plan.change", Target: e.ID, Name: e.Name, Detail: differences(was, e.settings())})
	})
	if err != nil {
		return Settings{}, err
	}
	p.committed(&e)
	return e.settings(), nil
}

func nobody(name string) string {
	if name == "" {
		return "somebody"
	}
	return name
}

// differences says what a change of a plan did, for the audit log.
func differences(was, is Settings) map[string]any {
	d := map[string]any{"version": is.Version}
	if was.Servers != is.Servers {
		d["servers"] = []bool{was.Servers, is.Servers}
	}
	if was.Tier != is.Tier {
		d["tier"] = []policy.Tier{was.Tier, is.Tier}
	}
	if !slices.Equal(was.Filesystems, is.Filesystems) {
		d["filesystems"] = [][]policy.FilesystemRule{was.Filesystems, is.Filesystems}
	}
	for i, s := range is.Settings {
		if was.Settings[i].Enabled != s.Enabled {
			d[s.ID] = []bool{was.Settings[i].Enabled, s.Enabled}
		}
	}
	return d
}

// choose lays choices over the settings. What a lower tier does not have is
// dropped, so that it comes back with its default under the higher one.
func (e *row) choose(choices map[string]bool) error {
	for _, c := range capabilities {
		if on, chosen := choices[c.ID]; chosen && c.Setting {
			if reason := c.reason(e.Servers, e.Tier); on && reason != "" && reason != ReasonPlanOff {
				return fault.New(fault.Invalid, "%s cannot be switched on: %s", c.Name, explain(reason))
			}
			e.Settings[c.ID] = on
		}
		if !c.In(e.Tier) || !c.Engine {
			delete(e.Settings, c.ID)
		}
	}
	for id := range choices {
		if !known(id) {
			return fault.New(fault.Invalid, "there is no setting %q", id)
		}
	}
	return nil
}

func known(id string) bool {
	for _, c := range capabilities {
		if c.ID == id && c.Setting {
			return true
		}
	}
	return false
}

func explain(reason string) string {
	if reason == ReasonRequiresP2 {
		return "it needs plan P2"
	}
	return "it is not available in this version"
}

// Own is what is decided for one machine of an environment.
type Own struct {
	Tier    policy.Tier // its own plan, "" for that of the environment
	Observe bool        // malware is reported, not blocked, for now
}

// Protects reports whether the plan of an environment switches endpoint
// protection on. It does when it is off itself: a machine of its own plan gets
// what plans have at first.
func (p *Plans) Protects(ctx context.Context, organization, environment string) (bool, error) {
	e, err := p.row(ctx, p.db, organization, environment)
	return !e.Servers || e.protects(), err
}

func (e *row) protects() bool {
	for _, c := range capabilities {
		if c.ID == "endpoint_protection" {
			return e.enabled(c)
		}
	}
	return false
}

// Document returns what the plan of an environment says about its devices:
// the beginning of a policy document, without device and version. No policy
// changes what it manages.
func (p *Plans) Document(ctx context.Context, organization, environment string, own Own) (policy.Document, error) {
	e, err := p.row(ctx, p.db, organization, environment)
	if err != nil {
		return policy.Document{}, err
	}
	doc := policy.Document{Format: policy.Format, Organization: organization, Environment: e.ID, Plan: e.plan(), Licensed: e.Servers}
	if own.Tier != "" {
		doc.Plan, doc.Licensed = own.Tier, own.Tier != policy.Off
	}
	if e.Servers && !e.protects() {
		// The plan is on, its protection is not: scans and the sensor remain.
		doc.Managed.EnforcementLevel = new(policy.OnDemand)
	}
	if len(e.Filesystems) > 0 {
		doc.Managed.Filesystems = e.Filesystems
	}
	if own.Observe {
		doc.Managed.Filesystems = []policy.FilesystemRule{{Path: "*", Mode: policy.Watch}}
	}
	return doc, nil
}
