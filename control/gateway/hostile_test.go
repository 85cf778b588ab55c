package gateway_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/lxzan/gws"
	"google.golang.org/protobuf/encoding/protowire"

	"komainu/control/enrol"
	"komainu/event"
	"komainu/fault"
	"komainu/wire"
)

// tlsFor is the TLS of a client that shows a certificate, nil for none.
func (p *plane) tlsFor(pair *tls.Certificate) *tls.Config {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(p.ids.CAPEM())
	c := &tls.Config{RootCAs: roots, NextProtos: []string{enrol.ALPN}}
	if pair != nil {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair, nil }
	}
	return c
}

func (a *agent) pair() *tls.Certificate {
	a.p.t.Helper()
	pair, err := tls.X509KeyPair([]byte(a.id.Certificate), []byte(a.id.Key))
	if err != nil {
		a.p.t.Fatal(err)
	}
	return &pair
}

// raw is a WebSocket client that sends what a test wants.
type raw struct {
	gws.BuiltinEventHandler
	conn *gws.Conn
	got  chan wire.Message
	end  chan struct{}
}

func (r *raw) OnMessage(_ *gws.Conn, m *gws.Message) {
	defer m.Close()
	if d, err := wire.Decode(m.Bytes()); err == nil {
		r.got <- d
	}
}

func (r *raw) OnClose(*gws.Conn, error) { close(r.end) }

type silent struct{}

func (silent) Error(...any) {}

// dial connects as an agent, up to the WebSocket.
func (a *agent) dial() *raw {
	t := a.p.t
	t.Helper()
	r := &raw{got: make(chan wire.Message, 100), end: make(chan struct{})}
	conn, _, err := gws.NewClient(r, &gws.ClientOption{Addr: "wss://" + a.p.address + "/agent/v1/link", TlsConfig: a.p.tlsFor(a.pair()), Logger: silent{}})
	if err != nil {
		t.Fatal(err)
	}
	r.conn = conn
	go conn.ReadLoop()
	t.Cleanup(func() { conn.NetConn().Close() })
	return r
}

func (r *raw) send(t testing.TB, m wire.Message) {
	t.Helper()
	b, err := wire.Encode(m)
	if err == nil {
		err = r.conn.WriteMessage(gws.OpcodeBinary, b)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// goodbye waits for the end of a session and returns what was said, or nil.
func (r *raw) goodbye(t testing.TB) *wire.Goodbye {
	t.Helper()
	select {
	case <-r.end:
	case <-time.After(10 * time.Second):
		t.Fatal("the session goes on")
	}
	for {
		select {
		case m := <-r.got:
			if g, ok := m.(*wire.Goodbye); ok {
				return g
			}
		default:
			return nil
		}
	}
}

// await waits for a message of a type.
func await[M wire.Message](t testing.TB, r *raw) M {
	t.Helper()
	for deadline := time.After(10 * time.Second); ; {
		select {
		case m := <-r.got:
			if want, ok := m.(M); ok {
				return want
			}
		case <-deadline:
			t.Fatalf("no %T", *new(M))
		}
	}
}

// TestFramesThatEndASession: each is answered with its reason, and the next
// session works.
func TestFramesThatEndASession(t *testing.T) {
	p := newPlane(t)
	a := p.enrol()
	hello := &wire.Hello{Protocol: wire.Protocol}
	binary := func(b []byte) func(*raw) error {
		return func(r *raw) error { return r.conn.WriteMessage(gws.OpcodeBinary, b) }
	}
	message := func(m wire.Message) func(*raw) error {
		return func(r *raw) error { r.send(t, m); return nil }
	}
	future := protowire.AppendBytes(protowire.AppendTag(nil, 99, protowire.BytesType), []byte("future"))
	for _, tt := range []struct {
		name    string
		greeted bool
		send    func(*raw) error
		kind    fault.Kind
		says    string
	}{
		{"garbage", true, binary([]byte("GET / HTTP/1.1\r\n\r\n")), fault.Invalid, "malformed frame"},
		{"empty", true, binary(nil), 0, ""}, // of no kind that is known: passed over
		{"text", true, func(r *raw) error { return r.conn.WriteString("hello") }, fault.Invalid, "not binary"},
		{"too_many_records", true, binary(bytes.Repeat([]byte{0x1a, 2, 0x1a, 0}, 100_000)), fault.Invalid, "malformed frame"},
		{"no_hello", false, message(&wire.Heartbeat{Health: []byte("{}")}), fault.Invalid, "first frame is not a hello"},
		{"unknown_before_hello", false, binary(future), fault.Invalid, "does not know"},
		{"two_hellos", true, message(hello), fault.Invalid, "second hello"},
		{"what_only_the_control_plane_sends", true, message(&wire.Ack{ID: 1}), fault.Invalid, "does not send"},
		{"too_old", false, message(&wire.Hello{Protocol: wire.Oldest - 1}), fault.Unsupported, "upgrade the agent"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := a.dial()
			if tt.greeted {
				r.send(t, hello)
				await[*wire.Welcome](t, r)
			}
			if err := tt.send(r); err != nil {
				t.Fatal(err)
			}
			if tt.says == "" {
				r.send(t, &wire.Batch{Epoch: 1, ID: 1, Records: [][]byte{[]byte("1")}})
				await[*wire.Ack](t, r)
				return
			}
			g := r.goodbye(t)
			if g == nil || g.Kind != tt.kind.String() || !strings.Contains(g.Message, tt.says) {
				t.Errorf("goodbye %+v, want %v and %q", g, tt.kind, tt.says)
			}
		})
	}
	if n := p.gateway.Stats(); n.Malformed != 4 || n.Unknown != 1 || n.Panics != 0 {
		t.Errorf("stats %+v", n)
	}
	a.run()
	eventually(t, a.connected)
}

func TestOversizedFrame(t *testing.T) {
	p := newPlane(t)
	a := p.enrol()
	r := a.dial()
	r.send(t, &wire.Hello{Protocol: wire.Protocol})
	await[*wire.Welcome](t, r)
	// The library refuses to send it, so only the head of the frame is written.
	head := []byte{0x82, 0xff, 0, 0, 0, 0, 0, 0x20, 0, 0, 1, 2, 3, 4} // 2 MiB, masked
	if _, err := r.conn.NetConn().Write(head); err != nil {
		t.Fatal(err)
	}
	r.goodbye(t)
}

// TestSilentClient: who connects and says nothing is not kept.
func TestSilentClient(t *testing.T) {
	p := newPlaneWith(t, 200*time.Millisecond)
	r := p.enrol().dial()
	r.goodbye(t)
	eventually(t, func() string {
		if n := p.gateway.Stats().Sessions; n != 0 {
			return fmt.Sprintf("%d sessions", n)
		}
		return ""
	})
}

func TestForeignDeviceInARecordIsIgnored(t *testing.T) {
	p := newPlane(t)
	a := p.enrol()
	r := a.dial()
	r.send(t, &wire.Hello{Protocol: wire.Protocol, Facts: wire.Facts{MachineID: "another"}})
	record, err := wire.EncodeEvent(&event.Event{ID: event.ID{Device: "victim", Source: "file", Seq: 1}})
	if err != nil {
		t.Fatal(err)
	}
	r.send(t, &wire.Batch{Epoch: 1, ID: 1, Records: [][]byte{record}})
	await[*wire.Ack](t, r)
	p.mu.Lock()
	defer p.mu.Unlock()
	if got := p.frames[0]; got.device != a.id.Device || bytes.Contains(got.batch.Records[0], []byte("victim")) {
		t.Errorf("published for %s: %q", got.device, got.batch.Records)
	}
}

// TestStrangers: certificates that are not ours, or not any more.
func TestStrangers(t *testing.T) {
	p, other := newPlane(t), newPlane(t)
	mine, foreign := p.enrol(), other.enrol()
	self := selfSigned(t, "komainu:device:"+string(mine.id.Device))
	for name, tt := range map[string]struct {
		pair *tls.Certificate
		says string
	}{
		"none":          {nil, "enrol first"},
		"of_another_ca": {foreign.pair(), "not issued by this control plane"},
		"self_signed":   {&self, "not issued by this control plane"},
	} {
		t.Run(name, func(t *testing.T) {
			c := &http.Client{Transport: &http.Transport{TLSClientConfig: p.tlsFor(tt.pair)}}
			defer c.CloseIdleConnections()
			for _, path := range []string{"/agent/v1/link", "/agent/v1/renew"} {
				method := http.MethodGet
				if strings.HasSuffix(path, "renew") {
					method = http.MethodPost
				}
				status, problem := ask(t, c, method, "https://"+p.address+path, "{}")
				if status != http.StatusUnauthorized || problem.Kind != "unauthenticated" || !strings.Contains(problem.Message, tt.says) {
					t.Errorf("%s: %d %+v, want %q", path, status, problem, tt.says)
				}
			}
		})
	}
}

type problem struct{ Kind, Message string }

func ask(t *testing.T, c *http.Client, method, to, body string) (int, problem) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, to, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	var p problem
	if res.StatusCode != http.StatusOK {
		if err := json.Unmarshal(text, &p); err != nil {
			t.Fatalf("%s: %q", res.Status, text)
		}
	}
	return res.StatusCode, p
}

func selfSigned(t *testing.T, uri string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		URIs: []*url.URL{u}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func csr(t *testing.T, key any) string {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

// TestBodiesThatAreRefused goes past the agent's own code.
func TestBodiesThatAreRefused(t *testing.T) {
	p := newPlane(t)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	token, _ := p.token(nil)
	good, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	goodCSR, err := json.Marshal(csr(t, good))
	if err != nil {
		t.Fatal(err)
	}
	rsaCSR, err := json.Marshal(csr(t, rsaKey))
	if err != nil {
		t.Fatal(err)
	}
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: p.tlsFor(nil)}}
	defer c.CloseIdleConnections()
	for name, tt := range map[string]struct {
		body   string
		status int
		says   string
	}{
		"nothing":     {"", 422, "not the JSON that is expected"},
		"broken":      {`{"token":`, 422, "not the JSON that is expected"},
		"two_objects": {`{} {}`, 422, "more follows"},
		"unknown":     {`{"token":"x","admin":true}`, 422, "unknown field"},
		"wrong_type":  {`{"token":1}`, 422, "not the JSON that is expected"},
		"too_large":   {`{"token":"` + strings.Repeat("x", 70_000) + `"}`, 429, "larger than 65536 bytes"},
		"no_request":  {`{"token":"x","csr":"","facts":{}}`, 422, "not one PEM block"},
		"other_pem":   {`{"token":"x","csr":"-----BEGIN X-----\n-----END X-----\n"}`, 422, "not one PEM block"},
		"rsa":         {`{"token":"x","csr":` + string(rsaCSR) + `}`, 422, "not P-256"},
		"guess":       {`{"token":"x","csr":` + string(goodCSR) + `}`, 401, "not known here"},
	} {
		t.Run(name, func(t *testing.T) {
			status, problem := ask(t, c, http.MethodPost, "https://"+p.address+"/agent/v1/enrol", tt.body)
			if status != tt.status || !strings.Contains(problem.Message, tt.says) {
				t.Errorf("%d %+v, want %d %q", status, problem, tt.status, tt.says)
			}
		})
	}
	// Who goes on guessing waits.
	limited := false
	for range 40 {
		status, problem := ask(t, c, http.MethodPost, "https://"+p.address+"/agent/v1/enrol", `{"token":"x","csr":`+string(goodCSR)+`}`)
		if limited = status == http.StatusTooManyRequests && strings.Contains(problem.Message, "too many failed enrolments"); limited {
			break
		}
	}
	if !limited {
		t.Error("guessing has no limit")
	}
	if len(p.devices) != 0 || p.uses(token.ID) != 0 {
		t.Errorf("devices %v, uses %d", p.devices, p.uses(token.ID))
	}
	p.clock.move(time.Minute)
	p.enrol()
}
