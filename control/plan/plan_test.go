package plan_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/uptrace/bun"
	"pgregory.net/rapid"

	"komainu/control/access"
	"komainu/control/db"
	"komainu/control/plan"
	"komainu/fault"
	"komainu/policy"
)

const org = "org"

type bench struct {
	*plan.Plans
	db       *bun.DB
	env      string
	recorded []access.Change
	changed  []string
}

type fataler interface {
	Fatal(...any)
	Helper()
}

func open(t fataler) *bench {
	t.Helper()
	d, err := db.OpenMemory()
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Migrate(context.Background(), d, plan.Migrations); err != nil {
		t.Fatal(err)
	}
	b := &bench{db: d}
	b.Plans, err = plan.Open(context.Background(), d, plan.Config{
		Record: func(_ context.Context, _ bun.IDB, c access.Change) error {
			b.recorded = append(b.recorded, c)
			return nil
		},
		Changed: func(_, id string) { b.changed = append(b.changed, id) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Begin(context.Background(), org, "On-premises"); err != nil {
		t.Fatal(err)
	}
	list, err := b.List(context.Background(), org)
	if err != nil {
		t.Fatal(err)
	}
	b.env = list[0].ID
	return b
}

func (b *bench) save(t fataler, c plan.Change) plan.Settings {
	t.Helper()
	s, err := b.Settings(context.Background(), org, b.env)
	if err != nil {
		t.Fatal(err)
	}
	c.Version = s.Version
	if s, err = b.Save(context.Background(), org, b.env, c); err != nil {
		t.Fatal(err)
	}
	return s
}

// policy returns what the plan makes of a policy.
func (b *bench) policy(t fataler) policy.Document {
	t.Helper()
	doc, err := b.Document(context.Background(), org, b.env, plan.Own{})
	if err != nil {
		t.Fatal(err)
	}
	if doc.Version != 0 || doc.Device != "" || doc.Environment != b.env {
		t.Fatal("policy", doc)
	}
	return doc
}

func setting(t fataler, s plan.Settings, id string) plan.Setting {
	t.Helper()
	i := slices.IndexFunc(s.Settings, func(s plan.Setting) bool { return s.ID == id })
	if i < 0 {
		t.Fatal("no setting", id)
	}
	return s.Settings[i]
}

func TestBeginIsDoneOnce(t *testing.T) {
	b := open(t)
	if err := b.Begin(t.Context(), org, "Another"); err != nil {
		t.Fatal(err)
	}
	if list, err := b.List(t.Context(), org); err != nil || len(list) != 1 || list[0].Plan != policy.Off {
		t.Errorf("%+v, %v", list, err)
	}
	if _, err := b.Create(t.Context(), org, plan.Creation{Name: " On-premises "}); !fault.Is(err, fault.Conflict) {
		t.Errorf("a name is given twice: %v", err)
	}
	if _, err := b.Create(t.Context(), org, plan.Creation{Name: "  "}); !fault.Is(err, fault.Invalid) {
		t.Errorf("no name: %v", err)
	}
}

func TestTheFirstDay(t *testing.T) {
	b := open(t)
	if doc := b.policy(t); doc.Licensed || doc.Plan != policy.Off {
		t.Errorf("policy before the plan is on: %+v", doc)
	}
	s := b.save(t, plan.Change{Servers: true})
	if s.Tier != policy.P2 || b.Tier(b.env) != policy.P2 {
		t.Errorf("switched on as %s", s.Tier)
	}
	if p := setting(t, s, "endpoint_protection"); !p.Enabled || !p.Changeable {
		t.Errorf("endpoint protection %+v", p)
	}
	for _, id := range []string{"vulnerability_assessment", "agentless_scanning", "file_integrity_monitoring"} {
		if p := setting(t, s, id); p.Enabled || p.Changeable || p.Reason != plan.ReasonNoEngine {
			t.Errorf("%+v", p)
		}
		if _, err := b.Save(t.Context(), org, b.env, plan.Change{Version: s.Version, Servers: true, Settings: map[string]bool{id: true}}); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "not available in this version") {
			t.Errorf("%s is switched on: %v", id, err)
		}
	}
	if doc := b.policy(t); !doc.Licensed || doc.Plan != policy.P2 || doc.Managed.EnforcementLevel != nil {
		t.Errorf("policy %+v", doc)
	}
	s = b.save(t, plan.Change{Servers: true, Tier: policy.P1})
	if p := setting(t, s, "agentless_scanning"); p.Reason != plan.ReasonRequiresP2 {
		t.Errorf("under P1 %+v", p)
	}
	s = b.save(t, plan.Change{Servers: true, Settings: map[string]bool{"endpoint_protection": false}})
	if s.Tier != policy.P1 {
		t.Errorf("the tier has changed to %s", s.Tier)
	}
	if doc := b.policy(t); !doc.Licensed || *doc.Managed.EnforcementLevel != policy.OnDemand {
		t.Errorf("policy without endpoint protection: %+v", doc)
	}
	s = b.save(t, plan.Change{Servers: false})
	if doc := b.policy(t); doc.Licensed || doc.Plan != policy.Off {
		t.Errorf("policy after the plan is off: %+v", doc)
	}
	if p := setting(t, s, "endpoint_protection"); p.Enabled || p.Reason != plan.ReasonPlanOff {
		t.Errorf("%+v", p)
	}
	// Off and on again: P2, as at first.
	if s = b.save(t, plan.Change{Servers: true}); s.Tier != policy.P2 || len(b.changed) != 6 {
		t.Errorf("tier %s after %d changes", s.Tier, len(b.changed))
	}
}

func TestRefusedChangesChangeNothing(t *testing.T) {
	b := open(t)
	before := b.save(t, plan.Change{Servers: true})
	recorded := len(b.recorded)
	for name, c := range map[string]plan.Change{
		"stale":       {Version: before.Version - 1, Servers: false},
		"from_ahead":  {Version: before.Version + 1, Servers: false},
		"no_setting":  {Version: before.Version, Servers: true, Settings: map[string]bool{"coffee": true}},
		"no_tier":     {Version: before.Version, Servers: true, Tier: "P3"},
		"filesystem":  {Version: before.Version, Servers: true, Filesystems: []policy.FilesystemRule{{Path: "srv", Mode: policy.Block}}},
		"no_mode":     {Version: before.Version, Servers: true, Filesystems: []policy.FilesystemRule{{Path: "/srv", Mode: "admire"}}},
		"p2_under_p1": {Version: before.Version, Servers: true, Tier: policy.P1, Settings: map[string]bool{"agentless_scanning": true}},
	} {
		if _, err := b.Save(t.Context(), org, b.env, c); !fault.Is(err, fault.Conflict) && !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := b.Save(t.Context(), "another", b.env, plan.Change{Version: before.Version}); !fault.Is(err, fault.NotFound) {
		t.Errorf("by another organization: %v", err)
	}
	if after, err := b.Settings(t.Context(), org, b.env); err != nil || after.Version != before.Version || !after.Servers || len(b.recorded) != recorded {
		t.Errorf("it is now %+v, %v", after, err)
	}
}

func TestFilesystems(t *testing.T) {
	b := open(t)
	rules := []policy.FilesystemRule{{Path: "*", Mode: policy.Watch}, {Path: "/demo", Mode: policy.Block}}
	b.save(t, plan.Change{Servers: true, Filesystems: rules})
	if doc := b.policy(t); !slices.Equal(doc.Managed.Filesystems, rules) {
		t.Errorf("policy %+v", doc.Managed)
	}
	b.save(t, plan.Change{Servers: true})
	if doc := b.policy(t); !slices.Equal(doc.Managed.Filesystems, rules) {
		t.Errorf("left out, they are %+v", doc.Managed.Filesystems)
	}
	b.save(t, plan.Change{Servers: true, Filesystems: []policy.FilesystemRule{}})
	if doc := b.policy(t); doc.Managed.Filesystems != nil {
		t.Errorf("emptied, they are %+v", doc.Managed.Filesystems)
	}
}

func TestEntryNamesWhatChanged(t *testing.T) {
	b := open(t)
	b.save(t, plan.Change{Servers: true})
	last := b.recorded[len(b.recorded)-1]
	detail, ok := last.Detail.(map[string]any)
	if last.Action != "plan.change" || last.Name != "On-premises" || !ok || detail["servers"] == nil || detail["endpoint_protection"] == nil || detail["tier"] != nil {
		t.Errorf("recorded %+v", last)
	}
}

func TestTiersSurviveARestart(t *testing.T) {
	b := open(t)
	b.save(t, plan.Change{Servers: true, Tier: policy.P1})
	again, err := plan.Open(t.Context(), b.db, plan.Config{Now: time.Now})
	if err != nil || again.Tier(b.env) != policy.P1 || again.Tier("unknown") != policy.Off {
		t.Errorf("tier %s, %v", again.Tier(b.env), err)
	}
}

func TestCompare(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range plan.Compare() {
		if c.ID == "" || c.Name == "" || seen[c.ID] || c.P1 && !c.P2 {
			t.Errorf("%+v", c)
		}
		seen[c.ID] = true
	}
}

// TestAnyChangeKeepsThePromises: versions only rise, and what has no engine,
// or is not in the plan, is never on.
func TestAnyChangeKeepsThePromises(t *testing.T) {
	b := open(t)
	number := 0
	rapid.Check(t, func(t *rapid.T) {
		number++
		e, err := b.Create(context.Background(), org, plan.Creation{Name: fmt.Sprint(number)})
		if err != nil {
			t.Fatal(err)
		}
		b.env = e.ID
		version := uint64(0)
		for range rapid.IntRange(1, 8).Draw(t, "changes") {
			s, err := b.Settings(context.Background(), org, b.env)
			if err != nil {
				t.Fatal(err)
			}
			c := plan.Change{
				Version: s.Version, Servers: rapid.Bool().Draw(t, "servers"),
				Tier: rapid.SampledFrom([]policy.Tier{"", policy.P1, policy.P2}).Draw(t, "tier"),
				Settings: rapid.MapOf(rapid.SampledFrom([]string{"endpoint_protection", "vulnerability_assessment", "agentless_scanning", "file_integrity_monitoring"}),
					rapid.Bool()).Draw(t, "settings"),
			}
			if _, err := b.Save(context.Background(), org, b.env, c); err != nil && !fault.Is(err, fault.Invalid) {
				t.Fatal(err)
			}
			if s, err = b.Settings(context.Background(), org, b.env); err != nil {
				t.Fatal(err)
			}
			for _, p := range s.Settings {
				if p.Enabled && (!s.Servers || !p.Engine || !slices.Contains(p.AvailableIn, s.Tier) || p.Reason != "") {
					t.Fatalf("%+v under %+v", p, s)
				}
			}
			doc := b.policy(t)
			if doc.Licensed != s.Servers || s.Version < version {
				t.Fatalf("policy %+v of %+v after version %d", doc, s, version)
			}
			version = s.Version
		}
	})
}
