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
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/uptrace/bun"
	"golang.org/x/crypto/ssh"

	"komainu/control/access"
	"komainu/control/db"
	"komainu/control/machine"
	"komainu/control/rest"
	"komainu/control/seal"
	"komainu/deploy"
	"komainu/deploy/remote"
	"komainu/fault"
)

// Migrations are the tables of this package.
//
//go:embed migrations
var Migrations embed.FS

// KindSSH is the kind of connectors that reach servers over SSH.
const KindSSH = "ssh"

// Ways to hold the credential of an SSH connector, the best first.
const (
	Push        = "push"        // komainuctl deploy, with the keys of the operator's workstation
	Certificate = "certificate" // the control plane issues one per login, good for minutes
	StoredKey   = "key"         // sealed at rest
)

// Ways to know the keys of hosts.
const (
	FirstUse = "first_use" // what is seen first is pinned
	Listed   = "listed"    // known hosts are listed, others refused
)

// certificateLife is how long an issued certificate is good for a login.
const certificateLife = 5 * time.Minute

// SSH are the settings of an SSH connector.
type SSH struct {
	Hosts      string `json:"hosts" maxLength:"4194304" doc:"a host per line, with ranges: web[01-20].example.net role=web"`
	User       string `json:"user" maxLength:"64" doc:"root when left out"`
	Port       int    `json:"port,omitempty" minimum:"0" maximum:"65535" doc:"22 when left out"`
	Jump       string `json:"jump,omitempty" maxLength:"1024" doc:"user@bastion:22; several, in the order that they are passed, separated by commas"`
	Sudo       string `json:"sudo" enum:"none,passwordless,password"`
	Credential string `json:"credential" enum:"push,certificate,key"`
	HostKeys   string `json:"hostKeys" enum:"first_use,listed"`
	KnownHosts string `json:"knownHosts,omitempty" maxLength:"4194304" doc:"lines of known_hosts, for hostKeys listed"`
}

// Secret is what only goes in. What is left out stays as it is.
type Secret struct {
	PrivateKey   string `json:"privateKey,omitempty" maxLength:"65536"`
	Passphrase   string `json:"passphrase,omitempty" maxLength:"1024"`
	SudoPassword string `json:"sudoPassword,omitempty" maxLength:"1024"`
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
	Settings       SSH `bun:"type:json"`
	Secret         []byte
	Version        uint64
	CreatedAt      time.Time
	UpdatedAt      time.Time
	UpdatedBy      string
	SyncedAt       *time.Time
	Error          *deploy.Reason `bun:"type:json"`
}

// SSHView are the settings of an SSH connector as they are shown.
type SSHView struct {
	SSH
	CAPublicKey     string `json:"caPublicKey" doc:"for TrustedUserCAKeys of the hosts; of the credential certificate"`
	PublicKey       string `json:"publicKey" doc:"for authorized_keys of the hosts; of the credential key"`
	HasSecret       bool   `json:"hasSecret" doc:"whether a private key is stored"`
	HasSudoPassword bool   `json:"hasSudoPassword"`
}

// Connector is a connector as it is shown.
type Connector struct {
	ID          string         `json:"id"`
	Name        string         `json:"name"`
	Environment string         `json:"environment"`
	Kind        string         `json:"kind" doc:"ssh"`
	Version     uint64         `json:"version"`
	Machines    int            `json:"machines"`
	UpdatedAt   time.Time      `json:"updatedAt"`
	UpdatedBy   string         `json:"updatedBy"`
	LastSync    *time.Time     `json:"lastSync"`
	Error       *deploy.Reason `json:"error"`
	SSH         *SSHView       `json:"ssh"`
	Verified    string         `json:"verified" doc:"empty, or what this kind was not tried on"`
}

// Change is what somebody saves.
type Change struct {
	Version uint64  `json:"version,omitempty" doc:"version that the change is based on; none for a new one"`
	Name    string  `json:"name" minLength:"1" maxLength:"100"`
	Kind    string  `json:"kind" enum:"ssh"`
	SSH     *SSH    `json:"ssh,omitempty"`
	Secret  *Secret `json:"secret,omitempty" doc:"never comes back; what is left out stays"`
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
	Synced func(ctx context.Context, organization, environment, connector, kind string, inventory []machine.Known) (machine.Synced, error)
	// Gone is told of a connector that was deleted.
	Gone func(ctx context.Context, connector string) error
	// Changed is told which connector changed. It must not block.
	Changed func(organization, id string)
	// Server is host:port of the control plane as machines reach it.
	Server string
}

// Connectors are the connectors of all environments. It is safe for concurrent
// use.
type Connectors struct {
	cfg  Config
	seal *seal.Sealer
	keys sync.Mutex // of hosts: one that is seen first is pinned once
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
	return &Connectors{cfg: cfg, seal: s}, nil
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
	ssh := SSHView{SSH: r.Settings, HasSecret: s.PrivateKey != "", HasSudoPassword: s.SudoPassword != ""}
	ssh.CAPublicKey, ssh.PublicKey = public(s.CA, ""), public(s.PrivateKey, s.Passphrase)
	v.SSH = &ssh
	return v
}

// public is the public key of a private one, as it stands in authorized_keys.
func public(private, passphrase string) string {
	if private == "" {
		return ""
	}
	signer, err := remote.Key([]byte(private), passphrase)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(remote.AuthorizedKey(signer.PublicKey())) + " komainu"
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

// apply lays a change over a connector and says what is wrong with it.
func (c *Connectors) apply(r *row, change Change) error {
	name := strings.TrimSpace(change.Name)
	switch {
	case name == "":
		return fault.New(fault.Invalid, "a connector needs a name")
	case change.Kind != KindSSH:
		return fault.New(fault.Unsupported, "connectors of the kind %q are not in this version; ssh is", change.Kind)
	case change.SSH == nil:
		return fault.New(fault.Invalid, "the settings of the connector are missing")
	}
	s, err := c.secret(r)
	if err != nil && change.Secret == nil {
		return err
	}
	if change.Secret != nil {
		s.PrivateKey, s.Passphrase = cmp.Or(change.Secret.PrivateKey, s.PrivateKey), cmp.Or(change.Secret.Passphrase, s.Passphrase)
		if change.Secret.PrivateKey != "" {
			s.Passphrase = change.Secret.Passphrase
		}
		s.SudoPassword = cmp.Or(change.Secret.SudoPassword, s.SudoPassword)
	}
	r.Name, r.Kind, r.Settings = name, change.Kind, *change.SSH
	r.Settings.User = cmp.Or(strings.TrimSpace(r.Settings.User), "root")
	if err := c.check(r.Settings, &s); err != nil {
		return err
	}
	return c.conceal(r, s)
}

// check says what is wrong with settings and their secrets, makes the CA that
// certificates need, and drops secrets that are not needed any more.
func (c *Connectors) check(s SSH, secret *sealed) error {
	if _, err := remote.ParseInventory(s.Hosts); err != nil {
		return fault.Wrap(fault.Invalid, err, "hosts")
	}
	if _, err := hops(s); err != nil {
		return err
	}
	if s.HostKeys == Listed {
		if _, err := parseKnownHosts(s.KnownHosts); err != nil {
			return err
		}
	}
	if s.Sudo != string(remote.WithPassword) {
		secret.SudoPassword = ""
	} else if secret.SudoPassword == "" && s.Credential != Push {
		return fault.New(fault.Invalid, "sudo wants a password: give it, or give the user NOPASSWD and choose passwordless")
	}
	if s.Credential != StoredKey {
		secret.PrivateKey, secret.Passphrase = "", ""
	}
	switch s.Credential {
	case StoredKey:
		if secret.PrivateKey == "" {
			return fault.New(fault.Invalid, "paste the private key that logs in to the machines")
		}
		if _, err := remote.Key([]byte(secret.PrivateKey), secret.Passphrase); err != nil {
			return err
		}
	case Certificate:
		if secret.CA == "" {
			ca, err := newCA()
			if err != nil {
				return err
			}
			secret.CA = ca
		}
	case Push:
	default:
		return fault.New(fault.Invalid, "credential %q: want push, certificate or key", s.Credential)
	}
	return nil
}

// hops are the jump hosts of a connector.
func hops(s SSH) ([]remote.Hop, error) {
	if strings.TrimSpace(s.Jump) == "" {
		return nil, nil
	}
	var all []remote.Hop
	for part := range strings.SplitSeq(s.Jump, ",") {
		list, err := remote.ParseInventory(strings.TrimSpace(part))
		if err != nil || len(list) != 1 {
			return nil, fault.New(fault.Invalid, "jump host %q: want USER@HOST:PORT", strings.TrimSpace(part))
		}
		all = append(all, remote.Hop{Address: list[0].Address(0), User: cmp.Or(list[0].User, s.User)})
	}
	if len(all) > 4 {
		return nil, fault.New(fault.Invalid, "there are at most 4 jump hosts on a way")
	}
	return all, nil
}

// Create makes a connector.
func (c *Connectors) Create(ctx context.Context, organization, environment string, change Change) (Connector, error) {
	now := c.now()
	r := &row{ID: rest.NewID(), OrganizationID: organization, EnvironmentID: environment, Version: 1, CreatedAt: now, UpdatedAt: now, UpdatedBy: access.ActorOf(ctx).Name}
	if err := c.apply(r, change); err != nil {
		return Connector{}, err
	}
	err := c.save(ctx, r, access.Change{Action: "connector.create", Target: r.ID, Name: r.Name, Detail: described(r)}, func(ctx context.Context, tx bun.Tx) error {
		_, err := tx.NewInsert().Model(r).Exec(ctx)
		return err
	})
	if err != nil {
		return Connector{}, err
	}
	return c.view(r), nil
}

// described is what the audit log keeps of a connector: nothing secret.
func described(r *row) map[string]any {
	hosts, _ := remote.ParseInventory(r.Settings.Hosts)
	return map[string]any{"kind": r.Kind, "environment": r.EnvironmentID, "hosts": len(hosts), "user": r.Settings.User, "credential": r.Settings.Credential, "hostKeys": r.Settings.HostKeys}
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
	if err := c.apply(r, change); err != nil {
		return Connector{}, err
	}
	was := r.Version
	r.Version, r.UpdatedAt, r.UpdatedBy, r.Error = r.Version+1, c.now(), access.ActorOf(ctx).Name, nil
	err = c.save(ctx, r, access.Change{Action: "connector.change", Target: r.ID, Name: r.Name, Detail: described(r)}, func(ctx context.Context, tx bun.Tx) error {
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
	c.cfg.Changed(organization, id)
	return c.cfg.Gone(ctx, id)
}

// Sync takes over the inventory of a connector.
func (c *Connectors) Sync(ctx context.Context, organization, id string) (machine.Synced, error) {
	r, err := c.row(ctx, organization, id)
	if err != nil {
		return machine.Synced{}, err
	}
	list, err := remote.ParseInventory(r.Settings.Hosts)
	if err != nil {
		return machine.Synced{}, err
	}
	known := make([]machine.Known, len(list))
	for i, e := range list {
		address := e.Address(r.Settings.Port)
		known[i] = machine.Known{Key: address, Name: e.Name, Address: address, Login: e.User, System: "linux", Tags: tagsOf(e.Tags)}
	}
	counts, err := c.cfg.Synced(ctx, organization, r.EnvironmentID, r.ID, r.Kind, known)
	if err != nil {
		return counts, err
	}
	now := c.now()
	_, err = c.cfg.DB.NewUpdate().Model((*row)(nil)).Set("synced_at = ?", now).Where("id = ?", id).Exec(ctx)
	c.cfg.Changed(organization, id)
	return counts, err
}

func tagsOf(tags map[string]string) []machine.Tag {
	var list []machine.Tag
	for k, v := range tags {
		list = append(list, machine.Tag{Key: k, Value: v})
	}
	slices.SortFunc(list, func(a, b machine.Tag) int { return cmp.Compare(a.Key, b.Key) })
	return list
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
	return c.dial(ctx, r, m.Address, m.Login, &pins{c: c, connector: r.ID, policy: r.Settings})
}

func (c *Connectors) dial(ctx context.Context, r *row, address, login string, keys remote.HostKeys) (deploy.Host, error) {
	secret, err := c.secret(r)
	if err != nil {
		return nil, deploy.Fail(deploy.ConnectorFailed, err.Error())
	}
	jump, err := hops(r.Settings)
	if err != nil {
		return nil, deploy.Fail(deploy.ConnectorFailed, err.Error())
	}
	user := cmp.Or(login, r.Settings.User)
	auth, err := c.credential(r.Settings.Credential, secret, user, jump)
	if err != nil {
		return nil, err
	}
	sudo := remote.Sudo(r.Settings.Sudo)
	if user == "root" {
		sudo = remote.NoSudo
	}
	h, err := remote.Dial(ctx, remote.Config{
		Hop: remote.Hop{Address: address, User: user}, Jump: jump, Auth: auth, HostKeys: keys, Sudo: sudo, Password: secret.SudoPassword,
	})
	if err != nil {
		return nil, err
	}
	return h, nil
}

// credential is what a connector logs in with.
func (c *Connectors) credential(kind string, s sealed, user string, jump []remote.Hop) ([]ssh.AuthMethod, error) {
	switch kind {
	case StoredKey:
		signer, err := remote.Key([]byte(s.PrivateKey), s.Passphrase)
		if err != nil {
			return nil, deploy.Fail(deploy.ConnectorFailed, err.Error())
		}
		return []ssh.AuthMethod{ssh.PublicKeys(signer)}, nil
	case Certificate:
		ca, err := remote.Key([]byte(s.CA), "")
		if err != nil {
			return nil, deploy.Fail(deploy.ConnectorFailed, err.Error())
		}
		users := []string{user}
		for _, hop := range jump {
			users = append(users, hop.User)
		}
		slices.Sort(users)
		cert, err := remote.Issue(ca, slices.Compact(users), certificateLife, c.cfg.Now())
		if err != nil {
			return nil, fmt.Errorf("issue a certificate: %w", err)
		}
		return []ssh.AuthMethod{ssh.PublicKeys(cert)}, nil
	}
	return nil, deploy.Fail(deploy.CredentialMissing, "")
}
