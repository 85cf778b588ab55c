package onboard

import (
	"context"
	"strings"
	"testing"

	"komainu/control/machine"
	"komainu/deploy"
	"komainu/event"
)

// TestPushedMachinesWaitForSomebody has a person bring the agent to a machine
// that the control plane has no credential for.
func TestPushedMachinesWaitForSomebody(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.hosts["a"].refuse = deploy.Fail(deploy.CredentialMissing, "")
	w.engine.cfg.Pushed = func(_ context.Context, m *machine.Machine) (string, error) {
		if m.Name == "a" {
			return "komainuctl deploy --connector way", nil
		}
		return "", nil
	}
	// As it was left by a version that tried to log in.
	if err := w.machines.Note(t.Context(), w.machine("a").ID, machine.Line{}, func(x *machine.Extension) {
		x.State, x.Reason, x.Next = deploy.Failed, new(deploy.ReasonOf(deploy.CredentialMissing, "")), w.now().Add(backoff(1, true))
	}); err != nil {
		t.Fatal(err)
	}
	w.run()
	m := w.becomes("a", deploy.Waiting, deploy.CredentialMissing)
	w.becomes("b", deploy.Succeeded, "")
	if m.Extension.Reason.Detail != "komainuctl deploy --connector way" || m.Extension.Attempt != 0 {
		t.Errorf("%+v", m.Extension)
	}
	if would, why, err := w.engine.Preview(t.Context(), &m, w.plan); err != nil || would != "skip" || why.ID != deploy.CredentialMissing {
		t.Errorf("the preview says %s, %v, %v", would, why, err)
	}
	if why, err := w.engine.Unwanted(t.Context(), &m); err != nil || why != nil {
		t.Errorf("nobody may deploy to it: %v, %v", why, err)
	}

	// Its agent enrols, and connects a moment later.
	w.set(func() { w.devices["pushed"] = &Device{ID: "pushed"} })
	if err := w.machines.Enrolled(t.Context(), org, env, m.ID, "pushed", machine.Known{}, w.now()); err != nil {
		t.Fatal(err)
	}
	w.becomes("a", deploy.Creating, "")
	w.set(func() { w.devices["pushed"].Connected, w.devices["pushed"].Confirmed = true, true })
	w.engine.News()
	if m = w.becomes("a", deploy.Succeeded, ""); m.Extension.Alert == "" {
		t.Errorf("it has proven nothing: %+v", m.Extension)
	}

	// It is away for long: nobody can look after it, and the command is said.
	w.set(func() { w.devices["pushed"].Connected, w.devices["pushed"].Silent = false, 2*silentFor })
	if m = w.becomes("a", deploy.Failed, deploy.NoReport); !strings.HasSuffix(m.Extension.Reason.Detail, "komainuctl deploy --connector way") {
		t.Errorf("%+v", m.Extension.Reason)
	}
	w.set(func() { w.devices["pushed"].Connected, w.devices["pushed"].Silent = true, 0 })
	w.becomes("a", deploy.Succeeded, "")
	if err := w.machines.Offboard(t.Context(), org, m.ID, ""); err != nil {
		t.Fatal(err)
	}
	m = w.machine("a")
	if why, err := w.engine.Unwanted(t.Context(), &m); err != nil || why == nil || why.ID != deploy.Offboarded {
		t.Errorf("%v, %v", why, err)
	}
	if w.hosts["a"].installed != 0 {
		t.Error("the control plane has installed something")
	}
}

// TestLinkMergesWhatIsOne gives a machine the device of one that was made when
// the agent enrolled by itself.
func TestLinkMergesWhatIsOne(t *testing.T) {
	w := newWorld(t, "a", "b")
	if err := w.machines.Enrolled(t.Context(), org, env, "", "self", machine.Known{Name: "a"}, w.now()); err != nil {
		t.Fatal(err)
	}
	own, _ := w.machines.Of("self")
	if err := w.machines.Save(t.Context(), org, own.ID, machine.Change{Version: own.Version, Tags: &[]machine.Tag{{Key: "role", Value: "web"}}}); err != nil {
		t.Fatal(err)
	}
	listed := w.listed("a")
	for range 2 { // the second time it is so already
		if err := w.machines.Link(t.Context(), org, listed.ID, "self"); err != nil {
			t.Fatal(err)
		}
	}
	if m, ok := w.machines.Of("self"); !ok || m.ID != listed.ID || len(m.OwnTags) != 1 || len(w.machines.All(env)) != 2 {
		t.Errorf("%+v, %d machines", m, len(w.machines.All(env)))
	}
	if err := w.machines.Link(t.Context(), org, w.listed("b").ID, "self"); err == nil || !strings.Contains(err.Error(), listed.ID) {
		t.Errorf("one agent on two machines of connectors: %v", err)
	}
	if err := w.machines.Enrolled(t.Context(), org, "elsewhere", "", event.DeviceID("far"), machine.Known{Name: "b"}, w.now()); err != nil {
		t.Fatal(err)
	}
	if err := w.machines.Link(t.Context(), org, w.listed("b").ID, "far"); err == nil || !strings.Contains(err.Error(), "another environment") {
		t.Errorf("an agent of another environment: %v", err)
	}
}

// listed is the machine of the connector.
func (w *world) listed(name string) machine.Machine {
	w.t.Helper()
	m, ok := w.machines.Found("way", name)
	if !ok {
		w.t.Fatalf("no connector lists %s", name)
	}
	return m
}
