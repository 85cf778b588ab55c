// Package enrol brings devices into environments and says who they are.
//
// It owns the control plane's CA, join tokens, the certificates of devices
// and their revocation, and the key that signs policies. A device proves with
// a join token that it may enrol; the token carries the hash of the CA's key,
// so that the device verifies the control plane before it sends anything.
// Certificates of devices live for a week and are renewed by themselves.
package enrol

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/uptrace/bun"

	"komainu/control/rest"
	"komainu/event"
	"komainu/fault"
)

// Migrations are the tables of this slice.
//
//go:embed migrations/*.sql
var Migrations embed.FS

// ALPN is the protocol that agents offer. Only they are asked for a
// certificate; a browser would show its user a dialog.
const ALPN = "komainu-agent/1"

// Config is what an Authority needs.
type Config struct {
	DB    *bun.DB
	Dir   string   // for keys; made with mode 0700
	Hosts []string // names and addresses of this control plane, beside its own
	Log   *slog.Logger
	Now   func() time.Time // time.Now when nil
	// Root returns the root of the signed repository that devices pin. Nil when
	// there is no repository.
	Root func() ([]byte, error)
}

// Authority issues identities. It is safe for concurrent use.
type Authority struct {
	cfg    Config
	policy ed25519.PrivateKey
	failed *limiter // enrolments, by address
	renews *limiter // by device
	nonces *nonces

	rotated chan struct{} // a rotation began; capacity 1

	mu     sync.Mutex
	ca     *authority                      // of the server's certificate
	next   *authority                      // that replaces it, or nil
	server map[netip.Addr]*tls.Certificate // by the address of this machine that a client has come to
}

// Open reads the keys, or makes them on the first start.
func Open(cfg Config) (*Authority, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open the CA: %w", err)
	}
	ca, next, err := openRing(cfg.Dir, cfg.Now())
	if err != nil {
		return nil, fmt.Errorf("open the CA: %w", err)
	}
	policy, err := openPolicyKey(cfg.Dir)
	if err != nil {
		return nil, err
	}
	a := &Authority{cfg: cfg, ca: ca, next: next, rotated: make(chan struct{}, 1), policy: policy, failed: newLimiter(failuresPerMinute), renews: newLimiter(renewalsPerMinute), nonces: newNonces(),
		server: map[netip.Addr]*tls.Certificate{}}
	_, err = a.serverCertificate(netip.Addr{})
	return a, err
}

// CAPEM returns the certificates of the CAs to trust: the one that the
// server's certificate is of, and the one that is about to replace it, if any.
func (a *Authority) CAPEM() []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.next == nil {
		return a.ca.pem
	}
	return slices.Concat(a.ca.pem, a.next.pem)
}

// Pin returns the hash of the public key of the CA that the server's
// certificate is of.
func (a *Authority) Pin() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.ca.pin()
}

// PolicyKey returns the key that signs policies.
func (a *Authority) PolicyKey() ed25519.PrivateKey { return a.policy }

// maxServerCertificates is more than the addresses that a machine has.
const maxServerCertificates = 256

// serverCertificate returns the certificate for clients that have come to an
// address of this machine: it names that one too, so that a control plane is
// reachable by its address without being told about it. Certificates renew
// themselves at two thirds of their life.
func (a *Authority) serverCertificate(at netip.Addr) (*tls.Certificate, error) {
	at = at.Unmap().WithZone("")
	if at.IsLoopback() {
		at = netip.Addr{}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.cfg.Now()
	if c := a.server[at]; c != nil && !now.After(c.Leaf.NotAfter.Add(-serverLife/3)) {
		return c, nil
	}
	hosts := append([]string{"localhost", "127.0.0.1", "::1"}, a.cfg.Hosts...)
	if name, err := os.Hostname(); err == nil && !strings.ContainsFunc(name, func(r rune) bool { return r > unicode.MaxASCII }) {
		hosts = append(hosts, name) // a certificate takes no others
	}
	if at.IsValid() {
		hosts = append(hosts, at.String())
	}
	c, err := a.ca.server(hosts, now)
	if err != nil {
		return nil, fmt.Errorf("issue the server's certificate: %w", err)
	}
	if len(a.server) >= maxServerCertificates {
		clear(a.server)
	}
	a.server[at] = c
	return c, nil
}

// TLSConfig serves browsers and agents on one port. It does not check the
// certificates of agents: Identify does, which can say what is wrong with one,
// where a handshake could only fail.
func (a *Authority) TLSConfig() *tls.Config {
	certificate := func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		at, _ := netip.ParseAddrPort(h.Conn.LocalAddr().String()) // invalid for what is no IP connection
		return a.serverCertificate(at.Addr())
	}
	agents := &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{ALPN}, GetCertificate: certificate, ClientAuth: tls.RequestClientCert,
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}, GetCertificate: certificate,
		GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			if slices.Contains(h.SupportedProtos, ALPN) {
				return agents, nil
			}
			return nil, nil
		},
	}
}

// Identify returns the device on the other side of a connection. Errors:
// fault.Unauthentic without a certificate, with a foreign, an expired or a
// revoked one.
func (a *Authority) Identify(ctx context.Context, s *tls.ConnectionState) (event.DeviceID, error) {
	id, c, err := a.peer(ctx, s)
	if err == nil {
		err = a.current(id, c)
	}
	if err != nil {
		return "", err
	}
	return id, nil
}

// current refuses a certificate that is good for nothing but its renewal.
func (a *Authority) current(id event.DeviceID, c *x509.Certificate) error {
	if a.cfg.Now().After(c.NotAfter) {
		return fault.New(fault.Unauthentic, "the certificate of device %s expired at %s; the agent renews it by itself", id, c.NotAfter.Format(time.RFC3339))
	}
	return nil
}

// peer returns the device of a certificate that is ours and not revoked. One
// that expired lately is good enough: it may be renewed. For a revoked one the
// device comes with the error.
func (a *Authority) peer(ctx context.Context, s *tls.ConnectionState) (event.DeviceID, *x509.Certificate, error) {
	if s == nil || len(s.PeerCertificates) == 0 {
		return "", nil, fault.New(fault.Unauthentic, "a device certificate is needed; enrol first")
	}
	return a.vouched(ctx, s.PeerCertificates[0])
}

// vouched is peer for a certificate whose key the other side has shown that it
// has.
func (a *Authority) vouched(ctx context.Context, c *x509.Certificate) (event.DeviceID, *x509.Certificate, error) {
	now := a.cfg.Now()
	if now.After(c.NotAfter.Add(renewGrace)) {
		return "", nil, fault.New(fault.Unauthentic, "the certificate expired at %s, too long ago to renew it; enrol again with --force", c.NotAfter.Format(time.RFC3339))
	}
	at := now
	if at.After(c.NotAfter) {
		at = c.NotAfter
	}
	if _, err := c.Verify(x509.VerifyOptions{Roots: a.roots(), CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		return "", nil, fault.New(fault.Unauthentic, "the certificate was not issued by this control plane; enrol again with --force: %w", err)
	}
	id, ok := deviceOf(c)
	if !ok {
		return "", nil, fault.New(fault.Unauthentic, "the certificate names no device")
	}
	var row certRow
	err := a.cfg.DB.NewSelect().Model(&row).Where("serial = ?", c.SerialNumber.Text(16)).Scan(ctx)
	if errors.Is(err, sql.ErrNoRows) {
		if good, adoptErr := a.adoptable(ctx, id, c); adoptErr != nil {
			return "", nil, fmt.Errorf("look up a certificate: %w", adoptErr)
		} else if good {
			return id, c, nil
		}
	}
	switch {
	case errors.Is(err, sql.ErrNoRows) || err == nil && row.DeviceID != id:
		return "", nil, fault.New(fault.Unauthentic, "the certificate is not known here; enrol again with --force")
	case err != nil:
		return "", nil, fmt.Errorf("look up a certificate: %w", err)
	case row.RevokedAt != nil:
		return id, nil, fault.New(fault.Unauthentic, "device %s was offboarded at %s; to protect it again, enrol with --force", id, row.RevokedAt.UTC().Format(time.RFC3339))
	}
	return id, c, nil
}

type certRow struct {
	bun.BaseModel `bun:"table:certificates"`

	Serial    string `bun:",pk"`
	DeviceID  event.DeviceID
	IssuedAt  time.Time
	NotAfter  time.Time
	RevokedAt *time.Time
	Issuer    string // pin of the CA
}

// issue makes a certificate and notes it, in the place of what the device had
// and can no longer even renew.
func (a *Authority) issue(ctx context.Context, id event.DeviceID, csr *x509.CertificateRequest) (*x509.Certificate, error) {
	now := a.cfg.Now().UTC()
	ca := a.issuer()
	c, err := ca.device(id, csr, now)
	if err != nil {
		return nil, err
	}
	row := certRow{Serial: c.SerialNumber.Text(16), DeviceID: id, IssuedAt: now, NotAfter: c.NotAfter, Issuer: ca.pin()}
	err = a.cfg.DB.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		// A device that is offboarded while it asks gets nothing.
		revoked, err := tx.NewSelect().Model((*certRow)(nil)).Where("device_id = ? AND revoked_at IS NOT NULL", id).Exists(ctx)
		if err != nil {
			return err
		}
		if revoked {
			return fault.New(fault.Unauthentic, "device %s was offboarded", id)
		}
		if _, err := tx.NewDelete().Model((*certRow)(nil)).Where("device_id = ? AND not_after < ?", id, now.Add(-renewGrace)).Exec(ctx); err != nil {
			return err
		}
		_, err = tx.NewInsert().Model(&row).Exec(ctx)
		return err
	})
	return c, err
}

// Certificate describes the newest certificate of a device.
type Certificate struct {
	Serial   string    `json:"serial"`
	NotAfter time.Time `json:"notAfter"`
	Revoked  bool      `json:"revoked"`
}

// Certificate returns the newest certificate of a device, the zero value when
// there is none.
func (a *Authority) Certificate(ctx context.Context, id event.DeviceID) (Certificate, error) {
	var row certRow
	err := a.cfg.DB.NewSelect().Model(&row).Where("device_id = ?", id).Order("issued_at DESC").Limit(1).Scan(ctx)
	if errors.Is(err, sql.ErrNoRows) {
		return Certificate{}, nil
	}
	return Certificate{Serial: row.Serial, NotAfter: row.NotAfter, Revoked: row.RevokedAt != nil}, err
}

// Revoke ends every certificate of a device. Its live session is the
// gateway's to end.
func (a *Authority) Revoke(ctx context.Context, id event.DeviceID) error {
	_, err := a.cfg.DB.NewUpdate().Model((*certRow)(nil)).Set("revoked_at = ?", a.cfg.Now().UTC()).Where("device_id = ? AND revoked_at IS NULL", id).Exec(ctx)
	return err
}

// Token is a join token without its secret.
type Token struct {
	bun.BaseModel `bun:"table:join_tokens"`

	ID            string    `bun:",pk" json:"id"`
	EnvironmentID string    `json:"environment"`
	MachineID     string    `json:"-"` // "" for a token that people use
	Hash          []byte    `json:"-"`
	Label         string    `json:"label"`
	CreatedBy     string    `json:"createdBy"`
	CreatedAt     time.Time `json:"createdAt"`
	ExpiresAt     time.Time `json:"expiresAt"`
	MaxUses       int       `json:"maxUses"`
	Uses          int       `json:"uses"`
	Revoked       bool      `json:"revoked"`
}

// TokenRequest asks for a join token.
type TokenRequest struct {
	Environment string
	Machine     string // that alone may use it; empty for tokens that people use
	Label       string
	Lasts       time.Duration
	MaxUses     int
	CreatedBy   string
	Server      string // URL that agents reach this control plane by
}

// tokenPrefix is the version of the token's form.
const tokenPrefix = "kmj1."

// tokenBody is what a join token says: where to go, whom to trust, and why to
// be let in.
type tokenBody struct {
	Server string `json:"s"`
	Pin    string `json:"p"`
	Secret string `json:"t"`
}

// CreateToken makes a join token and returns its text, which is kept nowhere.
func (a *Authority) CreateToken(ctx context.Context, r TokenRequest) (Token, string, error) {
	switch {
	case r.Lasts < time.Minute || r.Lasts > 366*24*time.Hour:
		return Token{}, "", fault.New(fault.Invalid, "a join token lasts from a minute to 366 days")
	case r.MaxUses < 1 || r.MaxUses > 100_000:
		return Token{}, "", fault.New(fault.Invalid, "a join token has 1 to 100000 uses")
	case utf8.RuneCountInString(r.Label) > 100:
		return Token{}, "", fault.New(fault.Invalid, "a label has at most 100 characters")
	}
	if u, err := url.Parse(r.Server); err != nil || u.Scheme != "https" || u.Host == "" {
		return Token{}, "", fault.New(fault.Invalid, "agents cannot reach the control plane by %q; want https://host:port", r.Server)
	}
	secret, now := rest.Secret(24), a.cfg.Now().UTC()
	t := Token{ID: rest.NewID(), EnvironmentID: r.Environment, MachineID: r.Machine, Hash: hashOf(secret), Label: r.Label, CreatedBy: r.CreatedBy, CreatedAt: now,
		ExpiresAt: now.Add(r.Lasts), MaxUses: r.MaxUses}
	if _, err := a.cfg.DB.NewInsert().Model(&t).Exec(ctx); err != nil {
		return Token{}, "", err
	}
	body, err := json.Marshal(tokenBody{Server: r.Server, Pin: a.Pin(), Secret: secret})
	return t, tokenPrefix + base64.RawURLEncoding.EncodeToString(body), err
}

// Forget deletes the tokens of machines that have expired. What people made
// stays, for them to see what became of it.
func (a *Authority) Forget(ctx context.Context) error {
	_, err := a.cfg.DB.NewDelete().Model((*Token)(nil)).Where("machine_id <> '' AND expires_at < ?", a.cfg.Now().UTC()).Exec(ctx)
	return err
}

func hashOf(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}

// Tokens lists the join tokens of an environment that people use, newest
// first.
func (a *Authority) Tokens(ctx context.Context, environment string) ([]Token, error) {
	list := []Token{}
	err := a.cfg.DB.NewSelect().Model(&list).Where("environment_id = ? AND machine_id = ''", environment).Order("created_at DESC").Scan(ctx)
	return list, err
}

// RevokeToken ends a join token. Devices that have used it stay.
func (a *Authority) RevokeToken(ctx context.Context, environment, id string) error {
	res, err := a.cfg.DB.NewUpdate().Model((*Token)(nil)).Set("revoked = TRUE").Where("id = ? AND environment_id = ?", id, environment).Exec(ctx)
	if err != nil {
		return err
	}
	if n, _ := res.RowsAffected(); n == 0 {
		return fault.New(fault.NotFound, "there is no join token %s", id)
	}
	return nil
}

// RevokeMachine ends the join tokens that were made for a machine.
func (a *Authority) RevokeMachine(ctx context.Context, machine string) error {
	_, err := a.cfg.DB.NewUpdate().Model((*Token)(nil)).Set("revoked = TRUE").Where("machine_id = ?", machine).Exec(ctx)
	return err
}

// use spends one use of a token.
func (a *Authority) use(ctx context.Context, tx bun.Tx, secret string) (Token, error) {
	var t Token
	err := tx.NewSelect().Model(&t).Where("hash = ?", hashOf(secret)).Scan(ctx)
	now := a.cfg.Now()
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return t, fault.New(fault.Unauthentic, "the join token is not known here; it may belong to another control plane, or be mistyped")
	case err != nil:
		return t, err
	case t.Revoked:
		return t, fault.New(fault.Unauthentic, "the join token %q was revoked; ask for a new one", t.Label)
	case now.After(t.ExpiresAt):
		return t, fault.New(fault.Unauthentic, "the join token %q expired at %s; ask for a new one", t.Label, t.ExpiresAt.UTC().Format(time.RFC3339))
	case t.Uses >= t.MaxUses:
		return t, fault.New(fault.Unauthentic, "the join token %q is used up (%d of %d uses); ask for a new one", t.Label, t.Uses, t.MaxUses)
	}
	// The condition again, in one statement: two hosts may come at once.
	res, err := tx.NewUpdate().Model(&t).Set("uses = uses + 1").WherePK().Where("uses < max_uses").Exec(ctx)
	if err != nil {
		return t, err
	}
	if n, _ := res.RowsAffected(); n == 0 {
		return t, fault.New(fault.Unauthentic, "the join token %q is used up; ask for a new one", t.Label)
	}
	return t, nil
}
