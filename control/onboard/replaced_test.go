package onboard

import (
	"context"
	"slices"
	"testing"
	"time"

	"komainu/control/machine"
	"komainu/deploy"
	"komainu/event"
)

// Somebody enrols a server anew by hand: what its machine was before can never
// come back, and must not be left as a second device of one server.
func TestAnIdentityThatAServerGaveUpEnds(t *testing.T) {
	w := newWorld(t, "web")
	var ended []event.DeviceID
	w.engine.cfg.Replaced = func(_ context.Context, old, by event.DeviceID) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		ended = append(ended, old, by)
		w.devices[old].Offboarded = true
		return nil
	}
	w.run()
	before := w.becomes("web", deploy.Succeeded, "")
	if err := w.machines.Enrolled(t.Context(), org, env, "", "by-hand", machine.Known{Name: "by itself"}, time.Time{}); err != nil {
		t.Fatal(err)
	}
	w.set(func() {
		w.devices["by-hand"] = &Device{ID: "by-hand", Connected: true, Confirmed: true, Version: "2.0.0", Addresses: []string{"192.0.2.7"}}
		w.hosts["web"].facts, w.hosts["web"].ip = []string{"device by-hand", "agent 2.0.0", "service active"}, "192.0.2.7"
		d := w.devices[before.Device]
		d.Connected, d.Silent = false, time.Hour
	})
	w.until("the device is another one", func() bool { return w.machine("web").Device == "by-hand" })
	w.becomes("web", deploy.Succeeded, "")
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Equal(ended, []event.DeviceID{before.Device, "by-hand"}) {
		t.Errorf("ended are %q, want %s alone", ended, before.Device)
	}
}

// The device that a machine had comes back while another one is found where the
// machine was: they are two servers.
func TestAnIdentityThatIsAliveElsewhereStays(t *testing.T) {
	w := newWorld(t, "web")
	w.engine.cfg.Replaced = func(_ context.Context, old, _ event.DeviceID) error {
		t.Errorf("%s is ended", old)
		return nil
	}
	w.run()
	before := w.becomes("web", deploy.Succeeded, "")
	if err := w.machines.Enrolled(t.Context(), org, env, "", "other", machine.Known{Name: "by itself"}, time.Time{}); err != nil {
		t.Fatal(err)
	}
	asked := make(chan struct{}, 100)
	reach := w.engine.cfg.Reach
	w.engine.cfg.Reach = func(ctx context.Context, m machine.Machine) (deploy.Host, error) {
		w.set(func() { w.devices[before.Device].Connected = true })
		asked <- struct{}{}
		return reach(ctx, m)
	}
	w.set(func() {
		w.devices["other"] = &Device{ID: "other", Connected: true, Confirmed: true, Version: "2.0.0", Addresses: []string{"192.0.2.7"}}
		w.hosts["web"].facts, w.hosts["web"].ip = []string{"device other", "agent 2.0.0", "service active"}, "192.0.2.7"
		d := w.devices[before.Device]
		d.Connected, d.Silent = false, time.Hour
	})
	<-asked
	w.becomes("web", deploy.Failed, deploy.ConnectorFailed)
	w.set(func() { w.later += time.Minute })
	w.becomes("web", deploy.Succeeded, "")
	if m := w.machine("web"); m.Device != before.Device {
		t.Errorf("it is the device %s", m.Device)
	}
}
