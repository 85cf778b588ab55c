package deploy

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// Nonce is what a host is asked to prove itself with, once.
type Nonce string

// NewNonce returns one that nobody can have known before.
func NewNonce() Nonce { return Nonce(rand.Text()) }

// Bounds of what a proof is made of and of its text. One line of a host is
// longer than a proof.
const (
	minNonce  = 16
	maxSigned = 64 // bytes of the nonce, and of the id of the device
	maxProof  = 3000
)

// Proof shows that the agent on a host has the key of a device: the device's
// certificate, in DER, and the signature with its key over the words "komainu
// host proof v1", a nonce and the device. Whether the certificate counts is not
// looked at here.
type Proof struct{ Certificate, Signature []byte }

// statement returns the hash of what is signed. The words in front keep it
// apart from all else that the key signs: TLS begins with spaces, a request for
// a certificate with 0x30. Each part has its length before it, so that no two
// statements are the same bytes.
func statement(device string, n Nonce) ([]byte, error) {
	foreign := func(c rune) bool { return (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') }
	switch {
	case len(n) < minNonce || len(n) > maxSigned || strings.ContainsFunc(string(n), foreign):
		return nil, fmt.Errorf("a nonce is %d to %d letters and digits", minNonce, maxSigned)
	case device == "" || len(device) > maxSigned:
		return nil, fmt.Errorf("the id of a device has 1 to %d bytes", maxSigned)
	}
	text := []byte("komainu host proof v1\x00")
	for _, part := range []string{device, string(n)} {
		text = append(append(text, byte(len(part))), part...)
	}
	sum := sha256.Sum256(text)
	return sum[:], nil
}

// Prove makes a proof with the key of a certificate. Errors: a nonce that is
// none.
func Prove(key crypto.Signer, certificate []byte, device string, n Nonce) (Proof, error) {
	sum, err := statement(device, n)
	if err != nil {
		return Proof{}, err
	}
	signature, err := key.Sign(rand.Reader, sum, crypto.SHA256)
	return Proof{certificate, signature}, err
}

// Of reports whether the owner of a public key has made the proof, for this
// device and this nonce.
func (p Proof) Of(key crypto.PublicKey, device string, n Nonce) bool {
	public, ok := key.(*ecdsa.PublicKey)
	sum, err := statement(device, n)
	return ok && err == nil && ecdsa.VerifyASN1(public, sum, p.Signature)
}

// String is how the proof travels: one word.
func (p Proof) String() string {
	return base64.RawURLEncoding.EncodeToString(p.Certificate) + "." + base64.RawURLEncoding.EncodeToString(p.Signature)
}

// ParseProof reads what a host has said.
func ParseProof(text string) (p Proof, err error) {
	if len(text) > maxProof {
		return p, fmt.Errorf("a proof has at most %d bytes", maxProof)
	}
	certificate, signature, ok := strings.Cut(text, ".")
	if !ok || certificate == "" || signature == "" || strings.ContainsAny(text, "\r\n") { // which base64 passes over
		return p, errors.New("a proof is a certificate and a signature")
	}
	strict := base64.RawURLEncoding.Strict()
	if p.Certificate, err = strict.DecodeString(certificate); err == nil {
		p.Signature, err = strict.DecodeString(signature)
	}
	return p, err
}

// ProofFrom asks the agent on a host to prove which device it is. It is "" for
// an agent that does not run, or that is too old to do this.
func ProofFrom(ctx context.Context, h Host, n Nonce) (proof string, err error) {
	a := answer{fact: func(name, value string) {
		if name == proofFact {
			proof = value
		}
	}}
	err = a.run(ctx, h, []string{"prove", "nonce=" + string(n)}, nil)
	return proof, err
}
