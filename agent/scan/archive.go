package scan

import (
	"archive/tar"
	"archive/zip"
	"bufio"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/bodgit/sevenzip"
	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/mikelolasagasti/xz"
	"github.com/nwaples/rardecode/v2"

	"komainu/finding"
)

const (
	// largestWindow is the dictionary that an unpacker may ask for. It is
	// what xz -9 uses; one scan at a time may have one.
	largestWindow = 64 << 20
	// ratioFrom is where the ratio begins to count: small files of zeros are
	// no bombs.
	ratioFrom = 64 << 20
	// bombFactor is how much larger than the file its content has to be for a
	// limit of bytes or members to make it a bomb.
	bombFactor = 20
	// maxDirectory bounds the list of members that a zip or 7z may have,
	// which has to be held in memory.
	maxDirectory = 8 << 20
)

// unpack opens an archive. What its format or content makes impossible is
// noted; an error ends the whole scan.
func (j *job) unpack(k kind, s source, depth int) error {
	err := k.open(j, s, depth)
	switch {
	case err == nil || errors.Is(err, errStop):
		return err
	case j.expired():
		return j.check()
	}
	if failure, ok := errors.AsType[readError](err); ok {
		return failure // the file itself cannot be read any more
	}
	j.note("%s", reasonOf(k, err))
	return nil
}

func reasonOf(k kind, err error) string {
	format := strings.TrimPrefix(k.media[strings.LastIndexByte(k.media, '/')+1:], "x-")
	encrypted, ok := errors.AsType[*sevenzip.ReadError](err)
	switch {
	case errors.Is(err, errEncrypted), ok && encrypted.Encrypted,
		errors.Is(err, rardecode.ErrArchiveEncrypted), errors.Is(err, rardecode.ErrArchivedFileEncrypted):
		return "encrypted"
	case errors.Is(err, zip.ErrAlgorithm):
		return "unsupported compression in " + format
	case errors.Is(err, errDirectory):
		return "the list of members in " + format + " is too large"
	case errors.Is(err, xz.ErrMemlimit), errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded), errors.Is(err, rardecode.ErrDictionaryTooLarge):
		return fmt.Sprintf("%s needs a window of more than %d MiB", format, largestWindow>>20)
	}
	return fmt.Sprintf("damaged or unsupported %s: %v", format, err)
}

var (
	errEncrypted = errors.New("encrypted")
	errDirectory = errors.New("directory too large")
)

// member scans one member of an archive. Its content is r.
func (j *job) member(name string, loose bool, r io.Reader, depth int) error {
	if j.members++; j.members > j.engine.limits.Members {
		if j.disproportionate() {
			j.exhausts(finding.BombCount)
		}
		return j.stop("more than %d members", j.engine.limits.Members)
	}
	j.path = append(j.path, element{name: strings.Trim(name, "/"), loose: loose})
	defer func() { j.path = j.path[:len(j.path)-1] }()
	_, err := j.stream(&meter{job: j, r: r}, nil, depth+1)
	return err
}

// meter counts what is unpacked and enforces the total limits.
type meter struct {
	job *job
	r   io.Reader
}

func (m *meter) Read(p []byte) (int, error) {
	j := m.job
	if err := j.check(); err != nil {
		return 0, err
	}
	n, err := m.r.Read(p)
	j.unpacked += int64(n)
	switch limits := j.engine.limits; {
	case j.unpacked > limits.Bytes:
		if j.disproportionate() {
			j.exhausts(finding.BombSize)
		}
		return n, j.stop("unpacks to more than %d MiB", limits.Bytes>>20)
	case j.unpacked > ratioFrom && j.unpacked/limits.Ratio > j.packed:
		j.exhausts(finding.BombRatio)
		return n, j.stop("unpacks to more than %d times its size", limits.Ratio)
	}
	return n, err
}

// exhausts records that the file is a bomb, with the reason that is noted next.
func (j *job) exhausts(b finding.Bomb) { j.bomb, j.partial = b, "" }

// disproportionate tells a bomb from a large archive when the limit of bytes or
// members is reached: backups and images are large too, but they do not shrink
// to so little. A member costs who unpacks it a header at least, also when it
// is empty.
func (j *job) disproportionate() bool {
	const header = 512
	return (j.unpacked+int64(j.members)*header)/bombFactor > j.packed
}

// takeHeavy waits until this scan may use large windows. They are not given
// up until the scan ends: its archives can be nested.
func (j *job) takeHeavy() error {
	if j.heavy {
		return nil
	}
	select {
	case j.engine.heavy <- struct{}{}:
		j.heavy = true
		return nil
	case <-j.ctx.Done():
		return j.check()
	}
}

func (j *job) releaseHeavy() {
	if j.heavy {
		j.heavy = false
		<-j.engine.heavy
	}
}

func openGzip(j *job, s source, depth int) error {
	r, err := gzip.NewReader(bufio.NewReader(s.stream))
	if err != nil {
		return err
	}
	return j.member(contentName(r.Name), true, r, depth)
}

func openBzip2(j *job, s source, depth int) error {
	return j.member(contentName(""), true, bzip2.NewReader(bufio.NewReader(s.stream)), depth)
}

func openXz(j *job, s source, depth int) error {
	if err := j.takeHeavy(); err != nil {
		return err
	}
	r, err := xz.NewReader(s.stream, largestWindow)
	if err != nil {
		return err
	}
	return j.member(contentName(""), true, r, depth)
}

func openZstd(j *job, s source, depth int) error {
	if err := j.takeHeavy(); err != nil {
		return err
	}
	r, err := newZstd(s.stream)
	if err != nil {
		return err
	}
	defer r.Close()
	return j.member(contentName(""), true, r, depth)
}

func newZstd(r io.Reader) (*zstd.Decoder, error) {
	return zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(largestWindow))
}

// contentName names what a plain compressor holds.
func contentName(name string) string {
	if name == "" {
		return "content"
	}
	return name
}

func openTar(j *job, s source, depth int) error {
	r := tar.NewReader(s.stream)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeGNUSparse {
			continue
		}
		if err := j.member(h.Name, false, r, depth); err != nil {
			return err
		}
	}
}

func openRar(j *job, s source, depth int) error {
	if err := j.takeHeavy(); err != nil {
		return err
	}
	r, err := rardecode.NewReader(s.stream, rardecode.MaxDictionarySize(largestWindow))
	if err != nil {
		return err
	}
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Encrypted || h.HeaderEncrypted {
			j.note("encrypted")
			continue
		}
		if h.IsDir {
			continue
		}
		if err := j.member(h.Name, false, r, depth); err != nil {
			return err
		}
	}
}

func openZip(j *job, s source, depth int) error {
	directory := &directory{at: s.at, left: maxDirectory}
	r, err := zip.NewReader(directory, s.size)
	if err != nil {
		return err
	}
	directory.left = -1
	r.RegisterDecompressor(zip.Deflate, func(r io.Reader) io.ReadCloser { return flate.NewReader(r) })
	r.RegisterDecompressor(12, func(r io.Reader) io.ReadCloser { return io.NopCloser(bzip2.NewReader(r)) })
	r.RegisterDecompressor(zstd.ZipMethodWinZip, func(r io.Reader) io.ReadCloser { return zipMember(j, r, zipZstd) })
	r.RegisterDecompressor(95, func(r io.Reader) io.ReadCloser { return zipMember(j, r, zipXz) })
	for _, f := range r.File {
		if err := j.check(); err != nil {
			return err
		}
		if strings.HasSuffix(f.Name, "/") && f.UncompressedSize64 == 0 {
			continue
		}
		if f.Flags&1 != 0 {
			j.noteMember(f.Name, errEncrypted, kinds["zip"])
			continue
		}
		if err := j.compressed(f.Name, f.Open, kinds["zip"], depth); err != nil {
			return err
		}
	}
	return nil
}

// compressed opens a member of an archive with a directory and scans it. What
// is wrong with one member does not hold back the others.
func (j *job) compressed(name string, open func() (io.ReadCloser, error), k kind, depth int) error {
	r, err := open()
	if err != nil {
		j.noteMember(name, err, k)
		return nil
	}
	defer r.Close()
	err = j.member(name, false, r, depth)
	if err != nil && !errors.Is(err, errStop) {
		j.noteMember(name, err, k)
		return nil
	}
	return err
}

// noteMember is note for a member that could not be opened.
func (j *job) noteMember(name string, err error, k kind) {
	j.path = append(j.path, element{name: name})
	j.note("%s", reasonOf(k, err))
	j.path = j.path[:len(j.path)-1]
}

func zipZstd(r io.Reader) (io.ReadCloser, error) {
	d, err := newZstd(r)
	if err != nil {
		return nil, err
	}
	return d.IOReadCloser(), nil
}

func zipXz(r io.Reader) (io.ReadCloser, error) {
	x, err := xz.NewReader(r, largestWindow)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(x), nil
}

// zipMember opens a decompressor with a large window; package zip wants its
// errors from Read.
func zipMember(j *job, r io.Reader, open func(io.Reader) (io.ReadCloser, error)) io.ReadCloser {
	err := j.takeHeavy()
	if err == nil {
		var rc io.ReadCloser
		if rc, err = open(r); err == nil {
			return rc
		}
	}
	return io.NopCloser(failing{err})
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// directory bounds how much of an archive is read for its list of members,
// which the libraries keep in memory whole. A negative left is no bound.
type directory struct {
	at   io.ReaderAt
	left int64
}

func (d *directory) ReadAt(p []byte, off int64) (int, error) {
	if d.left >= 0 {
		if d.left -= int64(len(p)); d.left < 0 {
			d.left = 0
			return 0, errDirectory
		}
	}
	return d.at.ReadAt(p, off)
}

func openSevenZip(j *job, s source, depth int) error {
	if err := j.takeHeavy(); err != nil {
		return err
	}
	directory := &directory{at: s.at, left: maxDirectory}
	r, err := sevenzip.NewReader(directory, s.size)
	if err != nil {
		return err
	}
	directory.left = -1
	for _, f := range r.File {
		if err := j.check(); err != nil {
			return err
		}
		if f.FileInfo().IsDir() {
			continue
		}
		if err := j.compressed(f.Name, f.Open, kinds["7z"], depth); err != nil {
			return err
		}
	}
	return nil
}
