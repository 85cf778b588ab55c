package realtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"komainu/fault"
)

// Descriptors that a role finds: after stdin, stdout and stderr.
const (
	sharedFD = 3
	sockFD   = 4
	groupFD  = 5 // broker only
)

// envStarted tells a role that the guardian has started it.
const envStarted = "KOMAINU_REALTIME"

// broker reads events and answers them. It is one loop over two descriptors
// and does nothing that can wait: it opens no file, asks no name, allocates
// next to nothing.
type broker struct {
	log   *slog.Logger
	mem   *shared
	group int
	sock  int

	seq      uint64
	seqOf    [maxFD]uint64 // event that a descriptor belongs to, 0 when free
	waiting  int           // openers that wait
	highest  int32         // descriptor, to bound the search for deadlines
	evict    bool          // the kernel has evictable ignore marks (5.19)
	lastScan int64
	pending  []message // outcomes of marks that could not be sent yet
}

// RunBroker is the role "broker". It returns when ctx ends.
func RunBroker(ctx context.Context, log *slog.Logger) error {
	if os.Getenv(envStarted) == "" {
		return fault.New(fault.Invalid, "the broker is started by komainud run, not by hand")
	}
	mem, err := mapShared(os.NewFile(sharedFD, "shared"))
	if err != nil {
		return err
	}
	b := &broker{log: log, mem: mem, group: groupFD, sock: sockFD, evict: true}
	for _, fd := range []int{sharedFD, sockFD, groupFD} {
		unix.CloseOnExec(fd)
	}
	harden(log, -1000)
	mem.brokerPID.Store(int32(os.Getpid()))
	mem.brokerRuns.Add(1)
	return b.run(ctx)
}

// harden keeps a process that openers wait for in memory and alive. What the
// host does not allow is noted and does without.
func harden(log *slog.Logger, oom int) {
	debug.SetGCPercent(50)
	if err := os.WriteFile("/proc/self/oom_score_adj", fmt.Appendf(nil, "%d", oom), 0); err != nil {
		log.Debug("cannot lower the chance to be killed for memory", "error", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: maxFD, Max: maxFD}); err != nil {
		log.Debug("cannot raise the number of open files", "error", err)
	}
	const onFault = 4 // MCL_ONFAULT: Go's reserved address space is not all faulted in
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | onFault); err != nil {
		log.Debug("cannot lock memory", "error", err)
	}
}

// staleScan is how often deadlines are looked at while somebody waits.
const staleScan = 10

func (b *broker) run(ctx context.Context) error {
	polled := []unix.PollFd{{Fd: int32(b.group), Events: unix.POLLIN}, {Fd: int32(b.sock), Events: unix.POLLIN}}
	for ctx.Err() == nil {
		b.mem.brokerBeat.Store(mono())
		timeout := int(beatEvery.Milliseconds())
		if b.waiting > 0 {
			timeout = staleScan
		}
		if _, err := unix.Poll(polled, timeout); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("poll: %w", err)
		}
		if polled[1].Revents != 0 {
			if err := b.hear(); err != nil {
				return err
			}
		}
		if polled[0].Revents != 0 {
			if err := b.read(); err != nil {
				return err
			}
		}
		b.sendPending()
		now := mono()
		if b.waiting > 0 && now-b.lastScan > staleScan*1e6 {
			b.lastScan = now
			b.expire(now)
		}
		if stale(&b.mem.guardianBeat, now, guardianStale) {
			b.endGuardian()
		}
	}
	return nil
}

// endGuardian kills a guardian that has stopped: nobody would take over if
// this process stopped as well. Its supervisor starts everything again, and
// this process dies with it.
func (b *broker) endGuardian() {
	pid := int(b.mem.guardianPID.Load())
	if pid != os.Getppid() {
		return // it is gone already
	}
	b.log.Error("the guardian has stopped; killing it so that it is started again", "pid", pid)
	_ = unix.Kill(pid, unix.SIGKILL)
}

// read takes what the kernel has and passes each event on.
func (b *broker) read() error {
	n, err := unix.Read(b.group, b.mem.buf[:])
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return nil
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		// No descriptor for the event: the kernel has denied that open. Answer
		// some of those that wait, to have descriptors again.
		b.expire(mono() + int64(Deadline))
		return nil
	case err != nil:
		// An event whose file cannot be opened (a stale handle, a device that
		// is gone) fails alone; the next read goes on.
		b.log.Debug("an event could not be read", "error", err)
		return nil
	}
	rest := b.mem.buf[:n]
	for {
		e, next, ok := nextEvent(rest)
		if !ok {
			break
		}
		b.take(e)
		rest = next
	}
	clear(b.mem.buf[:n])
	return nil
}

func (b *broker) take(e fanEvent) {
	switch {
	case e.mask&unix.FAN_Q_OVERFLOW != 0:
		b.mem.overflowed.Add(1)
	case e.fd < 0:
	case e.mask&permMask != 0:
		b.mem.events.Add(1)
		b.open(e)
	default:
		if e.mask&unix.FAN_CLOSE_WRITE != 0 {
			// A store through a shared mapping leaves the kernel's mark alone: the
			// end of a writer is the moment to forget it.
			_ = removeIgnore(b.group, e.fd)
			b.notify(e, opClosed)
		} else {
			b.notify(e, opExec)
		}
		unix.Close(int(e.fd))
	}
}

// open asks the worker, or answers at once when nobody needs to be asked or
// nobody is there.
func (b *broker) open(e fanEvent) {
	now := mono()
	switch {
	case b.mem.ownPID(e.pid):
		b.mem.own.Add(1)
	case e.fd >= maxFD:
		b.mem.busy.Add(1)
	case stale(&b.mem.workerBeat, now, staleAfter):
		b.mem.passedBy.Add(1)
	default:
		b.seq++
		m := message{op: opOpen, seq: b.seq, pid: e.pid, fd: e.fd, file: int(e.fd)}
		b.mem.deadline[e.fd].Store(now + int64(Deadline))
		if err := send(b.sock, &m); err != nil {
			b.mem.deadline[e.fd].Store(0)
			b.mem.busy.Add(1)
			break
		}
		b.seqOf[e.fd] = b.seq
		b.waiting++
		b.highest = max(b.highest, e.fd)
		return
	}
	b.answer(e.fd, true)
}

func (b *broker) notify(e fanEvent, op uint32) {
	if b.mem.ownPID(e.pid) {
		return
	}
	b.mem.notified.Add(1)
	// A worker that does not live must not find its socket full when it does.
	if stale(&b.mem.workerBeat, mono(), staleAfter) {
		b.mem.dropped.Add(1)
		return
	}
	if err := send(b.sock, &message{op: op, pid: e.pid, file: int(e.fd)}); err != nil {
		b.mem.dropped.Add(1)
	}
}

// answer lets the opener go on and closes the event's descriptor.
func (b *broker) answer(fd int32, allow bool) {
	if err := answer(b.group, fd, allow); err != nil && !allow {
		_ = answer(b.group, fd, true) // rather let it through than leave it waiting
	}
	unix.Close(int(fd))
}

// hear takes what the worker has to say.
func (b *broker) hear() error {
	for {
		var m message
		err := receive(b.sock, &m)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
			return fmt.Errorf("the socket to the worker is gone: %w", err)
		case err != nil:
			b.log.Warn("the worker said something odd", "error", err)
			continue
		}
		switch m.op {
		case opAnswer:
			b.settle(&m)
		case opMark:
			b.mark(&m)
		case opFlush:
			_ = mark(b.group, unix.FAN_MARK_FLUSH, 0, unix.AT_FDCWD)
		case opClear:
			b.reply(&m, mark(b.group, unix.FAN_MARK_FLUSH|unix.FAN_MARK_FILESYSTEM, 0, unix.AT_FDCWD))
		}
		if m.file >= 0 {
			unix.Close(m.file)
		}
	}
}

// settle carries out a judgement, unless its opener has gone on already.
func (b *broker) settle(m *message) {
	if m.fd < 0 || m.fd >= maxFD || b.seqOf[m.fd] != m.seq || m.seq == 0 {
		return
	}
	b.release(m.fd)
	if m.arg&answerDeny != 0 {
		b.mem.denied.Add(1)
		b.answer(m.fd, false)
		return
	}
	b.mem.allowed.Add(1)
	if m.arg&answerCache != 0 && b.evict {
		switch err := addIgnore(b.group, m.fd); {
		case err == nil:
			b.mem.cached.Add(1)
		case errors.Is(err, unix.EINVAL):
			b.evict = false // before 5.19: the worker's memory has to do
		}
	}
	b.answer(m.fd, true)
}

func (b *broker) release(fd int32) {
	b.seqOf[fd] = 0
	b.mem.deadline[fd].Store(0)
	b.waiting--
}

// expire lets go of openers that have waited long enough.
func (b *broker) expire(now int64) {
	for fd := range b.highest + 1 {
		if at := b.mem.deadline[fd].Load(); at != 0 && at <= now {
			b.release(fd)
			b.mem.expired.Add(1)
			b.answer(fd, true)
		}
	}
	if b.waiting == 0 {
		b.highest = 0
	}
}

func (b *broker) mark(m *message) {
	mask := uint64(watchMask)
	if m.arg == markBlock {
		mask = blockMask
	}
	b.reply(m, mark(b.group, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, mask, m.file))
}

func (b *broker) reply(m *message, err error) {
	errno, _ := errors.AsType[unix.Errno](err)
	b.pending = append(b.pending, message{op: opMarked, seq: m.seq, arg: uint32(errno), file: -1})
	b.sendPending()
}

// sendPending sends outcomes of marks, which the worker waits for, as soon as
// its socket takes them.
func (b *broker) sendPending() {
	for len(b.pending) > 0 && send(b.sock, &b.pending[0]) == nil {
		b.pending = b.pending[1:]
	}
	if len(b.pending) > maxPending {
		b.pending = b.pending[len(b.pending)-maxPending:] // whoever asked has gone
	}
}

// maxPending is more than one worker ever asks for at a time.
const maxPending = 64
