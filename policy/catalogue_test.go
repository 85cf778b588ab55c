package policy

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// TestCatalogueIsComplete: every setting is described, but for the one that
// belongs to the plan and the one that belongs to the device, and what is
// described exists.
func TestCatalogueIsComplete(t *testing.T) {
	var fields []string
	for f := range reflect.TypeFor[Settings]().Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		fields = append(fields, name)
	}
	for _, name := range fields {
		if name != "filesystems" && name != "proxy" && !slices.ContainsFunc(Catalogue(), func(s Setting) bool { return s.Name == name }) {
			t.Errorf("the catalogue does not have %s", name)
		}
	}
	for _, s := range Catalogue() {
		if !slices.Contains(fields, s.Name) {
			t.Errorf("there is no setting %s", s.Name)
		}
		if s.About == "" || s.Section == "" || s.Kind == "" {
			t.Errorf("%s is not described", s.Name)
		}
		if s.Default == nil {
			t.Errorf("%s has no default", s.Name)
			continue
		}
		// The default fits the field that it is the default of.
		text, err := json.Marshal(map[string]any{s.Name: s.Default})
		if err != nil {
			t.Fatal(err)
		}
		var settings Settings
		if err := json.Unmarshal(text, &settings); err != nil {
			t.Errorf("default of %s: %v", s.Name, err)
		}
		if err := settings.Validate(); err != nil {
			t.Errorf("default of %s: %v", s.Name, err)
		}
	}
}

// TestDefaultsAgree: the catalogue promises what Merge does.
func TestDefaultsAgree(t *testing.T) {
	e := Merge(nil, Settings{})
	for name, got := range map[string]any{
		"enforcementLevel": e.EnforcementLevel, "behaviorMonitoring": e.BehaviorMonitoring, "scanArchives": e.ScanArchives,
		"maximumOnDemandScanThreads": e.OnDemandScanThreads, "enableFileHashComputation": e.FileHashComputation,
		"scanResultsRetentionDays": e.QuarantineRetention, "scanHistoryMaximumItems": e.ScanHistory,
		"scanAfterDefinitionUpdate": e.ScanAfterUpdate,
		"endpointDetection":         e.EndpointDetection, "ebpfSupplementary": e.EBPF, "exclusionsAdminOnly": e.ExclusionsAdminOnly,
	} {
		i := slices.IndexFunc(catalogue, func(s Setting) bool { return s.Name == name })
		if i < 0 || catalogue[i].Default != got {
			t.Errorf("%s: a device does %v without a policy, the catalogue has %+v", name, got, catalogue[max(i, 0)].Default)
		}
	}
}

func TestUnfit(t *testing.T) {
	fit := Settings{ScanArchives: new(false), Tags: []Tag{{Key: "GROUP", Value: "web"}}}
	if err := fit.Unfit(); err != nil {
		t.Error(err)
	}
	if got := fit.Names(); !slices.Equal(got, []string{"scanArchives", "tags"}) {
		t.Errorf("names: %v", got)
	}
	unfit := Settings{ThreatTypes: map[ThreatType]ThreatAction{PUA: ActionBlock}, FileIntegrity: new(true), Filesystems: []FilesystemRule{{Path: "*", Mode: Watch}}}
	err := unfit.Unfit()
	if err == nil || !strings.Contains(err.Error(), "fileIntegrityMonitoring is not available in this version") || !strings.Contains(err.Error(), "filesystems cannot be set") ||
		!strings.Contains(err.Error(), "potentially_unwanted_application is not available") {
		t.Errorf("%v", err)
	}
}

func TestSchedules(t *testing.T) {
	for _, c := range []struct {
		s    Schedule
		want string
	}{
		{Schedule{Kind: "quick", At: "02:30"}, ""},
		{Schedule{Kind: "custom", Path: "/srv", At: "23:59", Days: []string{"sat", "sun"}, Randomize: 1440}, ""},
		{Schedule{Kind: "deep", At: "02:30"}, "want quick, full or custom"},
		{Schedule{Kind: "custom", Path: "srv", At: "02:30"}, "wants an absolute path"},
		{Schedule{Kind: "full", Path: "/srv", At: "02:30"}, "takes no path"},
		{Schedule{Kind: "full", At: "2:30"}, "want HH:MM"},
		{Schedule{Kind: "full", At: "24:00"}, "want HH:MM"},
		{Schedule{Kind: "full", At: "02:30", Days: []string{"Monday"}}, "want one of sun, mon"},
		{Schedule{Kind: "full", At: "02:30", Randomize: -1}, "want 0 to 1440"},
	} {
		switch err := c.s.Validate(); {
		case c.want == "" && err != nil:
			t.Errorf("%+v: %v", c.s, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%+v: %v; want %q", c.s, err, c.want)
		}
	}
}

func TestThreatTypesMergeByType(t *testing.T) {
	doc := &Document{Managed: Settings{ThreatTypes: map[ThreatType]ThreatAction{ArchiveBomb: ActionBlock}}}
	e := Merge(doc, Settings{ThreatTypes: map[ThreatType]ThreatAction{ArchiveBomb: ActionOff, PUA: ActionOff}})
	if e.ThreatTypes[ArchiveBomb] != ActionBlock || e.ThreatTypes[PUA] != ActionOff {
		t.Errorf("%v", e.ThreatTypes)
	}
	if e.Origins["threatTypeSettings.archive_bomb"] != FromPolicy || e.Origins["threatTypeSettings."+string(PUA)] != FromLocal {
		t.Errorf("%v", e.Origins)
	}
}

// TestEverySettingHasAValue: what a policy can hold has a value in what is in
// effect, and comes from somewhere.
func TestEverySettingHasAValue(t *testing.T) {
	e := Merge(nil, Settings{})
	values := e.Values()
	for _, s := range Catalogue() {
		if !s.Engine {
			continue
		}
		if _, ok := values[s.Name]; !ok {
			t.Errorf("%s has no value", s.Name)
		}
		if e.Origins[s.Name] != FromDefault {
			t.Errorf("%s comes from %q", s.Name, e.Origins[s.Name])
		}
	}
}
