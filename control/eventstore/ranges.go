package eventstore

import (
	"slices"
	"sort"
)

// Range is a run of sequence numbers, both ends included.
type Range struct {
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
}

// MaxRanges bounds what one sequence remembers. Numbers come nearly in order,
// so that more gaps than this is a fault or an attack: the lowest gap then
// counts as never to be filled, and what comes for it later is dropped as a
// duplicate. It stays in Missing.
const MaxRanges = 16384

// Sequence knows which numbers of one (device, epoch, source) have come. It
// is what de-duplication decides by. The zero value is an empty one.
type Sequence struct {
	Stored   uint64 // how many numbers have come
	From, To int64  // Nanos of the earliest and the latest event
	Received int64  // Unix nanoseconds of the latest arrival

	ranges []Range // ascending, disjoint, not adjacent
}

// find returns the index of the first range that ends at or after n.
func (s *Sequence) find(n uint64) int {
	// Numbers nearly always continue the last range.
	if k := len(s.ranges); k == 0 || s.ranges[k-1].Last < n {
		return k
	}
	return sort.Search(len(s.ranges), func(i int) bool { return s.ranges[i].Last >= n })
}

// Has reports whether a number has come.
func (s *Sequence) Has(n uint64) bool {
	i := s.find(n)
	return i < len(s.ranges) && s.ranges[i].First <= n
}

// Add notes that the numbers of r, none of which Has knows, have come: stored
// of them are events, the rest is a gap that was given up.
func (s *Sequence) Add(r Range, stored uint64) {
	s.Stored += stored
	i := s.find(r.First)
	j := i
	if i > 0 && s.ranges[i-1].Last == r.First-1 {
		i--
		r.First = s.ranges[i].First
	}
	if j < len(s.ranges) && s.ranges[j].First-1 == r.Last {
		r.Last = s.ranges[j].Last
		j++
	}
	s.ranges = slices.Replace(s.ranges, i, j, r)
	if len(s.ranges) > MaxRanges {
		s.ranges[1].First = s.ranges[0].First
		s.ranges = slices.Delete(s.ranges, 0, 1)
	}
}

// Saw widens the times by those of other events.
func (s *Sequence) Saw(from, to, received int64) {
	if s.From == 0 && s.To == 0 {
		s.From, s.To = from, to
	}
	s.From, s.To, s.Received = min(s.From, from), max(s.To, to), max(s.Received, received)
}

// Ranges returns what has come, ascending. The caller must not change it.
func (s *Sequence) Ranges() []Range { return s.ranges }

// First returns the lowest number that has come, 0 if none.
func (s *Sequence) First() uint64 {
	if len(s.ranges) == 0 {
		return 0
	}
	return s.ranges[0].First
}

// Last returns the highest number that has come, 0 if none.
func (s *Sequence) Last() uint64 {
	if len(s.ranges) == 0 {
		return 0
	}
	return s.ranges[len(s.ranges)-1].Last
}

// Missing is how many of the numbers from 1 to Last have not come.
func (s *Sequence) Missing() uint64 { return s.Last() - s.Stored }

// Gaps returns the newest gaps, at most limit of them, ascending. The numbers
// before the first range are a gap, too.
func (s *Sequence) Gaps(limit int) []Range {
	var gaps []Range
	for i := len(s.ranges) - 1; i >= 0 && len(gaps) < limit; i-- {
		before := uint64(0)
		if i > 0 {
			before = s.ranges[i-1].Last
		}
		if s.ranges[i].First > before+1 {
			gaps = append(gaps, Range{before + 1, s.ranges[i].First - 1})
		}
	}
	slices.Reverse(gaps)
	return gaps
}
