package enrol

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"net/http"
	"time"

	"komainu/fault"
)

// challengeLife is how long at most a nonce is good for; at least for half of
// it.
const challengeLife = 4 * time.Minute

// nonces makes the numbers that documents of clouds have to carry. None is
// kept: a number follows from the time and from the key that asks. So a
// document that was made for one key is worth nothing with another one, and
// nobody can fill a memory by asking.
type nonces struct{ key [32]byte }

func newNonces() *nonces {
	n := &nonces{}
	_, _ = rand.Read(n.key[:]) // never fails
	return n
}

// at returns the nonce of a period for a key: ten digits, which is what the
// narrowest of the clouds takes.
func (n *nonces) at(period int64, csr *x509.CertificateRequest) string {
	mac := hmac.New(sha256.New, n.key[:])
	_ = binary.Write(mac, binary.BigEndian, period) // a hash takes everything
	mac.Write(csr.RawSubjectPublicKeyInfo)
	return fmt.Sprintf("%010d", binary.BigEndian.Uint64(mac.Sum(nil))%1e10)
}

func period(now time.Time) int64 { return now.Unix() / int64(challengeLife/2/time.Second) }

// good reports whether a nonce was given out lately for a key.
func (n *nonces) good(nonce string, now time.Time, csr *x509.CertificateRequest) bool {
	for _, p := range []int64{period(now), period(now) - 1} {
		if subtle.ConstantTimeCompare([]byte(nonce), []byte(n.at(p, csr))) == 1 {
			return true
		}
	}
	return false
}

// challenge answers with the nonce for a key.
func (a *Authority) challenge(r *http.Request) (any, error) {
	if from := origin(r.RemoteAddr); !a.failed.allow(from, a.cfg.Now()) {
		return nil, fault.New(fault.Exhausted, "too many failed enrolments from %s; wait a minute", from)
	}
	var req struct {
		CSR string `json:"csr"`
	}
	if err := decode(r, &req); err != nil {
		return nil, err
	}
	csr, err := parseRequest([]byte(req.CSR))
	if err != nil {
		return nil, err
	}
	return map[string]string{"nonce": a.nonces.at(period(a.cfg.Now()), csr)}, nil
}

// admitByEvidence lets a host in that shows a document of its cloud.
func (a *Authority) admitByEvidence(ctx context.Context, reg Registrar, req enrolRequest, csr *x509.CertificateRequest) (identity, error) {
	e := *req.Evidence
	if req.Secret != "" {
		return identity{}, fault.New(fault.Invalid, "show a join token or a document of the cloud, not both")
	}
	if !a.nonces.good(e.Nonce, a.cfg.Now(), csr) {
		return identity{}, fault.New(fault.Unauthentic, "the challenge was not given out for this key, or too long ago; try again")
	}
	e.Pin = a.Pin()
	to, err := reg.Recognize(ctx, e)
	if err != nil {
		return identity{}, err
	}
	to.Evidence = true
	return a.register(ctx, reg, to, "document of "+e.Cloud, req, csr)
}
