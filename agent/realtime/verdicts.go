package realtime

import "sync"

// inode names a file, whatever its content.
type inode struct{ device, number uint64 }

func (s Stamp) inode() inode { return inode{s.Device, s.Inode} }

// verdicts remembers what was judged: of each file the last verdict, and the
// stamp that it holds for. Two generations of a map make a cheap cache with
// bounded memory: when the young one is full it becomes the old one, and what
// was not asked for in a whole generation is forgotten.
//
// A stamp alone does not prove that a file is unchanged: the kernel's clock
// for files ticks every few milliseconds, and a store through a mapping need
// not touch it. So a file whose writer has closed it is forgotten too.
type verdicts struct {
	mu    sync.Mutex
	size  int
	young map[inode]verdict
	old   map[inode]verdict
	all   uint64       // times that everything was forgotten
	some  [1024]uint64 // times that a file was forgotten, by hash
}

type verdict struct {
	stamp Stamp
	bad   bool
}

// token tells whether something was forgotten since.
type token struct{ all, some uint64 }

func newVerdicts(size int) *verdicts {
	return &verdicts{size: max(2, size), young: map[inode]verdict{}}
}

// get returns what is known of a file with this content.
func (v *verdicts) get(s Stamp) Known {
	v.mu.Lock()
	defer v.mu.Unlock()
	i := s.inode()
	found, ok := v.young[i]
	if !ok {
		if found, ok = v.old[i]; ok {
			v.add(i, found)
		}
	}
	switch {
	case !ok || found.stamp != s:
		return Unknown
	case found.bad:
		return KnownBad
	default:
		return KnownClean
	}
}

// begin is called before a file is judged.
func (v *verdicts) begin(s Stamp) token {
	v.mu.Lock()
	defer v.mu.Unlock()
	return token{v.all, v.some[s.inode().hash()]}
}

// put remembers a verdict unless it may rest on what no longer holds: the
// file, or everything, was forgotten since the token was taken.
func (v *verdicts) put(s Stamp, bad bool, began token) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if i := s.inode(); began == (token{v.all, v.some[i.hash()]}) {
		v.add(i, verdict{s, bad})
	}
}

func (v *verdicts) add(i inode, found verdict) {
	if len(v.young) >= v.size/2 {
		v.young, v.old = map[inode]verdict{}, v.young
	}
	v.young[i] = found
}

// drop forgets a file.
func (v *verdicts) drop(s Stamp) {
	v.mu.Lock()
	defer v.mu.Unlock()
	i := s.inode()
	v.some[i.hash()]++
	delete(v.young, i)
	delete(v.old, i)
}

// forget forgets everything.
func (v *verdicts) forget() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.all++
	v.young, v.old = map[inode]verdict{}, nil
}

func (i inode) hash() uint64 { return (i.device*31 + i.number) % 1024 }
