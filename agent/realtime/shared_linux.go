package realtime

import (
	"fmt"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxFD bounds the file descriptors of the broker, and so the opens that can
// wait at the same time.
const maxFD = 1 << 15

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

	events, allowed, denied, cached, own       atomic.Uint64
	expired, passedBy, busy, drained, notified atomic.Uint64
	dropped, overflowed                        atomic.Uint64
	brokerRuns, workerRuns, brokerStale        atomic.Uint64

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
		return nil, nil, fmt.Errorf("size shared memory: %w", err)
	}
	s, err := mapShared(f)
	return f, s, err
}

func mapShared(f *os.File) (*shared, error) {
	b, err := unix.Mmap(int(f.Fd()), 0, sharedSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map shared memory: %w", err)
	}
	return (*shared)(unsafe.Pointer(&b[0])), nil
}

// own reports whether a process belongs to the agent.
func (s *shared) ownPID(pid int32) bool {
	if pid == s.workerPID.Load() || pid == s.brokerPID.Load() || pid == s.guardianPID.Load() {
		return true
	}
	for i := range s.others {
		if other := s.others[i].Load(); other != 0 && other == pid {
			return true
		}
	}
	return false
}

func (s *shared) stats() Stats {
	return Stats{
		Events: s.events.Load(), Allowed: s.allowed.Load(), Denied: s.denied.Load(), Cached: s.cached.Load(), Own: s.own.Load(),
		Expired: s.expired.Load(), PassedBy: s.passedBy.Load(), Busy: s.busy.Load(), Drained: s.drained.Load(), Notified: s.notified.Load(),
		Dropped: s.dropped.Load(), Overflowed: s.overflowed.Load(), BrokerRuns: s.brokerRuns.Load(), WorkerRuns: s.workerRuns.Load(),
		BrokerStale: s.brokerStale.Load(),
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

// Times of the watch over each other.
const (
	beatEvery     = 25 * time.Millisecond
	staleAfter    = 150 * time.Millisecond
	guardianStale = time.Second
	workerHung    = 5 * time.Second
)

func stale(beat *atomic.Int64, now int64, after time.Duration) bool {
	return now-beat.Load() > int64(after)
}
