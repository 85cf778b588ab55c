package agent

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"komainu/fault"
	"komainu/internal/atomicfile"
	"komainu/policy"
)

// settings holds the last good policy and the local settings, both on disk,
// and what follows from them. It is safe for concurrent use.
type settings struct {
	dir string

	mu      sync.Mutex
	key     ed25519.PublicKey // nil before enrolment
	doc     *policy.Document  // nil before the first policy
	payload []byte            // the bytes that doc was read from
	local   policy.Settings
	now     policy.Effective
	watcher []func(policy.Effective)
}

const (
	localFile  = "local.json"
	policyFile = "policy.json"
)

// openSettings reads both files. A damaged local file is an error, since it
// is the administrator's; a policy that no longer verifies is dropped and
// returned as a warning, since the control plane sends it again.
func openSettings(dir string, key ed25519.PublicKey) (s *settings, warning error, err error) {
	s = &settings{dir: dir, key: key}
	if err := readStrict(filepath.Join(dir, localFile), &s.local); err != nil {
		return nil, nil, err
	}
	if err := s.local.Validate(); err != nil {
		return nil, nil, fault.New(fault.Invalid, "%s: %w", filepath.Join(dir, localFile), err)
	}
	warning = s.loadPolicy()
	s.now = policy.Merge(s.doc, s.local)
	return s, warning, nil
}

func (s *settings) loadPolicy() error {
	if s.key == nil {
		return nil
	}
	var signed policy.Signed
	if err := readStrict(filepath.Join(s.dir, policyFile), &signed); err != nil {
		return err
	}
	if signed.Payload == nil {
		return nil
	}
	doc, err := policy.Open(signed, s.key)
	if err != nil {
		return fmt.Errorf("stored policy: %w", err)
	}
	s.doc, s.payload = doc, signed.Payload
	return nil
}

// readStrict decodes a JSON file; a file that does not exist changes nothing.
func readStrict(name string, v any) error {
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return fault.New(fault.Invalid, "%s cannot be read: %w; it may come from a newer version", name, err)
	}
	return nil
}

// Watch calls f with what is in effect now and after every change, in order.
// f must not call back into settings.
func (s *settings) Watch(f func(policy.Effective)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watcher = append(s.watcher, f)
	f(s.now)
}

// Now returns what is in effect.
func (s *settings) Now() policy.Effective {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// Local returns the local settings.
func (s *settings) Local() policy.Settings {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.local
}

// Managed returns what policy decides.
func (s *settings) Managed() policy.Settings {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.doc == nil {
		return policy.Settings{}
	}
	return s.doc.Managed
}

// Enrolled forgets the policy of a former environment and takes the key of
// the new one.
func (s *settings) Enrolled(key ed25519.PublicKey) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if bytes.Equal(s.key, key) {
		return nil
	}
	return s.forget(key)
}

// Left forgets the policy of a device that was offboarded: there is no plan
// any more.
func (s *settings) Left() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.forget(nil)
}

// forget removes the policy and takes another key. s.mu is held.
func (s *settings) forget(key ed25519.PublicKey) error {
	if err := os.Remove(filepath.Join(s.dir, policyFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.key, s.doc, s.payload = key, nil, nil
	s.changed()
	return nil
}

// ApplyPolicy checks a policy and puts it into effect, whole or not at all.
// It returns the version. An older version than the one in effect is refused:
// it may be a replay.
func (s *settings) ApplyPolicy(device string, signed policy.Signed) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	doc, err := policy.Open(signed, s.key)
	if err != nil {
		return 0, err
	}
	if doc.Device != device {
		return doc.Version, fault.New(fault.Invalid, "policy is for device %q, this is %q", doc.Device, device)
	}
	if s.doc != nil && doc.Version < s.doc.Version {
		return doc.Version, fault.New(fault.Conflict, "policy version %d is older than %d, which is in effect", doc.Version, s.doc.Version)
	}
	if s.doc != nil && bytes.Equal(signed.Payload, s.payload) {
		return doc.Version, nil // in effect, and on disk
	}
	text, err := json.Marshal(signed)
	if err != nil {
		return doc.Version, err
	}
	if err := atomicfile.Write(filepath.Join(s.dir, policyFile), text, 0o600); err != nil {
		return doc.Version, fault.Wrap(fault.Exhausted, err, "keep policy version %d", doc.Version)
	}
	s.doc, s.payload = doc, signed.Payload
	s.changed()
	return doc.Version, nil
}

// Change edits the local settings and puts them into effect once they are on
// disk.
func (s *settings) Change(edit func(now policy.Effective, local *policy.Settings) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	local := s.local
	if err := edit(s.now, &local); err != nil {
		return err
	}
	if err := local.Validate(); err != nil {
		return fault.New(fault.Invalid, "%w", err)
	}
	text, err := json.MarshalIndent(local, "", "  ")
	if err != nil {
		return err
	}
	if err := atomicfile.Write(filepath.Join(s.dir, localFile), append(text, '\n'), 0o600); err != nil {
		return fault.Wrap(fault.Exhausted, err, "save the setting")
	}
	s.local = local
	s.changed()
	return nil
}

// changed recomputes what is in effect and tells everybody. s.mu is held.
func (s *settings) changed() {
	s.now = policy.Merge(s.doc, s.local)
	for _, f := range s.watcher {
		f(s.now)
	}
}
