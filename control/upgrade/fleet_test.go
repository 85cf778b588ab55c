package upgrade

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/uptrace/bun"
	"golang.org/x/mod/semver"

	"komainu/control/access"
	"komainu/control/db"
	"komainu/deploy"
	"komainu/event"
	"komainu/fault"
)

const org = "org"

// host is a pretend device.
type host struct {
	Device
	gone   bool // its plan is off
	tooOld bool
	deaf   bool // what it is sent gets lost
	refuse bool
	doing  *deploy.Upgrade
	last   *deploy.UpgradeStatus // that it has told
}

// sent is one order that a device got.
type sent struct {
	at     time.Time
	device event.DeviceID
	order  deploy.Upgrade
	was    string // the version that it had

	// Of the rollout that it was sent for.
	version  string
	rollback bool
	halted   bool
	reached  int // the ring, or all of them when it is through
}

// fleet is the world around an engine, moved by hand.
type fleet struct {
	t        fataler
	now      time.Time
	state    *bun.DB
	engine   *Engine
	hosts    []*host
	versions []string // that the repository offers
	missing  []string // packages that it has not, "1.1.0 rpm arm64"
	orders   []sent
	halts    []deploy.Reason
	audited  []string
	atOnce   int
}

type fataler interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
	Errorf(string, ...any)
}

func newFleet(t fataler, state *bun.DB, devices int) *fleet {
	f := &fleet{t: t, now: time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC), state: state, versions: []string{"1.0.0"}, atOnce: 5}
	for range devices {
		f.add("1.0.0")
	}
	f.open()
	return f
}

// memory is a migrated database that is empty again.
func memory(t testing.TB) *bun.DB {
	t.Helper()
	state, err := db.OpenMemory()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { state.Close() })
	if err := db.Migrate(t.Context(), state, Migrations); err != nil {
		t.Fatal(err)
	}
	return state
}

func (f *fleet) add(version string) *host {
	id := event.DeviceID(fmt.Sprintf("device-%d", len(f.hosts)))
	h := &host{Device: Device{ID: id, Name: string(id), Version: version, Connected: true, LastSeen: f.now, Healthy: true, Reported: f.now, Open: true}}
	f.hosts = append(f.hosts, h)
	return h
}

func (f *fleet) host(id event.DeviceID) *host {
	return f.hosts[slices.IndexFunc(f.hosts, func(h *host) bool { return h.ID == id })]
}

// open opens the engine, as a start does.
func (f *fleet) open() {
	f.t.Helper()
	e, err := Open(context.Background(), Config{
		DB: f.state, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return f.now }, AtOnce: f.atOnce,
		Record: func(_ context.Context, _ bun.IDB, c access.Change) error {
			f.audited = append(f.audited, c.Action)
			return nil
		},
		Devices: func(string) (list []Device) {
			for _, h := range f.hosts {
				if h.Connected {
					h.LastSeen = f.now
				}
				if !h.gone {
					list = append(list, h.Device)
				}
			}
			return list
		},
		Newest: func() string { return f.versions[len(f.versions)-1] },
		Offers: func(v, form, arch string) bool {
			return slices.Contains(f.versions, v) && !slices.Contains(f.missing, v+" "+form+" "+arch)
		},
		Send: f.send,
		Halted: func(_ context.Context, _ bun.IDB, _, _, _ string, why deploy.Reason) error {
			f.halts = append(f.halts, why)
			return nil
		},
	})
	if err != nil {
		f.t.Fatal(err)
	}
	e.longest = 365 * 24 * time.Hour // hours pass here between two looks
	f.engine = e
}

// send is what the network does. The engine holds no lock, but a test looks
// only when all are answered.
func (f *fleet) send(_ context.Context, id event.DeviceID, u deploy.Upgrade) error {
	f.engine.mu.Lock()
	defer f.engine.mu.Unlock()
	h := f.host(id)
	r := f.engine.all[org].rollout
	reached := r.Ring
	if r.State == Done {
		reached = len(ringIDs)
	}
	f.orders = append(f.orders, sent{f.now, id, u, h.Version, r.Version, r.Origin != "", r.State == Halted, reached})
	switch {
	case !h.Connected:
		return fault.New(fault.Unavailable, "not connected")
	case h.tooOld:
		return fault.New(fault.Unsupported, "too old")
	case h.deaf:
		return context.DeadlineExceeded
	case h.refuse, h.doing != nil && h.doing.ID != u.ID:
		return fault.New(fault.Conflict, "it does something else")
	}
	if h.doing == nil && (h.last == nil || h.last.ID != u.ID) {
		h.doing = &u
	}
	return nil
}

// look has the engine go a step, and waits for the answers of devices.
func (f *fleet) look() {
	f.t.Helper()
	e := f.engine
	e.mu.Lock()
	e.clock()
	err := e.look(context.Background(), e.of(org))
	e.mu.Unlock()
	if err != nil {
		f.t.Fatal(err)
	}
	e.tasks.Wait()
}

// tell has a device say how far it is; one that succeeds has the version then.
func (f *fleet) tell(h *host, state deploy.UpgradeState) {
	f.t.Helper()
	s := deploy.UpgradeStatus{ID: h.doing.ID, From: h.Version, To: h.doing.Version, State: state, Started: f.now}
	if state.Terminal() {
		s.Gap = 400 * time.Millisecond
		if state == deploy.UpgradeStateSucceeded {
			h.Version = h.doing.Version
		} else {
			s.Reason = &deploy.Reason{ID: deploy.UpgradeRolledBack, Text: "<b>not ours</b>", Detail: "the sensor is failed"}
		}
		h.doing = nil
	}
	h.last = &s
	if h.Connected {
		f.report(h)
	}
}

func (f *fleet) report(h *host) {
	f.t.Helper()
	if h.last != nil {
		if err := f.engine.Report(context.Background(), org, h.ID, *h.last); err != nil {
			f.t.Fatal(err)
		}
	}
}

// finish ends everything that devices do.
func (f *fleet) finish(state deploy.UpgradeState) {
	f.t.Helper()
	for _, h := range f.hosts {
		if h.doing != nil {
			f.tell(h, state)
		}
	}
}

// pass lets time pass, with a look at its end.
func (f *fleet) pass(d time.Duration) {
	f.t.Helper()
	f.now = f.now.Add(d)
	for _, h := range f.hosts {
		if h.Connected {
			h.Reported = f.now
		}
	}
	for n := -1; n != len(f.orders); { // the answers of devices wake it
		n = len(f.orders)
		f.look()
		f.look()
	}
}

func (f *fleet) view() View { return f.engine.Get(org) }

// on switches upgrades on.
func (f *fleet) on(change func(*Settings)) {
	f.t.Helper()
	v := f.view()
	s := v.Settings
	s.Automatic = true
	if change != nil {
		change(&s)
	}
	if err := f.engine.Save(context.Background(), org, Change{s, v.Version}); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fleet) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// inRing counts the devices of a ring that the engine says are so.
func (f *fleet) inRing(ring, state string) int {
	return len(f.engine.Devices(org, Query{Ring: ring, State: state}))
}

// check holds what has to be true at any time.
func (f *fleet) check() {
	f.t.Helper()
	v := f.view()
	active := 0
	for _, p := range v.Progress {
		for state, want := range map[string]int{"": p.Devices, "done": p.Done, "failed": p.Failed, "waiting": p.Waiting} {
			if got := f.inRing(p.Ring, state); got != want {
				f.t.Fatalf("ring %s: the list of %q has %d devices, the number says %d", p.Ring, state, got, want)
			}
		}
		if p.Done+p.Failed+p.Waiting != p.Devices {
			f.t.Fatalf("%+v", p)
		}
	}
	for _, l := range f.engine.Devices(org, Query{}) {
		if slices.Contains([]string{"asked", "fetching", "ready", "installing", "probation"}, l.State) {
			// One that was given up after hours of silence may go on all the same.
			if j := f.engine.all[org].jobs[event.DeviceID(l.Device.ID)]; !j.Waited {
				active++
			}
		}
		if l.Reason != nil && l.Reason.Text == "<b>not ours</b>" {
			f.t.Fatal("a text of a device is shown as ours")
		}
	}
	if active > f.atOnce {
		f.t.Fatalf("%d devices are in the middle of it at once", active)
	}
	// Too many of a ring that ended badly: nothing is on its way any more.
	if v.State == Running && !v.Rollback {
		for i, p := range v.Progress {
			if p.Failed >= bound(i, p.Devices) && p.Failed > f.forgiven(p.Ring) {
				f.t.Fatalf("it goes on with %d of %d failed in %s", p.Failed, p.Devices, p.Ring)
			}
		}
	}
}

// forgiven counts what somebody resumed in spite of, and what could not go
// back.
func (f *fleet) forgiven(ring string) (n int) {
	for _, j := range f.engine.all[org].jobs {
		if j.Ring == ring && (j.Forgiven || j.bad() && j.back()) {
			n++
		}
	}
	return n
}

func isNewer(a, b string) bool { return semver.Compare("v"+a, "v"+b) > 0 }
