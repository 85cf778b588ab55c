package access

import (
	"sync"
	"time"

	"komainu/fault"
)

// Failed sign-ins that are let through before a pause, per name and address
// and per address. The pause doubles with each further failure.
const (
	freeByName    = 5
	freeByAddress = 25
	firstPause    = 15 * time.Second
	longestPause  = 15 * time.Minute
	forgetAfter   = time.Hour
	maxTracked    = 10_000
)

// limiter slows down guessing. It is kept in memory: a restart forgives, and
// nobody can fill the disk with wrong names. An attacker cannot lock out a
// user who signs in from another address.
type limiter struct {
	now func() time.Time
	mu  sync.Mutex
	by  map[string]*failures
}

type failures struct {
	count int
	last  time.Time
	until time.Time
}

func newLimiter(now func() time.Time) *limiter {
	return &limiter{now: now, by: map[string]*failures{}}
}

func keys(name, address string) [2]struct {
	key  string
	free int
} {
	return [2]struct {
		key  string
		free int
	}{{"n" + address + "\x00" + name, freeByName}, {"a" + address, freeByAddress}}
}

// check refuses while a pause lasts.
func (l *limiter) check(name, address string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, k := range keys(name, address) {
		if f := l.by[k.key]; f != nil {
			if wait := f.until.Sub(l.now()); wait > 0 {
				return fault.New(fault.Exhausted, "too many failed sign-ins from this address; try again in %s. An administrator of the host can set a new password with: komainu-control admin reset", wait.Round(time.Second))
			}
		}
	}
	return nil
}

// failed counts a failure.
func (l *limiter) failed(name, address string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if len(l.by) >= maxTracked {
		for k, f := range l.by {
			if now.Sub(f.last) > forgetAfter || len(l.by) >= 2*maxTracked {
				delete(l.by, k)
			}
		}
	}
	for _, k := range keys(name, address) {
		f := l.by[k.key]
		if f == nil || now.Sub(f.last) > forgetAfter {
			f = &failures{}
			l.by[k.key] = f
		}
		f.count++
		f.last = now
		if over := f.count - k.free; over >= 0 {
			f.until = now.Add(min(longestPause, firstPause<<min(over, 10)))
		}
	}
}

// succeeded forgives the name at this address.
func (l *limiter) succeeded(name, address string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.by, keys(name, address)[0].key)
}
