package link

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"komainu/fault"
)

// Proxy is where connections to the control plane go through: an HTTP proxy
// that is asked with CONNECT, so that the session is encrypted from here to
// the control plane. The zero Proxy is none.
type Proxy struct{ address string }

// ParseProxy reads http://host:port; "" is no proxy. Errors: fault.Invalid.
func ParseProxy(text string) (Proxy, error) {
	if text == "" {
		return Proxy{}, nil
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Scheme != "http" || u.Hostname() == "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		return Proxy{}, fault.New(fault.Invalid, "the proxy is of the form http://host:port, not %q", text)
	case u.User != nil:
		return Proxy{}, fault.New(fault.Invalid, "a proxy with a user name cannot be used: they would stand in a file and in the health report; let the proxy know this host by its address")
	}
	return Proxy{net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "80"))}, nil
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
