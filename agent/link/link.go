// Package link connects the agent with its control plane: enrolment, the
// device's identity, and the session that carries events, findings, health
// and policy. DESIGN.md says why it is built this way.
//
// A Link tries for ever: after a failure it waits, a little longer every
// time, with jitter so that a fleet does not come back all at once. Records
// leave the spools only when the control plane has acknowledged them.
package link

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"komainu/deploy"
	"komainu/drill"
	"komainu/event"
	"komainu/fault"
	"komainu/policy"
	"komainu/wire"
)

// Batch is consecutive records of a spool.
type Batch struct {
	First   uint64
	Records [][]byte
}

func (b Batch) last() uint64 { return b.First + uint64(len(b.Records)) - 1 }

// large reports whether more than this waits, or so much at a time that
// waiting for others saves nothing.
func (b Batch) large() bool {
	size := 0
	for _, r := range b.Records {
		size += len(r)
	}
	return size > wire.MaxBatch/4 || len(b.Records) > wire.MaxRecords/4
}

// Source is a spool as the link needs it.
type Source struct {
	Stream uint64 // identifies the spool; positions are unique within
	// Next returns the records after a position, at least one, as soon as there
	// are any. After 0 means from the first that is not acknowledged.
	Next func(ctx context.Context, after uint64, maxBytes int) (Batch, error)
	Ack  func(upTo uint64) error
	// Gather is how long records wait for others after a batch has left, so that
	// a host on which a little happens all the time does not send a frame for
	// each. The first record after a pause leaves at once; so does a backlog.
	Gather time.Duration
}

// Config says what the link sends and whom it tells.
type Config struct {
	Dir           string // state folder with the identity
	Facts         func() wire.Facts
	Epoch         event.Epoch
	Sources       []Source // each is sent in order, and beside the others
	PolicyVersion func() uint64
	ApplyPolicy   func(policy.Signed) (version uint64, err error)
	// Claim is told whose records the next session is for, before any is sent.
	// When it fails there is no session. Nil claims nothing.
	Claim  func(Identity) error
	Health func() []byte // health.Report as JSON
	// Test begins a detection test, and TestStages takes what the control plane
	// says of one. Nil when the agent has none.
	Test       func(wire.DetectionTest) error
	TestStages func(run string, stages []drill.Stage)
	// Upgrade begins an upgrade, and UpgradeStatus returns how far the last one
	// is, false when there was none. Nil when the agent cannot upgrade itself.
	Upgrade       func(deploy.Upgrade) error
	UpgradeStatus func() (deploy.UpgradeStatus, bool)
	Counts        func() (waiting, lost uint64)
	Proxy         func() Proxy // looked at before each connection; nil is none
	Log           *slog.Logger
	Now           func() time.Time // time.Now when nil
	// Silence of the control plane after which the connection counts as broken;
	// it is pinged three times in it. 45 s when zero.
	Silence time.Duration
}

// State of the link, for health.
type State struct {
	Enrolled  bool
	Connected bool
	Since     time.Time // of the connection or of its loss
	Server    string
	Error     error         // why it is not connected, nil before the first try
	Skew      time.Duration // this clock minus the control plane's, 0 before the first welcome
	NotAfter  time.Time     // of the certificate, by the control plane's clock
	Renewal   error         // why the certificate could not be renewed, nil when it could
	RTT       time.Duration // of the last ping, 0 before the first
	Protocol  int           // that the control plane speaks, 0 before the first welcome

	device event.DeviceID // that all this is about
}

// Link is the session with the control plane. It is safe for concurrent use.
type Link struct {
	cfg  Config
	beat chan struct{}
	wake chan struct{} // enrolled anew, or another proxy: do not wait
	test chan struct{} // something is in tests

	upgrade chan struct{} // the status of an upgrade has changed

	// tickets resume TLS sessions. A resumed session shows the certificate that
	// it began with, so they are for this certificate only. Used by Run alone.
	tickets     tls.ClientSessionCache
	certificate string

	mu    sync.Mutex
	tests map[string]drill.Run // reports that were not sent yet, the last of each run
	state State
	told  time.Time // the control plane's time at the last welcome
	heard time.Time // when that was, for the monotonic clock in it
}

// Times of a link.
const (
	beatEvery   = 30 * time.Second
	beatGap     = time.Second // between heartbeats, however often the health changes
	silence     = 45 * time.Second
	writeLimit  = 45 * time.Second // the control plane may be waiting for its disk
	dialLimit   = 15 * time.Second
	helloLimit  = 15 * time.Second // for the answer to Hello
	firstWait   = 200 * time.Millisecond
	longestWait = time.Minute
	refusedWait = 5 * time.Minute // revoked: only enrolling anew helps
	renewTick   = time.Minute
	renewPause  = 5 * time.Minute // after a renewal that failed
	inFlight    = 4               // batches of one source that wait for an acknowledgement
)

// New returns a link.
func New(cfg Config) *Link {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Silence == 0 {
		cfg.Silence = silence
	}
	return &Link{
		cfg: cfg, beat: make(chan struct{}, 1), wake: make(chan struct{}, 1), test: make(chan struct{}, 1),
		upgrade: make(chan struct{}, 1), tests: map[string]drill.Run{}, state: State{Since: cfg.Now()},
	}
}

// State returns the state of the link.
func (l *Link) State() State {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.state
	s.Skew = l.cfg.Now().Sub(l.clock())
	return s
}

// clock is the control plane's time as far as it is known: what depends on
// certificates must not depend on a clock that is off, or is set meanwhile.
// The caller holds mu.
func (l *Link) clock() time.Time {
	if l.heard.IsZero() {
		return l.cfg.Now()
	}
	return l.told.Add(time.Since(l.heard))
}

// after reports whether the control plane's clock shows more than t.
func (l *Link) after(t time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.clock().After(t)
}

func (l *Link) set(edit func(*State)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	edit(&l.state)
}

// Beat sends the health soon: it has changed.
func (l *Link) Beat() { poke(l.beat) }

// Enrolled makes the link connect at once with the identity that is new.
func (l *Link) Enrolled() { poke(l.wake) }

// Reconnect ends a session that there is and connects at once, another way.
func (l *Link) Reconnect() { poke(l.wake) }

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// errAgain ends a session that is to be followed by another at once.
var errAgain = fault.New(fault.Unavailable, "connecting anew")

// Run keeps a session until ctx ends. Without an identity it waits for one.
func (l *Link) Run(ctx context.Context) error {
	wait, refusals := firstWait, 0
	for {
		began := time.Now()
		err := l.session(ctx)
		if refusals++; !isRefusal(err) {
			refusals = 0
		}
		now := l.cfg.Now()
		l.set(func(s *State) {
			if s.Connected || s.Error == nil {
				s.Since = now
			}
			s.Connected, s.RTT, s.Error = false, 0, err
		})
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(began) > longestWait {
			wait = firstWait
		}
		select {
		case <-ctx.Done():
			return nil
		case <-l.wake:
			wait = firstWait
			l.set(func(s *State) { s.Error = nil }) // it was about another identity or another way
		case <-time.After(l.pause(err, wait, refusals)):
			wait = min(2*wait, longestWait)
		}
	}
}

// isRefusal reports whether the control plane does not want this device, or
// this device not that control plane.
func isRefusal(err error) bool {
	return fault.Is(err, fault.Unauthentic) || fault.Is(err, fault.NotFound) && !errors.Is(err, errNotEnrolled)
}

// pause is how long to wait after an error, of which there were refusals in a
// row.
func (l *Link) pause(err error, wait time.Duration, refusals int) time.Duration {
	pause := wait/2 + rand.N(wait)
	switch kind := fault.KindOf(err); {
	case errors.Is(err, errNotEnrolled):
		return time.Hour // Enrolled ends it
	case errors.Is(err, errAgain):
		return 0
	case isRefusal(err):
		// Soon after the first one: a new certificate may help. Then ever more
		// rarely, but not never: an operator may set things right.
		if refusals > 1 {
			pause = max(pause, min(refusedWait, 20*pause))
		}
		l.cfg.Log.Warn("the control plane refuses this device", "error", err, "again_in", pause.Round(time.Millisecond))
	case kind == fault.Conflict, kind == fault.Unsupported, kind == fault.Invalid:
		// Another agent has this identity, the versions do not fit, or the
		// identity is damaged: trying often changes nothing.
		pause = longestWait/2 + rand.N(longestWait)
		l.cfg.Log.Warn("the link to the control plane does not work", "error", err, "again_in", pause.Round(time.Millisecond))
	default:
		l.cfg.Log.Info("no link to the control plane", "error", err, "again_in", pause.Round(time.Millisecond))
	}
	return pause
}

// session connects and serves until something ends it.
func (l *Link) session(ctx context.Context) error {
	refusedBefore := fault.Is(l.State().Error, fault.Unauthentic)
	id, err := Load(l.cfg.Dir)
	if err != nil {
		l.set(func(s *State) { s.Enrolled = !errors.Is(err, errNotEnrolled) })
		return err
	}
	l.set(func(s *State) {
		if s.device != id.Device {
			s.Renewal = nil // it was about another certificate
		}
		s.Enrolled, s.Server, s.NotAfter, s.device = true, id.Server, id.NotAfter, id.Device
	})
	if l.cfg.Claim != nil {
		if err := l.cfg.Claim(id); err != nil {
			return err
		}
	}
	if l.after(id.NotAfter) || refusedBefore {
		// With an expired certificate there is nothing to connect with. That it
		// has expired may be hidden by a clock that is off: then a refusal tells.
		if id, err = l.renew(ctx, id); err != nil {
			return err
		}
	}
	s, err := l.dial(ctx, id)
	if err != nil {
		return err
	}
	return s.run(ctx)
}
