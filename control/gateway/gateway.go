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
	"log/slog"
	"maps"
	"net/http"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lxzan/gws"

	"komainu/control/rest"
	"komainu/deploy"
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
	// names its stream and first record. A batch that is sent again has the
	// same name and may hold more records.
	Publish func(ctx context.Context, device event.DeviceID, batch string, frame []byte) error
	// Hello, Heartbeat and PolicyResult keep what an agent tells.
	Hello        func(context.Context, event.DeviceID, *wire.Hello) error
	Heartbeat    func(context.Context, event.DeviceID, *wire.Heartbeat) error
	PolicyResult func(context.Context, event.DeviceID, *wire.PolicyResult) error
	// TestRun keeps how far a detection test is, and returns the stages of it
	// that the agent cannot know. May be nil.
	TestRun func(context.Context, event.DeviceID, *wire.TestRun) (*wire.TestStages, error)
	// Upgrade keeps how far an upgrade is. The last status of a device comes
	// again on every connection of it. May be nil.
	Upgrade func(context.Context, event.DeviceID, deploy.UpgradeStatus) error
	// Policy returns the policy that applies to a device now, for an agent that
	// speaks a protocol.
	Policy func(ctx context.Context, device event.DeviceID, protocol int) (policy.Signed, error)
	// Gone is told when a device has no session any more. It must not block.
	Gone func(event.DeviceID)
	Log  *slog.Logger
	// Silence of an agent after which its connection counts as broken; it is
	// pinged four times in it. 90 s when zero.
	Silence time.Duration
}

// Times of a session.
const (
	silence      = 90 * time.Second // an agent beats every 30 s and answers pings
	helloLimit   = 10 * time.Second
	writeLimit   = 10 * time.Second
	publishLimit = 30 * time.Second
)

// Session describes a connected agent.
type Session struct {
	Device   event.DeviceID
	Remote   string
	Since    time.Time
	Protocol int
}

// Stats counts since the start.
type Stats struct {
	Sessions  int    // now
	Opened    uint64 // sessions
	Refused   uint64 // requests that Identify did not let in, or that were no WebSocket
	Replaced  uint64 // sessions that another one of the same device has ended
	Malformed uint64 // frames that ended a session
	Unknown   uint64 // frames of newer agents that were passed over
	Batches   uint64 // published and acknowledged
	Failed    uint64 // batches that the queue did not take
	Panics    uint64
}

// Gateway is an http.Handler for the route of the link.
type Gateway struct {
	cfg    Config
	up     *gws.Upgrader
	counts struct{ opened, refused, replaced, malformed, unknown, batches, failed, panics atomic.Uint64 }

	mu       sync.Mutex
	sessions map[event.DeviceID]*session
	closed   bool
	running  sync.WaitGroup
}

// New returns a gateway.
func New(cfg Config) *Gateway {
	if cfg.Silence == 0 {
		cfg.Silence = silence
	}
	g := &Gateway{cfg: cfg, sessions: map[event.DeviceID]*session{}}
	g.up = gws.NewUpgrader(handler{}, &gws.ServerOption{
		ReadMaxPayloadSize: wire.MaxFrame, WriteMaxPayloadSize: wire.MaxFrame, ReadBufferSize: 1024, ParallelGolimit: 1,
		Recovery: func(gws.Logger) {}, Logger: quiet{}, HandshakeTimeout: helloLimit,
	})
	return g
}

// quiet keeps the library from writing to the standard logger; what matters
// is logged here.
type quiet struct{}

func (quiet) Error(...any) {}

// ServeHTTP takes the connection of an agent. It returns when the session has
// begun, which lets go of what the request has taken.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	device, err := g.cfg.Identify(r)
	if err != nil {
		g.counts.refused.Add(1)
		g.cfg.Log.Info("an agent was refused", "remote", r.RemoteAddr, "error", err)
		rest.Write(w, g.cfg.Log, err)
		return
	}
	conn, err := g.up.Upgrade(w, r)
	if err != nil {
		g.counts.refused.Add(1)
		g.cfg.Log.Info("an agent did not upgrade", "device", device, "remote", r.RemoteAddr, "error", err)
		return
	}
	s := &session{g: g, device: device, conn: conn, since: time.Now()}
	conn.Session().Store(sessionKey, s)
	if !g.enter(s) {
		s.end(fault.Unavailable, "the control plane stops")
		return
	}
	// Once more: a revocation that came in between has found no session to end.
	if _, err := g.cfg.Identify(r); err != nil {
		s.end(fault.KindOf(err), err.Error())
	}
	go s.run()
}

func (s *session) run() {
	defer s.g.leave(s)
	if err := s.conn.SetReadDeadline(time.Now().Add(min(helloLimit, s.g.cfg.Silence))); err != nil {
		return
	}
	s.write.Lock()
	s.pings = time.AfterFunc(s.g.cfg.Silence/4, s.ping)
	s.write.Unlock()
	defer s.pings.Stop()
	s.conn.ReadLoop()
}

func (g *Gateway) enter(s *session) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	if old := g.sessions[s.device]; old != nil {
		g.counts.replaced.Add(1)
		go old.end(fault.Conflict, "another connection of the same device has taken over; if it is a copy of this host, enrol one of the two with --force")
	}
	g.sessions[s.device] = s
	g.counts.opened.Add(1)
	g.running.Add(1)
	return true
}

func (g *Gateway) leave(s *session) {
	defer g.running.Done()
	_ = s.conn.NetConn().Close()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.sessions[s.device] == s {
		delete(g.sessions, s.device)
	}
	// Told under the lock, so that it cannot overtake the hello of a session
	// that comes after.
	if g.sessions[s.device] == nil {
		g.cfg.Gone(s.device)
	}
}

// Push sends a device its policy anew. A device that is not connected gets it
// when it connects.
func (g *Gateway) Push(ctx context.Context, device event.DeviceID) {
	s := g.session(device)
	if s == nil || !s.greeted.Load() {
		return
	}
	if err := s.push(ctx); err != nil {
		g.cfg.Log.Warn("a policy could not be sent", "device", device, "error", err)
		s.end(fault.Unavailable, "connect again for the policy")
	}
}

// Disconnect ends the session of a device and says why.
func (g *Gateway) Disconnect(device event.DeviceID, kind fault.Kind, message string) {
	if s := g.session(device); s != nil {
		s.end(kind, message)
	}
}

// Command asks a device to do one of the commands of the protocol and waits
// for its answer. Errors: fault.Invalid for a command that is none,
// fault.Unavailable when the device is not connected or does not answer, and
// fault.Conflict with what the device says when it fails.
func (g *Gateway) Command(ctx context.Context, device event.DeviceID, name string) error {
	if !wire.KnownCommand(name) {
		return fault.New(fault.Invalid, "there is no command %q", name)
	}
	return g.send(ctx, device, &wire.Command{Name: name})
}

func (g *Gateway) send(ctx context.Context, device event.DeviceID, c *wire.Command) error {
	s := g.session(device)
	if s == nil || !s.greeted.Load() {
		return fault.New(fault.Unavailable, "device %s is not connected", device)
	}
	if c.Name == wire.CommandTest && s.protocol.Load() < wire.TestProtocol {
		return fault.New(fault.Unsupported, "the agent of device %s is too old for detection tests; upgrade it", device)
	}
	if c.Name == wire.CommandUpgrade && s.protocol.Load() < wire.UpgradeProtocol {
		return fault.New(fault.Unsupported, "the agent of device %s is too old to upgrade itself; deploy the new version to it", device)
	}
	return s.command(ctx, c)
}

// Test asks a device to begin a run of a detection test. Errors: as Command,
// and fault.Unsupported for an agent that has no such tests.
func (g *Gateway) Test(ctx context.Context, device event.DeviceID, run, test string) error {
	return g.send(ctx, device, &wire.Command{Name: wire.CommandTest, Test: wire.DetectionTest{Run: run, Test: test}})
}

// Upgrade asks a device to install another version of the agent. That it
// answers says that it has begun; what becomes of it comes as UpgradeStatus.
// Errors: as Command, and fault.Unsupported for an agent that cannot.
func (g *Gateway) Upgrade(ctx context.Context, device event.DeviceID, u deploy.Upgrade) error {
	return g.send(ctx, device, &wire.Command{Name: wire.CommandUpgrade, Upgrade: u})
}

func (g *Gateway) session(device event.DeviceID) *session {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.sessions[device]
}

func (g *Gateway) all() []*session {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := make([]*session, 0, len(g.sessions))
	for _, s := range g.sessions {
		all = append(all, s)
	}
	return all
}

// Sessions lists the connected agents.
func (g *Gateway) Sessions() []Session {
	all := g.all()
	list := make([]Session, len(all))
	for i, s := range all {
		list[i] = Session{Device: s.device, Remote: s.conn.RemoteAddr().String(), Since: s.since, Protocol: int(s.protocol.Load())}
	}
	return list
}

// Devices lists the devices that are connected.
func (g *Gateway) Devices() []event.DeviceID {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Collect(maps.Keys(g.sessions))
}

// Renew asks a device to renew its certificate now.
func (g *Gateway) Renew(ctx context.Context, device event.DeviceID) error {
	return g.Command(ctx, device, wire.CommandRenew)
}

// Stats returns the counters.
func (g *Gateway) Stats() Stats {
	g.mu.Lock()
	n := len(g.sessions)
	g.mu.Unlock()
	c := &g.counts
	return Stats{
		Sessions: n, Opened: c.opened.Load(), Refused: c.refused.Load(), Replaced: c.replaced.Load(), Malformed: c.malformed.Load(),
		Unknown: c.unknown.Load(), Batches: c.batches.Load(), Failed: c.failed.Load(), Panics: c.panics.Load(),
	}
}

// farewells is how many sessions Close ends at once.
const farewells = 64

// Close ends all sessions and waits for what they are doing: a batch that is
// being published is finished. Agents come back by themselves.
func (g *Gateway) Close() error {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	slots := make(chan struct{}, farewells)
	for _, s := range g.all() {
		slots <- struct{}{}
		go func() {
			defer func() { <-slots }()
			s.end(fault.Unavailable, "the control plane restarts")
		}()
	}
	g.running.Wait()
	return nil
}

// handler receives what gws reads. It is the same for all connections.
type handler struct{ gws.BuiltinEventHandler }

// sessionKey finds the session of a connection.
const sessionKey = "session"

func sessionOf(c *gws.Conn) *session {
	v, _ := c.Session().Load(sessionKey)
	s, _ := v.(*session)
	return s // stored before the first read
}

// OnPing answers the pings of agents.
func (handler) OnPing(c *gws.Conn, payload []byte) {
	s := sessionOf(c)
	s.alive()
	_ = s.put(gws.OpcodePong, payload) // what fails here fails at the next read
}

// OnPong notes that an agent lives.
func (handler) OnPong(c *gws.Conn, _ []byte) { sessionOf(c).alive() }

// OnMessage takes a frame of an agent.
func (handler) OnMessage(c *gws.Conn, m *gws.Message) {
	defer m.Close()
	s := sessionOf(c)
	defer func() {
		if v := recover(); v != nil {
			s.g.counts.panics.Add(1)
			s.g.cfg.Log.Error("a frame made the gateway panic", "device", s.device, "panic", v, "stack", string(debug.Stack()))
			s.end(fault.Internal, "internal error of the control plane; its log says more")
		}
	}()
	if s.over {
		return // read before the connection closed; a later batch must not overtake the one that failed
	}
	err := s.take(m)
	if err == nil {
		return
	}
	s.over = true
	kind, message, level := fault.KindOf(err), err.Error(), slog.LevelInfo
	if kind == fault.Internal {
		message, level = "internal error of the control plane; its log says more", slog.LevelWarn
	}
	s.g.cfg.Log.Log(context.Background(), level, "an agent's session ends", "device", s.device, "error", err)
	s.end(kind, message)
}
