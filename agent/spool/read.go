package spool

import (
	"bufio"
	"context"
	"io"
	"os"
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
		if g.next() <= from {
			continue
		}
		b, err := s.readSegment(g, max(from, g.first), maxBytes)
		if err != nil || len(b.Records) > 0 {
			return b, nil, err
		}
		from = g.next() // damaged since it was scanned: go on behind it
	}
	return s.readWaiting(from, maxBytes), s.more, nil
}

func (s *Spool) readSegment(g *segment, from uint64, maxBytes int) (Batch, error) {
	if s.cursor.segment != g || s.cursor.pos > from {
		s.cursor.close()
		f, err := os.Open(g.name)
		if err != nil {
			return Batch{}, err
		}
		r := bufio.NewReaderSize(f, 64<<10)
		s.cursor = cursor{segment: g, file: f, reader: r, pos: g.first}
		if _, err := f.Seek(headerSize, io.SeekStart); err != nil {
			s.cursor.close()
			return Batch{}, err
		}
	}
	b := Batch{First: from}
	for size := 0; s.cursor.pos < g.next() && (size < maxBytes || len(b.Records) == 0); {
		_, data, err := readRecord(s.cursor.reader)
		if err != nil {
			// Damage that came after the scan: the rest of the segment is lost.
			s.cursor.close()
			s.lost[0] += g.next() - max(from, b.First+uint64(len(b.Records)))
			return b, nil
		}
		if s.cursor.pos >= from {
			if len(b.Records) > 0 && size+len(data) > maxBytes {
				s.cursor.close() // the record that does not fit is read again
				return b, nil
			}
			b.Records = append(b.Records, data)
			size += len(data)
		}
		s.cursor.pos++
	}
	return b, nil
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
