package client_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"komainu/control/client"
	"komainu/fault"
	"komainu/policy"
)

const managedFile = `{
  "antivirusEngine": {
    "enforcementLevel": "real_time", "behaviorMonitoring": "enabled", "scanArchives": false, "maximumOnDemandScanThreads": 4,
    "exclusionsMergePolicy": "admin_only", "exclusions": [{"$type": "excludedFileExtension", "extension": "log"}, {"$type": "excludedFileName", "name": "cat"}, {"$type": "excludedDream"}],
    "unmonitoredFilesystems": ["NFS", "Fuse"], "scanResultsRetentionDays": 900, "nonExecMountPolicy": "mute",
    "threatTypeSettings": [{"key": "archive_bomb", "value": "block"}, {"key": "potentially_unwanted_application", "value": "audit"}], "allowedThreats": ["EICAR-Test-File (not a virus)"], "enableFileHashComputation": "maybe"
  },
  "exclusionSettings": {
    "mergePolicy": "merge",
    "exclusions": [
      {"$type": "excludedPath", "isDirectory": true, "path": "/srv/build"},
      {"$type": "excludedPath", "isDirectory": true, "path": "/srv/*/cache"},
      {"$type": "excludedPath", "path": "/srv/db.bin", "scopes": ["epp", "global"]}
    ]
  },
  "cloudService": {"enabled": true, "makeCoffee": true},
  "features": {"ebpfSupplementaryEventProvider": "disabled"},
  "edr": {"groupIds": "x", "tags": [{"key": "GROUP", "value": "web"}]},
  "garden": {"water": true}
}`

func TestReadManaged(t *testing.T) {
	settings, lines, err := client.ReadManaged([]byte(managedFile))
	if err != nil {
		t.Fatal(err)
	}
	av := settings["antivirus"]
	if *av.EnforcementLevel != policy.RealTime || !*av.BehaviorMonitoring || *av.ScanArchives || *av.OnDemandScanThreads != 4 || av.QuarantineRetention != nil ||
		!slices.Equal(av.UnmonitoredFilesystems, []string{"nfs", "fuse"}) || len(av.AllowedThreats) != 1 || len(av.ThreatTypes) != 1 || av.ThreatTypes[policy.ArchiveBomb] != policy.ActionBlock || av.FileHashComputation != nil {
		t.Errorf("antivirus %+v", av)
	}
	x := settings["exclusions"]
	want := []policy.Exclusion{
		{Type: policy.ExcludeExtension, Value: ".log", Scope: policy.ScopeEPP}, {Type: policy.ExcludeProcess, Value: "cat", Scope: policy.ScopeEPP},
		{Type: policy.ExcludeFolder, Value: "/srv/build", Scope: policy.ScopeGlobal},
		{Type: policy.ExcludeFile, Value: "/srv/db.bin", Scope: policy.ScopeEPP}, {Type: policy.ExcludeFile, Value: "/srv/db.bin", Scope: policy.ScopeGlobal},
	}
	if !reflect.DeepEqual(x.Exclusions, want) || !*x.ExclusionsAdminOnly {
		t.Errorf("exclusions %+v", x)
	}
	if edr := settings["edr"]; *edr.SupplementaryProvider || len(edr.Tags) != 1 {
		t.Errorf("edr %+v", edr)
	}
	var text strings.Builder
	for _, l := range lines {
		fmt.Fprintf(&text, "%s: %s %s\n", l.Key, l.Result, l.Detail)
	}
	for _, want := range []string{
		"antivirusEngine.nonExecMountPolicy: no engine", "cloudService.enabled: no engine", "cloudService.makeCoffee: unknown", "garden: unknown", "edr.groupIds: no engine",
		"antivirusEngine.scanResultsRetentionDays: refused scanResultsRetentionDays 900: want 1 to 180", `antivirusEngine.enableFileHashComputation: refused the value "maybe"`,
		`antivirusEngine.exclusions: refused exclusion 3: $type "excludedDream"`, `exclusionSettings.exclusions: refused exclusion "/srv/*/cache": the global scope takes full paths only`,
		"antivirusEngine.threatTypeSettings: refused potentially_unwanted_application: this version does not look for them",
		"exclusionSettings.exclusions: taken 2 exclusions without a scope are global", "antivirusEngine.scanArchives: taken antivirus: scanArchives",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, &text)
		}
	}
	for _, broken := range []string{"", "[]", "{"} {
		if _, _, err := client.ReadManaged([]byte(broken)); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", broken, err)
		}
	}
}

// TestManagedThereAndBack: what is exported is imported as it was.
func TestManagedThereAndBack(t *testing.T) {
	settings, _, err := client.ReadManaged([]byte(managedFile))
	if err != nil {
		t.Fatal(err)
	}
	for kind, s := range settings {
		text, left, err := client.WriteManaged(s)
		if err != nil || left != nil {
			t.Fatalf("%v, %v", left, err)
		}
		again, lines, err := client.ReadManaged(text)
		if err != nil || !reflect.DeepEqual(again[kind], s) {
			t.Errorf("%s: %+v became %+v (%v, %v)\n%s", kind, s, again[kind], lines, err, text)
		}
	}
	if _, left, err := client.WriteManaged(policy.Settings{LogLevel: new("info"), ScanArchives: new(true)}); err != nil || !slices.Equal(left, []string{"logLevel"}) {
		t.Errorf("%v, %v", left, err)
	}
}
