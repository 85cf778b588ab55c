package notify

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

// keyFile holds the key that secrets are sealed with, beside the other keys.
const keyFile = "notify.key"

// sealer seals secrets with AES-256-GCM. The id of the notification is bound
// to each, so that a sealed secret does not open in another row.
type sealer struct{ aead cipher.AEAD }

// openSealer reads the key or makes it on the first start.
func openSealer(dir string) (*sealer, error) {
	name := filepath.Join(dir, keyFile)
	key, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
		key = make([]byte, 32)
		_, _ = rand.Read(key) // ends the program when the system has no randomness
		err = atomicfile.Write(name, key, 0o600)
	}
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil || len(key) != 32 {
		return nil, fault.New(fault.Invalid, "%s does not hold a key of 32 bytes; restore it from a backup, or delete it and enter the secrets of the notifications again", name)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("key of notifications: %w", err)
	}
	return &sealer{aead}, nil
}

func (s *sealer) seal(id, secret string) []byte {
	if secret == "" {
		return nil
	}
	return s.aead.Seal(nil, nil, []byte(secret), []byte(id))
}

func (s *sealer) open(id string, sealed []byte) (string, error) {
	if len(sealed) == 0 {
		return "", nil
	}
	secret, err := s.aead.Open(nil, nil, sealed, []byte(id))
	if err != nil {
		return "", fault.New(fault.Conflict, "the secret cannot be opened with this key; enter it again")
	}
	return string(secret), nil
}
