package gcp

import (
	"context"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"regexp"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"komainu/control/connector/cloud"
	"komainu/fault"
)

// claims are what an identity token says, as far as it is used. Only the
// metadata service puts in what it says of the instance.
type claims struct {
	jwt.RegisteredClaims
	Google struct {
		Instance struct {
			Project string `json:"project_id"`
			Zone    string `json:"zone"`
			ID      string `json:"instance_id"`
		} `json:"compute_engine"`
	} `json:"google"`
}

const (
	issuer = "https://accounts.google.com"
	// fresh is how old a token may be: it is made for the question.
	fresh = 10 * time.Minute
)

var numberForm = regexp.MustCompile(`^[1-9][0-9]{0,19}$`)

// audience is what a token has to be made for: this control plane, and the key
// that asks.
func audience(e cloud.Evidence) string { return "komainu:" + e.Pin + ":" + e.Nonce }

// Identify returns the key of the instance whose identity token is shown.
func (s Settings) Identify(ctx context.Context, e cloud.Evidence, o cloud.Options, keys *Keys) (string, error) {
	if e.Nonce == "" || e.Pin == "" {
		return "", fault.New(fault.Unauthentic, "the token was not made for this question")
	}
	parser := jwt.NewParser(jwt.WithValidMethods([]string{jwt.SigningMethodRS256.Alg()}), jwt.WithTimeFunc(o.Clock), jwt.WithLeeway(time.Minute),
		jwt.WithIssuer(issuer), jwt.WithAudience(audience(e)), jwt.WithExpirationRequired(), jwt.WithIssuedAt())
	var c claims
	_, err := parser.ParseWithClaims(e.Document, &c, func(t *jwt.Token) (any, error) {
		// Google is not asked for keys of what is refused anyway.
		if err := s.expected(c, e, o.Clock()); err != nil {
			return nil, err
		}
		id, _ := t.Header["kid"].(string)
		return keys.find(ctx, id)
	})
	if err != nil {
		return "", fault.New(fault.Unauthentic, "the identity token is not good: %w", err)
	}
	return key(c.Google.Instance.Project, c.Google.Instance.Zone, c.Google.Instance.ID), nil
}

// expected checks what a token says beyond what every token has.
func (s Settings) expected(c claims, e cloud.Evidence, now time.Time) error {
	i := c.Google.Instance
	switch {
	case len(c.Audience) != 1 || c.Audience[0] != audience(e):
		return fault.New(fault.Unauthentic, "it was not made for this question")
	case c.IssuedAt == nil || now.Sub(c.IssuedAt.Time).Abs() > fresh:
		return fault.New(fault.Unauthentic, "it was made too far from now")
	case i.Project != s.ProjectID:
		return fault.New(fault.Unauthentic, "it is of an instance of another project")
	case !numberForm.MatchString(i.ID) || !zoneForm.MatchString(i.Zone):
		return fault.New(fault.Unauthentic, "it names no instance")
	}
	return nil
}

// Bounds of Google's keys: they change every few days, and anybody can show a
// token that names a key which is not known.
const (
	keysLast  = 6 * time.Hour
	keysAgain = time.Minute
	// keysFailed is the least time between tries that fail.
	keysFailed = 5 * time.Second
	keysLimit  = 10 * time.Second
	keysSize   = 64 << 10
	maxKeys    = 50
)

// Keys are the public keys that Google signs identity tokens with. They are
// got when they are needed. It is safe for concurrent use.
type Keys struct {
	address string
	client  *http.Client
	now     func() time.Time

	mu    sync.Mutex
	known map[string]*rsa.PublicKey
	got   time.Time
	asked time.Time
}

// NewKeys returns the keys that Google publishes.
func NewKeys(o cloud.Options) *Keys {
	return &Keys{address: at(o, keysURL, "/oauth2/v3/certs"), client: o.HTTP(), now: o.Clock}
}

func (k *Keys) find(ctx context.Context, id string) (*rsa.PublicKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.now()
	if key := k.known[id]; key != nil && now.Sub(k.got).Abs() < keysLast {
		return key, nil
	}
	if now.Sub(k.asked).Abs() >= keysAgain {
		k.asked = now
		known, err := k.fetch(ctx)
		if err != nil {
			k.asked = now.Add(keysFailed - keysAgain)
			return nil, fault.Wrap(fault.Unavailable, err, "Google's keys are not to be had")
		}
		k.known, k.got = known, now
	}
	if key := k.known[id]; key != nil && now.Sub(k.got).Abs() < keysLast {
		return key, nil
	}
	return nil, fault.New(fault.Unauthentic, "none of Google's keys is %.64q", id)
}

func (k *Keys) fetch(ctx context.Context) (map[string]*rsa.PublicKey, error) {
	// Others wait for the keys too, not only who asks.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), keysLimit)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, k.address, nil)
	if err != nil {
		return nil, err
	}
	answer, err := k.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", k.address, answer.Status)
	}
	text, err := io.ReadAll(io.LimitReader(answer.Body, keysSize))
	if err != nil {
		return nil, err
	}
	return parseKeys(text)
}

// parseKeys reads a JSON Web Key Set. Keys of other kinds are left out.
func parseKeys(text []byte) (map[string]*rsa.PublicKey, error) {
	var set struct {
		Keys []struct{ Kty, Kid, N, E string } `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, fmt.Errorf("the keys cannot be read: %w", err)
	}
	known := map[string]*rsa.PublicKey{}
	for _, k := range set.Keys[:min(len(set.Keys), maxKeys)] {
		n, err := base64.RawURLEncoding.DecodeString(k.N)
		if err != nil || k.Kty != "RSA" || k.Kid == "" || len(n) > 1024 {
			continue
		}
		e, err := base64.RawURLEncoding.DecodeString(k.E)
		if err != nil || len(e) > 4 || len(e) == 0 {
			continue
		}
		key := &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}
		if !tooShort(key) && key.E >= 3 && key.E%2 == 1 {
			known[k.Kid] = key
		}
	}
	if len(known) == 0 {
		return nil, fmt.Errorf("there is no key in %d bytes", len(text))
	}
	return known, nil
}
