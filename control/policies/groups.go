package policies

import (
	"cmp"
	"context"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/uptrace/bun"

	"komainu/control/access"
	"komainu/control/rest"
	"komainu/fault"
	"komainu/policy"
)

// Match says what the devices of a group have in common: all that is named
// has to be so.
type Match struct {
	Environment string       `json:"environment,omitempty" doc:"id of an environment"`
	Name        string       `json:"name,omitempty" maxLength:"253" doc:"wildcard over the name, like web-*"`
	Tags        []policy.Tag `json:"tags,omitempty" doc:"the device has all of them"`
	OSPlatform  string       `json:"osPlatform,omitempty" maxLength:"64" doc:"Linux or Windows"`
}

// group is a device group as it is stored.
type group struct {
	bun.BaseModel `bun:"table:device_groups"`

	ID             string `bun:",pk"`
	OrganizationID string
	Name           string
	Rank           int
	Match          Match `bun:"type:json"`
	Version        uint64
	UpdatedAt      time.Time
	UpdatedBy      string
}

// Group is a device group as the API shows it.
type Group struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Rank      int       `json:"rank" doc:"of the groups that a device is in, the lowest rank counts first"`
	Match     Match     `json:"match"`
	Devices   int       `json:"devices"`
	Version   uint64    `json:"version"`
	UpdatedAt time.Time `json:"updatedAt"`
	UpdatedBy string    `json:"updatedBy"`
}

// GroupChange is what somebody saves of a group.
type GroupChange struct {
	Version uint64 `json:"version,omitempty" doc:"that the change is based on; needed to change a group"`
	Name    string `json:"name"`
	Rank    int    `json:"rank,omitempty" minimum:"0" maximum:"10000"`
	Match   Match  `json:"match"`
}

func byRank(a, b *group) int {
	return cmp.Or(cmp.Compare(a.Rank, b.Rank), cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
}

// has reports whether a device is in the group.
func (g *group) has(d *Device) bool {
	m := &g.Match
	if g.OrganizationID != d.Organization || m.Environment != "" && m.Environment != d.Environment || m.OSPlatform != "" && m.OSPlatform != d.Platform {
		return false
	}
	if m.Name != "" {
		// Names of hosts know no case. The pattern was tried when it was saved.
		if ok, _ := path.Match(strings.ToLower(m.Name), strings.ToLower(d.Name)); !ok {
			return false
		}
	}
	return !slices.ContainsFunc(m.Tags, func(t policy.Tag) bool { return !slices.Contains(d.Tags, t) })
}

// GroupsOf returns the ids of the groups that a device is in.
func (p *Policies) GroupsOf(d *Device) []string {
	var ids []string
	for _, g := range p.view.Load().groupsOf(d) {
		ids = append(ids, g.ID)
	}
	return ids
}

// groupsOf returns the groups of a device, lowest rank first.
func (v *view) groupsOf(d *Device) []*group {
	var list []*group
	for _, g := range v.groups {
		if g.has(d) {
			list = append(list, g)
		}
	}
	return list
}

func (g *group) view(devices int) Group {
	return Group{ID: g.ID, Name: g.Name, Rank: g.Rank, Match: g.Match, Devices: devices, Version: g.Version, UpdatedAt: g.UpdatedAt, UpdatedBy: g.UpdatedBy}
}

// Groups returns the groups of an organization, lowest rank first.
func (p *Policies) Groups(organization string) []Group {
	v, counts := p.view.Load(), map[string]int{}
	for _, d := range p.cfg.Devices() {
		for _, g := range v.groupsOf(&d) {
			counts[g.ID]++
		}
	}
	var list []Group
	for _, g := range v.groups {
		if g.OrganizationID == organization {
			list = append(list, g.view(counts[g.ID]))
		}
	}
	return list
}

// Group returns one group.
func (p *Policies) Group(organization, id string) (Group, error) {
	g, err := p.view.Load().groupIn(organization, id)
	if err != nil {
		return Group{}, err
	}
	n := 0
	for _, d := range p.cfg.Devices() {
		if g.has(&d) {
			n++
		}
	}
	return g.view(n), nil
}

func (v *view) groupIn(organization, id string) (*group, error) {
	if g := v.group(id); g != nil && g.OrganizationID == organization {
		return g, nil
	}
	return nil, fault.New(fault.NotFound, "there is no device group %s", id)
}

// CreateGroup makes a group.
func (p *Policies) CreateGroup(ctx context.Context, organization string, c GroupChange) (Group, error) {
	return p.saveGroup(ctx, organization, "", c)
}

// SaveGroup changes a group. A version that is not the newest is a conflict.
func (p *Policies) SaveGroup(ctx context.Context, organization, id string, c GroupChange) (Group, error) {
	return p.saveGroup(ctx, organization, id, c)
}

func (p *Policies) saveGroup(ctx context.Context, organization, id string, c GroupChange) (Group, error) {
	environments, err := p.cfg.Environments(ctx, organization)
	if err != nil {
		return Group{}, err
	}
	p.saving.Lock()
	defer p.saving.Unlock()
	v := p.view.Load()
	action, version := "device_group.create", uint64(0)
	var was any
	if id != "" {
		old, err := v.groupIn(organization, id)
		if err != nil {
			return Group{}, err
		}
		if c.Version != old.Version {
			return Group{}, stale("device group", old.Name, old.UpdatedBy, old.Version, c.Version)
		}
		action, version, was = "device_group.change", old.Version, map[string]any{"name": old.Name, "rank": old.Rank, "match": old.Match}
	} else {
		id = rest.NewID()
	}
	g := &group{ID: id, OrganizationID: organization, Name: strings.TrimSpace(c.Name), Rank: c.Rank, Match: c.Match,
		Version: version + 1, UpdatedAt: p.now(), UpdatedBy: access.ActorOf(ctx).Name}
	if err := v.admitGroup(g, environments); err != nil {
		return Group{}, err
	}
	err = p.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		if _, err := tx.NewInsert().Model(g).On("CONFLICT (id) DO UPDATE").Exec(ctx); err != nil {
			return err
		}
		return p.cfg.Record(ctx, tx, access.Change{Action: action, Target: g.ID, Name: g.Name,
			Detail: map[string]any{"was": was, "is": map[string]any{"name": g.Name, "rank": g.Rank, "match": g.Match}}})
	})
	if err != nil {
		return Group{}, err
	}
	if err := p.committed(ctx, organization, AGroup, g.ID); err != nil {
		return Group{}, err
	}
	return p.Group(organization, g.ID)
}

// admitGroup checks a group against everything else that there is.
func (v *view) admitGroup(g *group, environments map[string]string) error {
	if err := checkName("device group", g.Name); err != nil {
		return err
	}
	m := g.Match
	switch {
	case m.Environment == "" && m.Name == "" && m.OSPlatform == "" && len(m.Tags) == 0:
		return fault.New(fault.Invalid, "match: name an environment, a name, tags or a platform; a policy for every device is assigned to all")
	case m.OSPlatform != "" && m.OSPlatform != "Linux" && m.OSPlatform != "Windows":
		return fault.New(fault.Invalid, "match: osPlatform %q: want Linux or Windows", m.OSPlatform)
	case len(m.Tags) > 20:
		return fault.New(fault.Invalid, "match: %d tags are too many, 20 is the limit", len(m.Tags))
	}
	if _, ok := environments[m.Environment]; !ok && m.Environment != "" {
		return fault.New(fault.Invalid, "match: there is no environment %s", m.Environment)
	}
	if _, err := path.Match(m.Name, "x"); err != nil {
		return fault.New(fault.Invalid, "match: name %q: want a name with * and ?, like web-*", m.Name)
	}
	if slices.ContainsFunc(m.Tags, func(t policy.Tag) bool { return t.Key == "" || len(t.Key)+len(t.Value) > 200 }) {
		return fault.New(fault.Invalid, "match: a tag has a key, and 200 characters at most with its value")
	}
	n := 0
	for _, other := range v.groups {
		if other.OrganizationID != g.OrganizationID || other.ID == g.ID {
			continue
		}
		n++
		if other.Name == g.Name {
			return fault.New(fault.Conflict, "there is a device group %q already; choose another name", g.Name)
		}
	}
	if n >= MaxGroups {
		return fault.New(fault.Exhausted, "there are %d device groups already; delete one that is not needed", n)
	}
	if len(m.Tags) > 0 {
		for _, r := range v.uses(g.ID) {
			if len(r.Settings.Tags) > 0 {
				return circle(r.Name, g.Name)
			}
		}
	}
	return nil
}

// uses returns the policies that are assigned to a group.
func (v *view) uses(group string) []*row {
	var list []*row
	for _, r := range v.policies {
		if slices.Contains(r.Assignments, Assignment{Kind: ToGroup, ID: group}) {
			list = append(list, r)
		}
	}
	return list
}

// DeleteGroup removes a group that no policy is assigned to.
func (p *Policies) DeleteGroup(ctx context.Context, organization, id string) error {
	p.saving.Lock()
	defer p.saving.Unlock()
	v := p.view.Load()
	g, err := v.groupIn(organization, id)
	if err != nil {
		return err
	}
	var names []string
	for _, r := range v.uses(id) {
		names = append(names, r.Name)
	}
	if names != nil {
		slices.Sort(names)
		return fault.New(fault.Conflict, "the device group %q is used by the policies %s; assign those to something else first", g.Name, strings.Join(names, ", "))
	}
	err = p.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		if _, err := tx.NewDelete().Model(g).WherePK().Exec(ctx); err != nil {
			return err
		}
		return p.cfg.Record(ctx, tx, access.Change{Action: "device_group.delete", Target: g.ID, Name: g.Name, Detail: map[string]any{"rank": g.Rank, "match": g.Match}})
	})
	if err != nil {
		return err
	}
	return p.committed(ctx, organization, AGroup, id)
}
