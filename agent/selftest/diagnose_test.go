package selftest_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"komainu/agent/selftest"
	"komainu/drill"
	"komainu/policy"
)

// fine are the facts of an agent to which nothing is the matter.
func fine() selftest.Facts {
	return selftest.Facts{
		Settings: policy.Merge(&policy.Document{Format: policy.Format, Version: 3, Device: "d", Plan: policy.P2, Licensed: true}, policy.Settings{}),
		Enrolled: true, Connected: true, Protocol: 2, ScannerUp: true, Sensor: true, SensitiveFiles: true,
	}
}

// TestEveryReasonIsFound takes one thing away at a time.
func TestEveryReasonIsFound(t *testing.T) {
	place := selftest.Place{Mount: "/srv", Mode: policy.Block, Marked: true}
	for _, c := range []struct {
		want   drill.ReasonID
		test   string
		stage  drill.StageID
		spoil  func(*selftest.Facts)
		place  func(*selftest.Place)
		detail string
	}{
		{want: drill.Unknown, test: "eicar", stage: drill.Kernel},
		{want: drill.Unknown, test: "edr-test", stage: drill.Agent},
		{want: drill.NotEnrolled, test: "eicar", stage: drill.Kernel, spoil: func(f *selftest.Facts) { f.Enrolled, f.Settings.Version = false, 0 }},
		{want: drill.NoPolicy, test: "edr-test", stage: drill.Kernel, spoil: func(f *selftest.Facts) { f.Settings.Version = 0 }},
		{want: drill.PlanOff, test: "edr-test", stage: drill.Agent, spoil: func(f *selftest.Facts) { f.Settings.Licensed = false }},
		{want: drill.RealTimeMissing, test: "eicar", stage: drill.Kernel, spoil: func(f *selftest.Facts) { f.RealTime = errors.New("no fanotify") }, detail: "no fanotify"},
		{want: drill.RealTimeOff, test: "eicar", stage: drill.Kernel, spoil: func(f *selftest.Facts) { f.Settings.EnforcementLevel = policy.Passive }, detail: "passive"},
		{want: drill.NotProtected, test: "eicar", stage: drill.Kernel, place: func(p *selftest.Place) { p.Mode = policy.Ignore }, detail: "/srv"},
		{want: drill.NotProtected, test: "eicar", stage: drill.Kernel, place: func(p *selftest.Place) { *p = selftest.Place{} }, detail: "/srv/x"},
		{want: drill.Marking, test: "eicar", stage: drill.Kernel, place: func(p *selftest.Place) { p.Marked = false }, detail: "/srv"},
		{want: drill.ScannerDown, test: "eicar", stage: drill.Agent, spoil: func(f *selftest.Facts) { f.ScannerUp, f.Scanner = false, "it died" }, detail: "it died"},
		{want: drill.ArchivesOff, test: "eicar-archive", stage: drill.Agent, spoil: func(f *selftest.Facts) { f.Settings.ScanArchives = false }},
		{want: drill.Excluded, test: "eicar", stage: drill.Agent, spoil: func(f *selftest.Facts) {
			f.Settings.Exclusions = []policy.Exclusion{{Type: policy.ExcludeFolder, Value: "/srv", Scope: policy.ScopeGlobal}}
		}, detail: "folder /srv (scope global)"},
		{want: drill.Excluded, test: "eicar", stage: drill.Kernel, spoil: func(f *selftest.Facts) {
			f.Settings.Exclusions = []policy.Exclusion{{Type: policy.ExcludeExtension, Value: ".com", Scope: policy.ScopeEPP}}
		}, detail: "extension .com (scope epp)"},
		{want: drill.DetectionOff, test: "behavior", stage: drill.Kernel, spoil: func(f *selftest.Facts) { f.Settings.EndpointDetection = false }},
		{want: drill.SensorDown, test: "behavior", stage: drill.Kernel, spoil: func(f *selftest.Facts) { f.Sensor, f.SensorProblem = false, "no BTF" }, detail: "no BTF"},
		{want: drill.BehaviorOff, test: "behavior", stage: drill.Agent, spoil: func(f *selftest.Facts) { f.Settings.BehaviorMonitoring = false }},
		{want: drill.SensorLacks, test: "edr-test-builtins", stage: drill.Kernel, spoil: func(f *selftest.Facts) { f.SensitiveFiles, f.WatchProblem = false, "no fanotify" }, detail: "no fanotify"},
		{want: drill.SensorLacks, test: "behavior", stage: drill.Kernel, spoil: func(f *selftest.Facts) { f.SensorProblem = "netlink only" }, detail: "netlink only"},
		{want: drill.SpoolBehind, test: "eicar", stage: drill.Sent, spoil: func(f *selftest.Facts) { f.Waiting = 7 }, detail: "7"},
		{want: drill.LinkDown, test: "eicar", stage: drill.Sent, spoil: func(f *selftest.Facts) {
			f.Connected, f.LinkSince, f.LinkError = false, time.Date(2026, time.May, 1, 0, 0, 0, 0, time.UTC), errors.New("refused")
		}, detail: "since 2026-05-01T00:00:00Z: refused"},
		{want: drill.IdentityRefused, test: "eicar", stage: drill.Received, spoil: func(f *selftest.Facts) { f.Connected, f.Refused, f.LinkError = false, true, errors.New("revoked") }, detail: "revoked"},
		{want: drill.ClockOff, test: "eicar", stage: drill.Received, spoil: func(f *selftest.Facts) { f.Connected, f.Skew = false, -time.Hour }, detail: "1h0m0s"},
		{want: drill.ClockOff, test: "eicar", stage: drill.Alert, spoil: func(f *selftest.Facts) { f.Skew = time.Hour }, detail: "1h0m0s"},
		{want: drill.ControlPlaneOld, test: "eicar", stage: drill.Alert, spoil: func(f *selftest.Facts) { f.Protocol = 1 }},
		{want: drill.ControlPlaneBehind, test: "eicar", stage: drill.Alert},
		{want: drill.ControlPlaneBehind, test: "eicar", stage: drill.Received},
		{want: drill.LinkDown, test: "eicar", stage: drill.Incident, spoil: func(f *selftest.Facts) { f.Connected = false }, detail: "since 0001-01-01T00:00:00Z"},
	} {
		facts, where := fine(), place
		if c.spoil != nil {
			c.spoil(&facts)
		}
		if c.place != nil {
			c.place(&where)
		}
		scenario, ok := drill.Find(c.test)
		if !ok {
			t.Fatal(c.test)
		}
		got := selftest.Diagnose(scenario, c.stage, "/srv/x/eicar.com", where, facts)
		if got.ID != c.want || got.Text == "" || got.Remedy == "" || !strings.HasPrefix(got.Detail, c.detail) || c.detail == "" && got.Detail != "" && c.want != drill.SpoolBehind {
			t.Errorf("%s at %s: %+v, want %s with %q", c.test, c.stage, got, c.want, c.detail)
		}
		if !slices.Contains(drill.Reasons(), got.ID) {
			t.Errorf("%s is no reason of the vocabulary", got.ID)
		}
	}
}
