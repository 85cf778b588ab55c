// Package upgrade brings the agents of an organization to another version, in
// rings: a few devices first, more when they are well, then the rest.
//
// A rollout is one version on its way. An Engine looks at it again and again:
// it asks devices to upgrade themselves, a bounded number at once, follows
// what they tell, goes to the next ring when the one before is through and has
// soaked, and halts when devices fail or are less healthy than before. A
// rollback is a rollout too: each device gets the version back that it had.
// Everything is in the database before a device is asked; what was begun when
// the control plane stopped is followed at its next start.
package upgrade

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/uptrace/bun"

	"komainu/control/access"
	"komainu/control/rest"
	"komainu/deploy"
	"komainu/event"
	"komainu/fault"
)

// Migrations are the tables of this package.
//
//go:embed migrations
var Migrations embed.FS

// Device is a device that is to be kept up to date: it is not offboarded and
// its plan is on.
type Device struct {
	ID        event.DeviceID
	Name      string
	Version   string   // of the agent
	Form      string   // of the package that it was installed from, "" when it is not known
	Arch      string   // "" when it is not known
	Groups    []string // ids of the device groups that it is in
	Connected bool
	LastSeen  time.Time
	Healthy   bool      // as its last report says
	Reported  time.Time // the last report
	Problem   string    // what is not well
	Open      bool      // it may be changed now: its maintenance window is open
}

// Config is what an Engine needs of its neighbours.
type Config struct {
	DB     *bun.DB
	Log    *slog.Logger
	Now    func() time.Time
	Record access.Recorder
	// Devices returns the devices of an organization.
	Devices func(organization string) []Device
	// Newest returns the newest version that the repository offers, "" for none.
	Newest func() string
	// Offers reports whether the repository offers a version in a form for a
	// processor; "" is any.
	Offers func(version, form, arch string) bool
	// Send asks a device to upgrade itself. Errors: fault.Unavailable when it is
	// not connected, fault.Unsupported when its agent cannot.
	Send func(ctx context.Context, device event.DeviceID, u deploy.Upgrade) error
	// Halted tells people that a rollout has halted by itself, within the
	// transaction that halts it. May be nil.
	Halted func(ctx context.Context, tx bun.IDB, organization, rollout, version string, why deploy.Reason) error
	// Changed is told that the upgrades of an organization have changed. It
	// must not block. May be nil.
	Changed func(organization string)
	// AtOnce bounds how many devices are in the middle of it; 20 when zero.
	AtOnce int
}

// Times of the engine.
const (
	lookEvery = 5 * time.Second
	sendLimit = 15 * time.Second
	// askAgain is after which silence a connected device is asked once more.
	askAgain = 2 * time.Minute
	// comeback is how long a device may be away, or say nothing, in the middle
	// of an installation.
	comeback = 30 * time.Minute
	// slowest is how long fetching may take.
	slowest = 2 * time.Hour
	// probation is how long a device is watched after its upgrade before it
	// speaks for its ring, and grace how long it may be unwell in it: parts of
	// the agent take a moment to load.
	probation = 5 * time.Minute
	grace     = 2 * time.Minute
	// forgotten is after which silence nobody waits for a device.
	forgotten = 7 * 24 * time.Hour
	// watched is for how long a device that is through counts when it goes and
	// does not come back: later, machines are switched off for other reasons.
	watched = 24 * time.Hour
	// tooOldAgain is when a device is asked again that could not be told, and
	// heldAgain when one is that could not begin.
	tooOldAgain = time.Hour
	heldAgain   = 10 * time.Minute
	// lostAfter is for how long a device has to be seen with an older version
	// than it was upgraded to before it is asked again, and mostLost how often
	// it is.
	lostAfter = 5 * time.Minute
	mostLost  = 3
)

// Engine rolls versions out. It is safe for concurrent use.
type Engine struct {
	cfg   Config
	wake  chan struct{} // capacity 1
	tasks sync.WaitGroup
	up    time.Time // since when devices can connect, by the clock of Config

	looked  time.Time     // at the upgrades, the last time
	longest time.Duration // between two looks while all is well

	mu  sync.Mutex
	all map[string]*upgrades // by organization
}

// upgrades are those of one organization.
type upgrades struct {
	organization string
	settings     Saved
	rollout      *rollout   // nil before the first
	past         []*rollout // those before it
	jobs         map[event.DeviceID]*job
	before       map[event.DeviceID]*job // of the rollout that was taken back last
	beforeOf     string                  // the version of it
	unwell       map[event.DeviceID]illness
	lost         map[event.DeviceID]time.Time // since when they are seen with an older version again
}

// illness is how unwell a device has been since its upgrade. Only what is seen
// counts: it may be away in between.
type illness struct {
	seen  time.Time // at the last look; zero when it was away
	total time.Duration
}

// follows makes a rollout the one that counts, and nothing is known of its
// devices yet.
func (u *upgrades) follows(r *rollout) {
	if u.rollout != nil {
		u.past = append(u.past, u.rollout)
	}
	u.rollout, u.jobs = r, map[event.DeviceID]*job{}
	u.unwell, u.lost = map[event.DeviceID]illness{}, map[event.DeviceID]time.Time{}
}

// next is when a rollout begins that follows: their order is that of these
// times, also when the clock was set back.
func (u *upgrades) next(now time.Time) time.Time {
	if u.rollout != nil && !now.After(u.rollout.StartedAt) {
		return u.rollout.StartedAt.Add(time.Millisecond)
	}
	return now
}

// Open reads the rollouts from a migrated database.
func Open(ctx context.Context, cfg Config) (*Engine, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Changed == nil {
		cfg.Changed = func(string) {}
	}
	if cfg.AtOnce == 0 {
		cfg.AtOnce = 20
	}
	e := &Engine{cfg: cfg, wake: make(chan struct{}, 1), all: map[string]*upgrades{}, longest: time.Minute}
	if err := e.load(ctx); err != nil {
		return nil, fmt.Errorf("read the upgrades: %w", err)
	}
	e.resume(e.now())
	return e, nil
}

// clock sees before a look whether time has gone on as it does. When the clock
// was set, or the control plane was stopped with its machine, nobody knows what
// devices did meanwhile, as after a start. The caller holds mu.
func (e *Engine) clock() {
	now := e.now()
	if gone := now.Sub(e.looked); gone < 0 || gone > e.longest {
		e.cfg.Log.Warn("the clock was set, or the control plane was stopped; the upgrades are followed from now on", "gone", gone)
		e.resume(now)
	}
	e.looked = now
}

// resume follows devices from now on. What was noted for a time that has not
// come yet was noted now: else it is waited for until then.
func (e *Engine) resume(now time.Time) {
	e.up, e.looked = now, now
	for _, u := range e.all {
		u.unwell, u.lost = map[event.DeviceID]illness{}, map[event.DeviceID]time.Time{}
		if u.rollout != nil {
			u.rollout.QuietSince = nil
		}
		for _, jobs := range []map[event.DeviceID]*job{u.jobs, u.before} {
			for _, j := range jobs {
				j.noLater(now)
			}
		}
	}
}

func (e *Engine) now() time.Time { return e.cfg.Now().UTC().Truncate(time.Millisecond) }

// Wake has the engine look soon. It never blocks.
func (e *Engine) Wake() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// Run works until ctx ends.
func (e *Engine) Run(ctx context.Context) error {
	defer e.tasks.Wait()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		e.mu.Lock()
		e.clock()
		for _, u := range e.all {
			if err := e.look(ctx, u); err != nil && ctx.Err() == nil {
				e.cfg.Log.Warn("the upgrades cannot be looked at; it is tried again", "error", err)
			}
		}
		e.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-e.wake:
		}
	}
}

// of returns the upgrades of an organization. The caller holds mu.
func (e *Engine) of(organization string) *upgrades {
	u := e.all[organization]
	if u == nil {
		u = &upgrades{organization: organization, settings: defaults()}
		e.all[organization] = u
	}
	return u
}

// ask tells a device of its job. That it was asked is in the database already.
func (e *Engine) ask(ctx context.Context, u *upgrades, j *job) {
	rollout, order := u.rollout.ID, deploy.Upgrade{ID: j.ID, Version: j.ToVersion, Downgrade: u.rollout.Origin != "" || j.back()}
	device := j.DeviceID
	e.tasks.Go(func() {
		asking, cancel := context.WithTimeout(ctx, sendLimit)
		defer cancel()
		err := e.cfg.Send(asking, device, order)
		if err == nil || ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) {
			return // without an answer it may have begun: it tells
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		if err := e.refused(context.WithoutCancel(ctx), u, rollout, device, order.ID, err); err != nil {
			e.cfg.Log.Warn("the answer of a device to its upgrade was not kept", "device", device, "error", err)
		}
	})
}

// refused notes that a device did not begin.
func (e *Engine) refused(ctx context.Context, u *upgrades, rollout string, device event.DeviceID, id string, cause error) error {
	j := u.jobs[device]
	if u.rollout == nil || u.rollout.ID != rollout || j == nil || j.ID != id || j.State != asked {
		return nil // it was told from elsewhere what became of it
	}
	defer e.cfg.Changed(u.organization)
	e.Wake()
	switch {
	case fault.Is(cause, fault.Unavailable):
		return e.drop(ctx, u, j) // away: it waits
	case fault.Is(cause, fault.Unsupported):
		j.wait(deploy.ReasonOf(deploy.UpgradeTooOld, ""), e.now())
	default: // what it did not begin says nothing about the version
		j.wait(deploy.ReasonOf(deploy.UpgradeRefused, short(cause.Error())), e.now())
	}
	return e.keep(ctx, e.cfg.DB, j)
}

// Report takes what a device tells. It is told again with each connection, and
// the same again changes nothing. What is not of a job here is passed over.
func (e *Engine) Report(ctx context.Context, organization string, device event.DeviceID, s deploy.UpgradeStatus) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	u := e.all[organization]
	if u == nil {
		return nil
	}
	j := u.jobs[device]
	if j == nil || j.ID != s.ID {
		j = u.before[device]
	}
	if j == nil || j.ID != s.ID || !j.tell(s, e.now()) {
		return nil
	}
	if err := e.keep(ctx, e.cfg.DB, j); err != nil {
		return err
	}
	e.cfg.Changed(organization)
	e.Wake()
	return nil
}

func newID() string { return rest.NewID() }
