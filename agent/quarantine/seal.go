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
	"os"
	"syscall"

	"komainu/fault"
	"komainu/internal/atomicfile"
)

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
	s.step("created")
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
	s.step("copied")
	o.Size, o.SHA256 = n, hex.EncodeToString(sum.Sum(nil))
	head, err := encodeHeader(o, iv, int(body))
	if err != nil {
		return o, err
	}
	if _, err := tmp.WriteAt(head, 0); err != nil {
		return o, err
	}
	s.step("written")
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
	s.step("sealed")
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
