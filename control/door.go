package control

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"komainu/control/enrol"
)

// Bounds of the door.
const (
	handshakeLimit = 10 * time.Second
	handshakes     = 256 // at once; more wait in the kernel's queue
)

// door is the one port. It does the TLS handshake itself, because an agent is
// told from a browser by the protocol that the handshake negotiates, and hands
// each connection to the server for its kind.
type door struct {
	listener net.Listener
	tls      *tls.Config
	log      *slog.Logger
	browsers *http.Server
	agents   *http.Server
}

// tlsKey holds the TLS state of an agent's connection in the context of its
// requests.
type tlsKey struct{}

func newDoor(l net.Listener, config *tls.Config, log *slog.Logger, browsers, agents http.Handler) *door {
	server := func(h http.Handler) *http.Server {
		return &http.Server{
			Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
			ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		}
	}
	d := &door{listener: l, tls: config, log: log, browsers: server(browsers)}
	d.agents = server(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.TLS, _ = r.Context().Value(tlsKey{}).(*tls.ConnectionState)
		agents.ServeHTTP(w, r)
	}))
	d.agents.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, tlsKey{}, c.(*agentConn).state)
	}
	return d
}

// agentConn hides from net/http that it is a TLS connection: the server would
// end it, because it does not know the protocol.
type agentConn struct {
	net.Conn
	state *tls.ConnectionState
}

// Run serves until Close or until the listener fails.
func (d *door) Run() error {
	browsers, agents := newQueueListener(d.listener), newQueueListener(d.listener)
	var serving sync.WaitGroup
	serving.Go(func() { d.ended("browsers", d.browsers.Serve(browsers)) })
	serving.Go(func() { d.ended("agents", d.agents.Serve(agents)) })
	defer serving.Wait()
	defer browsers.Close()
	defer agents.Close()
	slots := make(chan struct{}, handshakes)
	var shaking sync.WaitGroup
	defer shaking.Wait()
	for {
		raw, err := d.listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			if isTemporary(err) {
				// Out of descriptors, or the peer is gone already: neither is a
				// reason to stop.
				d.log.Warn("a connection could not be accepted", "error", err)
				time.Sleep(50 * time.Millisecond)
				continue
			}
			return err
		}
		slots <- struct{}{}
		shaking.Go(func() {
			defer func() { <-slots }()
			d.admit(raw, browsers, agents)
		})
	}
}

func isTemporary(err error) bool {
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Timeout() || errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ECONNABORTED)
}

func (d *door) ended(who string, err error) {
	if err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
		d.log.Error("a server has ended", "of", who, "error", err)
	}
}

func (d *door) admit(raw net.Conn, browsers, agents *queueListener) {
	conn := tls.Server(raw, d.tls)
	ctx, cancel := context.WithTimeout(context.Background(), handshakeLimit)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		d.log.Debug("a handshake failed", "remote", raw.RemoteAddr().String(), "error", err)
		raw.Close()
		return
	}
	state := conn.ConnectionState()
	if state.NegotiatedProtocol == enrol.ALPN {
		agents.put(&agentConn{conn, &state})
		return
	}
	browsers.put(conn)
}

// Shutdown stops accepting and waits for requests to end until ctx does.
// Sessions of agents are the gateway's to end.
func (d *door) Shutdown(ctx context.Context) error {
	d.listener.Close()
	err := errors.Join(d.browsers.Shutdown(ctx), d.agents.Shutdown(ctx))
	if err != nil {
		err = errors.Join(err, d.browsers.Close(), d.agents.Close())
	}
	return err
}

// queueListener gives a server connections that were accepted elsewhere.
type queueListener struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newQueueListener(l net.Listener) *queueListener {
	return &queueListener{addr: l.Addr(), conns: make(chan net.Conn), done: make(chan struct{})}
}

func (q *queueListener) put(c net.Conn) {
	select {
	case q.conns <- c:
	case <-q.done:
		c.Close()
	}
}

// Accept returns the next connection.
func (q *queueListener) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.done:
		return nil, net.ErrClosed
	}
}

// Close ends Accept and put.
func (q *queueListener) Close() error {
	q.once.Do(func() { close(q.done) })
	return nil
}

// Addr returns the address of the port.
func (q *queueListener) Addr() net.Addr { return q.addr }
