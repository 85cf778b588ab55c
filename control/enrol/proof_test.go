package enrol

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"komainu/deploy"
	"komainu/event"
	"komainu/fault"
)

// proving is a device with the key of its certificate.
type proving struct {
	id   event.DeviceID
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func device(t testing.TB, a *Authority, id event.DeviceID) proving {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := a.issue(t.Context(), id, &x509.CertificateRequest{PublicKey: key.Public()})
	if err != nil {
		t.Fatal(err)
	}
	return proving{id, key, cert}
}

// proves returns what the device says when it is asked, of itself or of
// another.
func (d proving) proves(t testing.TB, id event.DeviceID, n deploy.Nonce) string {
	t.Helper()
	p, err := deploy.Prove(d.key, d.cert.Raw, string(id), n)
	if err != nil {
		t.Fatal(err)
	}
	return p.String()
}

func TestProves(t *testing.T) {
	a, c := open(t, t.TempDir())
	foreign, _ := open(t, t.TempDir())
	d, other, stranger := device(t, a, "device-1"), device(t, a, "device-2"), device(t, foreign, "device-1")
	n := deploy.NewNonce()
	if err := a.Proves(t.Context(), d.id, n, d.proves(t, d.id, n)); err != nil {
		t.Fatal(err)
	}
	// The certificate of one device, the key of another.
	mixed := proving{d.id, other.key, d.cert}
	for name, text := range map[string]string{
		"replayed":               d.proves(t, d.id, deploy.NewNonce()),
		"another_device":         other.proves(t, other.id, n),
		"another_says_it":        other.proves(t, d.id, n),
		"certificate_of_another": mixed.proves(t, d.id, n),
		"another_ca":             stranger.proves(t, d.id, n),
		"nothing":                "",
		"garbage":                "aGVsbG8.aGVsbG8",
		"cut":                    d.proves(t, d.id, n)[:400],
		"too_long":               d.proves(t, d.id, n) + strings.Repeat("A", 3000),
	} {
		if err := a.Proves(t.Context(), d.id, n, text); !fault.Is(err, fault.Unauthentic) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := a.Proves(t.Context(), other.id, n, d.proves(t, d.id, n)); !fault.Is(err, fault.Unauthentic) {
		t.Errorf("the proof of one device is taken for another: %v", err)
	}
	// A renewal, under the next CA.
	if _, err := a.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	renewed := device(t, a, d.id)
	for name, p := range map[string]proving{"before": d, "renewed": renewed} {
		if err := a.Proves(t.Context(), d.id, n, p.proves(t, d.id, n)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	c.t = c.t.Add(deviceLife + time.Minute)
	if err := a.Proves(t.Context(), other.id, n, other.proves(t, other.id, n)); !fault.Is(err, fault.Unauthentic) || !strings.Contains(err.Error(), "expired") {
		t.Errorf("expired: %v", err)
	}
	last := device(t, a, d.id)
	if err := a.Revoke(t.Context(), d.id); err != nil {
		t.Fatal(err)
	}
	if err := a.Proves(t.Context(), d.id, n, last.proves(t, d.id, n)); !fault.Is(err, fault.Unauthentic) || !strings.Contains(err.Error(), "offboarded") {
		t.Errorf("revoked: %v", err)
	}
}

// FuzzProves has hosts say what they like, a proof from another time to begin
// with: none of it proves anything, and each is refused as such.
func FuzzProves(f *testing.F) {
	a, _ := open(f, f.TempDir())
	d := device(f, a, "device-1")
	f.Add(d.proves(f, d.id, deploy.NewNonce()))
	f.Add(deploy.Proof{Certificate: d.cert.Raw, Signature: d.cert.Signature}.String())
	f.Add(deploy.Proof{Certificate: d.cert.RawTBSCertificate}.String() + "AA")
	n := deploy.NewNonce()
	f.Fuzz(func(t *testing.T, text string) {
		if err := a.Proves(t.Context(), d.id, n, text); !fault.Is(err, fault.Unauthentic) {
			t.Errorf("%q: %v", text, err)
		}
	})
}
