package agent

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"komainu/agent/selftest"
	"komainu/agent/spool"
	"komainu/event"
	"komainu/finding"
	"komainu/wire"
)

// recorder numbers what happens and puts it into the spools: findings into
// one, events into another, so that a backlog of telemetry does not delay an
// alert. While the device is not licensed it records nothing but the agent's
// own events.
//
// It is safe for concurrent use. Recording never waits for the network.
type recorder struct {
	log       *slog.Logger
	tests     *selftest.Runner // is told of findings
	device    func() event.DeviceID
	numbers   *spool.Numbers
	events    *spool.Spool
	findings  *spool.Spool
	licensed  atomic.Bool
	lost      atomic.Uint64 // records that a spool has dropped since the start
	mu        sync.Mutex    // keeps numbers and their order in the spool together
	lossSince time.Time
}

// sourceKinds gives every source its kind in the spool, so that losses can be
// told by source. Kind 0 is what cannot be told.
var sourceKinds = func() map[event.Source]spool.Kind {
	m := map[event.Source]spool.Kind{}
	for i, s := range event.Sources() {
		m[s] = spool.Kind(i + 1)
	}
	return m
}()

// Event records an event: it gets its identity here.
func (r *recorder) Event(ev *event.Event) {
	source := ev.Action.Source()
	if !r.licensed.Load() && source != event.FromAgent {
		return
	}
	if ev.Time.IsZero() {
		ev.Time = time.Now()
	}
	ev.Time = ev.Time.UTC()
	r.mu.Lock()
	defer r.mu.Unlock()
	ev.ID = r.numbers.Next(r.device(), source)
	data, err := wire.EncodeEvent(ev)
	if err == nil {
		err = r.events.Append(sourceKinds[source], data)
	}
	if err != nil {
		// The number is used: the gap tells the store, and this line why.
		r.lost.Add(1)
		r.log.Warn("an event could not be recorded", "action", ev.Action, "error", err)
	}
}

// Finding records a finding and makes it durable at once.
func (r *recorder) Finding(f *finding.Finding) {
	if !r.licensed.Load() {
		return
	}
	f.Device = r.device()
	r.tests.Found(f)
	data, err := wire.EncodeFinding(f)
	for err != nil && len(f.Events) > 0 {
		// Too large: the fewer events the better than no finding.
		f.Events = f.Events[:len(f.Events)/2]
		data, err = wire.EncodeFinding(f)
	}
	if err == nil {
		r.tests.Recorded(f.ID, data)
		err = r.findings.Append(0, data)
	}
	if err == nil {
		err = r.findings.Sync()
	}
	if err != nil {
		r.log.Error("a finding is not on disk", "title", f.Title, "error", err)
	}
}

// agentEvent records something that the agent did.
func (r *recorder) agentEvent(action event.Action, fields map[string]string) {
	r.Event(&event.Event{Action: action, Fields: fields})
}

// Run flushes once a second until ctx ends, and turns what a spool had to drop
// into events.
func (r *recorder) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	r.lossSince = time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for name, s := range map[string]*spool.Spool{"events": r.events, "findings": r.findings} {
			if err := s.Sync(); err != nil {
				r.log.Warn("the spool waits for the disk", "spool", name, "error", err)
			}
		}
		r.note()
		r.countLosses()
	}
}

// note puts the epoch on disk if that was full when the agent started.
func (r *recorder) note() {
	if r.numbers.Unnoted() != nil && r.numbers.Note() == nil {
		r.log.Info("the epoch of event numbers is on disk now")
	}
}

func (r *recorder) countLosses() {
	now := time.Now()
	r.tellLosses("spool", r.lossSince, now, r.events.Lost())
	r.tellLosses("findings", r.lossSince, now, r.findings.Lost())
	r.lossSince = now
}

// tellLosses makes events of what was lost.
func (r *recorder) tellLosses(where string, since, until time.Time, counts [16]uint64) {
	for kind, n := range counts {
		if n == 0 {
			continue
		}
		r.lost.Add(n)
		loss := &event.Loss{Where: where, Count: n, Since: since.UTC(), Until: until.UTC()}
		for source, k := range sourceKinds {
			if k == spool.Kind(kind) {
				loss.Source = source
			}
		}
		r.Event(&event.Event{Action: event.EventsLost, Loss: loss})
	}
}

// Discard removes what waits for a control plane that is not this device's any
// more, and counts it as lost.
func (r *recorder) Discard() error {
	findings, err := r.findings.Discard()
	events, errEvents := r.events.Discard()
	now := time.Now()
	r.tellLosses("enrolment", now, now, findings)
	r.tellLosses("enrolment", now, now, events)
	return errors.Join(err, errEvents)
}

// Close flushes and closes the spools.
func (r *recorder) Close() error {
	err := r.findings.Close()
	if e := r.events.Close(); err == nil {
		err = e
	}
	return err
}
