package enrol

import (
	"context"
	"crypto/x509"

	"komainu/deploy"
	"komainu/event"
	"komainu/fault"
)

// Proves checks what a host has said to prove that its agent is a device. The
// proof brings the certificate along, which counts as it does for a connection:
// any that is issued here, not expired and not revoked, of the CA in use or of
// the next one. A nonce is for one question; who has asked keeps it. Errors:
// fault.Unauthentic for a proof that proves nothing.
func (a *Authority) Proves(ctx context.Context, id event.DeviceID, n deploy.Nonce, text string) error {
	p, err := deploy.ParseProof(text)
	if err != nil {
		return fault.New(fault.Unauthentic, "the proof cannot be read: %w", err)
	}
	c, err := x509.ParseCertificate(p.Certificate)
	if err != nil {
		return fault.New(fault.Unauthentic, "the certificate of the proof cannot be read: %w", err)
	}
	// The key before the certificate, as in a handshake: looking it up may note
	// it.
	if !p.Of(c.PublicKey, string(id), n) {
		return fault.New(fault.Unauthentic, "the proof is not of device %s, or of another time", id)
	}
	whose, _, err := a.vouched(ctx, c)
	if err != nil {
		return err
	}
	if whose != id {
		return fault.New(fault.Unauthentic, "the proof is that of device %s, not of %s", whose, id)
	}
	return a.current(id, c)
}
