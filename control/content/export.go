package content

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"komainu/fault"
	"komainu/internal/atomicfile"
)

// Copy is what an export has written.
type Copy struct {
	Packages []Package
	Expires  time.Time // when clients begin to refuse it
}

// Export copies a repository from its folder to another one, for a mirror or a
// medium that is carried to where there is no network. It needs no keys and
// holds nobody up: the repository may be in use and may be changed meanwhile.
// timestamp is what SignCopy has returned, nil for what is published. What is
// there already is kept, packages are compared with their hashes, and the file
// that publishes comes last. Errors: fault.Conflict for a repository that has
// expired.
func Export(from, to string, timestamp []byte, now time.Time) (Copy, error) {
	dir, err := os.OpenRoot(from)
	if err != nil {
		return Copy{}, fault.Wrap(fault.NotFound, err, "open the repository")
	}
	defer dir.Close()
	r := &Repository{dir: dir}
	if timestamp == nil {
		if timestamp, err = dir.ReadFile(published); err != nil {
			return Copy{}, fault.Wrap(fault.NotFound, err, "%s holds no repository", from)
		}
	}
	names, list, expires, err := r.reached(timestamp)
	if err != nil {
		return Copy{}, fmt.Errorf("export the repository: %w", err)
	}
	if !now.Before(expires) {
		return Copy{}, fault.New(fault.Conflict, "the signatures of the repository have expired on %s, and whoever reads the copy would refuse it: start the control plane, which signs anew, or export as its user", expires.Format(time.DateTime))
	}
	for _, p := range list {
		if err := copyPackage(dir, p, to); err != nil {
			return Copy{}, fmt.Errorf("export %s: %w", p.Target, full(err))
		}
	}
	for _, name := range append(names, published) {
		text := timestamp
		if name != published {
			if text, err = dir.ReadFile(name); err != nil {
				return Copy{}, err
			}
		}
		file := filepath.Join(to, filepath.FromSlash(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), atomicfile.Write(file, text, 0o644)); err != nil {
			return Copy{}, fmt.Errorf("export the repository: %w", full(err))
		}
	}
	return Copy{list, expires}, nil
}

// reached lists the metadata and the packages that a timestamp leads to, in
// the order in which a copy has to be written, and says when the first of it
// expires.
func (r *Repository) reached(timestamp []byte) (names []string, list []Package, expires time.Time, err error) {
	t, err := new(metadata.Metadata[metadata.TimestampType]).FromBytes(timestamp)
	if err != nil || t.Signed.Meta["snapshot.json"] == nil {
		return nil, nil, expires, errors.Join(err, fault.New(fault.Invalid, "timestamp.json is damaged"))
	}
	snapshot := numbered(t.Signed.Meta["snapshot.json"].Version, metadata.SNAPSHOT)
	s, err := read[metadata.SnapshotType](r, snapshot)
	if err != nil || s.Signed.Meta["targets.json"] == nil {
		return nil, nil, expires, errors.Join(err, fault.New(fault.Invalid, "%s is damaged", snapshot))
	}
	targets := numbered(s.Signed.Meta["targets.json"].Version, metadata.TARGETS)
	of, err := read[metadata.TargetsType](r, targets)
	if err != nil {
		return nil, nil, expires, err
	}
	names = []string{targets, snapshot}
	var last time.Time // the end of the newest root
	for version := int64(1); ; version++ {
		root, err := read[metadata.RootType](r, rootName(version))
		if errors.Is(err, fs.ErrNotExist) {
			break
		} else if err != nil {
			return nil, nil, expires, err
		}
		names, last = append(names, rootName(version)), root.Signed.Expires
	}
	expires = slices.MinFunc([]time.Time{t.Signed.Expires, s.Signed.Expires, of.Signed.Expires, last}, time.Time.Compare)
	return names, packages(of.Signed.Targets), expires, nil
}

// copyPackage copies a package unless the copy is there.
func copyPackage(dir *os.Root, p Package, to string) (err error) {
	if strings.Contains(p.Target, "..") || path.IsAbs(p.Target) {
		return fault.New(fault.Invalid, "the repository names a file outside of itself")
	}
	file := filepath.Join(to, filepath.FromSlash(fileOf(p)))
	if sum, err := sumOf(os.Open(file)); err == nil && sum == p.SHA256 {
		return nil
	}
	in, err := dir.Open(fileOf(p))
	if err != nil {
		return err
	}
	defer in.Close()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	out, err := os.CreateTemp(filepath.Dir(file), ".partial-")
	if err != nil {
		return err
	}
	defer os.Remove(out.Name()) // renamed when all went well
	hash := sha256.New()
	_, err = io.Copy(io.MultiWriter(out, hash), in)
	if err = errors.Join(err, out.Chmod(0o644), out.Sync(), out.Close()); err != nil {
		return err
	}
	if hex.EncodeToString(hash.Sum(nil)) != p.SHA256 {
		return fault.New(fault.Invalid, "its file is damaged; remove this version and add it again")
	}
	return os.Rename(out.Name(), file)
}

func sumOf(f io.ReadCloser, err error) (string, error) {
	if err != nil {
		return "", err
	}
	defer f.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

// Save writes everything that a backup needs, keys included, as it is at one
// moment: file gets names below repository and keys.
func (r *Repository) Save(repository, keys func(name string, fill func(io.Writer) error) error) error {
	parts, list, err := r.capture()
	if err != nil {
		return fmt.Errorf("save the repository: %w", err)
	}
	for _, p := range list {
		err := repository(fileOf(p), func(w io.Writer) error {
			in, err := r.Content(p)
			if err != nil {
				return err
			}
			defer in.Close()
			_, err = io.Copy(w, in)
			return err
		})
		if err != nil {
			return err
		}
	}
	for _, part := range parts {
		save := repository
		if part.key {
			save = keys
		}
		err := save(part.name, func(w io.Writer) error {
			_, err := w.Write(part.text)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// part is a small file of a repository.
type part struct {
	name string
	text []byte
	key  bool
}

// capture reads metadata and keys while nothing changes.
func (r *Repository) capture() (parts []part, list []Package, err error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	timestamp, err := r.dir.ReadFile(published)
	if err != nil {
		return nil, nil, err
	}
	names, list, _, err := r.reached(timestamp)
	if err != nil {
		return nil, nil, err
	}
	for _, name := range names {
		text, err := r.dir.ReadFile(name)
		if err != nil {
			return nil, nil, err
		}
		parts = append(parts, part{name: name, text: text})
	}
	parts = append(parts, part{name: published, text: timestamp})
	if text, err := r.dir.ReadFile(removedFile); err == nil {
		parts = append(parts, part{name: removedFile, text: text})
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	entries, err := os.ReadDir(r.cfg.Keys)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(r.cfg.Keys, e.Name()))
		if err != nil {
			return nil, nil, err
		}
		parts = append(parts, part{name: e.Name(), text: text, key: true})
	}
	return parts, list, nil
}
