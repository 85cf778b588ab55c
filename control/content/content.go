// Package content keeps the signed repository that packages of the agent come
// from: The Update Framework (https://theupdateframework.github.io/specification/),
// with consistent snapshots, in a folder that can be copied as it is.
//
// Each role has a key of its own, made at the first start and sealed beside
// the other keys. Whoever holds the whole state folder can sign; whoever holds
// the database or the repository alone cannot. The file timestamp.json is what
// publishes: everything that it leads to is on disk before it is replaced, so
// that a repository is whole whenever it is read, also after a crash.
package content

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"
	"golang.org/x/mod/semver"

	"komainu/control/seal"
	"komainu/fault"
	"komainu/internal/atomicfile"
)

// How long what a role signs is good for. It is signed again when less than
// half of that is left.
var lives = map[string]time.Duration{
	metadata.ROOT: 365 * 24 * time.Hour, metadata.TARGETS: 90 * 24 * time.Hour, metadata.SNAPSHOT: 14 * 24 * time.Hour, metadata.TIMESTAMP: 2 * 24 * time.Hour,
}

var roles = []string{metadata.ROOT, metadata.TARGETS, metadata.SNAPSHOT, metadata.TIMESTAMP}

// Agent is the name of the agent's packages.
const Agent = "komainu-agent"

// maxPackage is more than a package of the agent takes, in bytes.
const maxPackage = 256 << 20

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
	Keys string // folder of keys
	Log  *slog.Logger
	Now  func() time.Time
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
	problem   string // why it could not be signed again
}

// Open opens the repository, or makes an empty one with new keys.
func Open(cfg Config) (*Repository, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	for _, dir := range []string{"metadata", "targets"} {
		if err := os.MkdirAll(filepath.Join(cfg.Dir, dir), 0o755); err != nil {
			return nil, fmt.Errorf("open the repository: %w", err)
		}
	}
	s, err := seal.Open(cfg.Keys, "content")
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

// open reads what timestamp.json leads to.
func (r *Repository) open() error {
	text, err := r.dir.ReadFile("metadata/timestamp.json")
	if errors.Is(err, fs.ErrNotExist) {
		return r.begin()
	}
	if err != nil {
		return err
	}
	if r.timestamp, err = new(metadata.Metadata[metadata.TimestampType]).FromBytes(text); err != nil {
		return err
	}
	if r.snapshot, err = read[metadata.SnapshotType](r, "snapshot", r.timestamp.Signed.Meta["snapshot.json"].Version); err != nil {
		return err
	}
	if r.targets, err = read[metadata.TargetsType](r, "targets", r.snapshot.Signed.Meta["targets.json"].Version); err != nil {
		return err
	}
	for version := int64(1); ; version++ {
		next, err := read[metadata.RootType](r, "root", version)
		if errors.Is(err, fs.ErrNotExist) && version > 1 {
			// A rotation that was interrupted has a new root and old signatures.
			if r.root.VerifyDelegate(metadata.TARGETS, r.targets) != nil || r.root.VerifyDelegate(metadata.TIMESTAMP, r.timestamp) != nil {
				return r.publish(r.targets.Signed.Targets)
			}
			return nil
		}
		if err != nil {
			return err
		}
		r.root = next
	}
}

func read[T metadata.Roles](r *Repository, role string, version int64) (*metadata.Metadata[T], error) {
	text, err := r.dir.ReadFile(fmt.Sprintf("metadata/%d.%s.json", version, role))
	if err != nil {
		return nil, err
	}
	return new(metadata.Metadata[T]).FromBytes(text)
}

// begin makes an empty repository.
func (r *Repository) begin() error {
	now := r.now()
	r.root = metadata.Root(now.Add(lives[metadata.ROOT]))
	for _, role := range roles {
		key, err := r.newKey(role)
		if err != nil {
			return err
		}
		if err := r.root.Signed.AddKey(key, role); err != nil {
			return err
		}
	}
	r.targets, r.snapshot, r.timestamp = metadata.Targets(now), metadata.Snapshot(now), metadata.Timestamp(now)
	r.targets.Signed.Version, r.snapshot.Signed.Version, r.timestamp.Signed.Version = 0, 0, 0
	if err := write(r, metadata.ROOT, r.root, "1.root.json"); err != nil {
		return err
	}
	return r.publish(r.targets.Signed.Targets)
}

// keyFile is where the key of a role is kept, sealed.
func (r *Repository) keyFile(role string) string {
	return filepath.Join(r.cfg.Keys, "content-"+role+".sealed")
}

func (r *Repository) newKey(role string) (*metadata.Key, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	text := base64.StdEncoding.EncodeToString(private.Seed())
	if err := atomicfile.Write(r.keyFile(role), r.seal.Seal("content "+role, text), 0o600); err != nil {
		return nil, err
	}
	return metadata.KeyFromPublicKey(public)
}

func (r *Repository) signer(role string) (signature.Signer, error) {
	sealed, err := os.ReadFile(r.keyFile(role))
	if err != nil {
		return nil, fmt.Errorf("the key of the role %s: %w", role, err)
	}
	text, err := r.seal.Open("content "+role, sealed)
	if err != nil {
		return nil, err
	}
	seed, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(seed) != ed25519.SeedSize {
		return nil, fault.New(fault.Invalid, "%s holds no key; restore it from a backup", r.keyFile(role))
	}
	return signature.LoadED25519Signer(ed25519.NewKeyFromSeed(seed))
}

// write signs and writes metadata.
func write[T metadata.Roles](r *Repository, role string, m *metadata.Metadata[T], name string) error {
	s, err := r.signer(role)
	if err != nil {
		return err
	}
	m.ClearSignatures()
	if _, err := m.Sign(s); err != nil {
		return err
	}
	return r.put(m, name)
}

func (r *Repository) put(m interface{ ToBytes(bool) ([]byte, error) }, name string) error {
	text, err := m.ToBytes(true)
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(r.cfg.Dir, "metadata", name), text, 0o644)
}

// publish signs a new version with these targets. The caller holds mu. What is
// in memory changes when it is on disk.
func (r *Repository) publish(list map[string]*metadata.TargetFiles) error {
	now := r.now()
	targets := metadata.Targets(now.Add(lives[metadata.TARGETS]))
	targets.Signed.Version, targets.Signed.Targets = r.targets.Signed.Version+1, list
	if err := write(r, metadata.TARGETS, targets, fmt.Sprintf("%d.targets.json", targets.Signed.Version)); err != nil {
		return err
	}
	return r.publishSnapshot(targets)
}

func (r *Repository) publishSnapshot(targets *metadata.Metadata[metadata.TargetsType]) error {
	now := r.now()
	snapshot := metadata.Snapshot(now.Add(lives[metadata.SNAPSHOT]))
	snapshot.Signed.Version = r.snapshot.Signed.Version + 1
	snapshot.Signed.Meta["targets.json"] = metadata.MetaFile(targets.Signed.Version)
	if err := write(r, metadata.SNAPSHOT, snapshot, fmt.Sprintf("%d.snapshot.json", snapshot.Signed.Version)); err != nil {
		return err
	}
	if err := r.publishTimestamp(snapshot); err != nil {
		return err
	}
	r.targets = targets
	return nil
}

func (r *Repository) publishTimestamp(snapshot *metadata.Metadata[metadata.SnapshotType]) error {
	timestamp := metadata.Timestamp(r.now().Add(lives[metadata.TIMESTAMP]))
	timestamp.Signed.Version = r.timestamp.Signed.Version + 1
	timestamp.Signed.Meta["snapshot.json"] = metadata.MetaFile(snapshot.Signed.Version)
	if err := write(r, metadata.TIMESTAMP, timestamp, "timestamp.json"); err != nil {
		return err
	}
	r.snapshot, r.timestamp = snapshot, timestamp
	return nil
}

// Renew signs again what would expire.
func (r *Repository) Renew() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	soon := func(role string, expires time.Time) bool { return expires.Sub(now) < lives[role]/2 }
	var err error
	switch {
	case soon(metadata.ROOT, r.root.Signed.Expires):
		err = r.nextRoot(func(*metadata.RootType) error { return nil })
	case soon(metadata.TARGETS, r.targets.Signed.Expires):
		err = r.publish(r.targets.Signed.Targets)
	case soon(metadata.SNAPSHOT, r.snapshot.Signed.Expires):
		err = r.publishSnapshot(r.targets)
	case soon(metadata.TIMESTAMP, r.timestamp.Signed.Expires):
		err = r.publishTimestamp(r.snapshot)
	}
	r.problem = ""
	if err != nil {
		r.problem = err.Error()
	}
	return err
}

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

// nextRoot signs a new version of the root with its old and its new key.
func (r *Repository) nextRoot(change func(*metadata.RootType) error) error {
	old, err := r.signer(metadata.ROOT)
	if err != nil {
		return err
	}
	text, err := r.root.ToBytes(false)
	if err != nil {
		return err
	}
	next, err := new(metadata.Metadata[metadata.RootType]).FromBytes(text)
	if err != nil {
		return err
	}
	next.Signed.Version++
	next.Signed.Expires = r.now().Add(lives[metadata.ROOT])
	if err := change(&next.Signed); err != nil {
		return err
	}
	next.ClearSignatures()
	if _, err := next.Sign(old); err != nil {
		return err
	}
	current, err := r.signer(metadata.ROOT)
	if err != nil {
		return err
	}
	before, _ := old.PublicKey()
	after, _ := current.PublicKey()
	if !before.(ed25519.PublicKey).Equal(after) {
		if _, err := next.Sign(current); err != nil {
			return err
		}
	}
	if err := r.put(next, fmt.Sprintf("%d.root.json", next.Signed.Version)); err != nil {
		return err
	}
	r.root = next
	return nil
}

// Rotate replaces the keys of all roles. Clients follow from root to root.
func (r *Repository) Rotate() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	// The keys as they were, to be put back when the new root does not come to
	// be.
	was := map[string][]byte{}
	for _, role := range roles {
		text, err := os.ReadFile(r.keyFile(role))
		if err != nil {
			return err
		}
		was[role] = text
	}
	err := r.nextRoot(func(root *metadata.RootType) error {
		for _, role := range roles {
			for _, id := range slices.Clone(root.Roles[role].KeyIDs) {
				if err := root.RevokeKey(id, role); err != nil {
					return err
				}
			}
			key, err := r.newKey(role)
			if err != nil {
				return err
			}
			if err := root.AddKey(key, role); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		for role, text := range was {
			err = errors.Join(err, atomicfile.Write(r.keyFile(role), text, 0o600))
		}
		return err
	}
	return r.publish(r.targets.Signed.Targets)
}

// Root returns the newest root: the bytes that agents pin.
func (r *Repository) Root() ([]byte, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.dir.ReadFile(fmt.Sprintf("metadata/%d.root.json", r.root.Signed.Version))
}

// Forms of package files, as nfpm and dev packages name them.
var forms = []struct {
	format string
	name   *regexp.Regexp
}{
	{"deb", regexp.MustCompile(`^(` + Agent + `)_([0-9A-Za-z.+~-]+)_(amd64|arm64)\.deb$`)},
	{"rpm", regexp.MustCompile(`^(` + Agent + `)-([0-9A-Za-z.+~-]+)-1\.(x86_64|aarch64)\.rpm$`)},
	{"tar", regexp.MustCompile(`^(` + Agent + `)_([0-9A-Za-z.+~-]+)_(amd64|arm64)\.tar\.gz$`)},
}

// Describe says which package a file is, by its name.
func Describe(file string) (Package, bool) {
	for _, f := range forms {
		if m := f.name.FindStringSubmatch(filepath.Base(file)); m != nil {
			arch := strings.NewReplacer("x86_64", "amd64", "aarch64", "arm64").Replace(m[3])
			version := strings.ReplaceAll(m[2], "~", "-") // as the agent says it itself
			return Package{Name: m[1], Version: version, Arch: arch, Format: f.format}, semver.IsValid("v" + version)
		}
	}
	return Package{}, false
}

// Add takes package files into the repository. Those that are there already
// are passed over. Errors: fault.Invalid for files that are no packages of
// ours, fault.Exhausted when the disk is full; the repository is as before.
func (r *Repository) Add(files ...string) ([]Package, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := map[string]*metadata.TargetFiles{}
	for name, t := range r.targets.Signed.Targets {
		list[name] = t
	}
	var added []Package
	for _, file := range files {
		p, ok := Describe(file)
		if !ok {
			return nil, fault.New(fault.Invalid, "%s is no package of the agent: its name tells that, like %s_1.2.3_amd64.deb", filepath.Base(file), Agent)
		}
		p.AddedAt = r.now()
		p.Target = path.Join(p.Name, p.Version, filepath.Base(file))
		if err := r.store(file, &p); err != nil {
			return nil, err
		}
		if old := list[p.Target]; old != nil {
			if hex.EncodeToString(old.Hashes["sha256"]) == p.SHA256 {
				continue
			}
			return nil, fault.New(fault.Conflict, "%s is in the repository with another content; give the new one another version", p.Target)
		}
		sum, err := hex.DecodeString(p.SHA256)
		if err != nil {
			return nil, err
		}
		text, err := json.Marshal(custom{p.Name, p.Version, p.Arch, p.Format, p.AddedAt})
		if err != nil {
			return nil, err
		}
		list[p.Target] = &metadata.TargetFiles{Length: p.Size, Hashes: metadata.Hashes{"sha256": sum}, Custom: (*json.RawMessage)(&text), Path: p.Target}
		added = append(added, p)
	}
	if len(added) == 0 {
		return nil, nil
	}
	return added, r.publish(list)
}

// store copies a file to where clients look for it: by its hash.
func (r *Repository) store(file string, p *Package) error {
	in, err := os.Open(file)
	if err != nil {
		return fault.Wrap(fault.NotFound, err, "read the package")
	}
	defer in.Close()
	dir := filepath.Join(r.cfg.Dir, "targets", filepath.FromSlash(path.Dir(p.Target)))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	out, err := os.CreateTemp(dir, ".partial-")
	if err != nil {
		return fault.Wrap(fault.Exhausted, err, "keep the package")
	}
	defer os.Remove(out.Name()) // renamed when all went well
	sum := sha256.New()
	p.Size, err = io.Copy(io.MultiWriter(out, sum), io.LimitReader(in, maxPackage+1))
	if err == nil && p.Size > maxPackage {
		err = fault.New(fault.Invalid, "%s is larger than %d MB", filepath.Base(file), maxPackage>>20)
	}
	err = cmp.Or(err, out.Chmod(0o644))
	err = cmp.Or(err, out.Sync())
	if err = cmp.Or(err, out.Close()); err != nil {
		return fmt.Errorf("keep the package: %w", err)
	}
	p.SHA256 = hex.EncodeToString(sum.Sum(nil))
	return os.Rename(out.Name(), filepath.Join(dir, p.SHA256+"."+path.Base(p.Target)))
}

// Remove takes a version of a package out of the repository. Its files stay
// until nobody can have metadata that names them: they are small and few.
func (r *Repository) Remove(version string) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := map[string]*metadata.TargetFiles{}
	removed := 0
	for name, t := range r.targets.Signed.Targets {
		if p, ok := described(name, t); ok && p.Version == version {
			removed++
			continue
		}
		list[name] = t
	}
	if removed == 0 {
		return 0, fault.New(fault.NotFound, "there is no package of version %s in the repository", version)
	}
	return removed, r.publish(list)
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

// List returns the packages, the newest version first.
func (r *Repository) List() []Package {
	r.mu.RLock()
	defer r.mu.RUnlock()
	list := []Package{}
	for name, t := range r.targets.Signed.Targets {
		if p, ok := described(name, t); ok {
			list = append(list, p)
		}
	}
	slices.SortFunc(list, func(a, b Package) int {
		return cmp.Or(semver.Compare("v"+b.Version, "v"+a.Version), cmp.Compare(a.Target, b.Target))
	})
	return list
}

// Newest returns the newest package of a form for a processor.
func (r *Repository) Newest(format, arch string) (Package, bool) {
	list := r.List()
	i := slices.IndexFunc(list, func(p Package) bool { return p.Format == format && p.Arch == arch })
	if i < 0 {
		return Package{}, false
	}
	return list[i], true
}

// Content opens the file of a package.
func (r *Repository) Content(p Package) (io.ReadCloser, error) {
	return r.dir.Open(r.file(p))
}

func (r *Repository) file(p Package) string {
	return path.Join("targets", path.Dir(p.Target), p.SHA256+"."+path.Base(p.Target))
}

// Fill takes the packages of a folder in that are not there yet. A folder that
// does not exist has none.
func (r *Repository) Fill(dir string) ([]Package, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		if _, ok := Describe(e.Name()); ok && e.Type().IsRegular() {
			files = append(files, filepath.Join(dir, e.Name()))
		}
	}
	return r.Add(files...)
}

// RoleStatus is how long what a role has signed is good for.
type RoleStatus struct {
	Version int64     `json:"version"`
	Expires time.Time `json:"expires"`
}

// Status is the state of the repository.
type Status struct {
	Root      RoleStatus `json:"root"`
	Targets   RoleStatus `json:"targets"`
	Snapshot  RoleStatus `json:"snapshot"`
	Timestamp RoleStatus `json:"timestamp"`
	Packages  []Package  `json:"packages"`
	Problem   string     `json:"problem" doc:"why it could not be signed again, empty when all is well"`
}

// Status returns the state of the repository.
func (r *Repository) Status() Status {
	list := r.List()
	r.mu.RLock()
	defer r.mu.RUnlock()
	return Status{
		Root:      RoleStatus{r.root.Signed.Version, r.root.Signed.Expires},
		Targets:   RoleStatus{r.targets.Signed.Version, r.targets.Signed.Expires},
		Snapshot:  RoleStatus{r.snapshot.Signed.Version, r.snapshot.Signed.Expires},
		Timestamp: RoleStatus{r.timestamp.Signed.Version, r.timestamp.Signed.Expires},
		Packages:  list, Problem: r.problem,
	}
}

// Handler serves the repository below a prefix: files, no folders. missing
// answers for what is not there.
func (r *Repository) Handler(prefix string, missing http.HandlerFunc) http.Handler {
	files := http.FileServerFS(r.dir.FS())
	return http.StripPrefix(prefix, http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		name := path.Clean(strings.TrimPrefix(q.URL.Path, "/"))
		info, err := r.dir.Stat(name)
		if err != nil || !info.Mode().IsRegular() || strings.HasPrefix(path.Base(name), ".") {
			missing(w, q)
			return
		}
		// What can change must not be kept on the way.
		w.Header().Set("Cache-Control", "no-store")
		files.ServeHTTP(w, q)
	}))
}

// Export copies the whole repository to a folder, for a mirror or a medium
// that is carried to where there is no network. The file that publishes comes
// last.
func (r *Repository) Export(dir string) error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	err := fs.WalkDir(r.dir.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == "metadata/timestamp.json" || strings.HasPrefix(d.Name(), ".partial-") {
			return err
		}
		to := filepath.Join(dir, filepath.FromSlash(name))
		if d.IsDir() {
			return os.MkdirAll(to, 0o755)
		}
		return r.copyOut(name, to)
	})
	if err != nil {
		return fmt.Errorf("export the repository: %w", err)
	}
	return r.copyOut("metadata/timestamp.json", filepath.Join(dir, "metadata", "timestamp.json"))
}

func (r *Repository) copyOut(name, to string) error {
	in, err := r.dir.Open(name)
	if err != nil {
		return err
	}
	defer in.Close()
	text, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	return atomicfile.Write(to, text, 0o644)
}
