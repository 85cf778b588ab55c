package enrol

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"komainu/event"
	"komainu/fault"
	"komainu/internal/atomicfile"
)

// Lifetimes of certificates.
const (
	caLife     = 10 * 365 * 24 * time.Hour
	serverLife = 90 * 24 * time.Hour
	deviceLife = 7 * 24 * time.Hour
	// renewGrace lets a device that slept renew a certificate that has expired:
	// its key has not left the host, and revocation is looked up.
	renewGrace = 30 * 24 * time.Hour
	// backdate forgives clocks that are a little behind.
	backdate = 5 * time.Minute
)

// deviceURI is the form of the subject alternative name that says which
// device a certificate belongs to.
const deviceURI = "komainu:device:"

// authority is the CA: its certificate and its key.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func serial() *big.Int {
	// 126 random bits: positive, at most 20 octets (RFC 5280, 4.1.2.2).
	limit := new(big.Int).Lsh(big.NewInt(1), 126)
	n, err := rand.Int(rand.Reader, limit)
	if err != nil {
		panic(err) // crypto/rand does not fail
	}
	return n.Add(n, big.NewInt(1))
}

// openCA reads the CA or makes it on the first start.
func openCA(dir string, now time.Time) (*authority, error) {
	certFile, keyFile := filepath.Join(dir, caCert), filepath.Join(dir, caKey)
	if _, err := os.Stat(certFile); errors.Is(err, fs.ErrNotExist) {
		return createCA(certFile, keyFile, now)
	}
	return readCA(certFile, keyFile)
}

func readCA(certFile, keyFile string) (*authority, error) {
	certPEM, err := os.ReadFile(certFile)
	if err != nil {
		return nil, err
	}
	cert, err := parseCert(certPEM)
	if err != nil {
		return nil, fault.New(fault.Invalid, "%s: %w", certFile, err)
	}
	key, err := readKey(keyFile)
	if err != nil {
		return nil, err
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return nil, fault.New(fault.Invalid, "%s and %s do not belong together; restore both from one backup", certFile, keyFile)
	}
	return &authority{cert, key, certPEM}, nil
}

func createCA(certFile, keyFile string, now time.Time) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "Komainu control plane CA"}, NotBefore: now.Add(-backdate), NotAfter: now.Add(caLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	// The key first: a certificate without its key would stop the next start.
	if err := writeKey(keyFile, key); err != nil {
		return nil, err
	}
	a := &authority{cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
	return a, atomicfile.Write(certFile, a.pem, 0o644)
}

// pin identifies the CA: SHA-256 of its public key, hexadecimal.
func (a *authority) pin() string {
	sum := sha256.Sum256(a.cert.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// server issues a certificate for the control plane itself. Its key lives in
// memory alone: a restart makes a new one.
func (a *authority) server(hosts []string, now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "Komainu control plane"}, NotBefore: now.Add(-backdate), NotAfter: now.Add(serverLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else if h != "" {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	// The CA travels too: an agent that enrols knows its hash only.
	return &tls.Certificate{Certificate: [][]byte{der, a.cert.Raw}, PrivateKey: key, Leaf: leaf}, nil
}

// device issues a client certificate for the key of a request.
func (a *authority) device(id event.DeviceID, csr *x509.CertificateRequest, now time.Time) (*x509.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: string(id)}, NotBefore: now.Add(-backdate), NotAfter: now.Add(deviceLife),
		URIs: []*url.URL{{Scheme: "komainu", Opaque: "device:" + string(id)}}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, csr.PublicKey, a.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// deviceOf reads the device from a certificate of ours.
func deviceOf(c *x509.Certificate) (event.DeviceID, bool) {
	for _, u := range c.URIs {
		if s := u.String(); len(s) > len(deviceURI) && s[:len(deviceURI)] == deviceURI {
			return event.DeviceID(s[len(deviceURI):]), true
		}
	}
	return "", false
}

// parseRequest accepts a request for a P-256 key that its sender has.
func parseRequest(text []byte) (*x509.CertificateRequest, error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE REQUEST" || len(rest) > 0 {
		return nil, fault.New(fault.Invalid, "the certificate request is not one PEM block")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fault.New(fault.Invalid, "the certificate request cannot be read: %w", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fault.New(fault.Invalid, "the certificate request is not signed by its own key")
	}
	if key, ok := csr.PublicKey.(*ecdsa.PublicKey); !ok || key.Curve != elliptic.P256() {
		return nil, fault.New(fault.Invalid, "the key of the certificate request is not P-256")
	}
	return csr, nil
}

func parseCert(text []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("no certificate in PEM form")
	}
	return x509.ParseCertificate(block.Bytes)
}

func writeKey(name string, key any) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return atomicfile.Write(name, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
}

func readPKCS8(name string) (any, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, fault.New(fault.Invalid, "%s holds no private key in PEM form", name)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fault.New(fault.Invalid, "%s: %w", name, err)
	}
	return key, nil
}

func readKey(name string) (*ecdsa.PrivateKey, error) {
	key, err := readPKCS8(name)
	if err != nil {
		return nil, fmt.Errorf("read the CA's key: %w", err)
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fault.New(fault.Invalid, "%s is not an ECDSA key", name)
	}
	return ec, nil
}

// openPolicyKey reads the key that signs policies, or makes it.
func openPolicyKey(dir string) (ed25519.PrivateKey, error) {
	name := filepath.Join(dir, "policy.key")
	key, err := readPKCS8(name)
	if errors.Is(err, fs.ErrNotExist) {
		_, fresh, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		return fresh, writeKey(name, fresh)
	}
	if err != nil {
		return nil, fmt.Errorf("read the policy key: %w", err)
	}
	ed, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fault.New(fault.Invalid, "%s is not an Ed25519 key", name)
	}
	return ed, nil
}
