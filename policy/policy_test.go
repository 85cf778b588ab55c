package policy_test

import (
	"crypto/ed25519"
	"errors"
	"strings"
	"testing"

	"komainu/policy"
)

func document() *policy.Document {
	return &policy.Document{Format: policy.Format, Version: 3, Device: "d", Plan: policy.P1, Licensed: true}
}

func TestSignAndOpen(t *testing.T) {
	pub, priv, _ := ed25519.GenerateKey(nil)
	s, err := policy.Sign(document(), priv)
	if err != nil {
		t.Fatal(err)
	}
	if d, err := policy.Open(s, pub); err != nil || d.Version != 3 {
		t.Fatalf("Open = %+v, %v", d, err)
	}
	other, _, _ := ed25519.GenerateKey(nil)
	if _, err := policy.Open(s, other); !errors.Is(err, policy.ErrSignature) {
		t.Errorf("another key: %v", err)
	}
	if _, err := policy.Open(s, nil); !errors.Is(err, policy.ErrSignature) {
		t.Errorf("no key: %v", err)
	}
	s.Payload = []byte(strings.Replace(string(s.Payload), `"version":3`, `"version":4`, 1))
	if _, err := policy.Open(s, pub); !errors.Is(err, policy.ErrSignature) {
		t.Errorf("changed payload: %v", err)
	}
}

func TestUnknownSettingIsRefused(t *testing.T) {
	pub, priv, _ := ed25519.GenerateKey(nil)
	payload := []byte(`{"format":1,"version":1,"device":"d","plan":"P1","managed":{"fromTheFuture":true}}`)
	s := policy.Signed{Payload: payload, Signature: ed25519.Sign(priv, append([]byte("komainu policy v1\x00"), payload...))}
	if _, err := policy.Open(s, pub); err == nil || !strings.Contains(err.Error(), "fromTheFuture") {
		t.Errorf("an unknown setting must be named: %v", err)
	}
}

func TestValidateNamesEveryProblem(t *testing.T) {
	d := &policy.Document{Format: 9, Plan: "P3", Managed: policy.Settings{
		OnDemandScanThreads: new(65),
		Exclusions:          []policy.Exclusion{{Type: policy.ExcludeFolder, Value: "srv", Scope: policy.ScopeEPP}},
	}}
	err := d.Validate()
	for _, want := range []string{"format 9", "version is missing", "device is missing", "P3", "65", "absolute path"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no word of %q in %v", want, err)
		}
	}
}

func TestMerge(t *testing.T) {
	local := policy.Settings{EnforcementLevel: new(policy.Passive), OnDemandScanThreads: new(4),
		Exclusions: []policy.Exclusion{{Type: policy.ExcludeExtension, Value: ".log", Scope: policy.ScopeEPP}}}
	d := document()
	d.Managed.EnforcementLevel = new(policy.RealTime)
	e := policy.Merge(d, local)
	if e.EnforcementLevel != policy.RealTime || !e.Managed("enforcementLevel") || !e.RealTimeOn() {
		t.Errorf("policy must win: %+v", e)
	}
	if e.OnDemandScanThreads != 4 || e.Origins["maximumOnDemandScanThreads"] != policy.FromLocal {
		t.Errorf("local must win over the default: %+v", e)
	}
	if len(e.Exclusions) != 1 {
		t.Errorf("local exclusions count unless policy says otherwise: %+v", e.Exclusions)
	}
	d.Managed.ExclusionsAdminOnly = new(true)
	if e := policy.Merge(d, local); len(e.Exclusions) != 0 {
		t.Errorf("admin-only exclusions: %+v", e.Exclusions)
	}
	if e := policy.Merge(nil, policy.Settings{}); e.Licensed || e.RealTimeOn() {
		t.Error("without a policy nothing is licensed")
	}
}

func TestModeOf(t *testing.T) {
	e := policy.Merge(nil, policy.Settings{Filesystems: []policy.FilesystemRule{
		{Path: "*", Mode: policy.Watch}, {Path: "/srv/demo", Mode: policy.Block}, {Path: "/srv", Mode: policy.Ignore},
	}})
	for mount, want := range map[string]policy.Mode{
		"/": policy.Watch, "/srv": policy.Ignore, "/srv/demo": policy.Block, "/srv/demo/x": policy.Block,
		"/srv/demonstration": policy.Ignore, "/srvx": policy.Watch,
	} {
		if got := e.ModeOf(mount); got != want {
			t.Errorf("ModeOf(%q) = %q, want %q", mount, got, want)
		}
	}
}
