package link

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"komainu/fault"
)

// errPin says that the server is not the one that the token was made by.
var errPin = errors.New("the server's CA is not the one that the join token names")

// errStale says that a server's certificate had expired before this device
// got its own.
var errStale = errors.New("the server's certificate expired before this device enrolled")

// trust says which server is the control plane.
type trust struct {
	host  string         // that its certificate has to name
	pin   string         // of the CA; "" when the CA itself is known
	roots *x509.CertPool // the CA; nil when only its pin is known
	since time.Time      // it is not earlier than this, whatever the clock says
	now   func() time.Time
}

// verify checks the chain of a server.
//
// A host's clock can be wrong, by a dead battery or by an intruder, and then
// the link is needed most: it tells the control plane. So a certificate that
// the clock does not fit is judged as if it did; what is checked instead is
// that it had not expired when this device got its own, which is at most a
// week ago. How far the clock is off is asked of the control plane, and shown.
func (t trust) verify(s tls.ConnectionState) error {
	leaf := s.PeerCertificates[0]
	roots := t.roots
	if roots == nil {
		roots = x509.NewCertPool()
		found := false
		for _, c := range s.PeerCertificates[1:] {
			if c.IsCA && spkiPin(c) == t.pin {
				roots.AddCert(c)
				found = true
			}
		}
		if !found {
			return errPin
		}
	}
	if leaf.NotAfter.Before(t.since) {
		return errStale
	}
	at := t.now()
	if at.Before(leaf.NotBefore) {
		at = leaf.NotBefore
	}
	if at.After(leaf.NotAfter) {
		at = leaf.NotAfter
	}
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: t.host, CurrentTime: at})
	return err
}

// config is for connections to the server that t trusts.
func (t trust) config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{ALPN}, ServerName: t.host,
		InsecureSkipVerify: true, // verify takes the place of what this skips, also for resumed sessions
		VerifyConnection:   t.verify,
	}
}

// trust is the control plane that the device is enrolled in.
func (id Identity) trust(now func() time.Time) (trust, error) {
	u, err := id.server()
	if err != nil {
		return trust{}, err
	}
	own, err := id.leaf()
	if err != nil {
		return trust{}, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(id.CA)) {
		return trust{}, fault.New(fault.Invalid, "the pinned CA is damaged; enrol again with --force")
	}
	return trust{host: u.Hostname(), roots: roots, since: own.NotBefore, now: now}, nil
}

// tlsConfig trusts the control plane alone and shows the device's certificate.
func (id Identity) tlsConfig(now func() time.Time) (*tls.Config, error) {
	t, err := id.trust(now)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair([]byte(id.Certificate), []byte(id.Key))
	if err != nil {
		return nil, fault.New(fault.Invalid, "the device's certificate is damaged; enrol again with --force: %w", err)
	}
	config := t.config()
	// The pair is sent whatever the server hints at: it knows one CA.
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	return config, nil
}

// server is where the control plane is.
func (id Identity) server() (*url.URL, error) {
	u, err := url.Parse(id.Server)
	if err != nil || u.Host == "" {
		return nil, fault.New(fault.Invalid, "the server's address %q cannot be used; enrol again with --force", id.Server)
	}
	return u, nil
}

// hostPort is the address to dial.
func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = "443"
	}
	return net.JoinHostPort(u.Hostname(), port)
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

// clockLimit is how far clocks may be apart.
const clockLimit = 5 * time.Minute

// clockFault says that this machine's clock is off, nil when it is not.
func clockFault(off time.Duration) error {
	if off.Abs() <= clockLimit {
		return nil
	}
	direction := "ahead of"
	if off < 0 {
		direction = "behind"
	}
	return fault.New(fault.Conflict, "this machine's clock is %s %s the control plane's; set it right", roughly(off.Abs()), direction)
}

// roughly is a duration for people.
func roughly(d time.Duration) string {
	plural := func(n int64, unit string) string {
		if n == 1 {
			return "1 " + unit
		}
		return fmt.Sprintf("%d %ss", n, unit)
	}
	switch {
	case d < 2*time.Hour:
		return plural(int64(d.Round(time.Minute)/time.Minute), "minute")
	case d < 48*time.Hour:
		return plural(int64(d.Round(time.Hour)/time.Hour), "hour")
	default:
		return plural(int64(d/(24*time.Hour)), "day")
	}
}

// explain says why a server could not be reached.
func explain(host string, err error) error {
	_, badName := errors.AsType[x509.HostnameError](err)
	_, badChain := errors.AsType[x509.UnknownAuthorityError](err)
	_, badCert := errors.AsType[x509.CertificateInvalidError](err)
	_, notTLS := errors.AsType[tls.RecordHeaderError](err)
	// The alert that a server sends which speaks other protocols has no type.
	otherProtocol := strings.Contains(err.Error(), "tls: no application protocol")
	switch {
	case errors.Is(err, errPin):
		return fault.New(fault.Unauthentic, "%s is not the control plane of the join token: its CA is another one; nothing was sent to it", host)
	case badName:
		return fault.New(fault.Unauthentic, "the control plane's certificate does not name %s; add the name to its configuration (hostnames) and restart it: %w", host, err)
	case badChain, badCert, errors.Is(err, errStale):
		return fault.New(fault.Unauthentic, "%s does not show a certificate of the control plane that this device trusts: %w", host, err)
	case otherProtocol, notTLS:
		return fault.New(fault.Unavailable, "%s is not a Komainu control plane, or something between answers in its place: %w", host, err)
	default:
		return fault.Wrap(fault.Unavailable, err, "the control plane at %s cannot be reached", host)
	}
}
