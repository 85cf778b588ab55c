package gateway_test

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// withSecret puts another secret into a join token.
func withSecret(t *testing.T, token, secret string) string {
	t.Helper()
	text, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(token, "kmj1."))
	if err != nil {
		t.Fatal(err)
	}
	var body map[string]string
	if err := json.Unmarshal(text, &body); err != nil {
		t.Fatal(err)
	}
	body["t"] = secret
	text, err = json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	return "kmj1." + base64.RawURLEncoding.EncodeToString(text)
}

// oldPlane serves p's identity with a protocol that nobody speaks any more and
// returns its address.
func oldPlane(t *testing.T, p *plane) string {
	t.Helper()
	old := &plane{t: t, ids: p.ids, protocol: 0, silence: p.silence, address: "127.0.0.1:0"}
	old.start()
	t.Cleanup(old.stop)
	return old.address
}

// forwarder passes bytes on until it is told to hold them back, as a network
// does that loses everything and tells nobody.
type forwarder struct {
	l  net.Listener
	to string

	mu    sync.Mutex
	held  bool
	conns []net.Conn
}

func forward(t *testing.T, at, to string) *forwarder {
	t.Helper()
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	f := &forwarder{l: l, to: to}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { f.pass(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		f.mu.Lock()
		for _, c := range f.conns {
			c.Close()
		}
		f.mu.Unlock()
		running.Wait()
	})
	return f
}

func (f *forwarder) address() string { return f.l.Addr().String() }

func (f *forwarder) pass(a net.Conn) {
	b, err := net.DialTimeout("tcp", f.to, 5*time.Second)
	if err != nil {
		a.Close()
		return
	}
	f.mu.Lock()
	f.conns = append(f.conns, a, b)
	f.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { f.copy(a, b) })
	both.Go(func() { f.copy(b, a) })
	both.Wait()
}

// copy swallows what comes while the forwarder holds.
func (f *forwarder) copy(to, from net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		f.mu.Lock()
		held := f.held
		f.mu.Unlock()
		if held && err != nil {
			return // and the other side learns nothing of it
		}
		if held {
			continue
		}
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			if err == io.EOF {
				to.Close()
			}
			return
		}
	}
}

// hold makes the connections of now half open; later ones work.
func (f *forwarder) hold(on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held = on
}
