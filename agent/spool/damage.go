package spool

import (
	"bufio"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
)

// Damage is counted when it is found. So that a restart does not count it
// again, it is marked on disk once the count was taken by Lost and what the
// caller made of it is flushed: a crash before that counts twice rather than
// not at all.

// givenUp is the kind of a record that was found damaged and counted.
const givenUp = 0xff

// errGivenUp says that a record was lost, and counted, before.
var errGivenUp = errors.New("record that was given up")

// gapCounter counts the records that are missing between segments while they
// are loaded, oldest first.
type gapCounter struct {
	upTo  uint64 // everything before this position is accounted for, 0 before the first segment
	found bool   // something is missing since the last segment that is kept
}

func (c *gapCounter) pass(s *Spool, g *segment) {
	to := min(g.after, g.first)
	if from := max(c.upTo, s.acked+1); c.upTo > 0 && to > from {
		s.lost[0] += to - from
		c.found = true
	}
	if n := len(s.segments); c.found && n > 0 && g.count > 0 {
		g.after = min(g.after, s.segments[n-1].next())
		s.untold[g] = true
		c.found = false
	}
	c.upTo = max(c.upTo, g.next())
}

// countHoles counts what was found damaged within a segment.
func (s *Spool) countHoles(g *segment) {
	for _, pos := range g.fresh {
		if pos > s.acked {
			s.lost[0]++
			s.untold[g] = true
		}
	}
	g.fresh = nil
}

// repair is what to write into a segment, so that its damage is not counted
// again.
type repair struct {
	segment *segment
	after   uint64
	holes   map[uint64]bool
}

// repairs returns what is to be marked. s.mu is held.
func (s *Spool) repairs() (list []repair) {
	for g := range s.told {
		holes := map[uint64]bool{}
		for pos := range g.holes {
			holes[pos] = true
		}
		list = append(list, repair{g, g.after, holes})
	}
	clear(s.told)
	return list
}

// mark carries repairs out. What fails is left for the next time.
func (s *Spool) mark(list []repair) error {
	var errs []error
	for _, r := range list {
		if err := r.write(); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
			s.mu.Lock()
			s.told[r.segment] = true
			s.mu.Unlock()
		}
	}
	return errors.Join(errs...)
}

func (r *repair) write() error {
	f, err := os.OpenFile(r.segment.name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteAt(binary.LittleEndian.AppendUint64(nil, r.after), afterOffset); err != nil {
		return err
	}
	if len(r.holes) > 0 {
		if err := r.fill(f); err != nil {
			return err
		}
	}
	return f.Sync()
}

// fill gives damaged records the kind givenUp. Their length was right: a good
// record followed.
func (r *repair) fill(f *os.File) error {
	in := bufio.NewReaderSize(io.NewSectionReader(f, headerSize, 1<<62), 64<<10)
	at := int64(headerSize)
	for pos := r.segment.first; ; pos++ {
		_, data, err := readRecord(in)
		if err != nil && data == nil {
			return nil // the end of what can be read
		}
		if errors.Is(err, errDamaged) && r.holes[pos] {
			head := binary.LittleEndian.AppendUint32(nil, crc32.Update(checksum([]byte{givenUp}), castagnoli, data))
			if _, err := f.WriteAt(append(head, givenUp), at+4); err != nil {
				return err
			}
		}
		at += recordHeader + int64(len(data))
	}
}
