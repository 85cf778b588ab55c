package content

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"komainu/fault"
	"komainu/internal/atomicfile"
)

// A key lies in a file that has the key's id for its name. New keys do not
// take the place of old ones: until a new root is on disk the old ones sign,
// and both are there at every moment between.
const keySuffix = ".sealed"

func (r *Repository) keyFile(id string) string {
	return filepath.Join(r.cfg.Keys, id+keySuffix)
}

// keep seals a key beside the others.
func (r *Repository) keep(private ed25519.PrivateKey) (*metadata.Key, error) {
	key, id, err := public(private)
	if err != nil {
		return nil, err
	}
	if err := r.cfg.step("key"); err != nil {
		return nil, err
	}
	text := base64.StdEncoding.EncodeToString(private.Seed())
	return key, full(atomicfile.Write(r.keyFile(id), r.seal.Seal(sealedAs(id), text), 0o600))
}

func sealedAs(id string) string { return "content key " + id }

// public returns what the metadata says of a key.
func public(private ed25519.PrivateKey) (key *metadata.Key, id string, err error) {
	if key, err = metadata.KeyFromPublicKey(private.Public()); err != nil {
		return nil, "", err
	}
	id, err = key.ID()
	return key, id, err
}

// private returns the key with an id; fault.NotFound when it is not here.
func (r *Repository) private(id string) (ed25519.PrivateKey, error) {
	if strings.ContainsAny(id, `/\.`) {
		return nil, fault.New(fault.NotFound, "%q is no id of a key", id)
	}
	sealed, err := os.ReadFile(r.keyFile(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.Wrap(fault.NotFound, err, "a key of the repository is not here")
	}
	if err != nil {
		return nil, err
	}
	text, err := r.seal.Open(sealedAs(id), sealed)
	if err != nil {
		return nil, err
	}
	seed, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(seed) != ed25519.SeedSize {
		return nil, fault.New(fault.Invalid, "%s holds no key; restore it from a backup", r.keyFile(id))
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

// holds reports whether a key of a role is here.
func (r *Repository) holds(role string) bool {
	return slices.ContainsFunc(r.root.Signed.Roles[role].KeyIDs, func(id string) bool {
		_, err := os.Stat(r.keyFile(id))
		return err == nil
	})
}

// signers returns the keys that a root names for a role, as far as they are
// here or among those that a person has brought. There is at least one.
func (r *Repository) signers(root *metadata.RootType, role string, brought ...ed25519.PrivateKey) ([]ed25519.PrivateKey, error) {
	var list []ed25519.PrivateKey
	for _, id := range root.Roles[role].KeyIDs {
		i := slices.IndexFunc(brought, func(k ed25519.PrivateKey) bool {
			_, other, err := public(k)
			return err == nil && other == id
		})
		if i >= 0 {
			list = append(list, brought[i])
			continue
		}
		key, err := r.private(id)
		if fault.Is(err, fault.NotFound) {
			continue // a key that was lost is replaced by a rotation
		}
		if err != nil {
			return nil, err
		}
		list = append(list, key)
	}
	switch {
	case len(list) > 0:
		return list, nil
	case role == metadata.ROOT:
		return nil, fault.New(fault.Denied, "the key of the role root is not on the control plane; bring it: komainu-control content rotate --root-key FILE")
	}
	return nil, fault.New(fault.Denied, "the key of the role %s is not on the control plane; restore the folder %s from a backup, or replace the keys: komainu-control content rotate", role, r.cfg.Keys)
}

// sign signs with all of the keys, in the place of the signatures there are.
func sign[T metadata.Roles](m *metadata.Metadata[T], keys ...ed25519.PrivateKey) error {
	m.ClearSignatures()
	for _, key := range keys {
		s, err := signature.LoadED25519Signer(key)
		if err != nil {
			return err
		}
		if _, err := m.Sign(s); err != nil {
			return err
		}
	}
	return nil
}

// ours reports whether something is signed with a key of the role that is
// here. What somebody has put into the folder is never signed again.
func ours[T metadata.Roles](r *Repository, role string, m *metadata.Metadata[T]) error {
	keys, err := r.signers(&r.root.Signed, role)
	if err != nil {
		return err
	}
	trusted := metadata.Root()
	for _, private := range keys {
		key, _, err := public(private)
		if err != nil {
			return err
		}
		if err := trusted.Signed.AddKey(key, role); err != nil {
			return err
		}
	}
	if err := trusted.VerifyDelegate(role, m); err != nil {
		return fault.Wrap(fault.Invalid, err, "the signature of the role %s", role)
	}
	return nil
}

// RootKeys are root keys that are not kept on the control plane.
type RootKeys struct {
	// Have signs in the place of the one that is missing here.
	Have ed25519.PrivateKey
	// Next becomes the root key and is not kept here. Without it a new one is
	// made and kept.
	Next ed25519.PrivateKey
}

// Rotate replaces the keys of all roles. Clients follow from root to root.
//
// There are two new roots. The first names old and new keys, then everything
// is signed with both, then the second root drops the old ones: a client finds
// something that it can verify at every moment, also after a crash, and the
// next start goes on where it ended. One that was interrupted is ended before
// another begins.
func (r *Repository) Rotate(keys RootKeys) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.rotating() {
		if err := r.endRotation(keys.Have); err != nil {
			return fmt.Errorf("end the rotation that was interrupted: %w", err)
		}
	}
	old, err := r.signers(&r.root.Signed, metadata.ROOT, given(keys.Have)...)
	if err != nil {
		return err
	}
	next, err := r.nextRoot()
	if err != nil {
		return err
	}
	rootKey := keys.Next
	for _, role := range roles {
		private := keys.Next
		if role != metadata.ROOT || private == nil {
			if _, private, err = ed25519.GenerateKey(rand.Reader); err != nil {
				return err
			}
			if _, err := r.keep(private); err != nil {
				return err
			}
		}
		key, _, err := public(private)
		if err != nil {
			return err
		}
		if role == metadata.ROOT {
			rootKey = private
			for _, id := range slices.Clone(next.Signed.Roles[role].KeyIDs) {
				if err := next.Signed.RevokeKey(id, role); err != nil {
					return err
				}
			}
		}
		if err := next.Signed.AddKey(key, role); err != nil {
			return err
		}
	}
	if err := r.putRoot(next, append(old, rootKey)...); err != nil {
		return err
	}
	return r.endRotation(rootKey)
}

func given(key ed25519.PrivateKey) []ed25519.PrivateKey {
	if key == nil {
		return nil
	}
	return []ed25519.PrivateKey{key}
}

// rotating reports whether a rotation has not ended.
func (r *Repository) rotating() bool {
	return slices.ContainsFunc(roles, func(role string) bool { return len(r.root.Signed.Roles[role].KeyIDs) > 1 })
}

// endRotation signs everything with old and new keys, and drops the old ones.
func (r *Repository) endRotation(rootKey ed25519.PrivateKey) error {
	signers, err := r.signers(&r.root.Signed, metadata.ROOT, given(rootKey)...)
	if err != nil {
		return err
	}
	if err := r.publish(r.targets.Signed.Targets); err != nil {
		return err
	}
	next, err := r.nextRoot()
	if err != nil {
		return err
	}
	for _, role := range roles {
		ids := slices.Clone(next.Signed.Roles[role].KeyIDs)
		for _, id := range ids[:len(ids)-1] { // the last one is the newest
			if err := next.Signed.RevokeKey(id, role); err != nil {
				return err
			}
		}
	}
	if err := r.putRoot(next, signers...); err != nil {
		return err
	}
	return r.forgetKeys()
}

// RootKey reports whether a key is the root key of a repository, by the newest
// root in its folder.
func RootKey(dir string, key ed25519.PrivateKey) (bool, error) {
	folder, err := os.OpenRoot(dir)
	if err != nil {
		return false, err
	}
	defer folder.Close()
	_, id, err := public(key)
	if err != nil {
		return false, err
	}
	root, err := newestRoot(&Repository{dir: folder})
	if err != nil || root == nil {
		return false, err
	}
	return slices.Contains(root.Signed.Roles[metadata.ROOT].KeyIDs, id), nil
}

// forgetKeys deletes keys that the root does not name any more.
func (r *Repository) forgetKeys() error {
	entries, err := os.ReadDir(r.cfg.Keys)
	if err != nil {
		return err
	}
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), keySuffix)
		if _, named := r.root.Signed.Keys[id]; !ok || named {
			continue
		}
		if err := errors.Join(r.cfg.step("forget"), os.Remove(filepath.Join(r.cfg.Keys, e.Name()))); err != nil {
			return fmt.Errorf("forget a key: %w", err)
		}
	}
	return nil
}

// keyBlock is the kind of the block that holds a key in a file.
const keyBlock = "PRIVATE KEY"

// NewRootKey makes a key for the role root, and the text of a file that holds
// it (PKCS #8).
func NewRootKey() (ed25519.PrivateKey, []byte, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	return private, pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: der}), nil
}

// ParseRootKey reads what NewRootKey has written.
func ParseRootKey(text []byte) (ed25519.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != keyBlock {
		return nil, fault.New(fault.Invalid, "that is no private key in PEM form")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "read the private key")
	}
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fault.New(fault.Invalid, "the private key is no Ed25519 key")
	}
	return private, nil
}
