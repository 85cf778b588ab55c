package onboard

import (
	"context"
	"errors"
	"testing"
	"time"

	"komainu/control/machine"
	"komainu/deploy"
	"komainu/event"
)

// oneAtOnce has the engine work on one machine at a time, and lets every login
// take so long that whatever has failed before may be tried again.
func (w *world) oneAtOnce() (logins map[string]int) {
	w.t.Helper()
	if _, err := w.engine.Save(w.t.Context(), org, env, "e", Change{Settings{Automatic: true, Concurrency: 1}, 1}); err != nil {
		w.t.Fatal(err)
	}
	logins = map[string]int{}
	reach := w.engine.cfg.Reach
	w.engine.cfg.Reach = func(ctx context.Context, m machine.Machine) (deploy.Host, error) {
		w.mu.Lock()
		w.later += 2 * time.Hour
		logins[m.Name]++
		w.mu.Unlock()
		return reach(ctx, m)
	}
	return logins
}

func TestMachinesThatCannotBeReachedKeepNobodyFromTheirTurn(t *testing.T) {
	w := newWorld(t, "a", "b", "c", "z")
	w.oneAtOnce()
	for _, name := range []string{"a", "b", "c"} {
		w.hosts[name].refuse = deploy.Fail(deploy.TimedOut, "no connection")
	}
	w.run()
	w.becomes("z", deploy.Succeeded, "")
}

func TestMachinesThatCannotProveThemselvesKeepNobodyFromTheirTurn(t *testing.T) {
	w := newWorld(t, "a", "b", "z")
	w.oneAtOnce()
	for _, name := range []string{"a", "b"} {
		device := event.DeviceID("device-of-" + name)
		w.devices[device] = &Device{ID: device, Connected: true, Confirmed: true, Version: "2.0.0"}
		if err := w.machines.Linked(t.Context(), w.machine(name).ID, device); err != nil {
			t.Fatal(err)
		}
	}
	proves := w.engine.cfg.Test
	w.engine.cfg.Test = func(ctx context.Context, organization string, id event.DeviceID, test string) (string, error) {
		if id != w.machine("z").Device {
			w.set(func() { w.later += 2 * time.Hour })
			return "", errors.New("it takes no test")
		}
		return proves(ctx, organization, id, test)
	}
	w.run()
	w.becomes("z", deploy.Succeeded, "")
}

func TestRemovalsThatAreTriedAgainKeepNobodyFromTheirTurn(t *testing.T) {
	w := newWorld(t, "a", "b", "z")
	logins := w.oneAtOnce()
	for _, name := range []string{"a", "b"} {
		w.hosts[name].refuse = deploy.Fail(deploy.TimedOut, "no connection")
		if err := w.machines.Offboard(t.Context(), org, w.machine(name).ID, "sold"); err != nil {
			t.Fatal(err)
		}
	}
	w.run()
	w.becomes("z", deploy.Succeeded, "")
	w.mu.Lock()
	defer w.mu.Unlock()
	if logins["a"] > 3 || logins["b"] > 3 {
		t.Errorf("before the turn of z the others had several: %v", logins)
	}
}

func TestAClockThatIsSetBackStopsNothing(t *testing.T) {
	w := newWorld(t, "a", "b", "c")
	w.hosts["b"].refuse = deploy.Fail(deploy.TimedOut, "no connection")
	w.hosts["c"].refuse = deploy.Fail(deploy.TimedOut, "no connection")
	w.later = 100 * time.Hour // until the clock is set
	w.engine.opened = w.engine.now()
	if err := w.machines.Offboard(t.Context(), org, w.machine("c").ID, "sold"); err != nil {
		t.Fatal(err)
	}
	w.run()
	a := w.becomes("a", deploy.Succeeded, "")
	w.becomes("b", deploy.Failed, deploy.TimedOut)
	w.becomes("c", deploy.Removing, deploy.RemoveFailed)
	w.set(func() {
		w.later = 0
		w.hosts["b"].refuse, w.hosts["c"].refuse = nil, nil
	})
	w.becomes("b", deploy.Succeeded, "")
	w.becomes("c", deploy.None, deploy.Offboarded)
	// It was connected last at a time that has not come yet.
	w.set(func() {
		w.hosts["a"].refuse = deploy.Fail(deploy.TimedOut, "no connection")
		d := w.devices[a.Device]
		d.Connected, d.Silent = false, -100*time.Hour
	})
	w.set(func() { w.later = time.Minute * 5 })
	w.becomes("a", deploy.Failed, deploy.TimedOut)
}

func TestARequestDuringALookIsNotLost(t *testing.T) {
	w := newWorld(t, "a")
	m := w.machine("a")
	n, ok := settle(&m, stay(deploy.None, deploy.PlanOff, ""))
	if !ok {
		t.Fatal("nothing is to be written down")
	}
	if err := w.machines.Request(t.Context(), org, m.ID, true, true); err != nil {
		t.Fatal(err)
	}
	if err := w.machines.NoteAll(t.Context(), []machine.Noted{n}); err != nil {
		t.Fatal(err)
	}
	if x := w.machine("a").Extension; x.Requested.IsZero() || !x.Despite || !x.Take {
		t.Errorf("what somebody has asked for is lost: %+v", x)
	}
}
