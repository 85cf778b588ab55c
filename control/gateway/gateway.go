// Package gateway holds the sessions of agents: one WebSocket per device over
// mutual TLS, frames of package wire.
//
// Who an agent is comes from its certificate. A batch is acknowledged when
// Publish has returned, never before; batches of one agent are published one
// after the other, which is also what slows down an agent that sends faster
// than the queue takes. A device has one session: a new one ends the old one,
// because a half-open connection would otherwise keep an agent out.
package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/lxzan/gws"

	"komainu/control/rest"
	"komainu/event"
	"komainu/fault"
	"komainu/policy"
	"komainu/wire"
)

// Config says whom the gateway asks and tells.
type Config struct {
	// Identify returns the device of a request, or why it may not come in.
	Identify func(*http.Request) (event.DeviceID, error)
	// Publish makes a batch durable. frame is the encoded wire.Batch; batch
	// names it, the same when it is sent again.
	Publish func(ctx context.Context, device event.DeviceID, batch string, frame []byte) error
	// Hello, Heartbeat and PolicyResult keep what an agent tells.
	Hello        func(context.Context, event.DeviceID, *wire.Hello) error
	Heartbeat    func(context.Context, event.DeviceID, *wire.Heartbeat) error
	PolicyResult func(context.Context, event.DeviceID, *wire.PolicyResult) error
	// Policy returns the policy that applies to a device now.
	Policy func(context.Context, event.DeviceID) (policy.Signed, error)
	// Gone is told when a device has no session any more.
	Gone func(event.DeviceID)
	Log  *slog.Logger
}

// Times of a session.
const (
	idleLimit    = 90 * time.Second // an agent beats every 30 s and answers pings
	pingEvery    = 25 * time.Second
	helloLimit   = 10 * time.Second
	writeLimit   = 10 * time.Second
	publishLimit = 30 * time.Second
)

// Session describes a connected agent.
type Session struct {
	Device event.DeviceID
	Remote string
	Since  time.Time
}

// Gateway is an http.Handler for the route of the link.
type Gateway struct {
	cfg Config
	up  *gws.Upgrader

	mu       sync.Mutex
	sessions map[event.DeviceID]*session
	closed   bool
	running  sync.WaitGroup
}

// New returns a gateway.
func New(cfg Config) *Gateway {
	g := &Gateway{cfg: cfg, sessions: map[event.DeviceID]*session{}}
	g.up = gws.NewUpgrader(handler{}, &gws.ServerOption{
		ReadMaxPayloadSize: wire.MaxFrame, WriteMaxPayloadSize: wire.MaxFrame, ReadBufferSize: 1024, Recovery: gws.Recovery,
		Logger: quiet{}, HandshakeTimeout: helloLimit,
	})
	return g
}

// quiet keeps the library from writing to the standard logger; what matters
// is logged here.
type quiet struct{}

func (quiet) Error(...any) {}

// session is one connection.
type session struct {
	g      *Gateway
	device event.DeviceID
	conn   *gws.Conn
	since  time.Time
	hello  bool
	write  sync.Mutex
}

// sessionKey finds the session of a connection.
const sessionKey = "session"

// ServeHTTP takes the connection of an agent and returns when it has ended.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	device, err := g.cfg.Identify(r)
	if err != nil {
		g.cfg.Log.Info("an agent was refused", "remote", r.RemoteAddr, "error", err)
		rest.Write(w, g.cfg.Log, err)
		return
	}
	conn, err := g.up.Upgrade(w, r)
	if err != nil {
		g.cfg.Log.Info("an agent did not upgrade", "device", device, "remote", r.RemoteAddr, "error", err)
		return
	}
	s := &session{g: g, device: device, conn: conn, since: time.Now()}
	conn.Session().Store(sessionKey, s)
	if !g.enter(s) {
		_ = conn.WriteClose(1012, []byte("the control plane stops"))
		return
	}
	defer g.leave(s)
	if err := conn.SetReadDeadline(time.Now().Add(helloLimit)); err != nil {
		return
	}
	stop := make(chan struct{})
	defer close(stop)
	go s.ping(stop)
	conn.ReadLoop()
}

func (g *Gateway) enter(s *session) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	if old := g.sessions[s.device]; old != nil {
		go old.end(fault.Conflict, "another connection of the same device has taken over")
	}
	g.sessions[s.device] = s
	g.running.Add(1)
	return true
}

func (g *Gateway) leave(s *session) {
	_ = s.conn.NetConn().Close()
	g.mu.Lock()
	last := g.sessions[s.device] == s
	if last {
		delete(g.sessions, s.device)
	}
	g.mu.Unlock()
	if last {
		g.cfg.Gone(s.device)
	}
	g.running.Done()
}

// ping finds connections that only one side believes in.
func (s *session) ping(stop <-chan struct{}) {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
			s.write.Lock()
			err := s.conn.WritePing(nil)
			s.write.Unlock()
			if err != nil {
				_ = s.conn.NetConn().Close()
				return
			}
		}
	}
}

// send sends one message.
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

// end says why and closes.
func (s *session) end(kind fault.Kind, message string) {
	_ = s.send(&wire.Goodbye{Kind: kind.String(), Message: message})
	s.write.Lock()
	_ = s.conn.WriteClose(1000, nil)
	s.write.Unlock()
	_ = s.conn.NetConn().Close()
}

// handler receives what gws reads. It is the same for all connections.
type handler struct{ gws.BuiltinEventHandler }

func (handler) OnPing(c *gws.Conn, payload []byte) {
	s, ok := sessionOf(c)
	if !ok {
		return
	}
	s.alive()
	s.write.Lock()
	defer s.write.Unlock()
	_ = c.WritePong(payload)
}

func (handler) OnPong(c *gws.Conn, _ []byte) {
	if s, ok := sessionOf(c); ok {
		s.alive()
	}
}

func (handler) OnMessage(c *gws.Conn, m *gws.Message) {
	defer m.Close()
	s, ok := sessionOf(c)
	if !ok {
		return
	}
	if err := s.take(m.Bytes()); err != nil {
		level := slog.LevelInfo
		if fault.KindOf(err) == fault.Internal {
			level = slog.LevelWarn
		}
		s.g.cfg.Log.Log(context.Background(), level, "an agent's session ends", "device", s.device, "error", err)
		kind, message := fault.KindOf(err), err.Error()
		if kind == fault.Internal {
			message = "internal error of the control plane; its log says more"
		}
		s.end(kind, message)
	}
}

func sessionOf(c *gws.Conn) (*session, bool) {
	v, ok := c.Session().Load(sessionKey)
	if !ok {
		return nil, false
	}
	s, ok := v.(*session)
	return s, ok
}

// alive pushes the end of the session away.
func (s *session) alive() {
	if s.hello {
		_ = s.conn.SetReadDeadline(time.Now().Add(idleLimit))
	}
}

// take handles one frame. An error ends the session.
func (s *session) take(b []byte) error {
	m, err := wire.Decode(b)
	if err != nil {
		return fault.New(fault.Invalid, "%w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), publishLimit)
	defer cancel()
	if hello, ok := m.(*wire.Hello); ok {
		return s.greet(ctx, hello)
	}
	if !s.hello {
		return fault.New(fault.Invalid, "the first frame is not a hello")
	}
	s.alive()
	switch m := m.(type) {
	case *wire.Batch:
		return s.publish(ctx, m, b)
	case *wire.Heartbeat:
		return s.g.cfg.Heartbeat(ctx, s.device, m)
	case *wire.PolicyResult:
		return s.g.cfg.PolicyResult(ctx, s.device, m)
	case *wire.CommandResult:
		s.g.cfg.Log.Debug("a command has ended", "device", s.device, "id", m.ID, "error", m.Error)
		return nil
	case *wire.Goodbye:
		s.g.cfg.Log.Debug("an agent says goodbye", "device", s.device, "message", m.Message)
		return nil
	default:
		return fault.New(fault.Invalid, "an agent does not send %T", m)
	}
}

func (s *session) greet(ctx context.Context, h *wire.Hello) error {
	if s.hello {
		return fault.New(fault.Invalid, "a second hello")
	}
	if h.Protocol < wire.Oldest {
		return fault.New(fault.Unsupported, "the agent speaks protocol %d, the oldest that this control plane understands is %d; upgrade the agent", h.Protocol, wire.Oldest)
	}
	if err := s.g.cfg.Hello(ctx, s.device, h); err != nil {
		return err
	}
	s.hello = true
	s.alive()
	if err := s.send(&wire.Welcome{Protocol: wire.Protocol, Time: time.Now()}); err != nil {
		return fmt.Errorf("greet: %w", err)
	}
	return s.push(ctx)
}

func (s *session) push(ctx context.Context) error {
	signed, err := s.g.cfg.Policy(ctx, s.device)
	if err != nil {
		return fmt.Errorf("compose the policy: %w", err)
	}
	return s.send(&wire.PolicyPush{Signed: signed})
}

func (s *session) publish(ctx context.Context, b *wire.Batch, frame []byte) error {
	name := string(s.device) + "/" + strconv.FormatUint(uint64(b.Epoch), 36) + "/" + strconv.FormatUint(b.ID, 10)
	// The buffer is the library's and used again after this call; the queue is
	// given a copy of its own.
	err := s.g.cfg.Publish(ctx, s.device, name, append([]byte(nil), frame...))
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "the queue does not take the batch; send it again later")
	}
	return s.send(&wire.Ack{Epoch: b.Epoch, ID: b.ID})
}

// Push sends a device its policy anew. A device that is not connected gets it
// when it connects.
func (g *Gateway) Push(ctx context.Context, device event.DeviceID) {
	if s := g.session(device); s != nil {
		if err := s.push(ctx); err != nil {
			g.cfg.Log.Warn("a policy could not be sent", "device", device, "error", err)
			s.end(fault.Unavailable, "connect again for the policy")
		}
	}
}

// Disconnect ends the session of a device and says why.
func (g *Gateway) Disconnect(device event.DeviceID, kind fault.Kind, message string) {
	if s := g.session(device); s != nil {
		s.end(kind, message)
	}
}

func (g *Gateway) session(device event.DeviceID) *session {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.sessions[device]
}

// Sessions lists the connected agents.
func (g *Gateway) Sessions() []Session {
	g.mu.Lock()
	defer g.mu.Unlock()
	list := make([]Session, 0, len(g.sessions))
	for _, s := range g.sessions {
		list = append(list, Session{Device: s.device, Remote: s.conn.RemoteAddr().String(), Since: s.since})
	}
	return list
}

// Close ends all sessions and waits for them. Agents come back by themselves.
func (g *Gateway) Close() error {
	g.mu.Lock()
	g.closed = true
	var all []*session
	for _, s := range g.sessions {
		all = append(all, s)
	}
	g.mu.Unlock()
	for _, s := range all {
		s.end(fault.Unavailable, "the control plane restarts")
	}
	g.running.Wait()
	return nil
}
