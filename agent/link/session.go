package link

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lxzan/gws"

	"komainu/event"
	"komainu/fault"
	"komainu/wire"
)

// session is one connection.
type session struct {
	gws.BuiltinEventHandler
	l       *Link
	id      Identity // that it began with
	conn    *gws.Conn
	write   sync.Mutex
	acks    map[uint64]chan uint64 // by stream
	renews  chan string            // ids of commands that ask for a renewal
	welcome chan struct{}          // closed by the first Welcome
	pinged  atomic.Int64           // when the last ping left
	done    chan struct{}
	once    sync.Once
	reason  error
}

// fail ends the session; the first reason is the one that counts.
func (s *session) fail(err error) {
	s.once.Do(func() {
		s.reason = err
		close(s.done)
		_ = s.conn.NetConn().Close()
	})
}

func (s *session) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var parts sync.WaitGroup
	defer parts.Wait()
	defer cancel()
	parts.Go(func() {
		s.alive()
		s.conn.ReadLoop()
		s.fail(fault.New(fault.Unavailable, "the connection to the control plane has ended"))
	})
	facts := s.l.cfg.Facts()
	hello := &wire.Hello{
		Protocol: wire.Protocol, AgentVersion: facts.AgentVersion, Facts: facts, Epoch: s.l.cfg.Epoch,
		PolicyVersion: s.l.cfg.PolicyVersion(), Time: s.l.cfg.Now(),
	}
	if err := s.send(hello); err != nil {
		s.fail(err)
	}
	parts.Go(func() {
		select {
		case <-s.welcome:
		case <-s.done:
			return
		case <-time.After(helloLimit):
			s.fail(fault.New(fault.Unavailable, "the control plane does not answer the agent's hello"))
			return
		}
		parts.Go(func() { s.keepAlive() })
		parts.Go(func() { s.renewals(ctx) })
		parts.Go(func() { s.tests() })
		parts.Go(func() { s.upgrades() })
		for _, source := range s.l.cfg.Sources {
			parts.Go(func() { s.pump(ctx, source) })
		}
	})
	select {
	case <-ctx.Done():
		_ = s.send(&wire.Goodbye{Message: "the agent stops"})
		s.fail(ctx.Err())
	case <-s.l.wake:
		s.fail(errAgain)
	case <-s.done:
	}
	cancel()
	return s.reason
}

// send sends one message. Whatever is written sets the deadline anew: one that
// has passed fails the next write.
func (s *session) send(m wire.Message) error {
	b, err := wire.Encode(m)
	if err != nil {
		return err
	}
	return s.put(gws.OpcodeBinary, b)
}

func (s *session) put(code gws.Opcode, b []byte) error {
	s.write.Lock()
	defer s.write.Unlock()
	err := s.conn.SetWriteDeadline(time.Now().Add(writeLimit))
	if err == nil {
		err = s.conn.WriteMessage(code, b)
	}
	return fault.Wrap(fault.Unavailable, err, "send to the control plane")
}

// keepAlive pings and beats.
func (s *session) keepAlive() {
	ping := time.NewTicker(s.l.cfg.Silence / 3)
	defer ping.Stop()
	beat := time.NewTimer(0)
	defer beat.Stop()
	var last time.Time
	err := s.ping()
	for {
		if err != nil {
			s.fail(err)
			return
		}
		select {
		case <-s.done:
			return
		case <-ping.C:
			err = s.ping()
		case <-s.l.beat:
			beat.Reset(max(0, beatGap-time.Since(last)))
		case <-beat.C:
			err = s.heartbeat()
			last = time.Now()
			beat.Reset(beatEvery)
		}
	}
}

func (s *session) ping() error {
	s.pinged.Store(time.Now().UnixNano())
	return s.put(gws.OpcodePing, nil)
}

func (s *session) heartbeat() error {
	waiting, lost := s.l.cfg.Counts()
	return s.send(&wire.Heartbeat{Health: s.l.cfg.Health(), Spooled: waiting, Lost: lost})
}

// OnPing answers pings of the control plane.
func (s *session) OnPing(_ *gws.Conn, payload []byte) {
	s.alive()
	if err := s.put(gws.OpcodePong, payload); err != nil {
		s.fail(err)
	}
}

// OnPong notes that the control plane lives, and how far away.
func (s *session) OnPong(*gws.Conn, []byte) {
	s.alive()
	if sent := s.pinged.Load(); sent != 0 {
		s.l.set(func(st *State) { st.RTT = time.Since(time.Unix(0, sent)) })
	}
}

// alive pushes the end of the session away.
func (s *session) alive() { _ = s.conn.SetReadDeadline(time.Now().Add(s.l.cfg.Silence)) }

// OnMessage takes a frame of the control plane.
func (s *session) OnMessage(_ *gws.Conn, m *gws.Message) {
	defer m.Close()
	defer func() {
		if v := recover(); v != nil {
			s.l.cfg.Log.Error("a message of the control plane made the agent panic", "panic", v, "stack", string(debug.Stack()))
			s.fail(fault.New(fault.Unavailable, "a message of the control plane could not be handled"))
		}
	}()
	s.alive()
	msg, err := wire.Decode(m.Bytes())
	if errors.Is(err, wire.ErrUnknown) {
		s.l.cfg.Log.Debug("a message of a newer control plane is passed over")
		return
	}
	if err != nil {
		s.fail(fault.New(fault.Unavailable, "the control plane sent something odd: %w", err))
		return
	}
	if err := s.take(msg); err != nil {
		s.fail(err)
	}
	s.alive() // to apply a policy can take its time
}

func (s *session) take(m wire.Message) error {
	switch m := m.(type) {
	case *wire.Welcome:
		return s.welcomed(m)
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
	case *wire.TestStages:
		if s.l.cfg.TestStages != nil {
			s.l.cfg.TestStages(m.Run, m.Stages)
		}
		return nil
	case *wire.Goodbye:
		return fault.New(fault.ParseKind(m.Kind), "the control plane ends the session: %s", m.Message)
	default:
		return fault.New(fault.Unavailable, "the control plane sent %T", m)
	}
}

func (s *session) welcomed(m *wire.Welcome) error {
	select {
	case <-s.welcome:
		return fault.New(fault.Unavailable, "the control plane welcomes twice")
	default:
	}
	if err := speaks(m.Protocol); err != nil {
		return err
	}
	now := s.l.cfg.Now()
	s.l.set(func(st *State) {
		st.Connected, st.Since, st.Error, st.Protocol = true, now, nil, m.Protocol
		s.l.told, s.l.heard = m.Time, time.Now()
	})
	s.l.cfg.Log.Info("linked to the control plane", "server", s.id.Server)
	if err := clockFault(now.Sub(m.Time)); err != nil {
		s.l.cfg.Log.Warn("the times of events are wrong", "reason", err)
	}
	close(s.welcome)
	return nil
}

// command carries out what the ledger allows and refuses everything else.
func (s *session) command(c *wire.Command) error {
	r := &wire.CommandResult{ID: c.ID}
	switch c.Name {
	case wire.CommandPing:
	case wire.CommandResyncPolicy:
		if err := s.send(r); err != nil {
			return err
		}
		return errAgain // the policy comes after the hello
	case wire.CommandRenew:
		select {
		case s.renews <- c.ID:
			return nil // answered when it has ended
		default:
			r.Error = "the certificate is being renewed already"
		}
	case wire.CommandTest:
		if err := s.l.begin(c.Test); err != nil {
			r.Error = err.Error()
		}
	case wire.CommandUpgrade:
		if err := s.l.beginUpgrade(c.Upgrade); err != nil {
			r.Error = err.Error()
		}
	default:
		r.Error = fmt.Sprintf("no command %q", c.Name)
	}
	return s.send(r)
}

// pump sends one spool, a few batches ahead of their acknowledgements.
func (s *session) pump(ctx context.Context, source Source) {
	batches := make(chan Batch)
	var reading sync.WaitGroup
	defer reading.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	reading.Go(func() { s.read(ctx, source, batches) })
	var sent []Batch
	for {
		in := batches
		if len(sent) == inFlight {
			in = nil
		}
		var err error
		select {
		case <-s.done:
			return
		case b := <-in:
			sent = append(sent, Batch{First: b.First, Records: b.Records})
			err = s.send(&wire.Batch{Epoch: event.Epoch(source.Stream), ID: b.First, Records: b.Records})
		case first := <-s.acks[source.Stream]:
			sent, err = settle(source, sent, first)
		}
		if err != nil {
			s.fail(err)
			return
		}
	}
}

// read reads a spool from the first record that is not acknowledged on.
func (s *session) read(ctx context.Context, source Source, batches chan<- Batch) {
	for after := uint64(0); ; {
		b, err := source.Next(ctx, after, wire.MaxBatch)
		if err != nil {
			if ctx.Err() == nil {
				s.fail(fmt.Errorf("read the spool: %w", err))
			}
			return
		}
		b.Records = b.Records[:min(len(b.Records), wire.MaxRecords)]
		after = b.last()
		select {
		case batches <- b:
		case <-ctx.Done():
			return
		}
		if source.Gather == 0 || b.large() {
			continue
		}
		select {
		case <-time.After(source.Gather):
		case <-ctx.Done():
			return
		}
	}
}

// settle acknowledges a batch, and what was sent before it: the control plane
// takes the batches of a spool in order.
func settle(source Source, sent []Batch, first uint64) ([]Batch, error) {
	for i, b := range sent {
		if b.First == first {
			return sent[i+1:], source.Ack(b.last())
		}
	}
	return sent, fault.New(fault.Unavailable, "the control plane acknowledges what was not sent")
}
