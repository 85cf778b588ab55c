package upgrade

import (
	"testing"
	"time"

	"komainu/deploy"
)

// TestPackagesComeOneByOne: who has no package yet waits, and is asked when it
// is there. The others go on.
func TestPackagesComeOneByOne(t *testing.T) {
	f := newFleet(t, memory(t), 40)
	f.versions = append(f.versions, "1.1.0")
	for i, h := range f.hosts {
		if h.Form, h.Arch = "deb", "amd64"; i%2 == 0 {
			h.Form, h.Arch = "rpm", "arm64"
		}
	}
	f.missing = []string{"1.1.0 rpm arm64"}
	f.on(noSoak)
	f.goOn(60, 6*time.Minute)
	v := f.view()
	if v.State != Done || len(v.Held) != 1 || v.Held[0].Reason.ID != deploy.NoPackage || v.Held[0].Reason.Detail != "1.1.0 rpm arm64" || v.Held[0].Devices != 20 {
		t.Fatalf("%+v", v)
	}
	for _, l := range f.engine.Devices(org, Query{State: "waiting"}) {
		if l.Reason == nil || l.Reason.ID != deploy.NoPackage || l.Waits != "" {
			t.Errorf("%+v", l)
		}
	}
	if n := len(f.engine.Devices(org, Query{Held: string(deploy.NoPackage)})); n != v.Held[0].Devices {
		t.Errorf("%d devices behind the number %d", n, v.Held[0].Devices)
	}
	if list := f.engine.Devices(org, Query{Held: string(deploy.UpgradeNoWayBack)}); len(list) != 0 {
		t.Errorf("for another reason wait %+v", list)
	}
	if len(f.upgraded("1.1.0")) != 20 || len(f.orders) != 20 {
		t.Errorf("%d have it, %d were asked", len(f.upgraded("1.1.0")), len(f.orders))
	}
	f.missing = []string{"1.0.0 rpm arm64"}
	f.goOn(1, time.Minute)
	if v := f.view(); len(v.Held) != 1 || v.Held[0].Reason.ID != deploy.UpgradeNoWayBack {
		t.Errorf("without a way back: %+v", v)
	}
	f.missing = nil
	f.goOn(10, time.Minute)
	if v := f.view(); len(v.Held) != 0 || len(f.upgraded("1.1.0")) != 40 {
		t.Errorf("%+v", v)
	}
}

// TestNobodyCanTryIt: a version that no device can get yet is not through, or
// all of them would get it at once when they can.
func TestNobodyCanTryIt(t *testing.T) {
	f := newFleet(t, memory(t), 40)
	f.versions = append(f.versions, "1.1.0")
	f.missing = []string{"1.1.0  "}
	f.on(noSoak)
	f.goOn(60, 6*time.Minute)
	if v := f.view(); v.State != Running || v.Current != "canary" || v.Held[0].Devices != 40 {
		t.Fatalf("%+v", v)
	}
	f.missing = nil
	f.pass(time.Minute)
	if v := f.view(); len(f.orders) == 0 || len(f.orders) != v.Progress[0].Devices {
		t.Errorf("%d are asked: %+v", len(f.orders), v)
	}
}

// failFor ends what a device does for a reason.
func (f *fleet) failFor(h *host, reason deploy.ReasonID) {
	f.t.Helper()
	h.last = &deploy.UpgradeStatus{ID: h.doing.ID, From: h.Version, To: h.doing.Version, State: deploy.UpgradeStateFailed, Reason: &deploy.Reason{ID: reason, Detail: "detail"}}
	h.doing = nil
	f.report(h)
}

// TestReasonsOfTheHost: what says nothing about the version halts nothing,
// keeps nobody waiting, and is tried again.
func TestReasonsOfTheHost(t *testing.T) {
	for _, reason := range neutral {
		f := begun(t, 40, nil)
		h := f.host(f.orders[0].device)
		f.failFor(h, reason)
		f.pass(time.Second)
		if v := f.view(); v.State != Running || len(v.Held) != 1 || v.Held[0].Reason.ID != reason || v.Held[0].Devices != 1 || v.Progress[0].Failed != 0 {
			t.Fatalf("%s: %+v", reason, v)
		}
		if reason != deploy.PackageManagerBusy {
			continue
		}
		// It stays so, and tells it again with each connection: the others soak.
		for range 400 {
			f.report(h)
			for _, o := range f.hosts {
				switch {
				case o.doing != nil && o == h:
					f.failFor(h, reason)
				case o.doing != nil:
					f.tell(o, deploy.UpgradeStateSucceeded)
				}
			}
			f.pass(time.Minute)
		}
		f.check()
		if v := f.view(); v.State == Halted || v.Current == "canary" {
			t.Errorf("%s: one device that waits holds the others up: %+v", reason, v)
		}
		if n := f.askedFor(h.ID); n < 20 || n > 45 {
			t.Errorf("%s: it was asked %d times in 400 minutes", reason, n)
		}
		f.goOn(60, 6*time.Minute)
		if h.Version != "1.1.0" {
			t.Errorf("%s: it is never asked again: %+v", reason, lineOf(f, h.ID))
		}
	}
}

// TestUntrustedHalts: that a package is not what was signed is no matter of one
// host.
func TestUntrustedHalts(t *testing.T) {
	f := begun(t, 40, nil)
	f.failFor(f.host(f.orders[0].device), deploy.UpgradeUntrusted)
	f.pass(time.Second)
	if v := f.view(); v.State != Halted {
		t.Errorf("%+v", v)
	}
}

// TestRefusal: an agent that does not begin has not tried the version.
func TestRefusal(t *testing.T) {
	f := newFleet(t, memory(t), 40)
	f.versions = append(f.versions, "1.1.0")
	for i, h := range f.hosts {
		h.refuse = i%2 == 0
	}
	f.on(noSoak)
	f.goOn(60, 6*time.Minute)
	v := f.view()
	if v.State != Done || len(v.Held) != 1 || v.Held[0].Reason.ID != deploy.UpgradeRefused || v.Held[0].Devices != 20 || len(f.upgraded("1.1.0")) != 20 {
		t.Errorf("%+v", v)
	}
}
