package realtime

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"komainu/event"
	"komainu/fault"
)

// Bounds of the worker's side.
const (
	openJudges  = 8       // judgements at once that somebody waits for
	closeJudges = 2       // and that nobody waits for
	badJudges   = 2       // of files known to be bad
	openQueue   = 512     // openers that wait for a judge; more are let through
	closeQueue  = 2048    // files that wait though nobody does; more are dropped and counted
	badQueue    = 128     // more are denied unasked
	remembered  = 1 << 17 // verdicts
)

// Handle is the worker's side. One per process; safe for concurrent use.
type Handle struct {
	log *slog.Logger
	mem *shared

	sock   int
	in     *receiver
	opens  chan job
	bads   chan job
	closes chan job
	known  *verdicts
	turn   chan struct{} // whoever takes it listens
	idle   atomic.Int32  // goroutines that could
	since  atomic.Int64  // when the one that listens began to judge instead, 0 if it did not
	stir   chan struct{} // wakes who looks at since
	// unheard is how many lost CloseWrite are accounted for.
	unheard uint64
	pulse   pulse

	mu     sync.Mutex
	queued map[inode]bool // files in closes whose judgement has not begun

	marks sync.Mutex // one change of marks at a time
	seq   uint64
	done  chan message
	scope atomic.Pointer[scope]
}

// job is a file that waits for a judge.
type job struct {
	message
	kind  Kind
	stamp Stamp
	at    time.Time
	deny  *time.Timer // of a file known to be bad: denies it when the judge takes long
}

// Attach finds what the guardian has given to the role "worker". Without a
// guardian it answers fault.Unavailable. It should be the first thing that
// the role does: opens of the agent's own files are let through from then on.
func Attach(log *slog.Logger) (*Handle, error) {
	if os.Getenv(envStarted) == "" {
		return nil, fault.New(fault.Unavailable, "real-time protection needs the guardian; the agent runs without it")
	}
	mem, err := mapShared(sharedFD)
	if err != nil {
		return nil, err
	}
	unix.Close(sharedFD)
	unix.CloseOnExec(sockFD)
	// Its own children are no roles.
	if err := os.Unsetenv(envStarted); err != nil {
		return nil, err
	}
	harden(log, oomRather)
	h := newHandle(log, mem, sockFD)
	mem.workerPID.Store(int32(os.Getpid()))
	// An outcome for the worker before this one must not fit a request of this.
	h.seq = mem.workerRuns.Add(1) << 40
	return h, nil
}

func newHandle(log *slog.Logger, mem *shared, sock int) *Handle {
	h := &Handle{
		log: log, mem: mem, sock: sock, in: newReceiver(sock, true), turn: make(chan struct{}, 1), stir: make(chan struct{}, 1),
		opens: make(chan job, openQueue), bads: make(chan job, badQueue), closes: make(chan job, closeQueue),
		known: newVerdicts(remembered), queued: map[inode]bool{}, done: make(chan message, maxPending), unheard: mem.unheard.Load(),
	}
	h.scope.Store(&scope{})
	return h
}

// OwnPID declares a further process of the agent, in slot 0 to 7: its opens
// are allowed at once. 0 frees the slot, which has to happen as soon as the
// process has ended: its number may be given to another.
func (h *Handle) OwnPID(slot, pid int) {
	if slot >= 0 && slot < len(h.mem.others) {
		h.mem.others[slot].Store(int32(pid))
	}
}

// Stats returns the counters of all three processes.
func (h *Handle) Stats() Stats { return h.mem.stats() }

// look returns what is known of a file, now. What was clean is not known to
// be so while somebody has it open for writing.
func (h *Handle) look(fd int, s Stamp) Known {
	k := h.known.get(s)
	if k == KnownClean && written(fd) {
		return Unknown
	}
	return k
}

// denySoon denies an open before the broker's deadline would allow it. The
// judge's answer counts if it comes first.
func (h *Handle) denySoon(m message) *time.Timer {
	return time.AfterFunc(Deadline/4, func() { h.settle(&m, Decision{Deny: true}, 0) })
}

func (h *Handle) decide(ctx context.Context, judge Judge, j job) {
	if j.kind == CloseWrite {
		h.mu.Lock()
		delete(h.queued, j.stamp.inode())
		h.mu.Unlock()
	}
	// It may have been written to, or judged, while it was queued.
	began := h.known.begin(j.stamp)
	j.stamp, _ = stampOf(j.file)
	known := h.look(j.file, j.stamp)
	if known == KnownClean && j.kind != Missed {
		h.settle(&j.message, Decision{Cache: true}, 0)
		j.close()
		return
	}
	if known == KnownBad && j.kind == OpenPerm && j.deny == nil {
		j.deny = h.denySoon(j.message)
	}
	if j.deny != nil {
		defer j.deny.Stop()
	}
	// The kernel has opened it non-blocking, which a reader need not know.
	_ = unix.SetNonblock(j.file, false)
	f := os.NewFile(uintptr(j.file), "event")
	defer f.Close()
	path := pathOf(j.file)
	d := judge.Judge(ctx, Open{
		File: f, Path: path, PID: event.PID(j.pid), Kind: j.kind, Mode: h.scope.Load().mode(j.stamp.Device, path, j.kind),
		Known: known, Stamp: j.stamp, Reason: j.reason(), At: j.at,
	})
	if d.Cache {
		// Only what was not written to while it was judged is remembered.
		after, _ := stampOf(j.file)
		d.Cache = after == j.stamp && (d.Deny || !written(j.file))
	}
	if d.Cache {
		h.known.put(j.stamp, d.Deny, began)
	}
	h.settle(&j.message, d, answerJudged)
}

func (j *job) reason() string {
	if j.kind != Missed || int(j.arg) >= len(reasons) {
		return ""
	}
	return reasons[j.arg]
}

// settle answers an opener. The broker ignores answers that come too late.
func (h *Handle) settle(m *message, d Decision, how uint32) {
	if m.op != opOpen {
		return
	}
	r := message{op: opAnswer, seq: m.seq, fd: m.fd, arg: how, file: -1}
	switch {
	case d.Deny:
		r.arg |= answerDeny
	case d.Cache:
		r.arg |= answerCache
	}
	if err := send(h.sock, &r); err != nil {
		h.log.Warn("an answer could not be sent; the opener goes on at its deadline", "error", err)
	}
}

// written reports whether somebody has the file open for writing, be it only
// through a mapping: the kernel gives a read lease when nobody has.
func written(fd int) bool {
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_RDLCK); err != nil {
		return true
	}
	_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_UNLCK)
	return false
}

// pathOf returns the path of an open file, "" if it has none any more or none
// in this mount namespace.
func pathOf(fd int) string {
	const gone = " (deleted)"
	path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil || !strings.HasPrefix(path, "/") {
		return ""
	}
	if strings.HasSuffix(path, gone) {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) != nil || st.Nlink == 0 {
			return ""
		}
	}
	return path
}

// Invalidate forgets all verdicts, here and in the kernel: definitions,
// exclusions or settings have changed.
func (h *Handle) Invalidate() error {
	h.known.forget()
	return h.tell(&message{op: opFlush, file: -1})
}

// tell sends a message that must arrive; the socket empties within
// milliseconds while the broker lives.
func (h *Handle) tell(m *message) error {
	for wait := time.Millisecond; ; wait *= 2 {
		err := send(h.sock, m)
		if !errors.Is(err, unix.EAGAIN) || wait > time.Second {
			return err
		}
		time.Sleep(wait)
	}
}
