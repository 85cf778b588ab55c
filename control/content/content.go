// Package content keeps the signed repository that packages of the agent come
// from: The Update Framework (https://theupdateframework.github.io/specification/),
// with consistent snapshots, in a folder that can be copied as it is.
//
// Each role has a key of its own, made at the first start and sealed beside
// the other keys. Whoever holds the whole state folder can sign; whoever holds
// the database or the repository alone cannot. The file timestamp.json is what
// publishes: everything that it leads to is on disk before it is replaced, so
// that a repository is whole whenever it is read, also after a crash.
//
// Versions are the time at which they were published, in seconds. A state
// folder that is set back, from a backup or with the machine, publishes again
// at its next start; what it publishes is newer than what clients have seen.
package content

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"golang.org/x/mod/semver"

	"komainu/control/seal"
	"komainu/internal/atomicfile"
)

// Folders of a repository. What comes in stays apart until it is whole.
const (
	metadataFolder = "metadata"
	targetsFolder  = "targets"
	incomingFolder = "incoming"
)

// published is the file that leads to everything else.
const published = metadataFolder + "/timestamp.json"

// Package is a package in the repository.
type Package struct {
	Name    string    `json:"name"`
	Version string    `json:"version"`
	Arch    string    `json:"arch" doc:"amd64, arm64"`
	Format  string    `json:"format" doc:"deb, rpm, tar"`
	Size    int64     `json:"size"`
	SHA256  string    `json:"sha256"`
	AddedAt time.Time `json:"addedAt"`
	Target  string    `json:"target" doc:"its path in the repository's metadata"`
}

// custom is what the metadata says of a package beside its hash.
type custom struct {
	Name    string    `json:"name"`
	Version string    `json:"version"`
	Arch    string    `json:"arch"`
	Format  string    `json:"format"`
	AddedAt time.Time `json:"addedAt"`
}

// Config is what a repository needs.
type Config struct {
	Dir  string // of the repository
	Keys string // folder of its keys, for nothing else
	Log  *slog.Logger
	Now  func() time.Time

	step func(what string) error // before each change of the disk; a test ends there
}

// Repository is the signed repository. It is safe for concurrent use.
type Repository struct {
	cfg  Config
	seal *seal.Sealer
	dir  *os.Root

	mu        sync.RWMutex
	root      *metadata.Metadata[metadata.RootType]
	targets   *metadata.Metadata[metadata.TargetsType]
	snapshot  *metadata.Metadata[metadata.SnapshotType]
	timestamp *metadata.Metadata[metadata.TimestampType]
	fresh     bool   // it was published since it was opened
	problem   string // why it could not be signed again
	damage    string // what was found broken when it was opened
}

// Open opens the repository, or makes an empty one with new keys.
func Open(cfg Config) (*Repository, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.step == nil {
		cfg.step = func(string) error { return nil }
	}
	if err := os.RemoveAll(filepath.Join(cfg.Dir, incomingFolder)); err != nil {
		return nil, fmt.Errorf("open the repository: %w", err)
	}
	for _, dir := range []string{metadataFolder, targetsFolder, incomingFolder} {
		if err := os.MkdirAll(filepath.Join(cfg.Dir, dir), 0o755); err != nil {
			return nil, fmt.Errorf("open the repository: %w", err)
		}
	}
	s, err := seal.Open(cfg.Keys, "seal")
	if err != nil {
		return nil, err
	}
	dir, err := os.OpenRoot(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("open the repository: %w", err)
	}
	r := &Repository{cfg: cfg, seal: s, dir: dir}
	if err := r.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("open the repository: %w", err), dir.Close())
	}
	return r, nil
}

// Close lets go of the folder.
func (r *Repository) Close() error { return r.dir.Close() }

func (r *Repository) now() time.Time { return r.cfg.Now().UTC().Truncate(time.Second) }

// renewEvery is how often it is looked at what expires.
const renewEvery = 10 * time.Minute

// Run signs again what would expire, until ctx ends.
func (r *Repository) Run(ctx context.Context) error {
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	for {
		if err := r.Renew(); err != nil {
			r.cfg.Log.Error("the repository could not be signed again; agents refuse it when it expires", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Root returns the newest root: the bytes that agents pin.
func (r *Repository) Root() ([]byte, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.dir.ReadFile(rootName(r.root.Signed.Version))
}

func described(name string, t *metadata.TargetFiles) (Package, bool) {
	if t.Custom == nil {
		return Package{}, false
	}
	var c custom
	if err := json.Unmarshal(*t.Custom, &c); err != nil {
		return Package{}, false
	}
	return Package{c.Name, c.Version, c.Arch, c.Format, t.Length, hex.EncodeToString(t.Hashes["sha256"]), c.AddedAt, name}, true
}

// packages returns what a list of targets describes, the newest version first.
func packages(targets map[string]*metadata.TargetFiles) []Package {
	list := []Package{}
	for name, t := range targets {
		if p, ok := described(name, t); ok {
			list = append(list, p)
		}
	}
	slices.SortFunc(list, func(a, b Package) int {
		return cmp.Or(semver.Compare("v"+b.Version, "v"+a.Version), cmp.Compare(a.Target, b.Target))
	})
	return list
}

// List returns the packages, the newest version first.
func (r *Repository) List() []Package {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return packages(r.targets.Signed.Targets)
}

// Find returns the package of a version, in a form, for a processor.
func (r *Repository) Find(version, format, arch string) (Package, bool) {
	list := r.List()
	i := slices.IndexFunc(list, func(p Package) bool { return p.Version == version && p.Format == format && p.Arch == arch })
	if i < 0 {
		return Package{}, false
	}
	return list[i], true
}

// Content opens the file of a package.
func (r *Repository) Content(p Package) (io.ReadCloser, error) {
	return r.dir.Open(fileOf(p))
}

// File is the path of a package below the address of the repository.
func File(p Package) string { return fileOf(p) }

// fileOf is where clients look for a package: by its hash.
func fileOf(p Package) string {
	return path.Join(targetsFolder, path.Dir(p.Target), p.SHA256+"."+path.Base(p.Target))
}

// RoleStatus is how long what a role has signed is good for.
type RoleStatus struct {
	Version int64     `json:"version"`
	Expires time.Time `json:"expires"`
	Offline bool      `json:"offline" doc:"the key of this role is not on the control plane"`
}

// Status is the state of the repository.
type Status struct {
	Root      RoleStatus `json:"root"`
	Targets   RoleStatus `json:"targets"`
	Snapshot  RoleStatus `json:"snapshot"`
	Timestamp RoleStatus `json:"timestamp"`
	Packages  []Package  `json:"packages"`
	Problem   string     `json:"problem" doc:"why it could not be signed again, or what was found damaged; empty when all is well"`
}

// Status returns the state of the repository.
func (r *Repository) Status() Status {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return Status{
		Root:      RoleStatus{r.root.Signed.Version, r.root.Signed.Expires, !r.holds(metadata.ROOT)},
		Targets:   RoleStatus{Version: r.targets.Signed.Version, Expires: r.targets.Signed.Expires},
		Snapshot:  RoleStatus{Version: r.snapshot.Signed.Version, Expires: r.snapshot.Signed.Expires},
		Timestamp: RoleStatus{Version: r.timestamp.Signed.Version, Expires: r.timestamp.Signed.Expires},
		Packages:  packages(r.targets.Signed.Targets), Problem: cmp.Or(r.problem, r.damage),
	}
}

// write replaces a file below the repository.
func (r *Repository) write(name string, text []byte) error {
	if err := r.cfg.step("write " + name); err != nil {
		return err
	}
	return full(atomicfile.Write(filepath.Join(r.cfg.Dir, filepath.FromSlash(name)), text, 0o644))
}
