// Package content is the agent's side of the signed repository: The Update
// Framework (https://theupdateframework.github.io/specification/), read from
// the control plane, a mirror or a folder.
//
// What is trusted begins with the root that the device got when it enrolled
// and goes on by signatures alone, so that it does not matter who carries the
// bytes. All that was verified last is kept in one file, which is replaced
// whole: an update that is refused, or breaks off anywhere, leaves what was
// there before. There is nothing to mix.
package content

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"

	"komainu/fault"
	"komainu/internal/atomicfile"
)

// Limits of what is read from a source, in bytes. The repository of a control
// plane with a thousand packages stays below a tenth of them.
const (
	maxRoot      = 256 << 10
	maxTimestamp = 16 << 10
	maxSnapshot  = 256 << 10
	maxTargets   = 4 << 20
	maxPackage   = 256 << 20
	maxStored    = 8 << 20
)

// maxRotations is how many roots are followed in one refresh. The next one
// goes on from there.
const maxRotations = 64

// Config says whom a client trusts and where it keeps what it knows.
type Config struct {
	Dir  string // made with mode 0700
	Root []byte // that the device was given when it enrolled
	Now  func() time.Time
}

// Client is the reader of the repository. It is safe for concurrent use.
type Client struct {
	cfg Config
	mu  sync.Mutex
}

// New returns a client.
func New(cfg Config) *Client {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Client{cfg: cfg}
}

// stored is what was verified last: the bytes as they were signed.
type stored struct {
	Pin       string `json:"pin"` // of the root of the enrolment that all this follows from
	Root      []byte `json:"root"`
	Timestamp []byte `json:"timestamp,omitempty"`
	Snapshot  []byte `json:"snapshot,omitempty"`
	Targets   []byte `json:"targets,omitempty"`
}

const storedFile = "trusted.json"

func (c *Client) pin() string {
	sum := sha256.Sum256(c.cfg.Root)
	return hex.EncodeToString(sum[:])
}

// load reads what is trusted. A device that has enrolled elsewhere meanwhile
// begins with that control plane's root, and so does one whose file is
// damaged: it then forgets how new what it saw was, not whom it trusts.
func (c *Client) load() (stored, error) {
	if len(c.cfg.Root) == 0 {
		return stored{}, fault.New(fault.Conflict, "this device has no root of the signed repository; it gets one when its certificate is renewed by a control plane that has a repository, or when it enrols anew")
	}
	first := stored{Pin: c.pin(), Root: c.cfg.Root}
	text, err := readLimited(c.cfg.Dir, storedFile, maxStored)
	if errors.Is(err, fs.ErrNotExist) {
		return first, nil
	}
	if err != nil {
		return stored{}, fmt.Errorf("read what is trusted: %w", err)
	}
	var s stored
	if json.Unmarshal(text, &s) != nil || s.Pin != first.Pin || len(s.Root) == 0 {
		return first, nil
	}
	return s, nil
}

func (c *Client) save(s stored) error {
	text, err := json.Marshal(s)
	if err == nil {
		err = os.MkdirAll(c.cfg.Dir, 0o700)
	}
	if err == nil {
		err = atomicfile.Write(filepath.Join(c.cfg.Dir, storedFile), text, 0o600)
	}
	if err != nil {
		return fmt.Errorf("keep what is trusted: %w", err)
	}
	return nil
}

// Refresh brings what is known up to date from a source. On an error the
// packages that were known stay known; roots that were followed stay followed.
//
// Errors: fault.Unauthentic for what is not signed by whom it has to be, is
// older than what is known, or has expired; fault.NotFound when there is no
// repository, fault.Unavailable when the source cannot be read.
func (c *Client) Refresh(ctx context.Context, from Source) (err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer contain(&err)
	s, err := c.load()
	if err != nil {
		return err
	}
	t, err := begin(s, c.cfg.Now())
	if err != nil {
		return err
	}
	if err := c.followRoots(ctx, from, t, &s); err != nil {
		return err
	}
	next := s
	if err := update(ctx, from, t, &next); err != nil {
		return err
	}
	return c.save(next)
}

// contain makes an error of a panic: the library takes what is signed at its
// word, and a key that was stolen must not end the agent.
func contain(err *error) {
	if v := recover(); v != nil {
		*err = fault.New(fault.Unauthentic, "the repository makes no sense (%v); the packages that are known stay as they are", v)
	}
}

func begin(s stored, at time.Time) (*trustedmetadata.TrustedMetadata, error) {
	t, err := trustedmetadata.New(s.Root)
	if err != nil {
		return nil, fault.New(fault.Invalid, "the root that this device trusts is damaged; enrol it anew: %w", err)
	}
	t.RefTime = at.UTC()
	return t, nil
}

// followRoots goes from root to root. Each counts from when it is verified: a
// key that was revoked stays revoked whatever happens to the rest.
func (c *Client) followRoots(ctx context.Context, from Source, t *trustedmetadata.TrustedMetadata, s *stored) error {
	for range maxRotations {
		text, err := read(ctx, from, fmt.Sprintf("metadata/%d.root.json", t.Root.Signed.Version+1), maxRoot)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := t.UpdateRoot(text); err != nil {
			return refused("a new root", err)
		}
		s.Root = text
		if err := c.save(*s); err != nil {
			return err
		}
	}
	return nil
}

// update fetches and verifies what is new. Each role is first given what is
// known, which is how something older is told.
func update(ctx context.Context, from Source, t *trustedmetadata.TrustedMetadata, s *stored) error {
	if err := updateTimestamp(ctx, from, t, s); err != nil {
		return err
	}
	version := t.Timestamp.Signed.Meta["snapshot.json"]
	if version == nil {
		return fault.New(fault.Unauthentic, "the repository's timestamp names no snapshot; nothing of it is used")
	}
	known := s.Snapshot != nil
	if known {
		_, err := t.UpdateSnapshot(s.Snapshot, true)
		known = err == nil
	}
	if !known {
		text, err := read(ctx, from, fmt.Sprintf("metadata/%d.snapshot.json", version.Version), maxSnapshot)
		if err != nil {
			return err
		}
		if _, err := t.UpdateSnapshot(text, false); err != nil {
			return refused("its snapshot", err)
		}
		s.Snapshot = text
	}
	if s.Targets != nil {
		if _, err := t.UpdateTargets(s.Targets); err == nil {
			return nil
		}
	}
	version = t.Snapshot.Signed.Meta["targets.json"]
	if version == nil {
		return fault.New(fault.Unauthentic, "the repository's snapshot names no targets; nothing of it is used")
	}
	text, err := read(ctx, from, fmt.Sprintf("metadata/%d.targets.json", version.Version), maxTargets)
	if err != nil {
		return err
	}
	if _, err := t.UpdateTargets(text); err != nil {
		return refused("its list of packages", err)
	}
	s.Targets = text
	return nil
}

func updateTimestamp(ctx context.Context, from Source, t *trustedmetadata.TrustedMetadata, s *stored) error {
	if s.Timestamp != nil {
		// One that has expired still says what was seen. One that the root does
		// not vouch for any more says nothing: its key was replaced.
		_, _ = t.UpdateTimestamp(s.Timestamp)
	}
	text, err := read(ctx, from, "metadata/timestamp.json", maxTimestamp)
	if err != nil {
		return err
	}
	_, err = t.UpdateTimestamp(text)
	switch {
	case errors.Is(err, &metadata.ErrEqualVersionNumber{}):
		return nil
	case err != nil:
		return refused("its timestamp", err)
	}
	s.Timestamp = text
	return nil
}

// Expired reports whether a repository was refused for nothing but that it has
// expired by the clock of this host.
func Expired(err error) bool { return errors.Is(err, &metadata.ErrExpiredMetadata{}) }

// refused says why a repository is not believed, and what to do.
func refused(what string, err error) error {
	const stays = "the packages that are known stay as they are"
	switch {
	case errors.Is(err, &metadata.ErrExpiredMetadata{}):
		return fault.New(fault.Unauthentic, "%s of the repository has expired: it is an old copy, its signatures were not renewed, or this host's clock is wrong; %s: %w", what, stays, err)
	case errors.Is(err, &metadata.ErrBadVersionNumber{}):
		return fault.New(fault.Unauthentic, "%s of the repository is older than what was seen before; %s. After the control plane was restored from a backup, run komainu-control content rotate there: %w", what, stays, err)
	default:
		return fault.New(fault.Unauthentic, "%s of the repository is not signed by whom this device trusts; %s: %w", what, stays, err)
	}
}

// Packages returns the packages that are known, as they were verified, by the
// clock at a time: what has expired by then is refused.
func (c *Client) Packages(at time.Time) (list []Package, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer contain(&err)
	s, err := c.load()
	if err != nil {
		return nil, err
	}
	if s.Targets == nil {
		return nil, fault.New(fault.NotFound, "nothing is known of the repository yet; komainu upgrade check asks for it")
	}
	t, err := begin(s, at)
	if err != nil {
		return nil, err
	}
	if _, err := t.UpdateTimestamp(s.Timestamp); err != nil {
		return nil, refused("what is known", err)
	}
	if _, err := t.UpdateSnapshot(s.Snapshot, false); err != nil {
		return nil, refused("what is known", err)
	}
	targets, err := t.UpdateTargets(s.Targets)
	if err != nil {
		return nil, refused("what is known", err)
	}
	return packagesOf(targets), nil
}
