// Package connector holds the ways to machines that have no agent yet: where
// their inventory is, how somebody becomes root on them, and which keys their
// hosts are known by.
//
// What a connector needs to log in is sealed at rest and leaves the process
// only towards the hosts; the API takes secrets and never returns them.
package connector

import (
	"cmp"
	"context"
	"embed"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/uptrace/bun"

	"komainu/control/access"
	"komainu/control/connector/aws"
	"komainu/control/connector/azure"
	"komainu/control/connector/cloud"
	"komainu/control/connector/gcp"
	"komainu/control/db"
	"komainu/control/machine"
	"komainu/control/rest"
	"komainu/control/seal"
	"komainu/deploy"
	"komainu/fault"
)

// Migrations are the tables of this package.
//
//go:embed migrations
var Migrations embed.FS

// Secret is what only goes in. What is left out stays as it is.
type Secret struct {
	PrivateKey        string `json:"privateKey,omitempty" maxLength:"65536" doc:"of ssh"`
	Passphrase        string `json:"passphrase,omitempty" maxLength:"1024" doc:"of ssh"`
	SudoPassword      string `json:"sudoPassword,omitempty" maxLength:"1024" doc:"of ssh"`
	SecretAccessKey   string `json:"secretAccessKey,omitempty" maxLength:"1024" doc:"of aws"`
	ClientSecret      string `json:"clientSecret,omitempty" maxLength:"1024" doc:"of azure"`
	ServiceAccountKey string `json:"serviceAccountKey,omitempty" maxLength:"16384" doc:"of gcp: the JSON file of the key"`
}

// sealed is what is kept of secrets.
type sealed struct {
	Secret
	CA string `json:"ca,omitempty"` // private key of the CA for certificates, in OpenSSH form
}

type row struct {
	bun.BaseModel `bun:"table:connectors"`

	ID             string `bun:",pk"`
	OrganizationID string
	EnvironmentID  string
	Kind           string
	Name           string
	Settings       json.RawMessage `bun:"type:json"` // of the kind
	Secret         []byte
	Version        uint64
	CreatedAt      time.Time
	UpdatedAt      time.Time
	UpdatedBy      string
	SyncedAt       *time.Time
	Error          *deploy.Reason `bun:"type:json"`
}

// Connector is a connector as it is shown.
type Connector struct {
	ID          string         `json:"id"`
	Name        string         `json:"name"`
	Environment string         `json:"environment"`
	Kind        string         `json:"kind" doc:"ssh, aws, azure or gcp"`
	Version     uint64         `json:"version"`
	Machines    int            `json:"machines"`
	UpdatedAt   time.Time      `json:"updatedAt"`
	UpdatedBy   string         `json:"updatedBy"`
	LastSync    *time.Time     `json:"lastSync"`
	Error       *deploy.Reason `json:"error"`
	SSH         *SSHView       `json:"ssh"`
	AWS         *AWSView       `json:"aws,omitempty"`
	Azure       *AzureView     `json:"azure,omitempty"`
	GCP         *GCPView       `json:"gcp,omitempty"`
	Verified    string         `json:"verified" doc:"empty, or what this kind was not tried on"`
}

// Change is what somebody saves.
type Change struct {
	Version uint64          `json:"version,omitempty" doc:"version that the change is based on; none for a new one"`
	Name    string          `json:"name" minLength:"1" maxLength:"100"`
	Kind    string          `json:"kind" enum:"ssh,aws,azure,gcp"`
	SSH     *SSH            `json:"ssh,omitempty"`
	AWS     *aws.Settings   `json:"aws,omitempty"`
	Azure   *azure.Settings `json:"azure,omitempty"`
	GCP     *gcp.Settings   `json:"gcp,omitempty"`
	Secret  *Secret         `json:"secret,omitempty" doc:"never comes back; what is left out stays"`
}

// Config is what connectors need of their neighbours.
type Config struct {
	DB  *bun.DB
	Dir string // of keys
	Log *slog.Logger
	Now func() time.Time
	// Record writes to the audit log.
	Record access.Recorder
	// Synced takes the inventory of a connector over.
	Synced func(ctx context.Context, organization, environment, connector, kind string, inventory machine.Inventory) (machine.Synced, error)
	// Gone is told of a connector that was deleted.
	Gone func(ctx context.Context, connector string) error
	// Changed is told which connector changed. It must not block.
	Changed func(organization, id string)
	// Server is host:port of the control plane as machines reach it.
	Server string
	// Clouds say how clouds are reached.
	Clouds cloud.Options
}

// Connectors are the connectors of all environments. It is safe for concurrent
// use.
type Connectors struct {
	cfg   Config
	seal  *seal.Sealer
	kinds map[string]kind
	keys  sync.Mutex // of hosts: one that is seen first is pinned once

	wake   chan struct{} // capacity 1
	mu     sync.Mutex
	visits map[string]visit // of inventories, by connector

	pushing sync.Mutex        // held while pushes are read
	pushes  map[string]string // what connectors that push are called, by id; nil to be read
}

// Open opens the connectors over a migrated database.
func Open(cfg Config) (*Connectors, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s, err := seal.Open(cfg.Dir, "connector")
	if err != nil {
		return nil, err
	}
	c := &Connectors{cfg: cfg, seal: s, wake: make(chan struct{}, 1), visits: map[string]visit{}}
	c.kinds = map[string]kind{KindSSH: servers{c}, cloud.AWS: awsKind(c), cloud.Azure: azureKind(c), cloud.GCP: gcpKind(c)}
	return c, nil
}

func (c *Connectors) now() time.Time { return c.cfg.Now().UTC().Truncate(time.Millisecond) }

func (c *Connectors) row(ctx context.Context, organization, id string) (*row, error) {
	r := new(row)
	err := c.cfg.DB.NewSelect().Model(r).Where("id = ? AND organization_id = ?", id, organization).Scan(ctx)
	return r, db.NotFound(err, "connector", id)
}

// secret returns what a connector keeps.
func (c *Connectors) secret(r *row) (sealed, error) {
	var s sealed
	text, err := c.seal.Open("connector "+r.ID, r.Secret)
	if err != nil || text == "" {
		return s, err
	}
	err = json.Unmarshal([]byte(text), &s)
	return s, err
}

func (c *Connectors) conceal(r *row, s sealed) error {
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	r.Secret = nil
	if s != (sealed{}) {
		r.Secret = c.seal.Seal("connector "+r.ID, string(text))
	}
	return nil
}

// view shows a connector, without its secrets.
func (c *Connectors) view(r *row) Connector {
	v := Connector{ID: r.ID, Name: r.Name, Environment: r.EnvironmentID, Kind: r.Kind, Version: r.Version, UpdatedAt: r.UpdatedAt, UpdatedBy: r.UpdatedBy, LastSync: r.SyncedAt, Error: r.Error}
	s, err := c.secret(r)
	if err != nil {
		reason := deploy.ReasonOf(deploy.ConnectorFailed, err.Error())
		v.Error = &reason
	}
	if k, ok := c.kinds[r.Kind]; ok {
		k.show(&v, r, s)
	}
	return v
}

// Query selects connectors of an environment.
type Query struct {
	ID string `path:"id" doc:"id of an environment"`
	rest.Paging
}

// List returns the connectors of an environment by name.
func (c *Connectors) List(ctx context.Context, organization string, q Query) (rest.List[Connector], error) {
	offset, err := q.Offset()
	if err != nil {
		return rest.List[Connector]{}, err
	}
	var rows []*row
	sel := c.cfg.DB.NewSelect().Model(&rows).Where("organization_id = ? AND environment_id = ?", organization, q.ID).Order("name")
	total, err := db.Page(ctx, sel, q.Limit, offset)
	if err != nil {
		return rest.List[Connector]{}, err
	}
	items := make([]Connector, len(rows))
	for i, r := range rows {
		items[i] = c.view(r)
	}
	return rest.NewList(items, total, q.Next(offset, len(items), total)), nil
}

// Get returns one connector.
func (c *Connectors) Get(ctx context.Context, organization, id string) (Connector, error) {
	r, err := c.row(ctx, organization, id)
	if err != nil {
		return Connector{}, err
	}
	return c.view(r), nil
}

// Names returns the names of the connectors of an organization by id.
func (c *Connectors) Names(ctx context.Context, organization string) (map[string]string, error) {
	var rows []*row
	err := c.cfg.DB.NewSelect().Model(&rows).Column("id", "name").Where("organization_id = ?", organization).Scan(ctx)
	names := make(map[string]string, len(rows))
	for _, r := range rows {
		names[r.ID] = r.Name
	}
	return names, err
}

// IDs returns those of the connectors of all organizations.
func (c *Connectors) IDs(ctx context.Context) (ids []string, err error) {
	err = c.cfg.DB.NewSelect().Model((*row)(nil)).Column("id").Scan(ctx, &ids)
	return ids, err
}

// apply lays a change over a connector and says what is wrong with it.
func (c *Connectors) apply(r *row, change Change) error {
	name := strings.TrimSpace(change.Name)
	switch {
	case name == "":
		return fault.New(fault.Invalid, "a connector needs a name")
	case r.Kind != "" && r.Kind != change.Kind:
		return fault.New(fault.Invalid, "this connector is of the kind %s; make another one", r.Kind)
	}
	k, ok := c.kinds[change.Kind]
	if !ok {
		return fault.New(fault.Unsupported, "connectors of the kind %q are not in this version", change.Kind)
	}
	s, err := c.secret(r)
	if err != nil && change.Secret == nil {
		return err
	}
	if change.Secret == nil {
		change.Secret = &Secret{}
	}
	r.Name, r.Kind = name, change.Kind
	settings, err := k.apply(change, &s)
	if err != nil {
		return err
	}
	if r.Settings, err = json.Marshal(settings); err != nil {
		return err
	}
	return c.conceal(r, s)
}

// Create makes a connector.
func (c *Connectors) Create(ctx context.Context, organization, environment string, change Change) (Connector, error) {
	now := c.now()
	r := &row{ID: rest.NewID(), OrganizationID: organization, EnvironmentID: environment, Version: 1, CreatedAt: now, UpdatedAt: now, UpdatedBy: access.ActorOf(ctx).Name}
	if err := c.apply(r, change); err != nil {
		return Connector{}, err
	}
	err := c.save(ctx, r, c.entry("connector.create", r, nil), func(ctx context.Context, tx bun.Tx) error {
		_, err := tx.NewInsert().Model(r).Exec(ctx)
		return err
	})
	if err != nil {
		return Connector{}, err
	}
	return c.view(r), nil
}

func (c *Connectors) save(ctx context.Context, r *row, change access.Change, write func(context.Context, bun.Tx) error) error {
	err := c.cfg.DB.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		n, err := tx.NewSelect().Model((*row)(nil)).Where("environment_id = ? AND name = ? AND id <> ?", r.EnvironmentID, r.Name, r.ID).Count(ctx)
		if err == nil && n > 0 {
			err = fault.New(fault.Conflict, "there is a connector %q in this environment already", r.Name)
		}
		if err != nil {
			return err
		}
		if err := write(ctx, tx); err != nil {
			return err
		}
		return c.cfg.Record(ctx, tx, change)
	})
	if err == nil {
		c.repush()
		c.cfg.Changed(r.OrganizationID, r.ID)
	}
	return err
}

// Update changes a connector.
func (c *Connectors) Update(ctx context.Context, organization, id string, change Change) (Connector, error) {
	r, err := c.row(ctx, organization, id)
	if err != nil {
		return Connector{}, err
	}
	if change.Version != r.Version {
		return Connector{}, fault.New(fault.Conflict, "the connector was changed meanwhile by %s; reload the page and change it again", cmp.Or(r.UpdatedBy, "somebody"))
	}
	before := r.Settings
	if err := c.apply(r, change); err != nil {
		return Connector{}, err
	}
	was := r.Version
	r.Version, r.UpdatedAt, r.UpdatedBy, r.Error = r.Version+1, c.now(), access.ActorOf(ctx).Name, nil
	err = c.save(ctx, r, c.entry("connector.change", r, before), func(ctx context.Context, tx bun.Tx) error {
		res, err := tx.NewUpdate().Model(r).WherePK().Where("version = ?", was).Exec(ctx)
		if err != nil {
			return err
		}
		if n, _ := res.RowsAffected(); n == 0 {
			return fault.New(fault.Conflict, "the connector was changed meanwhile; reload the page and change it again")
		}
		return nil
	})
	if err != nil {
		return Connector{}, err
	}
	return c.view(r), nil
}

// Delete forgets a connector, its secrets and the keys of its hosts. Its
// machines stay with what is known of them.
func (c *Connectors) Delete(ctx context.Context, organization, id string) error {
	r, err := c.row(ctx, organization, id)
	if err != nil {
		return err
	}
	err = c.cfg.DB.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		if _, err := tx.NewDelete().Model(r).WherePK().Exec(ctx); err != nil {
			return err
		}
		if _, err := tx.NewDelete().Model((*hostKey)(nil)).Where("connector_id = ?", id).Exec(ctx); err != nil {
			return err
		}
		return c.cfg.Record(ctx, tx, access.Change{Action: "connector.delete", Target: id, Name: r.Name})
	})
	if err != nil {
		return err
	}
	c.mu.Lock()
	delete(c.visits, id)
	c.mu.Unlock()
	c.repush()
	c.cfg.Changed(organization, id)
	return c.cfg.Gone(ctx, id)
}

// Reach logs in to a machine of a connector.
func (c *Connectors) Reach(ctx context.Context, m machine.Machine) (deploy.Host, error) {
	if m.Connector == "" {
		return nil, deploy.Fail(deploy.NoWay, "")
	}
	r, err := c.row(ctx, m.Organization, m.Connector)
	if err != nil {
		return nil, err
	}
	secret, err := c.secret(r)
	if err != nil {
		return nil, deploy.Fail(deploy.ConnectorFailed, err.Error())
	}
	k, ok := c.kinds[r.Kind]
	if !ok {
		return nil, deploy.Failf(deploy.ConnectorFailed, "connectors of the kind %q are not in this version", r.Kind)
	}
	return k.reach(ctx, r, secret, m)
}
