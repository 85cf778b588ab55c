// Package quarantine keeps malware where nothing can open or run it, and
// remembers what was found.
//
// A Store holds sealed objects: the content of a file, encrypted with a key of
// the store, behind a header that says where it was and how to put it back
// (docs/formats/quarantine.md). Encryption keeps other scanners, backups and
// curious users from meeting the malware again; it is no secrecy from root.
//
// Sealing is safe against crashes: the object is on disk before the original
// is removed, so that at every moment there is the one or the other. It is
// safe against swapped paths: the file is removed relative to a handle of its
// folder, and only if the name still means the file that was scanned.
//
// A file with several hard links loses the name that was found; the others
// stay, and each is denied and sealed when it is opened.
package quarantine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"komainu/fault"
	"komainu/finding"
	"komainu/internal/atomicfile"
)

// Limits of what is sealed.
const (
	MaxSize   = 4 << 30   // bytes of a file
	maxHeader = 256 << 10 // bytes of an object's header
	reserve   = 16 << 20  // bytes that stay free on the disk
)

// Store is an open quarantine. It is safe for concurrent use.
type Store struct {
	dir string
	key []byte

	// at is called between the steps of Add and Restore, for tests that end the
	// program there; nil otherwise.
	at func(step string)

	mu      sync.Mutex
	objects map[finding.ID]Object
}

func (s *Store) step(name string) {
	if s.at != nil {
		s.at(name)
	}
}

// Request asks to seal a file.
type Request struct {
	ID     finding.ID
	File   *os.File // open for reading: the file that was scanned
	Path   string   // where it was opened
	Threat finding.ThreatName
	SHA256 string // of the verdict; "" if unknown
	Time   time.Time
}

// Object is a sealed file.
type Object struct {
	ID      finding.ID `json:"id"`
	Path    string     `json:"path"`
	Folder  string     `json:"folder,omitempty"` // of the file, without symbolic links
	Threat  string     `json:"threat"`
	SHA256  string     `json:"sha256"`
	Size    int64      `json:"size"`
	Mode    uint32     `json:"mode"` // permission bits
	UID     int        `json:"uid"`
	GID     int        `json:"gid"`
	Owner   string     `json:"owner"` // "user:group" when it was sealed
	ModTime time.Time  `json:"modTime"`
	Time    time.Time  `json:"time"` // when it was sealed
}

const (
	suffix  = ".sealed"
	partial = ".partial"
	magic   = "KMQ1"
)

// Open opens or creates a store and sweeps what a crash has left half done.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open quarantine: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil { // it may have been made by hand
		return nil, fmt.Errorf("open quarantine: %w", err)
	}
	key, err := openKey(filepath.Join(dir, "key"))
	if err != nil {
		return nil, fmt.Errorf("open quarantine: %w", err)
	}
	s := &Store{dir: dir, key: key, objects: map[finding.ID]Object{}}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open quarantine: %w", err)
	}
	for _, e := range entries {
		switch {
		case strings.HasSuffix(e.Name(), partial):
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return nil, fmt.Errorf("open quarantine: %w", err)
			}
		case strings.HasSuffix(e.Name(), suffix):
			o, err := readObject(filepath.Join(dir, e.Name()))
			if err != nil || s.path(o.ID) != filepath.Join(dir, e.Name()) {
				continue // stays on disk for somebody to look at
			}
			s.objects[o.ID] = o
		}
	}
	return s, nil
}

func openKey(name string) ([]byte, error) {
	key, err := os.ReadFile(name)
	if err == nil && len(key) == 32 {
		return key, nil
	}
	if err == nil {
		return nil, fault.New(fault.Invalid, "%s has %d bytes instead of 32; what is sealed cannot be restored without it", name, len(key))
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	key = make([]byte, 32)
	_, _ = rand.Read(key) // ends the program when there is no randomness
	return key, atomicfile.Write(name, key, 0o600)
}

// Add seals a file and removes it from where it was. Errors: fault.Exhausted
// when the disk is full or the file too large, fault.Conflict when the path
// means another file by now; the original is untouched then.
func (s *Store) Add(ctx context.Context, r Request) (Object, error) {
	info, err := r.File.Stat()
	if err != nil {
		return Object{}, err
	}
	if !info.Mode().IsRegular() {
		return Object{}, fault.New(fault.Invalid, "%s is no regular file", r.Path)
	}
	if info.Size() > MaxSize {
		return Object{}, fault.New(fault.Exhausted, "%s has %d bytes, more than the %d that are sealed", r.Path, info.Size(), int64(MaxSize))
	}
	if err := enoughSpace(s.dir, info.Size()); err != nil {
		return Object{}, err
	}
	original, err := findOriginal(r.Path, info)
	if err != nil {
		return Object{}, err
	}
	defer original.close()
	s.mu.Lock()
	_, again := s.objects[r.ID]
	s.mu.Unlock()
	if again {
		return Object{}, fault.New(fault.Conflict, "threat %s is in quarantine already", r.ID)
	}
	o := Object{ID: r.ID, Path: r.Path, Folder: original.realFolder(), Threat: string(r.Threat), Size: info.Size(), Mode: uint32(info.Mode().Perm()), ModTime: info.ModTime().UTC(), Time: r.Time}
	o.UID, o.GID, o.Owner = ownerOf(info)
	if o, err = s.seal(ctx, o, r.File); err != nil {
		return Object{}, err
	}
	after, err := r.File.Stat()
	if err == nil && (after.Size() != o.Size || r.SHA256 != "" && o.SHA256 != r.SHA256) {
		// It was written to since it was scanned: what is there now is unknown.
		err = fault.New(fault.Conflict, "%s has changed since it was scanned", r.Path)
	}
	if err == nil {
		err = original.remove()
	}
	if err != nil {
		return Object{}, errors.Join(err, os.Remove(s.path(o.ID)))
	}
	s.step("removed")
	s.mu.Lock()
	s.objects[o.ID] = o
	s.mu.Unlock()
	return o, nil
}

func (s *Store) path(id finding.ID) string {
	// An id of ours is a UUID; anything else is made harmless.
	return filepath.Join(s.dir, filepath.Base(filepath.Clean("/"+string(id)))+suffix)
}

// List returns the sealed objects, newest first.
func (s *Store) List() ([]Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]Object, 0, len(s.objects))
	for _, o := range s.objects {
		list = append(list, o)
	}
	slices.SortFunc(list, func(a, b Object) int {
		if c := b.Time.Compare(a.Time); c != 0 {
			return c
		}
		return strings.Compare(string(a.ID), string(b.ID))
	})
	return list, nil
}

// Get returns one object. Errors: fault.NotFound.
func (s *Store) Get(id finding.ID) (Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.objects[id]
	if !ok {
		return Object{}, fault.New(fault.NotFound, "there is no object %s in quarantine; see komainu threat quarantine list", id)
	}
	return o, nil
}

// Remove deletes an object for ever. Errors: fault.NotFound.
func (s *Store) Remove(id finding.ID) error {
	if _, err := s.Get(id); err != nil {
		return err
	}
	if err := os.Remove(s.path(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.objects, id)
	return nil
}

// Purge deletes what was sealed before a time and returns how many.
func (s *Store) Purge(before time.Time) (int, error) {
	list, err := s.List()
	n := 0
	for _, o := range list {
		if o.Time.Before(before) && err == nil {
			err = s.Remove(o.ID)
			n++
		}
	}
	return n, err
}
