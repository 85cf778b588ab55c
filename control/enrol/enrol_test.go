package enrol

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"komainu/control/db"
	"komainu/fault"
)

type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func database(t testing.TB) *bun.DB {
	t.Helper()
	b, err := db.OpenMemory()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	if err := db.Migrate(t.Context(), b, Migrations); err != nil {
		t.Fatal(err)
	}
	return b
}

func open(t testing.TB, dir string, hosts ...string) (*Authority, *clock) {
	t.Helper()
	c := &clock{time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)}
	a, err := Open(Config{DB: database(t), Dir: dir, Hosts: hosts, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	return a, c
}

func request(t *testing.T) *x509.CertificateRequest {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := parseRequest(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
	if err != nil {
		t.Fatal(err)
	}
	return csr
}

func TestKeysLast(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	one, _ := open(t, dir)
	two, _ := open(t, dir)
	if one.Pin() != two.Pin() || !one.PolicyKey().Equal(two.PolicyKey()) || len(one.Pin()) != 64 {
		t.Error("a restart has made new keys")
	}
	for _, name := range []string{"ca.key", "policy.key"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v", name, info.Mode(), err)
		}
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("folder: mode %v, %v", info.Mode(), err)
	}
	other, _ := open(t, t.TempDir())
	if other.Pin() == one.Pin() {
		t.Error("two control planes have the same CA")
	}
}

func TestKeysThatCannotBeUsed(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(dir string) error
		says  string
	}{
		"key_of_another_ca": {func(dir string) error {
			a, _ := open(t, t.TempDir())
			return writeKey(filepath.Join(dir, "ca.key"), a.ca.key)
		}, "do not belong together"},
		"key_gone":    {func(dir string) error { return os.Remove(filepath.Join(dir, "ca.key")) }, "no such file"},
		"certificate": {func(dir string) error { return os.WriteFile(filepath.Join(dir, "ca.pem"), []byte("x"), 0o600) }, "no certificate in PEM form"},
		"key_damaged": {func(dir string) error { return os.WriteFile(filepath.Join(dir, "ca.key"), []byte("x"), 0o600) }, "no private key"},
		"policy_key":  {func(dir string) error { return os.WriteFile(filepath.Join(dir, "policy.key"), nil, 0o600) }, "no private key"},
		"kinds_of_key": {func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, "policy.key")), os.Link(filepath.Join(dir, "ca.key"), filepath.Join(dir, "policy.key")))
		}, "not an Ed25519 key"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			a, _ := open(t, dir)
			if err := tt.spoil(dir); err != nil {
				t.Fatal(err)
			}
			_, err := Open(Config{DB: a.cfg.DB, Dir: dir, Log: a.cfg.Log})
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v, want %q", err, tt.says)
			}
		})
	}
}

func TestServerCertificate(t *testing.T) {
	a, c := open(t, t.TempDir(), "komainu.example", "10.1.2.3", "")
	local := netip.MustParseAddr("192.0.2.7")
	names := func(cert *tls.Certificate, name string) bool {
		_, err := cert.Leaf.Verify(x509.VerifyOptions{Roots: a.ca.pool(), DNSName: name, CurrentTime: c.t})
		return err == nil
	}
	certificate := func(at netip.Addr) *tls.Certificate {
		t.Helper()
		cert, err := a.serverCertificate(at)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	first, other := certificate(netip.MustParseAddr("::1")), certificate(local)
	for _, name := range []string{"localhost", "127.0.0.1", "::1", "komainu.example", "10.1.2.3", host} {
		if !names(first, name) || !names(other, name) {
			t.Errorf("it does not name %s", name)
		}
	}
	if names(first, local.String()) || !names(other, local.String()) {
		t.Error("the address that a client has come to is named there and only there")
	}
	if len(first.Certificate) != 2 {
		t.Error("the CA does not travel along; an agent that enrols knows its hash only")
	}
	c.t = c.t.Add(serverLife / 2)
	if certificate(netip.Addr{}) != first || certificate(netip.MustParseAddr("::ffff:192.0.2.7")) != other {
		t.Error("a new certificate at half of its life")
	}
	c.t = c.t.Add(serverLife / 4)
	if certificate(netip.Addr{}) == first || certificate(local) == other {
		t.Error("no new certificate at three quarters of its life")
	}
	for i := range 2 * maxServerCertificates {
		certificate(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}))
	}
	if n := len(a.server); n > maxServerCertificates {
		t.Errorf("%d certificates are kept", n)
	}
}

// TestBrowsersAreNotAsked: a browser would show its user a dialog.
func TestBrowsersAreNotAsked(t *testing.T) {
	a, c := open(t, t.TempDir())
	for protocol, want := range map[string]bool{ALPN: true, "h2": false, "http/1.1": false} {
		asked := false
		client, server := net.Pipe()
		done := make(chan error, 1)
		go func() { done <- tls.Server(server, a.TLSConfig()).Handshake() }()
		conn := tls.Client(client, &tls.Config{
			RootCAs: a.ca.pool(), ServerName: "localhost", NextProtos: []string{protocol}, Time: c.now,
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				asked = true
				return &tls.Certificate{}, nil
			},
		})
		if err := conn.Handshake(); err != nil {
			t.Errorf("%s: %v", protocol, err)
		}
		client.Close()
		if err := <-done; err != nil && asked != want {
			t.Errorf("%s: %v", protocol, err)
		}
		if asked != want {
			t.Errorf("%s: asked for a certificate: %v", protocol, asked)
		}
	}
}

func TestOldVersionsOfTLSAreRefused(t *testing.T) {
	a, c := open(t, t.TempDir())
	client, server := net.Pipe()
	go func() { _ = tls.Server(server, a.TLSConfig()).Handshake(); server.Close() }()
	conn := tls.Client(client, &tls.Config{RootCAs: a.ca.pool(), ServerName: "localhost", NextProtos: []string{ALPN}, MaxVersion: tls.VersionTLS12, Time: c.now})
	if conn.Handshake() == nil {
		t.Error("an agent came in with TLS 1.2")
	}
	client.Close()
}

func TestTokens(t *testing.T) {
	a, c := open(t, t.TempDir())
	good := TokenRequest{Environment: "e1", Label: "web", Lasts: time.Hour, MaxUses: 2, CreatedBy: "admin", Server: "https://localhost:8443"}
	for name, edit := range map[string]func(*TokenRequest){
		"too_short":   func(r *TokenRequest) { r.Lasts = time.Second },
		"too_long":    func(r *TokenRequest) { r.Lasts = 400 * 24 * time.Hour },
		"no_uses":     func(r *TokenRequest) { r.MaxUses = 0 },
		"many_uses":   func(r *TokenRequest) { r.MaxUses = 1 << 20 },
		"long_label":  func(r *TokenRequest) { r.Label = strings.Repeat("ラ", 101) },
		"no_server":   func(r *TokenRequest) { r.Server = "" },
		"plain_http":  func(r *TokenRequest) { r.Server = "http://localhost" },
		"not_an_url":  func(r *TokenRequest) { r.Server = "https://%" },
		"only_a_path": func(r *TokenRequest) { r.Server = "https:///x" },
	} {
		r := good
		edit(&r)
		if _, _, err := a.CreateToken(t.Context(), r); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	token, text, err := a.CreateToken(t.Context(), good)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(text, "kmj1.") || !token.ExpiresAt.Equal(c.t.Add(time.Hour)) {
		t.Errorf("%s expires %v", text, token.ExpiresAt)
	}
	c.t = c.t.Add(time.Minute)
	good.Label = "later"
	if _, _, err := a.CreateToken(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	list, err := a.Tokens(t.Context(), "e1")
	if err != nil || len(list) != 2 || list[0].Label != "later" || list[1].CreatedBy != "admin" {
		t.Errorf("%+v, %v", list, err)
	}
	if list, err := a.Tokens(t.Context(), "e2"); err != nil || len(list) != 0 {
		t.Errorf("of another environment: %+v, %v", list, err)
	}
	if err := a.RevokeToken(t.Context(), "e2", token.ID); !fault.Is(err, fault.NotFound) {
		t.Errorf("revoked through another environment: %v", err)
	}
	// The secret is nowhere in the state.
	var dump []string
	if err := a.cfg.DB.NewSelect().TableExpr("join_tokens").ColumnExpr("hex(hash) || label || id").Scan(t.Context(), &dump); err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(dump, func(s string) bool { return strings.Contains(text, s) }) {
		t.Error("the state holds the token")
	}
}

func state(c *x509.Certificate) *tls.ConnectionState {
	return &tls.ConnectionState{PeerCertificates: []*x509.Certificate{c}}
}

func TestLifeOfACertificate(t *testing.T) {
	a, c := open(t, t.TempDir())
	ctx := t.Context()
	first, err := a.issue(ctx, "d1", request(t))
	if err != nil {
		t.Fatal(err)
	}
	start := c.t
	for after, want := range map[time.Duration]struct{ identify, renew bool }{
		0:                                     {true, true},
		deviceLife - time.Minute:              {true, true},
		deviceLife + time.Minute:              {false, true},
		deviceLife + renewGrace - time.Minute: {false, true},
		deviceLife + renewGrace + time.Minute: {false, false},
	} {
		c.t = start.Add(after)
		if _, err := a.Identify(ctx, state(first)); (err == nil) != want.identify || err != nil && !fault.Is(err, fault.Unauthentic) {
			t.Errorf("after %v the session gets %v", after, err)
		}
		if id, _, err := a.peer(ctx, state(first)); (err == nil) != want.renew || err == nil && id != "d1" {
			t.Errorf("after %v the renewal gets %v", after, err)
		}
	}
	c.t = start
	second, err := a.issue(ctx, "d1", request(t))
	if err != nil {
		t.Fatal(err)
	}
	// Of two certificates the newest is shown; revoking ends both, and no new
	// one is made.
	if got, err := a.Certificate(ctx, "d1"); err != nil || got.Revoked {
		t.Errorf("%+v, %v", got, err)
	}
	if err := a.Revoke(ctx, "d1"); err != nil {
		t.Fatal(err)
	}
	for _, cert := range []*x509.Certificate{first, second} {
		if _, err := a.Identify(ctx, state(cert)); !fault.Is(err, fault.Unauthentic) || !strings.Contains(err.Error(), "was offboarded") {
			t.Errorf("revoked: %v", err)
		}
	}
	if _, err := a.issue(ctx, "d1", request(t)); !fault.Is(err, fault.Unauthentic) {
		t.Errorf("a revoked device got a certificate: %v", err)
	}
	if got, err := a.Certificate(ctx, "d1"); err != nil || !got.Revoked {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := a.Certificate(ctx, "nobody"); err != nil || got.Serial != "" {
		t.Errorf("of nobody: %+v, %v", got, err)
	}
}

// TestServerCertificateIsNoDevice: certificates of the CA are not all alike.
func TestServerCertificateIsNoDevice(t *testing.T) {
	a, _ := open(t, t.TempDir())
	server, err := a.serverCertificate(netip.Addr{})
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]*tls.ConnectionState{"server": state(server.Leaf), "ca": state(a.ca.cert), "nothing": nil, "no_certificate": {}} {
		if id, err := a.Identify(t.Context(), s); !fault.Is(err, fault.Unauthentic) {
			t.Errorf("%s counts as device %q, %v", name, id, err)
		}
	}
	// One that the CA signed and the state does not know: a copy of the key.
	c, err := a.ca.device("d1", request(t), a.cfg.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Identify(t.Context(), state(c)); !fault.Is(err, fault.Unauthentic) || !strings.Contains(err.Error(), "not known here") {
		t.Errorf("a certificate that was never noted: %v", err)
	}
}

func TestOldCertificatesAreForgotten(t *testing.T) {
	a, c := open(t, t.TempDir())
	for range 20 {
		if _, err := a.issue(t.Context(), "d1", request(t)); err != nil {
			t.Fatal(err)
		}
		c.t = c.t.Add(deviceLife)
	}
	n, err := a.cfg.DB.NewSelect().Model((*certRow)(nil)).Count(t.Context())
	if most := int64(renewGrace/deviceLife) + 3; err != nil || n > most {
		t.Errorf("%d certificates of one device, want at most %d, %v", n, most, err)
	}
}

func TestOrigin(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.1:443": "192.0.2.1", "[::ffff:192.0.2.1]:9": "192.0.2.1", "[2001:db8:1:2:3::4]:443": "2001:db8:1:2::/64",
		"[fe80::1%eth0]:1": "fe80::/64", "pipe": "pipe",
	} {
		if got := origin(remote); got != want {
			t.Errorf("%s counts as %s, want %s", remote, got, want)
		}
	}
}

func TestLimiter(t *testing.T) {
	l, now := newLimiter(2), time.Unix(0, 0)
	for range 2 {
		if !l.allow("a", now) {
			t.Error("refused too early")
		}
		l.count("a", now)
	}
	if l.allow("a", now.Add(59*time.Second)) || !l.allow("b", now) || !l.allow("a", now.Add(time.Minute)) {
		t.Error("want a alone refused, for the rest of the minute")
	}
}

func FuzzParseRequest(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE REQUEST-----\nMA==\n-----END CERTIFICATE REQUEST-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if csr, err := parseRequest(b); err == nil && csr.PublicKey == nil {
			t.Error("a request without a key")
		}
	})
}
