package localapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"komainu/fault"
)

// Limits of the server. Callers who are not administrators share a part of
// the connections, so that they cannot lock an administrator out.
const (
	maxBody         = 64 << 10
	maxHeader       = 16 << 10
	maxConns        = 64
	maxConnsOthers  = 32
	maxConnsOneUser = 8
	readTimeout     = 10 * time.Second // of a body
	writeTimeout    = 10 * time.Second // of one answer or one line of a stream
	stopTimeout     = 2 * time.Second
)

// Config says where to listen and what to serve.
type Config struct {
	Path    string // of the socket; "" is DefaultSocket
	Version string // of the agent
	Backend Backend
	Log     *slog.Logger
}

// Server answers on the socket. Make one with Open.
type Server struct {
	cfg      Config
	listener net.Listener
	mux      *http.ServeMux
	testing  sync.Mutex // held while a connectivity test runs
	panics   atomic.Uint64
}

// Open takes the socket: a stale one is replaced, its folder is made when it
// is missing. It returns fault.Conflict when another agent answers there, or
// when what lies there is no socket. From then on callers wait for Run.
func Open(cfg Config) (*Server, error) {
	if cfg.Path == "" {
		cfg.Path = DefaultSocket
	}
	l, err := listen(cfg.Path)
	if err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, listener: &boundedListener{Listener: l, log: cfg.Log, users: map[uint32]int{}}, mux: http.NewServeMux()}
	s.register()
	return s, nil
}

// register fills the mux from the table of routes.
func (s *Server) register() {
	for _, r := range s.routes() {
		s.mux.Handle(r.pattern, s.handler(r))
	}
	s.mux.Handle("/", s.handler(route{pattern: "/", run: s.unknown}))
}

// Close gives the socket up. It is for a server that never ran; Run does it
// by itself.
func (s *Server) Close() error { return s.listener.Close() }

// Run serves until ctx ends. Calls under way then have their context ended
// and a moment to answer.
func (s *Server) Run(ctx context.Context) error {
	srv := &http.Server{
		Handler:           s.mux,
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if b, ok := c.(*boundedConn); ok {
				return context.WithValue(ctx, callerKey{}, b.caller)
			}
			return ctx
		},
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		if srv.Shutdown(grace) != nil {
			srv.Close()
		}
	})
	err := srv.Serve(s.listener)
	if !stop() {
		<-stopped
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve %s: %w", s.cfg.Path, err)
}

// Panics returns how many calls ended in a panic of ours.
func (s *Server) Panics() uint64 { return s.panics.Load() }

// Caller is who called.
type Caller struct {
	UID   uint32
	PID   int32
	Admin bool // root, the agent's own user, or a member of Group
}

type callerKey struct{}

// CallerOf returns who made the call that ctx belongs to.
func CallerOf(ctx context.Context) (Caller, bool) {
	c, ok := ctx.Value(callerKey{}).(Caller)
	return c, ok
}

// boundedListener identifies callers and closes the connections of those who
// have too many.
type boundedListener struct {
	net.Listener
	log *slog.Logger

	mu     sync.Mutex
	total  int
	others int // of callers who are no administrators
	users  map[uint32]int
}

func (l *boundedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		caller, err := callerOn(c)
		if err == nil && l.take(caller) {
			return &boundedConn{Conn: c, caller: caller, release: sync.OnceFunc(func() { l.give(caller) })}, nil
		}
		l.log.Debug("local connection refused", "uid", caller.UID, "pid", caller.PID, "error", err)
		c.Close()
	}
}

func (l *boundedListener) take(c Caller) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.total >= maxConns || !c.Admin && (l.others >= maxConnsOthers || l.users[c.UID] >= maxConnsOneUser) {
		return false
	}
	l.total++
	if !c.Admin {
		l.others++
		l.users[c.UID]++
	}
	return true
}

func (l *boundedListener) give(c Caller) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total--
	if !c.Admin {
		l.others--
		if l.users[c.UID]--; l.users[c.UID] == 0 {
			delete(l.users, c.UID)
		}
	}
}

type boundedConn struct {
	net.Conn
	caller  Caller
	release func()
}

func (c *boundedConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}

// version answers who we are.
func (s *Server) version() Version {
	return Version{Agent: s.cfg.Version, API: API, PID: os.Getpid()}
}

// unknown answers whatever no route covers, most often a command that is
// newer than the agent.
func (s *Server) unknown(c *call) error {
	return fault.New(fault.Unsupported, "the agent (version %s) does not know %s %s: it is of another version than the command; update both",
		s.cfg.Version, c.r.Method, c.r.URL.Path)
}
