package scan

import (
	"bytes"
	"encoding/binary"

	"komainu/fault"
	"komainu/finding"
)

// literals finds many byte strings in one pass.
//
// A window of 11 bytes holds an 8-byte gram at every alignment modulo 4. So
// it is enough to look at one gram of the text per 4 bytes, if the 4 grams of
// one window of every literal are known: whatever the alignment of an
// occurrence, one of them is hit. A bitmap of hashed grams turns nearly all
// positions away; what passes is looked up and compared.
type literals struct {
	list    []literal
	longest int
	bits    []uint64
	shift   uint
	grams   map[uint64][]gram
}

type literal struct {
	bytes []byte
	name  finding.ThreatName
}

// gram says that the literal with this index holds it at this offset.
type gram struct {
	literal int
	offset  int
}

// The lengths that a literal can have. Shorter ones would wreck the filter,
// longer ones would make the overlap of two windows long.
const (
	minLiteral = 11
	maxLiteral = 256
	stride     = 4
)

func (l *literals) add(text []byte, name finding.ThreatName) error {
	if len(text) < minLiteral || len(text) > maxLiteral {
		return fault.New(fault.Invalid, "%d bytes: a literal has %d to %d", len(text), minLiteral, maxLiteral)
	}
	l.list = append(l.list, literal{bytes: text, name: name})
	l.longest = max(l.longest, len(text))
	return nil
}

// build makes the filter once all literals are added.
func (l *literals) build() {
	size := uint(1 << 12) // bits; 16 for each gram keep false positives near 6 %
	for size < uint(len(l.list))*stride*16 {
		size *= 2
	}
	l.bits = make([]uint64, size/64)
	l.shift = 64 - log2(size)
	l.grams = map[uint64][]gram{}
	for i, lit := range l.list {
		at := rarestWindow(lit.bytes)
		for o := at; o < at+stride; o++ {
			g := binary.LittleEndian.Uint64(lit.bytes[o:])
			l.grams[g] = append(l.grams[g], gram{literal: i, offset: o})
			h := l.hash(g)
			l.bits[h/64] |= 1 << (h % 64)
		}
	}
}

func log2(n uint) uint {
	var k uint
	for ; n > 1; n /= 2 {
		k++
	}
	return k
}

func (l *literals) hash(g uint64) uint64 { return g * 0x9e3779b97f4a7c15 >> l.shift }

// rarestWindow picks the 11 bytes of a literal that ordinary files hold least:
// those with the most distinct bytes. Padding and runs make bad filters.
func rarestWindow(text []byte) int {
	best, at := -1, 0
	for i := range len(text) - minLiteral + 1 {
		var seen [256]bool
		distinct := 0
		for _, b := range text[i : i+minLiteral] {
			if !seen[b] {
				seen[b] = true
				distinct++
			}
		}
		if distinct > best {
			best, at = distinct, i
		}
	}
	return at
}

// find returns the literal that occurs in text, the first of the list when
// there are several.
func (l *literals) find(text []byte) (finding.ThreatName, bool) {
	if len(l.list) == 0 || len(text) < minLiteral {
		return "", false
	}
	best := len(l.list)
	for i := 0; i+8 <= len(text); i += stride {
		g := binary.LittleEndian.Uint64(text[i:])
		if h := l.hash(g); l.bits[h/64]&(1<<(h%64)) == 0 {
			continue
		}
		for _, c := range l.grams[g] {
			lit, from := l.list[c.literal].bytes, i-c.offset
			if c.literal < best && from >= 0 && bytes.HasPrefix(text[from:], lit) {
				best = c.literal
			}
		}
	}
	if best == len(l.list) {
		return "", false
	}
	return l.list[best].name, true
}
