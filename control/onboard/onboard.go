// Package onboard makes true what a plan says: where it is on, every machine
// that can be protected is, machines that are added later too, and what has
// drifted away is put right.
//
// An Engine compares what should be with what is, machine by machine, and
// works on those that differ, a bounded number at once. A machine counts as
// protected when a harmless detection on it has become an alert here. What was
// begun when the control plane stopped is begun again; every step may be
// repeated.
package onboard

import (
	"cmp"
	"context"
	"embed"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/uptrace/bun"

	"komainu/control/access"
	"komainu/control/machine"
	"komainu/deploy"
	"komainu/drill"
	"komainu/event"
)

// Migrations are the tables of this package.
//
//go:embed migrations
var Migrations embed.FS

// Package is a package of the agent in the repository.
type Package struct {
	Version string
	SHA256  string // hexadecimal
	Size    int64
	Content func() (io.ReadCloser, error)
	URL     string // where machines get it themselves
}

// Config is what an Engine needs of its neighbours.
type Config struct {
	DB       *bun.DB
	Log      *slog.Logger
	Now      func() time.Time
	Record   access.Recorder
	Machines *machine.Registry
	// Plan returns what the plan of an environment says.
	Plan func(ctx context.Context, organization, environment string) (Plan, error)
	// Reach logs in to a machine. Errors: *deploy.Failure.
	Reach func(ctx context.Context, m machine.Machine) (deploy.Host, error)
	// Pushed returns the command with which a person deploys to a machine that
	// nobody else reaches, "" for one that Reach does. May be nil.
	Pushed func(ctx context.Context, m *machine.Machine) (command string, err error)
	// Package returns the package of the agent that a machine is to get, which
	// has a version already and is a device, or neither of them.
	Package func(device event.DeviceID, has, format, arch string) (Package, bool)
	// Token makes a join token for a machine alone.
	Token func(ctx context.Context, m machine.Machine) (string, error)
	// Device returns what is known of a device of an organization, nil when
	// there is none.
	Device func(organization string, id event.DeviceID) *Device
	// Proves checks what a host says to prove that its agent is a device, for a
	// nonce that nobody uses again. Errors: fault.Unauthentic for what proves
	// nothing.
	Proves func(ctx context.Context, device event.DeviceID, n deploy.Nonce, proof string) error
	// Revoke ends the identity of a device whose machine is offboarded. One that
	// is offboarded already is no error.
	Revoke func(ctx context.Context, organization string, device event.DeviceID) error
	// Replaced ends the identity that a machine had before, since its host is
	// another device now. May be nil.
	Replaced func(ctx context.Context, old, by event.DeviceID) error
	// Test has a device run a detection test and returns the run.
	Test func(ctx context.Context, organization string, device event.DeviceID, test string) (string, error)
	// Tested returns how far a run is, and the alert that it has raised.
	Tested func(ctx context.Context, organization, run string) (drill.Run, string, error)
	// Policy is told of a device whose policy may have changed.
	Policy func(event.DeviceID)
	// Expire forgets the devices that are offboarded for longer than they are
	// to be kept.
	Expire func(ctx context.Context, keep func(environment string) time.Duration) error
	// Changed is told of an environment whose settings changed. Must not block.
	Changed func(organization, environment string)
	// Pin returns the pin of the CA, by which machines that bring no token know
	// the control plane.
	Pin    func() string
	Server string // host:port of the control plane as machines reach it
}

// Engine works on the machines. It is safe for concurrent use.
type Engine struct {
	cfg    Config
	wake   chan struct{} // capacity 1
	saving sync.Mutex

	mu       sync.Mutex
	opened   time.Time // when the control plane came
	settings map[string]Saved
	running  map[string]context.CancelCauseFunc // by machine
	perEnv   map[string]int
	expected map[string]bool // machines that are told now to prove who they are
	news     chan struct{}   // closed when something has changed that somebody may wait for

	// unplanned are environments whose plan could not be read at the last look.
	// The looks alone use it.
	unplanned map[string]bool
}

// Open reads the settings from a migrated database.
func Open(ctx context.Context, cfg Config) (*Engine, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Pushed == nil {
		cfg.Pushed = func(context.Context, *machine.Machine) (string, error) { return "", nil }
	}
	if cfg.Replaced == nil {
		cfg.Replaced = func(context.Context, event.DeviceID, event.DeviceID) error { return nil }
	}
	e := &Engine{
		cfg: cfg, wake: make(chan struct{}, 1), settings: map[string]Saved{}, running: map[string]context.CancelCauseFunc{}, perEnv: map[string]int{},
		expected: map[string]bool{}, news: make(chan struct{}), unplanned: map[string]bool{},
	}
	e.opened = e.now()
	return e, e.load(ctx)
}

func (e *Engine) now() time.Time { return e.cfg.Now().UTC().Truncate(time.Millisecond) }

// Wake has the engine look at all machines soon. It never blocks.
func (e *Engine) Wake() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// News tells the engine that a device or a run of a test has changed. It never
// blocks.
func (e *Engine) News() {
	e.mu.Lock()
	close(e.news)
	e.news = make(chan struct{})
	e.mu.Unlock()
}

// Times of the engine.
const (
	lookEvery   = 5 * time.Second // at all machines; changes wake it before
	gatherNews  = 50 * time.Millisecond
	sampleEvery = time.Minute
	expireEvery = time.Hour

	hostLimit     = 10 * time.Minute // for everything over one connection
	reportLimit   = 90 * time.Second
	selfTestLimit = 2 * time.Minute

	// mostSelfTests is how often a self-test is begun again in one attempt.
	mostSelfTests = 3

	// test is the harmless detection that a machine proves itself with.
	test = "eicar"
)

// Run works until ctx ends. What is in the middle of something then is told
// to stop, and taken up again at the next start.
func (e *Engine) Run(ctx context.Context) error {
	var tasks sync.WaitGroup
	defer tasks.Wait()
	tick, sample, expire := time.NewTicker(lookEvery), time.NewTicker(sampleEvery), time.NewTicker(expireEvery)
	defer tick.Stop()
	defer sample.Stop()
	defer expire.Stop()
	e.expire(ctx)
	for {
		began := time.Now()
		if err := e.look(ctx, &tasks); err != nil && ctx.Err() == nil {
			e.cfg.Log.Warn("the machines cannot be looked at; it is tried again", "error", err)
		}
		took := time.Since(began)
		select {
		case <-ctx.Done():
			return nil
		case <-sample.C:
			if err := e.cfg.Machines.Sample(ctx); err != nil && ctx.Err() == nil {
				e.cfg.Log.Warn("the coverage cannot be kept", "error", err)
			}
		case <-expire.C:
			e.expire(ctx)
		case <-tick.C:
		case <-e.wake:
			// What changes together is looked at together, and the more machines
			// there are, the more of it: looking takes a fifth of the time at most.
			select {
			case <-ctx.Done():
			case <-time.After(max(gatherNews, 4*took)):
			}
		}
	}
}

// expire forgets what is offboarded for longer than it is to be kept.
func (e *Engine) expire(ctx context.Context) {
	keep := func(environment string) time.Duration { return e.Settings(environment).keep() }
	// Devices first: a machine that is still there leads to them.
	err := e.cfg.Expire(ctx, keep)
	if err == nil {
		err = e.cfg.Machines.Expire(ctx, keep)
	}
	if err != nil && ctx.Err() == nil {
		e.cfg.Log.Warn("offboarded machines whose time is over cannot be forgotten; it is tried again in an hour", "error", err)
	}
}

// candidate is a machine that waits for its turn.
type candidate struct {
	m *machine.Machine
	d decision
	s Settings
}

// look compares what should be with what is, and begins to work on what
// differs. What is only to be written down is written together, at the end:
// nobody who could be protected waits for it.
func (e *Engine) look(ctx context.Context, tasks *sync.WaitGroup) error {
	environments := map[string]*wanted{}
	var waiting []candidate
	var notes []machine.Noted
	for _, m := range e.cfg.Machines.All("") {
		want, ok := environments[m.Environment]
		if !ok {
			want = e.want(ctx, m)
			environments[m.Environment] = want
		}
		if want == nil {
			continue
		}
		s := want.settings
		if m.Extension.State == deploy.Removing {
			if !e.isRunning(m.ID) && e.due(m.Extension) {
				waiting = append(waiting, candidate{m, decision{work: remove}, s})
			}
			continue
		}
		d, err := e.decide(ctx, m, want.plan, s)
		if err != nil {
			return err
		}
		if err := e.promote(ctx, m); err != nil {
			return err
		}
		if e.isRunning(m.ID) {
			if d.work == nothing && d.state != deploy.Succeeded {
				e.cancel(m.ID)
			}
			continue
		}
		if d.work != nothing {
			waiting = append(waiting, candidate{m, d, s})
		} else if n, ok := settle(m, d); ok {
			notes = append(notes, n)
		}
	}
	slices.SortFunc(waiting, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), a.m.Extension.StartedAt.Compare(b.m.Extension.StartedAt), cmp.Compare(a.m.Name, b.m.Name), cmp.Compare(a.m.ID, b.m.ID))
	})
	for _, c := range waiting {
		if c.d.work == remove {
			e.take(ctx, tasks, c.m, c.s, func(ctx context.Context) { e.remove(ctx, c.m.ID) })
			continue
		}
		if n, ok := e.queue(ctx, tasks, c); ok {
			notes = append(notes, n)
		}
	}
	return e.cfg.Machines.NoteAll(ctx, notes)
}

// wanted is what is wanted of the machines of an environment.
type wanted struct {
	plan     Plan
	settings Settings
}

// want returns what is wanted of the machines of an environment, that of m. It
// is nil when the plan cannot be read: one environment, that is perhaps being
// deleted, must not keep all others from being looked at.
func (e *Engine) want(ctx context.Context, m *machine.Machine) *wanted {
	plan, err := e.cfg.Plan(ctx, m.Organization, m.Environment)
	if err != nil {
		if !e.unplanned[m.Environment] && ctx.Err() == nil {
			e.cfg.Log.Warn("the plan of an environment cannot be read, and its machines are left as they are; it is tried again", "environment", m.Environment, "error", err)
		}
		e.unplanned[m.Environment] = true
		return nil
	}
	delete(e.unplanned, m.Environment)
	return &wanted{plan, e.Settings(m.Environment).Settings}
}

// note is a state to be written down at the end of a look. A machine whose
// removal somebody has begun since, or that somebody has asked for, is left
// alone.
func note(m *machine.Machine, change func(*machine.Extension)) machine.Noted {
	return machine.Noted{Machine: m.ID, Change: func(x *machine.Extension) {
		if x.State != deploy.Removing && x.Requested.Equal(m.Extension.Requested) {
			change(x)
		}
	}}
}

// rank orders what waits: what somebody has asked for, then what has an agent
// already, then the rest, and in each whose last attempt is the longest ago.
// What has failed is of the rest: there may be more of it than can ever be
// worked on until it is tried again, and the others would wait for good.
func rank(c candidate) int {
	switch {
	case !c.m.Extension.Requested.IsZero():
		return 0
	case c.d.work != install && c.m.Extension.Attempt == 0:
		return 1
	}
	return 2
}

// device returns the device of a machine. That no agent was connected while
// the control plane was away says nothing of the agent.
func (e *Engine) device(m *machine.Machine) *Device {
	if m.Device == "" {
		return nil
	}
	d := e.cfg.Device(m.Organization, m.Device)
	if d != nil {
		here := e.here()
		d.Awaited = min(d.Silent, here)
		if d.Silent < -silentFor { // the clock was set back since
			d.Awaited = here
		}
	}
	return d
}

// here is how long the control plane has been there. By a clock that was set
// back it has just come: else no silence would count until the clock is again
// where it was.
func (e *Engine) here() time.Duration {
	now := e.now()
	e.mu.Lock()
	defer e.mu.Unlock()
	if now.Before(e.opened) {
		e.opened = now
	}
	return now.Sub(e.opened)
}

// settle returns the state of a machine about which nothing is to be done,
// when it is another than the one that is written down.
func settle(m *machine.Machine, d decision) (machine.Noted, bool) {
	x := m.Extension
	if x.State == d.state && same(x.Reason, d.reason) && x.Waits == "" && x.Requested.IsZero() && !x.Despite && !x.Take {
		return machine.Noted{}, false
	}
	return note(m, func(x *machine.Extension) {
		x.State, x.Reason, x.Step, x.Waits, x.Next = d.state, d.reason, "", "", time.Time{}
		x.Answered() // there is nothing to be done
	}), true
}

func same(a, b *deploy.Reason) bool {
	return a == nil && b == nil || a != nil && b != nil && a.ID == b.ID && a.Detail == b.Detail
}

// promote ends the time in which a machine is only watched.
func (e *Engine) promote(ctx context.Context, m *machine.Machine) error {
	if m.Extension.Observe.IsZero() || m.Extension.Observe.After(e.now()) {
		return nil
	}
	err := e.cfg.Machines.Note(ctx, m.ID, machine.Line{Step: deploy.Report, State: machine.LineInfo, Text: "the time of watching is over: malware is blocked from now on"}, func(x *machine.Extension) {
		x.Observe = time.Time{}
	})
	if err == nil && m.Device != "" {
		e.cfg.Policy(m.Device)
	}
	return err
}

// Why a machine waits for its turn.
const (
	WaitsTurn   = "turn"
	WaitsWindow = "window"
	WaitsManual = "manual"
	WaitsDryRun = "dry_run"
)

// queue begins to work on a machine if it may be now, and else returns what it
// waits for, if that is news.
func (e *Engine) queue(ctx context.Context, tasks *sync.WaitGroup, c candidate) (machine.Noted, bool) {
	x := c.m.Extension
	requested := !x.Requested.IsZero()
	waits := ""
	switch {
	case requested || c.d.work == verify: // a detection test changes nothing on a machine
	case !c.s.Automatic:
		waits = WaitsManual
	case c.s.DryRun:
		waits = WaitsDryRun
	case c.s.Window != nil && !c.s.Window.Open(e.now()):
		waits = WaitsWindow
	}
	if waits == "" && !e.due(x) {
		return machine.Noted{}, false // it is tried again then
	}
	if waits == "" && !e.take(ctx, tasks, c.m, c.s, func(ctx context.Context) { e.protect(ctx, c.m.ID, c.d) }) {
		waits = WaitsTurn
	}
	if waits == "" || c.d.early || x.State == deploy.Waiting && x.Waits == waits || (x.State == deploy.Failed || x.State == deploy.NotApplicable) && waits == WaitsTurn {
		return machine.Noted{}, false
	}
	return note(c.m, func(x *machine.Extension) { x.State, x.Waits, x.Step = deploy.Waiting, waits, "" }), true
}

// take begins a task if there is room for one more.
func (e *Engine) take(ctx context.Context, tasks *sync.WaitGroup, m *machine.Machine, s Settings, task func(context.Context)) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.perEnv[m.Environment] >= s.Concurrency {
		return false
	}
	e.start(ctx, tasks, m, task)
	return true
}

// start runs a task about a machine. The caller holds mu.
func (e *Engine) start(ctx context.Context, tasks *sync.WaitGroup, m *machine.Machine, task func(context.Context)) {
	ctx, cancel := context.WithCancelCause(ctx)
	e.running[m.ID] = cancel
	e.perEnv[m.Environment]++
	tasks.Go(func() {
		defer func() {
			cancel(nil)
			e.mu.Lock()
			delete(e.running, m.ID)
			e.perEnv[m.Environment]--
			e.mu.Unlock()
			e.Wake()
			// What one host brings about must not take the control plane down.
			if p := recover(); p != nil {
				e.cfg.Log.Error("the work on a machine has failed in an unexpected way; it is taken up again", "machine", m.ID, "panic", p, "stack", string(debug.Stack()))
			}
		}()
		task(ctx)
	})
}

func (e *Engine) isRunning(id string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.running[id] != nil
}

// errUnwanted ends the work on a machine that is not to be protected any more.
var errUnwanted = errors.New("the machine is not to be protected any more")

func (e *Engine) cancel(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if cancel := e.running[id]; cancel != nil {
		cancel(errUnwanted)
	}
}

// waitFor waits until a condition holds, looking at every news.
func (e *Engine) waitFor(ctx context.Context, limit time.Duration, holds func() (bool, error)) (bool, error) {
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	for {
		e.mu.Lock()
		news := e.news
		e.mu.Unlock()
		if ok, err := holds(); ok || err != nil {
			return ok, err
		}
		again := time.NewTimer(time.Second) // not everything is news
		select {
		case <-ctx.Done():
			return false, context.Cause(ctx)
		case <-timeout.C:
			return false, nil
		case <-news:
		case <-again.C:
		}
		again.Stop()
	}
}

// longest is more than backoff ever says.
const longest = time.Hour + 5*time.Minute

// due reports whether a machine may be tried again. What waits for longer than
// anything does has a time from before the clock was set back.
func (e *Engine) due(x machine.Extension) bool {
	now := e.now()
	return !x.Next.After(now) || x.Next.After(now.Add(longest))
}

// backoff is how long after an attempt it is tried again.
func backoff(attempt int, permanent bool) time.Duration {
	if permanent {
		return time.Hour // somebody may have mended it without telling
	}
	waits := []time.Duration{10 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 30 * time.Minute}
	d := waits[min(max(attempt, 1), len(waits))-1]
	return d + rand.N(d/5)
}

// Considered returns the machines of an environment about which there is
// something to decide, by name.
func (e *Engine) Considered(environment string) []*machine.Machine {
	list := slices.DeleteFunc(e.cfg.Machines.All(environment), func(m *machine.Machine) bool { return m.Gone })
	slices.SortFunc(list, func(a, b *machine.Machine) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	return list
}

// Preview says what would be done with a machine under a plan: install,
// repair, verify, nothing, or skip for a reason.
func (e *Engine) Preview(ctx context.Context, m *machine.Machine, p Plan) (would string, reason *deploy.Reason, err error) {
	d, err := e.decide(ctx, m, p, e.Settings(m.Environment).Settings)
	if d.work == nothing && d.reason != nil {
		return "skip", d.reason, err
	}
	return string(d.work), d.reason, err
}

// Offboarded ends what is being done on a machine that was offboarded, so that
// the agent is taken off at once.
func (e *Engine) Offboarded(id string) {
	e.cancel(id)
	e.Wake()
}

// Expects reports whether a machine is being told, at this moment, to prove
// who it is.
func (e *Engine) Expects(id string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.expected[id]
}

// Came notes that a machine has proven who it is. It is not expected once more.
func (e *Engine) Came(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.expected, id)
}

func (e *Engine) expect(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.expected[id] = true
}

// Retry has the machines of a connector tried again soon that have failed.
// Somebody waits for it, so they are written down together.
func (e *Engine) Retry(ctx context.Context, connector string) error {
	var notes []machine.Noted
	for _, m := range e.cfg.Machines.All("") {
		if m.Connector != connector || m.Extension.State != deploy.Failed {
			continue
		}
		notes = append(notes, machine.Noted{Machine: m.ID, Change: func(x *machine.Extension) {
			if x.State == deploy.Failed {
				x.Next, x.Attempt = time.Time{}, 0
			}
		}})
	}
	if err := e.cfg.Machines.NoteAll(ctx, notes); err != nil {
		return err
	}
	e.Wake()
	return nil
}
