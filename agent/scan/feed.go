package scan

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"hash"
	"io"

	"komainu/finding"
)

// window is how much is read at once. It is large enough for read(2) to cost
// nothing and small enough for four scans to stay in the cache.
const window = 256 << 10

// feed takes the bytes of one file or member in order and matches them.
type feed struct {
	defs  *Definitions
	sum   hash.Hash
	head  []byte // the first maxWhole bytes
	buf   []byte // what find has not seen, behind the overlap with what it has
	n     int
	size  int64
	match finding.ThreatName
	peek  [peekSize]byte
}

func newFeed(defs *Definitions) *feed {
	return &feed{
		defs: defs,
		sum:  sha256.New(),
		head: make([]byte, 0, maxWhole),
		buf:  make([]byte, window+max(defs.finds.longest, 1)-1),
	}
}

func (f *feed) reset() {
	f.sum.Reset()
	f.head, f.n, f.size, f.match = f.head[:0], 0, 0, ""
}

// Write takes the next bytes. It never fails.
func (f *feed) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := copy(f.buf[f.n:], rest)
		f.took(n)
		rest = rest[n:]
	}
	return len(p), nil
}

// readFrom takes everything that r has left, calling check between reads.
func (f *feed) readFrom(r io.Reader, check func() error) error {
	for {
		if err := check(); err != nil {
			return err
		}
		n, err := r.Read(f.buf[f.n:])
		f.took(n)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// took accounts for n bytes that were put at buf[f.n:].
func (f *feed) took(n int) {
	fresh := f.buf[f.n : f.n+n]
	f.sum.Write(fresh)
	f.head = append(f.head, fresh[:min(n, maxWhole-len(f.head))]...)
	f.size += int64(n)
	f.n += n
	if f.n == len(f.buf) {
		f.search()
	}
}

// search looks through the buffer and keeps what a literal could begin in.
func (f *feed) search() {
	if f.match == "" {
		f.match, _ = f.defs.finds.find(f.buf[:f.n])
	}
	keep := min(f.n, max(f.defs.finds.longest, 1)-1)
	copy(f.buf, f.buf[f.n-keep:f.n])
	f.n = keep
}

// finish ends the file and returns its hash and the threat, if it is one. The
// most exact signature names it.
func (f *feed) finish() (sum [32]byte, threat finding.ThreatName) {
	f.search()
	f.sum.Sum(sum[:0])
	if name, ok := f.defs.matchHash(sum); ok {
		return sum, name
	}
	if name, ok := f.defs.matchWhole(f.head, f.size); ok {
		return sum, name
	}
	return sum, f.match
}

// result is what one pass over a file or member learned.
type result struct {
	sum   [32]byte
	size  int64
	media string
	whole bool // read to the end: sum is that of the file
}

// peekSize is what sniffing sees: a tar header is the longest it needs.
const peekSize = 1024

// stream scans what r holds as one file. at is the same content for archives
// that need random access, nil when there is only the stream.
func (j *job) stream(r io.Reader, at io.ReaderAt, depth int) (res result, err error) {
	f := j.engine.feeds.Get().(*feed)
	f.reset()
	defer j.engine.feeds.Put(f)

	peek, err := fill(r, f.peek[:])
	if err != nil {
		return res, err
	}
	kind := sniff(peek)
	res.media = kind.media
	f.Write(peek)
	open := kind.open != nil && !j.options.SkipArchives
	if open && depth >= j.engine.limits.Depth {
		j.exhausts(finding.BombDepth)
		j.note("archives are nested deeper than %d", j.engine.limits.Depth)
		open = false
	}

	var held *bytes.Buffer // a nested archive that needs random access
	rest := r
	switch {
	case open && !kind.random:
		err = j.unpack(kind, source{stream: io.MultiReader(bytes.NewReader(peek), io.TeeReader(r, f))}, depth)
		if err != nil && depth > 0 {
			return res, err
		}
	case open && at == nil:
		held = bytes.NewBuffer(bytes.Clone(peek))
		rest = io.TeeReader(r, &capped{buf: held, limit: j.engine.limits.Buffer})
	}
	stopped := err
	if err = f.readFrom(rest, j.check); err != nil {
		return res, err
	}
	var threat finding.ThreatName
	res.sum, threat = f.finish()
	res.size, res.whole = f.size, true
	switch {
	case j.threat == "" && threat != "":
		return res, j.found(threat)
	case stopped != nil:
		return res, stopped
	case !open:
		if at != nil && !j.options.SkipArchives && hasZipTail(at, f.size) {
			return res, j.unpack(kinds["zip"], source{at: at, size: f.size}, depth)
		}
		return res, nil
	case !kind.random:
		return res, nil
	case at == nil && int64(held.Len()) != f.size:
		j.note("an archive within an archive is larger than %d MiB", j.engine.limits.Buffer>>20)
		return res, nil
	case at == nil:
		at = bytes.NewReader(held.Bytes())
	}
	return res, j.unpack(kind, source{at: at, size: f.size}, depth)
}

// fill reads until p is full or r ends. Unlike io.ReadFull it tells a short
// file from an unpacker's unexpected EOF.
func fill(r io.Reader, p []byte) ([]byte, error) {
	n := 0
	for n < len(p) {
		k, err := r.Read(p[n:])
		n += k
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	return p[:n], nil
}

// check is called between reads.
func (j *job) check() error {
	if j.expired() {
		return j.stop("the time limit of the scan is reached")
	}
	return nil
}

// capped keeps what is written up to a limit, and forgets it all beyond.
type capped struct {
	buf   *bytes.Buffer
	limit int64
}

func (c *capped) Write(p []byte) (int, error) {
	if int64(c.buf.Len())+int64(len(p)) > c.limit {
		*c.buf = bytes.Buffer{}
		c.limit = -1
		return len(p), nil
	}
	return c.buf.Write(p)
}
