package link

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"komainu/event"
	"komainu/fault"
	"komainu/wire"
)

// EnrolOptions are what Enrol needs.
type EnrolOptions struct {
	Dir   string // state folder
	Token string
	// Cloud is what is there in the place of a token.
	Cloud *CloudJoin
	Facts wire.Facts
	// Machine is noted in the identity.
	Machine string
	Force   bool // also when the device is enrolled already
	Proxy   Proxy
	Now     func() time.Time
}

// Enrol brings this device into the environment of a join token. The control
// plane is checked against the token's pin before anything is sent, and that
// the identity can be kept before a use of the token is spent. On an error
// nothing has changed here.
//
// Errors: fault.Invalid for a token that is none; fault.Conflict when the
// device is enrolled, or the clock is off; fault.Unauthentic for a token that
// the control plane refuses and for a server that is not the token's;
// fault.Unsupported when the versions do not fit; fault.Unavailable when it
// cannot be reached; fault.NeedsRoot and fault.Exhausted for what the disk
// refuses.
func Enrol(ctx context.Context, o EnrolOptions) (Identity, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	t, err := o.target()
	if err != nil {
		return Identity{}, err
	}
	if old, err := Load(o.Dir); err == nil && !o.Force {
		return Identity{}, fault.New(fault.Conflict, "this device is enrolled in %q already; use --force to enrol it anew", old.Environment)
	}
	if err := tryDisk(o.Dir); err != nil {
		return Identity{}, err
	}
	key, csr, err := newKey()
	if err != nil {
		return Identity{}, err
	}
	u, err := url.Parse(t.Server)
	if err != nil {
		return Identity{}, err // ParseToken has looked at it
	}
	c := newClient(o.Proxy, trust{host: u.Hostname(), pin: t.Pin, now: o.Now}.config())
	defer c.close()
	if err := c.fits(ctx, t.Server, o.Now); err != nil {
		return Identity{}, err
	}
	var answer struct {
		Device       event.DeviceID `json:"device"`
		Organization string         `json:"organization"`
		Environment  string         `json:"environment"`
		Certificate  string         `json:"certificate"`
		CA           string         `json:"ca"`
		PolicyKey    string         `json:"policyKey"`
		ContentRoot  []byte         `json:"contentRoot"`
		NotAfter     time.Time      `json:"notAfter"`
	}
	body := struct {
		Token    string     `json:"token,omitempty"`
		Evidence *Evidence  `json:"evidence,omitempty"`
		CSR      string     `json:"csr"`
		Facts    wire.Facts `json:"facts"`
	}{t.Secret, nil, csr, o.Facts}
	if o.Cloud != nil {
		if body.Evidence, err = o.Cloud.evidence(ctx, c, csr); err != nil {
			return Identity{}, err
		}
	}
	if err := c.post(ctx, t.Server+"/agent/v1/enrol", body, &answer); err != nil {
		return Identity{}, err
	}
	policyKey, err := base64.StdEncoding.DecodeString(answer.PolicyKey)
	if err != nil || len(policyKey) != ed25519.PublicKeySize || answer.Device == "" || caPin([]byte(answer.CA)) != t.Pin {
		return Identity{}, fault.New(fault.Internal, "the control plane's answer makes no sense; nothing was changed here")
	}
	id := Identity{
		Device: answer.Device, Organization: answer.Organization, Environment: answer.Environment, Server: t.Server, PolicyKey: policyKey,
		CA: answer.CA, Certificate: answer.Certificate, Key: key, NotAfter: answer.NotAfter, ContentRoot: answer.ContentRoot, Machine: o.Machine,
	}
	if _, err := id.tlsConfig(o.Now); err != nil {
		return Identity{}, err
	}
	identityLock.Lock()
	defer identityLock.Unlock()
	if err := id.save(o.Dir); err != nil {
		return Identity{}, err
	}
	_ = os.Remove(filepath.Join(o.Dir, awayFile)) // an identity that is in use goes before it
	return id, nil
}

// tryDisk sees whether an identity could be kept.
func tryDisk(dir string) error {
	what := "keep an identity in " + dir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return diskFault(err, what)
	}
	f, err := os.CreateTemp(dir, ".identity.*")
	if err != nil {
		return diskFault(err, what)
	}
	_, err = f.Write(make([]byte, 64<<10)) // more than an identity takes
	if err == nil {
		err = f.Sync()
	}
	for _, end := range []func() error{f.Close, func() error { return os.Remove(f.Name()) }} {
		if e := end(); err == nil {
			err = e
		}
	}
	return diskFault(err, what)
}
