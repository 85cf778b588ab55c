package scan

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"komainu/fault"
	"komainu/finding"
)

// processState is the Linux half of Process.
//
// Lock order: mu is never held while a child's lock is taken or a place is
// waited for.
type processState struct {
	places chan struct{} // one token for each scan that may run
	alone  chan struct{} // held by a suspect, which takes all places
	blamed blame

	crashes, hangs, scans, failed atomic.Uint64
	waiting                       atomic.Int64

	mu      sync.Mutex
	child   *child // nil while there is none
	since   time.Time
	started uint64
	fails   int           // starts and deaths in a row without a verdict between
	problem error         // why there is no child
	change  chan struct{} // closed and replaced when child or problem changes
	wanted  chan struct{} // takes one token: a scan waits for a child
	running bool
}

// Restarting waits longer each time, from restartAfter to restartMax.
const (
	restartAfter = 50 * time.Millisecond
	restartMax   = 10 * time.Second
	// hopeless is the number of failed starts in a row after which Scan
	// answers at once instead of waiting.
	hopeless = 3
)

func (p *Process) init() {
	p.places = make(chan struct{}, p.cfg.Parallel)
	p.alone = make(chan struct{}, 1)
	p.change = make(chan struct{})
	p.wanted = make(chan struct{}, 1)
	p.since = time.Now()
}

func (p *Process) run(ctx context.Context) error {
	// Pdeathsig fires when the thread that started the child ends, so the
	// thread belongs to this goroutine until Run returns.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	p.mu.Lock()
	p.running = true
	p.mu.Unlock()
	defer func() {
		p.set(nil, errors.New("the scanner is stopped"))
		p.mu.Lock()
		p.running = false
		p.mu.Unlock()
	}()
	for ctx.Err() == nil {
		if !p.rest(ctx) {
			return nil
		}
		c, err := startChild(ctx, p.cfg)
		if err == nil {
			p.set(c, nil)
			err = p.watch(ctx, c)
		}
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			continue // idle
		}
		wait := p.failure(err)
		p.cfg.Log.Warn("scanner ended", "error", err, "restart_in", wait)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
	return nil
}

// mayRest reports whether there need be no child while nothing is scanned.
func (p *Process) mayRest() bool { return p.cfg.Idle > 0 && (p.cfg.Keep == nil || !p.cfg.Keep()) }

// rest returns when there has to be a child, or with false when ctx ends.
func (p *Process) rest(ctx context.Context) bool {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for p.mayRest() {
		select {
		case <-p.wanted:
			return true
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// failure records one more failure and returns how long to wait.
func (p *Process) failure(err error) time.Duration {
	p.mu.Lock()
	p.fails++
	n := p.fails
	p.mu.Unlock()
	p.set(nil, err)
	if n == 1 {
		return 0 // one bad file; protection should not wait
	}
	return min(restartMax, restartAfter<<min(n, 16))
}

// set announces a change to everybody who waits for a child.
func (p *Process) set(c *child, problem error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.child, p.problem, p.since = c, problem, time.Now()
	if c != nil {
		p.started++
	}
	close(p.change)
	p.change = make(chan struct{})
}

// watch returns when the child is gone: with nil when it was idle or ctx
// ended, else with the reason.
func (p *Process) watch(ctx context.Context, c *child) error {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	scans, last := p.scans.Load(), time.Now()
	for {
		select {
		case <-ctx.Done():
			c.kill()
			<-c.dead
			return nil
		case <-c.dead:
			p.crashes.Add(1)
			return fmt.Errorf("%w: %v%s", errDied, c.cmd.ProcessState, c.stderr.suffix())
		case now := <-tick.C:
			if c.silent() > staleAfter {
				p.hangs.Add(1)
				c.kill()
				<-c.dead
				return fmt.Errorf("%w: no sign of life for %s", errHung, staleAfter)
			}
			rest := p.mayRest()
			if n := p.scans.Load(); n != scans || c.busy() > 0 || !rest {
				scans, last = n, now
			}
			if rest && now.Sub(last) > p.cfg.Idle {
				p.set(nil, nil) // no new scan gets this child; one that has it already is tried again
				c.kill()
				<-c.dead
				return nil
			}
		}
	}
}

// current waits for a child that is ready.
func (p *Process) current(ctx context.Context) (*child, error) {
	for {
		p.mu.Lock()
		c, change, problem := p.child, p.change, p.problem
		down := p.fails >= hopeless && problem != nil
		p.mu.Unlock()
		if c != nil {
			select {
			case <-c.dead: // Run has not noticed yet
			default:
				return c, nil
			}
		}
		if down {
			return nil, fault.Wrap(fault.Unavailable, problem, "the scanner does not run")
		}
		select {
		case p.wanted <- struct{}{}:
		default:
		}
		select {
		case <-change:
		case <-ctx.Done():
			if problem != nil {
				return nil, fault.Wrap(fault.Unavailable, errors.Join(ctx.Err(), problem), "the scanner does not run")
			}
			return nil, ctx.Err()
		}
	}
}

func (p *Process) scan(ctx context.Context, file *os.File, o Options) (finding.Verdict, error) {
	key, err := identify(file)
	if err != nil {
		return finding.Verdict{}, err
	}
	if o.Budget <= 0 {
		o.Budget = DefaultLimits().Time
	}
	if p.blamed.guilty(key) {
		p.failed.Add(1)
		return finding.Verdict{Outcome: finding.ScanFailed, Size: key.size, Reason: "the scanner died on this file twice; it is tried again later"}, nil
	}
	v, err := p.attempt(ctx, file, o, 1)
	if errors.Is(err, errDied) {
		// Alone now: if the scanner dies again, it was this file.
		v, err = p.attempt(ctx, file, o, p.cfg.Parallel)
		if errors.Is(err, errDied) {
			p.blamed.add(key, 2)
		}
	} else if errors.Is(err, errHung) {
		p.hangs.Add(1)
		p.blamed.add(key, 1)
	}
	switch {
	case errors.Is(err, errDied), errors.Is(err, errHung):
		v = finding.Verdict{Outcome: finding.ScanFailed, Size: key.size, Reason: err.Error() + " on this file"}
	case err != nil:
		return finding.Verdict{}, err
	default:
		p.mu.Lock()
		p.fails = 0
		p.mu.Unlock()
	}
	p.scans.Add(1)
	if v.Outcome == finding.ScanFailed {
		p.failed.Add(1)
	}
	return v, nil
}

// attempt scans once, holding the given number of places: 1, or all.
func (p *Process) attempt(ctx context.Context, file *os.File, o Options, places int) (finding.Verdict, error) {
	release, err := p.take(ctx, places)
	if err != nil {
		return finding.Verdict{}, err
	}
	c, err := p.current(ctx)
	if err != nil {
		release()
		return finding.Verdict{}, err
	}
	return c.scan(ctx, file, o, release)
}

// take waits for places. Only one caller at a time collects all of them, or
// two would hold half each for ever.
func (p *Process) take(ctx context.Context, places int) (release func(), err error) {
	p.waiting.Add(1)
	defer p.waiting.Add(-1)
	if places > 1 {
		select {
		case p.alone <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	taken := 0
	release = func() {
		for range taken {
			<-p.places
		}
		if places > 1 {
			<-p.alone
		}
	}
	for taken < places {
		select {
		case p.places <- struct{}{}:
			taken++
		case <-ctx.Done():
			release()
			return nil, ctx.Err()
		}
	}
	return release, nil
}

func (p *Process) status() Status {
	s := Status{
		Crashes: p.crashes.Load(), Hangs: p.hangs.Load(), Scans: p.scans.Load(), Failed: p.failed.Load(),
		Waiting: int(p.waiting.Load()),
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s.Since, s.Started = p.since, p.started
	switch {
	case p.child != nil:
		s.Silent = p.child.silent()
		s.Up, s.PID, s.Confinement, s.Panics = true, p.child.cmd.Process.Pid, p.child.hello, p.child.panics.Load()
		if !s.Confined() {
			s.Problem = "the scanner is not fully confined"
		}
	case p.problem != nil:
		s.Problem = p.problem.Error()
	case !p.running:
		s.Problem = "the scanner is not started"
	}
	return s
}

// fileKey names content as well as stat can.
type fileKey struct {
	dev, ino     uint64
	size         int64
	mtime, ctime unix.Timespec
}

func identify(file *os.File) (fileKey, error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return fileKey{}, err
	}
	var st unix.Stat_t
	var statErr error
	if err := raw.Control(func(fd uintptr) { statErr = unix.Fstat(int(fd), &st) }); err != nil {
		return fileKey{}, err
	}
	if statErr != nil {
		return fileKey{}, fmt.Errorf("scan: %w", statErr)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return fileKey{}, fault.New(fault.Invalid, "scan: not a regular file")
	}
	return fileKey{dev: st.Dev, ino: st.Ino, size: st.Size, mtime: st.Mtim, ctime: st.Ctim}, nil
}

// blame remembers files that the scanner died on.
type blame struct {
	mu   sync.Mutex
	list map[fileKey]blamedFile
}

type blamedFile struct {
	strikes int
	at      time.Time
}

const (
	blameFor = 10 * time.Minute
	blameMax = 4096 // files; the map is emptied beyond, at worst they are tried again
	guiltyAt = 2    // strikes
)

func (b *blame) add(k fileKey, strikes int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.list == nil || len(b.list) >= blameMax {
		b.list = map[fileKey]blamedFile{}
	}
	f := b.list[k]
	b.list[k] = blamedFile{strikes: f.strikes + strikes, at: time.Now()}
}

func (b *blame) guilty(k fileKey) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	f, ok := b.list[k]
	if ok && time.Since(f.at) > blameFor {
		delete(b.list, k)
		return false
	}
	return f.strikes >= guiltyAt
}
