package policies_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"komainu/control/access"
	"komainu/control/policies"
	"komainu/health"
	"komainu/policy"
)

// TestWhatTheDeviceSets: a value that somebody set on the device is shown as
// the device's own where no policy decides, and as overridden or added where
// one does.
func TestWhatTheDeviceSets(t *testing.T) {
	b := open(t)
	defer b.db.Close()
	id := b.host("web-1", "prod")
	b.devices[0].Settings = []health.Setting{
		{Name: "scanArchives", Origin: health.ByDevice, Local: json.RawMessage("false")},
		{Name: "maximumOnDemandScanThreads", Origin: health.ByDevice, Local: json.RawMessage("8")},
		{Name: "exclusions", Origin: health.ByDevice, Local: json.RawMessage(`[{"type":"folder","value":"/mine","scope":"epp"}]`)},
		{Name: "allowedThreats", Origin: health.ByDevice}, // too long to be told
	}
	device := policies.Source{Kind: policies.FromDevice, ID: string(id), Name: "web-1"}
	for name, want := range map[string]string{"scanArchives": "false", "maximumOnDemandScanThreads": "8", "allowedThreats": "null"} {
		if s := b.setting(t, id, name); s.Source != device || string(s.Value) != want {
			t.Errorf("%s: %s from %+v", name, s.Value, s.Source)
		}
	}
	if s := b.setting(t, id, "behaviorMonitoring"); s.Source.Kind != policies.FromDefault || string(s.Value) != "true" {
		t.Errorf("behaviorMonitoring: %+v", s)
	}

	rule := b.make(t, "archives", 1, `{"scanArchives":true}`, all)
	b.make(t, "left alone", 1, `{"exclusions":[{"type":"folder","value":"/theirs","scope":"epp"}]}`, all)
	s := b.setting(t, id, "scanArchives")
	if s.Source.ID != rule.ID || string(s.Value) != "true" || len(s.Overridden) != 1 || s.Overridden[0].Source != device || string(s.Overridden[0].Value) != "false" {
		t.Errorf("what a policy decides: %+v", s)
	}
	if s := b.setting(t, id, "exclusions"); s.Source.Kind != policies.FromPolicy || !slices.Contains(s.United, device) || len(s.Overridden) != 0 {
		t.Errorf("what both say: %+v", s)
	}
}

// TestDocumentsNameTheirSources: the device can tell people which policy keeps
// them from a change. A name that changes makes no new version.
func TestDocumentsNameTheirSources(t *testing.T) {
	b := open(t)
	defer b.db.Close()
	doc := b.plans["prod"]
	doc.Managed.EnforcementLevel = new(policy.OnDemand)
	b.plans["prod"] = doc
	id := b.host("web-1", "prod")
	rule := b.make(t, "one", 1, `{"exclusions":[{"type":"folder","value":"/a","scope":"epp"}]}`, all)
	b.make(t, "two", 2, `{"exclusions":[{"type":"folder","value":"/b","scope":"epp"}]}`, all)
	signed := func(sources bool) policy.Document {
		t.Helper()
		s, err := b.Signed(t.Context(), id, sources)
		if err != nil {
			t.Fatal(err)
		}
		var d policy.Document
		if err := json.Unmarshal(s.Payload, &d); err != nil {
			t.Fatal(err)
		}
		return d
	}
	got := signed(true)
	if s := got.Sources["exclusions"]; !slices.Equal(s, []policy.Source{{Kind: policy.SourcePolicy, Name: "one"}, {Kind: policy.SourcePolicy, Name: "two"}}) {
		t.Errorf("exclusions: %+v", s)
	}
	if s := got.Sources["enforcementLevel"]; len(s) != 1 || s[0].Kind != policy.SourcePlan {
		t.Errorf("enforcementLevel: %+v", s)
	}
	if old := signed(false); old.Sources != nil || old.Version != got.Version || len(old.Managed.Exclusions) != 2 {
		t.Errorf("for an agent that knows no sources: %+v", old)
	}
	_, err := b.Save(access.WithActor(t.Context(), access.Actor{Kind: access.User, Name: "kaede"}), org, rule.ID, policies.Change{Version: rule.Version, Name: "uno", Type: string(rule.Type), Priority: rule.Priority, Assignments: rule.Assignments,
		Settings: raw(t, `{"exclusions":[{"type":"folder","value":"/a","scope":"epp"}]}`)})
	if err != nil {
		t.Fatal(err)
	}
	if next := signed(true); next.Version != got.Version || next.Sources["exclusions"][0].Name != "uno" {
		t.Errorf("version %d after %d: %+v", next.Version, got.Version, next.Sources["exclusions"])
	}
	for i := range policy.MaxSources + 3 {
		b.make(t, "more "+strings.Repeat("x", i+1), 10, `{"exclusions":[{"type":"folder","value":"/c","scope":"epp"}]}`, all)
	}
	if n := len(signed(true).Sources["exclusions"]); n != policy.MaxSources {
		t.Errorf("%d sources in a document, %d is the limit", n, policy.MaxSources)
	}
}
