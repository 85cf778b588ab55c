package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"komainu/health"
)

// Opcodes of RFC 6455. The frames are made by hand: no library would send
// what is sent here.
const (
	opText   = 1
	opBinary = 2
)

func (f *foe) wireSteps() []step {
	say := func(op byte, payload []byte, want string) func(context.Context) error {
		return func(ctx context.Context) error {
			return f.unharmed(ctx, func() error { return f.sayFrame(ctx, op, payload, want) })
		}
	}
	post := func(path string, agent bool, body string, status int, kind, want string) func(context.Context) error {
		return func(ctx context.Context) error {
			return f.unharmed(ctx, func() error { return f.post(ctx, path, agent, body, status, kind, want) })
		}
	}
	large := `{"name":"` + strings.Repeat("x", 2<<20) + `"}`
	return []step{
		{"a text frame ends the session of who sends it, with the reason", say(opText, []byte("hello"), "not binary")},
		{"a frame of random bytes does", say(opBinary, bytes.Repeat([]byte{0xfe, 0x91, 0x03}, 99), "malformed frame")},
		{"a frame whose length lies does", say(opBinary, []byte{0x0a, 0xff, 0xff, 0x03, 0x08}, "malformed frame")},
		{"a first frame that is no hello does", say(opBinary, []byte{0x52, 0x00}, "not a hello")},
		{"a hello of a protocol that is too old does", say(opBinary, []byte{0x0a, 0x00}, "upgrade the agent")},
		{"a frame larger than the limit does", say(opBinary, make([]byte, 2<<20), "")},
		{"a frame that breaks off is nobody's trouble", func(ctx context.Context) error {
			return f.unharmed(ctx, func() error { return f.breakOff(ctx) })
		}},
		{"an agent without a certificate is refused", func(ctx context.Context) error {
			return f.unharmed(ctx, func() error { return f.knock(ctx, nil) })
		}},
		{"an agent with a certificate of its own making is refused", func(ctx context.Context) error {
			forged, err := forge()
			if err != nil {
				return err
			}
			return f.unharmed(ctx, func() error { return f.knock(ctx, forged) })
		}},
		{"an enrolment that is no JSON is refused", post("/agent/v1/enrol", true, `{"token":`, http.StatusUnprocessableEntity, "invalid", "not the JSON")},
		{"an enrolment larger than the limit is refused", post("/agent/v1/enrol", true, `{"token":"`+strings.Repeat("x", 100<<10)+`"}`, http.StatusTooManyRequests, "exhausted", "larger than")},
		{"an enrolment with an unknown field is refused", post("/agent/v1/enrol", true, `{"tokem":"x"}`, http.StatusUnprocessableEntity, "invalid", "tokem")},
		{"an API call that is no JSON is refused", post("/api/v1/environments", false, `{"name":"half`, 0, "invalid", "JSON")},
		{"an API call larger than the limit is refused", post("/api/v1/environments", false, large, http.StatusRequestEntityTooLarge, "exhausted", "too large")},
		{"an API call with an unknown field is refused", post("/api/v1/environments", false, `{"nmae":"x"}`, 0, "invalid", "nmae")},
	}
}

// unharmed does something and sees that the control plane lives on, that the
// agent's link does, and that nothing was made.
func (f *foe) unharmed(ctx context.Context, do func() error) error {
	pid, starts := f.stack.control.PID(), f.stack.control.Starts()
	devices, err := f.devices(ctx)
	if err != nil {
		return err
	}
	environments, err := f.environments(ctx)
	if err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	if f.stack.control.PID() != pid || f.stack.control.Starts() != starts {
		return errors.New("the control plane has ended over it")
	}
	if n, err := f.devices(ctx); err != nil || n != devices {
		return fmt.Errorf("%d devices were registered, %d are now: %w", devices, n, err)
	}
	if n, err := f.environments(ctx); err != nil || n != environments {
		return fmt.Errorf("there were %d environments, there are %d now: %w", environments, n, err)
	}
	return f.condition(ctx, f.agentDir(), "link", health.OK, "")
}

func (f *foe) environments(ctx context.Context) (int, error) {
	var list struct{ Items []environment }
	err := f.api.call(ctx, "GET", "/environments", nil, &list)
	return len(list.Items), err
}

// ownCertificate is the real certificate of the second device, whose agent is
// stopped.
func (f *foe) ownCertificate() (*tls.Certificate, error) {
	text, err := os.ReadFile(filepath.Join(f.dir, "second", "identity.json"))
	if err != nil {
		return nil, err
	}
	var id struct{ Certificate, Key string }
	if err := json.Unmarshal(text, &id); err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair([]byte(id.Certificate), []byte(id.Key))
	return &pair, err
}

// forge makes a certificate that nobody has signed.
func forge() (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "device"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// peer is a connection to the gateway's port.
type peer struct {
	conn *tls.Conn
	in   *bufio.Reader
}

func (f *foe) dial(ctx context.Context, cert *tls.Certificate) (*peer, error) {
	config := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"komainu-agent/1"}} // it is the server that is tried here
	if cert != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	d := tls.Dialer{Config: config}
	conn, err := d.DialContext(ctx, "tcp", strings.TrimPrefix(f.stack.URL, "https://"))
	if err != nil {
		return nil, err
	}
	p := &peer{conn: conn.(*tls.Conn), in: bufio.NewReader(conn)}
	return p, conn.SetDeadline(time.Now().Add(15 * time.Second))
}

// upgrade asks for a session and returns the answer.
func (p *peer) upgrade() (*http.Response, string, error) {
	_, err := io.WriteString(p.conn, "GET /agent/v1/link HTTP/1.1\r\nHost: control\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	if err != nil {
		return nil, "", err
	}
	res, err := http.ReadResponse(p.in, nil)
	if err != nil || res.StatusCode == http.StatusSwitchingProtocols {
		return res, "", err
	}
	text, err := io.ReadAll(res.Body)
	return res, string(text), err
}

// frame makes a masked frame.
func frame(op byte, payload []byte) []byte {
	b := []byte{0x80 | op}
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	mask := []byte{1, 2, 3, 4}
	b = append(b, mask...)
	for i, c := range payload {
		b = append(b, c^mask[i%4])
	}
	return b
}

func (f *foe) session(ctx context.Context) (*peer, error) {
	cert, err := f.ownCertificate()
	if err != nil {
		return nil, err
	}
	p, err := f.dial(ctx, cert)
	if err != nil {
		return nil, err
	}
	res, text, err := p.upgrade()
	if err == nil && res.StatusCode != http.StatusSwitchingProtocols {
		err = fmt.Errorf("no session: %s: %s", res.Status, text)
	}
	if err != nil {
		return nil, errors.Join(err, p.conn.Close())
	}
	return p, nil
}

// sayFrame sends a frame in a session of a real device and reads until the
// control plane ends it.
func (f *foe) sayFrame(ctx context.Context, op byte, payload []byte, want string) error {
	p, err := f.session(ctx)
	if err != nil {
		return err
	}
	defer p.conn.Close()
	if _, err := p.conn.Write(frame(op, payload)); err != nil && want != "" {
		return err
	}
	answer, err := io.ReadAll(p.in)
	if timeout, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err); ok && timeout.Timeout() {
		return errors.New("the session goes on")
	}
	if !bytes.Contains(answer, []byte(want)) {
		return fmt.Errorf("the session ends without the reason %q: %q", want, answer)
	}
	return nil
}

func (f *foe) breakOff(ctx context.Context) error {
	p, err := f.session(ctx)
	if err != nil {
		return err
	}
	whole := frame(opBinary, make([]byte, 4096))
	_, err = p.conn.Write(whole[:1000])
	return errors.Join(err, p.conn.NetConn().Close())
}

// knock comes with a certificate that is none of the control plane's.
func (f *foe) knock(ctx context.Context, cert *tls.Certificate) error {
	p, err := f.dial(ctx, cert)
	if err != nil {
		return err
	}
	defer p.conn.Close()
	res, text, err := p.upgrade()
	if err != nil {
		return fmt.Errorf("the connection ends without a word: %w", err)
	}
	if res.StatusCode != http.StatusUnauthorized || !strings.Contains(text, `"unauthenticated"`) || !strings.Contains(text, "certificate") {
		return fmt.Errorf("the answer is %s: %s", res.Status, text)
	}
	return nil
}

// post sends a body and checks the problem that comes back.
func (f *foe) post(ctx context.Context, path string, agent bool, body string, status int, kind, want string) error {
	config := &tls.Config{InsecureSkipVerify: true}
	if agent {
		config.NextProtos = []string{"komainu-agent/1"}
	}
	transport := &http.Transport{TLSClientConfig: config}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, f.stack.URL+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if !agent {
		req.Header.Set("Authorization", "Bearer "+f.api.token)
	}
	res, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	var problem struct{ Kind, Message string }
	if err := json.Unmarshal(text, &problem); err != nil {
		return fmt.Errorf("%s: %s", res.Status, text)
	}
	if res.StatusCode < 400 || res.StatusCode >= 500 || status != 0 && res.StatusCode != status || kind != "" && problem.Kind != kind || !strings.Contains(string(text), want) {
		return fmt.Errorf("%s: %s", res.Status, tail(string(text), 500))
	}
	return nil
}
