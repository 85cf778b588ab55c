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
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
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

	mu      sync.Mutex
	objects map[finding.ID]Object
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
				return nil, err
			}
		case strings.HasSuffix(e.Name(), suffix):
			o, err := readObject(filepath.Join(dir, e.Name()))
			if err != nil {
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
	o := Object{ID: r.ID, Path: r.Path, Threat: string(r.Threat), Size: info.Size(), Mode: uint32(info.Mode().Perm()), ModTime: info.ModTime().UTC(), Time: r.Time}
	o.UID, o.GID, o.Owner = ownerOf(info)
	if o, err = s.seal(ctx, o, r.File); err != nil {
		return Object{}, err
	}
	if r.SHA256 != "" && o.SHA256 != r.SHA256 {
		// It was written to since it was scanned: what is there now is unknown.
		_ = os.Remove(s.path(o.ID))
		return Object{}, fault.New(fault.Conflict, "%s has changed since it was scanned", r.Path)
	}
	if err := original.remove(); err != nil {
		_ = os.Remove(s.path(o.ID))
		return Object{}, err
	}
	s.mu.Lock()
	s.objects[o.ID] = o
	s.mu.Unlock()
	return o, nil
}

func (s *Store) path(id finding.ID) string {
	// An id of ours is a UUID; anything else is made harmless.
	return filepath.Join(s.dir, filepath.Base(filepath.Clean("/"+string(id)))+suffix)
}

// seal writes the object under its final name, flushed.
func (s *Store) seal(ctx context.Context, o Object, from *os.File) (_ Object, err error) {
	tmp, err := os.CreateTemp(s.dir, "*"+partial)
	if err != nil {
		return o, full(err)
	}
	defer func() {
		if err != nil {
			tmp.Close()
			_ = os.Remove(tmp.Name())
			err = full(err)
		}
	}()
	iv := make([]byte, aes.BlockSize)
	_, _ = rand.Read(iv)
	// The hash is known after the content: the header has a fixed room, so
	// that it can be written last.
	body := int64(len(magic) + 4 + aes.BlockSize + maxHeaderOf(o))
	stream, err := s.stream(iv)
	if err != nil {
		return o, err
	}
	sum := sha256.New()
	out := &cipher.StreamWriter{S: stream, W: io.NewOffsetWriter(tmp, body)}
	n, err := io.Copy(io.MultiWriter(sum, out), &contextReader{ctx, io.NewSectionReader(from, 0, o.Size)})
	if err != nil {
		return o, err
	}
	o.Size, o.SHA256 = n, hex.EncodeToString(sum.Sum(nil))
	head, err := encodeHeader(o, iv, int(body))
	if err != nil {
		return o, err
	}
	if _, err := tmp.WriteAt(head, 0); err != nil {
		return o, err
	}
	if err := tmp.Sync(); err != nil {
		return o, err
	}
	if err := tmp.Close(); err != nil {
		return o, err
	}
	if err := os.Rename(tmp.Name(), s.path(o.ID)); err != nil {
		return o, err
	}
	atomicfile.SyncDir(s.dir)
	return o, nil
}

func (s *Store) stream(iv []byte) (cipher.Stream, error) {
	block, err := aes.NewCipher(s.key)
	if err != nil {
		return nil, err
	}
	return cipher.NewCTR(block, iv), nil
}

// maxHeaderOf leaves room for the parts of the header that are known last.
func maxHeaderOf(o Object) int {
	b, err := json.Marshal(o)
	if err != nil {
		return maxHeader
	}
	return len(b) + 128
}

// encodeHeader makes the bytes in front of the content:
//
//	"KMQ1"  length of the rest of the header u32  iv [16]  JSON, padded with spaces
func encodeHeader(o Object, iv []byte, size int) ([]byte, error) {
	text, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	b := append([]byte(magic), 0, 0, 0, 0)
	binary.LittleEndian.PutUint32(b[4:], uint32(size-8))
	b = append(append(b, iv...), text...)
	if len(b) > size {
		return nil, fmt.Errorf("header of %d bytes in a room of %d", len(b), size)
	}
	for len(b) < size {
		b = append(b, ' ')
	}
	return b, nil
}

// readHeader returns the object, the iv and where the content begins.
func readHeader(r io.Reader) (o Object, iv []byte, body int64, err error) {
	var fixed [8]byte
	if _, err := io.ReadFull(r, fixed[:]); err != nil || string(fixed[:4]) != magic {
		return o, nil, 0, fault.New(fault.Invalid, "no sealed object")
	}
	n := binary.LittleEndian.Uint32(fixed[4:])
	if n < aes.BlockSize || n > maxHeader {
		return o, nil, 0, fault.New(fault.Invalid, "sealed object with a header of %d bytes", n)
	}
	rest := make([]byte, n)
	if _, err := io.ReadFull(r, rest); err != nil {
		return o, nil, 0, fault.New(fault.Invalid, "sealed object that ends in its header")
	}
	if err := json.Unmarshal(rest[aes.BlockSize:], &o); err != nil || o.ID == "" || o.Size < 0 {
		return o, nil, 0, fault.New(fault.Invalid, "sealed object with a damaged header")
	}
	return o, rest[:aes.BlockSize], int64(len(fixed)) + int64(n), nil
}

func readObject(name string) (Object, error) {
	f, err := os.Open(name)
	if err != nil {
		return Object{}, err
	}
	defer f.Close()
	o, _, _, err := readHeader(f)
	return o, err
}

// contextReader ends a copy when ctx does.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// full gives a full disk its kind.
func full(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fault.Wrap(fault.Exhausted, err, "no space to seal the file; free some on the disk of the agent's state folder")
	}
	return err
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

// Restore puts a file back where it was, or into a folder, and returns its
// path. The sealed object is removed once the file is whole. Errors:
// fault.NotFound for the object or the folder, fault.Conflict when a file is
// in the way.
func (s *Store) Restore(ctx context.Context, id finding.ID, folder string) (string, error) {
	o, err := s.Get(id)
	if err != nil {
		return "", err
	}
	target := o.Path
	if folder != "" {
		target = filepath.Join(folder, filepath.Base(o.Path))
	}
	sealed, err := os.Open(s.path(id))
	if err != nil {
		return "", err
	}
	defer sealed.Close()
	_, iv, body, err := readHeader(sealed)
	if err != nil {
		return "", err
	}
	if _, err := sealed.Seek(body, io.SeekStart); err != nil {
		return "", err
	}
	stream, err := s.stream(iv)
	if err != nil {
		return "", err
	}
	if err := s.unseal(ctx, o, &cipher.StreamReader{S: stream, R: io.LimitReader(sealed, o.Size)}, target); err != nil {
		return "", err
	}
	return target, s.Remove(id)
}

func (s *Store) unseal(ctx context.Context, o Object, from io.Reader, target string) error {
	root, err := os.OpenRoot(filepath.Dir(target))
	if err != nil {
		return fault.Wrap(fault.NotFound, err, "the folder to restore into")
	}
	defer root.Close()
	name := filepath.Base(target)
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fault.New(fault.Conflict, "%s exists; move it away, or restore into another folder with --destination-path", target)
	}
	if err != nil {
		return full(err)
	}
	sum := sha256.New()
	_, err = io.Copy(io.MultiWriter(f, sum), &contextReader{ctx, from})
	if err == nil && hex.EncodeToString(sum.Sum(nil)) != o.SHA256 {
		err = fault.New(fault.Invalid, "the sealed object %s is damaged: its content is not what was sealed", o.ID)
	}
	if err == nil {
		err = giveBack(f, o)
	}
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		_ = root.Remove(name)
		return full(err)
	}
	return nil
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
