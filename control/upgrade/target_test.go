package upgrade

import (
	"strings"
	"testing"
	"time"

	"komainu/deploy"
	"komainu/fault"
)

// TestLowerTarget: naming what devices have already ends what is on its way.
func TestLowerTarget(t *testing.T) {
	f := begun(t, 40, noSoak)
	n := len(f.orders)
	f.on(func(s *Settings) { s.Target = "1.0.0" })
	f.goOn(60, 6*time.Minute)
	v := f.view()
	if v.State != Halted || v.Halted == nil || v.Halted.ID != deploy.UpgradeReplaced || v.Halted.Detail != "1.0.0" || len(f.orders) != n {
		t.Fatalf("%+v, %d orders after %d", v, len(f.orders), n)
	}
	if len(f.halts) != 0 {
		t.Error("somebody is told of what somebody has decided")
	}
	if version, _ := f.engine.Wanted(org); version != "1.0.0" {
		t.Errorf("new machines get %q", version)
	}
	f.open()
	f.pass(time.Minute)
	if diff := f.view(); diff.State != Halted {
		t.Errorf("after a restart: %+v", diff)
	}
	f.on(func(s *Settings) { s.Target = "1.1.0" })
	f.goOn(60, 6*time.Minute)
	if v := f.view(); v.State != Done || len(f.upgraded("1.1.0")) != 40 {
		t.Errorf("the target is what it was: %+v", v)
	}
	// When it is through, nobody follows who comes later.
	f.on(func(s *Settings) { s.Target = "1.0.0" })
	late := f.add("1.0.0")
	f.goOn(60, 6*time.Minute)
	if late.Version != "1.0.0" {
		t.Error("a device that came later gets what is not the target any more")
	}
}

// sicken has everybody with a version be less well than before.
func (f *fleet) sicken(version string) {
	f.t.Helper()
	for _, h := range f.upgraded(version) {
		h.Healthy, h.Problem = false, "the sensor is failed"
	}
	for range 6 {
		f.pass(time.Minute)
	}
	if v := f.view(); v.State != Halted {
		f.t.Fatalf("%s: %+v", version, v)
	}
}

// TestRollbackOfTheFixToo: what was halted is nothing to go back to.
func TestRollbackOfTheFixToo(t *testing.T) {
	f := begun(t, 40, nil)
	f.finish(deploy.UpgradeStateSucceeded)
	f.sicken("1.1.0")
	bad := f.upgraded("1.1.0")
	f.versions = append(f.versions, "1.1.1")
	f.pass(time.Minute)
	f.finish(deploy.UpgradeStateRolledBack)
	f.pass(time.Minute)
	f.must(f.engine.Rollback(t.Context(), org))
	f.open()
	f.goOn(30, time.Minute)
	if v := f.view(); v.Target != "1.0.0" || v.Rollout != "1.0.0" || v.State != Done {
		t.Errorf("%+v", v)
	}
	for _, h := range bad {
		if h.Version != "1.0.0" {
			t.Errorf("%s still has %s", h.ID, h.Version)
		}
	}
	if version, avoid := f.engine.Wanted(org); version != "1.0.0" || strings.Join(avoid, " ") != "1.1.1 1.1.0" {
		t.Errorf("new machines get %q and not %q", version, avoid)
	}
}

// TestRollbackToWhatWasThrough: when most devices have a version that was
// halted, it is the one before that.
func TestRollbackToWhatWasThrough(t *testing.T) {
	f := begun(t, 40, noSoak)
	f.goOn(60, 6*time.Minute)
	f.versions = append(f.versions, "1.2.0")
	for range 100 {
		if f.goOn(1, 6*time.Minute); len(f.upgraded("1.2.0")) > 30 {
			break
		}
	}
	f.sicken("1.2.0")
	for _, h := range f.upgraded("1.2.0") {
		h.Healthy = true
	}
	for _, h := range f.upgraded("1.1.0") {
		h.gone = true // nobody has it any more
	}
	f.versions = append(f.versions, "1.2.1")
	f.pass(time.Minute)
	f.finish(deploy.UpgradeStateSucceeded)
	f.sicken("1.2.1")
	f.must(f.engine.Rollback(t.Context(), org))
	f.goOn(30, time.Minute)
	if v := f.view(); v.Target != "1.1.0" || len(f.upgraded("1.2.1")) != 0 {
		t.Errorf("%+v", v)
	}
}

// TestTwoThatWereHalted: new machines get none of them, whatever the repository
// lacks.
func TestTwoThatWereHalted(t *testing.T) {
	f := newFleet(t, memory(t), 40)
	f.versions = []string{"1.0.0", "1.1.0"}
	f.on(nil)
	f.pass(time.Minute)
	f.finish(deploy.UpgradeStateRolledBack)
	f.pass(time.Minute)
	f.versions = append(f.versions, "1.2.0")
	f.pass(time.Minute)
	f.finish(deploy.UpgradeStateRolledBack)
	f.pass(time.Minute)
	version, avoid := f.engine.Wanted(org)
	if v := f.view(); v.State != Halted || version != "1.0.0" || strings.Join(avoid, " ") != "1.2.0 1.1.0" {
		t.Errorf("new machines get %q and not %q: %+v", version, avoid, v)
	}
}

// TestAwayWhileItWasTakenBack: who comes back when the rollback is through, and
// something else is on its way, goes back all the same.
func TestAwayWhileItWasTakenBack(t *testing.T) {
	f := newFleet(t, memory(t), 40)
	f.versions = []string{"0.9.0", "1.0.0", "1.1.0"}
	f.on(nil)
	f.pass(time.Minute)
	f.finish(deploy.UpgradeStateSucceeded)
	upgraded := f.upgraded("1.1.0")
	away, stubborn := upgraded[0], upgraded[1]
	away.Connected = false
	f.must(f.engine.Rollback(t.Context(), org))
	f.pass(time.Minute)
	f.tell(stubborn, deploy.UpgradeStateFailed)
	f.goOn(30, time.Minute)
	f.add("0.9.0")
	fresh := f.add("1.1.0") // was installed with it, and has no version from before
	f.on(noSoak)
	f.goOn(10, time.Minute)
	f.open()
	if v := f.view(); v.Rollback || v.Rollout != "1.0.0" {
		t.Fatalf("%+v", v)
	}
	away.Connected = true
	f.goOn(5, time.Minute)
	if away.Version != "1.0.0" || stubborn.Version != "1.0.0" || fresh.Version != "1.1.0" {
		t.Errorf("one that was away has %s, one that could not go back %s, one that was installed with it %s", away.Version, stubborn.Version, fresh.Version)
	}
	if o := f.orders[len(f.orders)-1]; !o.order.Downgrade {
		t.Errorf("the agent refuses %+v", o)
	}
	// That it cannot says nothing about the version that it is to have.
	away.Version = "1.1.0"
	for range 60 {
		f.pass(time.Minute)
		f.finish(deploy.UpgradeStateFailed)
	}
	f.check()
	if v := f.view(); v.State == Halted {
		t.Errorf("%+v", v)
	}
}

// TestDeviceDoesNotSayWhatItHad: it is known from when it was asked.
func TestDeviceDoesNotSayWhatItHad(t *testing.T) {
	f := begun(t, 10, noSoak)
	h := f.host(f.orders[0].device)
	f.must(f.engine.Report(t.Context(), org, h.ID, deploy.UpgradeStatus{ID: h.doing.ID, From: "0.1.0", To: "1.1.0", State: deploy.UpgradeStateInstalling}))
	if l := lineOf(f, h.ID); l.From != "1.0.0" {
		t.Errorf("%+v", l)
	}
}

// TestFewFailures: what did not halt the rollout can be tried again when it is
// through, and before.
func TestFewFailures(t *testing.T) {
	f := begun(t, 100, noSoak)
	fail := 2
	for range 100 {
		for _, h := range f.hosts {
			if h.doing != nil && fail > 0 && f.view().Current == "broad" {
				fail--
				f.tell(h, deploy.UpgradeStateFailed)
			}
		}
		f.goOn(1, 6*time.Minute)
	}
	if v := f.view(); v.State != Done || v.Progress[2].Failed != 2 {
		t.Fatalf("%+v", v)
	}
	f.must(f.engine.Resume(t.Context(), org))
	f.open()
	f.goOn(10, 6*time.Minute)
	if v := f.view(); v.State != Done || v.Progress[2].Failed != 0 || len(f.upgraded("1.1.0")) != 100 {
		t.Errorf("%+v", v)
	}
	if err := f.engine.Resume(t.Context(), org); !fault.Is(err, fault.Conflict) {
		t.Errorf("nothing has failed: %v", err)
	}
}
