package content

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/config"
	"github.com/theupdateframework/go-tuf/v2/metadata/updater"

	"komainu/fault"
	"komainu/internal/atomicfile"
	"komainu/internal/regular"
)

// Source is a folder that packages are imported from: an exported repository,
// a mirror, a medium. It is not trusted.
type Source struct {
	dir  *os.Root
	list []Package
	file map[string]string // target → file in the folder
}

// sumsFile is what lies beside packages that were just built.
const sumsFile = "SHA256SUMS"

// maxSums is more than sums take, in bytes.
const maxSums = 1 << 20

// OpenSource reads what a folder offers.
//
// If it is a repository, root is the one that is trusted of it, and memory a
// folder that remembers what was imported before: what is older is refused, as
// are wrong signatures and what has expired. If it holds plain packages with a
// file SHA256SUMS beside them, each has to have its sum; nothing says who made
// that file, so root must be empty then.
func OpenSource(dir string, root []byte, memory string, now time.Time) (*Source, error) {
	folder, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fault.Wrap(fault.NotFound, err, "open the folder")
	}
	s := &Source{dir: folder, file: map[string]string{}}
	_, signed := folder.Stat(published)
	switch {
	case signed == nil && len(root) == 0:
		err = fault.New(fault.Invalid, "%s is a signed repository; name the root that you trust of it with --root FILE (metadata/1.root.json, fetched from the control plane that made it)", dir)
	case signed == nil:
		err = s.verify(root, memory, now)
	case len(root) > 0:
		err = fault.New(fault.Invalid, "%s holds no signed repository (metadata/timestamp.json is not there)", dir)
	default:
		err = s.readSums(dir)
	}
	if err == nil {
		err = s.check()
	}
	if err != nil {
		return nil, errors.Join(err, folder.Close())
	}
	return s, nil
}

// Close lets go of the folder.
func (s *Source) Close() error { return s.dir.Close() }

// Packages are what the folder offers, each compared with its hash.
func (s *Source) Packages() []Package { return s.list }

// Open opens the file of a package. Whoever reads it compares it again: the
// folder may have changed.
func (s *Source) Open(p Package) (io.ReadCloser, error) {
	f, err := regular.Open(s.dir, s.file[p.Target])
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Size() > MaxPackage {
		err = fault.New(fault.Invalid, "%s is larger than %d MB, which no package of the agent is", p.Target, MaxPackage>>20)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// check compares every file with its hash before anything is taken.
func (s *Source) check() error {
	for _, p := range s.list {
		sum, err := sumOf(s.Open(p))
		if fault.Is(err, fault.Invalid) {
			return err
		}
		if err != nil {
			return fault.Wrap(fault.Invalid, err, "%s is named and not there; the copy is not whole", p.Target)
		}
		if sum != p.SHA256 {
			return fault.New(fault.Invalid, "%s is damaged or was exchanged: its SHA-256 is %s, not %s", p.Target, sum, p.SHA256)
		}
	}
	return nil
}

// verify follows the metadata from a trusted root.
func (s *Source) verify(root []byte, memory string, now time.Time) error {
	memory, err := memoryOf(memory, root)
	if err != nil {
		return err
	}
	if newer, err := os.ReadFile(filepath.Join(memory, "root.json")); err == nil {
		root = newer
	}
	cfg, err := config.New("https://folder/metadata", root)
	if err != nil {
		return err
	}
	folder := &folderFetcher{dir: s.dir}
	cfg.LocalMetadataDir, cfg.LocalTargetsDir, cfg.Fetcher = memory, memory, folder
	u, err := updater.New(cfg)
	if err != nil {
		return fault.Wrap(fault.Invalid, err, "the root is not a good one")
	}
	u.UnsafeSetRefTime(now)
	if err := u.Refresh(); err != nil {
		return fault.Wrap(fault.Invalid, err, "the repository in the folder is refused; nothing was imported")
	}
	for name, t := range u.GetTopLevelTargets() {
		p, ok := Describe(name)
		if !ok || p.Target != name {
			continue // definitions, one day
		}
		p.Size, p.SHA256 = t.Length, hex.EncodeToString(t.Hashes["sha256"])
		s.list, s.file[name] = append(s.list, p), fileOf(p)
	}
	for _, text := range folder.roots { // all of them were followed
		if err := atomicfile.Write(filepath.Join(memory, markOf(text)), nil, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// memoryOf returns the folder of what is known of the repository that a root
// belongs to. One that somebody names later, after rotations, leads to the
// same.
func memoryOf(all string, root []byte) (string, error) {
	mark := markOf(root)
	entries, err := os.ReadDir(all)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	for _, e := range entries {
		if _, err := os.Stat(filepath.Join(all, e.Name(), mark)); err == nil {
			return filepath.Join(all, e.Name()), nil
		}
	}
	dir := filepath.Join(all, mark)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	return dir, atomicfile.Write(filepath.Join(dir, mark), nil, 0o600)
}

// markOf is the name of the file that says: this root belongs here.
func markOf(root []byte) string {
	sum := sha256.Sum256(root)
	return "root-" + hex.EncodeToString(sum[:])
}

// folderFetcher gives a client of TUF the files of a folder.
type folderFetcher struct {
	dir   *os.Root
	roots [][]byte // that it has given
}

// DownloadFile implements fetcher.Fetcher.
func (f *folderFetcher) DownloadFile(url string, limit int64, _ time.Duration) ([]byte, error) {
	name := strings.TrimPrefix(url, "https://folder/")
	in, err := regular.Open(f.dir, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &metadata.ErrDownloadHTTP{StatusCode: http.StatusNotFound, URL: name}
	}
	if err != nil {
		return nil, err
	}
	defer in.Close()
	text, err := io.ReadAll(io.LimitReader(in, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = fmt.Errorf("%s is larger than %d bytes", name, limit)
	}
	if err == nil && strings.HasSuffix(name, ".root.json") {
		f.roots = append(f.roots, text)
	}
	return text, err
}

// readSums reads a folder of packages with their sums.
func (s *Source) readSums(dir string) error {
	in, err := regular.Open(s.dir, sumsFile)
	if errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.Invalid, "%s holds neither a signed repository nor packages with a file %s; add single files with komainu-control content add", dir, sumsFile)
	}
	if err != nil {
		return err
	}
	defer in.Close()
	text, err := io.ReadAll(io.LimitReader(in, maxSums))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		sum, name, ok := strings.Cut(strings.TrimSpace(line), " ")
		name = strings.TrimLeft(name, " *")
		p, known := Describe(name)
		if !ok || !known || path.Base(name) != name {
			continue
		}
		p.SHA256 = strings.ToLower(sum)
		s.list, s.file[p.Target] = append(s.list, p), name
	}
	if len(s.list) == 0 {
		return fault.New(fault.Invalid, "%s in %s names no package of the agent", sumsFile, dir)
	}
	return nil
}
