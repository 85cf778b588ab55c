package localapi

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"komainu/fault"
	"komainu/health"
	"komainu/policy"
)

// partial is a backend of a few parts whose answers a test sets.
type partial struct {
	threats []Threat
	err     error
	steps   int
	panics  bool
}

func (p *partial) Report(context.Context) health.Report {
	if p.panics {
		panic("broken")
	}
	return health.Report{Healthy: true}
}

func (p *partial) Threats(context.Context) ([]Threat, error)                   { return p.threats, p.err }
func (p *partial) Threat(context.Context, string) (Threat, error)              { return Threat{}, p.err }
func (p *partial) AddExclusion(context.Context, policy.Exclusion) error        { return p.err }
func (p *partial) Exclusions(context.Context) ([]Exclusion, error)             { return nil, p.err }
func (p *partial) RemoveExclusion(_ context.Context, _ policy.Exclusion) error { return p.err }

func (p *partial) TestConnectivity(_ context.Context, step func(ConnectivityStep) error) error {
	for range p.steps {
		if err := step(ConnectivityStep{Name: "ping", OK: true}); err != nil {
			return err
		}
	}
	return p.err
}

func newServer(t *testing.T, b Backend) *Server {
	t.Helper()
	s := &Server{cfg: Config{Version: "9", Backend: b, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}, mux: http.NewServeMux()}
	s.register()
	return s
}

// ask makes a call as somebody.
func ask(s *Server, who Caller, method, path, body string) *httptest.ResponseRecorder {
	req := httptest.NewRequest(method, path, strings.NewReader(body))
	w := httptest.NewRecorder()
	s.mux.ServeHTTP(w, req.WithContext(context.WithValue(req.Context(), callerKey{}, who)))
	return w
}

var (
	root   = Caller{UID: 0, Admin: true}
	nobody = Caller{UID: 65534}
)

func kindOf(t *testing.T, w *httptest.ResponseRecorder) fault.Kind {
	t.Helper()
	var f failure
	if err := json.Unmarshal(w.Body.Bytes(), &f); err != nil || f.Message == "" {
		t.Fatalf("no failure in %d %q: %v", w.Code, w.Body, err)
	}
	if k := fault.ParseKind(f.Kind); k.HTTP() != w.Code {
		t.Errorf("%v came with status %d", k, w.Code)
	}
	return fault.ParseKind(f.Kind)
}

// TestWhoMayWhat holds the list of what everybody may read against the table
// of routes: a new route needs root unless it is added here too.
func TestWhoMayWhat(t *testing.T) {
	open := map[string]bool{"GET /v1/version": true, "GET /v1/health": true, "GET /v1/threats": true, "GET /v1/connectivity": true, "GET /v1/tests": true, "GET /v1/threat-types": true}
	s := newServer(t, Backend{})
	for _, r := range s.routes() {
		method, path, _ := strings.Cut(r.pattern, " ")
		path = strings.NewReplacer("{id}", "x", "{name}", "scan-archives").Replace(path)
		w := ask(s, nobody, method, path, `{}`)
		if allowed := w.Code == 200 || kindOf(t, w) != fault.NeedsRoot; allowed != open[r.pattern] {
			t.Errorf("%s: everybody may is %v, want %v", r.pattern, allowed, open[r.pattern])
		}
		if w := ask(s, root, method, path, `{}`); w.Code != 200 && kindOf(t, w) == fault.NeedsRoot {
			t.Errorf("%s: root may not", r.pattern)
		}
	}
}

func TestMissingPartIsUnsupported(t *testing.T) {
	s := newServer(t, Backend{})
	for _, path := range []string{"/v1/health", "/v1/threats", "/v1/quarantine", "/v1/scans", "/v1/exclusions", "/v1/connectivity", "/v1/diagnostics"} {
		if k := kindOf(t, ask(s, root, "GET", path, "")); k != fault.Unsupported {
			t.Errorf("%s: %v", path, k)
		}
	}
}

func TestOthersSeeNoPaths(t *testing.T) {
	s := newServer(t, Backend{Threats: &partial{threats: []Threat{{ID: "1", Name: "EICAR", Path: "/home/x/secret", SHA256: "ab",
		Inside: "inner", InitiatingUser: "x", InitiatingProcess: "/bin/x", Reason: "/home/x is busy"}}}})
	got := ask(s, nobody, "GET", "/v1/threats", "").Body.String()
	for _, secret := range []string{"secret", "/home", "ab\"", "inner", "/bin/x"} {
		if strings.Contains(got, secret) {
			t.Errorf("%q is told to everybody: %s", secret, got)
		}
	}
	if !strings.Contains(got, `"restricted":true`) || !strings.Contains(got, "EICAR") {
		t.Errorf("the list must say that it is restricted: %s", got)
	}
	if got := ask(s, root, "GET", "/v1/threats", "").Body.String(); !strings.Contains(got, "secret") || strings.Contains(got, "restricted") {
		t.Errorf("root sees %s", got)
	}
}

func TestBodiesAreReadStrictly(t *testing.T) {
	s := newServer(t, Backend{Exclusions: &partial{}})
	const good = `{"type":"folder","value":"/srv","scope":"epp"}`
	if w := ask(s, root, "POST", "/v1/exclusions", good); w.Code != http.StatusNoContent {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	for name, c := range map[string]struct {
		body string
		want fault.Kind
	}{
		"unknown_field": {`{"type":"folder","value":"/srv","scope":"epp","until":"tomorrow"}`, fault.Invalid},
		"two_values":    {good + good, fault.Invalid},
		"garbage":       {good + "x", fault.Invalid},
		"nothing":       {"", fault.Invalid},
		"cut":           {good[:20], fault.Invalid},
		"wrong_type":    {`{"type":7}`, fault.Invalid},
		"too_large":     {`{"value":"` + strings.Repeat("x", maxBody) + `"}`, fault.Exhausted},
		"no_sense":      {`{"type":"folder","value":"srv","scope":"epp"}`, fault.Invalid},
	} {
		t.Run(name, func(t *testing.T) {
			if k := kindOf(t, ask(s, root, "POST", "/v1/exclusions", c.body)); k != c.want {
				t.Errorf("%v, want %v", k, c.want)
			}
		})
	}
}

func TestRequestsThatMakeNoSense(t *testing.T) {
	s := newServer(t, Backend{})
	for _, c := range []struct{ method, path, body string }{
		{"PUT", "/v1/settings/no-such", `{"value":"enabled"}`},
		{"PUT", "/v1/settings/scan-archives", `{"value":"perhaps"}`},
		{"PUT", "/v1/log-level", `{"value":"loud"}`},
		{"PUT", "/v1/tags", `{"key":"","value":"x"}`},
		{"PUT", "/v1/tags", `{"key":"GROUP","value":"a\u001bb"}`},
		{"POST", "/v1/allowed-threats", `{"name":"a\nb"}`},
		{"POST", "/v1/scans", `{"type":"deep"}`},
		{"POST", "/v1/scans", `{"type":"custom","path":"relative"}`},
		{"POST", "/v1/scans", `{"type":"quick","path":"/srv"}`},
		{"POST", "/v1/quarantine/restore", `{}`},
		{"POST", "/v1/quarantine/restore", `{"id":"1","path":"/x"}`},
		{"POST", "/v1/quarantine/restore", `{"id":"1","destination":"x"}`},
		{"POST", "/v1/enrolment", `{"token":""}`},
	} {
		if k := kindOf(t, ask(s, root, c.method, c.path, c.body)); k != fault.Invalid {
			t.Errorf("%s %s: %v", c.path, c.body, k)
		}
	}
}

func TestSurprisesStayInTheLog(t *testing.T) {
	s := newServer(t, Backend{Threats: &partial{err: errors.New("open /var/lib/secret: no space")}})
	w := ask(s, nobody, "GET", "/v1/threats", "")
	if kindOf(t, w) != fault.Internal || strings.Contains(w.Body.String(), "secret") || !strings.Contains(w.Body.String(), `"id":`) {
		t.Errorf("others see %s", w.Body)
	}
	if w := ask(s, root, "GET", "/v1/threats", ""); !strings.Contains(w.Body.String(), "no space") {
		t.Errorf("root sees %s", w.Body)
	}
}

func TestPanicIsAnAnswerAndCounted(t *testing.T) {
	s := newServer(t, Backend{Health: &partial{panics: true}})
	if k := kindOf(t, ask(s, nobody, "GET", "/v1/health", "")); k != fault.Internal || s.Panics() != 1 {
		t.Errorf("%v, %d panics", k, s.Panics())
	}
}

func TestStreamsSayHowTheyEnd(t *testing.T) {
	b := &partial{steps: 2}
	s := newServer(t, Backend{Connectivity: b})
	if got := ask(s, nobody, "GET", "/v1/connectivity", "").Body.String(); strings.Count(got, "\n") != 3 || !strings.HasSuffix(got, `{"done":true}`+"\n") {
		t.Errorf("a good stream: %q", got)
	}
	b.err = fault.New(fault.Unavailable, "the link is down")
	if got := ask(s, nobody, "GET", "/v1/connectivity", "").Body.String(); !strings.Contains(got, `"failed":{"kind":"unavailable"`) || strings.Contains(got, "done") {
		t.Errorf("a stream that fails later: %q", got)
	}
	b.steps, b.err = 0, fault.New(fault.Conflict, "this device is not enrolled")
	if k := kindOf(t, ask(s, nobody, "GET", "/v1/connectivity", "")); k != fault.Conflict {
		t.Errorf("a stream that fails at once: %v", k)
	}
	s.testing.Lock()
	if k := kindOf(t, ask(s, nobody, "GET", "/v1/connectivity", "")); k != fault.Conflict {
		t.Errorf("a second test at the same time: %v", k)
	}
}

func TestUnknownCallNamesTheVersion(t *testing.T) {
	s := newServer(t, Backend{})
	w := ask(s, nobody, "POST", "/v2/everything", "")
	if kindOf(t, w) != fault.Unsupported || !strings.Contains(w.Body.String(), "version 9") {
		t.Errorf("%s", w.Body)
	}
}

func TestOthersCannotLockRootOut(t *testing.T) {
	l := &boundedListener{users: map[uint32]int{}}
	taken := 0
	for uid := range uint32(10) {
		for range 20 {
			if l.take(Caller{UID: uid + 1000}) {
				taken++
			}
		}
		if l.users[uid+1000] > maxConnsOneUser {
			t.Fatalf("user %d holds %d", uid, l.users[uid+1000])
		}
	}
	if taken != maxConnsOthers {
		t.Errorf("others hold %d connections, want %d", taken, maxConnsOthers)
	}
	for range maxConns - maxConnsOthers {
		if !l.take(root) {
			t.Fatal("root is locked out")
		}
	}
	if l.take(root) {
		t.Error("no limit at all")
	}
	l.give(Caller{UID: 1000})
	if !l.take(Caller{UID: 1009}) || l.take(Caller{UID: 1009}) {
		t.Error("a place that was given back must be free, once")
	}
}

// TestClientKnowsBrokenStreams cuts a stream in its middle.
func TestClientKnowsBrokenStreams(t *testing.T) {
	c := clientOf(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(headerVersion, "9")
		io.WriteString(w, `{"item":{"name":"ping","ok":true}}`+"\n")
	})
	seen := 0
	err := c.TestConnectivity(t.Context(), func(ConnectivityStep) error { seen++; return nil })
	if !fault.Is(err, fault.Unavailable) || seen != 1 {
		t.Errorf("%v after %d", err, seen)
	}
}

func TestClientKnowsStrangers(t *testing.T) {
	c := clientOf(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") })
	if _, err := c.Health(t.Context()); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "not a Komainu agent") {
		t.Errorf("%v", err)
	}
}

func TestClientIgnoresWhatIsNew(t *testing.T) {
	c := clientOf(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(headerVersion, "99")
		io.WriteString(w, `{"healthy":true,"from_the_future":{"a":1}}`)
	})
	if r, err := c.Health(t.Context()); err != nil || !r.Healthy {
		t.Errorf("%+v, %v", r, err)
	}
}

// clientOf returns a client of an agent that a test plays.
func clientOf(t *testing.T, play http.HandlerFunc) *Client {
	t.Helper()
	srv := httptest.NewServer(play)
	t.Cleanup(srv.Close)
	tr := http.DefaultTransport.(*http.Transport).Clone()
	tr.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", srv.Listener.Addr().String())
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &Client{path: "test", http: &http.Client{Transport: tr, Timeout: 10 * time.Second}}
}
