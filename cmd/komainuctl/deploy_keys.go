package main

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"komainu/deploy/remote"
	"komainu/fault"
)

// usual are the keys that ssh tries by itself.
var usual = []string{"id_ed25519", "id_ecdsa", "id_rsa"}

// openKeys opens the keys to log in with: those of --identity and of the SSH
// agent; without --identity the usual ones too, as ssh does it.
func (d *deployment) openKeys() (ssh.AuthMethod, func(), error) {
	agent, hangUp, err := remote.Agent()
	if err != nil {
		agent, hangUp = nil, func() error { return nil } // other keys may do
	}
	var files []ssh.Signer
	for _, file := range d.options.identities {
		list, err := d.identity(file)
		if err != nil {
			return nil, nil, err
		}
		files = append(files, list...)
	}
	if len(d.options.identities) == 0 {
		if files, err = d.usualKeys(agent != nil); err != nil {
			return nil, nil, err
		}
	}
	if agent == nil {
		if len(files) == 0 {
			return nil, nil, fault.New(fault.Invalid, "there is no key to log in with: no SSH agent runs, and ~/.ssh has none; name one with --identity, or start an agent and add one with ssh-add")
		}
		return ssh.PublicKeys(files...), func() {}, nil
	}
	named := len(d.options.identities) > 0
	both := func() ([]ssh.Signer, error) {
		signers, err := agent()
		switch {
		case err != nil && len(files) > 0:
			return files, nil
		case named: // sshd counts how many keys are tried: these are the right ones
			return append(slices.Clone(files), signers...), err
		}
		return append(signers, files...), err
	}
	return ssh.PublicKeysCallback(both), func() { _ = hangUp() }, nil
}

// usualKeys are those in ~/.ssh. Where an agent runs, nobody is asked for
// passphrases.
func (d *deployment) usualKeys(agent bool) ([]ssh.Signer, error) {
	home, err := os.UserHomeDir()
	if err != nil {
		return nil, nil // who has no home has no keys there
	}
	var signers []ssh.Signer
	for _, name := range usual {
		file := filepath.Join(home, ".ssh", name)
		text, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) || err == nil && agent && locked(text) {
			continue
		}
		list, err := d.identity(file)
		if err != nil {
			return nil, err
		}
		signers = append(signers, list...)
	}
	return signers, nil
}

// identity reads a private key, and the certificate beside it when there is
// one.
func (d *deployment) identity(file string) ([]ssh.Signer, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "read the key")
	}
	signer, err := remote.Key(text, "")
	if err != nil && locked(text) {
		if d.terminal == nil {
			return nil, fault.New(fault.Invalid, "%s needs its passphrase, and there is no terminal to ask for it; add it to an SSH agent with ssh-add", file)
		}
		var passphrase string
		if passphrase, err = d.terminal.secret("passphrase of " + file + ": "); err == nil {
			signer, err = remote.Key(text, passphrase)
		}
	}
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "key %s", file)
	}
	beside, err := os.ReadFile(file + "-cert.pub")
	if errors.Is(err, fs.ErrNotExist) {
		return []ssh.Signer{signer}, nil
	}
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "read the certificate")
	}
	certified, err := remote.Certified(signer, beside)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "%s-cert.pub", file)
	}
	return []ssh.Signer{certified, signer}, nil
}

// locked reports whether a key needs a passphrase.
func locked(text []byte) bool {
	_, err := ssh.ParseRawPrivateKey(text)
	_, missing := errors.AsType[*ssh.PassphraseMissingError](err)
	return missing
}

// sudoPassword finds out how users become root, and the password for it.
func (d *deployment) sudoPassword(hosts []target) error {
	ways := []remote.Sudo{"", remote.NoSudo, remote.Passwordless, remote.WithPassword}
	d.sudo = remote.Sudo(d.options.sudo)
	if !slices.Contains(ways, d.sudo) {
		return fault.New(fault.Invalid, "--sudo %q: want none, passwordless or password", d.options.sudo)
	}
	if d.sudo == "" {
		d.sudo = remote.Passwordless // root does without
	}
	isRoot := func(e target) bool { return e.User == "root" || e.User == "" && d.options.user == "root" }
	if d.sudo != remote.WithPassword || !slices.ContainsFunc(hosts, func(e target) bool { return !isRoot(e) }) {
		return nil
	}
	var err error
	switch {
	case d.options.passwordFile != "":
		var f *os.File
		if f, err = os.Open(d.options.passwordFile); err != nil {
			return fault.Wrap(fault.Invalid, err, "read the password for sudo")
		}
		defer f.Close()
		var text []byte
		text, err = io.ReadAll(io.LimitReader(f, maxInput))
		d.password, _, _ = strings.Cut(string(text), "\n")
	case d.terminal != nil:
		d.password, err = d.terminal.secret("password for sudo on the hosts: ")
	default:
		return fault.New(fault.Invalid, "--sudo password needs --sudo-password-file where there is no terminal to ask at")
	}
	return fault.Wrap(fault.Invalid, err, "read the password for sudo")
}
