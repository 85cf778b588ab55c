package agent

import (
	"slices"
	"strings"
	"testing"

	"komainu/agent/localapi"
	"komainu/fault"
	"komainu/health"
	"komainu/policy"
)

// TestRefusalsNameThePolicy: who may not change something on the device is
// told which policy decides, whatever way the change takes.
func TestRefusalsNameThePolicy(t *testing.T) {
	dir, sign := t.TempDir(), newSigner(t)
	s := mustOpen(t, dir, sign.pub)
	l := &localSettings{settings: s, logLevel: func(string) error { return nil }, changed: func(string, string, string) {}}
	x := policy.Exclusion{Type: policy.ExcludeFolder, Value: "/srv/cache", Scope: policy.ScopeEPP}
	signed := sign.policy(2, func(d *policy.Document) {
		d.Managed = policy.Settings{
			EnforcementLevel: new(policy.RealTime), ScanArchives: new(true), DisallowedThreatActions: []string{"allow"}, LogLevel: new("info"), Tags: []policy.Tag{{Key: "GROUP", Value: "web"}},
			ThreatTypes: map[policy.ThreatType]policy.ThreatAction{policy.ArchiveBomb: policy.ActionBlock}, Exclusions: []policy.Exclusion{x}, AllowedThreats: []string{"Virus:DOS/Sample"},
		}
		servers := []policy.Source{{Kind: policy.SourcePolicy, Name: "Servers"}}
		d.Sources = map[string][]policy.Source{
			"enforcementLevel": {{Kind: policy.SourcePlan}}, "scanArchives": servers, "disallowedThreatActions": servers, "logLevel": servers, "tags": servers, "threatTypeSettings": servers,
			"exclusions": {{Kind: policy.SourcePolicy, Name: "Base"}, {Kind: policy.SourcePolicy, Name: "Web"}}, "allowedThreats": servers,
		}
	})
	if _, err := s.ApplyPolicy("d1", signed); err != nil {
		t.Fatal(err)
	}
	const one, many = `managed by the policy "Servers"`, `managed by the policies "Base", "Web"`
	for what, c := range map[string]struct {
		err  error
		want string
	}{
		"plan":           {l.ApplySetting(t.Context(), localapi.RealTimeProtection, "disabled"), "managed by the plan of this environment"},
		"setting":        {l.ApplySetting(t.Context(), localapi.ScanArchives, "disabled"), one},
		"threat policy":  {l.ApplySetting(t.Context(), localapi.ArchiveBombs, "off"), one},
		"lasting level":  {l.ApplySetting(t.Context(), localapi.LogLevel, "debug"), one},
		"level":          {l.SetLogLevel(t.Context(), "debug"), one},
		"tag":            {l.SetTag(t.Context(), policy.Tag{Key: "GROUP", Value: "db"}), one},
		"no tag":         {l.RemoveTag(t.Context(), "GROUP"), one},
		"allow":          {l.AllowThreat(t.Context(), "Virus:DOS/Other"), one},
		"do not allow":   {l.DisallowThreat(t.Context(), "Virus:DOS/Sample"), one},
		"take back":      {l.RemoveExclusion(t.Context(), x), many},
		"restore is not": {mayDo(s.Now(), "restore"), ""},
	} {
		switch {
		case c.want == "":
			if c.err != nil {
				t.Errorf("%s: %v", what, c.err)
			}
		case !fault.Is(c.err, fault.Managed) || !strings.Contains(c.err.Error(), c.want):
			t.Errorf("%s: %v, want %s", what, c.err, c.want)
		}
	}
}

// TestReportSaysWhoSetWhat: the control plane learns of every setting that is
// not at its default who set it, and what was set on the device.
func TestReportSaysWhoSetWhat(t *testing.T) {
	local := policy.Settings{
		ScanArchives: new(false), OnDemandScanThreads: new(8), Exclusions: []policy.Exclusion{{Type: policy.ExcludeFile, Value: "/" + strings.Repeat("x", maxLocal), Scope: policy.ScopeEPP}},
	}
	doc := &policy.Document{Managed: policy.Settings{ScanArchives: new(true), EnforcementLevel: new(policy.RealTime)}, Sources: map[string][]policy.Source{
		"scanArchives": {{Kind: policy.SourcePolicy, Name: "Servers"}}, "enforcementLevel": {{Kind: policy.SourcePlan}},
	}}
	got := settingsOf(policy.Merge(doc, local), local)
	want := []health.Setting{
		{Name: "enforcementLevel", Origin: health.ByPlan},
		{Name: "exclusions", Origin: health.ByDevice}, // too long
		{Name: "maximumOnDemandScanThreads", Origin: health.ByDevice, Local: []byte("8")},
		{Name: "scanArchives", Origin: health.ByPolicy, By: "Servers", Local: []byte("false")},
	}
	same := func(a, b health.Setting) bool {
		return a.Name == b.Name && a.Origin == b.Origin && a.By == b.By && string(a.Local) == string(b.Local)
	}
	if !slices.EqualFunc(got, want, same) {
		t.Errorf("got %+v", got)
	}
	doc.Managed.ExclusionsAdminOnly = new(true)
	if slices.ContainsFunc(settingsOf(policy.Merge(doc, local), local), func(s health.Setting) bool { return s.Name == "exclusions" }) {
		t.Error("exclusions that do not count are reported")
	}
	if got := settingsOf(policy.Merge(nil, policy.Settings{}), policy.Settings{}); len(got) != 0 {
		t.Errorf("a device at its defaults reports %+v", got)
	}
}

// TestManagedMarks: what policy decides is marked, also where the device has
// said the same before.
func TestManagedMarks(t *testing.T) {
	dir, sign := t.TempDir(), newSigner(t)
	s := mustOpen(t, dir, sign.pub)
	l := &localSettings{settings: s, changed: func(string, string, string) {}}
	mine, both := policy.Exclusion{Type: policy.ExcludeFolder, Value: "/mine", Scope: policy.ScopeEPP}, policy.Exclusion{Type: policy.ExcludeFolder, Value: "/both", Scope: policy.ScopeEPP}
	for _, x := range []policy.Exclusion{mine, both} {
		if err := l.AddExclusion(t.Context(), x); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.AllowThreat(t.Context(), "Virus:DOS/Both"); err != nil {
		t.Fatal(err)
	}
	_, err := s.ApplyPolicy("d1", sign.policy(1, func(d *policy.Document) {
		d.Managed = policy.Settings{Exclusions: []policy.Exclusion{both}, AllowedThreats: []string{"Virus:DOS/Both"}, Tags: []policy.Tag{}, LogLevel: new("info"), SupplementaryProvider: new(true)}
	}))
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := l.Exclusions(t.Context()); !slices.Equal(got, []localapi.Exclusion{{Exclusion: both, Origin: policy.FromPolicy}, {Exclusion: mine, Origin: policy.FromLocal}}) {
		t.Errorf("exclusions: %+v", got)
	}
	if got, _ := l.AllowedThreats(t.Context()); !slices.Equal(got, []localapi.AllowedThreat{{Name: "Virus:DOS/Both", Origin: policy.FromPolicy}}) {
		t.Errorf("allowed threats: %+v", got)
	}
	if got := managedFields(s.Now()); !slices.Equal(got, []string{"log_level", "supplementary_events_subsystem"}) {
		t.Errorf("marked: %v", got)
	}
}
