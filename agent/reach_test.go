package agent

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"komainu/agent/link"
)

// TestReach: a control plane that does not answer is told from an identity
// that cannot be used.
func TestReach(t *testing.T) {
	cfg := Config{State: t.TempDir()}
	if err := cfg.reach(t.Context(), ""); err != nil {
		t.Errorf("without an identity: %v", err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	id := pretendIdentity(t)
	id.Server = "https://" + listener.Addr().String()
	text, err := json.Marshal(id)
	if err = errors.Join(err, listener.Close(), os.WriteFile(filepath.Join(cfg.State, "identity.json"), text, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := cfg.reach(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("nobody listens: %v", err)
	}
}

// pretendIdentity is one that is its own CA.
func pretendIdentity(t *testing.T) link.Identity {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certificate := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return link.Identity{
		Device: "device", PolicyKey: make(ed25519.PublicKey, ed25519.PublicKeySize), CA: certificate, Certificate: certificate,
		Key: string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})), NotAfter: ca.NotAfter,
	}
}
