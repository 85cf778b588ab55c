package agent

import (
	"slices"
	"testing"
	"time"

	"komainu/agent/proctree"
	"komainu/agent/rules"
	"komainu/agent/sensor"
	"komainu/event"
	"komainu/policy"
)

// sensing returns a worker that takes events of a sensor, with real parts, and
// its rules.
func sensing(t *testing.T) (*worker, *rules.Engine) {
	t.Helper()
	dir := t.TempDir()
	r := openTestRecorder(t)
	w := &worker{log: discard(), record: r, tree: proctree.New(proctree.Limits{}), settings: mustOpen(t, dir, nil), protect: openTestProtector(t, dir, r)}
	w.settings.Watch(func(e policy.Effective) { w.telemetry.settingsChanged(e) })
	engine, err := rules.New(rules.Config{Tree: w.tree, Classify: sensor.Classify, SecretFolder: sensor.SecretFolder})
	if err != nil {
		t.Fatal(err)
	}
	w.tree.Seed([]event.Process{{Key: event.ProcessKey{Boot: "b", PID: 1, Start: 1}, Path: "/usr/lib/systemd/systemd"}})
	return w, engine
}

// sent returns what the recorder would send.
func sent(t *testing.T, r *recorder) (actions []event.Action) {
	t.Helper()
	for _, ev := range waitingEvents(t, r) {
		actions = append(actions, ev.Action)
	}
	return actions
}

// sensorEvents is one event of every kind that a sensor tells of.
func sensorEvents() map[event.Action]*event.Event {
	at := time.Unix(1_000_000, 0).UTC()
	key := event.ProcessKey{Boot: "b", PID: 20, Start: 20}
	program := &event.Process{Key: key, Parent: event.ProcessKey{Boot: "b", PID: 1, Start: 1}, Started: at, Path: "/usr/bin/cat", Name: "cat", Args: []string{"cat"},
		Image: &event.File{Path: "/usr/bin/cat", Mode: 0o755}}
	all := map[event.Action]*event.Event{
		event.ProcessCreated:    {Action: event.ProcessCreated, Process: program},
		event.ProcessTerminated: {Action: event.ProcessTerminated, Process: &event.Process{Key: key, ExitCode: new(int32(0))}},
		event.SensitiveFileRead: {Action: event.SensitiveFileRead, Initiator: program, File: &event.File{Path: "/etc/shadow", Sensitive: event.PasswordHashes}},
	}
	for _, action := range []event.Action{event.ConnectionSuccess, event.ConnectionFailed, event.InboundConnectionAccepted, event.ListeningConnectionCreated} {
		all[action] = &event.Event{Action: action, Initiator: program, Network: &event.Network{Protocol: "Tcp"}}
	}
	for _, ev := range all {
		ev.Time = at
	}
	return all
}

// TestTelemetrySwitches: each switch holds back its kind and no other.
func TestTelemetrySwitches(t *testing.T) {
	for _, kind := range policy.TelemetryKinds {
		t.Run(kind, func(t *testing.T) {
			w, engine := sensing(t)
			on := slices.DeleteFunc(slices.Clone(policy.TelemetryKinds), func(k string) bool { return k == kind })
			if err := w.settings.Change(func(_ policy.Effective, local *policy.Settings) error { local.Telemetry = on; return nil }); err != nil {
				t.Fatal(err)
			}
			held := 0
			for action, ev := range sensorEvents() {
				w.sensed(engine, ev)
				if telemetryKinds[action] == kind {
					held++
				}
			}
			got := sent(t, w.record)
			for action := range sensorEvents() {
				if slices.Contains(got, action) == (telemetryKinds[action] == kind) {
					t.Errorf("with %s switched off the device sends %v", kind, got)
				}
			}
			if held != 1 || w.telemetry.left.Load() != 1 {
				t.Errorf("%d events of the kind, %d counted as held back", held, w.telemetry.left.Load())
			}
		})
	}
}

// TestAllTelemetryIsSentWithoutAPolicy: the switches are there to take away.
func TestAllTelemetryIsSentWithoutAPolicy(t *testing.T) {
	w, engine := sensing(t)
	all := sensorEvents()
	for _, ev := range all {
		w.sensed(engine, ev)
	}
	if got := sent(t, w.record); len(got) != len(all) {
		t.Errorf("sent: %v", got)
	}
}

// TestRulesSeeWhatIsNotSent: a switch that is off takes no detection away, and
// the finding brings its events along.
func TestRulesSeeWhatIsNotSent(t *testing.T) {
	w, engine := sensing(t)
	if err := w.settings.Change(func(_ policy.Effective, local *policy.Settings) error {
		local.Telemetry = []string{"listeningSocket"}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	ev := sensorEvents()[event.ProcessCreated]
	ev.Process.Path, ev.Process.Name, ev.Process.Args = "/usr/sbin/auditctl", "auditctl", []string{"auditctl", "-e", "0"}
	w.sensed(engine, ev)
	if found := waitingFindings(t, w.record); len(found) != 1 || found[0].Rule.ID != "audit-disabled" || len(found[0].Events) == 0 {
		t.Errorf("found: %+v", found)
	}
	if got := sent(t, w.record); slices.Contains(got, event.ProcessCreated) || !slices.Contains(got, event.BehaviorDetection) {
		t.Errorf("sent: %v", got)
	}
}
