package link

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/url"
	"strings"

	"komainu/fault"
)

// CloudJoin brings a machine in by a document of its cloud: nothing secret has
// to be on it.
type CloudJoin struct {
	Cloud  string // aws, azure, gcp
	Server string // URL of the control plane
	Pin    string // of its CA
	// Document asks the cloud for the document. nonce and pin are what it has
	// to carry where it can carry something.
	Document func(ctx context.Context, cloud, nonce, pin string) (document, signature string, err error)
}

// Evidence is what is shown to the control plane.
type Evidence struct {
	Cloud     string `json:"cloud"`
	Document  string `json:"document"`
	Signature string `json:"signature,omitempty"`
	Nonce     string `json:"nonce"`
}

// target is where to enrol, and whom to trust.
func (o EnrolOptions) target() (Token, error) {
	if o.Cloud == nil {
		return ParseToken(o.Token)
	}
	if o.Token != "" {
		return Token{}, fault.New(fault.Invalid, "enrol with a join token or by the cloud, not both")
	}
	t := Token{Server: strings.TrimSuffix(o.Cloud.Server, "/"), Pin: strings.ToLower(o.Cloud.Pin)}
	u, err := url.Parse(t.Server)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.Path != "" || u.User != nil {
		return Token{}, fault.New(fault.Invalid, "server %q: want https://HOST:PORT", o.Cloud.Server)
	}
	if sum, err := hex.DecodeString(t.Pin); err != nil || len(sum) != sha256.Size {
		return Token{}, fault.New(fault.Invalid, "pin %q: want the 64 hexadecimal digits of the SHA-256 of the public key of its CA", o.Cloud.Pin)
	}
	return t, nil
}

// evidence asks the control plane for a nonce, and the cloud for a document
// that carries it.
func (j CloudJoin) evidence(ctx context.Context, c client, csr string) (*Evidence, error) {
	var challenge struct {
		Nonce string `json:"nonce"`
	}
	if err := c.post(ctx, strings.TrimSuffix(j.Server, "/")+"/agent/v1/challenge", map[string]string{"csr": csr}, &challenge); err != nil {
		return nil, err
	}
	document, signature, err := j.Document(ctx, j.Cloud, challenge.Nonce, strings.ToLower(j.Pin))
	if err != nil {
		return nil, err
	}
	return &Evidence{Cloud: j.Cloud, Document: document, Signature: signature, Nonce: challenge.Nonce}, nil
}
