package link

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"sync/atomic"

	"github.com/lxzan/gws"

	"komainu/wire"
)

// dialTLS connects and shakes hands within the dial limit.
func dialTLS(ctx context.Context, proxy Proxy, address string, config *tls.Config) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	raw, err := proxy.dial(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close() // the error says more
		return nil, err
	}
	return conn, nil
}

// proxy is where the next connection goes through.
func (l *Link) proxy() Proxy {
	if l.cfg.Proxy == nil {
		return Proxy{}
	}
	return l.cfg.Proxy()
}

func (l *Link) dial(ctx context.Context, id Identity) (*session, error) {
	config, err := id.tlsConfig(l.cfg.Now)
	if err != nil {
		return nil, err
	}
	if l.certificate != id.Certificate {
		l.certificate, l.tickets = id.Certificate, tls.NewLRUClientSessionCache(1)
	}
	config.ClientSessionCache = l.tickets
	u, err := id.server()
	if err != nil {
		return nil, err
	}
	s := &session{
		l: l, id: id, acks: map[uint64]chan uint64{}, renews: make(chan string, 1), welcome: make(chan struct{}), done: make(chan struct{}),
	}
	for _, source := range l.cfg.Sources {
		s.acks[source.Stream] = make(chan uint64, inFlight)
	}
	// The connection is made here, and not by the library, so that ctx ends it
	// and its errors can be explained.
	raw, err := dialTLS(ctx, l.proxy(), hostPort(u), config)
	if err != nil {
		return nil, explain(u.Host, err)
	}
	unhang := context.AfterFunc(ctx, func() { raw.Close() })
	defer unhang()
	answer := &firstAnswer{Conn: raw}
	conn, res, err := gws.NewClientFromConn(s, &gws.ClientOption{
		Addr: "wss://" + u.Host + "/agent/v1/link", ReadMaxPayloadSize: wire.MaxFrame, WriteMaxPayloadSize: wire.MaxFrame, ReadBufferSize: 4096,
		HandshakeTimeout: dialLimit, Logger: quiet{}, Recovery: func(gws.Logger) {},
	}, answer)
	if err != nil {
		defer raw.Close()
		if res != nil && res.StatusCode != http.StatusSwitchingProtocols {
			text, _ := io.ReadAll(io.LimitReader(res.Body, maxAnswer)) // what is missing of it is missing in the message
			return nil, refused(u.Host, res.Status, text)
		}
		return nil, explain(u.Host, err)
	}
	answer.open.Store(true)
	s.conn = conn
	return s, nil
}

// firstAnswer keeps the library from closing a connection whose first answer
// is a refusal, so that the reason can be read.
type firstAnswer struct {
	net.Conn
	open atomic.Bool
}

// Close closes the connection when the session has begun.
func (f *firstAnswer) Close() error {
	if f.open.Load() {
		return f.Conn.Close()
	}
	return nil
}

type quiet struct{}

func (quiet) Error(...any) {}
