// Package machine is the registry of machines: what the environments know,
// with an agent or without one, and how far each is on its way to protection.
//
// A machine comes from a connector's inventory, or from an agent that enrols
// by itself. All of them are kept in memory, because lists filter and count
// them; every change is written before it is shown.
package machine

import (
	"cmp"
	"context"
	"embed"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/uptrace/bun"

	"komainu/control/access"
	"komainu/control/rest"
	"komainu/deploy"
	"komainu/event"
	"komainu/fault"
	"komainu/policy"
)

// Migrations are the tables of this package.
//
//go:embed migrations
var Migrations embed.FS

// FromAgent is the source of a machine whose agent enrolled by itself. Other
// sources are the kinds of connectors.
const FromAgent = "agent"

// Tag is a name with a value.
type Tag struct {
	Key   string `json:"key" minLength:"1" maxLength:"128"`
	Value string `json:"value" maxLength:"256"`
}

func (t Tag) String() string { return t.Key + "=" + t.Value }

// Bounds of what people and inventories say of a machine.
const (
	maxTags = 64
	maxName = 253
	// keptJournal is how many lines a machine keeps.
	keptJournal = 100
)

// Setting is the plan of one machine: that of its environment, or its own.
type Setting = policy.Tier

// Inherit is the setting of a machine that has the plan of its environment.
const Inherit Setting = ""

// Machine is what is known of one. A value is a copy: changing it changes
// nothing.
type Machine struct {
	bun.BaseModel `bun:"table:machines"`

	ID           string `bun:",pk"`
	Organization string `bun:"organization_id"`
	Environment  string `bun:"environment_id"`
	Name         string
	Address      string // host:port for SSH, or what the cloud says
	Login        string // user, where the inventory names one
	Source       string
	Connector    string `bun:"connector_id"`
	ExternalID   string // by which its connector knows it again
	System       string // linux, windows, "" when it is not known
	OS           string // in words
	Arch         string
	Tags         []Tag          `bun:"type:json"` // of the inventory
	OwnTags      []Tag          `bun:"type:json"` // that people have given it here
	Plan         Setting        // Inherit, off, P1 or P2
	Device       event.DeviceID `bun:"device_id"`
	FirstSeen    time.Time
	LastSeen     time.Time // by the inventory, or when its agent enrolled
	Stopped      bool      // does not run, says its cloud
	Gone         bool      // its inventory does not name it any more
	Offboarded   bool      // somebody does not want it protected
	OffboardedAt time.Time `bun:",nullzero"` // zero while it is not
	Left         bool      // its own host has offboarded it
	Extension    Extension `bun:"type:json"`
	Version      uint64
}

// Extension is the agent on a machine as an extension of it.
type Extension struct {
	State        deploy.State   `json:"state"`
	Step         deploy.Step    `json:"step,omitempty"`
	Waits        string         `json:"waits,omitempty"` // what the step waits for
	Reason       *deploy.Reason `json:"reason,omitempty"`
	Since        time.Time      `json:"since"`              // of the state
	StartedAt    time.Time      `json:"startedAt,omitzero"` // of the latest attempt
	Seconds      float64        `json:"seconds,omitempty"`  // that the latest successful one took
	Attempt      int            `json:"attempt,omitempty"`  // since the last success
	Next         time.Time      `json:"next,omitzero"`      // when it is tried again
	AgentVersion string         `json:"version,omitempty"`  // that was installed
	SelfTest     string         `json:"selfTest,omitempty"` // run that proved the protection
	Alert        string         `json:"alert,omitempty"`    // that it raised
	Protected    time.Time      `json:"protected,omitzero"` // when it was proven
	Observe      time.Time      `json:"observe,omitzero"`   // until then it is watched only
	Despite      bool           `json:"despite,omitempty"`  // of a conflicting product
	Take         bool           `json:"take,omitempty"`     // from another control plane
	Requested    time.Time      `json:"requested,omitzero"` // somebody wants it now
}

// Answered ends what somebody has asked for.
func (x *Extension) Answered() { x.Requested, x.Despite, x.Take = time.Time{}, false, false }

// AllTags returns the tags of the inventory and those that people gave; the
// latter win.
func (m *Machine) AllTags() []Tag {
	all := slices.Clone(m.OwnTags)
	for _, t := range m.Tags {
		if !slices.ContainsFunc(all, func(o Tag) bool { return o.Key == t.Key }) {
			all = append(all, t)
		}
	}
	slices.SortFunc(all, func(a, b Tag) int { return cmp.Compare(a.Key, b.Key) })
	return all
}

// Has reports whether a machine has one of some tags, and which. A tag with
// the value * fits every value.
func (m *Machine) Has(tags []Tag) (Tag, bool) {
	if len(tags) == 0 {
		return Tag{}, false
	}
	for _, t := range m.AllTags() {
		for _, want := range tags {
			if t.Key == want.Key && (want.Value == "*" || t.Value == want.Value) {
				return t, true
			}
		}
	}
	return Tag{}, false
}

// Config is what a registry needs of its neighbours.
type Config struct {
	Now func() time.Time
	// Record writes to the audit log.
	Record access.Recorder
	// Changed is told which machine changed; id is "" when many did. It must
	// not block. May be nil.
	Changed func(organization, id string)
}

// Registry holds the machines. It is safe for concurrent use.
type Registry struct {
	db  *bun.DB
	cfg Config

	writing  sync.Mutex // held from reading a machine until its successor is shown
	mu       sync.RWMutex
	machines map[string]*Machine // what they point to is never changed
	devices  map[event.DeviceID]string
}

// Open reads the registry from a migrated database. What was in the middle of
// something when the control plane stopped is taken up again.
func Open(ctx context.Context, d *bun.DB, cfg Config) (*Registry, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Changed == nil {
		cfg.Changed = func(string, string) {}
	}
	changed := cfg.Changed
	cfg.Changed = func(string, string) {} // nobody can know of it yet
	r := &Registry{db: d, cfg: cfg, machines: map[string]*Machine{}, devices: map[event.DeviceID]string{}}
	var rows []*Machine
	if err := d.NewSelect().Model(&rows).Scan(ctx); err != nil {
		return nil, fmt.Errorf("read machines: %w", err)
	}
	for _, m := range rows {
		r.show(m)
	}
	for _, m := range rows {
		if m.Extension.State == deploy.Creating {
			err := r.edit(ctx, m.ID, nil, func(m *Machine) error {
				m.Extension.State, m.Extension.Step, m.Extension.Next = deploy.Waiting, "", time.Time{}
				return nil
			})
			if err != nil {
				return nil, err
			}
		}
	}
	r.cfg.Changed = changed
	return r, nil
}

func (r *Registry) now() time.Time { return r.cfg.Now().UTC().Truncate(time.Millisecond) }

// show puts a machine where readers find it.
func (r *Registry) show(m *Machine) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if old := r.machines[m.ID]; old != nil && old.Device != m.Device {
		delete(r.devices, old.Device)
	}
	r.machines[m.ID] = m
	if m.Device != "" {
		r.devices[m.Device] = m.ID
	}
}

// Get returns one machine of an organization.
func (r *Registry) Get(organization, id string) (Machine, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if m := r.machines[id]; m != nil && m.Organization == organization {
		return *m, nil
	}
	return Machine{}, fault.New(fault.NotFound, "there is no machine %s", id)
}

// Lookup returns one machine of any organization, for who works on all.
func (r *Registry) Lookup(id string) (Machine, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if m := r.machines[id]; m != nil {
		return *m, true
	}
	return Machine{}, false
}

// Of returns the machine that a device runs on.
func (r *Registry) Of(device event.DeviceID) (Machine, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if m := r.machines[r.devices[device]]; m != nil {
		return *m, true
	}
	return Machine{}, false
}

// All returns every machine of an environment; of all when it is "".
func (r *Registry) All(environment string) []*Machine {
	r.mu.RLock()
	defer r.mu.RUnlock()
	list := make([]*Machine, 0, len(r.machines))
	for _, m := range r.machines {
		if environment == "" || m.Environment == environment {
			list = append(list, m)
		}
	}
	return list
}

// edit changes one machine. also, which may be nil, writes in the same
// transaction.
func (r *Registry) edit(ctx context.Context, id string, also func(context.Context, bun.Tx, *Machine) error, change func(*Machine) error) error {
	r.writing.Lock()
	defer r.writing.Unlock()
	r.mu.RLock()
	old := r.machines[id]
	r.mu.RUnlock()
	if old == nil {
		return fault.New(fault.NotFound, "there is no machine %s", id)
	}
	m := *old
	if err := change(&m); err != nil {
		return err
	}
	err := r.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		if _, err := tx.NewUpdate().Model(&m).WherePK().Exec(ctx); err != nil || also == nil {
			return err
		}
		return also(ctx, tx, &m)
	})
	if err != nil {
		return err
	}
	r.show(&m)
	r.cfg.Changed(m.Organization, m.ID)
	return nil
}

// audited writes down who changed a machine.
func (r *Registry) audited(c *access.Change) func(context.Context, bun.Tx, *Machine) error {
	return func(ctx context.Context, tx bun.Tx, m *Machine) error {
		c.Target, c.Name = m.ID, m.Name
		return r.cfg.Record(ctx, tx, *c)
	}
}

// Known is what an inventory says of a machine.
type Known struct {
	Key     string // by which the inventory knows it again
	Name    string
	Address string
	Login   string
	System  string
	OS      string
	Arch    string
	Tags    []Tag
	Stopped bool
}

// Inventory is what a connector has found.
type Inventory struct {
	Machines []Known
	// Missed reports whether a machine, by its key, is where the inventory
	// could not look this time: it is not gone then. May be nil.
	Missed func(key string) bool
	// Place takes keys apart that are addresses: it returns the host, and the
	// key as this inventory writes it. A machine is still the same one when
	// its host has another port, or was written otherwise before. nil: another
	// key is another machine.
	Place func(key string) (host, written string)
	// Current is asked in the transaction that takes the inventory over, which
	// its error ends: an inventory may take minutes, and its connector may be
	// another one by then, or none. May be nil.
	Current func(ctx context.Context, tx bun.IDB) error
}

// Synced counts what a synchronisation did.
type Synced struct {
	Known int `json:"known"`
	Added int `json:"added"`
	Gone  int `json:"gone"`
}

// Sync takes over the inventory of a connector: machines that are new are
// added, those that it does not name any more are marked as gone. Errors:
// those of Current.
func (r *Registry) Sync(ctx context.Context, organization, environment, connector, source string, inventory Inventory) (Synced, error) {
	r.writing.Lock()
	defer r.writing.Unlock()
	now := r.now()
	there := slices.DeleteFunc(r.All(environment), func(m *Machine) bool { return m.Connector != connector })
	found, missing := inventory.match(there)
	counts := Synced{Known: len(inventory.Machines)}
	var changed, added []*Machine
	for i, k := range inventory.Machines {
		old := found[i]
		m := &Machine{ID: rest.NewID(), Organization: organization, FirstSeen: now, Version: 1, Extension: Extension{State: deploy.None, Since: now}}
		if old != nil {
			clone := *old
			m = &clone
		}
		m.Environment, m.Source, m.Connector, m.ExternalID, m.LastSeen, m.Gone = environment, source, connector, k.Key, now, false
		m.Name, m.Address, m.Login, m.Stopped, m.Tags = k.Name, k.Address, k.Login, k.Stopped, slices.Clone(k.Tags)
		m.System, m.OS, m.Arch = cmp.Or(k.System, m.System), cmp.Or(k.OS, m.OS), cmp.Or(k.Arch, m.Arch)
		if old == nil {
			added = append(added, m)
		} else {
			changed = append(changed, m)
		}
	}
	for _, m := range missing {
		if !m.Gone && (inventory.Missed == nil || !inventory.Missed(m.ExternalID)) {
			clone := *m
			clone.Gone = true
			changed = append(changed, &clone)
			counts.Gone++
		}
	}
	counts.Added = len(added)
	if err := r.put(ctx, inventory.Current, added, changed); err != nil {
		return Synced{}, err
	}
	return counts, nil
}

// Found returns the machine that a connector knows by a key.
func (r *Registry) Found(connector, key string) (Machine, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, m := range r.machines {
		if m.Connector == connector && m.ExternalID == key && !m.Gone {
			return *m, true
		}
	}
	return Machine{}, false
}

// Enrolled notes that an agent has enrolled: on the machine that its token was
// made for, or on one that is new here. Errors: fault.Denied for a machine that
// was offboarded meanwhile.
func (r *Registry) Enrolled(ctx context.Context, organization, environment, id string, device event.DeviceID, k Known, observe time.Time) error {
	now := r.now()
	found := func(m *Machine) error {
		if m.Offboarded {
			return fault.New(fault.Denied, "the machine %s was offboarded; deploy to it from its page", m.Name)
		}
		m.Device, m.LastSeen = device, now
		m.System, m.OS, m.Arch = cmp.Or(k.System, m.System), cmp.Or(k.OS, m.OS), cmp.Or(k.Arch, m.Arch)
		if m.Extension.Protected.IsZero() {
			m.Extension.Observe = observe
		}
		return nil
	}
	if id != "" {
		return r.edit(ctx, id, nil, found)
	}
	r.writing.Lock()
	defer r.writing.Unlock()
	m := &Machine{
		ID: rest.NewID(), Organization: organization, Environment: environment, Name: k.Name, Source: FromAgent, FirstSeen: now, Version: 1, Tags: k.Tags,
		Extension: Extension{State: deploy.Waiting, Since: now},
	}
	_ = found(m)
	if _, err := r.db.NewInsert().Model(m).Exec(ctx); err != nil {
		return err
	}
	r.show(m)
	r.cfg.Changed(organization, m.ID)
	return nil
}

// Change is what somebody saves of a machine. What is nil stays.
type Change struct {
	Version uint64
	Plan    *Setting
	Tags    *[]Tag
}

// Save changes the plan or the tags of a machine.
func (r *Registry) Save(ctx context.Context, organization, id string, c Change) error {
	if _, err := r.Get(organization, id); err != nil {
		return err
	}
	if c.Plan != nil && *c.Plan != Inherit && *c.Plan != policy.Off && *c.Plan != policy.P1 && *c.Plan != policy.P2 {
		return fault.New(fault.Invalid, "plan %q: want inherit, off, P1 or P2", *c.Plan)
	}
	if c.Tags != nil {
		if err := CheckTags(*c.Tags); err != nil {
			return err
		}
	}
	entry := &access.Change{Action: "machine.change"}
	return r.edit(ctx, id, r.audited(entry), func(m *Machine) error {
		if c.Version != m.Version {
			return fault.New(fault.Conflict, "the machine was changed meanwhile; reload the page and change it again")
		}
		detail := map[string]any{}
		if c.Plan != nil && *c.Plan != m.Plan {
			detail["plan"] = []string{SettingName(m.Plan), SettingName(*c.Plan)}
			m.Plan = *c.Plan
		}
		if c.Tags != nil && !slices.Equal(*c.Tags, m.OwnTags) {
			detail["tags"] = [][]Tag{m.OwnTags, *c.Tags}
			m.OwnTags = *c.Tags
		}
		m.Version++
		entry.Detail = detail
		return nil
	})
}

// SettingName is the name of a setting for people.
func SettingName(s Setting) string { return cmp.Or(string(s), "inherit") }

// CheckTags says what is wrong with tags.
func CheckTags(tags []Tag) error {
	if len(tags) > maxTags {
		return fault.New(fault.Invalid, "a machine has at most %d tags", maxTags)
	}
	seen := map[string]bool{}
	for _, t := range tags {
		if strings.TrimSpace(t.Key) == "" || utf8.RuneCountInString(t.Key) > 128 || utf8.RuneCountInString(t.Value) > 256 || strings.ContainsAny(t.Key, "=\n") {
			return fault.New(fault.Invalid, "tag %q: a name has 1 to 128 characters without =, a value at most 256", t.Key)
		}
		if seen[t.Key] {
			return fault.New(fault.Invalid, "tag %q is there twice", t.Key)
		}
		seen[t.Key] = true
	}
	return nil
}

// Offboard notes that a machine is not to be protected any more. Where a
// connector reaches it, the agent is to be taken off it.
func (r *Registry) Offboard(ctx context.Context, organization, id, reason string) error {
	if _, err := r.Get(organization, id); err != nil {
		return err
	}
	return r.end(ctx, id, access.Change{Action: "machine.offboard", Detail: map[string]string{"reason": reason}}, false)
}

// Leave is Offboard by the host itself.
func (r *Registry) Leave(ctx context.Context, organization, id string) error {
	if _, err := r.Get(organization, id); err != nil {
		return err
	}
	return r.end(ctx, id, access.Change{Action: "machine.leave"}, true)
}

func (r *Registry) end(ctx context.Context, id string, c access.Change, left bool) error {
	return r.edit(ctx, id, r.audited(&c), func(m *Machine) error {
		now := r.now()
		if !m.Offboarded {
			m.Offboarded, m.OffboardedAt, m.Left = true, now, left
		}
		if m.Connector != "" && !left {
			m.note(now, func(x *Extension) {
				x.State, x.Reason, x.Step, x.Waits, x.Next, x.Attempt = deploy.Removing, nil, deploy.Remove, "", time.Time{}, 0
			})
		}
		return nil
	})
}

// wanted takes back that a machine is offboarded.
func (m *Machine) wanted() { m.Offboarded, m.OffboardedAt, m.Left = false, time.Time{}, false }

// Request notes that somebody wants a machine to be deployed to now.
func (r *Registry) Request(ctx context.Context, organization, id string, despite, take bool) error {
	if _, err := r.Get(organization, id); err != nil {
		return err
	}
	change := access.Change{Action: "machine.deploy", Detail: map[string]bool{"despiteConflict": despite, "takeOver": take}}
	return r.edit(ctx, id, r.audited(&change), func(m *Machine) error {
		x := &m.Extension
		switch {
		case x.State == deploy.Creating, x.State == deploy.Removing && x.Next.IsZero():
			return fault.New(fault.Conflict, "the machine is being worked on already")
		case x.State == deploy.Removing: // it waits to be tried again, for nothing now
			x.State, x.Since, x.Step, x.Reason = deploy.Waiting, r.now(), "", nil
		}
		m.wanted()
		m.Extension.Despite, m.Extension.Take = despite, take
		m.Extension.Requested, m.Extension.Next, m.Extension.Attempt = r.now(), time.Time{}, 0
		return nil
	})
}

// Delete forgets a machine that has no agent and that no inventory names.
func (r *Registry) Delete(ctx context.Context, organization, id string) error {
	r.writing.Lock()
	defer r.writing.Unlock()
	m, err := r.Get(organization, id)
	switch {
	case err != nil:
		return err
	case m.Device != "" && !m.Offboarded:
		return fault.New(fault.Conflict, "the machine has an agent; offboard it first")
	case m.Connector != "" && !m.Gone:
		return fault.New(fault.Conflict, "the inventory of a connector names the machine; take it out there first")
	}
	return r.forget(ctx, &m, "machine.delete")
}

// Expire forgets the machines that are offboarded for longer than keep says
// for their environment; 0 means for good. One that an inventory names stays:
// forgotten, it would be found there and protected again.
func (r *Registry) Expire(ctx context.Context, keep func(environment string) time.Duration) error {
	now := r.now()
	over := func(m *Machine) bool {
		kept := keep(m.Environment)
		return m.Offboarded && kept != 0 && now.Sub(m.OffboardedAt) >= kept && (m.Connector == "" || m.Gone)
	}
	for _, m := range r.All("") {
		if !over(m) {
			continue
		}
		if err := r.expire(ctx, m.ID, over); err != nil {
			return err
		}
	}
	return nil
}

// expire forgets one machine, if it is still as it was when it was picked.
func (r *Registry) expire(ctx context.Context, id string, over func(*Machine) bool) error {
	r.writing.Lock()
	defer r.writing.Unlock()
	m, ok := r.Lookup(id)
	if !ok || !over(&m) {
		return nil
	}
	actor := access.Actor{Kind: access.System, Name: "onboarding", Organization: m.Organization}
	return r.forget(access.WithActor(ctx, actor), &m, "machine.expire")
}

// forget deletes a machine and its journal. The caller holds writing.
func (r *Registry) forget(ctx context.Context, m *Machine, action string) error {
	err := r.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		if _, err := tx.NewDelete().Model(m).WherePK().Exec(ctx); err != nil {
			return err
		}
		if _, err := tx.NewDelete().Model((*Line)(nil)).Where("machine_id = ?", m.ID).Exec(ctx); err != nil {
			return err
		}
		return r.cfg.Record(ctx, tx, access.Change{Action: action, Target: m.ID, Name: m.Name})
	})
	if err != nil {
		return err
	}
	r.mu.Lock()
	delete(r.machines, m.ID)
	delete(r.devices, m.Device)
	r.mu.Unlock()
	r.cfg.Changed(m.Organization, m.ID)
	return nil
}

// Merge makes one machine of two that are the same server: id, which an
// inventory names, and other, which came to be when the agent enrolled by
// itself. What people decided about either stays; where they differ, what they
// decided about id.
func (r *Registry) Merge(ctx context.Context, id, other string) error {
	r.writing.Lock()
	defer r.writing.Unlock()
	into, ok := r.Lookup(id)
	from, there := r.Lookup(other)
	switch {
	case !ok || !there:
		return fault.New(fault.NotFound, "one of the machines %s and %s is not there any more", id, other)
	case into.Organization != from.Organization || into.Environment != from.Environment || from.Connector != "" || from.Device == "":
		return fault.New(fault.Conflict, "the machines %s and %s cannot be one", into.Name, from.Name)
	}
	into.Device, into.OwnTags = from.Device, (&Machine{OwnTags: into.OwnTags, Tags: from.OwnTags}).AllTags()
	if into.Plan == Inherit {
		into.Plan = from.Plan
	}
	if from.FirstSeen.Before(into.FirstSeen) {
		into.FirstSeen = from.FirstSeen
	}
	if into.Extension.Protected.IsZero() {
		into.Extension.Observe = from.Extension.Observe
	}
	into.LastSeen, into.Extension.Next = r.now(), time.Time{}
	into.Version++
	err := r.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		if _, err := tx.NewDelete().Model(&from).WherePK().Exec(ctx); err != nil {
			return err
		}
		if _, err := tx.NewUpdate().Model((*Line)(nil)).Set("machine_id = ?", into.ID).Where("machine_id = ?", from.ID).Exec(ctx); err != nil {
			return err
		}
		if _, err := tx.NewUpdate().Model(&into).WherePK().Exec(ctx); err != nil {
			return err
		}
		return r.cfg.Record(ctx, tx, access.Change{Action: "machine.merge", Target: into.ID, Name: into.Name, Detail: map[string]string{"machine": from.ID, "name": from.Name}})
	})
	if err != nil {
		return err
	}
	r.mu.Lock()
	delete(r.machines, from.ID)
	r.mu.Unlock()
	r.show(&into)
	r.cfg.Changed(into.Organization, from.ID)
	r.cfg.Changed(into.Organization, into.ID)
	return nil
}

// Abandon marks the machines of a connector that is deleted as gone: no
// inventory names them any more.
func (r *Registry) Abandon(ctx context.Context, connector string) error {
	r.writing.Lock()
	defer r.writing.Unlock()
	var left []*Machine
	for _, m := range r.All("") {
		if m.Connector == connector {
			clone := *m
			clone.Connector, clone.Gone = "", m.Device == ""
			left = append(left, &clone)
		}
	}
	return r.put(ctx, nil, nil, left)
}

// put writes many machines of one organization or of several, and shows them
// then. may, which may be nil, is asked first. The caller holds writing.
func (r *Registry) put(ctx context.Context, may func(context.Context, bun.IDB) error, added, changed []*Machine) error {
	err := r.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		if may != nil {
			if err := may(ctx, tx); err != nil {
				return err
			}
		}
		for part := range slices.Chunk(added, 200) {
			if _, err := tx.NewInsert().Model(&part).Exec(ctx); err != nil {
				return err
			}
		}
		for _, m := range changed {
			if _, err := tx.NewUpdate().Model(m).WherePK().Exec(ctx); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	told := map[string]bool{}
	for _, m := range slices.Concat(added, changed) {
		r.show(m)
		told[m.Organization] = true
	}
	for organization := range told {
		r.cfg.Changed(organization, "")
	}
	return nil
}

// Environments returns the environments that have machines.
func (r *Registry) Environments() map[string]int {
	counts := map[string]int{}
	for _, m := range r.All("") {
		counts[m.Environment]++
	}
	return counts
}
