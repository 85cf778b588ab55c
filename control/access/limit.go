package access

import (
	"maps"
	"strings"
	"sync"
	"time"

	"komainu/fault"
)

// Failed sign-ins that are let through before a pause, per name and address,
// per address, and per name from everywhere. The pause doubles with each
// further failure.
const (
	freeByName    = 5
	freeByAddress = 25
	freeByAccount = 50
	firstPause    = 15 * time.Second
	longestPause  = 15 * time.Minute
	forgetAfter   = time.Hour
	maxTracked    = 10_000
)

// limiter slows down guessing. It is kept in memory: a restart forgives, and
// nobody can fill the disk with wrong names. A name that is guessed from many
// addresses is locked for all of them but those that its user has signed in
// from before, so that an attacker cannot lock a user out. Names that there
// are and names that there are not are treated alike.
type limiter struct {
	now  func() time.Time
	mu   sync.Mutex
	by   map[string]*failures
	good map[string]bool // name and address of sign-ins that went well
}

type failures struct {
	count int
	last  time.Time
	until time.Time
}

func newLimiter(now func() time.Time) *limiter {
	return &limiter{now: now, by: map[string]*failures{}, good: map[string]bool{}}
}

// counted is one of the things that failures are counted by.
type counted struct {
	key  string
	free int
	what string
}

// keys are what a sign-in counts for. Names differ in more than case.
func keys(name, address string) [3]counted {
	name = strings.ToLower(name)
	return [3]counted{
		{"n" + address + "\x00" + name, freeByName, "from this address"},
		{"a" + address, freeByAddress, "from this address"},
		{"u" + name, freeByAccount, "for this name"},
	}
}

// check refuses while a pause lasts.
func (l *limiter) check(name, address string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, k := range keys(name, address) {
		if l.good[address+"\x00"+strings.ToLower(name)] && i == 2 {
			continue
		}
		if f := l.by[k.key]; f != nil {
			if wait := f.until.Sub(l.now()); wait > 0 {
				return fault.New(fault.Exhausted, "too many failed sign-ins %s; try again in %s, or ask an administrator to reset the password. On the host, komainu-control admin reset sets a new one for the first administrator", k.what, wait.Round(time.Second))
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

// succeeded forgives the name at this address, which from now on is one of its
// user's.
func (l *limiter) succeeded(name, address string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := keys(name, address)
	delete(l.by, k[0].key)
	if len(l.good) >= maxTracked {
		clear(l.good)
	}
	l.good[address+"\x00"+strings.ToLower(name)] = true
}

// forgive unlocks a name everywhere.
func (l *limiter) forgive(name string) {
	name = strings.ToLower(name)
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(l.by, func(key string, _ *failures) bool {
		return key == "u"+name || strings.HasPrefix(key, "n") && strings.HasSuffix(key, "\x00"+name)
	})
}
