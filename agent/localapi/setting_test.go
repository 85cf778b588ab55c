package localapi_test

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"testing"

	"komainu/agent/localapi"
	"komainu/fault"
	"komainu/policy"
)

func TestPatch(t *testing.T) {
	f := func(name localapi.Setting, value string, now policy.Level, want string) {
		t.Helper()
		p, err := name.Patch(policy.Effective{EnforcementLevel: now}, value)
		got, _ := json.Marshal(p)
		if err != nil || string(got) != want {
			t.Errorf("%s %s in %s: %s, %v; want %s", name, value, now, got, err, want)
		}
	}
	f(localapi.RealTimeProtection, "enabled", policy.Passive, `{"enforcementLevel":"real_time"}`)
	f(localapi.RealTimeProtection, "disabled", policy.RealTime, `{"enforcementLevel":"on_demand"}`)
	f(localapi.RealTimeProtection, "disabled", policy.Passive, `{"enforcementLevel":"passive"}`)
	f(localapi.PassiveMode, "enabled", policy.RealTime, `{"enforcementLevel":"passive"}`)
	f(localapi.PassiveMode, "disabled", policy.Passive, `{"enforcementLevel":"real_time"}`)
	f(localapi.PassiveMode, "disabled", policy.OnDemand, `{"enforcementLevel":"on_demand"}`)
	f(localapi.BehaviorMonitoring, "disabled", policy.RealTime, `{"behaviorMonitoring":false}`)
	f(localapi.ScanArchives, "enabled", policy.RealTime, `{"scanArchives":true}`)
	f(localapi.OnDemandScanThreads, "64", policy.RealTime, `{"maximumOnDemandScanThreads":64}`)
	f(localapi.FileHashComputation, "enabled", policy.RealTime, `{"enableFileHashComputation":true}`)
	f(localapi.EBPFSupplementary, "disabled", policy.RealTime, `{"ebpfSupplementary":false}`)
	f(localapi.ScanAfterUpdate, "enabled", policy.RealTime, `{"scanAfterDefinitionUpdate":true}`)
	f(localapi.LogLevel, "debug", policy.RealTime, `{"logLevel":"debug"}`)
	f(localapi.ProxyAddress, "http://proxy:3128", policy.RealTime, `{"proxy":"http://proxy:3128"}`)
	f(localapi.ThreatPolicy(policy.ArchiveBomb), "block", policy.RealTime, `{"threatTypeSettings":{"archive_bomb":"block"}}`)
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		name  localapi.Setting
		value string
	}{
		{"no-such", "enabled"}, {localapi.ScanArchives, "on"}, {localapi.ScanArchives, ""},
		{localapi.OnDemandScanThreads, "0"}, {localapi.OnDemandScanThreads, "65"}, {localapi.OnDemandScanThreads, "two"},
		{localapi.LogLevel, "loud"}, {localapi.ProxyAddress, "proxy:3128"}, {localapi.ProxyAddress, "http://u:p@proxy:3128"}, {localapi.ArchiveBombs, "delete"},
	} {
		if err := c.name.Check(c.value); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s %q: %v", c.name, c.value, err)
		}
	}
}

// TestKeys holds each setting against what it changes: the origin of a
// setting is looked up by its key.
func TestKeys(t *testing.T) {
	values := map[localapi.Setting]string{
		localapi.OnDemandScanThreads: "4", localapi.LogLevel: "debug", localapi.ProxyAddress: "http://proxy:3128", localapi.ArchiveBombs: "block",
	}
	for _, s := range append(slices.Collect(maps.Keys(values)), localapi.AllSettings...) {
		value := cmp.Or(values[s], "enabled")
		p, err := s.Patch(policy.Effective{}, value)
		if err != nil {
			t.Fatal(err)
		}
		if e := policy.Merge(nil, p); e.Origins[s.Key()] != policy.FromLocal {
			t.Errorf("%s: %q is not what Patch sets", s, s.Key())
		}
	}
}
