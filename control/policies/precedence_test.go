package policies_test

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"komainu/control/policies"
	"komainu/policy"
)

// stands says how near a policy comes to a device, the naive way: 0 not at
// all, 1 to all, 2 by environment, and above that by the groups of the device.
func stands(p policies.Policy, d policies.Device, groups []policies.Group) int {
	near := 0
	for _, a := range p.Assignments {
		switch a.Kind {
		case policies.ToAll:
			near = max(near, 1)
		case policies.ToEnvironment:
			if a.ID == d.Environment {
				near = max(near, 2)
			}
		case policies.ToGroup:
			for _, g := range groups {
				in, _ := path.Match(g.Match.Name, d.Name)
				if g.ID == a.ID && (g.Match.Name == "" || in) && (g.Match.Environment == "" || g.Match.Environment == d.Environment) {
					near = max(near, 1000-g.Rank)
				}
			}
		}
	}
	return near
}

// beats reports whether a counts before b on a device.
func beats(a, b policies.Policy, d policies.Device, groups []policies.Group) bool {
	if x, y := stands(a, d, groups), stands(b, d, groups); x != y {
		return x > y
	}
	if a.Priority != b.Priority {
		return a.Priority < b.Priority
	}
	return a.Name < b.Name
}

// TestPrecedence compares documents with a model that looks at every policy
// for every setting.
func TestPrecedence(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := open(t)
		defer b.db.Close()
		for i, env := range rapid.SliceOfN(rapid.SampledFrom([]string{"prod", "test"}), 1, 4).Draw(t, "devices") {
			b.host(fmt.Sprintf("%s-%d", rapid.SampledFrom([]string{"web", "db"}).Draw(t, "host"), i), env)
		}
		var groups []policies.Group
		targets := []policies.Assignment{all, toProd, {Kind: policies.ToEnvironment, ID: "test"}}
		for i, name := range rapid.SliceOfN(rapid.SampledFrom([]string{"web-*", "db-*", "*-1", "*"}), 0, 4).Draw(t, "groups") {
			m := policies.Match{Name: name, Environment: rapid.SampledFrom([]string{"", "prod"}).Draw(t, "of")}
			g := b.group(t, fmt.Sprint("g", i), 10*i+rapid.IntRange(0, 9).Draw(t, "rank"), m)
			groups, targets = append(groups, g), append(targets, toGroup(g))
		}
		doc := b.plans["prod"]
		if rapid.Bool().Draw(t, "planSays") {
			doc.Managed.EnforcementLevel = new(policy.OnDemand)
		}
		b.plans["prod"] = doc
		var list []policies.Policy
		for i := range rapid.IntRange(0, 6).Draw(t, "policies") {
			settings := map[string]any{}
			if rapid.Bool().Draw(t, "level") {
				settings["enforcementLevel"] = rapid.SampledFrom([]string{"real_time", "passive"}).Draw(t, "l")
			}
			if rapid.Bool().Draw(t, "threads") {
				settings["maximumOnDemandScanThreads"] = rapid.IntRange(1, 9).Draw(t, "n")
			}
			if rapid.Bool().Draw(t, "allowed") {
				settings["allowedThreats"] = rapid.SliceOfN(rapid.SampledFrom([]string{"A", "B", "C", "D"}), 1, 3).Draw(t, "a")
			}
			text, err := json.Marshal(settings)
			if err != nil {
				t.Fatal(err)
			}
			to := rapid.SliceOfN(rapid.SampledFrom(targets), 0, 3).Draw(t, "to")
			list = append(list, b.make(t, fmt.Sprint("p", i), rapid.IntRange(0, 2).Draw(t, "priority"), string(text), to...))
		}
		for _, d := range b.devices {
			want := b.plans[d.Environment].Managed
			var level, threads *policies.Policy
			threats := map[string]bool{}
			for i, p := range list {
				if stands(p, d, groups) == 0 {
					continue
				}
				if p.Settings.EnforcementLevel != nil && (level == nil || beats(p, *level, d, groups)) {
					level = &list[i]
				}
				if p.Settings.OnDemandScanThreads != nil && (threads == nil || beats(p, *threads, d, groups)) {
					threads = &list[i]
				}
				for _, name := range p.Settings.AllowedThreats {
					threats[name] = true
				}
			}
			if want.EnforcementLevel == nil && level != nil {
				want.EnforcementLevel = level.Settings.EnforcementLevel
			}
			if threads != nil {
				want.OnDemandScanThreads = threads.Settings.OnDemandScanThreads
			}
			got := b.document(t, d.ID).Managed
			allowed := map[string]bool{}
			for _, name := range got.AllowedThreats {
				allowed[name] = true
			}
			got.AllowedThreats, want.AllowedThreats = nil, nil
			if !reflect.DeepEqual(got, want) || !reflect.DeepEqual(allowed, threats) {
				t.Fatalf("device %+v\npolicies %+v\ngroups %+v\ngot  %+v %v\nwant %+v %v", d, list, groups, got, allowed, want, threats)
			}
			if threads != nil {
				if s := b.setting(t, d.ID, "maximumOnDemandScanThreads"); s.Source.ID != threads.ID {
					t.Fatalf("source %+v, want %s", s.Source, threads.Name)
				}
			}
		}
	})
}

// BenchmarkCompose composes and stores the documents of 10 000 devices after a
// change that concerns all of them, with 50 policies and 20 groups.
func BenchmarkCompose(b *testing.B) {
	x := open(b)
	for i := range 10_000 {
		x.host(fmt.Sprintf("h%d-%04d", i%40, i), []string{"prod", "test"}[i%2])
	}
	var targets []policies.Assignment
	for i := range 20 {
		targets = append(targets, toGroup(x.group(b, fmt.Sprint("g", i), i, policies.Match{Name: fmt.Sprintf("h%d-*", i)})))
	}
	for i := range 49 {
		x.make(b, fmt.Sprint("p", i), i, fmt.Sprintf(`{"exclusions":[{"type":"folder","value":"/srv/%d","scope":"epp"}]}`, i), targets[i%20])
	}
	p := x.make(b, "base", 0, `{"maximumOnDemandScanThreads":1}`, all)
	n := 0
	for b.Loop() {
		n++
		var err error
		p, err = x.Save(context.Background(), org, p.ID, policies.Change{Version: p.Version, Name: "base", Type: "antivirus",
			Settings: raw(b, fmt.Sprintf(`{"maximumOnDemandScanThreads":%d}`, 1+n%60)), Assignments: []policies.Assignment{all}})
		if err != nil {
			b.Fatal(err)
		}
		ids, err := x.Recompose(context.Background(), slices.Clone(x.devices))
		if err != nil || len(ids) != 10_000 {
			b.Fatal(len(ids), err)
		}
	}
}
