package spool

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"komainu/fault"
)

// A segment file is a header and records:
//
//	header  "KSPL" version u8 first-position u64 after u64
//	record  length u32  checksum u32 (CRC-32C of kind and data)  kind u8  data
//
// Numbers are little-endian.
const (
	suffix         = ".seg"
	segmentMagic   = "KSPL"
	segmentVersion = 1
	headerSize     = 21
	afterOffset    = 13
	recordHeader   = 9
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// segment is a file of consecutive records.
type segment struct {
	name  string
	first uint64          // position of the first record
	after uint64          // where the segment before it ended; what is between is known to be lost
	count uint64          // positions in the file
	fresh []uint64        // positions that were found damaged when it was opened, and not before
	holes map[uint64]bool // positions of damaged records between good ones
	size  int64           // bytes that are used
	kinds [kinds]uint64
}

func (g *segment) next() uint64 { return g.first + g.count }

// hole notes a damaged record and reports whether it is news.
func (g *segment) hole(pos uint64) bool {
	if g.holes == nil {
		g.holes = map[uint64]bool{}
	}
	news := !g.holes[pos]
	g.holes[pos] = true
	return news
}

func segmentName(dir string, first uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%016x%s", first, suffix))
}

func createSegment(dir string, first, after uint64) (*segment, *os.File, error) {
	name := segmentName(dir, first)
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, nil, err
	}
	header := append([]byte(segmentMagic), segmentVersion)
	header = binary.LittleEndian.AppendUint64(header, first)
	header = binary.LittleEndian.AppendUint64(header, after)
	if _, err := f.WriteAt(header, 0); err != nil {
		return nil, nil, errors.Join(err, f.Close(), os.Remove(name))
	}
	return &segment{name: name, first: first, after: after, size: headerSize}, f, nil
}

func appendRecord(b []byte, kind Kind, data []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(data)))
	sum := crc32.Update(checksum([]byte{byte(kind)}), castagnoli, data)
	b = binary.LittleEndian.AppendUint32(b, sum)
	b = append(b, byte(kind))
	return append(b, data...)
}

// errEmptySegment says that a file holds no record and can go.
var errEmptySegment = errors.New("segment without a record")

// errDamaged says that a record is not whole.
var errDamaged = errors.New("damaged record")

// scanSegment reads a segment to learn what is good in it. A damaged record is
// passed over when the next one is good; otherwise the rest of the segment is
// lost, and cut off if it is the last segment, where a power cut leaves that.
func scanSegment(name string, last bool) (*segment, error) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	r := bufio.NewReaderSize(f, 64<<10)
	g := &segment{name: name, size: headerSize}
	if g.first, g.after, err = readHeader(r); err != nil {
		return nil, err
	}
	for g.size < info.Size() {
		kind, data, err := readRecord(r)
		end := g.size + recordHeader + int64(len(data))
		switch {
		case err == nil:
			g.kinds[kind]++
		case errors.Is(err, errGivenUp):
			g.hole(g.next())
		case data != nil && (end == info.Size() || isRecord(f, end)):
			g.hole(g.next())
			g.fresh = append(g.fresh, g.next())
		case last:
			// How many records were cut off is not known; it was one at least.
			g.fresh = append(g.fresh, g.next())
			return g, f.Truncate(g.size)
		default:
			return g, nil // the first position of the next segment tells how many
		}
		g.count++
		g.size = end
	}
	return g, nil
}

// isRecord reports whether a good record begins at an offset.
func isRecord(f *os.File, at int64) bool {
	_, _, err := readRecord(io.NewSectionReader(f, at, recordHeader+MaxRecord))
	return err == nil || errors.Is(err, errGivenUp)
}

func readHeader(r io.Reader) (first, after uint64, err error) {
	var h [headerSize]byte
	if _, err := io.ReadFull(r, h[:]); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) || string(h[:4]) != segmentMagic {
		return 0, 0, errEmptySegment
	}
	if h[4] > segmentVersion {
		return 0, 0, fault.New(fault.Conflict, "the spool was written by a newer version (format %d, this version knows %d); install that version or move the folder away", h[4], segmentVersion)
	}
	first, after = binary.LittleEndian.Uint64(h[5:]), binary.LittleEndian.Uint64(h[13:])
	if first == 0 {
		return 0, 0, errEmptySegment // a crash while it was created
	}
	return first, after, nil
}

// readRecord returns io.EOF at the end, errDamaged for a record that is not
// whole, and errGivenUp for one that was found damaged before. Of one that is
// there but does not match its check sum it returns the data too.
func readRecord(r io.Reader) (Kind, []byte, error) {
	var h [recordHeader]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return 0, nil, io.EOF
		}
		return 0, nil, errDamaged
	}
	n := binary.LittleEndian.Uint32(h[:])
	if n > MaxRecord {
		return 0, nil, errDamaged
	}
	data := make([]byte, n)
	if _, err := io.ReadFull(r, data); err != nil {
		return 0, nil, errDamaged
	}
	good := crc32.Update(checksum(h[8:9]), castagnoli, data) == binary.LittleEndian.Uint32(h[4:])
	switch {
	case good && h[8] == givenUp:
		return 0, data, errGivenUp
	case !good, h[8] >= kinds:
		return 0, data, errDamaged
	}
	return Kind(h[8]), data, nil
}
