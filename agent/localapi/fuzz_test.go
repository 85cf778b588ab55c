package localapi

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"komainu/fault"
)

// FuzzRequests sends bodies of any kind to every route: none makes the agent
// panic, and each has an answer of the API.
func FuzzRequests(f *testing.F) {
	for _, body := range []string{`{}`, `{"value":"x"}`, `{"id":"` + strings.Repeat("a", 100) + `"}`, `{"type":"custom","path":"/x"}`, `{"test":"eicar","folder":"relative"}`, `[]`, `{"a":`, "\x00"} {
		f.Add(body, "x")
	}
	s := &Server{cfg: Config{Version: "9", Log: slog.New(slog.NewTextHandler(io.Discard, nil))}, mux: http.NewServeMux()}
	s.register()
	routes := s.routes()
	f.Fuzz(func(t *testing.T, body, name string) {
		for _, r := range routes {
			method, pattern, _ := strings.Cut(r.pattern, " ")
			req := httptest.NewRequest(method, strings.NewReplacer("{id}", "x", "{name}", "x").Replace(pattern), strings.NewReader(body))
			if strings.Contains(pattern, "{") {
				req.SetPathValue("id", name)
			}
			for _, who := range []Caller{root, nobody} {
				w := httptest.NewRecorder()
				s.mux.ServeHTTP(w, req.WithContext(context.WithValue(req.Context(), callerKey{}, who)))
				if w.Code != http.StatusOK && w.Code != http.StatusNoContent {
					kindOf(t, w)
				}
			}
		}
		if s.Panics() != 0 {
			t.Fatalf("%q made it panic", body)
		}
	})
}

// FuzzAnswers gives the command line answers of any kind: it ends with an
// error or a value, and is not kept waiting.
func FuzzAnswers(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nKomainu-Agent: 9\r\nContent-Length: 14\r\n\r\n{\"done\":true}\n\n"))
	f.Add([]byte("HTTP/1.1 500 x\r\nKomainu-Agent: 9\r\nContent-Length: 2\r\n\r\n{}"))
	f.Add([]byte("HTTP/1.1 200 OK\r\n\r\n"))
	f.Add([]byte("\x16\x03\x01"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
		if err != nil {
			t.Skip(err)
		}
		defer l.Close()
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				c.Write(answer)
				c.Close()
			}
		}()
		c, err := Dial(t.Context(), l.Addr().String())
		if err != nil {
			return
		}
		defer c.Close()
		if _, err := c.Health(t.Context()); err != nil && fault.KindOf(err).Exit() == 0 {
			t.Fatalf("an error that is none: %v", err)
		}
		_ = c.TestConnectivity(t.Context(), func(ConnectivityStep) error { return nil })
	})
}
