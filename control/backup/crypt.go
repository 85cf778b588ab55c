package backup

import (
	"bufio"
	"bytes"
	"io"
	"strings"

	"filippo.io/age"
	"filippo.io/age/armor"

	"komainu/fault"
)

// ageHead is how an encrypted file begins.
const ageHead = "age-encryption.org/"

// Lock says for whom a backup is encrypted: with a passphrase, or for public
// keys ("age1…"). Both empty: not at all.
type Lock struct {
	Passphrase string
	Recipients []string
}

// Encrypt returns a writer whose content only the owners of the lock can read.
// It has to be closed.
func (l Lock) Encrypt(w io.Writer) (io.WriteCloser, error) {
	var recipients []age.Recipient
	switch {
	case l.Passphrase != "" && len(l.Recipients) > 0:
		return nil, fault.New(fault.Invalid, "encrypt with a passphrase or for recipients, not both")
	case l.Passphrase != "":
		r, err := age.NewScryptRecipient(l.Passphrase)
		if err != nil {
			return nil, fault.New(fault.Invalid, "the passphrase: %w", err)
		}
		recipients = append(recipients, r)
	case len(l.Recipients) > 0:
		list, err := age.ParseRecipients(strings.NewReader(strings.Join(l.Recipients, "\n")))
		if err != nil {
			return nil, fault.New(fault.Invalid, "a recipient begins with age1: %w", err)
		}
		recipients = list
	default:
		return plain{w}, nil
	}
	return age.Encrypt(w, recipients...)
}

type plain struct{ io.Writer }

// Close implements io.Closer.
func (plain) Close() error { return nil }

// Key opens an encrypted backup: the passphrase, or the text of a file with
// secret keys ("AGE-SECRET-KEY-1…").
type Key struct {
	Passphrase string
	Identities string
}

// Decrypt returns the content of a file that is encrypted or not. Errors:
// fault.Invalid when the key is missing or does not fit.
func (k Key) Decrypt(r io.Reader) (io.Reader, error) {
	b := bufio.NewReader(r)
	head, _ := b.Peek(len(armor.Header)) // a shorter file is no backup either way
	switch {
	case bytes.HasPrefix(head, []byte(armor.Header)):
		return k.open(armor.NewReader(b))
	case bytes.HasPrefix(head, []byte(ageHead)):
		return k.open(b)
	}
	return b, nil
}

func (k Key) open(r io.Reader) (io.Reader, error) {
	var identities []age.Identity
	if k.Passphrase != "" {
		id, err := age.NewScryptIdentity(k.Passphrase)
		if err != nil {
			return nil, fault.New(fault.Invalid, "the passphrase: %w", err)
		}
		identities = append(identities, id)
	}
	if k.Identities != "" {
		list, err := age.ParseIdentities(strings.NewReader(k.Identities))
		if err != nil {
			return nil, fault.New(fault.Invalid, "the file of secret keys: %w", err)
		}
		identities = append(identities, list...)
	}
	if identities == nil {
		return nil, fault.New(fault.Invalid, "the backup is encrypted; name a passphrase with --passphrase-file or a secret key with --identity")
	}
	plain, err := age.Decrypt(r, identities...)
	if err != nil {
		return nil, fault.New(fault.Invalid, "the backup cannot be decrypted with this key: %w", err)
	}
	return plain, nil
}
