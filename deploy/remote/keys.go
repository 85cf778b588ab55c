package remote

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"komainu/fault"
)

// Key reads a private key in PEM or OpenSSH form. Errors: fault.Invalid.
func Key(text []byte, passphrase string) (ssh.Signer, error) {
	var signer ssh.Signer
	var err error
	if passphrase == "" {
		signer, err = ssh.ParsePrivateKey(text)
	} else {
		signer, err = ssh.ParsePrivateKeyWithPassphrase(text, []byte(passphrase))
	}
	if _, ok := errors.AsType[*ssh.PassphraseMissingError](err); ok {
		return nil, fault.New(fault.Invalid, "the key is protected by a passphrase; give it too")
	}
	if err != nil {
		return nil, fault.New(fault.Invalid, "this is no private key that can be used, or the passphrase is wrong; paste the whole file, with its first and last line")
	}
	return signer, nil
}

// Agent returns the keys of the agent at SSH_AUTH_SOCK. The connection to it
// is closed by the second result.
func Agent() (keys func() ([]ssh.Signer, error), hangUp func() error, err error) {
	socket := os.Getenv("SSH_AUTH_SOCK")
	if socket == "" {
		return nil, nil, fault.New(fault.NotFound, "no SSH agent runs: SSH_AUTH_SOCK is not set; start one with eval $(ssh-agent) and add your key with ssh-add, or name a key with --identity")
	}
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, nil, fault.Wrap(fault.Unavailable, err, "ask the SSH agent")
	}
	return agent.NewClient(conn).Signers, conn.Close, nil
}

// Certified joins a key with the certificate for it, as ssh-keygen writes it.
// Errors: fault.Invalid.
func Certified(key ssh.Signer, text []byte) (ssh.Signer, error) {
	public, _, _, _, err := ssh.ParseAuthorizedKey(text)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "this is no SSH certificate")
	}
	certificate, ok := public.(*ssh.Certificate)
	if !ok {
		return nil, fault.New(fault.Invalid, "this is a public key, not an SSH certificate")
	}
	signer, err := ssh.NewCertSigner(certificate, key)
	return signer, fault.Wrap(fault.Invalid, err, "the certificate is for another key")
}

// skew is how far the clock of a host may be behind or ahead of ours for a
// certificate to be good there.
const skew = time.Minute

// Purpose is what a host lets the bearer of a certificate do there.
type Purpose int

// The purposes.
const (
	ToRun  Purpose = iota // commands, without a terminal and without forwarding
	ToPass                // on to other hosts, and no command
)

// permissions are the extensions and critical options of a certificate.
func (p Purpose) permissions() ssh.Permissions {
	if p == ToPass {
		return ssh.Permissions{
			CriticalOptions: map[string]string{"force-command": "false"}, // a session ends at once; connections onwards are none
			Extensions:      map[string]string{"permit-port-forwarding": ""},
		}
	}
	return ssh.Permissions{}
}

// Issue makes a key with a certificate that a CA signs, for one user and one
// purpose. It is good for a login that begins before lasts is over.
func Issue(ca ssh.Signer, purpose Purpose, user string, lasts time.Duration, now time.Time) (ssh.Signer, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		return nil, err
	}
	var serial [8]byte
	_, _ = rand.Read(serial[:]) // ends the program when the system has no randomness
	cert := &ssh.Certificate{
		Key: key, Serial: binary.BigEndian.Uint64(serial[:]), CertType: ssh.UserCert, KeyId: "komainu", ValidPrincipals: []string{user},
		ValidAfter: uint64(now.Add(-skew).Unix()), ValidBefore: uint64(now.Add(lasts + skew).Unix()),
		Permissions: purpose.permissions(),
	}
	if err := cert.SignCert(rand.Reader, ca); err != nil {
		return nil, fmt.Errorf("sign an SSH certificate: %w", err)
	}
	signer, err := ssh.NewSignerFromSigner(crypto.Signer(private))
	if err != nil {
		return nil, err
	}
	return ssh.NewCertSigner(cert, signer)
}

// AuthorizedKey is a public key as it stands in authorized_keys.
func AuthorizedKey(key ssh.PublicKey) string { return string(ssh.MarshalAuthorizedKey(key)) }
