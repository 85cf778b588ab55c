package upgrade

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"komainu/control/db"
	"komainu/deploy"
	"komainu/event"
	"komainu/fault"
)

// model is what a naive reader of the documentation keeps of a rollout.
type model struct {
	orders map[string]sent // by the id that the device got
}

// ordered looks at the orders that were given since the last time.
func (m *model) ordered(f *fleet, given []sent, before View, open map[event.DeviceID]bool) {
	f.t.Helper()
	after := f.view()
	for _, o := range given {
		h := f.host(o.device)
		if known, ok := m.orders[o.order.ID]; ok && (known.device != o.device || known.order != o.order) {
			f.t.Fatalf("the id of an order is used twice: %+v and %+v", known, o)
		}
		_, again := m.orders[o.order.ID]
		m.orders[o.order.ID] = o
		switch {
		case o.halted && before.State == Halted && o.version == before.Rollout:
			f.t.Fatalf("%s is asked while it is halted", o.device)
		case h.gone || !again && (!open[o.device] || !h.Connected):
			f.t.Fatalf("%s is asked: gone %v, open %v, connected %v", o.device, h.gone, open[o.device], h.Connected)
		case (o.rollback || !isNewer(o.order.Version, o.was)) != o.order.Downgrade && !again:
			f.t.Fatalf("%+v in %+v", o, after)
		case !o.rollback && !again && !isNewer(o.order.Version, o.was) && !m.left(f, o):
			f.t.Fatalf("%s goes from %s to %s", o.device, o.was, o.order.Version)
		case !o.rollback && !again && !after.Automatic:
			f.t.Fatalf("%s is asked while upgrades are off", o.device)
		}
		if o.rollback || again || o.version != after.Rollout {
			continue
		}
		if ring := slices.Index(ringIDs, lineOf(f, o.device).Ring); ring > o.reached {
			f.t.Fatalf("%s is in %s and is asked while ring %d is", o.device, ringIDs[ring], o.reached)
		}
	}
}

// left reports whether an order has a device leave a version that was taken
// back: it was asked to get it, and a rollback has begun since.
func (m *model) left(f *fleet, o sent) bool {
	asked := slices.IndexFunc(f.orders, func(p sent) bool { return p.device == o.device && p.order.Version == o.was && !p.order.Downgrade })
	return asked >= 0 && slices.Contains(f.audited, "upgrade.rollback") && !o.at.Before(f.orders[asked].at)
}

func lineOf(f *fleet, id event.DeviceID) Line {
	all := f.engine.Devices(org, Query{})
	i := slices.IndexFunc(all, func(l Line) bool { return l.Device.ID == string(id) })
	if i < 0 {
		f.t.Fatalf("%s was asked and is not in the list", id)
	}
	return all[i]
}

// TestRandomFleets has devices come, go, fail and be less well, people change
// their minds, and the control plane stop at any time.
func TestRandomFleets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		state, err := db.OpenMemory()
		if err != nil {
			t.Fatal(err)
		}
		defer state.Close()
		if err := db.Migrate(context.Background(), state, Migrations); err != nil {
			t.Fatal(err)
		}
		f := newFleet(t, state, rapid.IntRange(0, 25).Draw(t, "devices"))
		f.atOnce = rapid.IntRange(1, 6).Draw(t, "at once")
		f.open()
		m := &model{map[string]sent{}}
		step := func(d time.Duration) {
			before, n := f.view(), len(f.orders)
			open := map[event.DeviceID]bool{}
			for _, h := range f.hosts {
				open[h.ID] = h.Open
			}
			f.pass(d)
			m.ordered(f, f.orders[n:], before, open)
			f.check()
		}
		some := func() *host {
			if len(f.hosts) == 0 {
				t.Skip("no devices")
			}
			return rapid.SampledFrom(f.hosts).Draw(t, "device")
		}
		conflict := func(err error) {
			if err != nil && !fault.Is(err, fault.Conflict) {
				t.Fatal(err)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"time passes": func(t *rapid.T) {
				step(rapid.SampledFrom([]time.Duration{5 * time.Second, time.Minute, 6 * time.Minute, 31 * time.Minute, 3 * time.Hour}).Draw(t, "time"))
			},
			"devices go on": func(t *rapid.T) {
				for _, h := range f.hosts {
					if h.doing != nil {
						f.tell(h, rapid.SampledFrom([]deploy.UpgradeState{
							deploy.UpgradeStateFetching, deploy.UpgradeStateInstalling, deploy.UpgradeStateProbation,
							deploy.UpgradeStateSucceeded, deploy.UpgradeStateSucceeded, deploy.UpgradeStateSucceeded, deploy.UpgradeStateSucceeded,
						}).Draw(t, "state"))
					}
				}
				step(time.Minute)
			},
			"one fails": func(t *rapid.T) {
				if h := some(); h.doing != nil {
					f.tell(h, rapid.SampledFrom([]deploy.UpgradeState{deploy.UpgradeStateFailed, deploy.UpgradeStateRolledBack}).Draw(t, "state"))
				}
				step(time.Second)
			},
			"one goes or comes": func(t *rapid.T) {
				h := some()
				if h.Connected = !h.Connected; h.Connected {
					f.report(h)
				}
			},
			"one is unwell, or well again": func(t *rapid.T) { h := some(); h.Healthy = !h.Healthy },
			"a window":                     func(t *rapid.T) { h := some(); h.Open = !h.Open },
			"a plan":                       func(t *rapid.T) { h := some(); h.gone = !h.gone },
			"one is odd": func(t *rapid.T) {
				h := some()
				h.tooOld, h.deaf, h.refuse = rapid.Bool().Draw(t, "old"), rapid.Bool().Draw(t, "deaf"), rapid.Bool().Draw(t, "refuse")
			},
			"a device more": func(*rapid.T) { f.add(f.versions[0]) },
			"a version more": func(*rapid.T) {
				if len(f.versions) < 6 {
					f.versions = append(f.versions, fmt.Sprintf("1.%d.0", len(f.versions)))
				}
			},
			"settings": func(t *rapid.T) {
				v := f.view()
				s := v.Settings
				s.Automatic = rapid.IntRange(0, 4).Draw(t, "on") > 0
				s.Target = rapid.SampledFrom(append([]string{Newest, Newest}, f.versions...)).Draw(t, "target")
				f.must(f.engine.Save(context.Background(), org, Change{s, v.Version}))
			},
			"halt":     func(*rapid.T) { conflict(f.engine.Halt(context.Background(), org)) },
			"resume":   func(*rapid.T) { conflict(f.engine.Resume(context.Background(), org)) },
			"rollback": func(*rapid.T) { conflict(f.engine.Rollback(context.Background(), org)) },
			"a restart": func(t *rapid.T) {
				before, lines := f.view(), f.engine.Devices(org, Query{})
				f.open()
				if diff := cmp.Diff(before, f.view()); diff != "" {
					t.Fatal("after a restart: " + diff)
				}
				if diff := cmp.Diff(lines, f.engine.Devices(org, Query{})); diff != "" {
					t.Fatal("after a restart: " + diff)
				}
			},
		})
		f.settle(t)
	})
}

// settle makes everything well: what has begun has to come to its end.
func (f *fleet) settle(t *rapid.T) {
	for _, h := range f.hosts {
		if !h.Connected {
			f.report(h) // it tells again what nobody has heard
		}
		h.Connected, h.Healthy, h.Open, h.gone, h.tooOld, h.deaf, h.refuse = true, true, true, false, false, false, false
	}
	f.on(func(s *Settings) { s.Target = Newest })
	newest := f.versions[len(f.versions)-1]
	for i := range 300 {
		if f.view().State == Halted {
			f.must(f.engine.Resume(context.Background(), org))
		}
		f.finish(deploy.UpgradeStateSucceeded)
		if f.pass(31 * time.Minute); i%10 == 0 {
			f.check()
		}
		left := slices.ContainsFunc(f.hosts, func(h *host) bool { return h.Version != newest })
		if state := f.view().State; !left && (state == Done || state == Idle) {
			return
		}
	}
	for _, l := range f.engine.Devices(org, Query{}) {
		t.Logf("%+v", l)
	}
	t.Fatalf("it does not come to an end: %+v", f.view())
}
