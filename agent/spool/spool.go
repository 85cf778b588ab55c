// Package spool keeps records on disk until the control plane has them.
//
// A Spool is a queue of opaque records in segment files (docs/formats/spool.md).
// Every record has a position, counted from 1 for the life of the spool. A
// record is written when Append returns, so a killed process loses none; it is
// flushed by Sync, so a power cut loses at most what came after the last one.
// Delivery is at least once: after a crash the last acknowledged records may
// be read again, with the same positions. DESIGN.md says why it is built this
// way.
//
// A spool is bounded. When it is full the oldest segment is dropped, and when
// the disk is full records wait in a bounded memory; what is dropped is
// counted by kind and returned by Lost. Append waits neither for space nor for
// a flush.
//
// A Spool is safe for concurrent use by several appenders and one reader.
package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"komainu/fault"
	"komainu/internal/atomicfile"
)

// Limits bound a spool. Zero values mean the defaults.
type Limits struct {
	Bytes   int64 // on disk, default 256 MiB
	Segment int64 // size at which a new segment starts, default 4 MiB
	Memory  int64 // bytes that wait while the disk is full, default 4 MiB
}

// Kind is a small number that the owner gives to a record, so that losses can
// be told apart. Kinds are below 16.
type Kind uint8

const kinds = 16

// MaxRecord is the largest record.
const MaxRecord = 1 << 20

// Spool is an open spool.
type Spool struct {
	dir    string
	limits Limits
	stream uint64

	// flushing is held by what waits for the disk. It is taken before mu, and
	// mu is not held while the disk works.
	flushing sync.Mutex
	ackSaved uint64 // of the state file; guarded by flushing

	mu       sync.Mutex
	segments []*segment // oldest first
	active   *os.File   // of the last segment; nil when the next record begins one
	rolled   []*os.File // of segments before it that no Sync has flushed
	created  bool       // a segment was made since the folder was flushed
	next     uint64     // position of the next record
	acked    uint64     // everything up to here is safe
	dirty    bool       // written since the last Sync
	waiting  []record
	waitSize int64
	lost     [kinds]uint64
	untold   map[*segment]bool // with damage that Lost has not told of
	told     map[*segment]bool // and that it has: Sync marks it
	cursor   cursor
	more     chan struct{} // closed and replaced when a record is appended
	lastErr  error         // why records wait in memory
}

type record struct {
	pos  uint64
	kind Kind
	data []byte
}

// Open opens or creates a spool. A damaged tail is cut off; damage within a
// segment loses the rest of that segment, which is counted. A spool that a
// newer version wrote is refused with fault.Conflict.
func Open(dir string, limits Limits) (*Spool, error) {
	s := &Spool{dir: dir, limits: limits.withDefaults(), next: 1, untold: map[*segment]bool{}, told: map[*segment]bool{}, more: make(chan struct{})}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	if err := s.load(); err != nil {
		return nil, fmt.Errorf("open spool %s: %w", dir, err)
	}
	return s, nil
}

func (l Limits) withDefaults() Limits {
	if l.Bytes == 0 {
		l.Bytes = 256 << 20
	}
	if l.Segment == 0 {
		l.Segment = 4 << 20
	}
	if l.Memory == 0 {
		l.Memory = 4 << 20
	}
	return l
}

func (s *Spool) load() error {
	if err := s.loadState(); err != nil {
		return err
	}
	names, err := filepath.Glob(filepath.Join(s.dir, "*"+suffix))
	if err != nil {
		return err
	}
	slices.Sort(names) // the names are positions of equal width
	s.next = s.acked + 1
	var gaps gapCounter
	for i, name := range names {
		g, err := scanSegment(name, i == len(names)-1)
		if errors.Is(err, errEmptySegment) {
			if err := os.Remove(name); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		gaps.pass(s, g)
		s.countHoles(g)
		if g.count == 0 {
			if err := os.Remove(name); err != nil {
				return err
			}
			continue
		}
		s.segments = append(s.segments, g)
		s.next = g.next()
	}
	s.acked = max(s.acked, s.firstKept()-1)
	// A power cut can take records that are acknowledged already. Their
	// positions are used: a record that got one again would count as
	// acknowledged.
	s.next = max(s.next, s.acked+1)
	return nil
}

func (s *Spool) firstKept() uint64 {
	if len(s.segments) == 0 {
		return s.next
	}
	return s.segments[0].first
}

// Stream identifies this spool among all others; positions are unique within.
func (s *Spool) Stream() uint64 { return s.stream }

// Append adds a record. The data is copied. It fails only for a record above
// MaxRecord; when there is no space the record waits in memory or is dropped
// and counted.
func (s *Spool) Append(kind Kind, data []byte) error {
	if len(data) > MaxRecord {
		return fault.New(fault.Invalid, "spool: record of %d bytes, the limit is %d", len(data), MaxRecord)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r := record{s.next, kind % kinds, data}
	s.next++
	if len(s.waiting) == 0 {
		s.lastErr = s.write(r)
	}
	if len(s.waiting) > 0 || s.lastErr != nil {
		s.keep(r)
	}
	close(s.more)
	s.more = make(chan struct{})
	return nil
}

// keep holds a record in memory while the disk takes none.
func (s *Spool) keep(r record) {
	if s.waitSize+int64(len(r.data)) > s.limits.Memory {
		s.lost[r.kind]++
		return
	}
	r.data = slices.Clone(r.data)
	s.waiting = append(s.waiting, r)
	s.waitSize += int64(len(r.data))
}

// write puts a record at the end of the active segment, or leaves the segment
// as it was.
func (s *Spool) write(r record) error {
	// A gap (records dropped from memory, or damaged) starts a new segment, so
	// that positions within a segment stay consecutive.
	if s.active != nil && s.segments[len(s.segments)-1].next() != r.pos {
		s.roll()
	}
	if s.active == nil {
		after := r.pos
		if n := len(s.segments); n > 0 {
			after = s.segments[n-1].next()
		}
		g, f, err := createSegment(s.dir, r.pos, after)
		if err != nil {
			return err
		}
		s.active, s.segments, s.created = f, append(s.segments, g), true
	}
	g := s.segments[len(s.segments)-1]
	buf := appendRecord(nil, r.kind, r.data)
	if _, err := s.active.WriteAt(buf, g.size); err != nil {
		// Cut off what was written in part; if that fails too, the check sum
		// tells at the next start.
		_ = s.active.Truncate(g.size)
		return err
	}
	g.size += int64(len(buf))
	g.count++
	g.kinds[r.kind]++
	s.dirty = true
	if g.size >= s.limits.Segment {
		s.roll()
	}
	s.dropOldest()
	return nil
}

// maxRolled bounds the files that wait for Sync to flush and close them.
const maxRolled = 32

// roll ends the active segment. Sync flushes it.
func (s *Spool) roll() {
	s.rolled = append(s.rolled, s.active)
	s.active = nil
	if len(s.rolled) > maxRolled {
		// Nobody calls Sync. A file that is closed without a flush is written by
		// the kernel in its own time.
		_ = s.rolled[0].Close()
		s.rolled = s.rolled[1:]
	}
}

// dropOldest drops whole segments while the spool is too large. The one that
// is written to stays.
func (s *Spool) dropOldest() {
	var total int64
	for _, g := range s.segments {
		total += g.size
	}
	for len(s.segments) > 1 && total > s.limits.Bytes {
		g := s.segments[0]
		total -= g.size
		s.countDropped(g)
		s.removeFirst()
		s.acked = max(s.acked, g.next()-1)
	}
}

// countDropped counts what of a segment had not been acknowledged. Which of
// its records those are is not known by kind, so the share is.
func (s *Spool) countDropped(g *segment) {
	if g.next() <= s.acked+1 {
		return
	}
	open := g.next() - max(g.first, s.acked+1)
	if open == g.count {
		for k, n := range g.kinds {
			s.lost[k] += n
		}
		return
	}
	var good uint64
	for _, n := range g.kinds {
		good += n
	}
	left := min(open, good) // damaged ones are counted already
	for k := range g.kinds {
		n := min(left, g.kinds[k]*open/g.count)
		s.lost[k] += n
		left -= n
	}
	s.lost[0] += left
}

func (s *Spool) removeFirst() {
	g := s.segments[0]
	s.segments = s.segments[1:]
	if s.cursor.segment == g {
		s.cursor.close()
	}
	delete(s.untold, g)
	delete(s.told, g)
	// A file that stays is scanned at the next start and dropped again.
	_ = os.Remove(g.name)
}

// Ack says that every record up to a position is safe elsewhere. The space is
// free after the next Sync.
func (s *Spool) Ack(upTo uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if upTo <= s.acked {
		return nil
	}
	if upTo >= s.next {
		return fault.New(fault.Invalid, "spool: acknowledged up to %d, but the last record is %d", upTo, s.next-1)
	}
	s.acked = upTo
	for len(s.waiting) > 0 && s.waiting[0].pos <= upTo {
		s.waitSize -= int64(len(s.waiting[0].data))
		s.waiting = s.waiting[1:]
	}
	if len(s.waiting) == 0 {
		s.lastErr = nil // nothing waits for the disk any more
	}
	return nil
}

// Discard gives up every record that is not acknowledged, because it may not
// be delivered any more, and returns how many there were of each kind. Lost
// does not count them. They are gone when it returns nil.
func (s *Spool) Discard() (counts [kinds]uint64, err error) {
	s.mu.Lock()
	lost := s.lost
	s.lost = [kinds]uint64{}
	for _, g := range s.segments {
		s.countDropped(g)
	}
	for _, r := range s.waiting {
		s.lost[r.kind]++
	}
	counts, s.lost = s.lost, lost
	s.waiting, s.waitSize, s.lastErr = nil, 0, nil
	s.acked = s.next - 1
	s.mu.Unlock()
	return counts, s.Sync()
}

// Sync flushes what was appended, removes what is acknowledged, and brings
// back to disk what waits in memory. Call it every second, and after a record
// that must not be lost. Append goes on meanwhile.
func (s *Spool) Sync() error {
	s.flushing.Lock()
	defer s.flushing.Unlock()

	s.mu.Lock()
	full := s.writeWaiting()
	files, active := s.rolled, s.active
	s.rolled = nil
	if s.dirty && active != nil {
		files = append(files, active)
	}
	created, acked, repairs := s.created, s.acked, s.repairs()
	s.dirty, s.created = false, false
	s.mu.Unlock()

	var errs []error
	for _, f := range files {
		errs = append(errs, f.Sync())
		if f != active {
			errs = append(errs, f.Close())
		}
	}
	if created {
		atomicfile.SyncDir(s.dir)
	}
	err := errors.Join(errs...)
	if err != nil {
		s.mu.Lock()
		s.dirty = true
		for _, r := range repairs {
			s.told[r.segment] = true
		}
		s.mu.Unlock()
	} else {
		err = s.mark(repairs)
	}
	return errors.Join(err, s.free(acked), full)
}

// writeWaiting brings back to disk what waits in memory.
func (s *Spool) writeWaiting() error {
	for len(s.waiting) > 0 {
		if s.lastErr = s.write(s.waiting[0]); s.lastErr != nil {
			return fault.Wrap(fault.Exhausted, s.lastErr, "spool: %d records wait in memory", len(s.waiting))
		}
		s.waitSize -= int64(len(s.waiting[0].data))
		s.waiting = s.waiting[1:]
	}
	return nil
}

// free notes what is acknowledged and removes the segments that hold nothing
// else.
func (s *Spool) free(acked uint64) error {
	// The last segment goes only after the state is on disk: without both the
	// positions would start anew. The others go first, because on a full disk
	// they make room for the state.
	s.dropAcked(acked, 1)
	if acked != s.ackSaved {
		if err := s.saveState(acked); err != nil {
			return fmt.Errorf("note what is acknowledged: %w", err)
		}
	}
	s.dropAcked(acked, 0)
	return nil
}

// dropAcked removes acknowledged segments but keeps some at the end.
func (s *Spool) dropAcked(acked uint64, keep int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.segments) > keep && s.segments[0].next() <= acked+1 {
		if len(s.segments) == 1 && s.active != nil {
			s.roll()
		}
		s.removeFirst()
	}
}

// Lost returns how many records of each kind were dropped since the last
// call. Kind 0 also counts records that damage on disk has taken; with the
// next Sync this damage counts as told, also after a restart.
func (s *Spool) Lost() (counts [kinds]uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	counts, s.lost = s.lost, [kinds]uint64{}
	maps.Copy(s.told, s.untold)
	clear(s.untold)
	return counts
}

// Stats is the state of a spool.
type Stats struct {
	Waiting  uint64 // records that are not acknowledged
	Bytes    int64  // on disk
	InMemory int    // records that the disk did not take
	Err      error  // why, nil when the disk takes records
}

// Stats returns the state of the spool.
func (s *Spool) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stats{Waiting: uint64(len(s.waiting)), InMemory: len(s.waiting), Err: s.lastErr}
	for _, g := range s.segments {
		st.Bytes += g.size
		if g.next() > s.acked+1 {
			st.Waiting += g.next() - max(g.first, s.acked+1)
		}
	}
	return st
}

// Close flushes and closes. The spool cannot be used afterwards.
func (s *Spool) Close() error {
	err := s.Sync()
	s.flushing.Lock()
	defer s.flushing.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cursor.close()
	if s.active != nil {
		s.rolled = append(s.rolled, s.active)
		s.active = nil
	}
	for _, f := range s.rolled {
		err = errors.Join(err, f.Close())
	}
	s.rolled = nil
	return err
}

// The state file holds the stream id and the acknowledged position.
const (
	stateFile    = "state"
	stateVersion = 1
)

func (s *Spool) loadState() error {
	name := filepath.Join(s.dir, stateFile)
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return s.newStream()
	}
	if err != nil {
		return err
	}
	if len(b) > 4 && b[4] > stateVersion {
		return fault.New(fault.Conflict, "the spool was written by a newer version (format %d, this version knows %d); install that version or move the folder away", b[4], stateVersion)
	}
	if len(b) != 25 || string(b[:4]) != "KSPS" || checksum(b[:21]) != binary.LittleEndian.Uint32(b[21:]) {
		// The stream id is gone: what was acknowledged is unknown, so all of it
		// is sent again under a new id, and the store tells duplicates by event.
		return s.newStream()
	}
	s.stream = binary.LittleEndian.Uint64(b[5:])
	s.acked = binary.LittleEndian.Uint64(b[13:])
	s.ackSaved = s.acked
	return nil
}

// newStream gives the spool a new id. On a full disk it goes on without
// noting it: the next start then takes another one, which costs duplicates.
func (s *Spool) newStream() error {
	s.stream = uint64(time.Now().UnixMilli())<<20 | random20()
	if err := s.saveState(0); err != nil && !errors.Is(err, syscall.ENOSPC) {
		return err
	}
	return nil
}

func (s *Spool) saveState(acked uint64) error {
	b := append([]byte("KSPS"), stateVersion)
	b = binary.LittleEndian.AppendUint64(b, s.stream)
	b = binary.LittleEndian.AppendUint64(b, acked)
	b = binary.LittleEndian.AppendUint32(b, checksum(b))
	if err := atomicfile.Write(filepath.Join(s.dir, stateFile), b, 0o600); err != nil {
		return err
	}
	s.ackSaved = acked
	return nil
}
