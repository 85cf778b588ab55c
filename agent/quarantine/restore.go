package quarantine

import (
	"cmp"
	"context"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"

	"komainu/fault"
	"komainu/finding"
)

// Restore puts a file back where it was, or into a folder, and returns its
// path. The sealed object is removed once the file is whole and flushed.
//
// The way to where it was must not go through a symbolic link. Whoever could
// write to one of its folders could have put a link there since, and would
// otherwise have root write a file of his choice to a place of his choice. A
// folder that the caller names is taken as it is.
//
// Errors: fault.NotFound for the object or the folder, fault.Conflict when a
// file or a link is in the way.
func (s *Store) Restore(ctx context.Context, id finding.ID, folder string) (string, error) {
	o, err := s.Get(id)
	if err != nil {
		return "", err
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
	into := destination{folder: folder, follow: true}
	if folder == "" {
		into = destination{folder: cmp.Or(o.Folder, filepath.Dir(o.Path))}
	}
	if err := into.open(); err != nil {
		return "", err
	}
	defer into.close()
	content := &contextReader{ctx, &cipher.StreamReader{S: stream, R: io.LimitReader(sealed, o.Size)}}
	if err := s.unseal(o, content, &into); err != nil {
		return "", full(err)
	}
	s.step("named")
	return filepath.Join(into.folder, filepath.Base(o.Path)), s.Remove(id)
}

// unseal writes the content under a name of its own, and gives it its real
// name when it is whole.
func (s *Store) unseal(o Object, content io.Reader, into *destination) (err error) {
	f, err := into.create()
	if err != nil {
		return err
	}
	defer func() {
		f.Close()
		if err != nil {
			into.discard()
		}
	}()
	s.step("made")
	sum := sha256.New()
	if _, err := io.Copy(io.MultiWriter(f, sum), content); err != nil {
		return err
	}
	s.step("unsealed")
	if hex.EncodeToString(sum.Sum(nil)) != o.SHA256 {
		return fault.New(fault.Invalid, "the sealed object %s is damaged: its content is not what was sealed", o.ID)
	}
	if err := giveBack(f, o); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	s.step("flushed")
	return into.commit(filepath.Base(o.Path))
}
