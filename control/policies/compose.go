package policies

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"

	"komainu/policy"
)

// Kinds of sources of a value.
const (
	FromPolicy  = "policy"
	FromPlan    = "plan"
	FromDefault = "default"
	FromDevice  = "device"
)

// Source says where a value comes from.
type Source struct {
	Kind string `json:"kind" doc:"policy, plan, default, or device for what is set on the device"`
	ID   string `json:"id"`
	Name string `json:"name"`
}

// Value is what a source says that something stronger says too.
type Value struct {
	Source
	Value json.RawMessage `json:"value"`
}

// applied is a setting with where it came from.
type applied struct {
	value      json.RawMessage
	source     Source
	overridden []Value
	united     []Source // other policies that the value is made of
	digest     string
}

// composed is what devices with the same environment and groups get.
type composed struct {
	document policy.Document // without version, device and time
	settings map[string]applied
	digest   string
	hashes   map[string]string // digest of the value by setting
	policies []string          // ids of the policies that apply
	groups   []string          // names of the groups, lowest rank first
}

// compose returns what a device gets. Devices in the same place and groups
// share one result.
func (p *Policies) compose(ctx context.Context, v *view, d *Device) (*composed, error) {
	groups := v.groupsOf(d)
	var key strings.Builder
	fmt.Fprintf(&key, "%s %s %s %t", d.Organization, d.Environment, d.Plan, d.Observe)
	for _, g := range groups {
		key.WriteString(" " + g.ID)
	}
	v.mu.Lock()
	c := v.composed[key.String()]
	v.mu.Unlock()
	if c != nil {
		return c, nil
	}
	base, err := p.cfg.Plan(ctx, *d)
	if err != nil {
		return nil, err
	}
	if c, err = combine(base, v.ranked(d, groups)); err != nil {
		return nil, err
	}
	for _, g := range groups {
		c.groups = append(c.groups, g.Name)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.composed[key.String()] = c
	return c, nil
}

// ranked returns the policies of a device, the strongest first: those of its
// groups by the rank of the group, then those of its environment, then those
// for all; among equals the lower priority number, then the name.
func (v *view) ranked(d *Device, groups []*group) []*row {
	type candidate struct {
		*row
		rank int
	}
	var list []candidate
	for _, r := range v.policies {
		if r.OrganizationID != d.Organization {
			continue
		}
		if rank := rankOf(r.Assignments, d.Environment, groups); rank >= 0 {
			list = append(list, candidate{r, rank})
		}
	}
	slices.SortFunc(list, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	rows := make([]*row, len(list))
	for i, c := range list {
		rows[i] = c.row
	}
	return rows
}

// rankOf returns how near an assignment comes to a device, 0 for its first
// group; -1 for a policy that is not for the device.
func rankOf(assignments []Assignment, environment string, groups []*group) int {
	best := -1
	for _, a := range assignments {
		rank := -1
		switch a.Kind {
		case ToAll:
			rank = math.MaxInt
		case ToEnvironment:
			if a.ID == environment {
				rank = math.MaxInt - 1
			}
		case ToGroup:
			rank = slices.IndexFunc(groups, func(g *group) bool { return g.ID == a.ID })
		}
		if rank >= 0 && (best < 0 || rank < best) {
			best = rank
		}
	}
	return best
}

// combine lays policies, the strongest first, below what the plan says.
func combine(base policy.Document, rows []*row) (*composed, error) {
	c := &composed{document: base, settings: map[string]applied{}, hashes: map[string]string{}}
	for name, value := range values(base.Managed) {
		c.settings[name] = applied{value: value, source: Source{Kind: FromPlan, ID: base.Environment}}
	}
	united := map[string]bool{}
	for _, s := range policy.Catalogue() {
		united[s.Name] = s.United
	}
	for _, r := range rows {
		c.policies = append(c.policies, r.ID)
		from := Source{Kind: FromPolicy, ID: r.ID, Name: r.Name}
		for name, value := range values(r.Settings) {
			a, taken := c.settings[name]
			switch {
			case !taken:
				a = applied{value: value, source: from}
			case united[name]:
				both, err := unite(a.value, value)
				if err != nil {
					return nil, fmt.Errorf("unite %s: %w", name, err)
				}
				a.value, a.united = both, append(slices.Clone(a.united), from)
			default:
				a.overridden = append(slices.Clone(a.overridden), Value{from, value})
			}
			c.settings[name] = a
		}
	}
	all := make(map[string]json.RawMessage, len(c.settings))
	for name, a := range c.settings {
		a.digest = digest(a.value)
		all[name], c.hashes[name], c.settings[name] = a.value, a.digest, a
	}
	text, err := json.Marshal(all)
	if err != nil {
		return nil, err
	}
	c.document.Managed = policy.Settings{}
	if err := json.Unmarshal(text, &c.document.Managed); err != nil {
		return nil, fmt.Errorf("compose settings: %w", err)
	}
	if text, err = json.Marshal(c.document); err != nil {
		return nil, err
	}
	c.digest = digest(text)
	// Who said it is no content: a name that changes is told with the next
	// change, or when the device connects.
	c.document.Sources = sources(c.settings)
	return c, nil
}

// sources names who set each setting, for people on the device.
func sources(settings map[string]applied) map[string][]policy.Source {
	all := make(map[string][]policy.Source, len(settings))
	for name, a := range settings {
		for _, s := range append([]Source{a.source}, a.united...) {
			if len(all[name]) < policy.MaxSources {
				all[name] = append(all[name], policy.Source{Kind: s.Kind, Name: s.Name})
			}
		}
	}
	return all
}

// unite appends to a list what it does not have yet.
func unite(a, b json.RawMessage) (json.RawMessage, error) {
	var list, more []json.RawMessage
	if err := json.Unmarshal(a, &list); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &more); err != nil {
		return nil, err
	}
	has := make(map[string]bool, len(list))
	for _, item := range list {
		has[string(item)] = true
	}
	for _, item := range more {
		if !has[string(item)] {
			has[string(item)] = true
			list = append(list, item)
		}
	}
	return json.Marshal(list)
}

func digest(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:12])
}
