package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lxzan/gws"

	"komainu/control/rest"
	"komainu/event"
	"komainu/fault"
	"komainu/wire"
)

// session is one connection. Its frames are handled one after the other, by
// the goroutine that reads them.
type session struct {
	g        *Gateway
	device   event.DeviceID
	conn     *gws.Conn
	since    time.Time
	greeted  atomic.Bool
	protocol atomic.Int32

	pushing sync.Mutex // a policy is composed and sent in one step, so that a newer one comes later
	write   sync.Mutex
	pings   *time.Timer
	waiting map[string]chan string // commands without an answer
	over    bool                   // no frame counts any more; belongs to the read loop
}

// ping finds connections that only one side believes in. It calls itself
// until the session ends.
func (s *session) ping() {
	if err := s.put(gws.OpcodePing, nil); err != nil {
		_ = s.conn.NetConn().Close()
		return
	}
	s.write.Lock()
	defer s.write.Unlock()
	s.pings.Reset(s.g.cfg.Silence / 4)
}

// alive pushes the end of the session away. Before the hello there is one
// limit for all of it.
func (s *session) alive() {
	if s.greeted.Load() {
		_ = s.conn.SetReadDeadline(time.Now().Add(s.g.cfg.Silence))
	}
}

// put writes one WebSocket frame. Whatever is written sets the deadline anew:
// one that has passed fails the next write.
func (s *session) put(code gws.Opcode, b []byte) error {
	s.write.Lock()
	defer s.write.Unlock()
	if err := s.conn.SetWriteDeadline(time.Now().Add(writeLimit)); err != nil {
		return err
	}
	return s.conn.WriteMessage(code, b)
}

func (s *session) send(m wire.Message) error {
	b, err := wire.Encode(m)
	if err != nil {
		return err
	}
	if err := s.put(gws.OpcodeBinary, b); err != nil {
		return fault.Wrap(fault.Unavailable, err, "send to the agent")
	}
	return nil
}

// end says why and closes.
func (s *session) end(kind fault.Kind, message string) {
	if s.send(&wire.Goodbye{Kind: kind.String(), Message: message}) == nil {
		s.write.Lock()
		_ = s.conn.WriteClose(1000, nil) // the goodbye has said it
		s.write.Unlock()
	}
	_ = s.conn.NetConn().Close()
}

// take handles one frame. An error ends the session.
func (s *session) take(raw *gws.Message) error {
	if raw.Opcode != gws.OpcodeBinary {
		s.g.counts.malformed.Add(1)
		return fault.New(fault.Invalid, "a frame that is not binary")
	}
	m, err := wire.Decode(raw.Bytes())
	if errors.Is(err, wire.ErrUnknown) && s.greeted.Load() {
		s.g.counts.unknown.Add(1)
		s.alive()
		return nil
	}
	if err != nil {
		s.g.counts.malformed.Add(1)
		return fault.New(fault.Invalid, "%w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), publishLimit)
	defer cancel()
	if hello, ok := m.(*wire.Hello); ok {
		return s.greet(ctx, hello)
	}
	if !s.greeted.Load() {
		return fault.New(fault.Invalid, "the first frame is not a hello")
	}
	defer s.alive()
	switch m := m.(type) {
	case *wire.Batch:
		return s.publish(ctx, m, raw.Bytes())
	case *wire.Heartbeat:
		return s.g.cfg.Heartbeat(ctx, s.device, m)
	case *wire.PolicyResult:
		return s.g.cfg.PolicyResult(ctx, s.device, m)
	case *wire.CommandResult:
		s.answer(m)
		return nil
	case *wire.TestRun:
		return s.tested(ctx, m)
	case *wire.UpgradeStatus:
		s.upgraded(ctx, m)
		return nil
	case *wire.Goodbye:
		s.g.cfg.Log.Debug("an agent says goodbye", "device", s.device, "message", m.Message)
		return nil
	default:
		return fault.New(fault.Invalid, "an agent does not send %T", m)
	}
}

func (s *session) greet(ctx context.Context, h *wire.Hello) error {
	if s.greeted.Load() {
		return fault.New(fault.Invalid, "a second hello")
	}
	if h.Protocol < wire.Oldest {
		return fault.New(fault.Unsupported, "the agent speaks protocol %d, the oldest that this control plane understands is %d; upgrade the agent", h.Protocol, wire.Oldest)
	}
	if err := s.g.cfg.Hello(ctx, s.device, h); err != nil {
		return err
	}
	s.protocol.Store(int32(min(h.Protocol, 1<<30)))
	if err := s.send(&wire.Welcome{Protocol: wire.Protocol, Time: time.Now()}); err != nil {
		return err
	}
	s.greeted.Store(true)
	s.alive()
	return s.push(ctx)
}

func (s *session) push(ctx context.Context) error {
	s.pushing.Lock()
	defer s.pushing.Unlock()
	signed, err := s.g.cfg.Policy(ctx, s.device, int(s.protocol.Load()))
	if err != nil {
		return fmt.Errorf("compose the policy: %w", err)
	}
	return s.send(&wire.PolicyPush{Signed: signed})
}

func (s *session) publish(ctx context.Context, b *wire.Batch, frame []byte) error {
	if len(b.Records) == 0 {
		return fault.New(fault.Invalid, "a batch without records")
	}
	name := strconv.FormatUint(uint64(b.Epoch), 36) + "-" + strconv.FormatUint(b.ID, 10)
	// The buffer is the library's and used again after this call; the queue is
	// given a copy of its own.
	if err := s.g.cfg.Publish(ctx, s.device, name, bytes.Clone(frame)); err != nil {
		s.g.counts.failed.Add(1)
		return fault.Wrap(fault.Unavailable, err, "the queue does not take the batch; send it again later")
	}
	s.g.counts.batches.Add(1)
	return s.send(&wire.Ack{Epoch: b.Epoch, ID: b.ID})
}

// maxCommands bounds the commands of a device that wait for an answer.
const maxCommands = 16

func (s *session) command(ctx context.Context, c *wire.Command) error {
	id, result := rest.NewID(), make(chan string, 1)
	s.write.Lock()
	if len(s.waiting) >= maxCommands {
		s.write.Unlock()
		return fault.New(fault.Exhausted, "%d commands wait for device %s already", maxCommands, s.device)
	}
	if s.waiting == nil {
		s.waiting = map[string]chan string{}
	}
	s.waiting[id] = result
	s.write.Unlock()
	defer func() {
		s.write.Lock()
		defer s.write.Unlock()
		delete(s.waiting, id)
	}()
	c.ID = id
	if err := s.send(c); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return fault.Wrap(fault.Unavailable, ctx.Err(), "device %s does not answer the command %s", s.device, c.Name)
	case failure := <-result:
		if failure != "" {
			return fault.New(fault.Conflict, "device %s could not do %s: %s", s.device, c.Name, failure)
		}
		return nil
	}
}

// answer hands the result of a command to who waits for it.
func (s *session) answer(r *wire.CommandResult) {
	s.write.Lock()
	defer s.write.Unlock()
	if result := s.waiting[r.ID]; result != nil {
		delete(s.waiting, r.ID)
		result <- r.Error
	}
}

// tested takes how far a detection test is. A report that makes no sense is
// passed over: it is no reason to lose what the session carries besides.
func (s *session) tested(ctx context.Context, m *wire.TestRun) error {
	if s.g.cfg.TestRun == nil {
		return nil
	}
	stages, err := s.g.cfg.TestRun(ctx, s.device, m)
	if err != nil {
		s.g.cfg.Log.Warn("a report of a detection test was not taken", "device", s.device, "error", err)
		return nil
	}
	return s.send(stages)
}

// upgraded takes how far an upgrade is. As with tests, what is not taken ends
// nothing: it comes again with the next connection.
func (s *session) upgraded(ctx context.Context, m *wire.UpgradeStatus) {
	if s.g.cfg.Upgrade == nil {
		return
	}
	if err := s.g.cfg.Upgrade(ctx, s.device, m.Status); err != nil {
		s.g.cfg.Log.Warn("a report of an upgrade was not taken", "device", s.device, "upgrade", m.Status.ID, "error", err)
	}
}
