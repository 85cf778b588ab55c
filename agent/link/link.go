// Package link connects the agent with its control plane: enrolment, the
// device's identity, and the session that carries events, findings, health
// and policy.
//
// A Link tries for ever: after a failure it waits, a little longer every
// time, with jitter so that a fleet does not come back all at once. Records
// leave the spools only when the control plane has acknowledged them.
package link

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/lxzan/gws"

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

// Source is a spool as the link needs it.
type Source struct {
	Stream uint64 // identifies the spool; positions are unique within
	// Next returns the records after a position, at least one, as soon as there
	// are any. After 0 means from the first that is not acknowledged.
	Next func(ctx context.Context, after uint64, maxBytes int) (Batch, error)
	Ack  func(upTo uint64) error
}

// Config says what the link sends and whom it tells.
type Config struct {
	Dir           string // state folder with the identity
	Facts         func() wire.Facts
	Epoch         event.Epoch
	Sources       []Source // each is sent in order, and beside the others
	PolicyVersion func() uint64
	ApplyPolicy   func(policy.Signed) (version uint64, err error)
	Health        func() []byte // health.Report as JSON
	Counts        func() (waiting, lost uint64)
	Log           *slog.Logger
	Now           func() time.Time // time.Now when nil
}

// State of the link, for health.
type State struct {
	Enrolled  bool
	Connected bool
	Since     time.Time // of the connection or of its loss
	Server    string
	Error     error         // why it is not connected, nil before the first try
	Skew      time.Duration // this clock minus the control plane's, at the last welcome
	NotAfter  time.Time     // of the certificate
}

// Link is the session with the control plane. It is safe for concurrent use.
type Link struct {
	cfg  Config
	beat chan struct{}
	wake chan struct{} // enrolled anew: do not wait

	mu    sync.Mutex
	state State
}

// Times of a session.
const (
	beatEvery    = 30 * time.Second
	pingEvery    = 10 * time.Second
	silenceLimit = 25 * time.Second // then the connection is half open
	writeLimit   = 10 * time.Second
	dialLimit    = 15 * time.Second
	firstWait    = 200 * time.Millisecond
	longestWait  = time.Minute
	refusedWait  = 5 * time.Minute // revoked: only enrolling anew helps
	inFlight     = 4               // batches of one source that wait for an acknowledgement
)

// New returns a link.
func New(cfg Config) *Link {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Link{cfg: cfg, beat: make(chan struct{}, 1), wake: make(chan struct{}, 1), state: State{Since: cfg.Now()}}
}

// State returns the state of the link.
func (l *Link) State() State {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
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

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Run keeps a session until ctx ends. Without an identity it waits for one.
func (l *Link) Run(ctx context.Context) error {
	wait := firstWait
	for {
		began := l.cfg.Now()
		err := l.session(ctx)
		if ctx.Err() != nil {
			return nil
		}
		now := l.cfg.Now()
		l.set(func(s *State) {
			if s.Connected || s.Error == nil {
				s.Since = now
			}
			s.Connected, s.Error = false, err
		})
		if now.Sub(began) > longestWait {
			wait = firstWait
		}
		pause := wait/2 + rand.N(wait)
		switch fault.KindOf(err) {
		case fault.NotFound: // not enrolled
			pause = time.Hour
		case fault.Unauthentic:
			pause = max(pause, min(refusedWait, 20*pause))
			l.cfg.Log.Warn("the control plane refuses this device", "error", err)
		default:
			l.cfg.Log.Info("no link to the control plane", "error", err, "again_in", pause.Round(time.Millisecond))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-l.wake:
			wait = firstWait
			continue
		case <-time.After(pause):
		}
		wait = min(2*wait, longestWait)
	}
}

// session connects and serves until something ends it.
func (l *Link) session(ctx context.Context) error {
	id, err := Load(l.cfg.Dir)
	if err != nil {
		l.set(func(s *State) { s.Enrolled = false })
		return err
	}
	l.set(func(s *State) { s.Enrolled, s.Server, s.NotAfter = true, id.Server, id.NotAfter })
	if l.cfg.Now().After(id.renewAt()) {
		if id, err = renew(ctx, l.cfg.Dir, id, l.cfg.Now); err != nil {
			if l.cfg.Now().After(id.NotAfter) {
				return err // there is nothing to connect with
			}
			l.cfg.Log.Warn("the certificate could not be renewed; it is tried again", "error", err, "valid_until", id.NotAfter)
		}
		l.set(func(s *State) { s.NotAfter = id.NotAfter })
	}
	s, err := l.dial(ctx, id)
	if err != nil {
		return err
	}
	return s.run(ctx, id)
}

// renewAt is at two thirds of a certificate's week.
func (id Identity) renewAt() time.Time { return id.NotAfter.Add(-7 * 24 * time.Hour / 3) }

// session is one connection.
type session struct {
	gws.BuiltinEventHandler
	l      *Link
	conn   *gws.Conn
	write  sync.Mutex
	acks   map[uint64]chan uint64 // by stream
	done   chan struct{}
	once   sync.Once
	reason error
}

func (l *Link) dial(ctx context.Context, id Identity) (*session, error) {
	config, err := id.tlsConfig(l.cfg.Now)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(id.Server)
	if err != nil {
		return nil, fault.New(fault.Invalid, "the server's address %q: %w", id.Server, err)
	}
	s := &session{l: l, acks: map[uint64]chan uint64{}, done: make(chan struct{})}
	for _, source := range l.cfg.Sources {
		s.acks[source.Stream] = make(chan uint64, 2*inFlight)
	}
	// The connection is made here, and not by the library, so that ctx ends it
	// and its errors can be explained.
	raw, err := dialTLS(ctx, u.Host, config)
	if err != nil {
		return nil, explain(u.Host, err, l.cfg.Now())
	}
	conn, res, err := gws.NewClientFromConn(s, &gws.ClientOption{
		Addr: "wss://" + u.Host + "/agent/v1/link", ReadMaxPayloadSize: wire.MaxFrame, WriteMaxPayloadSize: wire.MaxFrame, ReadBufferSize: 4096,
		HandshakeTimeout: dialLimit, Logger: quiet{}, Recovery: gws.Recovery,
	}, raw)
	if err != nil {
		raw.Close()
		if res != nil && res.StatusCode >= 400 {
			return nil, fault.New(kindOf(res.StatusCode), "the control plane refuses the session (%s); the portal or its log says why, enrolling again with --force gives a new identity", res.Status)
		}
		return nil, explain(u.Host, err, l.cfg.Now())
	}
	s.conn = conn
	return s, nil
}

func kindOf(status int) fault.Kind {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return fault.Unauthentic
	default:
		return fault.Unavailable
	}
}

type quiet struct{}

func (quiet) Error(...any) {}

// fail ends the session; the first reason is the one that counts.
func (s *session) fail(err error) {
	s.once.Do(func() {
		s.reason = err
		close(s.done)
		_ = s.conn.NetConn().Close()
	})
}

func (s *session) run(ctx context.Context, id Identity) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var parts sync.WaitGroup
	defer parts.Wait()
	defer cancel()
	parts.Go(func() {
		_ = s.conn.SetReadDeadline(time.Now().Add(silenceLimit))
		s.conn.ReadLoop()
		s.fail(fault.New(fault.Unavailable, "the connection to the control plane has ended"))
	})
	hello := &wire.Hello{
		Protocol: wire.Protocol, AgentVersion: s.l.cfg.Facts().AgentVersion, Facts: s.l.cfg.Facts(), Epoch: s.l.cfg.Epoch,
		PolicyVersion: s.l.cfg.PolicyVersion(), Time: s.l.cfg.Now(),
	}
	if err := s.send(hello); err != nil {
		s.fail(err)
	}
	for _, source := range s.l.cfg.Sources {
		parts.Go(func() { s.pump(ctx, source) })
	}
	parts.Go(func() { s.keepAlive(ctx, id) })
	select {
	case <-ctx.Done():
		_ = s.send(&wire.Goodbye{Message: "the agent stops"})
		s.fail(ctx.Err())
	case <-s.l.wake:
		s.fail(fault.New(fault.Unavailable, "enrolled anew"))
		poke(s.l.wake) // so that Run does not wait
	case <-s.done:
	}
	return s.reason
}

func (s *session) send(m wire.Message) error {
	b, err := wire.Encode(m)
	if err != nil {
		return err
	}
	s.write.Lock()
	defer s.write.Unlock()
	if err := s.conn.SetWriteDeadline(time.Now().Add(writeLimit)); err != nil {
		return err
	}
	return s.conn.WriteMessage(gws.OpcodeBinary, b)
}

// keepAlive pings, beats, and renews the certificate when it is time.
func (s *session) keepAlive(ctx context.Context, id Identity) {
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	beat := time.NewTicker(beatEvery)
	defer beat.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case <-s.done:
			return
		case <-ping.C:
			s.write.Lock()
			err = s.conn.WritePing(nil)
			s.write.Unlock()
			if s.l.cfg.Now().After(id.renewAt()) {
				err = errors.Join(err, fault.New(fault.Unavailable, "time to renew the certificate"))
			}
		case <-beat.C:
			err = s.heartbeat()
		case <-s.l.beat:
			err = s.heartbeat()
		}
		if err != nil {
			s.fail(err)
			return
		}
	}
}

func (s *session) heartbeat() error {
	waiting, lost := s.l.cfg.Counts()
	return s.send(&wire.Heartbeat{Health: s.l.cfg.Health(), Spooled: waiting, Lost: lost})
}

// pump sends one spool, a few batches ahead of their acknowledgements.
func (s *session) pump(ctx context.Context, source Source) {
	// The end of the session ends a wait for records too.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-s.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	var sent []Batch
	after := uint64(0)
	for {
		for len(sent) >= inFlight {
			if !s.await(ctx, source, &sent) {
				return
			}
		}
		b, err := s.next(ctx, source, after, &sent)
		if err != nil {
			if ctx.Err() == nil {
				s.fail(fmt.Errorf("read the spool: %w", err))
			}
			return
		}
		if err := s.send(&wire.Batch{Epoch: event.Epoch(source.Stream), ID: b.First, Records: b.Records}); err != nil {
			s.fail(err)
			return
		}
		sent = append(sent, b)
		after = b.last()
	}
}

// next waits for records, and takes acknowledgements while it does.
func (s *session) next(ctx context.Context, source Source, after uint64, sent *[]Batch) (Batch, error) {
	type result struct {
		b   Batch
		err error
	}
	got := make(chan result, 1)
	go func() {
		b, err := source.Next(ctx, after, wire.MaxBatch)
		got <- result{b, err}
	}()
	for {
		select {
		case r := <-got:
			return r.b, r.err
		case upTo := <-s.acks[source.Stream]:
			if err := settle(source, sent, upTo); err != nil {
				s.fail(err)
			}
		}
	}
}

// await waits for one acknowledgement.
func (s *session) await(ctx context.Context, source Source, sent *[]Batch) bool {
	select {
	case <-ctx.Done():
		return false
	case first := <-s.acks[source.Stream]:
		if err := settle(source, sent, first); err != nil {
			s.fail(err)
			return false
		}
		return true
	}
}

// settle drops the acknowledged batch, and what was sent before it: the
// control plane takes batches in order.
func settle(source Source, sent *[]Batch, first uint64) error {
	for i, b := range *sent {
		if b.First == first {
			*sent = (*sent)[i+1:]
			return source.Ack(b.last())
		}
	}
	return nil // of a batch that was sent before this session
}

// OnPing answers pings of the control plane.
func (s *session) OnPing(c *gws.Conn, payload []byte) {
	s.alive(c)
	s.write.Lock()
	defer s.write.Unlock()
	_ = c.WritePong(payload)
}

// OnPong notes that the control plane lives.
func (s *session) OnPong(c *gws.Conn, _ []byte) { s.alive(c) }

func (s *session) alive(c *gws.Conn) { _ = c.SetReadDeadline(time.Now().Add(silenceLimit)) }

// OnMessage takes a frame of the control plane.
func (s *session) OnMessage(c *gws.Conn, m *gws.Message) {
	defer m.Close()
	s.alive(c)
	msg, err := wire.Decode(m.Bytes())
	if err != nil {
		s.fail(fault.New(fault.Unavailable, "the control plane sent something odd: %w", err))
		return
	}
	if err := s.take(msg); err != nil {
		s.fail(err)
	}
}

func (s *session) take(m wire.Message) error {
	switch m := m.(type) {
	case *wire.Welcome:
		now := s.l.cfg.Now()
		s.l.set(func(st *State) { st.Connected, st.Since, st.Error, st.Skew = true, now, nil, now.Sub(m.Time) })
		s.l.cfg.Log.Info("linked to the control plane", "server", s.l.State().Server)
		return s.heartbeat()
	case *wire.Ack:
		if acks := s.acks[uint64(m.Epoch)]; acks != nil {
			select {
			case acks <- m.ID:
			default:
				return fault.New(fault.Unavailable, "the control plane acknowledges more than was sent")
			}
		}
		return nil
	case *wire.PolicyPush:
		version, err := s.l.cfg.ApplyPolicy(m.Signed)
		result := &wire.PolicyResult{Version: version}
		if err != nil {
			s.l.cfg.Log.Error("a policy was refused", "version", version, "error", err)
			result.Error = err.Error()
		}
		s.l.Beat()
		return s.send(result)
	case *wire.Command:
		return s.command(m)
	case *wire.Goodbye:
		return fault.New(fault.ParseKind(m.Kind), "the control plane ends the session: %s", m.Message)
	default:
		return fault.New(fault.Unavailable, "the control plane sent %T", m)
	}
}

// command carries out what the ledger allows and refuses everything else.
func (s *session) command(c *wire.Command) error {
	r := &wire.CommandResult{ID: c.ID}
	switch c.Name {
	case wire.CommandPing:
	case wire.CommandResyncPolicy, wire.CommandRenew:
		defer s.fail(fault.New(fault.Unavailable, "connecting anew as asked"))
	default:
		r.Error = fmt.Sprintf("no command %q", c.Name)
	}
	return s.send(r)
}
