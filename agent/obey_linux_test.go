package agent

import (
	"log/slog"
	"slices"
	"testing"

	"komainu/agent/localapi"
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

// TestLogLevels: a level until the next start outlives other changes, and a
// policy that is taken back leaves the level of the start.
func TestLogLevels(t *testing.T) {
	w := &worker{cfg: Config{Level: new(slog.LevelVar)}, log: slog.New(slog.DiscardHandler), protect: protectorOf(t, t.TempDir())}
	w.cfg.Level.Set(slog.LevelWarn)
	level := func(want string) {
		t.Helper()
		if got := levelName(w.cfg.Level); got != want {
			t.Errorf("log level %s, want %s", got, want)
		}
	}
	e := policy.Merge(nil, policy.Settings{})
	w.obey(e)
	level("warning")
	if err := w.setLogLevel("debug"); err != nil {
		t.Fatal(err)
	}
	e.ScanHistory = 200
	w.obey(e)
	level("debug")
	e.LogLevel = "error"
	w.obey(e)
	level("error")
	e.LogLevel = ""
	w.obey(e)
	level("warning")
}

// TestSettingsOfOtherCommands: what `threat policy`, `log level persist` and
// `config proxy` set is in effect, lasts, and is told with what it was before.
func TestSettingsOfOtherCommands(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, nil)
	var told []string
	l := &localSettings{settings: s, changed: func(name, from, to string) { told = append(told, name+": "+from+" "+to) }}
	for _, c := range []struct {
		name  localapi.Setting
		value string
	}{
		{localapi.ArchiveBombs, "block"}, {localapi.LogLevel, "debug"}, {localapi.ProxyAddress, "http://proxy:3128"}, {localapi.ScanAfterUpdate, "enabled"},
		{localapi.ScanArchives, "disabled"}, {localapi.ArchiveBombs, "off"}, {localapi.ProxyAddress, ""},
	} {
		if err := l.ApplySetting(t.Context(), c.name, c.value); err != nil {
			t.Fatalf("%s %s: %v", c.name, c.value, err)
		}
	}
	if err := l.ApplySetting(t.Context(), localapi.UnwantedProgram, "block"); !fault.Is(err, fault.Unsupported) {
		t.Errorf("what this version does not look for: %v", err)
	}
	now := mustOpen(t, dir, nil).Now()
	if now.ThreatTypes[policy.ArchiveBomb] != policy.ActionOff || now.LogLevel != "debug" || now.Proxy != "" || now.Origins["proxy"] != policy.FromDefault || !now.ScanAfterUpdate {
		t.Errorf("after a restart: %+v", now)
	}
	want := []string{"threat-policy-archive-bomb: audit block", "log-level:  debug", "proxy:  http://proxy:3128", "scan-after-definition-update: disabled enabled",
		"scan-archives: enabled disabled", "threat-policy-archive-bomb: block off", "proxy: http://proxy:3128 "}
	if !slices.Equal(told, want) {
		t.Errorf("told: %q", told)
	}
	list, err := l.ThreatTypes(t.Context())
	if err != nil || len(list) != 2 || list[0].Action != policy.ActionOff || list[0].Origin != policy.FromLocal || !list[0].Engine || list[1].Engine {
		t.Errorf("%+v, %v", list, err)
	}
}
