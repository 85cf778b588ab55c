package link

import (
	"context"
	"net"
	"testing"
	"time"

	"komainu/fault"
)

func TestParseProxy(t *testing.T) {
	for text, want := range map[string]string{"": "", "http://proxy:3128": "proxy:3128", "http://proxy": "proxy:80", "http://[::1]:8080/": "[::1]:8080"} {
		if p, err := ParseProxy(text); err != nil || p.address != want {
			t.Errorf("%q is %q, %v; want %q", text, p.address, err, want)
		}
	}
	for _, text := range []string{"proxy:3128", "https://proxy", "http://", "http://proxy/path", "http://u:p@proxy:3128", "http://proxy?x=1", "socks5://proxy", "http://\x00"} {
		if _, err := ParseProxy(text); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestBadProxies: one that is silent, and one that answers nonsense, end in an
// error within the caller's time.
func TestBadProxies(t *testing.T) {
	for name, answer := range map[string]string{"silent": "", "nonsense": "SSH-2.0-OpenSSH\r\n\r\n", "closed": "x", "early": "HTTP/1.1 200 OK\r\n\r\nmore"} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				c, err := l.Accept()
				if err != nil {
					return
				}
				defer c.Close()
				buf := make([]byte, 1<<10)
				_, _ = c.Read(buf)
				_, _ = c.Write([]byte(answer))
				if answer == "" {
					_, _ = c.Read(buf) // until the other side gives up
				}
			}()
			p, err := ParseProxy("http://" + l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			if c, err := p.dial(ctx, "tcp", "control.example:443"); err == nil {
				c.Close()
				t.Error("a connection through a proxy that is none")
			}
		})
	}
}
