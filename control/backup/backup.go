// Package backup is the form of a backup: one file that holds named files and,
// last, a manifest with the size and the hash of each.
//
// It is a tar archive, compressed with zstd and, on request, encrypted with
// age. A file is written while nobody knows yet how long it gets, so a long
// one is cut into entries NAME, NAME.part0001, and so on. Because the manifest
// comes last, a backup that was cut off anywhere has none and is refused.
package backup

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"komainu/fault"
)

// Format numbers the layout of a backup. A higher number is refused.
const Format = 1

// Names of the entries that are not files of the control plane.
const (
	headEntry     = "komainu-backup"
	manifestEntry = "manifest.json"
)

// partSize is how much of a file one entry holds at most.
const partSize = 4 << 20

// maxManifest bounds what is read as a manifest.
const maxManifest = 4 << 20

// Manifest says what a backup holds.
type Manifest struct {
	Format    int              `json:"format"`
	Version   string           `json:"version"` // of the control plane that made it
	CreatedAt time.Time        `json:"createdAt"`
	Host      string           `json:"host"`
	CA        string           `json:"ca"`     // pin
	Counts    map[string]int64 `json:"counts"` // what it brings back, by kind
	Files     []File           `json:"files"`
}

// File is one file of a backup.
type File struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// Writer writes a backup.
type Writer struct {
	zip   *zstd.Encoder
	tar   *tar.Writer
	files []File
	now   time.Time
}

// NewWriter begins a backup.
func NewWriter(w io.Writer, now time.Time) (*Writer, error) {
	zip, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	b := &Writer{zip: zip, tar: tar.NewWriter(zip), now: now}
	return b, b.entry(headEntry, fmt.Appendf(nil, "%d\n", Format))
}

func (w *Writer) entry(name string, body []byte) error {
	if err := w.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(body)), Mode: 0o600, ModTime: w.now}); err != nil {
		return err
	}
	_, err := w.tar.Write(body)
	return err
}

// File adds a file that fill writes. Names are slash-separated and local.
func (w *Writer) File(name string, fill func(io.Writer) error) error {
	f := &fileWriter{w: w, name: name, hash: sha256.New()}
	if err := fill(f); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if f.parts == 0 || f.buffer.Len() > 0 {
		if err := f.flush(); err != nil {
			return err
		}
	}
	w.files = append(w.files, File{name, f.size, hex.EncodeToString(f.hash.Sum(nil))})
	return nil
}

// Close writes the manifest and ends the backup.
func (w *Writer) Close(m Manifest) error {
	m.Format, m.Files = Format, w.files
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return errors.Join(w.entry(manifestEntry, append(text, '\n')), w.tar.Close(), w.zip.Close())
}

// fileWriter cuts a file into entries.
type fileWriter struct {
	w      *Writer
	name   string
	parts  int
	size   int64
	hash   hash.Hash
	buffer bytes.Buffer
}

// Write implements io.Writer.
func (f *fileWriter) Write(b []byte) (int, error) {
	f.hash.Write(b)
	f.size += int64(len(b))
	written := len(b)
	for len(b) > 0 {
		n := min(len(b), partSize-f.buffer.Len())
		f.buffer.Write(b[:n])
		b = b[n:]
		if f.buffer.Len() == partSize {
			if err := f.flush(); err != nil {
				return 0, err
			}
		}
	}
	return written, nil
}

func (f *fileWriter) flush() error {
	name := f.name
	if f.parts > 0 {
		name = fmt.Sprintf("%s%s%04d", f.name, partMark, f.parts)
	}
	f.parts++
	err := f.w.entry(name, f.buffer.Bytes())
	f.buffer.Reset()
	return err
}

// partMark is between the name of a file and the number of its part.
const partMark = ".part"

// Read reads a backup to its end and checks it against its manifest. Each file
// goes to what open returns for its name; Read closes that. Nothing that was
// written may be used when Read fails. Errors: fault.Invalid for what is no
// backup or a damaged one, fault.Unsupported for one of a newer version.
func Read(r io.Reader, open func(name string) (io.WriteCloser, error)) (Manifest, error) {
	zip, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(256<<20))
	if err != nil {
		return Manifest{}, err
	}
	defer zip.Close()
	in := &reader{tar: tar.NewReader(zip), open: open, files: map[string]File{}}
	m, err := in.read()
	if cut := in.close(); err == nil {
		err = cut
	}
	if err != nil {
		return Manifest{}, err
	}
	// The end of the stream holds its checksum. Whoever writes at the other end
	// of a pipe has to get rid of it, too.
	rest, err := io.Copy(io.Discard, zip)
	if err != nil {
		return Manifest{}, damaged("its end: %w", err)
	}
	if rest > 0 {
		return Manifest{}, damaged("%d bytes follow the manifest", rest)
	}
	return m, nil
}

type reader struct {
	tar   *tar.Reader
	open  func(string) (io.WriteCloser, error)
	files map[string]File

	name string // of the open file
	part int    // of it
	size int64
	out  io.WriteCloser
	hash hash.Hash
}

func damaged(format string, args ...any) error {
	return fault.New(fault.Invalid, "the backup is damaged or incomplete: "+format, args...)
}

func (r *reader) read() (Manifest, error) {
	if err := r.head(); err != nil {
		return Manifest{}, err
	}
	for {
		h, err := r.tar.Next()
		if err == io.EOF {
			return Manifest{}, damaged("it ends without a manifest")
		}
		if err != nil {
			return Manifest{}, damaged("%w", err)
		}
		if h.Typeflag != tar.TypeReg {
			return Manifest{}, damaged("the entry %q is not a file", h.Name)
		}
		if h.Name == manifestEntry {
			break
		}
		if err := r.take(h.Name); err != nil {
			return Manifest{}, err
		}
	}
	if err := r.close(); err != nil {
		return Manifest{}, err
	}
	text, err := io.ReadAll(io.LimitReader(r.tar, maxManifest))
	if err != nil {
		return Manifest{}, damaged("%w", err)
	}
	var m Manifest
	if err := json.Unmarshal(text, &m); err != nil {
		return Manifest{}, damaged("its manifest: %w", err)
	}
	if _, err := r.tar.Next(); err != io.EOF {
		return Manifest{}, damaged("something follows the manifest")
	}
	return m, r.compare(m)
}

// head refuses what is no backup, or one of a newer version.
func (r *reader) head() error {
	h, err := r.tar.Next()
	if err != nil || h.Name != headEntry {
		return fault.New(fault.Invalid, "this is no backup of Komainu, or its beginning is damaged")
	}
	var format int
	if _, err := fmt.Fscan(io.LimitReader(r.tar, 32), &format); err != nil {
		return damaged("its format: %w", err)
	}
	if format > Format {
		return fault.New(fault.Unsupported, "the backup has format %d, written by a newer version; this one knows formats up to %d", format, Format)
	}
	return nil
}

// take copies an entry: the next part of the open file, or a new file.
func (r *reader) take(entry string) error {
	if r.out == nil || entry != fmt.Sprintf("%s%s%04d", r.name, partMark, r.part) {
		if err := r.close(); err != nil {
			return err
		}
		if entry == "." || !filepath.IsLocal(entry) || path.Clean(entry) != entry || strings.Contains(entry, "\\") {
			return damaged("the name %q leads elsewhere", entry)
		}
		if _, twice := r.files[entry]; twice {
			return damaged("%s is in it twice", entry)
		}
		out, err := r.open(entry)
		if err != nil {
			return err
		}
		r.name, r.part, r.size, r.out, r.hash = entry, 0, 0, out, sha256.New()
	}
	r.part++
	n, err := io.Copy(&sink{r.out, r.hash}, r.tar)
	r.size += n
	if full, ok := errors.AsType[*writeError](err); ok {
		return full.error
	}
	if err != nil {
		return damaged("%s: %w", entry, err)
	}
	return nil
}

// sink tells a disk that does not take from a backup that does not give.
type sink struct {
	out  io.Writer
	hash hash.Hash
}

type writeError struct{ error }

// Write implements io.Writer.
func (s *sink) Write(b []byte) (int, error) {
	s.hash.Write(b)
	n, err := s.out.Write(b)
	if err != nil {
		return n, &writeError{err}
	}
	return n, nil
}

// close ends the open file.
func (r *reader) close() error {
	if r.out == nil {
		return nil
	}
	out := r.out
	r.out = nil
	r.files[r.name] = File{r.name, r.size, hex.EncodeToString(r.hash.Sum(nil))}
	return out.Close()
}

func (r *reader) compare(m Manifest) error {
	for _, want := range m.Files {
		got, ok := r.files[want.Name]
		switch {
		case !ok:
			return damaged("%s is missing", want.Name)
		case got != want:
			return damaged("%s has other content than when it was saved", want.Name)
		}
		delete(r.files, want.Name)
	}
	for name := range r.files {
		return damaged("%s is not in its manifest", name)
	}
	return nil
}
