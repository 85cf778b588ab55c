package content

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"komainu/fault"
)

// How long what a role signs is good for. It is signed again when less than
// half of that is left.
var lives = map[string]time.Duration{
	metadata.ROOT: 365 * 24 * time.Hour, metadata.TARGETS: 90 * 24 * time.Hour, metadata.SNAPSHOT: 14 * 24 * time.Hour, metadata.TIMESTAMP: 2 * 24 * time.Hour,
}

// offlineNotice is when people hear that a root has to be signed whose key is
// not here: there is nothing to say half a year before.
const offlineNotice = 60 * 24 * time.Hour

var roles = []string{metadata.ROOT, metadata.TARGETS, metadata.SNAPSHOT, metadata.TIMESTAMP}

func rootName(version int64) string { return numbered(version, metadata.ROOT) }

func numbered(version int64, role string) string {
	return fmt.Sprintf("%s/%d.%s.json", metadataFolder, version, role)
}

// open reads what timestamp.json leads to.
func (r *Repository) open() (err error) {
	if r.root, err = newestRoot(r); err != nil {
		return err
	}
	if r.root == nil {
		return r.begin()
	}
	err = r.follow()
	if err == nil {
		r.sweep() // a crash may have left what was never published
		return nil
	}
	r.forget()
	if there, err := fs.ReadDir(r.dir.FS(), targetsFolder); err == nil && len(there) == 0 {
		return nil // the first start did not come further, and there is nothing to lose
	}
	// The control plane has more to do than to keep packages.
	r.damage = "the list of packages was damaged and is empty now; add the packages again"
	r.cfg.Log.Error(r.damage, "error", err)
	return nil
}

// newestRoot reads the roots one after the other; nil when there is none.
func newestRoot(r *Repository) (root *metadata.Metadata[metadata.RootType], err error) {
	for version := int64(1); ; version++ {
		next, err := read[metadata.RootType](r, rootName(version))
		if errors.Is(err, fs.ErrNotExist) {
			return root, nil
		}
		if err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "%s is damaged; restore the folder of the repository from a backup", rootName(version))
		}
		root = next
	}
}

// follow goes from timestamp.json to the list of packages.
func (r *Repository) follow() (err error) {
	if r.timestamp, err = read[metadata.TimestampType](r, published); err != nil {
		return err
	}
	snapshot := r.timestamp.Signed.Meta["snapshot.json"]
	if snapshot == nil {
		return errors.New("timestamp.json names no snapshot")
	}
	if r.snapshot, err = read[metadata.SnapshotType](r, numbered(snapshot.Version, metadata.SNAPSHOT)); err != nil {
		return err
	}
	targets := r.snapshot.Signed.Meta["targets.json"]
	if targets == nil {
		return errors.New("the snapshot names no targets")
	}
	if r.targets, err = read[metadata.TargetsType](r, numbered(targets.Version, metadata.TARGETS)); err != nil {
		return err
	}
	return ours(r, metadata.TARGETS, r.targets)
}

// forget begins with an empty list. The versions that follow are those of the
// clock, and so after all that were.
func (r *Repository) forget() {
	r.targets, r.snapshot, r.timestamp = metadata.Targets(r.now()), metadata.Snapshot(r.now()), metadata.Timestamp(r.now())
	r.targets.Signed.Version, r.snapshot.Signed.Version, r.timestamp.Signed.Version = 0, 0, 0
}

func read[T metadata.Roles](r *Repository, name string) (*metadata.Metadata[T], error) {
	text, err := r.dir.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return new(metadata.Metadata[T]).FromBytes(text)
}

// begin makes an empty repository.
func (r *Repository) begin() error {
	root := metadata.Root(r.now().Add(lives[metadata.ROOT]))
	var rootKey ed25519.PrivateKey
	for _, role := range roles {
		_, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return err
		}
		if role == metadata.ROOT {
			rootKey = private
		}
		key, err := r.keep(private)
		if err != nil {
			return err
		}
		if err := root.Signed.AddKey(key, role); err != nil {
			return err
		}
	}
	r.forget()
	if err := r.putRoot(root, rootKey); err != nil {
		return err
	}
	return r.publish(r.targets.Signed.Targets)
}

// after is the version that follows one: the time, and never an older one.
func (r *Repository) after(version int64) int64 { return max(version+1, r.now().Unix()) }

// signed is metadata with a signature of every key that the root names for its
// role.
func signed[T metadata.Roles](r *Repository, role string, m *metadata.Metadata[T]) ([]byte, error) {
	keys, err := r.signers(&r.root.Signed, role)
	if err != nil {
		return nil, err
	}
	if err := sign(m, keys...); err != nil {
		return nil, err
	}
	return m.ToBytes(true)
}

// write signs metadata and writes it.
func write[T metadata.Roles](r *Repository, role string, m *metadata.Metadata[T], name string) error {
	text, err := signed(r, role, m)
	if err != nil {
		return err
	}
	return r.write(name, text)
}

// publish signs a new version with these targets. The caller holds mu. What is
// in memory changes when it is on disk.
func (r *Repository) publish(list map[string]*metadata.TargetFiles) error {
	targets := metadata.Targets(r.now().Add(lives[metadata.TARGETS]))
	targets.Signed.Version, targets.Signed.Targets = r.after(r.targets.Signed.Version), list
	if err := write(r, metadata.TARGETS, targets, numbered(targets.Signed.Version, metadata.TARGETS)); err != nil {
		return err
	}
	if err := r.publishSnapshot(targets); err != nil {
		return err
	}
	r.fresh = true
	return nil
}

// publishSnapshot signs a new snapshot of these targets. Whether it comes to
// its end or not, what is not in use is deleted: what lay there unpublished
// would look later as if it had replaced what clients use.
func (r *Repository) publishSnapshot(targets *metadata.Metadata[metadata.TargetsType]) error {
	defer r.sweep()
	snapshot := metadata.Snapshot(r.now().Add(lives[metadata.SNAPSHOT]))
	snapshot.Signed.Version = r.after(r.snapshot.Signed.Version)
	snapshot.Signed.Meta["targets.json"] = metadata.MetaFile(targets.Signed.Version)
	if err := write(r, metadata.SNAPSHOT, snapshot, numbered(snapshot.Signed.Version, metadata.SNAPSHOT)); err != nil {
		return err
	}
	if err := r.publishTimestamp(snapshot); err != nil {
		return err
	}
	r.targets = targets
	return nil
}

func (r *Repository) publishTimestamp(snapshot *metadata.Metadata[metadata.SnapshotType]) error {
	return r.putTimestamp(snapshot, r.nextTimestamp(snapshot, lives[metadata.TIMESTAMP]))
}

func (r *Repository) putTimestamp(snapshot *metadata.Metadata[metadata.SnapshotType], timestamp *metadata.Metadata[metadata.TimestampType]) error {
	if err := write(r, metadata.TIMESTAMP, timestamp, published); err != nil {
		return err
	}
	r.snapshot, r.timestamp = snapshot, timestamp
	return nil
}

// nextTimestamp leads to a snapshot, for a time.
func (r *Repository) nextTimestamp(snapshot *metadata.Metadata[metadata.SnapshotType], good time.Duration) *metadata.Metadata[metadata.TimestampType] {
	timestamp := metadata.Timestamp(r.now().Add(good))
	timestamp.Signed.Version = r.after(r.timestamp.Signed.Version)
	timestamp.Signed.Meta["snapshot.json"] = metadata.MetaFile(snapshot.Signed.Version)
	return timestamp
}

// MaxCopy is the longest that a copy can be good for: as long as a snapshot.
var MaxCopy = lives[metadata.SNAPSHOT]

// SignCopy signs the repository anew and returns the timestamp.json of a copy
// that is good for a time, at least as long as what is published here.
//
// One that is good for longer is not published: who answers in our place could
// show it, and hide what is new, for as long. What is published after it is
// newer, so that whoever has read the copy goes on with the repository.
func (r *Repository) SignCopy(good time.Duration) ([]byte, error) {
	if good > MaxCopy {
		return nil, fault.New(fault.Invalid, "a copy is good for %d days at most", MaxCopy/(24*time.Hour))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.renew(); err != nil {
		return nil, err
	}
	if good <= lives[metadata.TIMESTAMP] {
		if err := r.publishTimestamp(r.snapshot); err != nil {
			return nil, err
		}
		return r.dir.ReadFile(published)
	}
	if r.snapshot.Signed.Expires.Before(r.now().Add(good)) {
		if err := r.publishSnapshot(r.targets); err != nil {
			return nil, err
		}
	}
	copied := r.nextTimestamp(r.snapshot, good)
	text, err := signed(r, metadata.TIMESTAMP, copied)
	if err != nil {
		return nil, err
	}
	next := r.nextTimestamp(r.snapshot, lives[metadata.TIMESTAMP])
	next.Signed.Version = copied.Signed.Version + 1
	return text, r.putTimestamp(r.snapshot, next)
}

// Renew signs again what would expire, ends a rotation that was interrupted,
// and publishes once after each start: a state folder that was set back must
// not look to clients as if somebody replayed an old repository.
func (r *Repository) Renew() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := errors.Join(r.renewRoot(), r.renew())
	r.problem = ""
	if err != nil {
		r.problem = err.Error()
	}
	return err
}

func (r *Repository) soon(role string, expires time.Time) bool {
	return expires.Sub(r.now()) < lives[role]/2
}

func (r *Repository) renewRoot() error {
	if r.rotating() {
		return r.endRotation(nil)
	}
	left := r.root.Signed.Expires.Sub(r.now())
	if !r.soon(metadata.ROOT, r.root.Signed.Expires) || !r.holds(metadata.ROOT) && left > offlineNotice {
		return nil
	}
	signers, err := r.signers(&r.root.Signed, metadata.ROOT)
	if err != nil {
		return fmt.Errorf("the root ends on %s: %w", r.root.Signed.Expires.Format(time.DateOnly), err)
	}
	next, err := r.nextRoot()
	if err != nil {
		return err
	}
	return r.putRoot(next, signers...)
}

func (r *Repository) renew() error {
	switch {
	case !r.fresh, r.soon(metadata.TARGETS, r.targets.Signed.Expires):
		return r.publish(r.targets.Signed.Targets)
	case r.soon(metadata.SNAPSHOT, r.snapshot.Signed.Expires):
		return r.publishSnapshot(r.targets)
	case r.soon(metadata.TIMESTAMP, r.timestamp.Signed.Expires):
		return r.publishTimestamp(r.snapshot)
	}
	return nil
}

// nextRoot is the root that follows, to be changed and signed.
func (r *Repository) nextRoot() (*metadata.Metadata[metadata.RootType], error) {
	text, err := r.root.ToBytes(false)
	if err != nil {
		return nil, err
	}
	next, err := new(metadata.Metadata[metadata.RootType]).FromBytes(text)
	if err != nil {
		return nil, err
	}
	next.Signed.Version++
	next.Signed.Expires = r.now().Add(lives[metadata.ROOT])
	return next, nil
}

// putRoot signs a root and makes it the one in use.
func (r *Repository) putRoot(next *metadata.Metadata[metadata.RootType], keys ...ed25519.PrivateKey) error {
	if err := sign(next, keys...); err != nil {
		return err
	}
	text, err := next.ToBytes(true)
	if err != nil {
		return err
	}
	if err := r.write(rootName(next.Signed.Version), text); err != nil {
		return err
	}
	r.root = next
	return nil
}

// full gives a full disk its kind.
func full(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fault.Wrap(fault.Exhausted, err, "the disk is full")
	}
	return err
}
