package remote_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"crypto/rand"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"komainu/deploy"
	"komainu/deploy/remote"
)

func TestKnownHosts(t *testing.T) {
	file := filepath.Join(t.TempDir(), "new", "known_hosts")
	k, err := remote.OpenKnownHosts(file, "/nonexistent")
	if err != nil {
		t.Fatal(err)
	}
	key, other := newKey(t).PublicKey(), newKey(t).PublicKey()
	wantReason(t, k.Check("web:22", key), deploy.HostKeyUnknown, ssh.FingerprintSHA256(key))
	if offered, ok := k.Offered("web:22"); !ok || !slices.Equal(offered.Marshal(), key.Marshal()) || k.Algorithms("web:22") != nil {
		t.Error("the offered key is forgotten, or known")
	}
	if err := k.Add("web:22", key); err != nil {
		t.Fatal(err)
	}
	if err := k.Add("[2001:db8::5]:2222", other); err != nil {
		t.Fatal(err)
	}
	// Somebody else reads it too.
	text, err := os.ReadFile(file)
	if err != nil || !strings.HasPrefix(string(text), "web ssh-ed25519 AAAA") || !strings.Contains(string(text), "\n[2001:db8::5]:2222 ssh-ed25519 AAAA") {
		t.Errorf("%s %v", text, err)
	}
	for range 2 {
		if err := k.Check("web:22", key); err != nil {
			t.Error(err)
		}
		wantReason(t, k.Check("web:22", other), deploy.HostKeyChanged, ssh.FingerprintSHA256(key), ssh.FingerprintSHA256(other), file+":1")
		wantReason(t, k.Check("web:2222", key), deploy.HostKeyUnknown)
		if got := k.Algorithms("web:22"); !slices.Equal(got, []string{ssh.KeyAlgoED25519}) {
			t.Error(got)
		}
		if k, err = remote.OpenKnownHosts(file); err != nil {
			t.Fatal(err)
		}
	}
}

// Hashed names, patterns, authorities and revoked keys count as for ssh.
func TestKnownHostsOfSSH(t *testing.T) {
	ca, key, bad := newKey(t), newKey(t), newKey(t)
	line := func(k ssh.Signer) string { return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k.PublicKey()))) }
	file := filepath.Join(t.TempDir(), "known_hosts")
	text := "# a comment\n" + knownhosts.HashHostname("db") + " " + line(key) + "\n@cert-authority *.example.net " + line(ca) + "\n@revoked * " + line(bad)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	k, err := remote.OpenKnownHosts(file)
	if err != nil {
		t.Fatal(err)
	}
	certificate := func(authority ssh.Signer, name string) *ssh.Certificate {
		c := &ssh.Certificate{Key: newKey(t).PublicKey(), CertType: ssh.HostCert, ValidPrincipals: []string{name}, ValidBefore: uint64(time.Now().Add(time.Hour).Unix())}
		if err := c.SignCert(rand.Reader, authority); err != nil {
			t.Fatal(err)
		}
		return c
	}
	if err := k.Check("db:22", key.PublicKey()); err != nil {
		t.Error(err)
	}
	if err := k.Check("web.example.net:22", certificate(ca, "web.example.net")); err != nil {
		t.Error(err)
	}
	wantReason(t, k.Check("web.example.net:22", certificate(ca, "other.example.net")), deploy.HostKeyUnknown)
	wantReason(t, k.Check("web.example.org:22", certificate(ca, "web.example.org")), deploy.HostKeyUnknown)
	wantReason(t, k.Check("db:22", certificate(ca, "db")), deploy.HostKeyChanged)
	wantReason(t, k.Check("new:22", bad.PublicKey()), deploy.HostKeyChanged, "revoked")
	if got := k.Algorithms("web.example.net:22"); len(got) < 7 || got[0] != ssh.CertAlgoED25519v01 {
		t.Error(got)
	}
	// A new name is hashed when the others are.
	if err := k.Add("mail:22", key.PublicKey()); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(after), "\n|1|") || strings.Contains(string(after), "mail") || k.Check("mail:22", key.PublicKey()) != nil {
		t.Errorf("%s %v", after, err)
	}
	if err := os.WriteFile(file, []byte("web ssh-ed25519 AAAA\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := remote.OpenKnownHosts(file); err == nil || !strings.Contains(err.Error(), file+":1") {
		t.Error(err)
	}
}
