package link

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"komainu/event"
	"komainu/fault"
	"komainu/internal/atomicfile"
	"komainu/wire"
)

// ALPN is the protocol that tells the control plane that an agent calls.
const ALPN = "komainu-agent/1"

// Token is what a join token says.
type Token struct {
	Server string `json:"s"`
	Pin    string `json:"p"` // SHA-256 of the CA's public key, hexadecimal
	Secret string `json:"t"`
}

const tokenPrefix = "kmj1."

// ParseToken reads a join token. Errors: fault.Invalid.
func ParseToken(s string) (Token, error) {
	s = strings.TrimSpace(s)
	body, ok := strings.CutPrefix(s, tokenPrefix)
	if !ok {
		return Token{}, fault.New(fault.Invalid, "this is no join token: it begins with %s; copy it whole from the portal, environment settings, join tokens", tokenPrefix)
	}
	text, err := base64.RawURLEncoding.DecodeString(body)
	if err != nil {
		return Token{}, fault.New(fault.Invalid, "the join token is damaged; copy it whole")
	}
	var t Token
	if err := json.Unmarshal(text, &t); err != nil {
		return Token{}, fault.New(fault.Invalid, "the join token is damaged; copy it whole")
	}
	u, err := url.Parse(t.Server)
	if err != nil || u.Scheme != "https" || u.Host == "" || t.Secret == "" || len(t.Pin) != 2*sha256.Size {
		return Token{}, fault.New(fault.Invalid, "the join token is incomplete; make a new one in the portal")
	}
	return t, nil
}

// Identity is who this device is and whom it trusts.
type Identity struct {
	Device       event.DeviceID    `json:"device"`
	Organization string            `json:"organization"`
	Environment  string            `json:"environment"`
	Server       string            `json:"server"`
	PolicyKey    ed25519.PublicKey `json:"policyKey"`
	CA           string            `json:"ca"`          // PEM
	Certificate  string            `json:"certificate"` // PEM
	Key          string            `json:"key"`         // PEM
	NotAfter     time.Time         `json:"notAfter"`
}

// identityFile holds all of it, so that it is replaced in one step: a new
// certificate with an old key would lock the device out.
const identityFile = "identity.json"

// Load reads the identity from the state folder. Errors: fault.NotFound when
// the device is not enrolled, fault.Invalid when the file is damaged.
func Load(dir string) (Identity, error) {
	text, err := os.ReadFile(filepath.Join(dir, identityFile))
	if errors.Is(err, fs.ErrNotExist) {
		return Identity{}, fault.New(fault.NotFound, "this device is not enrolled")
	}
	if err != nil {
		return Identity{}, err
	}
	var id Identity
	if err := json.Unmarshal(text, &id); err != nil || id.Device == "" || len(id.PolicyKey) != ed25519.PublicKeySize {
		return Identity{}, fault.New(fault.Invalid, "%s is damaged; enrol again with --force", filepath.Join(dir, identityFile))
	}
	return id, nil
}

func (id Identity) save(dir string) error {
	text, err := json.Marshal(id)
	if err != nil {
		return err
	}
	return fault.Wrap(fault.Exhausted, atomicfile.Write(filepath.Join(dir, identityFile), text, 0o600), "keep the identity")
}

// tlsConfig trusts the pinned CA alone and shows the device's certificate.
func (id Identity) tlsConfig(now func() time.Time) (*tls.Config, error) {
	pair, err := tls.X509KeyPair([]byte(id.Certificate), []byte(id.Key))
	if err != nil {
		return nil, fault.New(fault.Invalid, "the device's certificate is damaged; enrol again with --force: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(id.CA)) {
		return nil, fault.New(fault.Invalid, "the pinned CA is damaged; enrol again with --force")
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{ALPN}, RootCAs: pool, Time: now, ClientSessionCache: tls.NewLRUClientSessionCache(1),
		// The pair is sent whatever the server hints at: it knows one CA.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil },
	}, nil
}

// EnrolOptions are what Enrol needs.
type EnrolOptions struct {
	Dir   string // state folder
	Token string
	Facts wire.Facts
	Force bool // also when the device is enrolled already
	Now   func() time.Time
}

// requestLimit is how long one request to the control plane may take.
const requestLimit = 20 * time.Second

// Enrol brings this device into the environment of a join token. The control
// plane is checked against the token's pin before anything is sent. On an
// error nothing has changed here.
func Enrol(ctx context.Context, o EnrolOptions) (Identity, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	t, err := ParseToken(o.Token)
	if err != nil {
		return Identity{}, err
	}
	if old, err := Load(o.Dir); err == nil && !o.Force {
		return Identity{}, fault.New(fault.Conflict, "this device is enrolled in %q already; use --force to enrol it anew", old.Environment)
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return Identity{}, err
	}
	key, csr, err := newKey()
	if err != nil {
		return Identity{}, err
	}
	facts, err := json.Marshal(o.Facts)
	if err != nil {
		return Identity{}, err
	}
	var answer struct {
		Device       event.DeviceID `json:"device"`
		Organization string         `json:"organization"`
		Environment  string         `json:"environment"`
		Certificate  string         `json:"certificate"`
		CA           string         `json:"ca"`
		PolicyKey    string         `json:"policyKey"`
		NotAfter     time.Time      `json:"notAfter"`
	}
	c := client{tls: pinned(t.Pin, o.Now), now: o.Now}
	err = c.post(ctx, t.Server+"/agent/v1/enrol", map[string]any{"token": t.Secret, "csr": csr, "facts": json.RawMessage(facts)}, &answer)
	if err != nil {
		return Identity{}, err
	}
	policyKey, err := base64.StdEncoding.DecodeString(answer.PolicyKey)
	if err != nil || len(policyKey) != ed25519.PublicKeySize || answer.Device == "" || caPin([]byte(answer.CA)) != t.Pin {
		return Identity{}, fault.New(fault.Internal, "the control plane's answer makes no sense; nothing was changed")
	}
	id := Identity{
		Device: answer.Device, Organization: answer.Organization, Environment: answer.Environment, Server: t.Server, PolicyKey: policyKey,
		CA: answer.CA, Certificate: answer.Certificate, Key: key, NotAfter: answer.NotAfter,
	}
	if _, err := id.tlsConfig(o.Now); err != nil {
		return Identity{}, err
	}
	return id, id.save(o.Dir)
}

// newKey makes a key and a request for its certificate, both PEM.
func newKey() (key, csr string, err error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", err
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return "", "", err
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, k)
	if err != nil {
		return "", "", err
	}
	key = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	return key, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: request})), nil
}

// caPin returns the pin of a CA in PEM form, "" for anything else.
func caPin(text []byte) string {
	block, _ := pem.Decode(text)
	if block == nil {
		return ""
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return ""
	}
	return spkiPin(c)
}

func spkiPin(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// errPin says that the server is not the one that the token was made by.
var errPin = errors.New("the server's CA is not the one that the join token names")

// pinned accepts a server whose chain ends in the CA with the pin.
func pinned(pin string, now func() time.Time) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{ALPN}, Time: now,
		InsecureSkipVerify: true, // VerifyConnection checks the chain against the pin instead of the system's roots
		VerifyConnection: func(s tls.ConnectionState) error {
			pool := x509.NewCertPool()
			found := false
			for _, c := range s.PeerCertificates[1:] {
				if c.IsCA && spkiPin(c) == pin {
					pool.AddCert(c)
					found = true
				}
			}
			if !found {
				return errPin
			}
			_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: pool, DNSName: s.ServerName, CurrentTime: now()})
			return err
		},
	}
}

// client makes single requests to the control plane.
type client struct {
	tls *tls.Config
	now func() time.Time
}

// clockLimit is how far clocks may be apart before it is named as the cause.
const clockLimit = 5 * time.Minute

func (c client) post(ctx context.Context, to string, body, answer any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(text))
	if err != nil {
		return fault.New(fault.Invalid, "the address %q cannot be used: %w", to, err)
	}
	req.Header.Set("Content-Type", "application/json")
	return c.do(req, answer)
}

func (c client) do(req *http.Request, answer any) error {
	transport := &http.Transport{TLSClientConfig: c.tls, Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: requestLimit, DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	res, err := transport.RoundTrip(req)
	if err != nil {
		return explain(req.URL.Host, err, c.now())
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "the answer of %s broke off", req.URL.Host)
	}
	if res.StatusCode != http.StatusOK {
		return refused(res, text, c.now())
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return fault.New(fault.Unavailable, "%s does not answer like a Komainu control plane", req.URL.Host)
	}
	return nil
}

// refused turns the control plane's problem into a fault of the same kind. A
// clock that is far off is named: it explains most refusals.
func refused(res *http.Response, text []byte, now time.Time) error {
	var problem struct{ Kind, Message string }
	if json.Unmarshal(text, &problem) != nil || problem.Kind == "" {
		return fault.New(fault.Unavailable, "%s answers %s; is it a Komainu control plane?", res.Request.URL.Host, res.Status)
	}
	message := problem.Message
	if date, err := http.ParseTime(res.Header.Get("Date")); err == nil {
		if off := now.Sub(date); off.Abs() > clockLimit {
			message += "; " + clockMessage(off)
		}
	}
	return fault.New(fault.ParseKind(problem.Kind), "the control plane refuses: %s", message)
}

func clockMessage(off time.Duration) string {
	direction := "ahead of"
	if off < 0 {
		direction = "behind"
	}
	return fmt.Sprintf("this machine's clock is %s %s the control plane's; set it right", off.Abs().Round(time.Second), direction)
}

// explain says why a server could not be reached.
func explain(host string, err error, now time.Time) error {
	invalid, isCert := errors.AsType[x509.CertificateInvalidError](err)
	switch {
	case errors.Is(err, errPin):
		return fault.New(fault.Unauthentic, "%s is not the control plane of the join token: its CA is another one; nothing was sent to it", host)
	case isCert && invalid.Reason == x509.Expired:
		return fault.New(fault.Unauthentic, "the certificate of %s is not valid at %s, the time of this machine; %s", host, now.UTC().Format(time.RFC3339), clockHint(invalid.Cert, now))
	case isCert || isUnknownAuthority(err):
		return fault.New(fault.Unauthentic, "%s does not show a certificate of the pinned CA: %w", host, err)
	default:
		return fault.Wrap(fault.Unavailable, err, "the control plane at %s cannot be reached", host)
	}
}

func clockHint(c *x509.Certificate, now time.Time) string {
	if now.Before(c.NotBefore) {
		return fmt.Sprintf("its clock is at least %s behind; set it right", c.NotBefore.Sub(now).Round(time.Second))
	}
	return fmt.Sprintf("if the clock is right, the control plane's certificate has expired %s ago; restart it", now.Sub(c.NotAfter).Round(time.Second))
}

func isUnknownAuthority(err error) bool {
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	_, name := errors.AsType[x509.HostnameError](err)
	return unknown || name
}

// renew asks for a certificate for a new key and keeps both.
func renew(ctx context.Context, dir string, id Identity, now func() time.Time) (Identity, error) {
	key, csr, err := newKey()
	if err != nil {
		return id, err
	}
	config, err := id.tlsConfig(now)
	if err != nil {
		return id, err
	}
	var answer struct {
		Certificate string    `json:"certificate"`
		NotAfter    time.Time `json:"notAfter"`
	}
	if err := (client{tls: config, now: now}).post(ctx, id.Server+"/agent/v1/renew", map[string]string{"csr": csr}, &answer); err != nil {
		return id, err
	}
	next := id
	next.Key, next.Certificate, next.NotAfter = key, answer.Certificate, answer.NotAfter
	if _, err := next.tlsConfig(now); err != nil {
		return id, err
	}
	if err := next.save(dir); err != nil {
		return id, err
	}
	return next, nil
}
