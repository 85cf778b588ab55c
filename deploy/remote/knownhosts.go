package remote

import (
	"bytes"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"komainu/deploy"
	"komainu/fault"
)

// KnownHosts are the keys in files like ~/.ssh/known_hosts, hashed names,
// authorities and revoked keys included. It is a HostKeys.
type KnownHosts struct {
	files []string // the first one gets new keys

	mu          sync.Mutex
	check       ssh.HostKeyCallback
	hashed      bool // names are
	authorities map[place]bool
	offered     map[string]ssh.PublicKey
}

// place is a line of a file.
type place struct {
	file string
	line int
}

// OpenKnownHosts reads files in the form of known_hosts. Those that do not
// exist have no keys. New ones are written to the first.
func OpenKnownHosts(files ...string) (*KnownHosts, error) {
	k := &KnownHosts{files: files, offered: map[string]ssh.PublicKey{}}
	return k, k.load()
}

// load reads the files. The caller holds mu, or is alone.
func (k *KnownHosts) load() error {
	var there []string
	k.authorities = map[place]bool{}
	for _, file := range k.files {
		text, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fault.Wrap(fault.Invalid, err, "read the known hosts")
		}
		there = append(there, file)
		number := 0
		for line := range bytes.Lines(text) {
			number++
			line = bytes.TrimSpace(line)
			k.hashed = k.hashed || bytes.HasPrefix(line, []byte("|1|"))
			if bytes.HasPrefix(line, []byte("@cert-authority")) {
				k.authorities[place{file, number}] = true
			}
		}
	}
	check, err := knownhosts.New(there...)
	if err != nil {
		return fault.Wrap(fault.Invalid, err, "read the known hosts")
	}
	k.check = check
	return nil
}

// nowhere stands for the address behind a name, which does not count.
var nowhere = &net.TCPAddr{IP: net.IPv4zero}

// Check implements HostKeys.
func (k *KnownHosts) Check(address string, key ssh.PublicKey) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	err := k.check(address, nowhere, key)
	if certificate, ok := key.(*ssh.Certificate); ok && err != nil {
		// No authority of ours has signed it: it is as good as the key in it.
		key = certificate.Key
		err = k.check(address, nowhere, key)
	}
	if err == nil {
		return nil
	}
	offers := key.Type() + " " + ssh.FingerprintSHA256(key)
	if revoked, ok := errors.AsType[*knownhosts.RevokedError](err); ok {
		return deploy.Failf(deploy.HostKeyChanged, "%s is revoked in %s:%d", offers, revoked.Revoked.Filename, revoked.Revoked.Line)
	}
	other, ok := errors.AsType[*knownhosts.KeyError](err)
	if !ok {
		return deploy.Failf(deploy.ConnectorFailed, "check the host key: %v", err)
	}
	known := k.plain(other)
	if len(known) == 0 {
		k.offered[address] = key
		return deploy.Fail(deploy.HostKeyUnknown, offers)
	}
	return deploy.Failf(deploy.HostKeyChanged, "offered is %s, known is %s %s from %s:%d", offers, known[0].Key.Type(), ssh.FingerprintSHA256(known[0].Key), known[0].Filename, known[0].Line)
}

// plain returns the keys of hosts in an error, which has those of authorities
// too.
func (k *KnownHosts) plain(err *knownhosts.KeyError) []knownhosts.KnownKey {
	return slices.DeleteFunc(slices.Clone(err.Want), func(w knownhosts.KnownKey) bool { return k.authorities[place{w.Filename, w.Line}] })
}

// Algorithms implements HostKeys.
func (k *KnownHosts) Algorithms(address string) []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var list []string
	if len(k.authorities) > 0 {
		list = []string{
			ssh.CertAlgoED25519v01, ssh.CertAlgoECDSA256v01, ssh.CertAlgoECDSA384v01, ssh.CertAlgoECDSA521v01, ssh.CertAlgoRSASHA512v01, ssh.CertAlgoRSASHA256v01,
		}
	}
	// No host has this key: the error says what is known.
	var known []knownhosts.KnownKey
	if other, ok := errors.AsType[*knownhosts.KeyError](k.check(address, nowhere, noKey{})); ok {
		known = k.plain(other)
	}
	if len(known) == 0 {
		if list == nil {
			return nil
		}
		return append(list, hostKeyAlgorithms...)
	}
	for _, algorithm := range hostKeyAlgorithms {
		kind := algorithm
		if kind == ssh.KeyAlgoRSASHA256 || kind == ssh.KeyAlgoRSASHA512 {
			kind = ssh.KeyAlgoRSA
		}
		if slices.ContainsFunc(known, func(w knownhosts.KnownKey) bool { return w.Key.Type() == kind }) {
			list = append(list, algorithm)
		}
	}
	return list
}

// noKey is a key that nobody has.
type noKey struct{}

func (noKey) Type() string                        { return "none" }
func (noKey) Marshal() []byte                     { return nil }
func (noKey) Verify([]byte, *ssh.Signature) error { return errors.New("nothing fits no key") }

// Offered returns the key that a host has shown and that was not known.
func (k *KnownHosts) Offered(address string) (ssh.PublicKey, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	key, ok := k.offered[address]
	return key, ok
}

// Add writes down the key of a host. It replaces none.
func (k *KnownHosts) Add(address string, key ssh.PublicKey) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	name := knownhosts.Normalize(address)
	if k.hashed {
		name = knownhosts.HashHostname(name)
	}
	line := name + " " + strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) + "\n"
	if err := appendLine(k.files[0], line); err != nil {
		return fault.Wrap(fault.Unavailable, err, "keep the host key of %s", address)
	}
	delete(k.offered, address)
	return k.load()
}

// appendLine adds a line to a file that others may add to at the same time,
// and that may lack its last line break.
func appendLine(file, line string) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil && info.Size() > 0 {
		last := make([]byte, 1)
		if _, err = f.ReadAt(last, info.Size()-1); err == nil && last[0] != '\n' {
			line = "\n" + line
		}
	}
	if err == nil {
		_, err = f.WriteString(line)
	}
	return errors.Join(err, f.Close())
}
