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
//	header  "KSPL" version u8 first-position u64
//	record  length u32  checksum u32 (CRC-32C of kind and data)  kind u8  data
//
// Numbers are little-endian.
const (
	suffix         = ".seg"
	segmentMagic   = "KSPL"
	segmentVersion = 1
	headerSize     = 13
	recordHeader   = 9
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// segment is a file of consecutive records.
type segment struct {
	name  string
	first uint64 // position of the first record
	count uint64
	size  int64 // bytes that are good
	kinds [kinds]uint64
}

func (g *segment) next() uint64 { return g.first + g.count }

func segmentName(dir string, first uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%016x%s", first, suffix))
}

func createSegment(dir string, first uint64) (*segment, *os.File, error) {
	name := segmentName(dir, first)
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, nil, err
	}
	header := append([]byte(segmentMagic), segmentVersion)
	header = binary.LittleEndian.AppendUint64(header, first)
	if _, err := f.WriteAt(header, 0); err != nil {
		return nil, nil, errors.Join(err, f.Close(), os.Remove(name))
	}
	return &segment{name: name, first: first, size: headerSize}, f, nil
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

// scanSegment reads a segment to learn what is good in it. Of the last
// segment the damaged tail is cut off, so that it can be told from damage
// that happens later.
func scanSegment(name string, last bool) (*segment, error) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 64<<10)
	g := &segment{name: name, size: headerSize}
	if g.first, err = readHeader(r); err != nil {
		return nil, err
	}
	for {
		kind, data, err := readRecord(r)
		if err != nil {
			break // io.EOF or damage: the rest is not usable
		}
		g.count++
		g.kinds[kind]++
		g.size += recordHeader + int64(len(data))
	}
	if g.count == 0 {
		return nil, errEmptySegment
	}
	if last {
		if err := f.Truncate(g.size); err != nil {
			return nil, err
		}
	}
	return g, nil
}

func readHeader(r io.Reader) (first uint64, err error) {
	var h [headerSize]byte
	if _, err := io.ReadFull(r, h[:]); err != nil || string(h[:4]) != segmentMagic {
		return 0, errEmptySegment // a crash while it was created
	}
	if h[4] > segmentVersion {
		return 0, fault.New(fault.Conflict, "the spool was written by a newer version (format %d, this version knows %d); install that version or move the folder away", h[4], segmentVersion)
	}
	return binary.LittleEndian.Uint64(h[5:]), nil
}

// readRecord returns io.EOF at the end and errDamaged for a record that is
// not whole.
func readRecord(r io.Reader) (Kind, []byte, error) {
	var h [recordHeader]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return 0, nil, io.EOF
		}
		return 0, nil, errDamaged
	}
	n := binary.LittleEndian.Uint32(h[:])
	if n > MaxRecord || h[8] >= kinds {
		return 0, nil, errDamaged
	}
	data := make([]byte, n)
	if _, err := io.ReadFull(r, data); err != nil {
		return 0, nil, errDamaged
	}
	if crc32.Update(checksum(h[8:9]), castagnoli, data) != binary.LittleEndian.Uint32(h[4:]) {
		return 0, nil, errDamaged
	}
	return Kind(h[8]), data, nil
}
