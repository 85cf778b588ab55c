package upgrade

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"komainu/deploy"
	"komainu/event"
)

// noSoak has the rings follow one another at once.
func noSoak(s *Settings) {
	for i := range s.Rings {
		s.Rings[i].SoakMinutes = 0
	}
}

// begun is a fleet whose canaries have been asked for 1.1.0.
func begun(t *testing.T, devices int, change func(*Settings)) *fleet {
	t.Helper()
	f := newFleet(t, memory(t), devices)
	f.versions = append(f.versions, "1.1.0")
	f.on(change)
	f.pass(time.Minute)
	return f
}

// upgraded are the devices that have a version.
func (f *fleet) upgraded(version string) (list []*host) {
	for _, h := range f.hosts {
		if h.Version == version {
			list = append(list, h)
		}
	}
	return list
}

// goOn lets time pass in steps, and everything that devices do succeeds.
func (f *fleet) goOn(steps int, d time.Duration) {
	f.t.Helper()
	for range steps {
		f.finish(deploy.UpgradeStateSucceeded)
		f.pass(d)
	}
	f.check()
}

func (f *fleet) askedFor(id event.DeviceID) (n int) {
	for _, o := range f.orders {
		if o.device == id {
			n++
		}
	}
	return n
}

// TestVanished: a device that goes right after its upgrade does not speak for
// the version, whatever it was before it went.
func TestVanished(t *testing.T) {
	f := begun(t, 10, nil)
	canaries := len(f.orders)
	f.finish(deploy.UpgradeStateSucceeded)
	for _, h := range f.upgraded("1.1.0") {
		h.Connected = false
	}
	for range 20 {
		f.pass(time.Minute)
	}
	if v := f.view(); v.State != Running || v.Current != "canary" {
		t.Fatalf("devices may be away for a while: %+v", v)
	}
	for range 200 {
		f.pass(time.Minute)
	}
	if v := f.view(); v.State != Halted || v.Halted.ID != deploy.UpgradeUnhealthy || len(f.orders) != canaries || len(f.halts) != 1 {
		t.Errorf("%+v, %d orders, %d canaries", v, len(f.orders), canaries)
	}
}

// TestVanishedInBroad counts devices that go by the bound of their ring, and
// not those that are switched off days later.
func TestVanishedInBroad(t *testing.T) {
	f := begun(t, 100, noSoak)
	for i := 0; i < 200 && f.inRing("broad", "succeeded") < 10; i++ {
		f.goOn(1, time.Minute)
	}
	gone := 0
	for _, l := range f.engine.Devices(org, Query{Ring: "broad", State: "succeeded"}) {
		if gone++; gone <= bound(2, f.view().Progress[2].Devices) {
			f.host(event.DeviceID(l.Device.ID)).Connected = false
		}
	}
	for range 40 {
		f.pass(time.Minute)
	}
	if v := f.view(); v.State != Halted {
		t.Errorf("%+v", v)
	}
	f = begun(t, 100, noSoak)
	f.hosts[0].Open = false // it does not come to an end
	f.goOn(200, 10*time.Minute)
	for _, h := range f.upgraded("1.1.0")[:50] {
		h.Connected = false
	}
	f.goOn(20, 10*time.Minute)
	if v := f.view(); v.State != Running {
		t.Errorf("machines that were switched off a day later: %+v", v)
	}
}

// TestTakenOut: what an operator offboards, or takes the plan from, is no
// device that the version has broken.
func TestTakenOut(t *testing.T) {
	f := begun(t, 100, nil)
	f.finish(deploy.UpgradeStateSucceeded)
	h := f.host(f.orders[0].device)
	h.Connected, h.gone = false, true
	for range 60 {
		f.pass(time.Minute)
	}
	if v := f.view(); v.State != Running || v.Progress[0].Failed != 0 {
		t.Errorf("%+v", v)
	}
}

// TestComesAndGoes: being away now and then hides nothing.
func TestComesAndGoes(t *testing.T) {
	f := begun(t, 10, nil)
	f.finish(deploy.UpgradeStateSucceeded)
	for i := range 10 * 12 {
		for _, h := range f.upgraded("1.1.0") {
			h.Healthy, h.Problem, h.Connected = false, "the worker has ended", i%12 != 0
		}
		f.pass(5 * time.Second)
	}
	if v := f.view(); v.State != Halted || v.Halted.ID != deploy.UpgradeUnhealthy {
		t.Errorf("%+v", v)
	}
}

// TestRebootIsNotUnwell: a moment before a restart and one after it are no two
// minutes.
func TestRebootIsNotUnwell(t *testing.T) {
	f := begun(t, 10, nil)
	f.finish(deploy.UpgradeStateSucceeded)
	f.pass(6 * time.Minute)
	canary := f.upgraded("1.1.0")[0]
	canary.Healthy = false
	f.pass(5 * time.Second)
	canary.Connected = false
	f.pass(10 * time.Minute)
	canary.Connected = true
	f.pass(5 * time.Second)
	f.pass(5 * time.Second)
	canary.Healthy = true
	f.pass(time.Minute)
	if v := f.view(); v.State != Running {
		t.Errorf("%+v", v)
	}
}

// TestSoakHasNoHoles: a halt, switched off upgrades, a control plane that was
// not there and a canary that was away are no soak.
func TestSoakHasNoHoles(t *testing.T) {
	for what, hole := range map[string]func(f *fleet){
		"a halt": func(f *fleet) {
			f.must(f.engine.Halt(t.Context(), org))
			f.pass(100 * time.Minute)
			f.must(f.engine.Resume(t.Context(), org))
		},
		"off": func(f *fleet) {
			f.on(func(s *Settings) { s.Automatic = false })
			f.pass(100 * time.Minute)
			f.on(nil)
		},
		"a restart": func(f *fleet) {
			f.now = f.now.Add(100 * time.Minute)
			f.open()
		},
		"away": func(f *fleet) {
			for _, h := range f.upgraded("1.1.0") {
				h.Connected = false
			}
			f.pass(29 * time.Minute)
			for _, h := range f.upgraded("1.1.0") {
				h.Connected = true
			}
		},
	} {
		f := begun(t, 40, nil)
		f.finish(deploy.UpgradeStateSucceeded)
		for range 40 {
			f.pass(time.Minute)
		}
		hole(f)
		for range 50 {
			if f.pass(time.Minute); f.view().Current != "canary" {
				t.Errorf("%s: %+v", what, f.view())
				break
			}
		}
		for range 20 {
			f.pass(time.Minute)
		}
		if v := f.view(); v.State != Running || v.Current != "early" {
			t.Errorf("after %s it does not go on: %+v", what, v)
		}
	}
}

// TestLosesTheVersion: a device that has an older version again is asked again,
// but not for ever, also when the rollout is through.
func TestLosesTheVersion(t *testing.T) {
	f := begun(t, 40, noSoak)
	f.goOn(2, time.Second)
	h := f.host(f.orders[0].device)
	h.Version = "1.0.0" // a snapshot is put back
	f.report(h)         // it tells the same as always
	f.pass(time.Minute)
	f.pass(lostAfter)
	if h.doing == nil {
		t.Fatalf("it is not asked again: %+v", lineOf(f, h.ID))
	}
	f.goOn(60, 6*time.Minute)
	if v := f.view(); v.State != Done || h.Version != "1.1.0" {
		t.Fatalf("%+v, it has %s", v, h.Version)
	}
	for range 20 { // now it is put back all the time
		h.Version = "1.0.0"
		f.pass(time.Minute)
		f.pass(lostAfter)
		f.open()
		f.goOn(1, time.Minute)
	}
	if n, l := f.askedFor(h.ID), lineOf(f, h.ID); n != 1+mostLost || l.State != "failed" || l.Reason == nil || l.Reason.Detail == "" {
		t.Errorf("it was asked %d times: %+v", n, l)
	}
}

// TestControlPlaneWasAway: who could not come back to a control plane that was
// not there is not late.
func TestControlPlaneWasAway(t *testing.T) {
	for _, state := range []deploy.UpgradeState{deploy.UpgradeStateInstalling, deploy.UpgradeStateSucceeded} {
		f := begun(t, 40, nil)
		h := f.host(f.orders[0].device)
		f.tell(h, state)
		f.now = f.now.Add(4 * time.Hour)
		for _, h := range f.hosts {
			h.Connected = false // nobody is back yet at the first look
		}
		f.open()
		f.pass(0)
		f.pass(time.Minute)
		if v := f.view(); v.State != Running {
			t.Errorf("%s: %+v", state, v)
		}
		for _, h := range f.hosts {
			h.Connected = true // and the first look has not heard what they tell
		}
		f.pass(time.Second)
		if v := f.view(); v.State != Running {
			t.Errorf("%s: %+v", state, v)
		}
		h.Connected = false
		f.pass(40 * time.Minute)
		if v := f.view(); v.State != Halted {
			t.Errorf("%s: it never came back: %+v", state, v)
		}
	}
}

// TestPlanOffInTheMiddle: a device whose plan is switched off while it is
// upgraded is still at it.
func TestPlanOffInTheMiddle(t *testing.T) {
	f := begun(t, 100, func(s *Settings) { s.Rings[0].Share = 20 })
	n := len(f.orders)
	f.host(f.orders[0].device).gone = true
	f.pass(time.Minute)
	if n != f.atOnce || len(f.orders) != n {
		t.Errorf("%d were asked, then %d", n, len(f.orders))
	}
}

// TestClockGoesBack: what was decided last counts, whatever the clock said.
func TestClockGoesBack(t *testing.T) {
	f := begun(t, 40, nil)
	f.finish(deploy.UpgradeStateSucceeded)
	f.sicken("1.1.0")
	f.now = f.now.Add(-48 * time.Hour)
	f.versions = append(f.versions, "1.1.1")
	f.pass(time.Minute)
	f.finish(deploy.UpgradeStateRolledBack)
	f.pass(time.Minute)
	before, n := f.view(), len(f.orders)
	if before.State != Halted || before.Rollout != "1.1.1" {
		t.Fatalf("%+v", before)
	}
	f.open()
	f.pass(time.Minute)
	if diff := cmp.Diff(before, f.view()); diff != "" || len(f.orders) != n {
		t.Errorf("after a restart %d devices are asked: %s", len(f.orders)-n, diff)
	}
}

// TestClockGoesBackInTheMiddle: nobody waits until a time comes again that was.
func TestClockGoesBackInTheMiddle(t *testing.T) {
	for name, restart := range map[string]bool{"while it runs": false, "over a restart": true} {
		t.Run(name, func(t *testing.T) {
			f := begun(t, 40, noSoak)
			f.finish(deploy.UpgradeStateSucceeded)
			f.pass(time.Minute)
			f.now = f.now.Add(-48 * time.Hour)
			if restart {
				f.open()
			}
			f.goOn(60, 6*time.Minute)
			if v := f.view(); v.State != Done || len(f.upgraded("1.1.0")) != 40 {
				t.Errorf("it is not through after six hours: %+v", v)
			}
		})
	}
	f := begun(t, 40, nil)
	f.finish(deploy.UpgradeStateSucceeded)
	for _, h := range f.upgraded("1.1.0") {
		h.Healthy, h.Problem = false, "the sensor is failed"
	}
	f.pass(time.Minute)
	f.now = f.now.Add(-48 * time.Hour)
	for range 6 {
		f.pass(time.Minute)
	}
	if v := f.view(); v.State != Halted {
		t.Errorf("who is unwell meanwhile does not count: %+v", v)
	}
}

// TestClockGoesOnAtOnce: hours in which nobody could look are none in which
// somebody was away or unwell.
func TestClockGoesOnAtOnce(t *testing.T) {
	f := begun(t, 40, nil)
	f.engine.longest = time.Minute
	f.finish(deploy.UpgradeStateSucceeded)
	f.pass(10 * time.Second)
	list := f.upgraded("1.1.0")
	list[0].Healthy, list[0].Problem = false, "the sensor is starting"
	list[1].Connected = false
	f.pass(10 * time.Second)
	f.now = f.now.Add(3 * time.Hour)
	f.look()
	list[0].Healthy, list[1].Connected = true, true
	for range 20 {
		f.pass(10 * time.Second)
	}
	if v := f.view(); v.State != Running {
		t.Errorf("%+v", v)
	}
}
