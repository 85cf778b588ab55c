package spool

import (
	"bufio"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
)

// Batch is consecutive records, starting at First.
type Batch struct {
	First   uint64
	Records [][]byte
}

// Last returns the position of the last record: what to acknowledge.
func (b Batch) Last() uint64 { return b.First + uint64(len(b.Records)) - 1 }

// cursor remembers where the last read ended, so that reading on is not a
// search.
type cursor struct {
	segment *segment
	file    *os.File
	reader  *bufio.Reader
	pos     uint64 // of the next record in the file
}

func (c *cursor) close() {
	if c.file != nil {
		_ = c.file.Close() // only read from
	}
	*c = cursor{}
}

// Next returns the records after a position, at most maxBytes of them but at
// least one, as soon as there is one. After 0 means from the first that is
// not acknowledged. Records that were dropped or damaged are skipped: First
// says where the batch begins.
func (s *Spool) Next(ctx context.Context, after uint64, maxBytes int) (Batch, error) {
	for {
		b, more, err := s.tryNext(after, maxBytes)
		if err != nil || len(b.Records) > 0 {
			return b, err
		}
		select {
		case <-ctx.Done():
			return Batch{}, ctx.Err()
		case <-more:
		}
	}
}

func (s *Spool) tryNext(after uint64, maxBytes int) (Batch, <-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	from := max(after, s.acked) + 1
	for _, g := range s.segments {
		for g.next() > from {
			from = max(from, g.first)
			b, err := s.readSegment(g, from, maxBytes)
			if err != nil || len(b.Records) > 0 {
				return b, nil, err
			}
			if s.cursor.segment != g {
				break // the rest of it is lost
			}
			from = s.cursor.pos // behind damaged records
		}
	}
	return s.readWaiting(from, maxBytes), s.more, nil
}

// readSegment returns the consecutive records that can be read from a
// position on. An empty batch with the cursor still in the segment says that
// there is damage up to the cursor, without it that there is nothing more.
func (s *Spool) readSegment(g *segment, from uint64, maxBytes int) (Batch, error) {
	if s.cursor.segment != g || s.cursor.pos > from {
		if err := s.seek(g); err != nil || s.cursor.segment != g {
			return Batch{}, err
		}
	}
	b := Batch{First: from}
	for size := 0; s.cursor.pos < g.next() && (size < maxBytes || len(b.Records) == 0); {
		_, data, err := readRecord(s.cursor.reader)
		damaged := err != nil
		if damaged && data == nil {
			s.cutShort(g, s.cursor.pos)
			return b, nil
		}
		if s.cursor.pos < from {
			s.cursor.pos++
			continue
		}
		if len(b.Records) > 0 && (damaged || size+len(data) > maxBytes) {
			s.cursor.close() // what ends the batch is read again
			return b, nil
		}
		if damaged && g.hole(s.cursor.pos) {
			s.lost[0]++
			s.untold[g] = true
		}
		s.cursor.pos++
		if damaged {
			return Batch{}, nil
		}
		b.Records = append(b.Records, data)
		size += len(data)
	}
	return b, nil
}

// seek puts the cursor at the beginning of a segment. A segment whose file is
// gone is lost.
func (s *Spool) seek(g *segment) error {
	s.cursor.close()
	f, err := os.Open(g.name)
	if errors.Is(err, fs.ErrNotExist) {
		s.cutShort(g, g.first)
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := f.Seek(headerSize, io.SeekStart); err != nil {
		return errors.Join(err, f.Close())
	}
	s.cursor = cursor{segment: g, file: f, reader: bufio.NewReaderSize(f, 64<<10), pos: g.first}
	return nil
}

// cutShort gives up the records of a segment from a position on: damage that
// came after the spool was opened. They are counted once.
func (s *Spool) cutShort(g *segment, at uint64) {
	s.cursor.close()
	if from := max(at, s.acked+1); g.next() > from {
		s.lost[0] += g.next() - from
	}
	if i := slices.Index(s.segments, g); i >= 0 && i+1 < len(s.segments) {
		behind := s.segments[i+1]
		behind.after = min(behind.after, at)
		s.untold[behind] = true
	}
	g.count = at - g.first
	g.kinds = [kinds]uint64{0: g.count} // which of them are left is not known
}

// readWaiting reads from memory what the disk did not take.
func (s *Spool) readWaiting(from uint64, maxBytes int) Batch {
	b := Batch{}
	size := 0
	for _, r := range s.waiting {
		if r.pos < from {
			continue
		}
		if len(b.Records) == 0 {
			b.First = r.pos
		}
		if r.pos != b.First+uint64(len(b.Records)) || len(b.Records) > 0 && size+len(r.data) > maxBytes {
			break
		}
		b.Records = append(b.Records, r.data)
		size += len(r.data)
	}
	return b
}
