package gateway_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"komainu/agent/link"
	"komainu/fault"
)

// connectProxy is an HTTP proxy that makes tunnels and does nothing else.
type connectProxy struct {
	t       *testing.T
	tunnels atomic.Int32
	refuse  atomic.Bool

	mu    sync.Mutex
	conns []net.Conn
}

func (p *connectProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodConnect {
		p.t.Errorf("the proxy is asked to %s %s: it can read along", r.Method, r.URL)
		http.Error(w, "tunnels only", http.StatusMethodNotAllowed)
		return
	}
	if p.refuse.Load() {
		http.Error(w, "not you", http.StatusForbidden)
		return
	}
	to, err := net.DialTimeout("tcp", r.Host, 5*time.Second)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer to.Close()
	p.tunnels.Add(1)
	from, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		p.t.Errorf("hijack: %v", err)
		return
	}
	defer from.Close()
	p.mu.Lock()
	p.conns = append(p.conns, from, to)
	p.mu.Unlock()
	if _, err := io.WriteString(from, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { _, _ = io.Copy(to, buffered); to.Close() })
	both.Go(func() { _, _ = io.Copy(from, to); from.Close() })
	both.Wait()
}

// cut ends all tunnels.
func (p *connectProxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		c.Close()
	}
	p.conns = nil
}

func startProxy(t *testing.T) (*connectProxy, link.Proxy) {
	t.Helper()
	p := &connectProxy{t: t}
	s := httptest.NewServer(p)
	t.Cleanup(func() { p.cut(); s.Close() })
	way, err := link.ParseProxy(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	return p, way
}

// TestProxy: a device behind a proxy enrols, connects and is tested through
// it, and changes the way while it is connected.
func TestProxy(t *testing.T) {
	p := newPlane(t)
	proxy, way := startProxy(t)
	_, token := p.token(nil)
	a := &agent{p: p, dir: t.TempDir()}
	a.proxy.Store(&way)
	id, err := link.Enrol(t.Context(), link.EnrolOptions{Dir: a.dir, Token: token, Facts: facts, Proxy: way})
	if err != nil {
		t.Fatal(err)
	}
	a.id = id
	if proxy.tunnels.Load() == 0 {
		t.Error("the enrolment went past the proxy")
	}
	var names []string
	test := func() (failed link.Step) {
		names = nil
		err := link.Test(t.Context(), a.dir, way, time.Now, func(s link.Step) error {
			names = append(names, s.Name)
			if !s.OK && !s.Skipped {
				failed = s
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return failed
	}
	if failed := test(); failed.Name != "" || strings.Join(names, " ") != "resolve tcp proxy tls protocol clock latency certificate" {
		t.Errorf("steps %v, failed %+v", names, failed)
	}

	before := proxy.tunnels.Load()
	a.run()
	eventually(t, a.connected)
	if proxy.tunnels.Load() == before {
		t.Error("the session went past the proxy")
	}

	// Without it from now on, and no word of the proxy is needed any more.
	a.proxy.Store(&link.Proxy{})
	since := a.link.State().Since
	a.link.Reconnect()
	eventually(t, func() string {
		if s := a.link.State(); !s.Connected || !s.Since.After(since) {
			return fmt.Sprintf("connected %v since %v", s.Connected, s.Since)
		}
		return ""
	})
	proxy.refuse.Store(true)
	proxy.cut()
	if why := a.connected(); why != "" {
		t.Errorf("the session does not live without the proxy: %s", why)
	}

	// A proxy that refuses is named.
	if failed := test(); failed.Name != "proxy" || !strings.Contains(failed.Detail, "403 Forbidden") {
		t.Errorf("a proxy that refuses: %+v", failed)
	}
	a.proxy.Store(&way)
	a.link.Reconnect()
	if err := a.refused(fault.Unavailable); !strings.Contains(err.Error(), "the proxy 127.0.0.1:") || !strings.Contains(err.Error(), "403 Forbidden") {
		t.Error(err)
	}
}
