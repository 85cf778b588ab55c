// Package client is the typed client of the API of the control plane, for
// komainuctl, for tools and for tests of the whole system. It trusts the
// control plane by its CA or by the hash of the CA's key, never blindly.
package client

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"time"

	"komainu/fault"
)

// Options say which control plane to talk to and why to trust it.
type Options struct {
	Server string // https://host:port
	CA     []byte // certificate of its CA in PEM; empty: Pin, and else the system's roots
	Pin    string // SHA-256 of the public key of its CA, hexadecimal
	Token  string // API token, kmt_…; empty: SignIn
}

// Client talks to one control plane. It is safe for concurrent use.
type Client struct {
	base  *url.URL
	token string
	http  *http.Client
}

// timeout bounds a request with its answer.
const timeout = 30 * time.Second

// maxAnswer is the largest answer that is read, in bytes.
const maxAnswer = 32 << 20

// New returns a client. It does not connect.
func New(o Options) (*Client, error) {
	base, err := url.Parse(o.Server)
	if err != nil || base.Scheme != "https" || base.Host == "" {
		return nil, fault.New(fault.Invalid, "server %q: want https://HOST:PORT", o.Server)
	}
	config, err := o.trust()
	if err != nil {
		return nil, err
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true, Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Minute}
	return &Client{base: &url.URL{Scheme: base.Scheme, Host: base.Host}, token: o.Token, http: &http.Client{Transport: transport, Jar: jar, Timeout: timeout}}, nil
}

func (o Options) trust() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	switch {
	case len(o.CA) > 0:
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(o.CA) {
			return nil, fault.New(fault.Invalid, "the CA is no certificate in PEM form")
		}
	case o.Pin != "":
		pin, err := hex.DecodeString(o.Pin)
		if err != nil || len(pin) != sha256.Size {
			return nil, fault.New(fault.Invalid, "pin %q: want 64 hexadecimal digits", o.Pin)
		}
		// The chain is verified below, from the pinned CA that it carries.
		config.InsecureSkipVerify = true
		config.VerifyConnection = func(s tls.ConnectionState) error { return verifyPinned(s, pin) }
	}
	return config, nil
}

func verifyPinned(s tls.ConnectionState, pin []byte) error {
	roots := x509.NewCertPool()
	for _, c := range s.PeerCertificates[1:] {
		if sum := sha256.Sum256(c.RawSubjectPublicKeyInfo); bytes.Equal(sum[:], pin) {
			roots.AddCert(c)
		}
	}
	if roots.Equal(x509.NewCertPool()) {
		return errors.New("the control plane's CA is not the pinned one")
	}
	_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, DNSName: s.ServerName})
	return err
}

// call makes a request below /api/v1 and decodes the answer.
func call[T any](ctx context.Context, c *Client, method, path string, query url.Values, body any) (T, error) {
	var out T
	text, err := c.do(ctx, method, "/api/v1"+path, query, body)
	if err != nil || len(text) == 0 {
		return out, err
	}
	if err := json.Unmarshal(text, &out); err != nil {
		return out, fmt.Errorf("%s %s: the answer cannot be read; is this a control plane of the same version? %w", method, path, err)
	}
	return out, nil
}

// Get returns the raw answer of any path, for downloads and probes.
func (c *Client) Get(ctx context.Context, path string) ([]byte, error) {
	return c.do(ctx, http.MethodGet, path, nil, nil)
}

func (c *Client) do(ctx context.Context, method, path string, query url.Values, body any) ([]byte, error) {
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(text)
	}
	u := *c.base
	u.Path, u.RawQuery = path, query.Encode()
	r, err := http.NewRequestWithContext(ctx, method, u.String(), content)
	if err != nil {
		return nil, err
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	return c.send(c.http, r)
}

// send sends a request with our credentials and returns the answer.
func (c *Client) send(via *http.Client, r *http.Request) ([]byte, error) {
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	answer, err := via.Do(r)
	if err != nil {
		return nil, unreachable(err, c.base.Host)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, unreachable(err, c.base.Host)
	case len(text) > maxAnswer:
		return nil, fault.New(fault.Exhausted, "the answer is larger than %d bytes; ask for fewer items", maxAnswer)
	case answer.StatusCode >= 400:
		return nil, problem(answer.StatusCode, text)
	}
	return text, nil
}

// unreachable tells a control plane that is not there from one that must not
// be trusted.
func unreachable(err error, host string) error {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok || strings.Contains(err.Error(), "not the pinned one") {
		return fault.Wrap(fault.Unauthentic, err, "the certificate of %s cannot be trusted; name the CA of the control plane (it serves it at /ca.pem)", host)
	}
	return fault.Wrap(fault.Unavailable, err, "the control plane at %s cannot be reached", host)
}

func problem(status int, text []byte) error {
	var p struct{ Kind, Message, ID string }
	if err := json.Unmarshal(text, &p); err != nil || p.Kind == "" {
		return fault.New(fault.Unavailable, "the answer has the status %d and is not from a control plane; something in between may have answered", status)
	}
	if p.ID != "" {
		p.Message += " (" + p.ID + ")"
	}
	return fault.New(fault.ParseKind(p.Kind), "%s", p.Message)
}
