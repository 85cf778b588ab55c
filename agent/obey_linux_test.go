package agent

import (
	"log/slog"
	"testing"

	"komainu/fault"
	"komainu/policy"
)

// TestPolicyKeepsPeopleFromThreats: what policy does not allow is refused on
// the device, with the exit code of a managed setting.
func TestPolicyKeepsPeopleFromThreats(t *testing.T) {
	dir, sign := t.TempDir(), newSigner(t)
	s := mustOpen(t, dir, sign.pub)
	l := &localSettings{settings: s, logLevel: func(string) error { return nil }, changed: func(string, string, string) {}}
	if err := l.AllowThreat(t.Context(), "Virus:DOS/Sample"); err != nil {
		t.Fatal(err)
	}
	if err := mayDo(s.Now(), "restore"); err != nil {
		t.Fatal(err)
	}
	level := "debug"
	signed := sign.policy(2, func(d *policy.Document) {
		d.Managed = policy.Settings{DisallowedThreatActions: []string{"allow", "restore"}, LogLevel: &level}
	})
	if _, err := s.ApplyPolicy("d1", signed); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"allow": l.AllowThreat(t.Context(), "Virus:DOS/Other"), "restore": mayDo(s.Now(), "restore"), "log level": l.SetLogLevel(t.Context(), "info"),
	} {
		if !fault.Is(err, fault.Managed) {
			t.Errorf("%s: %v, want a refusal as managed", what, err)
		}
	}
	if err := l.DisallowThreat(t.Context(), "Virus:DOS/Sample"); err != nil {
		t.Errorf("to take back what was allowed: %v", err)
	}
}

// TestObey: the settings that no part looks up reach what they are about.
func TestObey(t *testing.T) {
	w := &worker{cfg: Config{Level: new(slog.LevelVar)}, log: slog.New(slog.DiscardHandler), protect: protectorOf(t, t.TempDir())}
	w.obey(policy.Effective{LogLevel: "debug", ScanHistory: 100, QuarantineRetention: 1})
	if got := levelName(w.cfg.Level); got != "debug" {
		t.Errorf("log level %s", got)
	}
}
