package realtime

import (
	"fmt"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxFD bounds the file descriptors of the broker. maxWaiting, the openers
// that wait at the same time, leaves room for a full read of the group: a
// read without a free descriptor would make the kernel deny the open.
const (
	maxFD      = 8192
	maxWaiting = 4096
)

// bufSize holds some 170 events per read.
const bufSize = 4096

// shared is the memory that guardian, broker and worker share. Each field has
// one writer but for the counters, which are added to atomically; times are
// CLOCK_MONOTONIC in nanoseconds.
type shared struct {
	guardianBeat atomic.Int64
	brokerBeat   atomic.Int64
	workerBeat   atomic.Int64

	guardianPID atomic.Int32
	brokerPID   atomic.Int32
	workerPID   atomic.Int32
	others      [8]atomic.Int32 // further processes of the agent: the scanner
	// reader is the broker that may read the group, 0 while the guardian does.
	// Two readers would have descriptors of the same number, and the kernel
	// knows an event by its number alone.
	reader atomic.Int32

	events, allowed, denied, cached, own       atomic.Uint64
	expired, passedBy, busy, drained, notified atomic.Uint64
	dropped, merged, overflowed, unreadable    atomic.Uint64
	brokerRuns, workerRuns                     atomic.Uint64
	brokerStale, workerStale                   atomic.Uint64
	// unheard counts the CloseWrite that never reached a worker: it must not
	// trust what it remembers.
	unheard atomic.Uint64

	// buf is what the broker's read(2) fills: should the broker stop right
	// after it, the guardian finds the descriptors here.
	buf [bufSize]byte
	// deadline is, by descriptor number of the broker, until when an opener
	// waits; 0 when nobody does.
	deadline [maxFD]atomic.Int64
}

const sharedSize = int(unsafe.Sizeof(shared{}))

func createShared() (*os.File, *shared, error) {
	fd, err := unix.MemfdCreate("komainu-realtime", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, nil, fmt.Errorf("create shared memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "shared")
	if err := f.Truncate(int64(sharedSize)); err != nil {
		f.Close()
		return nil, nil, fmt.Errorf("size shared memory: %w", err)
	}
	s, err := mapShared(fd)
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, s, nil
}

func mapShared(fd int) (*shared, error) {
	b, err := unix.Mmap(fd, 0, sharedSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map shared memory: %w", err)
	}
	return (*shared)(unsafe.Pointer(&b[0])), nil
}

// ownPID reports whether a process belongs to the agent. Process 0 is what
// the kernel calls one that this pid namespace cannot see.
func (s *shared) ownPID(pid int32) bool {
	if pid <= 0 {
		return false
	}
	if pid == s.workerPID.Load() || pid == s.brokerPID.Load() || pid == s.guardianPID.Load() {
		return true
	}
	for i := range s.others {
		if s.others[i].Load() == pid {
			return true
		}
	}
	return false
}

// forgetWorker removes the worker and all that it has declared: their numbers
// may belong to anybody from now on.
func (s *shared) forgetWorker() {
	s.workerBeat.Store(0)
	s.workerPID.Store(0)
	for i := range s.others {
		s.others[i].Store(0)
	}
}

func (s *shared) stats() Stats {
	return Stats{
		Events: s.events.Load(), Allowed: s.allowed.Load(), Denied: s.denied.Load(), Cached: s.cached.Load(), Own: s.own.Load(),
		Expired: s.expired.Load(), PassedBy: s.passedBy.Load(), Busy: s.busy.Load(), Drained: s.drained.Load(),
		Unreadable: s.unreadable.Load(), Notified: s.notified.Load(), Dropped: s.dropped.Load(), Merged: s.merged.Load(),
		Overflowed: s.overflowed.Load(), BrokerRuns: s.brokerRuns.Load(), WorkerRuns: s.workerRuns.Load(),
		BrokerStale: s.brokerStale.Load(), WorkerStale: s.workerStale.Load(),
	}
}

// mono returns CLOCK_MONOTONIC, which stands still while the machine sleeps
// and which all processes share.
func mono() int64 {
	var ts unix.Timespec
	// Cannot fail for this clock.
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return ts.Nano()
}

// Times of the watch over each other. Beats are what an idle agent costs.
const (
	beatEvery     = 50 * time.Millisecond
	guardEvery    = 100 * time.Millisecond // the guardian's round
	staleAfter    = 150 * time.Millisecond
	brokerLate    = 2 * time.Second // when nobody waits for the broker
	guardianStale = time.Second
	// guardianLost is when the worker ends the guardian: later than the broker
	// would, which must have stopped too.
	guardianLost = 1500 * time.Millisecond
	workerHung   = 5 * time.Second
)

// never is the beat of a process that has not begun to.
const never = 0

func stale(beat *atomic.Int64, now int64, after time.Duration) bool {
	return now-beat.Load() > int64(after)
}

// pulse tells a process whether it was itself away: stopped with the whole
// machine, or without a processor. Whoever was away must not conclude from
// old beats that the others have stopped; they get one more round. A machine
// that is always late is judged all the same, every fourth round.
type pulse struct {
	limit  int64 // between two rounds
	last   int64
	excuse int
}

// newPulse expects a round as often as every.
func newPulse(every time.Duration) pulse {
	return pulse{limit: int64(every + 100*time.Millisecond), last: mono()}
}

func (p *pulse) away(now int64) bool {
	gap := now - p.last
	p.last = now
	if gap <= p.limit || p.excuse == 3 {
		p.excuse = 0
		return false
	}
	p.excuse++
	return true
}

// endGuardian kills a guardian that has stopped. Its supervisor starts
// everything again; this process dies with it.
func (s *shared) endGuardian() {
	// A guardian that has ended already is no parent any more.
	if pid := int(s.guardianPID.Load()); pid == os.Getppid() {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
}
