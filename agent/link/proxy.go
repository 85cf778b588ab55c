package link

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"komainu/fault"
	"komainu/policy"
)

// Proxy is where connections to the control plane go through: an HTTP proxy
// that is asked with CONNECT, so that the session is encrypted from here to
// the control plane. The zero Proxy is none.
type Proxy struct{ address string }

// ParseProxy reads http://host:port; "" is no proxy. Errors: fault.Invalid.
func ParseProxy(text string) (Proxy, error) {
	address, err := policy.ProxyAddress(text)
	if err != nil {
		return Proxy{}, fault.New(fault.Invalid, "%w", err)
	}
	return Proxy{address}, nil
}

// proxyLimit bounds what a proxy may answer before it is silent.
const proxyLimit = 16 << 10

// dial connects to an address, through the proxy if there is one.
func (p Proxy) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if p.address == "" {
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, p.address)
	if err != nil {
		return nil, fmt.Errorf("the proxy %s: %w", p.address, err)
	}
	if err := p.connect(ctx, conn, address); err != nil {
		_ = conn.Close() // the error says more
		return nil, fmt.Errorf("the proxy %s: %w", p.address, err)
	}
	return conn, nil
}

// connect asks the proxy for a tunnel.
func (p Proxy) connect(ctx context.Context, conn net.Conn, address string) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: address}, Host: address, Header: http.Header{"User-Agent": {"komainu"}}}
	if err := req.Write(conn); err != nil {
		return errors.Join(ctx.Err(), err)
	}
	answer := bufio.NewReader(io.LimitReader(conn, proxyLimit))
	res, err := http.ReadResponse(answer, req)
	if err != nil {
		return errors.Join(ctx.Err(), err)
	}
	_ = res.Body.Close() // of a CONNECT that succeeds there is none
	switch {
	case res.StatusCode != http.StatusOK:
		return fmt.Errorf("it answers %s to a connection to %s", res.Status, address)
	case answer.Buffered() > 0:
		return errors.New("it speaks before the connection is used")
	case !stop():
		return ctx.Err() // the deadline may be set already
	}
	return nil
}
