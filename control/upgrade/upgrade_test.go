package upgrade

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"komainu/deploy"
	"komainu/event"
	"komainu/fault"
)

// TestRings follows a version through all rings.
func TestRings(t *testing.T) {
	f := newFleet(t, memory(t), 100)
	f.pass(time.Minute)
	if v := f.view(); v.State != Idle || v.Automatic {
		t.Fatalf("at first: %+v", v)
	}
	f.versions = append(f.versions, "1.1.0")
	f.pass(time.Minute)
	if len(f.orders) != 0 {
		t.Fatal("devices are upgraded before somebody has switched it on")
	}
	f.on(nil)
	f.pass(time.Minute)
	canary := f.view().Progress[0].Devices
	if v := f.view(); v.State != Running || v.Current != "canary" || canary == 0 || len(f.orders) != min(canary, f.atOnce) {
		t.Fatalf("%+v, %d orders", v, len(f.orders))
	}
	began := map[string]time.Time{}
	for range 2000 {
		f.finish(deploy.UpgradeStateSucceeded)
		f.pass(time.Minute)
		f.check()
		v := f.view()
		if _, ok := began[v.Current]; !ok {
			began[v.Current] = f.now
		}
		if v.State == Done {
			break
		}
	}
	v := f.view()
	if v.State != Done || v.Current != "" {
		t.Fatalf("%+v", v)
	}
	if soaked := began["early"].Sub(began["canary"]); soaked < time.Hour {
		t.Errorf("early began %v after canary", soaked)
	}
	if soaked := began["broad"].Sub(began["early"]); soaked < 4*time.Hour {
		t.Errorf("broad began %v after early", soaked)
	}
	for _, h := range f.hosts {
		if h.Version != "1.1.0" {
			t.Errorf("%s has %s", h.ID, h.Version)
		}
	}
	if len(f.orders) != 100 {
		t.Errorf("%d orders for 100 devices", len(f.orders))
	}
	if g := v.Progress[2].Gap; g == nil || g.Median != 400 || g.Worst != 400 {
		t.Errorf("gap %+v", g)
	}
	// One that comes later, and one that comes back, follow.
	f.add("1.0.0")
	f.pass(time.Minute)
	f.finish(deploy.UpgradeStateSucceeded)
	f.pass(time.Minute)
	if f.hosts[100].Version != "1.1.0" {
		t.Error("a device that came later is left behind")
	}
	if version, avoid := f.engine.Wanted(org); version != "1.1.0" || strings.Join(avoid, " ") != "" {
		t.Errorf("new machines get %q, not %q", version, avoid)
	}
	if version, why := f.engine.Due(org, f.hosts[0].ID, "1.0.0"); version != "1.1.0" || why != "" {
		t.Errorf("one that was put back by hand is to have %q, %q", version, why)
	}
}

// TestWhatAHostIsToHave asks in the place of an installer, all along a rollout.
func TestWhatAHostIsToHave(t *testing.T) {
	f := newFleet(t, memory(t), 100)
	due := func(h *host, want, why string) {
		t.Helper()
		version, because := f.engine.Due(org, h.ID, h.Version)
		if version != want || !strings.Contains(because, why) || (why == "") != (because == "") {
			t.Errorf("%s is to have %q because %q, want %q because %q", h.ID, version, because, want, why)
		}
	}
	f.versions = append(f.versions, "1.1.0")
	due(f.hosts[0], "1.1.0", "") // nobody rolls anything out: whoever installs decides
	f.hosts[0].Open = false
	due(f.hosts[0], "1.0.0", "1.1.0 waits for its maintenance window")
	f.hosts[0].Open = true
	f.hosts[1].gone = true
	due(f.hosts[1], "1.0.0", "")
	f.hosts[1].gone = false
	f.on(nil)
	due(f.hosts[0], "1.0.0", "has not come to its ring")
	f.pass(time.Minute)
	first := f.host(f.orders[0].device)
	due(first, "1.0.0", "is being installed by its rollout")
	broad := f.hosts[slices.IndexFunc(f.hosts, func(h *host) bool { return f.engine.of(org).settings.ringOf(&h.Device) == 2 })]
	due(broad, "1.0.0", "1.1.0 has not come to its ring")
	f.tell(first, deploy.UpgradeStateSucceeded)
	f.pass(time.Minute)
	due(first, "1.1.0", "")
	if first.Version != "1.1.0" {
		t.Fatalf("%+v", first)
	}
	second := f.host(f.orders[1].device)
	f.tell(second, deploy.UpgradeStateRolledBack)
	f.pass(time.Minute)
	if v := f.view(); v.State != Halted {
		t.Fatalf("%+v", v)
	}
	for _, h := range []*host{second, broad} {
		due(h, "1.0.0", "1.1.0 was halted")
	}
	due(first, "1.1.0", "") // going back is a rollback
	if err := f.engine.Rollback(t.Context(), org); err != nil {
		t.Fatal(err)
	}
	due(broad, "1.0.0", "")
	due(first, "1.1.0", "")
}

// TestSharesAreShares counts who is in which ring.
func TestSharesAreShares(t *testing.T) {
	s := defaults().Settings
	s.Rings[0].Groups = []string{"first"}
	counts := map[int]int{}
	for i := range 20_000 {
		d := Device{ID: event.DeviceID(fmt.Sprint("d", i))}
		ring := s.ringOf(&d)
		if ring != s.ringOf(&d) {
			t.Fatal("not stable")
		}
		counts[ring]++
		if d.Groups = []string{"first"}; s.ringOf(&d) != 0 {
			t.Fatal("a group is not in its ring")
		}
	}
	for ring, want := range []float64{0.05, 0.95 * 0.25, 0.95 * 0.75} {
		if got := float64(counts[ring]) / 20_000; math.Abs(got-want) > 0.015 {
			t.Errorf("ring %d has %.3f, want %.3f", ring, got, want)
		}
	}
	if counts[-1] != 0 {
		t.Errorf("%d are in none", counts[-1])
	}
}

func TestOneOfTheCanariesHalts(t *testing.T) {
	for _, end := range []deploy.UpgradeState{deploy.UpgradeStateFailed, deploy.UpgradeStateRolledBack} {
		f := newFleet(t, memory(t), 100)
		f.versions = append(f.versions, "1.1.0")
		f.on(nil)
		f.pass(time.Minute)
		f.tell(f.host(f.orders[0].device), end)
		f.pass(time.Minute)
		v := f.view()
		if v.State != Halted || v.Halted == nil || v.Halted.Detail == "" || len(f.halts) != 1 {
			t.Fatalf("%s: %+v, told %v", end, v, f.halts)
		}
		before := len(f.orders)
		f.finish(deploy.UpgradeStateSucceeded)
		f.pass(time.Hour)
		if len(f.orders) != before {
			t.Error("a device began after the halt")
		}
		if version, avoid := f.engine.Wanted(org); version != "1.0.0" || strings.Join(avoid, " ") != "1.1.0" {
			t.Errorf("new machines get %q and not %q", version, avoid)
		}
		f.open() // a restart changes nothing
		f.pass(time.Minute)
		if got := f.view(); got.State != Halted || got.Halted.ID != v.Halted.ID {
			t.Errorf("after a restart %+v", got)
		}
		// A version that mends it begins by itself.
		f.versions = append(f.versions, "1.1.1")
		f.pass(time.Minute)
		if v := f.view(); v.State != Running || v.Rollout != "1.1.1" {
			t.Errorf("%+v", v)
		}
	}
}

// TestLessHealthyThanBefore halts for devices that were healthy, and for those
// alone.
func TestLessHealthyThanBefore(t *testing.T) {
	f := newFleet(t, memory(t), 100)
	f.versions = append(f.versions, "1.1.0")
	f.on(nil)
	sick := map[event.DeviceID]bool{}
	for _, l := range f.engine.Devices(org, Query{Ring: "canary"}) {
		sick[event.DeviceID(l.Device.ID)] = true
		f.host(event.DeviceID(l.Device.ID)).Healthy = false
	}
	f.pass(time.Minute)
	f.finish(deploy.UpgradeStateSucceeded)
	for range 20 {
		f.pass(time.Minute)
	}
	if v := f.view(); v.State != Running {
		t.Fatalf("halted for what was so before: %+v", v)
	}
	for range 100 {
		f.finish(deploy.UpgradeStateSucceeded)
		if f.pass(time.Minute); f.inRing("early", "asked") > 0 {
			break
		}
	}
	f.finish(deploy.UpgradeStateSucceeded)
	one := f.host(f.orders[len(f.orders)-1].device)
	one.Healthy, one.Problem = false, "real_time_protection is failed"
	f.pass(time.Minute) // it may take a moment
	if v := f.view(); v.State != Running {
		t.Fatalf("%+v", v)
	}
	for range 3 {
		f.pass(time.Minute)
	}
	early := f.view().Progress[1]
	if bound(1, early.Devices) > 1 {
		if v := f.view(); v.State != Running || early.Failed != 1 {
			t.Errorf("one of %d: %+v", early.Devices, v)
		}
	}
	for _, h := range f.hosts {
		if h.Version == "1.1.0" && !sick[h.ID] {
			h.Healthy, h.Problem = false, "real_time_protection is failed"
		}
	}
	for range 4 {
		f.pass(time.Minute)
	}
	if v := f.view(); v.State != Halted || v.Halted.ID != deploy.UpgradeUnhealthy {
		t.Errorf("%+v", v)
	}
}

// TestAway: who is away before it begins waits; who does not come back from
// the installation counts.
func TestAway(t *testing.T) {
	f := newFleet(t, memory(t), 100)
	f.versions = append(f.versions, "1.1.0")
	f.hosts[0].Connected = false
	f.on(nil)
	f.pass(time.Minute)
	h := f.host(f.orders[0].device)
	f.tell(h, deploy.UpgradeStateFetching)
	h.Connected = false
	for range 12 {
		f.pass(5 * time.Minute)
	}
	if v := f.view(); v.State != Running || f.inRing("", "failed") != 0 {
		t.Fatalf("a device that was switched off before it began: %+v", v)
	}
	h.Connected, h.doing = true, nil
	f.finish(deploy.UpgradeStateSucceeded)
	f.pass(time.Minute)
	f.finish(deploy.UpgradeStateFetching)
	f.pass(time.Minute)
	if h.doing == nil {
		t.Fatal("it came back and was not asked again")
	}
	f.tell(h, deploy.UpgradeStateInstalling)
	h.Connected = false
	f.pass(20 * time.Minute)
	if v := f.view(); v.State != Running {
		t.Fatalf("%+v", v)
	}
	f.pass(20 * time.Minute)
	if v := f.view(); v.State != Halted || v.Halted.ID != deploy.UpgradeUnhealthy {
		t.Errorf("a device has not come back: %+v", v)
	}
}

func TestWindowsPlansAndOldAgents(t *testing.T) {
	f := newFleet(t, memory(t), 30)
	f.versions = append(f.versions, "1.0.5", "1.1.0")
	for i, h := range f.hosts {
		h.Open, h.gone, h.tooOld = i%3 != 0, i%5 == 0, i%7 == 0
	}
	f.on(func(s *Settings) {
		for i := range s.Rings {
			s.Rings[i].SoakMinutes = 0
		}
	})
	for range 60 {
		f.pass(6 * time.Minute)
		f.finish(deploy.UpgradeStateSucceeded)
	}
	for _, o := range f.orders {
		if h := f.host(o.device); !h.Open || h.gone {
			t.Errorf("%s was asked: %+v", o.device, h)
		}
	}
	lines := f.engine.Devices(org, Query{State: "waiting"})
	for _, l := range lines {
		h := f.host(event.DeviceID(l.Device.ID))
		switch {
		case !h.Open && l.Waits != "window", h.Open && l.Waits != "turn" && (!h.tooOld || l.Reason == nil || l.Reason.ID != deploy.UpgradeTooOld):
			t.Errorf("%+v", l)
		}
	}
	if v := f.view(); v.State == Done || v.State == Halted || len(lines) == 0 {
		t.Errorf("a window that is shut is not waited for: %+v", v)
	}
	for _, h := range f.hosts {
		h.Open = true
	}
	for range 60 {
		f.pass(6 * time.Minute)
		f.finish(deploy.UpgradeStateSucceeded)
	}
	if v := f.view(); v.State != Done {
		t.Errorf("%+v", v)
	}
	lines = f.engine.Devices(org, Query{State: "waiting"})
	for _, l := range lines {
		if l.Reason == nil || l.Reason.ID != deploy.UpgradeTooOld {
			t.Errorf("%+v", l)
		}
	}
	if len(lines) == 0 {
		t.Error("agents that are too old are not shown")
	}
	// One that was too old got another agent by hand.
	old := f.hosts[7]
	old.Version, old.tooOld = "1.0.5", false
	f.pass(time.Minute)
	if old.doing == nil {
		t.Error("it can be told now, and is not")
	}
}

func TestRollback(t *testing.T) {
	f := newFleet(t, memory(t), 40)
	f.versions = []string{"0.9.0", "1.0.0"}
	for i, h := range f.hosts {
		if h.Version = "1.0.0"; i%4 == 0 {
			h.Version = "0.9.0"
		}
	}
	if err := f.engine.Rollback(t.Context(), org); !fault.Is(err, fault.Conflict) {
		t.Error(err)
	}
	before := map[event.DeviceID]string{}
	for _, h := range f.hosts {
		before[h.ID] = h.Version
	}
	f.versions = append(f.versions, "1.1.0")
	f.on(func(s *Settings) {
		for i := range s.Rings {
			s.Rings[i].SoakMinutes = 0
		}
	})
	for range 30 {
		f.pass(6 * time.Minute)
		if f.inRing("broad", "asked") > 0 {
			break
		}
		f.finish(deploy.UpgradeStateSucceeded)
	}
	middle := 0 // some are in the middle of it
	for _, h := range f.hosts {
		if h.doing != nil {
			middle++
			f.tell(h, deploy.UpgradeStateInstalling)
		}
	}
	upgraded := len(f.orders)
	f.must(f.engine.Rollback(t.Context(), org))
	f.on(func(s *Settings) { s.Automatic = false }) // nothing else begins by itself
	fresh := f.add("1.1.0")                         // was installed with it, and has no version from before
	f.open()
	for range 30 {
		f.pass(time.Minute)
		f.check()
		f.finish(deploy.UpgradeStateSucceeded)
	}
	if v := f.view(); v.State != Done || !v.Rollback || v.Target != "1.0.0" || middle == 0 {
		t.Errorf("%+v, %d were in the middle of it", v, middle)
	}
	for _, h := range f.hosts {
		if h == fresh {
			if h.Version != "1.1.0" {
				t.Error("a device without a version from before was changed")
			}
		} else if h.Version != before[h.ID] {
			t.Errorf("%s has %s, had %s", h.ID, h.Version, before[h.ID])
		}
	}
	for _, o := range f.orders[upgraded:] {
		if !o.order.Downgrade || o.was != "1.1.0" {
			t.Errorf("%+v", o)
		}
	}
	if version, avoid := f.engine.Wanted(org); version != "1.0.0" || strings.Join(avoid, " ") != "1.1.0" {
		t.Errorf("new machines get %q and not %q", version, avoid)
	}
	if diff := cmp.Diff([]string{"upgrade.change", "upgrade.rollback", "upgrade.change"}, f.audited); diff != "" {
		t.Error(diff)
	}
	n := len(f.orders)
	f.on(nil)
	for range 30 {
		f.pass(6 * time.Minute)
		f.finish(deploy.UpgradeStateSucceeded)
	}
	for _, o := range f.orders[n:] {
		if o.order.Downgrade || o.order.Version != "1.0.0" || o.was != "0.9.0" {
			t.Errorf("after the rollback only those that have something older than the target are asked: %+v", o)
		}
	}
	if v := f.view(); v.State != Done || v.Rollback || v.Rollout != "1.0.0" || len(f.orders) == n {
		t.Errorf("the target of the rollback is not reached: %+v", v)
	}
	if version, avoid := f.engine.Wanted(org); version != "1.0.0" || strings.Join(avoid, " ") != "1.1.0" {
		t.Errorf("then new machines get %q and not %q", version, avoid)
	}
}

func TestHaltAndResumeByHand(t *testing.T) {
	f := newFleet(t, memory(t), 100)
	f.versions = append(f.versions, "1.1.0")
	f.on(nil)
	f.pass(time.Minute)
	f.must(f.engine.Halt(t.Context(), org))
	n := len(f.orders)
	f.versions = append(f.versions, "1.2.0")
	f.finish(deploy.UpgradeStateFailed)
	for range 5 {
		f.pass(time.Hour)
	}
	if v := f.view(); v.State != Halted || v.Halted != nil || len(f.orders) != n {
		t.Fatalf("%+v, %d orders after %d", v, len(f.orders), n)
	}
	if err := f.engine.Halt(t.Context(), org); !fault.Is(err, fault.Conflict) {
		t.Error(err)
	}
	f.must(f.engine.Resume(t.Context(), org))
	if got := f.inRing("", "failed"); got != 0 {
		t.Errorf("%d still count", got)
	}
	f.pass(time.Minute)
	if v := f.view(); v.Rollout != "1.2.0" || v.State != Running || len(f.orders) == n {
		t.Errorf("%+v", v)
	}
}

func TestSettingsAreChecked(t *testing.T) {
	f := newFleet(t, memory(t), 3)
	good := defaults()
	for what, change := range map[string]func(*Settings){
		"a version that is not there": func(s *Settings) { s.Target = "7.0.0" },
		"no version":                  func(s *Settings) { s.Target = "latest" },
		"two rings":                   func(s *Settings) { s.Rings = s.Rings[:2] },
		"another order":               func(s *Settings) { slices.Reverse(s.Rings) },
		"a share of 101":              func(s *Settings) { s.Rings[0].Share = 101 },
		"no share":                    func(s *Settings) { s.Rings[0].Share = math.NaN() },
		"a soak of a year":            func(s *Settings) { s.Rings[0].SoakMinutes = 525_600 },
	} {
		s := good.Settings
		s.Rings = slices.Clone(good.Rings)
		change(&s)
		if err := f.engine.Save(t.Context(), org, Change{s, 1}); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := f.engine.Save(t.Context(), org, Change{good.Settings, 7}); !fault.Is(err, fault.Conflict) {
		t.Errorf("over another change: %v", err)
	}
}

// TestSmallFleetHasACanary: five percent of three devices are none.
func TestSmallFleetHasACanary(t *testing.T) {
	for n := 2; n < 12; n++ {
		f := newFleet(t, memory(t), n)
		f.versions = append(f.versions, "1.1.0")
		f.on(nil)
		f.pass(time.Minute)
		if v := f.view(); len(f.orders) == 0 || len(f.orders) >= n || v.Current != "canary" {
			t.Errorf("%d devices: %d were asked first, %+v", n, len(f.orders), v)
		}
	}
}
