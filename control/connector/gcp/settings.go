// Package gcp reaches instances of Google Cloud: it lists them, runs scripts on
// them by OS policies of OS Config, and checks the identity tokens by which
// they say who they are.
package gcp

import (
	"cmp"
	"context"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"
	oauthjwt "golang.org/x/oauth2/jwt"
	"google.golang.org/api/googleapi"

	"komainu/control/connector/cloud"
	"komainu/deploy"
	"komainu/fault"
)

// Settings are the settings of a connector for Google Cloud.
type Settings struct {
	ProjectID      string   `json:"projectId" maxLength:"30" doc:"not its number"`
	Zones          []string `json:"zones,omitempty" maxItems:"200" doc:"all of the project when left out"`
	ServiceAccount string   `json:"serviceAccount,omitempty" maxLength:"256" doc:"whose key is stored; it follows from the key"`
}

// What becomes a part of an address has a strict form: settings must not lead
// the control plane to other hosts.
var (
	projectForm = regexp.MustCompile(`^[a-z][a-z0-9-]{4,28}[a-z0-9]$`)
	zoneForm    = regexp.MustCompile(`^[a-z]{2,20}-[a-z]{2,20}[0-9]{1,2}-([a-z]{2}[0-9]{1,2})?[a-z]$`)
	emailForm   = regexp.MustCompile(`^[a-z0-9-]{1,63}@[a-z0-9.-]{1,100}\.gserviceaccount\.com$`)
)

// Addresses of Google. A key names where tokens are got with it; only Google's
// are taken, and they all lead here.
const (
	scope       = "https://www.googleapis.com/auth/cloud-platform"
	tokenURL    = "https://oauth2.googleapis.com/token"
	computeURL  = "https://compute.googleapis.com/compute/v1/"
	osconfigURL = "https://osconfig.googleapis.com/"
	keysURL     = "https://www.googleapis.com/oauth2/v3/certs"
)

var tokenURLs = []string{"", tokenURL, "https://accounts.google.com/o/oauth2/token", "https://www.googleapis.com/oauth2/v4/token"}

// account is the key of a service account as Google gives it out.
type account struct {
	Type         string `json:"type"`
	PrivateKeyID string `json:"private_key_id"`
	PrivateKey   string `json:"private_key"`
	Email        string `json:"client_email"`
	TokenURI     string `json:"token_uri"`
	Universe     string `json:"universe_domain"`
}

// parseAccount reads a key. Other files of credentials name programs to run
// and addresses to call, and are refused.
func parseAccount(text string) (account, error) {
	var a account
	if err := json.Unmarshal([]byte(text), &a); err != nil {
		return a, fault.New(fault.Invalid, "the key is not the JSON file of a service account")
	}
	key, err := jwt.ParseRSAPrivateKeyFromPEM([]byte(a.PrivateKey))
	switch {
	case a.Type != "service_account":
		return a, fault.New(fault.Invalid, "the key is of the type %q: want service_account", a.Type)
	case !slices.Contains(tokenURLs, a.TokenURI) || a.Universe != "" && a.Universe != "googleapis.com":
		return a, fault.New(fault.Invalid, "the key leads to %q, which is not Google", cmp.Or(a.TokenURI, a.Universe))
	case !emailForm.MatchString(a.Email):
		return a, fault.New(fault.Invalid, "the key is of %q, which is no service account", a.Email)
	case err != nil || tooShort(&key.PublicKey):
		return a, fault.New(fault.Invalid, "the private key in the file of %s cannot be read", a.Email)
	}
	return a, nil
}

func tooShort(key *rsa.PublicKey) bool { return key.N.BitLen() < 2048 }

// Check says what is wrong with settings, and whether they want the key.
func (s *Settings) Check(secret string, o cloud.Options) (wanted bool, err error) {
	s.ProjectID, s.ServiceAccount = strings.TrimSpace(s.ProjectID), ""
	if !projectForm.MatchString(s.ProjectID) {
		return false, fault.New(fault.Invalid, "project %q: want its ID, like example-works-123456", s.ProjectID)
	}
	for i := range s.Zones {
		s.Zones[i] = strings.TrimSpace(s.Zones[i])
		if !zoneForm.MatchString(s.Zones[i]) {
			return false, fault.New(fault.Invalid, "zone %q: want one like europe-west3-a", s.Zones[i])
		}
	}
	slices.Sort(s.Zones)
	s.Zones = slices.Compact(s.Zones)
	if secret == "" {
		if !o.OwnIdentity {
			return false, fault.New(fault.Invalid, "paste the key of a service account; the identity of the control plane's own machine may be used after clouds.own_identity is switched on in its configuration")
		}
		return false, nil
	}
	a, err := parseAccount(secret)
	if err != nil {
		return false, err
	}
	s.ServiceAccount = a.Email
	return true, nil
}

// within reports whether a zone is one of the connector's.
func (s Settings) within(zone string) bool {
	return len(s.Zones) == 0 || slices.Contains(s.Zones, zone)
}

// Account is the way to a project's instances.
type Account struct {
	settings Settings
	api      api
}

// Open prepares the way.
func Open(ctx context.Context, s Settings, secret string, o cloud.Options) (*Account, error) {
	client := o.HTTP()
	b := &bearer{next: client.Transport}
	switch {
	case secret != "":
		key, err := parseAccount(secret)
		if err != nil {
			return nil, deploy.Fail(deploy.CloudCredential, err.Error())
		}
		login := &oauthjwt.Config{Email: key.Email, PrivateKey: []byte(key.PrivateKey), PrivateKeyID: key.PrivateKeyID, Scopes: []string{scope}, TokenURL: at(o, tokenURL, "/token"), Audience: tokenURL}
		plain := o.HTTP()
		b.source = func(ctx context.Context) oauth2.TokenSource {
			return login.TokenSource(context.WithValue(ctx, oauth2.HTTPClient, plain))
		}
	case o.OwnIdentity:
		b.source = func(context.Context) oauth2.TokenSource { return google.ComputeTokenSource("", scope) }
	default:
		return nil, deploy.Fail(deploy.CloudCredential, "the installation does not allow connectors without a key")
	}
	client.Transport = b
	api, err := newAPI(ctx, client, o)
	if err != nil {
		return nil, deploy.Fail(deploy.ConnectorFailed, err.Error())
	}
	return &Account{s, api}, nil
}

// at is an address of Google, or the one that the configuration has for it.
func at(o cloud.Options, address, path string) string {
	if e := o.Endpoints[cloud.GCP]; e != "" {
		return strings.TrimSuffix(e, "/") + path
	}
	return address
}

// bearer puts a token into requests. Unlike the Transport of oauth2 it gives up
// with the request when the token does not come.
type bearer struct {
	next   http.RoundTripper
	source func(context.Context) oauth2.TokenSource

	mu    sync.Mutex
	token *oauth2.Token
}

func (b *bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	token, err := b.get(r.Context())
	if err != nil {
		if r.Body != nil {
			_ = r.Body.Close() // a RoundTripper has to
		}
		return nil, err
	}
	r = r.Clone(r.Context())
	token.SetAuthHeader(r)
	return b.next.RoundTrip(r)
}

func (b *bearer) get(ctx context.Context) (*oauth2.Token, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.token.Valid() {
		return b.token, nil
	}
	token, err := b.source(ctx).Token()
	if err == nil && token.AccessToken == "" {
		err = errors.New("no token comes for the key")
	}
	if err == nil {
		b.token = token
	}
	return token, err
}

// Bounds of trying again what Google slows down.
const (
	tries     = 5
	mostPause = 20 * time.Second
)

// again calls f until it is not slowed down any more. The clients of Google do
// not do that by themselves.
func again[T any](ctx context.Context, f func() (T, error)) (T, error) {
	for n := 1; ; n++ {
		got, err := f()
		answer, ok := errors.AsType[*googleapi.Error](err)
		if !ok || n == tries || !throttled(answer) && answer.Code != http.StatusServiceUnavailable {
			return got, err
		}
		pause := 500 * time.Millisecond << n
		if s, err := strconv.Atoi(answer.Header.Get("Retry-After")); err == nil && s >= 0 && s < 3600 {
			pause = time.Duration(s) * time.Second
		}
		select {
		case <-ctx.Done():
			return got, err
		case <-time.After(min(pause, mostPause)):
		}
	}
}

// throttled reports whether an answer means too many requests. Compute Engine
// says that with 403 too.
func throttled(e *googleapi.Error) bool {
	return e.Code == http.StatusTooManyRequests || e.Code == http.StatusForbidden && slices.ContainsFunc(e.Errors, func(i googleapi.ErrorItem) bool {
		return i.Reason == "rateLimitExceeded" || i.Reason == "userRateLimitExceeded" || i.Reason == "quotaExceeded"
	})
}

// answered reports whether an error is an answer with one of some codes.
func answered(err error, codes ...int) bool {
	e, ok := errors.AsType[*googleapi.Error](err)
	return ok && slices.Contains(codes, e.Code)
}

// gone reports whether an error says that something does not exist.
func gone(err error) bool { return answered(err, http.StatusNotFound) }

// explain is an error of Google Cloud as a reason.
func explain(err error) *deploy.Failure {
	if f, ok := errors.AsType[*deploy.Failure](err); ok {
		return f
	}
	if login, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		text := cloud.Tail(cmp.Or(strings.Trim(login.ErrorCode+": "+login.ErrorDescription, ": "), string(login.Body)))
		if login.Response != nil && login.Response.StatusCode < http.StatusInternalServerError {
			return deploy.Fail(deploy.CloudCredential, text)
		}
		return deploy.Fail(deploy.CloudFailed, "no token: "+text)
	}
	if answer, ok := errors.AsType[*googleapi.Error](err); ok {
		text := cloud.Tail(cmp.Or(answer.Message, http.StatusText(answer.Code)))
		switch {
		case throttled(answer):
			return deploy.Fail(deploy.CloudThrottled, text)
		case answer.Code == http.StatusForbidden:
			return deploy.Fail(deploy.CloudDenied, text)
		case answer.Code == http.StatusUnauthorized:
			return deploy.Fail(deploy.CloudCredential, text)
		}
		return deploy.Fail(deploy.CloudFailed, text)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return deploy.Fail(deploy.CloudFailed, "it did not answer in time")
	}
	return deploy.Fail(deploy.CloudFailed, cloud.Tail(err.Error()))
}
