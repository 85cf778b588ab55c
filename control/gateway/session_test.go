package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"komainu/agent/link"
	"komainu/agent/spool"
	"komainu/control/enrol"
	"komainu/event"
	"komainu/fault"
	"komainu/wire"
)

// spooled gives an agent a real spool with n records, and more by add.
func (a *agent) spooled(n int) (add func(int), s *spool.Spool) {
	t := a.p.t
	t.Helper()
	s, err := spool.Open(t.TempDir(), spool.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	last := 0
	add = func(n int) {
		t.Helper()
		for range n {
			last++
			if err := s.Append(1, []byte(strconv.Itoa(last))); err != nil {
				t.Fatal(err)
			}
		}
	}
	add(n)
	a.sources = append(a.sources, link.Source{Stream: s.Stream(), Ack: s.Ack, Next: func(ctx context.Context, after uint64, most int) (link.Batch, error) {
		b, err := s.Next(ctx, after, most)
		return link.Batch(b), err
	}})
	return add, s
}

// delivered says what is missing of n records, or what came in a wrong order.
func (p *plane) delivered(n int) string {
	next := 1
	for _, r := range p.records() {
		i, err := strconv.Atoi(r)
		if err != nil || i > next {
			return fmt.Sprintf("record %q where %d is the next", r, next)
		}
		next = max(next, i+1)
	}
	if next != n+1 {
		return fmt.Sprintf("%d of %d records", next-1, n)
	}
	return ""
}

func TestSession(t *testing.T) {
	p := newPlane(t)
	a := p.enrol()
	add, s := a.spooled(10)
	stop := a.run()
	eventually(t, a.connected)
	eventually(t, func() string { return p.delivered(10) })
	add(5)
	eventually(t, func() string { return p.delivered(15) })
	eventually(t, func() string {
		if st := s.Stats(); st.Waiting != 0 {
			return fmt.Sprintf("%d records are not acknowledged", st.Waiting)
		}
		return ""
	})
	p.locked(func() { p.version = 2 })
	p.gateway.Push(t.Context(), a.id.Device)
	eventually(t, func() string {
		p.mu.Lock()
		defer p.mu.Unlock()
		if n := len(p.results); n != 2 || p.results[0].Version != 1 || p.results[1].Version != 2 {
			return fmt.Sprintf("%d policies were confirmed", n)
		}
		return ""
	})
	eventually(t, func() string {
		if st := a.link.State(); st.RTT <= 0 || st.Skew.Abs() > time.Second || st.Protocol != wire.Protocol {
			return fmt.Sprintf("state %+v", st)
		}
		return ""
	})
	if list := p.gateway.Sessions(); len(list) != 1 || list[0].Device != a.id.Device || list[0].Protocol != wire.Protocol || list[0].Remote == "" {
		t.Errorf("sessions %+v", list)
	}
	p.locked(func() {
		if h := p.hellos[0]; h.Facts.Hostname != "web-1" || h.Epoch != 7 || h.AgentVersion != "1.0" {
			t.Errorf("hello %+v", h)
		}
		if p.beats == 0 {
			t.Error("no heartbeat after the welcome")
		}
	})
	stop()
	eventually(t, func() string {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.gone == 0 {
			return "nobody was told that the device is gone"
		}
		return ""
	})
	if st := a.link.State(); st.Connected {
		t.Error("a link that has ended calls itself connected")
	}
}

// TestIdleSessionLives: pings alone keep a session, for longer than any one
// deadline of it.
func TestIdleSessionLives(t *testing.T) {
	p := newPlaneWith(t, 300*time.Millisecond)
	a := p.enrol()
	a.run()
	eventually(t, a.connected)
	began := p.gateway.Sessions()[0].Since
	for end := time.Now().Add(5 * p.silence); time.Now().Before(end); {
		eventually(t, a.connected)
	}
	if list := p.gateway.Sessions(); len(list) != 1 || list[0].Since != began {
		t.Errorf("the session of %v was replaced: %+v", began, list)
	}
}

func TestPolicyThatTheAgentRefuses(t *testing.T) {
	p := newPlane(t)
	a := p.enrol()
	a.refuse = errors.New("a rule that is none")
	a.run()
	eventually(t, func() string {
		p.mu.Lock()
		defer p.mu.Unlock()
		if len(p.results) == 0 {
			return "no answer to the policy"
		}
		if p.results[0].Error != "a rule that is none" {
			t.Errorf("result %+v", p.results[0])
		}
		return ""
	})
	eventually(t, a.connected)
}

func TestCommands(t *testing.T) {
	p := newPlane(t)
	a := p.enrol()
	a.run()
	eventually(t, a.connected)
	if err := p.gateway.Command(t.Context(), a.id.Device, wire.CommandPing); err != nil {
		t.Errorf("ping: %v", err)
	}
	if err := p.gateway.Command(t.Context(), a.id.Device, "sh"); !fault.Is(err, fault.Invalid) {
		t.Errorf("a command that is none: %v", err)
	}
	if err := p.gateway.Command(t.Context(), "nobody", wire.CommandPing); !fault.Is(err, fault.Unavailable) {
		t.Errorf("a device that is not there: %v", err)
	}
	before := p.gateway.Stats().Opened
	if err := p.gateway.Command(t.Context(), a.id.Device, wire.CommandResyncPolicy); err != nil {
		t.Errorf("resync_policy: %v", err)
	}
	eventually(t, func() string {
		if p.gateway.Stats().Opened == before {
			return "the agent did not connect anew"
		}
		return a.connected()
	})
	if p.resumed.Load() == 0 {
		t.Error("the second connection did not resume the TLS session")
	}
}

func TestRenewal(t *testing.T) {
	p := newPlane(t)
	a := p.enrol()
	a.run()
	eventually(t, a.connected)
	if err := p.gateway.Command(t.Context(), a.id.Device, wire.CommandRenew); err != nil {
		t.Fatalf("renew: %v", err)
	}
	next, err := link.Load(a.dir)
	if err != nil || next.Certificate == a.id.Certificate || next.Key == a.id.Key || next.Device != a.id.Device {
		t.Errorf("after the renewal: %v, the same certificate %v, the same key %v", err, next.Certificate == a.id.Certificate, next.Key == a.id.Key)
	}
	if msg := a.connected(); msg != "" {
		t.Errorf("the session did not survive its renewal: %s", msg)
	}
	if n := p.gateway.Stats().Opened; n != 1 {
		t.Errorf("%d sessions", n)
	}
	// Later sessions show the new one.
	p.gateway.Disconnect(a.id.Device, fault.Unavailable, "test")
	eventually(t, func() string {
		if p.gateway.Stats().Opened < 2 {
			return "no new session"
		}
		return a.connected()
	})
}

// TestSleepingHost: a host that was off for longer than its certificate lasts
// comes back by itself, within the time of grace.
func TestSleepingHost(t *testing.T) {
	p := newPlane(t)
	within, beyond, wrong := p.enrol(), p.enrol(), p.enrol()
	p.clock.move(10 * 24 * time.Hour)
	within.clock.move(10 * 24 * time.Hour)
	within.run()
	eventually(t, within.connected)
	if id, err := link.Load(within.dir); err != nil || !id.NotAfter.After(within.id.NotAfter) {
		t.Errorf("valid until %v, %v", id.NotAfter, err)
	}
	// Its own clock does not know that the time has come: the refusal tells.
	wrong.run()
	eventually(t, wrong.connected)

	p.clock.move(30 * 24 * time.Hour)
	beyond.clock.move(40 * 24 * time.Hour)
	beyond.run()
	if err := beyond.refused(fault.Unauthentic); !strings.Contains(err.Error(), "too long ago to renew it; enrol again with --force") {
		t.Error(err)
	}
	if st := beyond.link.State(); st.Renewal == nil {
		t.Error("the state does not say that the renewal failed")
	}
}

// TestClockThatIsOff: the link works, and tells.
func TestClockThatIsOff(t *testing.T) {
	p := newPlane(t)
	for _, off := range []time.Duration{-3 * 365 * 24 * time.Hour, 24 * 365 * time.Hour} {
		a := p.enrol()
		a.clock.move(off)
		a.run()
		eventually(t, a.connected)
		if got := a.link.State().Skew - off; got.Abs() > time.Minute {
			t.Errorf("skew is wrong by %v", got)
		}
		// The clock is set right while the session goes on.
		a.clock.move(-off)
		if got := a.link.State().Skew; got.Abs() > time.Minute {
			t.Errorf("skew %v after the clock was set", got)
		}
	}
}

func TestRevoked(t *testing.T) {
	p := newPlane(t)
	a := p.enrol()
	a.run()
	eventually(t, a.connected)
	if err := p.ids.Revoke(t.Context(), a.id.Device); err != nil {
		t.Fatal(err)
	}
	p.gateway.Disconnect(a.id.Device, fault.Unauthentic, "the device was offboarded: test")
	eventually(t, func() string {
		err := a.link.State().Error
		if !fault.Is(err, fault.Unauthentic) || !strings.Contains(err.Error(), "was offboarded at") {
			return fmt.Sprintf("the link says %v", err)
		}
		return ""
	})
	if n := len(p.gateway.Sessions()); n != 0 {
		t.Errorf("%d sessions", n)
	}
	if c, err := p.ids.Certificate(t.Context(), a.id.Device); err != nil || !c.Revoked {
		t.Errorf("certificate %+v, %v", c, err)
	}
}

func TestCopyOfAHost(t *testing.T) {
	p := newPlane(t)
	one := p.enrol()
	other := &agent{p: p, dir: one.dir, id: one.id}
	one.run()
	eventually(t, one.connected)
	other.run()
	eventually(t, other.connected)
	if err := one.refused(fault.Conflict); !strings.Contains(err.Error(), "copy of this host") {
		t.Error(err)
	}
	if n := p.gateway.Stats(); n.Replaced != 1 || n.Sessions != 1 {
		t.Errorf("stats %+v", n)
	}
}

// TestControlPlaneRestarts kills the control plane again and again while an
// agent delivers. What it has acknowledged it has, everything arrives, in
// order, and what comes twice has the same name or more records.
func TestControlPlaneRestarts(t *testing.T) {
	p := newPlane(t)
	a := p.enrol()
	const total = 3000
	add, s := a.spooled(100)
	a.run()
	var flaky atomic.Int64
	p.locked(func() {
		p.publish = func([]byte) error {
			if flaky.Add(1)%7 == 0 {
				return errDown
			}
			return nil
		}
	})
	for n := 100; n < total; n += 100 {
		if n%1000 == 0 {
			before := p.gateway
			p.stop()
			add(50)
			p.start()
			add(50)
			if before == p.gateway {
				t.Fatal("it was not restarted")
			}
		} else {
			add(100)
		}
		eventually(t, func() string {
			if len(p.records()) < n-500 {
				return "nothing arrives"
			}
			return ""
		})
	}
	eventually(t, func() string { return p.delivered(total) })
	eventually(t, func() string {
		if st := s.Stats(); st.Waiting != 0 {
			return fmt.Sprintf("%d records wait", st.Waiting)
		}
		return ""
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	byName := map[string][][]byte{}
	for _, f := range p.frames {
		if f.device != a.id.Device {
			t.Errorf("a batch of %s", f.device)
		}
		if old := byName[f.name]; old != nil {
			n := min(len(old), len(f.batch.Records))
			if !slices.EqualFunc(old[:n], f.batch.Records[:n], func(a, b []byte) bool { return string(a) == string(b) }) {
				t.Errorf("two batches %s differ", f.name)
			}
		}
		byName[f.name] = f.batch.Records
	}
}

// TestSlowQueue: an agent has few batches on the way, and goes on when the
// queue does.
func TestSlowQueue(t *testing.T) {
	p := newPlane(t)
	a := p.enrol()
	release := make(chan struct{})
	p.locked(func() {
		p.publishing = make(chan struct{}, 1000)
		p.publish = func([]byte) error { <-release; return nil }
	})
	// More than fits into the batches that may be on the way.
	s := a.bulk(200, 32<<10)
	a.run()
	<-p.publishing
	eventually(t, a.connected)
	if n := len(p.publishing); n != 0 {
		t.Errorf("%d batches of one agent are published at once", n+1)
	}
	close(release)
	eventually(t, func() string {
		if st := s.Stats(); st.Waiting != 0 {
			return fmt.Sprintf("%d records wait", st.Waiting)
		}
		return ""
	})
	if n := p.gateway.Stats().Opened; n != 1 {
		t.Errorf("%d sessions, one was to last", n)
	}
}

// bulk gives an agent a spool of n records of a size.
func (a *agent) bulk(n, size int) *spool.Spool {
	_, s := a.spooled(0)
	for range n {
		if err := s.Append(1, make([]byte, size)); err != nil {
			a.p.t.Fatal(err)
		}
	}
	return s
}

func TestManySmallRecords(t *testing.T) {
	p := newPlane(t)
	a := p.enrol()
	_, s := a.spooled(3 * wire.MaxRecords)
	a.run()
	eventually(t, func() string { return p.delivered(3 * wire.MaxRecords) })
	eventually(t, func() string {
		if st := s.Stats(); st.Waiting != 0 {
			return fmt.Sprintf("%d records wait", st.Waiting)
		}
		return ""
	})
}

// TestHalfOpen: the network loses everything and tells nobody. Both sides
// notice, and the agent comes back.
func TestHalfOpen(t *testing.T) {
	p := newPlaneWith(t, 400*time.Millisecond)
	f := forward(t, "127.0.0.1:0", p.address)
	_, token := p.token(func(r *enrol.TokenRequest) { r.Server = "https://" + f.address() })
	a := &agent{p: p, dir: t.TempDir()}
	id, err := link.Enrol(t.Context(), link.EnrolOptions{Dir: a.dir, Token: token, Facts: facts})
	if err != nil {
		t.Fatal(err)
	}
	a.id = id
	add, _ := a.spooled(5)
	a.run()
	eventually(t, func() string { return p.delivered(5) })
	f.hold(true)
	add(5)
	held := time.Now()
	eventually(t, func() string {
		if a.connected() == "" {
			return "the agent takes a dead connection for one that lives"
		}
		return ""
	})
	eventually(t, func() string {
		if n := len(p.gateway.Sessions()); n != 0 {
			return "the gateway takes a dead connection for one that lives"
		}
		return ""
	})
	t.Logf("noticed after %v, the limit is %v", time.Since(held), p.silence)
	f.hold(false)
	eventually(t, a.connected)
	eventually(t, func() string { return p.delivered(10) })
}

// TestDrain: what is being published when the control plane stops is
// finished.
func TestDrain(t *testing.T) {
	p := newPlane(t)
	a := p.enrol()
	release := make(chan struct{})
	p.locked(func() {
		p.publishing = make(chan struct{}, 10)
		p.publish = func([]byte) error { <-release; return nil }
	})
	a.spooled(3)
	a.run()
	<-p.publishing
	closed := make(chan error)
	go func() { closed <- p.gateway.Close() }()
	select {
	case <-closed:
		t.Error("closed while a batch is being published")
	case <-time.After(50 * time.Millisecond):
	}
	close(release)
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if msg := p.delivered(3); msg != "" {
		t.Error(msg)
	}
	if err := a.refused(fault.Unavailable); err == nil {
		t.Error("no reason")
	}
}

func TestEventIdentityIsStable(t *testing.T) {
	p := newPlane(t)
	a := p.enrol()
	e := event.Event{ID: event.ID{Device: "another", Epoch: 7, Source: event.FromFile, Seq: 9}, Action: event.FileCreated}
	record, err := wire.EncodeEvent(&e)
	if err != nil {
		t.Fatal(err)
	}
	_, s := a.spooled(0)
	if err := s.Append(1, record); err != nil {
		t.Fatal(err)
	}
	a.run()
	eventually(t, func() string {
		if len(p.records()) == 0 {
			return "nothing arrives"
		}
		return ""
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	r, err := wire.DecodeRecord(p.frames[0].device, p.frames[0].batch.Records[0])
	want := event.ID{Device: a.id.Device, Epoch: 7, Source: event.FromFile, Seq: 9}
	if err != nil || r.Event.ID != want {
		t.Errorf("event %v, %v, want %v", r.Event.ID, err, want)
	}
}
