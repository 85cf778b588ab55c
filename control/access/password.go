package access

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"

	"komainu/fault"
)

// Hashing is the cost of a password hash. A stored hash carries its own, so
// the cost can rise later.
type Hashing struct {
	Passes  uint32
	Memory  uint32 // KiB
	Threads uint8
}

// DefaultHashing is the second recommendation of RFC 9106: 64 MiB, three
// passes.
var DefaultHashing = Hashing{Passes: 3, Memory: 64 << 10, Threads: 4}

// Bounds of a password, in characters. Longer is better than stranger.
const (
	minPassword = 12
	maxPassword = 256
)

// atOnce bounds how many passwords are hashed at the same time, so that
// sign-ins cannot take the memory of the process.
const atOnce = 2

type hasher struct {
	cost  Hashing
	slots chan struct{}
	// nobody is the hash of a password that no one has: a sign-in with an
	// unknown name takes as long as one with a wrong password.
	nobody string
}

func newHasher(cost Hashing) *hasher {
	h := &hasher{cost: cost, slots: make(chan struct{}, atOnce)}
	h.nobody = h.encode(oneTimePassword(), salt())
	return h
}

func salt() []byte {
	b := make([]byte, 16)
	// crypto/rand ends the program when the system has no randomness.
	_, _ = rand.Read(b)
	return b
}

func (h *hasher) encode(password string, salt []byte) string {
	key := argon2.IDKey([]byte(password), salt, h.cost.Passes, h.cost.Memory, h.cost.Threads, 32)
	b64 := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, h.cost.Memory, h.cost.Passes, h.cost.Threads, b64(salt), b64(key))
}

// hash returns the hash of a password in the usual text form.
func (h *hasher) hash(ctx context.Context, password string) (string, error) {
	if err := h.take(ctx); err != nil {
		return "", err
	}
	defer func() { <-h.slots }()
	return h.encode(password, salt()), nil
}

// matches reports whether the password has this hash.
func (h *hasher) matches(ctx context.Context, password, encoded string) (bool, error) {
	var version int
	var c Hashing
	parts := strings.Split(encoded, "$")
	if len(parts) != 6 || parts[1] != "argon2id" {
		return false, fmt.Errorf("password hash of an unknown kind")
	}
	if _, err := fmt.Sscanf(parts[2]+" "+parts[3], "v=%d m=%d,t=%d,p=%d", &version, &c.Memory, &c.Passes, &c.Threads); err != nil || version != argon2.Version {
		return false, fmt.Errorf("password hash with unknown parameters %s %s", parts[2], parts[3])
	}
	salt, err := base64.RawStdEncoding.DecodeString(parts[4])
	if err != nil {
		return false, fmt.Errorf("salt of a password hash: %w", err)
	}
	want, err := base64.RawStdEncoding.DecodeString(parts[5])
	if err != nil {
		return false, fmt.Errorf("password hash: %w", err)
	}
	if err := h.take(ctx); err != nil {
		return false, err
	}
	defer func() { <-h.slots }()
	got := argon2.IDKey([]byte(password), salt, c.Passes, c.Memory, c.Threads, uint32(len(want)))
	return subtle.ConstantTimeCompare(got, want) == 1, nil
}

func (h *hasher) take(ctx context.Context) error {
	select {
	case h.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fault.New(fault.Unavailable, "too many sign-ins at once; try again")
	}
}

// checkPassword says what a new password lacks.
func checkPassword(password, name string) error {
	n := len([]rune(password))
	switch {
	case n < minPassword:
		return fault.New(fault.Invalid, "the password has %d characters; it needs at least %d", n, minPassword)
	case n > maxPassword:
		return fault.New(fault.Invalid, "the password has %d characters; the limit is %d", n, maxPassword)
	case strings.Contains(strings.ToLower(password), strings.ToLower(name)):
		return fault.New(fault.Invalid, "the password contains the name of the user")
	case strings.Count(password, password[:1]) == len(password):
		return fault.New(fault.Invalid, "the password is one character repeated")
	}
	return nil
}

// oneTimePassword returns 20 characters in groups of five, without those that
// are mistaken for each other: 98 bits.
func oneTimePassword() string {
	const letters = "abcdefghjkmnpqrstuvwxyz23456789" // 31
	var b strings.Builder
	for i := 0; i < 20; {
		var c [1]byte
		_, _ = rand.Read(c[:])
		if c[0] >= 31*8 { // keep every letter equally likely
			continue
		}
		if i > 0 && i%5 == 0 {
			b.WriteByte('-')
		}
		b.WriteByte(letters[c[0]%31])
		i++
	}
	return b.String()
}

// digest is how a secret with enough randomness of its own is stored.
func digest(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}
