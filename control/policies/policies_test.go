package policies_test

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"komainu/control/access"
	"komainu/control/db"
	"komainu/control/policies"
	"komainu/event"
	"komainu/fault"
	"komainu/policy"
)

const (
	org   = "org"
	other = "other"
)

type fataler interface {
	Fatal(...any)
	Helper()
}

// bench is policies over a state in memory, with devices and plans that the
// test sets.
type bench struct {
	*policies.Policies
	db       *bun.DB
	cfg      policies.Config
	key      ed25519.PublicKey
	now      time.Time
	devices  []policies.Device
	plans    map[string]policy.Document
	recorded []access.Change
	changed  []string
}

func open(t fataler) *bench {
	t.Helper()
	d, err := db.OpenMemory()
	if err == nil {
		err = db.Migrate(context.Background(), d, policies.Migrations)
	}
	public, private, keyErr := ed25519.GenerateKey(nil)
	if err != nil || keyErr != nil {
		t.Fatal(err, keyErr)
	}
	b := &bench{db: d, key: public, now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), plans: map[string]policy.Document{}}
	for _, env := range []string{"prod", "test"} {
		b.plans[env] = policy.Document{Format: policy.Format, Organization: org, Environment: env, Plan: policy.P2, Licensed: true}
	}
	b.cfg = policies.Config{
		Now:  func() time.Time { return b.now },
		Sign: func(doc *policy.Document) (policy.Signed, error) { return policy.Sign(doc, private) },
		Record: func(_ context.Context, _ bun.IDB, c access.Change) error {
			b.recorded = append(b.recorded, c)
			return nil
		},
		Plan: func(_ context.Context, d policies.Device) (policy.Document, error) {
			environment := d.Environment
			return b.plans[environment], nil
		},
		Environments: func(_ context.Context, organization string) (map[string]string, error) {
			if organization != org {
				return nil, nil
			}
			return map[string]string{"prod": "Production", "test": "Test"}, nil
		},
		Devices: func() []policies.Device { return b.devices },
		Device: func(id event.DeviceID) (policies.Device, error) {
			i := slices.IndexFunc(b.devices, func(d policies.Device) bool { return d.ID == id })
			if i < 0 {
				return policies.Device{}, fault.New(fault.NotFound, "there is no device %s", id)
			}
			return b.devices[i], nil
		},
		Changed: func(_, what, id string) { b.changed = append(b.changed, what+" "+id) },
	}
	b.reopen(t)
	return b
}

func (b *bench) reopen(t fataler) {
	t.Helper()
	var err error
	if b.Policies, err = policies.Open(context.Background(), b.db, b.cfg); err != nil {
		t.Fatal(err)
	}
}

func (b *bench) host(name, environment string, tags ...policy.Tag) event.DeviceID {
	id := event.DeviceID("id-" + name)
	b.devices = append(b.devices, policies.Device{ID: id, Organization: org, Environment: environment, Name: name, Platform: "Linux", Tags: tags})
	return id
}

func raw(t fataler, text string) policies.Raw {
	t.Helper()
	var r policies.Raw
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

var (
	all    = policies.Assignment{Kind: policies.ToAll}
	toProd = policies.Assignment{Kind: policies.ToEnvironment, ID: "prod"}
)

func toGroup(g policies.Group) policies.Assignment {
	return policies.Assignment{Kind: policies.ToGroup, ID: g.ID}
}

func (b *bench) make(t fataler, name string, priority int, settings string, to ...policies.Assignment) policies.Policy {
	t.Helper()
	kind := "antivirus"
	if strings.Contains(settings, "exclusion") {
		kind = "exclusions"
	} else if strings.Contains(settings, "tags") {
		kind = "edr"
	}
	p, err := b.Create(context.Background(), org, policies.Change{Name: name, Type: kind, Priority: priority, Settings: raw(t, settings), Assignments: to})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (b *bench) group(t fataler, name string, rank int, m policies.Match) policies.Group {
	t.Helper()
	g, err := b.CreateGroup(context.Background(), org, policies.GroupChange{Name: name, Rank: rank, Match: m})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// document opens the document of a device as its agent does.
func (b *bench) document(t fataler, id event.DeviceID) *policy.Document {
	t.Helper()
	signed, err := b.Signed(context.Background(), id, true)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := policy.Open(signed, b.key)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func (b *bench) setting(t fataler, id event.DeviceID, name string) policies.Setting {
	t.Helper()
	a, err := b.Of(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(a.Settings, func(s policies.Setting) bool { return s.Name == name })
	if i < 0 {
		t.Fatal("no setting", name)
	}
	return a.Settings[i]
}

func (b *bench) confirm(t fataler, id event.DeviceID, version uint64, problem string) {
	t.Helper()
	if newest, err := b.Confirmed(context.Background(), id, version, problem); err != nil || !newest {
		t.Fatal(newest, err)
	}
}

func TestWhatIsWrongIsSaidByName(t *testing.T) {
	b := open(t)
	g := b.group(t, "tagged", 1, policies.Match{Tags: []policy.Tag{{Key: "GROUP", Value: "web"}}})
	b.make(t, "taken", 0, `{}`)
	foreign, err := b.CreateGroup(t.Context(), other, policies.GroupChange{Name: "theirs", Match: policies.Match{Name: "*"}})
	if err != nil {
		t.Fatal(err)
	}
	recorded := len(b.recorded)
	for name, c := range map[string]struct {
		change policies.Change
		want   []string
		kind   fault.Kind
	}{
		"no_name":      {policies.Change{Type: "edr"}, []string{"name", "1 to 100"}, fault.Invalid},
		"line_break":   {policies.Change{Name: "a\nb", Type: "edr"}, []string{"name"}, fault.Invalid},
		"no_type":      {policies.Change{Name: "n", Type: "firewall"}, []string{"firewall", "antivirus"}, fault.Invalid},
		"taken":        {policies.Change{Name: "taken", Type: "edr"}, []string{"another name"}, fault.Conflict},
		"no_setting":   {policies.Change{Name: "n", Type: "edr", Settings: raw(t, `{"coffee":true}`)}, []string{"coffee", "catalogue"}, fault.Invalid},
		"other_type":   {policies.Change{Name: "n", Type: "edr", Settings: raw(t, `{"scanArchives":true}`)}, []string{"scanArchives", "type antivirus"}, fault.Invalid},
		"no_engine":    {policies.Change{Name: "n", Type: "edr", Settings: raw(t, `{"fileIntegrityMonitoring":true}`)}, []string{"fileIntegrityMonitoring", "not available", "leave it out"}, fault.Invalid},
		"of_the_plan":  {policies.Change{Name: "n", Type: "antivirus", Settings: raw(t, `{"filesystems":[]}`)}, []string{"filesystems", "plan"}, fault.Invalid},
		"bool":         {policies.Change{Name: "n", Type: "antivirus", Settings: raw(t, `{"scanArchives":"yes"}`)}, []string{"scanArchives", "true or false"}, fault.Invalid},
		"range":        {policies.Change{Name: "n", Type: "antivirus", Settings: raw(t, `{"maximumOnDemandScanThreads":65}`)}, []string{"maximumOnDemandScanThreads", "1 to 64"}, fault.Invalid},
		"field":        {policies.Change{Name: "n", Type: "exclusions", Settings: raw(t, `{"exclusions":[{"type":"file","value":"/a","scope":"epp","why":"x"}]}`)}, []string{"exclusions", `"scope":"epp"`}, fault.Invalid},
		"two_at_once":  {policies.Change{Name: "n", Type: "antivirus", Settings: raw(t, `{"scanArchives":1,"coffee":2}`)}, []string{"scanArchives", "coffee"}, fault.Invalid},
		"no_env":       {policies.Change{Name: "n", Type: "edr", Assignments: []policies.Assignment{{Kind: "environment", ID: "mars"}}}, []string{"assignments", "mars"}, fault.Invalid},
		"no_kind":      {policies.Change{Name: "n", Type: "edr", Assignments: []policies.Assignment{{Kind: "planet"}}}, []string{"assignments", "planet"}, fault.Invalid},
		"foreign":      {policies.Change{Name: "n", Type: "edr", Assignments: []policies.Assignment{toGroup(foreign)}}, []string{"no device group"}, fault.Invalid},
		"tags_by_tags": {policies.Change{Name: "n", Type: "edr", Settings: raw(t, `{"tags":[{"key":"GROUP","value":"x"}]}`), Assignments: []policies.Assignment{toGroup(g)}}, []string{"tags", "select by name"}, fault.Invalid},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := b.Create(t.Context(), org, c.change)
			if fault.KindOf(err) != c.kind {
				t.Fatalf("%v", err)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v does not say %q", err, want)
				}
			}
		})
	}
	if list, err := b.List(t.Context(), org); err != nil || len(list) != 1 || len(b.recorded) != recorded {
		t.Errorf("something was kept: %d, %v", len(list), err)
	}
}

func TestVersionsAndAudit(t *testing.T) {
	b := open(t)
	ctx := access.WithActor(t.Context(), access.Actor{Kind: access.User, Name: "kaede"})
	p, err := b.Create(ctx, org, policies.Change{Name: "base", Type: "antivirus", Settings: raw(t, `{"scanArchives":false}`), Assignments: []policies.Assignment{all, all}})
	if err != nil || p.Version != 1 || p.UpdatedBy != "kaede" || len(p.Assignments) != 1 {
		t.Fatalf("%+v, %v", p, err)
	}
	change := policies.Change{Version: 1, Name: "base", Type: "antivirus", Settings: raw(t, `{"scanArchives":true}`)}
	if p, err = b.Save(ctx, org, p.ID, change); err != nil || p.Version != 2 || !*p.Settings.ScanArchives {
		t.Fatalf("%+v, %v", p, err)
	}
	if _, err := b.Save(ctx, org, p.ID, change); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "kaede") {
		t.Errorf("stale: %v", err)
	}
	change.Version, change.Type = 2, "edr"
	if _, err := b.Save(ctx, org, p.ID, change); !fault.Is(err, fault.Invalid) {
		t.Errorf("another type: %v", err)
	}
	for what, err := range map[string]error{
		"read":   func() error { _, err := b.Get(ctx, other, p.ID); return err }(),
		"change": func() error { _, err := b.Save(ctx, other, p.ID, change); return err }(),
		"delete": b.Delete(ctx, other, p.ID, true),
	} {
		if !fault.Is(err, fault.NotFound) {
			t.Errorf("a foreign organization may %s: %v", what, err)
		}
	}
	b.reopen(t)
	if again, err := b.Get(ctx, org, p.ID); err != nil || again.Version != 2 || !*again.Settings.ScanArchives {
		t.Errorf("after a restart %+v, %v", again, err)
	}
	if err := b.Delete(ctx, org, p.ID, false); err != nil {
		t.Error(err)
	}
	var actions []string
	for _, r := range b.recorded {
		actions = append(actions, r.Action)
	}
	if !slices.Equal(actions, []string{"policy.create", "policy.change", "policy.delete"}) {
		t.Errorf("recorded %v", actions)
	}
	if text, _ := json.Marshal(b.recorded[1].Detail); !strings.Contains(string(text), `"scanArchives":[false,true]`) {
		t.Errorf("recorded %s", text)
	}
	if len(b.changed) != 3 {
		t.Errorf("told %v", b.changed)
	}
}

func TestWhatIsUsedIsNotDeleted(t *testing.T) {
	b := open(t)
	g := b.group(t, "web", 1, policies.Match{Name: "WEB-*"})
	p := b.make(t, "hard", 0, `{"enforcementLevel":"real_time"}`, toGroup(g), toProd)
	if err := b.DeleteGroup(t.Context(), org, g.ID); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "hard") {
		t.Errorf("group: %v", err)
	}
	if err := b.Delete(t.Context(), org, p.ID, false); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "group web") || !strings.Contains(err.Error(), "environment Production") {
		t.Errorf("policy: %v", err)
	}
	if err := b.Delete(t.Context(), org, p.ID, true); err != nil {
		t.Error(err)
	}
	if err := b.DeleteGroup(t.Context(), other, g.ID); !fault.Is(err, fault.NotFound) {
		t.Errorf("foreign: %v", err)
	}
	if err := b.DeleteGroup(t.Context(), org, g.ID); err != nil {
		t.Error(err)
	}
	if list := b.Groups(org); len(list) != 0 {
		t.Errorf("%+v", list)
	}
}

func TestGroups(t *testing.T) {
	b := open(t)
	web := policy.Tag{Key: "GROUP", Value: "web"}
	b.host("web-1", "prod", web)
	b.host("web-2", "test")
	b.host("db-1", "prod")
	for name, c := range map[string]struct {
		match policies.Match
		want  int
	}{
		"name":        {policies.Match{Name: "Web-?"}, 2},
		"environment": {policies.Match{Environment: "prod"}, 2},
		"tag":         {policies.Match{Tags: []policy.Tag{web}}, 1},
		"tags":        {policies.Match{Tags: []policy.Tag{web, {Key: "A", Value: "b"}}}, 0},
		"platform":    {policies.Match{OSPlatform: "Linux"}, 3},
		"both":        {policies.Match{Name: "web-*", Environment: "test"}, 1},
		"windows":     {policies.Match{OSPlatform: "Windows"}, 0},
	} {
		if g := b.group(t, name, 1, c.match); g.Devices != c.want {
			t.Errorf("%s: %d devices", name, g.Devices)
		}
	}
	for name, c := range map[string]policies.GroupChange{
		"of all":           {Name: "x"},
		"no environment":   {Name: "x", Match: policies.Match{Environment: "mars"}},
		"pattern":          {Name: "x", Match: policies.Match{Name: "["}},
		"platform":         {Name: "x", Match: policies.Match{OSPlatform: "BeOS"}},
		"without a name":   {Match: policies.Match{Name: "*"}},
		"tag without key":  {Name: "x", Match: policies.Match{Tags: []policy.Tag{{}}}},
		"a name that's in": {Name: "both", Match: policies.Match{Name: "*"}},
	} {
		if _, err := b.CreateGroup(t.Context(), org, c); !fault.Is(err, fault.Invalid) && !fault.Is(err, fault.Conflict) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A group that gets tags to match must not have a policy that sets them.
	g := b.group(t, "named", 1, policies.Match{Name: "web-*"})
	b.make(t, "labels", 0, `{"tags":[{"key":"GROUP","value":"web"}]}`, toGroup(g))
	change := policies.GroupChange{Version: g.Version, Name: g.Name, Rank: 7, Match: policies.Match{Tags: []policy.Tag{web}}}
	if _, err := b.SaveGroup(t.Context(), org, g.ID, change); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "labels") {
		t.Errorf("a circle of tags: %v", err)
	}
	change.Match = policies.Match{Name: "db-*"}
	if g, err := b.SaveGroup(t.Context(), org, g.ID, change); err != nil || g.Version != 2 || g.Rank != 7 || g.Devices != 1 {
		t.Errorf("%+v, %v", g, err)
	}
	if _, err := b.SaveGroup(t.Context(), org, g.ID, change); !fault.Is(err, fault.Conflict) {
		t.Errorf("stale: %v", err)
	}
	if _, err := b.SaveGroup(t.Context(), other, g.ID, change); !fault.Is(err, fault.NotFound) {
		t.Errorf("foreign: %v", err)
	}
	if list := b.Groups(other); len(list) != 0 {
		t.Errorf("foreign groups %+v", list)
	}
}

func TestBoundOfAllSettings(t *testing.T) {
	b := open(t)
	var list []policy.Exclusion
	for i := range 4000 {
		list = append(list, policy.Exclusion{Type: policy.ExcludeFolder, Value: fmt.Sprintf("/srv/a/folder/with/a/long/name/%d", i), Scope: policy.ScopeEPP})
	}
	text, err := json.Marshal(map[string]any{"exclusions": list})
	if err != nil {
		t.Fatal(err)
	}
	b.make(t, "first", 0, string(text), all)
	if _, err := b.Create(t.Context(), org, policies.Change{Name: "second", Type: "exclusions", Settings: raw(t, string(text))}); !fault.Is(err, fault.Exhausted) {
		t.Errorf("%v", err)
	}
}
