package link

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"komainu/event"
	"komainu/fault"
	"komainu/internal/atomicfile"
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
	CA           string            `json:"ca"` // PEM; two of them while the control plane replaces its CA
	// ContentRoot is the root of the signed repository as it was when this
	// device enrolled: newer ones are reached by following their signatures.
	ContentRoot []byte `json:"contentRoot,omitempty"`
	// Machine tells which machine the identity was given to, in the words of
	// whoever enrolled it; "" when that was not noted.
	Machine string `json:"machine,omitempty"`
	// Root is the pin of the CA that the device enrolled with, when that was
	// replaced since.
	Root        string    `json:"root,omitempty"`
	Certificate string    `json:"certificate"` // PEM
	Key         string    `json:"key"`         // PEM
	NotAfter    time.Time `json:"notAfter"`
}

// Authority names the control plane that gave the identity: the hash of the
// key of the CA that it had when this device enrolled.
func (id Identity) Authority() string { return cmp.Or(id.Root, caPin([]byte(id.CA))) }

// identityFile holds all of it, so that it is replaced in one step: a new
// certificate with an old key would lock the device out.
const identityFile = "identity.json"

var errNotEnrolled = fault.New(fault.NotFound, "this device is not enrolled")

// Load reads the identity from the state folder. Errors: fault.NotFound when
// the device is not enrolled, fault.Invalid when the file is damaged.
func Load(dir string) (Identity, error) { return load(dir, identityFile) }

func load(dir, file string) (Identity, error) {
	text, err := os.ReadFile(filepath.Join(dir, file))
	if errors.Is(err, fs.ErrNotExist) {
		return Identity{}, errNotEnrolled
	}
	if err != nil {
		return Identity{}, fmt.Errorf("read the identity: %w", err)
	}
	var id Identity
	if err := json.Unmarshal(text, &id); err != nil || id.Device == "" || len(id.PolicyKey) != ed25519.PublicKeySize {
		return Identity{}, fault.New(fault.Invalid, "%s is damaged; enrol again with --force", filepath.Join(dir, file))
	}
	return id, nil
}

// identityLock is held while the file is replaced: a renewal that ends late
// must not undo an enrolment.
var identityLock sync.Mutex

func (id Identity) save(dir string) error {
	text, err := json.Marshal(id)
	if err != nil {
		return err
	}
	return diskFault(atomicfile.Write(filepath.Join(dir, identityFile), text, 0o600), "keep the identity in "+dir)
}

// replace saves next in the place of id, unless the device was enrolled anew
// meanwhile.
func (id Identity) replace(dir string, next Identity) error {
	identityLock.Lock()
	defer identityLock.Unlock()
	now, err := Load(dir)
	if err != nil {
		return err
	}
	if now.Certificate != id.Certificate {
		return fault.New(fault.Conflict, "the device was enrolled anew while its certificate was renewed")
	}
	return next.save(dir)
}

// diskFault gives what a disk refuses a kind.
func diskFault(err error, what string) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fault.Wrap(fault.NeedsRoot, err, "%s", what)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fault.Wrap(fault.Exhausted, err, "%s: free space on the disk", what)
	case err != nil:
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// leaf returns the device's own certificate.
func (id Identity) leaf() (*x509.Certificate, error) {
	block, _ := pem.Decode([]byte(id.Certificate))
	if block == nil {
		return nil, fault.New(fault.Invalid, "the device's certificate is damaged; enrol again with --force")
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fault.New(fault.Invalid, "the device's certificate is damaged; enrol again with --force: %w", err)
	}
	return c, nil
}

// renewAt is at two thirds of the certificate's life.
func (id Identity) renewAt() time.Time {
	c, err := id.leaf()
	if err != nil {
		return id.NotAfter
	}
	return c.NotAfter.Add(-c.NotAfter.Sub(c.NotBefore) / 3)
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
