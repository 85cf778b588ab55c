package agent

import (
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"komainu/agent/localapi"
	"komainu/fault"
	"komainu/policy"
)

type signer struct {
	t   *testing.T
	key ed25519.PrivateKey
	pub ed25519.PublicKey
}

func newSigner(t *testing.T) *signer {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &signer{t, key, pub}
}

func (s *signer) policy(version uint64, edit func(*policy.Document)) policy.Signed {
	s.t.Helper()
	d := &policy.Document{Format: policy.Format, Version: version, Device: "d1", Plan: policy.P2, Licensed: true}
	if edit != nil {
		edit(d)
	}
	signed, err := policy.Sign(d, s.key)
	if err != nil {
		s.t.Fatal(err)
	}
	return signed
}

func mustOpen(t *testing.T, dir string, key ed25519.PublicKey) *settings {
	t.Helper()
	s, warning, err := openSettings(dir, key)
	if err != nil || warning != nil {
		t.Fatalf("open settings: %v, warning %v", err, warning)
	}
	return s
}

func TestPolicySurvivesARestart(t *testing.T) {
	dir, sign := t.TempDir(), newSigner(t)
	s := mustOpen(t, dir, sign.pub)
	if s.Now().Licensed {
		t.Fatal("licensed before any policy")
	}
	var seen []uint64
	s.Watch(func(e policy.Effective) { seen = append(seen, e.Version) })
	if _, err := s.ApplyPolicy("d1", sign.policy(3, nil)); err != nil {
		t.Fatal(err)
	}
	if len(seen) != 2 || seen[1] != 3 {
		t.Errorf("watchers saw %v", seen)
	}
	if again := mustOpen(t, dir, sign.pub); !again.Now().Licensed || again.Now().Version != 3 {
		t.Errorf("after a restart: %+v", again.Now())
	}
}

// TestOffboardedHostHasNoPolicy also after a restart, and with a key that is
// still there because the identity could not be put away before a crash.
func TestOffboardedHostHasNoPolicy(t *testing.T) {
	dir, sign := t.TempDir(), newSigner(t)
	s := mustOpen(t, dir, sign.pub)
	if _, err := s.ApplyPolicy("d1", sign.policy(3, nil)); err != nil {
		t.Fatal(err)
	}
	licensed := true
	s.Watch(func(e policy.Effective) { licensed = e.Licensed })
	if err := s.Left(); err != nil {
		t.Fatal(err)
	}
	if licensed || s.Now().Licensed || s.Now().RealTimeOn() {
		t.Errorf("it goes on protecting: %+v", s.Now())
	}
	if _, err := s.ApplyPolicy("d1", sign.policy(4, nil)); err == nil {
		t.Error("it takes a policy without a key to check it by")
	}
	for _, key := range []ed25519.PublicKey{nil, sign.pub} {
		if mustOpen(t, dir, key).Now().Licensed {
			t.Error("the policy is back after a restart")
		}
	}
}

func TestPolicyIsRefusedWhole(t *testing.T) {
	dir, sign, stranger := t.TempDir(), newSigner(t), newSigner(t)
	s := mustOpen(t, dir, sign.pub)
	if _, err := s.ApplyPolicy("d1", sign.policy(3, nil)); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		signed policy.Signed
		want   func(error) bool
	}{
		"foreign key":  {stranger.policy(4, nil), func(err error) bool { return errors.Is(err, policy.ErrSignature) }},
		"older":        {sign.policy(2, nil), func(err error) bool { return fault.Is(err, fault.Conflict) }},
		"other device": {sign.policy(4, func(d *policy.Document) { d.Device = "d2" }), func(err error) bool { return fault.Is(err, fault.Invalid) }},
		"bad setting": {sign.policy(4, func(d *policy.Document) { d.Managed.OnDemandScanThreads = new(0) }),
			func(err error) bool { return err != nil }},
	} {
		if _, err := s.ApplyPolicy("d1", c.signed); !c.want(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if s.Now().Version != 3 {
		t.Errorf("a refused policy changed what is in effect: %+v", s.Now())
	}
}

func TestDamagedPolicyIsDroppedWithAWarning(t *testing.T) {
	dir, sign := t.TempDir(), newSigner(t)
	if err := os.WriteFile(filepath.Join(dir, policyFile), []byte(`{"payload":"e30=","signature":"AA=="}`), 0o600); err != nil {
		t.Fatal(err)
	}
	s, warning, err := openSettings(dir, sign.pub)
	if err != nil || warning == nil || s.Now().Licensed {
		t.Errorf("settings %+v, warning %v, error %v", s.Now(), warning, err)
	}
}

func TestLocalSettings(t *testing.T) {
	dir, sign := t.TempDir(), newSigner(t)
	s := mustOpen(t, dir, sign.pub)
	l := &localSettings{settings: s, changed: func(string, string, string) {}}
	if _, err := s.ApplyPolicy("d1", sign.policy(1, nil)); err != nil {
		t.Fatal(err)
	}
	if err := l.ApplySetting(t.Context(), localapi.RealTimeProtection, "disabled"); err != nil {
		t.Fatal(err)
	}
	if mustOpen(t, dir, sign.pub).Now().RealTimeOn() {
		t.Error("the setting did not survive a restart")
	}
	if err := l.ApplySetting(t.Context(), localapi.RealTimeProtection, "enabled"); err != nil || !s.Now().RealTimeOn() {
		t.Errorf("not on again: %v, %+v", err, s.Now())
	}
	x := policy.Exclusion{Type: policy.ExcludeFolder, Value: "/srv/cache", Scope: policy.ScopeEPP}
	if err := l.AddExclusion(t.Context(), x); err != nil {
		t.Fatal(err)
	}
	if err := l.SetTag(t.Context(), policy.Tag{Key: "GROUP", Value: "web"}); err != nil {
		t.Fatal(err)
	}
	_, err := s.ApplyPolicy("d1", sign.policy(2, func(d *policy.Document) {
		d.Managed.EnforcementLevel = new(policy.Passive)
		d.Managed.ExclusionsAdminOnly = new(true)
		d.Managed.Tags = []policy.Tag{{Key: "GROUP", Value: "db"}}
	}))
	if err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"setting":   l.ApplySetting(t.Context(), localapi.RealTimeProtection, "enabled"),
		"exclusion": l.AddExclusion(t.Context(), x),
		"tag":       l.SetTag(t.Context(), policy.Tag{Key: "GROUP", Value: "x"}),
	} {
		if !fault.Is(err, fault.Managed) {
			t.Errorf("%s under policy: %v", name, err)
		}
	}
	if len(s.Now().Exclusions) != 0 || s.Now().Tags[0].Value != "db" || s.Now().EnforcementLevel != policy.Passive {
		t.Errorf("policy does not win: %+v", s.Now())
	}
}

func TestLocalFileFromANewerVersionStopsTheStart(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, localFile), []byte(`{"quantumShield":true}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := openSettings(dir, nil); !fault.Is(err, fault.Invalid) {
		t.Errorf("error %v", err)
	}
}
