// Package spool keeps records on disk until the control plane has them.
//
// A Spool is a queue of opaque records in segment files (docs/formats/spool.md).
// Every record has a position, counted from 1 for the life of the spool. A
// record is written when Append returns, so a killed process loses none; it is
// flushed by Sync, so a power cut loses at most what came after the last one.
// Delivery is at least once: after a crash the last acknowledged records may
// be read again, with the same positions.
//
// A spool is bounded. When it is full the oldest segment is dropped, and when
// the disk is full records wait in a bounded memory; what is dropped is
// counted by kind and returned by Lost. Append never waits for space.
//
// A Spool is safe for concurrent use by several appenders and one reader.
package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
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

	mu       sync.Mutex
	segments []*segment // oldest first; the last one is written to
	active   *os.File
	next     uint64 // position of the next record
	acked    uint64 // everything up to here is safe
	ackSaved uint64
	dirty    bool // written since the last Sync
	waiting  []record
	waitSize int64
	lost     [kinds]uint64
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
	s := &Spool{dir: dir, limits: limits.withDefaults(), next: 1, more: make(chan struct{})}
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
		if n := len(s.segments); n > 0 {
			s.countGap(s.segments[n-1].next(), g.first)
		}
		s.segments = append(s.segments, g)
		s.next = g.next()
	}
	s.acked = max(s.acked, s.firstKept()-1)
	return s.dropAcked()
}

// countGap counts records that damage has taken.
func (s *Spool) countGap(from, to uint64) {
	if to > from {
		s.lost[0] += to - from
	}
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
	if err := s.openActive(r.pos); err != nil {
		return err
	}
	g := s.segments[len(s.segments)-1]
	// A gap (records dropped from memory) starts a new segment, so that
	// positions within a segment stay consecutive.
	if g.next() != r.pos {
		if err := s.closeActive(); err != nil {
			return err
		}
		if err := s.openActive(r.pos); err != nil {
			return err
		}
		g = s.segments[len(s.segments)-1]
	}
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
		if err := s.closeActive(); err != nil {
			return err
		}
	}
	s.dropOldest()
	return nil
}

func (s *Spool) openActive(first uint64) error {
	if s.active != nil {
		return nil
	}
	g, f, err := createSegment(s.dir, first)
	if err != nil {
		return err
	}
	s.active, s.segments = f, append(s.segments, g)
	return nil
}

func (s *Spool) closeActive() error {
	if s.active == nil {
		return nil
	}
	err := errors.Join(s.active.Sync(), s.active.Close())
	s.active = nil
	return err
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
	open := g.next() - max(g.first, s.acked+1)
	if g.next() <= s.acked+1 {
		return
	}
	if open == g.count {
		for k, n := range g.kinds {
			s.lost[k] += n
		}
		return
	}
	left := open
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
	// A file that stays is scanned at the next start and dropped again.
	_ = os.Remove(g.name)
}

// Ack says that every record up to a position is safe elsewhere.
func (s *Spool) Ack(upTo uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if upTo <= s.acked || upTo >= s.next {
		return nil
	}
	s.acked = upTo
	for len(s.waiting) > 0 && s.waiting[0].pos <= upTo {
		s.waitSize -= int64(len(s.waiting[0].data))
		s.waiting = s.waiting[1:]
	}
	return s.dropAcked()
}

// dropAcked removes segments that hold nothing but acknowledged records.
func (s *Spool) dropAcked() error {
	for len(s.segments) > 0 && s.segments[0].next() <= s.acked+1 {
		if len(s.segments) == 1 {
			if err := s.closeActive(); err != nil {
				return err
			}
		}
		// The state is written first: otherwise a crash in between would start
		// the positions anew.
		if err := s.saveState(); err != nil {
			return err
		}
		s.removeFirst()
	}
	return nil
}

// Sync flushes what was appended and brings back to disk what waits in
// memory. Call it every second, and after a record that must not be lost.
func (s *Spool) Sync() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.waiting) > 0 {
		if s.lastErr = s.write(s.waiting[0]); s.lastErr != nil {
			return fault.Wrap(fault.Exhausted, s.lastErr, "spool: %d records wait in memory", len(s.waiting))
		}
		s.waitSize -= int64(len(s.waiting[0].data))
		s.waiting = s.waiting[1:]
	}
	if s.acked != s.ackSaved {
		if err := s.saveState(); err != nil {
			return err
		}
	}
	if !s.dirty || s.active == nil {
		return nil
	}
	if err := s.active.Sync(); err != nil {
		return fmt.Errorf("flush spool: %w", err)
	}
	s.dirty = false
	return nil
}

// Lost returns how many records of each kind were dropped since the last
// call. Kind 0 also counts records that damage on disk has taken.
func (s *Spool) Lost() (counts [kinds]uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	counts, s.lost = s.lost, [kinds]uint64{}
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
	st := Stats{Waiting: s.next - 1 - s.acked, InMemory: len(s.waiting), Err: s.lastErr}
	for _, g := range s.segments {
		st.Bytes += g.size
	}
	return st
}

// Close flushes and closes. The spool cannot be used afterwards.
func (s *Spool) Close() error {
	err := s.Sync()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cursor.close()
	return errors.Join(err, s.closeActive())
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
		s.stream = uint64(time.Now().UnixMilli())<<20 | random20()
		return s.saveState()
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
		s.stream = uint64(time.Now().UnixMilli())<<20 | random20()
		return s.saveState()
	}
	s.stream = binary.LittleEndian.Uint64(b[5:])
	s.acked = binary.LittleEndian.Uint64(b[13:])
	s.ackSaved = s.acked
	return nil
}

func (s *Spool) saveState() error {
	b := append([]byte("KSPS"), stateVersion)
	b = binary.LittleEndian.AppendUint64(b, s.stream)
	b = binary.LittleEndian.AppendUint64(b, s.acked)
	b = binary.LittleEndian.AppendUint32(b, checksum(b))
	if err := atomicfile.Write(filepath.Join(s.dir, stateFile), b, 0o600); err != nil {
		return err
	}
	s.ackSaved = s.acked
	return nil
}
