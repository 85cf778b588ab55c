//go:build packager

// Command packager makes a package with nfpm, and signs packages and files.
// It is nfpm's own command but for the signatures: those of the command hold
// the time of the run and a random salt, these are made of the bytes, the key
// and the time of the commit alone.
//
//	packager -config nfpm.yaml -format deb -o FOLDER [-key FILE] -at SECONDS
//	packager -key FILE -at SECONDS FILE...
//
// It is built with the modules of dev/tools.mod, so that what it needs is no
// dependency of the product.
package main

import (
	"bytes"
	"crypto"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/deb"
	_ "github.com/goreleaser/nfpm/v2/rpm"
)

// envPassphrase opens a key that is locked.
const envPassphrase = "KOMAINU_SIGN_PASSPHRASE"

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "packager:", err)
		os.Exit(1)
	}
}

func run() error {
	config := flag.String("config", "", "what nfpm builds from")
	format := flag.String("format", "", "deb or rpm")
	out := flag.String("o", ".", "folder for the package")
	key := flag.String("key", "", "OpenPGP key to sign with")
	at := flag.Int64("at", 0, "time of the signatures, seconds since 1970")
	flag.Parse()
	var s *signer
	if *key != "" {
		var err error
		if s, err = openSigner(*key, time.Unix(*at, 0)); err != nil {
			return fmt.Errorf("key %s: %w", *key, err)
		}
	}
	if *config != "" {
		name, err := pack(*config, *format, *out, s)
		if err != nil {
			return err
		}
		fmt.Println(name)
	}
	for _, name := range flag.Args() {
		if s == nil {
			return errors.New("a key is needed to sign")
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		signature, err := s.armored(bytes.NewReader(text))
		if err != nil {
			return fmt.Errorf("sign %s: %w", name, err)
		}
		if err := os.WriteFile(name+".asc", signature, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// pack makes a package and returns its name.
func pack(config, format, dir string, s *signer) (string, error) {
	c, err := nfpm.ParseFile(config)
	if err != nil {
		return "", err
	}
	info, err := c.Get(format)
	if err != nil {
		return "", err
	}
	info = nfpm.WithDefaults(info)
	packager, err := nfpm.Get(format)
	if err != nil {
		return "", err
	}
	if s != nil {
		info.Deb.Signature.Type = "origin" // the member _gpgorigin
		info.Deb.Signature.SignFn = s.armored
		info.RPM.Signature.SignFn = s.binary
	}
	info.Target = filepath.Join(dir, packager.ConventionalFileName(info))
	var b bytes.Buffer
	if err := packager.Package(info, &b); err != nil {
		return "", err
	}
	return info.Target, os.WriteFile(info.Target, b.Bytes(), 0o644)
}

// signer makes detached signatures.
type signer struct {
	key    *openpgp.Entity
	config *packet.Config
}

// openSigner reads a key. Its signatures have the time of the commit, or that
// of the key where it is younger: programs refuse a signature that is older
// than its key. Only RSA gives the same signature for the same bytes and is
// known to the rpm of every supported distribution.
func openSigner(name string, at time.Time) (*signer, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	read := openpgp.ReadKeyRing
	if bytes.HasPrefix(bytes.TrimSpace(text), []byte("-----BEGIN")) {
		read = openpgp.ReadArmoredKeyRing
	}
	keys, err := read(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	if len(keys) != 1 {
		return nil, fmt.Errorf("it holds %d keys, and one is wanted", len(keys))
	}
	if created := keys[0].PrimaryKey.CreationTime; at.Before(created) {
		at = created
	}
	salted := false
	s := &signer{keys[0], &packet.Config{
		DefaultHash: crypto.SHA256, Time: func() time.Time { return at }, NonDeterministicSignaturesViaNotation: &salted,
	}}
	key, ok := s.key.SigningKey(at)
	switch {
	case !ok || key.PrivateKey == nil:
		return nil, errors.New("no part of it can sign, or it has expired; it has to be a secret key")
	case key.PrivateKey.PubKeyAlgo != packet.PubKeyAlgoRSA && key.PrivateKey.PubKeyAlgo != packet.PubKeyAlgoRSASignOnly:
		return nil, errors.New("it is not an RSA key: the rpm of older distributions knows no other, and other signatures differ from run to run")
	case key.PrivateKey.Encrypted:
		if err := key.PrivateKey.Decrypt([]byte(os.Getenv(envPassphrase))); err != nil {
			return nil, fmt.Errorf("%s does not open it: %w", envPassphrase, err)
		}
	}
	return s, nil
}

func (s *signer) armored(data io.Reader) ([]byte, error) {
	var b bytes.Buffer
	err := openpgp.ArmoredDetachSign(&b, s.key, data, s.config)
	return b.Bytes(), err
}

func (s *signer) binary(data io.Reader) ([]byte, error) {
	var b bytes.Buffer
	err := openpgp.DetachSign(&b, s.key, data, s.config)
	return b.Bytes(), err
}
