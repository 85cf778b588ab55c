package content

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"golang.org/x/mod/semver"

	"komainu/fault"
	"komainu/internal/atomicfile"
)

// Agent is the name of the agent's packages.
const Agent = "komainu-agent"

// MaxPackage is more than a package of the agent takes, in bytes.
const MaxPackage = 256 << 20

// Forms of package files, as nfpm and dev packages name them, and how their
// files begin.
var forms = []struct {
	format string
	name   *regexp.Regexp
	magic  string
}{
	{"deb", regexp.MustCompile(`^(` + Agent + `)_([0-9A-Za-z.+~-]+)_(amd64|arm64)\.deb$`), "!<arch>\n"},
	{"rpm", regexp.MustCompile(`^(` + Agent + `)-([0-9A-Za-z.+~-]+)-1\.(x86_64|aarch64)\.rpm$`), "\xed\xab\xee\xdb"},
	{"tar", regexp.MustCompile(`^(` + Agent + `)_([0-9A-Za-z.+~-]+)_(amd64|arm64)\.tar\.gz$`), "\x1f\x8b"},
}

// Describe says which package a file is, by its name.
func Describe(file string) (Package, bool) {
	p, _, ok := describe(filepath.Base(file))
	return p, ok
}

func describe(name string) (p Package, magic string, ok bool) {
	for _, f := range forms {
		if m := f.name.FindStringSubmatch(name); m != nil {
			arch := strings.NewReplacer("x86_64", "amd64", "aarch64", "arm64").Replace(m[3])
			version := strings.ReplaceAll(m[2], "~", "-") // as the agent says it itself
			p := Package{Name: m[1], Version: version, Arch: arch, Format: f.format, Target: path.Join(m[1], version, name)}
			return p, f.magic, semver.IsValid("v" + version)
		}
	}
	return Package{}, "", false
}

// Staged is a package file that lies in the repository's folder and is not
// part of it yet.
type Staged struct {
	Package

	file string
}

// Discard deletes the file of a package that was not taken in.
func (s *Staged) Discard() { _ = os.Remove(s.file) }

// Stage copies a package file beside the repository. name is that of the file
// and says which package it is; sum, unless it is empty, is the SHA-256 that
// it has to have. It works without holding anybody up. Errors: fault.Invalid
// for what is no package of ours or not the one that was meant,
// fault.Exhausted when it is too large or the disk is full.
func (r *Repository) Stage(name string, in io.Reader, sum string) (_ *Staged, err error) {
	p, magic, ok := describe(name)
	if !ok {
		return nil, fault.New(fault.Invalid, "%q is no package of the agent: its name tells that, like %s_1.2.3_amd64.deb", name, Agent)
	}
	if err := r.cfg.step("stage " + name); err != nil {
		return nil, err
	}
	out, err := os.CreateTemp(filepath.Join(r.cfg.Dir, incomingFolder), "package-")
	if err != nil {
		return nil, full(fmt.Errorf("keep the package: %w", err))
	}
	staged := &Staged{p, out.Name()}
	defer func() {
		if err != nil {
			staged.Discard()
		}
	}()
	hash, head := sha256.New(), &head{}
	staged.Size, err = io.Copy(io.MultiWriter(out, hash, head), io.LimitReader(in, MaxPackage+1))
	if err == nil && staged.Size > MaxPackage {
		err = fault.New(fault.Exhausted, "%s is larger than %d MB", name, MaxPackage>>20)
	}
	err = cmp.Or(err, out.Chmod(0o644), out.Sync())
	if err = cmp.Or(err, out.Close()); err != nil {
		return nil, full(fmt.Errorf("keep the package: %w", err))
	}
	staged.SHA256 = hex.EncodeToString(hash.Sum(nil))
	if sum != "" && !strings.EqualFold(sum, staged.SHA256) {
		return nil, fault.New(fault.Invalid, "%s came damaged, or is another one: its SHA-256 is %s, not %s", name, staged.SHA256, sum)
	}
	if !bytes.HasPrefix(head.bytes, []byte(magic)) {
		return nil, fault.New(fault.Invalid, "%s does not begin like a file of the kind %s; it was not copied whole, or has a wrong name", name, p.Format)
	}
	return staged, nil
}

// head keeps the first bytes of what is written.
type head struct{ bytes []byte }

func (h *head) Write(b []byte) (int, error) {
	h.bytes = append(h.bytes, b[:min(len(b), 8-len(h.bytes))]...)
	return len(b), nil
}

// Take makes staged packages part of the repository, all of them or none, and
// returns those that are new. Errors: fault.Conflict when a package is there
// with another content.
func (r *Repository) Take(staged ...*Staged) (added []Package, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer func() {
		for _, s := range staged {
			s.Discard() // those that were moved are not there any more
		}
		if err != nil {
			r.sweep()
		}
	}()
	list := map[string]*metadata.TargetFiles{}
	maps.Copy(list, r.targets.Signed.Targets)
	for _, s := range staged {
		if old := list[s.Target]; old != nil {
			if hex.EncodeToString(old.Hashes["sha256"]) == s.SHA256 {
				continue
			}
			return nil, conflict(s.Target)
		}
		s.AddedAt = r.now()
		if list[s.Target], err = s.target(); err != nil {
			return nil, err
		}
		if err := r.place(s); err != nil {
			return nil, err
		}
		added = append(added, s.Package)
	}
	if len(added) == 0 {
		return nil, nil
	}
	if err := r.publish(list); err != nil {
		return nil, err
	}
	r.tookBack(staged)
	r.damage = ""
	return added, nil
}

func conflict(target string) error {
	return fault.New(fault.Conflict, "%s is in the repository with another content; give the new one another version", target)
}

// target is what the metadata says of a package.
func (s *Staged) target() (*metadata.TargetFiles, error) {
	sum, err := hex.DecodeString(s.SHA256)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(custom{s.Name, s.Version, s.Arch, s.Format, s.AddedAt})
	if err != nil {
		return nil, err
	}
	return &metadata.TargetFiles{Length: s.Size, Hashes: metadata.Hashes{"sha256": sum}, Custom: (*json.RawMessage)(&text), Path: s.Target}, nil
}

// place moves a file to where clients look for it. Its name is on disk when it
// returns: metadata must never name a file that a crash takes away.
func (r *Repository) place(s *Staged) error {
	if err := r.cfg.step("place " + s.Target); err != nil {
		return err
	}
	file := fileOf(s.Package)
	if err := r.dir.MkdirAll(path.Dir(file), 0o755); err != nil {
		return full(err)
	}
	to := filepath.Join(r.cfg.Dir, filepath.FromSlash(file))
	if err := os.Rename(s.file, to); err != nil {
		return full(err)
	}
	for dir := filepath.Dir(to); len(dir) >= len(r.cfg.Dir); dir = filepath.Dir(dir) {
		atomicfile.SyncDir(dir)
	}
	return nil
}

// Add takes package files into the repository, all of them or none. Those that
// are there already are passed over. Errors are those of Stage and Take.
func (r *Repository) Add(files ...string) ([]Package, error) {
	var staged []*Staged
	defer func() {
		for _, s := range staged {
			s.Discard()
		}
	}()
	for _, file := range files {
		s, err := r.stageFile(file)
		if err != nil {
			return nil, err
		}
		if s != nil {
			staged = append(staged, s)
		}
	}
	return r.Take(staged...)
}

// stageFile stages a file, unless the repository has it already: then it is
// only read.
func (r *Repository) stageFile(file string) (*Staged, error) {
	in, err := os.Open(file)
	if err != nil {
		return nil, fault.Wrap(fault.NotFound, err, "read the package")
	}
	defer in.Close()
	p, known := Describe(file)
	r.mu.RLock()
	old := r.targets.Signed.Targets[p.Target]
	r.mu.RUnlock()
	if known && old != nil {
		hash := sha256.New()
		if _, err := io.Copy(hash, in); err != nil {
			return nil, err
		}
		if !bytes.Equal(hash.Sum(nil), old.Hashes["sha256"]) {
			return nil, conflict(p.Target)
		}
		return nil, nil
	}
	return r.Stage(filepath.Base(file), in, "")
}

// Fill takes the packages of a folder in that are not there yet, but for those
// that somebody has removed: these come back when somebody adds them. A folder
// that does not exist has none.
func (r *Repository) Fill(dir string) ([]Package, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r.mu.RLock()
	removed, err := r.removed()
	r.mu.RUnlock()
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		if _, ok := Describe(e.Name()); !ok || !e.Type().IsRegular() {
			continue
		}
		file := filepath.Join(dir, e.Name())
		left, err := leftOut(file, removed)
		if err != nil {
			return nil, err
		}
		if left {
			r.cfg.Log.Info("a package is left out of the repository, because it was removed; komainu-control content add takes it back", "file", file)
			continue
		}
		files = append(files, file)
	}
	return r.Add(files...)
}

// Remove takes a version of a package out of the repository and returns how
// many files it had. They are deleted when no client can have metadata any
// more that names them. That it was removed is on disk before it is done.
func (r *Repository) Remove(version string) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := map[string]*metadata.TargetFiles{}
	var gone []Package
	for name, t := range r.targets.Signed.Targets {
		if p, ok := described(name, t); ok && p.Version == version {
			gone = append(gone, p)
			continue
		}
		list[name] = t
	}
	if len(gone) == 0 {
		return 0, fault.New(fault.NotFound, "there is no package of version %s in the repository", version)
	}
	undo, err := r.remember(gone)
	if err != nil {
		return 0, err
	}
	if err := r.publish(list); err != nil {
		undo()
		return 0, err
	}
	return len(gone), nil
}

// sweep deletes what nobody can ask for any more: metadata that was never
// published, metadata that was replaced longer ago than a timestamp lives,
// files that no metadata names which is left, and what a crash has left. What
// it cannot delete it tries again with the next version. The caller holds mu.
func (r *Repository) sweep() {
	if r.timestamp.Signed.Version == 0 {
		return // the list was damaged; what clients have seen is not known
	}
	for _, name := range r.unused(metadata.SNAPSHOT, r.snapshot.Signed.Version) {
		r.remove(name)
	}
	for _, name := range r.unused(metadata.TARGETS, r.targets.Signed.Version) {
		r.remove(name)
	}
	named, whole := map[string]bool{}, true
	for _, version := range r.versions(metadata.TARGETS) {
		m, err := read[metadata.TargetsType](r, numbered(version, metadata.TARGETS))
		if err != nil {
			whole = false // what it named is not known
			continue
		}
		for name, t := range m.Signed.Targets {
			if p, ok := described(name, t); ok {
				named[fileOf(p)] = true
			}
		}
	}
	_ = fs.WalkDir(r.dir.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || d.IsDir():
		case strings.HasPrefix(name, metadataFolder+"/.") || strings.HasPrefix(name, targetsFolder+"/") && whole && !named[name]:
			r.remove(name)
		}
		return nil
	})
}

func (r *Repository) remove(name string) {
	if r.cfg.step("remove "+name) != nil {
		return
	}
	if err := r.dir.Remove(name); err != nil {
		r.cfg.Log.Warn("something could not be deleted that the repository does not need any more", "file", name, "error", err)
		return
	}
	if dir := path.Dir(name); dir != metadataFolder && dir != targetsFolder {
		_ = r.dir.Remove(dir) // when it was the last one in it
	}
}

// unused lists the metadata of a role that no client can be on the way to, by
// the version that is in use. That one stays however old it is: timestamps are
// renewed without it.
func (r *Repository) unused(role string, current int64) (names []string) {
	list := r.versions(role)
	for i, version := range list {
		switch {
		case version > current: // what published it did not come to its end
			names = append(names, numbered(version, role))
		case version < current && i+1 < len(list) && list[i+1] < r.now().Add(-lives[metadata.TIMESTAMP]).Unix():
			// It was in use until the next one, whose number is its time.
			names = append(names, numbered(version, role))
		}
	}
	return names
}

// versions lists those of a role that are on disk, in their order.
func (r *Repository) versions(role string) []int64 {
	entries, err := fs.ReadDir(r.dir.FS(), metadataFolder)
	if err != nil {
		return nil
	}
	var list []int64
	for _, e := range entries {
		if text, ok := strings.CutSuffix(e.Name(), "."+role+".json"); ok {
			if n, err := strconv.ParseInt(text, 10, 64); err == nil {
				list = append(list, n)
			}
		}
	}
	slices.Sort(list)
	return list
}
