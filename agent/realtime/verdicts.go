package realtime

import "sync"

// verdicts remembers what was judged, by stamp. Two generations of a map make
// a cheap cache with bounded memory: when the young one is full it becomes
// the old one, and what was not asked for in a whole generation is forgotten.
type verdicts struct {
	mu    sync.Mutex
	size  int
	young map[Stamp]bool
	old   map[Stamp]bool
	gen   uint64
}

func newVerdicts(size int) *verdicts {
	return &verdicts{size: max(2, size), young: map[Stamp]bool{}}
}

// get returns whether the file is bad, if that is known.
func (v *verdicts) get(s Stamp) (bad, ok bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if bad, ok = v.young[s]; ok {
		return bad, true
	}
	if bad, ok = v.old[s]; ok {
		v.add(s, bad)
	}
	return bad, ok
}

// generation tells apart verdicts from before and after forget.
func (v *verdicts) generation() uint64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.gen
}

// put remembers a verdict unless everything was forgotten since generation
// was asked for: it may rest on what no longer holds.
func (v *verdicts) put(s Stamp, bad bool, generation uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if generation == v.gen {
		v.add(s, bad)
	}
}

func (v *verdicts) add(s Stamp, bad bool) {
	if len(v.young) >= v.size/2 {
		v.young, v.old = map[Stamp]bool{}, v.young
	}
	v.young[s] = bad
}

func (v *verdicts) forget() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.gen++
	v.young, v.old = map[Stamp]bool{}, nil
}
