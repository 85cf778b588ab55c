package link

import (
	"crypto"
	"crypto/tls"

	"komainu/deploy"
	"komainu/fault"
)

// Prove shows, to whoever has made the nonce, that this device has the key of
// its identity. Errors: fault.Invalid for a nonce that is none, and for an
// identity that is damaged.
func (id Identity) Prove(n deploy.Nonce) (deploy.Proof, error) {
	pair, err := tls.X509KeyPair([]byte(id.Certificate), []byte(id.Key))
	if err != nil {
		return deploy.Proof{}, fault.New(fault.Invalid, "the device's certificate is damaged; enrol again with --force: %w", err)
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return deploy.Proof{}, fault.New(fault.Invalid, "the device's key cannot sign; enrol again with --force")
	}
	p, err := deploy.Prove(key, pair.Certificate[0], string(id.Device), n)
	if err != nil {
		return p, fault.New(fault.Invalid, "%w", err)
	}
	return p, nil
}
