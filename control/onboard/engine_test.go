package onboard

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"komainu/control/access"
	"komainu/control/db"
	"komainu/control/machine"
	"komainu/deploy"
	"komainu/drill"
	"komainu/event"
	"komainu/fault"
	"komainu/policy"
)

// world is what an engine works on: hosts that answer as a test wants, and
// the agents that come to be on them.
type world struct {
	t        *testing.T
	engine   *Engine
	machines *machine.Registry
	db       *bun.DB

	mu      sync.Mutex
	plan    Plan
	hosts   map[string]*fakeHost // by address
	devices map[event.DeviceID]*Device
	tokens  map[string]string // machine by token
	runs    map[string]event.DeviceID
	silent  bool          // tests give no answer
	asked   int           // how often a device was asked for
	later   time.Duration // than it really is
	kept    time.Duration // of offboarded devices, as the engine said last
	most    int           // of hosts that were worked on at once
	working int
}

// fakeHost answers the host script.
type fakeHost struct {
	w                  *world
	facts              []string // beside good ones
	fail               string   // of the installation
	refuse             *deploy.Failure
	panics             bool
	holds              chan struct{} // the installation waits for it
	installed, removed int
	version            string // of the package that came last
	device             event.DeviceID
	ip                 string
	key                event.DeviceID // the device that it can prove to be
	replays            string         // what it says when it is to prove that, instead
	proofs             int            // that it was asked for
}

// proof is what an agent says that has the key of a device.
func proof(device event.DeviceID, n string) string { return string(device) + "." + n }

// RemoteIP is where the host is reached.
func (h *fakeHost) RemoteIP() string { return h.ip }

const org, env = "org", "env"

func newWorld(t *testing.T, hosts ...string) *world {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	w := &world{t: t, plan: Plan{Tier: policy.P2, Protect: true}, hosts: map[string]*fakeHost{}, devices: map[event.DeviceID]*Device{}, tokens: map[string]string{}, runs: map[string]event.DeviceID{}}
	var err error
	w.db, err = db.OpenMemory()
	must(err)
	t.Cleanup(func() { w.db.Close() })
	must(db.Migrate(t.Context(), w.db, machine.Migrations, Migrations))
	w.machines, err = machine.Open(t.Context(), w.db, machine.Config{Now: w.now, Record: func(context.Context, bun.IDB, access.Change) error { return nil }, Changed: func(string, string) {
		if w.engine != nil {
			w.engine.Wake()
		}
	}})
	must(err)
	w.inventory(hosts...)
	w.engine, err = Open(t.Context(), w.config())
	must(err)
	w.engine.opened = w.engine.opened.Add(-24 * time.Hour)
	return w
}

func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now().Add(w.later)
}

// inventory makes hosts known.
func (w *world) inventory(names ...string) {
	w.t.Helper()
	var list []machine.Known
	for _, n := range names {
		w.mu.Lock()
		if w.hosts[n] == nil {
			w.hosts[n] = &fakeHost{w: w}
		}
		w.mu.Unlock()
		list = append(list, machine.Known{Key: n, Name: n, Address: n, System: "linux"})
	}
	if _, err := w.machines.Sync(w.t.Context(), org, env, "way", "ssh", machine.Inventory{Machines: list}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) config() Config {
	return Config{
		DB: w.db, Now: w.now, Log: slog.New(slog.DiscardHandler), Machines: w.machines, Record: func(context.Context, bun.IDB, access.Change) error { return nil },
		Plan: func(context.Context, string, string) (Plan, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.plan, nil
		},
		Reach: func(_ context.Context, m machine.Machine) (deploy.Host, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			h := w.hosts[m.Address]
			if h.panics {
				panic("a defect that only this host brings about")
			}
			if h.refuse != nil {
				return nil, h.refuse
			}
			return h, nil
		},
		Package: func(device event.DeviceID, has, format, arch string) (Package, bool) {
			version := "2.0.0"
			if device != "" && has != "" {
				version = has
			}
			return Package{Version: version, SHA256: version, Size: 3, Content: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("deb")), nil }}, format == "deb" && arch == "amd64"
		},
		Token: func(_ context.Context, m machine.Machine) (string, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			token := fmt.Sprintf("kmj1.%d", len(w.tokens))
			w.tokens[token] = m.ID
			return token, nil
		},
		Device: func(_ string, id event.DeviceID) *Device {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.asked++
			if d := w.devices[id]; d != nil {
				return new(*d)
			}
			return nil
		},
		Proves: func(_ context.Context, id event.DeviceID, n deploy.Nonce, text string) error {
			if text != proof(id, string(n)) {
				return fault.New(fault.Unauthentic, "it proves nothing")
			}
			return nil
		},
		Revoke: func(_ context.Context, _ string, id event.DeviceID) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.devices[id].Offboarded = true
			return nil
		},
		Test: func(_ context.Context, _ string, id event.DeviceID, _ string) (string, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			run := fmt.Sprintf("run-%d", len(w.runs))
			w.runs[run] = id
			return run, nil
		},
		Tested: func(_ context.Context, _, run string) (drill.Run, string, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.silent {
				return drill.New(run, "eicar", time.Now()), "", nil
			}
			return drill.Run{Outcome: drill.Passed}, "alert-of-" + run, nil
		},
		Expire: func(_ context.Context, keep func(string) time.Duration) error {
			kept := keep(env)
			w.mu.Lock()
			defer w.mu.Unlock()
			w.kept = kept
			return nil
		},
		Policy: func(event.DeviceID) {}, Changed: func(string, string) {},
	}
}

// Run is deploy.Host.Run.
func (h *fakeHost) Run(ctx context.Context, _ string, args []string, stdin io.Reader, line func(string)) error {
	h.w.mu.Lock()
	h.w.working++
	h.w.most = max(h.w.most, h.w.working)
	h.w.mu.Unlock()
	defer func() { h.w.mu.Lock(); h.w.working--; h.w.mu.Unlock() }()
	switch args[0] {
	case "facts":
		for _, f := range append([]string{"uid 0", "os debian", "os_version 12", "os_name Debian", "system Linux", "kernel 6.1.0", "arch x86_64", "init systemd", "manager deb", "reach ok"}, h.facts...) {
			line("fact " + f)
		}
		line("done")
		return nil
	case "prove":
		h.w.mu.Lock()
		h.proofs++
		says := h.replays
		if n, _ := strings.CutPrefix(args[1], "nonce="); h.key != "" {
			says = proof(h.key, n)
		}
		h.w.mu.Unlock()
		line("fact proof " + says)
		line("done")
		return nil
	case "remove":
		h.w.mu.Lock()
		h.removed++
		h.w.mu.Unlock()
		line("done")
		return nil
	}
	if h.holds != nil {
		select {
		case <-h.holds:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	line("step transfer")
	text, err := io.ReadAll(stdin)
	if err != nil {
		return err
	}
	line("step install")
	if h.fail != "" {
		line("fail " + h.fail)
		return &deploy.Exit{Code: 90}
	}
	h.w.mu.Lock()
	for _, a := range args {
		if version, ok := strings.CutPrefix(a, "sha256="); ok {
			h.version = version
		}
	}
	h.w.mu.Unlock()
	if token, _, _ := strings.Cut(string(text), "\n"); slices.Contains(args, "token=-") {
		h.enrol(ctx, token)
	} else {
		h.w.mu.Lock()
		h.installed++ // it keeps its identity
		h.w.mu.Unlock()
	}
	line("done 2.0.0 " + string(h.device))
	return nil
}

func (h *fakeHost) Close() error { return nil }

// enrol is what the agent does with the token.
func (h *fakeHost) enrol(ctx context.Context, token string) {
	h.w.mu.Lock()
	h.installed++
	id := h.w.tokens[token]
	h.device = event.DeviceID(fmt.Sprintf("device-%d", len(h.w.devices)))
	h.w.devices[h.device] = &Device{ID: h.device, Connected: true, Confirmed: true, Version: "2.0.0"}
	h.w.mu.Unlock()
	if err := h.w.machines.Enrolled(ctx, org, env, id, h.device, machine.Known{}, time.Time{}); err != nil && !fault.Is(err, fault.Denied) {
		h.w.t.Error(err)
	}
	h.w.engine.News()
}

// run runs the engine until the test ends.
func (w *world) run() (stop func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := w.engine.Run(ctx); err != nil {
			w.t.Error(err)
		}
	}()
	stop = func() { cancel(); <-done }
	w.t.Cleanup(stop)
	return stop
}

// becomes waits until a machine is in a state for a reason.
func (w *world) becomes(name string, state deploy.State, reason deploy.ReasonID) machine.Machine {
	w.t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		m := w.machine(name)
		id := deploy.ReasonID("")
		if m.Extension.Reason != nil {
			id = m.Extension.Reason.ID
		}
		if m.Extension.State == state && id == reason {
			return m
		}
		select {
		case <-deadline:
			w.t.Fatalf("%s is %+v, want %s %s", name, m.Extension, state, reason)
		case <-tick.C:
		}
	}
}

func (w *world) machine(name string) machine.Machine {
	w.t.Helper()
	for _, m := range w.machines.All(env) {
		if m.Name == name {
			return *m
		}
	}
	w.t.Fatalf("there is no machine %s", name)
	return machine.Machine{}
}

// until waits until something holds.
func (w *world) until(what string, holds func() bool) {
	w.t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		w.mu.Lock()
		ok := holds()
		w.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-deadline:
			w.t.Fatalf("not in time: %s", what)
		case <-tick.C:
		}
	}
}

func (w *world) set(f func()) { w.mu.Lock(); f(); w.mu.Unlock(); w.engine.Wake() }

func TestPlanOnProtectsAllAndLaterOnes(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.plan.Tier = policy.Off
	w.run()
	w.becomes("a", deploy.None, deploy.PlanOff)
	w.set(func() { w.plan.Tier = policy.P2 })
	for _, name := range []string{"a", "b"} {
		m := w.becomes(name, deploy.Succeeded, "")
		if m.Extension.Alert == "" || m.Extension.Protected.IsZero() || m.Device == "" || m.OS != "Debian" || m.Extension.Attempt != 0 {
			t.Errorf("%+v", m)
		}
	}
	w.inventory("a", "b", "c")
	w.becomes("c", deploy.Succeeded, "")
	lines, err := w.machines.Journal(t.Context(), w.machine("c").ID)
	if err != nil || len(lines) < 6 || lines[0].Step != deploy.Connect || lines[len(lines)-1].Step != deploy.SelfTest {
		t.Errorf("journal %+v, %v", lines, err)
	}
	w.set(func() { w.plan.Tier = policy.Off })
	w.becomes("a", deploy.None, deploy.PlanOff)
}

func TestReasonsAreSaidAndTriedAgain(t *testing.T) {
	w := newWorld(t, "busy", "gone", "odd", "full", "panics", "good")
	w.hosts["busy"].fail = "package_manager_busy apt-get, process 7"
	w.hosts["gone"].refuse = deploy.Fail(deploy.Unreachable, "no route")
	w.hosts["odd"].facts = []string{"os plan9"}
	w.hosts["full"].facts = []string{"var_kb 10"}
	w.hosts["panics"].panics = true
	w.run()
	w.becomes("good", deploy.Succeeded, "")
	if m := w.becomes("busy", deploy.Failed, deploy.PackageManagerBusy); m.Extension.Next.IsZero() || m.Extension.Reason.Detail != "apt-get, process 7" {
		t.Errorf("%+v", m.Extension)
	}
	w.becomes("gone", deploy.Failed, deploy.Unreachable)
	if m := w.becomes("odd", deploy.NotApplicable, deploy.OSUnsupported); time.Until(m.Extension.Next) < 30*time.Minute {
		t.Errorf("what a retry does not mend is tried again at %s", m.Extension.Next)
	}
	w.becomes("full", deploy.Failed, deploy.DiskFull)
	if w.hosts["full"].installed+w.hosts["odd"].installed != 0 {
		t.Error("a host that must not be changed was")
	}
	// Somebody mends it and asks for it.
	w.set(func() { w.hosts["busy"].fail = "" })
	if err := w.machines.Request(t.Context(), org, w.machine("busy").ID, false, false); err != nil {
		t.Fatal(err)
	}
	w.becomes("busy", deploy.Succeeded, "")
}

func TestConcurrencyIsBounded(t *testing.T) {
	var names []string
	for i := range 12 {
		names = append(names, fmt.Sprintf("h%02d", i))
	}
	w := newWorld(t, names...)
	if _, err := w.engine.Save(t.Context(), org, env, "e", Change{Settings{Automatic: true, Concurrency: 3}, 1}); err != nil {
		t.Fatal(err)
	}
	w.run()
	for _, n := range names {
		w.becomes(n, deploy.Succeeded, "")
	}
	if w.most > 3 {
		t.Errorf("%d at once", w.most)
	}
}

func TestDryRunWindowAndManualChangeNothing(t *testing.T) {
	for name, s := range map[string]Settings{
		WaitsDryRun: {Automatic: true, Concurrency: 1, DryRun: true},
		WaitsManual: {Concurrency: 1},
		WaitsWindow: {Automatic: true, Concurrency: 1, Window: &Window{Start: time.Now().UTC().Add(2 * time.Hour).Format("15:04"), Minutes: 5}},
	} {
		w := newWorld(t, "a")
		if _, err := w.engine.Save(t.Context(), org, env, "e", Change{s, 1}); err != nil {
			t.Fatal(err)
		}
		w.run()
		if m := w.becomes("a", deploy.Waiting, ""); m.Extension.Waits != name || w.hosts["a"].installed != 0 {
			t.Errorf("%s: %+v", name, m.Extension)
		}
		if n := len(w.engine.Considered(env)); n != 1 {
			t.Errorf("%s: %d machines are considered", name, n)
		}
		if would, why, _ := w.engine.Preview(t.Context(), w.engine.Considered(env)[0], w.plan); would != "install" {
			t.Errorf("%s: it would %s, %+v", name, would, why)
		}
		// What somebody asks for is done all the same.
		if err := w.machines.Request(t.Context(), org, w.machine("a").ID, false, false); err != nil {
			t.Fatal(err)
		}
		w.becomes("a", deploy.Succeeded, "")
	}
}

func TestDriftIsRepaired(t *testing.T) {
	w := newWorld(t, "a")
	w.run()
	m := w.becomes("a", deploy.Succeeded, "")
	w.set(func() { *w.devices[m.Device] = Device{ID: m.Device, Silent: time.Hour} })
	w.until("it is repaired", func() bool { return w.hosts["a"].installed == 2 })
	w.becomes("a", deploy.Succeeded, "")
}

// TestRebootIsNoFailure has an agent be silent while its host does not answer
// either: for a while that is a reboot, then it is not.
func TestRebootIsNoFailure(t *testing.T) {
	w := newWorld(t, "a")
	w.run()
	m := w.becomes("a", deploy.Succeeded, "")
	w.set(func() {
		w.hosts["a"].refuse = deploy.Fail(deploy.TimedOut, "it boots")
		*w.devices[m.Device] = Device{ID: m.Device, Silent: time.Minute}
	})
	w.until("somebody looks", func() bool { return !w.machine("a").Extension.Next.IsZero() })
	if m := w.becomes("a", deploy.Succeeded, ""); m.Extension.Attempt != 0 {
		t.Errorf("%+v", m.Extension)
	}
	if err := w.machines.Request(t.Context(), org, m.ID, false, false); err != nil { // it need not wait
		t.Fatal(err)
	}
	w.set(func() { *w.devices[m.Device] = Device{ID: m.Device, Silent: time.Hour} })
	w.becomes("a", deploy.Failed, deploy.TimedOut)
}

func TestInterruptedWorkIsTakenUpAgain(t *testing.T) {
	w := newWorld(t, "a")
	w.hosts["a"].holds = make(chan struct{})
	stop := w.run()
	w.becomes("a", deploy.Creating, "")
	stop()
	if m := w.machine("a"); m.Extension.State != deploy.Creating {
		t.Fatalf("%+v", m.Extension)
	}
	close(w.hosts["a"].holds)
	var err error
	if w.machines, err = machine.Open(t.Context(), w.db, machine.Config{}); err != nil {
		t.Fatal(err)
	}
	if w.engine, err = Open(t.Context(), w.config()); err != nil {
		t.Fatal(err)
	}
	w.run()
	w.becomes("a", deploy.Succeeded, "")
}

func TestSelfTestOfAnAgentThatWasRestartedIsBegunAgain(t *testing.T) {
	w := newWorld(t, "a")
	w.set(func() { w.silent = true })
	w.run()
	w.until("a test is begun", func() bool { return len(w.runs) == 1 })
	device := w.machine("a").Device
	w.set(func() { w.devices[device].Connected = false })
	w.engine.News()
	asked := 0
	w.until("the engine has seen it go", func() bool { asked = w.asked; return asked > 0 })
	w.until("the engine has looked since", func() bool { w.engine.News(); return w.asked > asked+2 })
	w.set(func() { w.devices[device].Connected = true })
	w.engine.News()
	w.until("another test is begun", func() bool { return len(w.runs) == 2 })
	w.set(func() { w.silent = false })
	w.engine.News()
	m := w.becomes("a", deploy.Succeeded, "")
	if m.Extension.SelfTest != "run-1" {
		t.Errorf("proven by %s", m.Extension.SelfTest)
	}
}

func TestSwitchingOffEndsTheWork(t *testing.T) {
	w := newWorld(t, "a")
	w.hosts["a"].holds = make(chan struct{})
	w.run()
	w.becomes("a", deploy.Creating, "")
	w.set(func() { w.plan.Tier = policy.Off })
	w.becomes("a", deploy.None, deploy.PlanOff)
	if w.hosts["a"].installed != 0 {
		t.Error("it was installed all the same")
	}
}

func TestOffboardingRemovesTheAgent(t *testing.T) {
	w := newWorld(t, "a")
	w.run()
	m := w.becomes("a", deploy.Succeeded, "")
	if err := w.machines.Offboard(t.Context(), org, m.ID, "retired"); err != nil {
		t.Fatal(err)
	}
	w.set(func() { w.devices[m.Device].Offboarded = true })
	w.becomes("a", deploy.None, deploy.Offboarded)
	if w.hosts["a"].removed != 1 {
		t.Errorf("removed %d times", w.hosts["a"].removed)
	}
}

// TestOffboardingEndsADeployment offboards a machine in the middle of the
// installation: whatever came of that goes, and the token is worth nothing.
func TestOffboardingEndsADeployment(t *testing.T) {
	w := newWorld(t, "a")
	w.hosts["a"].holds = make(chan struct{})
	w.run()
	m := w.becomes("a", deploy.Creating, "")
	w.until("it is to enrol", func() bool { return len(w.tokens) == 1 })
	if err := w.machines.Offboard(t.Context(), org, m.ID, "a mistake"); err != nil {
		t.Fatal(err)
	}
	w.engine.Offboarded(m.ID)
	w.becomes("a", deploy.None, deploy.Offboarded)
	if w.hosts["a"].removed != 1 || w.hosts["a"].installed != 0 {
		t.Errorf("removed %d times, installed %d times", w.hosts["a"].removed, w.hosts["a"].installed)
	}
	if err := w.machines.Enrolled(t.Context(), org, env, m.ID, "late", machine.Known{}, time.Time{}); !fault.Is(err, fault.Denied) {
		t.Errorf("it enrols all the same: %v", err)
	}
}

// TestRemovalIsTriedAgain has a host be down when it is offboarded.
func TestRemovalIsTriedAgain(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.run()
	for _, name := range []string{"a", "b"} {
		m := w.becomes(name, deploy.Succeeded, "")
		w.set(func() { w.hosts[name].refuse = deploy.Fail(deploy.TimedOut, "it boots") })
		if err := w.machines.Offboard(t.Context(), org, m.ID, "retired"); err != nil {
			t.Fatal(err)
		}
		w.set(func() { w.devices[m.Device].Offboarded = true })
		m = w.becomes(name, deploy.Removing, deploy.RemoveFailed)
		if m.Extension.Next.IsZero() || !strings.Contains(m.Extension.Reason.Detail, "it boots") {
			t.Errorf("%+v", m.Extension)
		}
	}
	// Somebody wants the one back, and the other comes back by itself.
	if err := w.machines.Request(t.Context(), org, w.machine("b").ID, false, false); err != nil {
		t.Fatal(err)
	}
	w.set(func() { w.hosts["a"].refuse, w.hosts["b"].refuse, w.later = nil, nil, time.Hour })
	w.becomes("a", deploy.None, deploy.Offboarded)
	w.becomes("b", deploy.Succeeded, "")
	if w.hosts["a"].removed != 1 || w.hosts["b"].removed != 0 {
		t.Errorf("removed %d and %d times", w.hosts["a"].removed, w.hosts["b"].removed)
	}
	// Not for ever.
	m := w.machine("a")
	if err := w.machines.Offboard(t.Context(), org, m.ID, "again"); err != nil {
		t.Fatal(err)
	}
	err := w.machines.Note(t.Context(), m.ID, machine.Line{}, func(x *machine.Extension) { x.Attempt = removeTries })
	if err != nil {
		t.Fatal(err)
	}
	w.set(func() { w.hosts["a"].refuse = deploy.Fail(deploy.TimedOut, "it is gone") })
	w.becomes("a", deploy.Failed, deploy.RemoveFailed)
}

// TestOnlyTheOwnAgentIsRemoved offboards a machine whose host has the agent of
// another machine by now.
func TestOnlyTheOwnAgentIsRemoved(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.run()
	a, b := w.becomes("a", deploy.Succeeded, ""), w.becomes("b", deploy.Succeeded, "")
	w.set(func() {
		w.hosts["a"].facts, w.devices[a.Device].Offboarded = []string{"device " + string(b.Device)}, true
	})
	if err := w.machines.Offboard(t.Context(), org, a.ID, "it is listed twice"); err != nil {
		t.Fatal(err)
	}
	w.becomes("a", deploy.Failed, deploy.RemoveFailed)
	if w.hosts["a"].removed != 0 {
		t.Error("the agent of b was removed")
	}
}

// TestAnIdentityIsOfOneMachine has hosts say that they are devices which other
// machines have.
func TestAnIdentityIsOfOneMachine(t *testing.T) {
	w := newWorld(t, "victim")
	w.run()
	victim := w.becomes("victim", deploy.Succeeded, "")
	if err := w.machines.Enrolled(t.Context(), org, env, "", "by-hand", machine.Known{Name: "web"}, time.Time{}); err != nil {
		t.Fatal(err)
	}
	own := machine.Change{Version: 1, Plan: new(policy.P1), Tags: &[]machine.Tag{{Key: "team", Value: "web"}}}
	if err := w.machines.Save(t.Context(), org, w.machine("web").ID, own); err != nil {
		t.Fatal(err)
	}
	w.set(func() {
		w.devices["by-hand"] = &Device{ID: "by-hand", Connected: true, Confirmed: true, Version: "2.0.0", Addresses: []string{"127.0.0.1", "192.0.2.7"}}
		w.hosts["evil"] = &fakeHost{w: w, facts: []string{"device " + string(victim.Device), "agent 2.0.0", "service active"}, ip: "192.0.2.66"}
		w.hosts["liar"] = &fakeHost{w: w, facts: []string{"device by-hand", "agent 2.0.0", "service active"}, ip: "192.0.2.66"}
	})
	w.inventory("victim", "evil", "liar")
	w.becomes("evil", deploy.Failed, deploy.EnrolledTwice)
	w.becomes("liar", deploy.Failed, deploy.EnrolledTwice)
	if m, _ := w.machines.Of(victim.Device); m.ID != victim.ID || w.machine("web").Device != "by-hand" {
		t.Errorf("%s has the device of another machine", m.Name)
	}
	// A copy gets an identity of its own when somebody says that it is one.
	if err := w.machines.Request(t.Context(), org, w.machine("liar").ID, false, true); err != nil {
		t.Fatal(err)
	}
	if m := w.becomes("liar", deploy.Succeeded, ""); m.Device == "by-hand" || w.machine("web").Device != "by-hand" {
		t.Errorf("%+v", m)
	}
	// The server itself, listed after it had enrolled by hand.
	w.set(func() {
		w.hosts["web.example"] = &fakeHost{w: w, facts: []string{"device by-hand", "agent 2.0.0", "service active"}, ip: "192.0.2.7"}
	})
	w.inventory("victim", "evil", "liar", "web.example")
	m := w.becomes("web.example", deploy.Succeeded, "")
	if m.Device != "by-hand" || m.Plan != policy.P1 || len(m.OwnTags) != 1 || w.hosts["web.example"].installed != 1 {
		t.Errorf("%+v", m)
	}
	for _, other := range w.machines.All(env) {
		if other.Name == "web" {
			t.Error("the server is there twice")
		}
	}
}

// byHand has an agent enrol by itself, on a server that is in no inventory yet,
// and returns its machine.
func (w *world) byHand(name string, id event.DeviceID) machine.Machine {
	w.t.Helper()
	w.set(func() {
		w.devices[id] = &Device{ID: id, Connected: true, Confirmed: true, Version: "2.0.0", Addresses: []string{"10.0.0.7"}}
	})
	if err := w.machines.Enrolled(w.t.Context(), org, env, "", id, machine.Known{Name: name}, time.Time{}); err != nil {
		w.t.Fatal(err)
	}
	return w.machine(name)
}

// behind makes a host that has the agent of a device and is reached through a
// jump host, so that no address is known.
func (w *world) behind(name string, device, key event.DeviceID, replays string) *fakeHost {
	h := &fakeHost{w: w, facts: []string{"device " + string(device), "agent 2.0.0", "service active"}, key: key, replays: replays}
	w.set(func() { w.hosts[name] = h })
	return h
}

// TestAServerBehindAJumpHostProvesWhoItIs lists servers that have enrolled by
// themselves, where no address says which they are.
func TestAServerBehindAJumpHostProvesWhoItIs(t *testing.T) {
	w := newWorld(t, "victim")
	w.run()
	victim := w.becomes("victim", deploy.Succeeded, "")
	w.byHand("web", "web-1")
	for name, h := range map[string]*fakeHost{
		"old":      w.behind("old", "web-1", "", ""), // its agent cannot prove anything, or does not run
		"replayed": w.behind("replayed", "web-1", "", proof("web-1", "ANOTHERNONCE0000")),
		"other":    w.behind("other", "web-1", "web-2", ""),
		"garbage":  w.behind("garbage", "web-1", "", strings.Repeat("x", 5000)),
	} {
		w.inventory("victim", name)
		w.becomes(name, deploy.Failed, deploy.EnrolledTwice)
		if w.machine("web").Device != "web-1" || h.proofs == 0 || h.installed != 0 {
			t.Errorf("%s: asked %d times, installed %d times, web is %+v", name, h.proofs, h.installed, w.machine("web"))
		}
	}
	// That of another inventory is for somebody to decide, whatever is proven.
	twice := w.behind("twice", victim.Device, victim.Device, "")
	w.inventory("victim", "twice")
	w.becomes("twice", deploy.Failed, deploy.EnrolledTwice)
	if twice.proofs != 0 || w.machine("victim").Device != victim.Device {
		t.Errorf("asked %d times, victim is %+v", twice.proofs, w.machine("victim"))
	}
	h := w.behind("web.example", "web-1", "web-1", "")
	w.inventory("victim", "web.example")
	m := w.becomes("web.example", deploy.Succeeded, "")
	if m.Device != "web-1" || h.proofs != 1 {
		t.Errorf("asked %d times, %+v", h.proofs, m)
	}
	for _, other := range w.machines.All(env) {
		if other.Name == "web" {
			t.Error("the server is there twice")
		}
	}
}

// TestWhoSaysCopyIsBelieved takes a copy over that has the key, too.
func TestWhoSaysCopyIsBelieved(t *testing.T) {
	w := newWorld(t)
	w.run()
	w.byHand("web", "web-1")
	w.set(func() { w.plan.Tier = policy.Off })
	h := w.behind("copy", "web-1", "web-1", "")
	w.inventory("copy")
	w.becomes("copy", deploy.None, deploy.PlanOff)
	if err := w.machines.Save(t.Context(), org, w.machine("copy").ID, machine.Change{Version: w.machine("copy").Version, Plan: new(policy.P1)}); err != nil {
		t.Fatal(err)
	}
	if err := w.machines.Request(t.Context(), org, w.machine("copy").ID, false, true); err != nil {
		t.Fatal(err)
	}
	if m := w.becomes("copy", deploy.Succeeded, ""); m.Device == "web-1" || h.proofs != 0 || w.machine("web").Device != "web-1" {
		t.Errorf("asked %d times, %+v", h.proofs, m)
	}
}

// TestRemovalOfAnAgentThatProvesWhoseItIs offboards machines that have never
// had an agent, on whose hosts there is one that has enrolled by itself.
func TestRemovalOfAnAgentThatProvesWhoseItIs(t *testing.T) {
	w := newWorld(t)
	w.set(func() { w.plan.Tier = policy.Off })
	w.run()
	hosts := map[string]*fakeHost{}
	offboarded := func(name string, device, key event.DeviceID) {
		t.Helper()
		hosts[name] = w.behind(name, device, key, proof(device, "ANOTHERNONCE0000"))
		w.inventory(name)
		w.set(func() { w.later += time.Second })
		if err := w.machines.Offboard(t.Context(), org, w.machine(name).ID, "retired"); err != nil {
			t.Fatal(err)
		}
	}
	w.byHand("web", "web-1")
	offboarded("web.example", "web-1", "web-1")
	m := w.becomes("web.example", deploy.None, deploy.Offboarded)
	if m.Device != "web-1" || !m.Offboarded || hosts["web.example"].removed != 1 || !w.devices["web-1"].Offboarded {
		t.Errorf("%+v", m)
	}
	// One that cannot prove it.
	w.byHand("db", "db-1")
	offboarded("db.example", "db-1", "")
	w.becomes("db.example", deploy.Failed, deploy.RemoveFailed)
	// One that somebody has enrolled since: that is the later decision.
	w.set(func() { w.devices["app-1"] = &Device{ID: "app-1"} })
	hosts["app.example"] = w.behind("app.example", "app-1", "app-1", "")
	hosts["app.example"].refuse = deploy.Fail(deploy.TimedOut, "it boots")
	w.inventory("app.example")
	if err := w.machines.Offboard(t.Context(), org, w.machine("app.example").ID, "retired"); err != nil {
		t.Fatal(err)
	}
	w.becomes("app.example", deploy.Removing, deploy.RemoveFailed)
	w.byHand("app", "app-1")
	w.set(func() { hosts["app.example"].refuse, w.later = nil, w.later+time.Hour })
	w.becomes("app.example", deploy.Failed, deploy.RemoveFailed)
	for _, name := range []string{"db", "app"} {
		if id := w.machine(name).Device; hosts[name+".example"].removed != 0 || w.devices[id].Offboarded {
			t.Errorf("%s: its agent was removed", name)
		}
	}
}

// TestRepairKeepsTheVersion repairs hosts whose agents have other versions than
// new machines get: those are for the upgrades to change.
func TestRepairKeepsTheVersion(t *testing.T) {
	for _, c := range []struct {
		agent, service, installs string
	}{{"1.0.0", "active", ""}, {"3.0.0", "active", ""}, {"3.0.0", "inactive", ""}, {"3.0.0", "failed", "3.0.0"}, {"", "inactive", "2.0.0"}} {
		w := newWorld(t, "a")
		w.run()
		m := w.becomes("a", deploy.Succeeded, "")
		w.set(func() {
			w.hosts["a"].version = ""
			w.hosts["a"].facts = []string{"agent " + c.agent, "service " + c.service, "device " + string(m.Device)}
			*w.devices[m.Device] = Device{ID: m.Device, Silent: time.Hour}
		})
		w.until("it is repaired", func() bool { return w.hosts["a"].installed == 2 })
		w.set(func() {
			w.devices[m.Device].Connected, w.devices[m.Device].Confirmed, w.devices[m.Device].Silent = true, true, 0
		})
		w.becomes("a", deploy.Succeeded, "")
		if got := w.hosts["a"].version; got != c.installs {
			t.Errorf("with agent %q, service %s: version %q was installed, want %q", c.agent, c.service, got, c.installs)
		}
	}
}

// TestAStartIsNoSilence opens an engine whose agents have not connected since
// the control plane was away.
func TestAStartIsNoSilence(t *testing.T) {
	w := newWorld(t, "a")
	stop := w.run()
	m := w.becomes("a", deploy.Succeeded, "")
	stop()
	w.set(func() { *w.devices[m.Device] = Device{ID: m.Device, Silent: time.Hour} })
	var err error
	if w.engine, err = Open(t.Context(), w.config()); err != nil {
		t.Fatal(err)
	}
	would := func() string {
		would, _, err := w.engine.Preview(t.Context(), new(w.machine("a")), w.plan)
		if err != nil {
			t.Error(err)
		}
		return would
	}
	if got := would(); got != "nothing" {
		t.Errorf("at once it would %s", got)
	}
	w.set(func() { w.later = peekAfter })
	if got := would(); got != "repair" {
		t.Errorf("after %s it would %s", peekAfter, got)
	}
}

// TestAnEnvironmentWithoutAPlanStopsNoOther has a machine whose environment is
// not there any more.
func TestAnEnvironmentWithoutAPlanStopsNoOther(t *testing.T) {
	w := newWorld(t, "a")
	inventory := machine.Inventory{Machines: []machine.Known{{Key: "late", Name: "late", Address: "late", System: "linux"}}}
	if _, err := w.machines.Sync(t.Context(), org, "deleted", "other", "aws", inventory); err != nil {
		t.Fatal(err)
	}
	w.run()
	w.becomes("a", deploy.Succeeded, "")
}

// TestARequestIsAnsweredOnce asks for what is not to be done, and nothing of
// that is done later.
func TestARequestIsAnsweredOnce(t *testing.T) {
	w := newWorld(t, "a")
	w.run()
	m := w.becomes("a", deploy.Succeeded, "")
	if err := w.machines.Request(t.Context(), org, m.ID, true, true); err != nil {
		t.Fatal(err)
	}
	w.until("it is answered", func() bool {
		x := w.machine("a").Extension
		return x.Requested.IsZero() && !x.Take && !x.Despite
	})
	if m := w.becomes("a", deploy.Succeeded, ""); w.hosts["a"].installed != 1 {
		t.Errorf("%+v", m.Extension)
	}
}

func TestOffboardedAreForgottenWhenTheirTimeIsOver(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.plan.Tier = policy.Off
	w.run()
	for _, name := range []string{"a", "b"} {
		if err := w.machines.Offboard(t.Context(), org, w.machine(name).ID, "sold"); err != nil {
			t.Fatal(err)
		}
	}
	w.inventory("b")
	settings := w.engine.Settings(env)
	settings.KeepOffboarded = 10
	if _, err := w.engine.Save(t.Context(), org, env, "site", Change{settings.Settings, settings.Version}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ days, left int }{{9, 2}, {11, 1}, {4000, 1}} {
		w.set(func() { w.later = time.Duration(c.days) * 24 * time.Hour })
		w.engine.expire(t.Context())
		if got := len(w.machines.All(env)); got != c.left {
			t.Errorf("after %d days there are %d machines, want %d", c.days, got, c.left)
		}
	}
	w.machine("b") // its inventory names it
	if w.kept != 10*24*time.Hour {
		t.Errorf("devices are kept for %s", w.kept)
	}
}

func TestAgentOfAnotherControlPlaneIsLeftAlone(t *testing.T) {
	w := newWorld(t, "a")
	w.hosts["a"].facts = []string{"device somebody-elses", "agent 2.0.0", "service active"}
	w.run()
	w.becomes("a", deploy.Failed, deploy.EnrolledElsewhere)
	if w.hosts["a"].installed != 0 {
		t.Error("it was taken over")
	}
	if err := w.machines.Request(t.Context(), org, w.machine("a").ID, false, true); err != nil {
		t.Fatal(err)
	}
	w.becomes("a", deploy.Succeeded, "")
}
