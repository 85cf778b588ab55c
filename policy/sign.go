package policy

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
)

// Signed is a document as it travels: the exact bytes and a signature over
// them.
type Signed struct {
	Payload   []byte `json:"payload"`
	Signature []byte `json:"signature"`
}

// context separates policy signatures from any other use of the same key.
const context = "komainu policy v1\x00"

// Sign encodes and signs a document. It does not validate it.
func Sign(d *Document, key ed25519.PrivateKey) (Signed, error) {
	payload, err := json.Marshal(d)
	if err != nil {
		return Signed{}, fmt.Errorf("encode policy: %w", err)
	}
	return Signed{Payload: payload, Signature: ed25519.Sign(key, append([]byte(context), payload...))}, nil
}

// ErrSignature says that a policy was not signed by the pinned key.
var ErrSignature = errors.New("policy signature does not match the pinned key")

// Open checks the signature before it looks at anything else, decodes
// strictly (an unknown setting is an error: a policy is applied whole or not
// at all) and validates.
func Open(s Signed, key ed25519.PublicKey) (*Document, error) {
	if len(key) != ed25519.PublicKeySize || !ed25519.Verify(key, append([]byte(context), s.Payload...), s.Signature) {
		return nil, ErrSignature
	}
	dec := json.NewDecoder(bytes.NewReader(s.Payload))
	dec.DisallowUnknownFields()
	var d Document
	if err := dec.Decode(&d); err != nil {
		return nil, fmt.Errorf("decode policy: %w", err)
	}
	if err := d.Validate(); err != nil {
		return nil, fmt.Errorf("policy version %d: %w", d.Version, err)
	}
	return &d, nil
}
