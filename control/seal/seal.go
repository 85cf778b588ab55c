// Package seal keeps secrets that the control plane has to give to others: of
// webhooks, mail servers, connectors. They are sealed with a key beside the
// other keys, so that the database alone gives none of them away.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"komainu/fault"
	"komainu/internal/atomicfile"
)

// Sealer seals secrets with AES-256-GCM. An id is bound to each, so that a
// sealed secret does not open in another place. It is safe for concurrent use.
type Sealer struct{ aead cipher.AEAD }

// Open reads the key NAME.key in a folder, or makes it on the first start.
func Open(dir, name string) (*Sealer, error) {
	file := filepath.Join(dir, name+".key")
	key, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
		key = make([]byte, 32)
		_, _ = rand.Read(key) // ends the program when the system has no randomness
		err = atomicfile.Write(file, key, 0o600)
	}
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil || len(key) != 32 {
		return nil, fault.New(fault.Invalid, "%s does not hold a key of 32 bytes; restore it from a backup, or delete it and enter the secrets again that were sealed with it", file)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", name, err)
	}
	return &Sealer{aead}, nil
}

// Seal seals a secret for the place that an id names. No secret stays none.
func (s *Sealer) Seal(id, secret string) []byte {
	if secret == "" {
		return nil
	}
	return s.aead.Seal(nil, nil, []byte(secret), []byte(id))
}

// Open returns what was sealed for a place. Errors: fault.Conflict when it was
// sealed with another key or for another place.
func (s *Sealer) Open(id string, sealed []byte) (string, error) {
	if len(sealed) == 0 {
		return "", nil
	}
	secret, err := s.aead.Open(nil, nil, sealed, []byte(id))
	if err != nil {
		return "", fault.New(fault.Conflict, "the secret cannot be opened with this key; enter it again")
	}
	return string(secret), nil
}
