// Package cloud is what the connectors of clouds have in common: the machines
// of an account, the way to them, the documents by which a machine says who it
// is, and an HTTP client with bounds.
package cloud

import (
	"context"
	"crypto/x509"
	"net/http"
	"net/url"
	"time"

	"komainu/deploy"
	"komainu/fault"
)

// The clouds, by the names of their kinds of connectors.
const (
	AWS   = "aws"
	Azure = "azure"
	GCP   = "gcp"
)

// Unverified is the label of every cloud: releases are tried on servers that
// follow the published APIs, not on the clouds.
const Unverified = "not verified on the cloud"

// MaxMachines bounds what is taken of one account.
const MaxMachines = 100_000

// Options are what the installation decides; nothing of it comes over the API.
type Options struct {
	// OwnIdentity lets connectors without a credential use the identity that
	// the control plane's own machine has in its cloud.
	OwnIdentity bool `yaml:"own_identity"`
	// Endpoints replace the addresses of the clouds, by kind of connector.
	Endpoints map[string]string `yaml:"endpoints"`
	// What follows is for tests: the clock, the way of requests, and the roots
	// of certificates; those of this machine when nil.
	Now       func() time.Time  `yaml:"-"`
	Transport http.RoundTripper `yaml:"-"`
	Roots     *x509.CertPool    `yaml:"-"`
}

// Clock returns the time.
func (o Options) Clock() time.Time {
	if o.Now != nil {
		return o.Now()
	}
	return time.Now()
}

// Validate says what is wrong with options.
func (o Options) Validate() error {
	for kind, text := range o.Endpoints {
		u, err := url.Parse(text)
		if kind != AWS && kind != Azure && kind != GCP || err != nil || u.Host == "" || u.Scheme != "https" && u.Hostname() != "127.0.0.1" {
			return fault.New(fault.Invalid, "clouds.endpoints %s: %q: want aws, azure or gcp, and https://HOST", kind, text)
		}
	}
	return nil
}

// Machine is what a cloud says of a machine.
type Machine struct {
	// Key is the identifier that the cloud never gives to another machine.
	Key     string
	Name    string
	Address string
	System  string // linux or windows, "" when the cloud does not say
	OS      string
	Arch    string // as Go names it
	Tags    map[string]string
	Stopped bool
	// Problem is why the cloud cannot run anything on the machine.
	Problem *deploy.Reason
}

// Missed is a part of an account that did not answer.
type Missed struct {
	Part   string // for people
	Holds  func(key string) bool
	Reason deploy.Reason
}

// Inventory is what an account has. What is in a part that was missed is not
// gone.
type Inventory struct {
	Machines []Machine
	Missed   []Missed
}

// Account is the way to the machines of an account, a subscription or a
// project.
type Account interface {
	// List asks for every machine. Errors: *deploy.Failure when nothing at all
	// could be learned.
	List(ctx context.Context) (Inventory, error)
	// Reach returns the way to run scripts on a machine, by its key and its
	// address as the inventory names them.
	Reach(ctx context.Context, key, address string) (deploy.Host, error)
}

// Evidence is what a machine shows to be recognised.
type Evidence struct {
	Cloud     string `json:"cloud"`
	Document  string `json:"document"`            // as the machine has got it of its cloud
	Signature string `json:"signature,omitempty"` // where it is apart
	// Nonce and Pin are what this control plane expects in the document, where
	// the cloud lets the machine put something in: a number for the key that
	// asks, and the pin of the CA.
	Nonce string `json:"-"`
	Pin   string `json:"-"`
}

// MaxEvidence bounds each part of evidence: more than any cloud gives out.
const MaxEvidence = 24 << 10
