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
	"os"
	"sync"
	"time"

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
	Hosts []string // names and addresses of this control plane, beside localhost
	Log   *slog.Logger
	Now   func() time.Time // time.Now when nil
}

// Authority issues identities. It is safe for concurrent use.
type Authority struct {
	cfg    Config
	ca     *authority
	policy ed25519.PrivateKey
	limits *limiter

	mu     sync.Mutex
	server *tls.Certificate
}

// Open reads the keys, or makes them on the first start.
func Open(cfg Config) (*Authority, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open the CA: %w", err)
	}
	ca, err := openCA(cfg.Dir, cfg.Now())
	if err != nil {
		return nil, fmt.Errorf("open the CA: %w", err)
	}
	policy, err := openPolicyKey(cfg.Dir)
	if err != nil {
		return nil, err
	}
	a := &Authority{cfg: cfg, ca: ca, policy: policy, limits: newLimiter()}
	_, err = a.serverCertificate()
	return a, err
}

// CAPEM returns the CA's certificate.
func (a *Authority) CAPEM() []byte { return a.ca.pem }

// Pin returns the hash of the CA's public key.
func (a *Authority) Pin() string { return a.ca.pin() }

// PolicyKey returns the key that signs policies.
func (a *Authority) PolicyKey() ed25519.PrivateKey { return a.policy }

// serverCertificate renews itself at two thirds of its life.
func (a *Authority) serverCertificate() (*tls.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.cfg.Now()
	if a.server == nil || now.After(a.server.Leaf.NotAfter.Add(-serverLife/3)) {
		c, err := a.ca.server(a.cfg.Hosts, now)
		if err != nil {
			return nil, fmt.Errorf("issue the server's certificate: %w", err)
		}
		a.server = c
	}
	return a.server, nil
}

// TLSConfig serves browsers and agents on one port.
func (a *Authority) TLSConfig() *tls.Config {
	certificate := func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return a.serverCertificate() }
	agents := &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{ALPN}, GetCertificate: certificate,
		// The chain is checked here and not by crypto/tls, because a certificate
		// that expired lately may still be renewed.
		ClientAuth: tls.RequestClientCert, VerifyConnection: a.verifyAgent,
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}, GetCertificate: certificate,
		GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			for _, p := range h.SupportedProtos {
				if p == ALPN {
					return agents, nil
				}
			}
			return nil, nil
		},
	}
}

// verifyAgent checks that a client's certificate, if it has one, is ours.
func (a *Authority) verifyAgent(s tls.ConnectionState) error {
	if len(s.PeerCertificates) == 0 {
		return nil // enrols, or pings
	}
	c := s.PeerCertificates[0]
	at := a.cfg.Now()
	if at.After(c.NotAfter) && at.Before(c.NotAfter.Add(renewGrace)) {
		at = c.NotAfter
	}
	_, err := c.Verify(x509.VerifyOptions{Roots: a.ca.pool(), CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	return err
}

// Identify returns the device on the other side of a connection. Errors:
// fault.Unauthentic without a certificate, with an expired or a revoked one.
func (a *Authority) Identify(ctx context.Context, s *tls.ConnectionState) (event.DeviceID, error) {
	id, c, err := a.peer(ctx, s)
	if err != nil {
		return "", err
	}
	if a.cfg.Now().After(c.NotAfter) {
		return "", fault.New(fault.Unauthentic, "the certificate of device %s expired at %s; the agent renews it by itself when its clock is right", id, c.NotAfter.Format(time.RFC3339))
	}
	return id, nil
}

func (a *Authority) peer(ctx context.Context, s *tls.ConnectionState) (event.DeviceID, *x509.Certificate, error) {
	if s == nil || len(s.PeerCertificates) == 0 {
		return "", nil, fault.New(fault.Unauthentic, "a device certificate is needed; enrol first")
	}
	c := s.PeerCertificates[0]
	id, ok := deviceOf(c)
	if !ok {
		return "", nil, fault.New(fault.Unauthentic, "the certificate names no device")
	}
	var row certRow
	err := a.cfg.DB.NewSelect().Model(&row).Where("serial = ?", c.SerialNumber.Text(16)).Scan(ctx)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return "", nil, fault.New(fault.Unauthentic, "this certificate was not issued here; enrol again with --force")
	case err != nil:
		return "", nil, err
	case row.RevokedAt != nil:
		return "", nil, fault.New(fault.Unauthentic, "the certificate of device %s was revoked at %s", id, row.RevokedAt.Format(time.RFC3339))
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
}

func (a *Authority) issue(ctx context.Context, d bun.IDB, id event.DeviceID, csr *x509.CertificateRequest) (*x509.Certificate, error) {
	now := a.cfg.Now().UTC()
	c, err := a.ca.device(id, csr, now)
	if err != nil {
		return nil, err
	}
	row := certRow{Serial: c.SerialNumber.Text(16), DeviceID: id, IssuedAt: now, NotAfter: c.NotAfter}
	_, err = d.NewInsert().Model(&row).Exec(ctx)
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
	case len([]rune(r.Label)) > 100:
		return Token{}, "", fault.New(fault.Invalid, "a label has at most 100 characters")
	}
	secret, now := rest.Secret(24), a.cfg.Now().UTC()
	t := Token{ID: rest.NewID(), EnvironmentID: r.Environment, Hash: hashOf(secret), Label: r.Label, CreatedBy: r.CreatedBy, CreatedAt: now,
		ExpiresAt: now.Add(r.Lasts), MaxUses: r.MaxUses}
	if _, err := a.cfg.DB.NewInsert().Model(&t).Exec(ctx); err != nil {
		return Token{}, "", err
	}
	body, err := json.Marshal(tokenBody{Server: r.Server, Pin: a.Pin(), Secret: secret})
	return t, tokenPrefix + base64.RawURLEncoding.EncodeToString(body), err
}

func hashOf(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}

// Tokens lists the join tokens of an environment, newest first.
func (a *Authority) Tokens(ctx context.Context, environment string) ([]Token, error) {
	list := []Token{}
	err := a.cfg.DB.NewSelect().Model(&list).Where("environment_id = ?", environment).Order("created_at DESC").Scan(ctx)
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
