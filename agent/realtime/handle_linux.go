package realtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"komainu/event"
	"komainu/fault"
	"komainu/policy"
)

// Bounds of the worker's side.
const (
	judges     = 8       // judgements at once
	openQueue  = 512     // openers that wait for a judge; more are let through
	closeQueue = 2048    // written files that wait; more are dropped and counted
	memory     = 1 << 17 // verdicts
)

// Handle is the worker's side. One per process; safe for concurrent use.
type Handle struct {
	log  *slog.Logger
	mem  *shared
	sock int

	opens  chan job
	closes chan job
	known  *verdicts
	busy   atomic.Int64 // since when the loop handles one message, 0 when none

	marks  sync.Mutex
	seq    uint64
	marked chan message
	modes  atomic.Pointer[map[uint64]policy.Mode] // by device
}

type job struct {
	message
	kind  Kind
	stamp Stamp
	at    time.Time
}

// Attach finds what the guardian has given to the role "worker". Without a
// guardian it answers fault.Unavailable.
func Attach(log *slog.Logger) (*Handle, error) {
	if os.Getenv(envStarted) == "" {
		return nil, fault.New(fault.Unavailable, "real-time protection needs the guardian; the agent runs without it")
	}
	mem, err := mapShared(os.NewFile(sharedFD, "shared"))
	if err != nil {
		return nil, err
	}
	for _, fd := range []int{sharedFD, sockFD} {
		unix.CloseOnExec(fd)
	}
	// Its own children are no roles.
	if err := os.Unsetenv(envStarted); err != nil {
		return nil, err
	}
	h := &Handle{log: log, mem: mem, sock: sockFD, opens: make(chan job, openQueue), closes: make(chan job, closeQueue), known: newVerdicts(memory), marked: make(chan message, 1)}
	h.modes.Store(&map[uint64]policy.Mode{})
	mem.workerPID.Store(int32(os.Getpid()))
	mem.workerRuns.Add(1)
	return h, nil
}

// OwnPID declares a further process of the agent, in slot 0 to 7: its opens
// are allowed at once. 0 frees the slot.
func (h *Handle) OwnPID(slot, pid int) {
	if slot >= 0 && slot < len(h.mem.others) {
		h.mem.others[slot].Store(int32(pid))
	}
}

// Stats returns the counters of all three processes.
func (h *Handle) Stats() Stats { return h.mem.stats() }

// Run judges until ctx ends.
func (h *Handle) Run(ctx context.Context, j Judge) error {
	var all sync.WaitGroup
	defer all.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	for range judges {
		all.Go(func() { h.judge(ctx, j, h.opens) })
	}
	for range 2 {
		all.Go(func() { h.judge(ctx, j, h.closes) })
	}
	all.Go(func() { h.beat(ctx) })
	return h.listen(ctx)
}

// beat says that this process lives, as long as its loop goes on.
func (h *Handle) beat(ctx context.Context) {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		now := mono()
		if since := h.busy.Load(); since == 0 || now-since < int64(staleAfter) {
			h.mem.workerBeat.Store(now)
		}
		select {
		case <-ctx.Done():
			h.mem.workerBeat.Store(0) // from now on the broker need not ask
			return
		case <-tick.C:
		}
	}
}

// listen takes messages and sorts them. It never waits for a judge.
func (h *Handle) listen(ctx context.Context) error {
	polled := []unix.PollFd{{Fd: int32(h.sock), Events: unix.POLLIN}}
	for ctx.Err() == nil {
		h.busy.Store(0)
		n, err := unix.Poll(polled, 100)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("poll: %w", err)
		}
		if n <= 0 {
			continue
		}
		for {
			h.busy.Store(mono())
			var m message
			err := receive(h.sock, &m)
			if errors.Is(err, unix.EAGAIN) {
				break
			}
			if errors.Is(err, unix.ECONNRESET) {
				return fault.New(fault.Unavailable, "the broker's socket is gone")
			}
			if err != nil {
				h.log.Warn("the broker said something odd", "error", err)
				continue
			}
			h.sort(m)
		}
	}
	return nil
}

// sort answers what is known and queues the rest.
func (h *Handle) sort(m message) {
	if m.op == opMarked {
		select {
		case h.marked <- m:
		default: // nobody waits for it any more
		}
		return
	}
	if m.file < 0 {
		return
	}
	stamp, regular := stampOf(m.file)
	if !regular {
		h.settle(&m, Decision{})
		unix.Close(m.file)
		return
	}
	j := job{message: m, stamp: stamp, at: time.Now()}
	switch m.op {
	case opOpen:
		j.kind = OpenPerm
		if bad, ok := h.known.get(stamp); ok {
			h.settle(&m, Decision{Deny: bad, Cache: !bad && !written(m.file)})
			unix.Close(m.file)
			return
		}
		h.queue(h.opens, j, &h.mem.busy)
	case opClosed:
		j.kind = CloseWrite
		h.queue(h.closes, j, &h.mem.dropped)
	case opExec:
		j.kind = Executed
		if _, ok := h.known.get(stamp); ok {
			unix.Close(m.file)
			return
		}
		h.queue(h.closes, j, &h.mem.dropped)
	default:
		unix.Close(m.file)
	}
}

// queue hands a job to the judges; when they are behind, an opener is let
// through, and a notification is dropped.
func (h *Handle) queue(to chan<- job, j job, full *atomic.Uint64) {
	select {
	case to <- j:
	default:
		full.Add(1)
		h.settle(&j.message, Decision{})
		unix.Close(j.file)
	}
}

func (h *Handle) judge(ctx context.Context, judge Judge, jobs <-chan job) {
	for {
		select {
		case <-ctx.Done():
			return
		case j := <-jobs:
			h.decide(ctx, judge, j)
		}
	}
}

func (h *Handle) decide(ctx context.Context, judge Judge, j job) {
	f := os.NewFile(uintptr(j.file), "event")
	defer f.Close()
	// Another judge may have settled it while this one waited.
	if bad, ok := h.known.get(j.stamp); ok && j.kind == OpenPerm {
		h.settle(&j.message, Decision{Deny: bad, Cache: !bad && !written(j.file)})
		return
	}
	generation := h.known.generation()
	path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(j.file))
	if err != nil {
		path = ""
	}
	d := judge.Judge(ctx, Open{File: f, Path: path, PID: event.PID(j.pid), Kind: j.kind, Mode: h.mode(j.stamp.Device), Stamp: j.stamp, At: j.at})
	if d.Cache {
		// Only what was not written to while it was judged is remembered.
		after, regular := stampOf(j.file)
		d.Cache = regular && after == j.stamp && (d.Deny || !written(j.file))
	}
	if d.Cache {
		h.known.put(j.stamp, d.Deny, generation)
	}
	h.settle(&j.message, d)
}

func (h *Handle) mode(device uint64) policy.Mode { return (*h.modes.Load())[device] }

// settle answers an opener. The broker ignores answers that come too late.
func (h *Handle) settle(m *message, d Decision) {
	if m.op != opOpen {
		return
	}
	r := message{op: opAnswer, seq: m.seq, fd: m.fd, file: -1}
	switch {
	case d.Deny:
		r.arg = answerDeny
	case d.Cache:
		r.arg = answerCache
	}
	if err := send(h.sock, &r); err != nil {
		h.log.Warn("an answer could not be sent; the opener goes on at its deadline", "error", err)
	}
}

// written reports whether somebody has the file open for writing: the kernel
// gives a read lease only when nobody has.
func written(fd int) bool {
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_RDLCK); err != nil {
		return true
	}
	_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_UNLCK)
	return false
}

// stampOf identifies a file and its content, and says whether it is a
// regular one.
func stampOf(fd int) (Stamp, bool) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return Stamp{}, false
	}
	return Stamp{Device: st.Dev, Inode: st.Ino, Size: st.Size, ModTime: st.Mtim.Nano(), ChangeTime: st.Ctim.Nano()},
		st.Mode&unix.S_IFMT == unix.S_IFREG
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

// SetMarks replaces what is watched. It returns an error that names every
// filesystem that could not be marked; the others are.
func (h *Handle) SetMarks(ctx context.Context, marks []Mark) error {
	h.marks.Lock()
	defer h.marks.Unlock()
	modes := map[uint64]policy.Mode{}
	if err := h.ask(ctx, &message{op: opClear, file: -1}); err != nil {
		return fmt.Errorf("clear the marks: %w", err)
	}
	var errs []error
	for _, m := range marks {
		if err := h.mark(ctx, m, modes); err != nil {
			errs = append(errs, fmt.Errorf("mark %s: %w", m.Path, err))
		}
		// Openers may come as soon as the first mark is there.
		now := make(map[uint64]policy.Mode, len(modes))
		for k, v := range modes {
			now[k] = v
		}
		h.modes.Store(&now)
	}
	if len(marks) == 0 {
		h.modes.Store(&modes)
	}
	return errors.Join(append(errs, h.Invalidate())...)
}

func (h *Handle) mark(ctx context.Context, m Mark, modes map[uint64]policy.Mode) error {
	fd, err := unix.Open(m.Path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	stamp, _ := stampOf(fd)
	arg := uint32(markWatch)
	if m.Mode == policy.Block {
		arg = markBlock
	}
	if err := h.ask(ctx, &message{op: opMark, arg: arg, file: fd}); err != nil {
		return err
	}
	modes[stamp.Device] = m.Mode
	return nil
}

// markTimeout is how long a mark may take: the broker may be restarting.
const markTimeout = 3 * time.Second

// ask sends a message and waits for its outcome.
func (h *Handle) ask(ctx context.Context, m *message) error {
	h.seq++
	m.seq = h.seq
	ctx, cancel := context.WithTimeout(ctx, markTimeout)
	defer cancel()
	if err := h.tell(m); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return fault.New(fault.Unavailable, "the broker does not answer")
		case r := <-h.marked:
			if r.seq != m.seq {
				continue // of a former request
			}
			if r.arg != 0 {
				return unix.Errno(r.arg)
			}
			return nil
		}
	}
}
