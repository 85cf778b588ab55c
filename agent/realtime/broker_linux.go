package realtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"komainu/fault"
)

// Bounds of the broker.
const (
	// maxMissed bounds the files that wait for a worker that does not live.
	maxMissed = 512
	// patience is how many opens may expire before the broker takes it that
	// judgements hang. From then on it asks for one open now and then, until a
	// judgement ends: one opener waits, not everybody in turn.
	patience   = 16
	probeEvery = int64(time.Second)
	// maxPending is more than one worker ever asks for at a time.
	maxPending = 64
	// lookEvery is how often deadlines are looked at while somebody waits.
	lookEvery = 10 // milliseconds
	// handOver is how often a new broker looks whether it may begin.
	handOver = 2 // milliseconds
)

// broker reads events and answers them. It is one loop over two descriptors
// and does nothing that can wait: it opens no file, asks for no name,
// allocates next to nothing and logs aside.
type broker struct {
	log    *aside
	mem    *shared
	group  int
	sock   int
	in     *receiver
	ignore *ignorer
	pid    int32

	seq     uint64
	slots   [maxFD]slot // by descriptor of the event
	waiting int         // openers that wait
	highest int32       // descriptor in use, to bound a search
	expired int         // opens that expired since a judgement ended
	asked   int64       // when the worker was last asked
	missed  int         // files sent while the worker did not live
	pending []message   // outcomes of marks that the socket did not take yet

	now    int64 // of this round
	pulse  pulse
	excuse bool // this process was away; the others are not judged by their beats
	looked int64
}

// slot is what the broker knows of an event that waits.
type slot struct {
	seq     uint64 // 0: free
	pid     int32
	stamp   Stamp
	written bool // a writer has closed the file meanwhile, or all verdicts were forgotten
}

// RunBroker is the role "broker". It returns when ctx ends.
func RunBroker(ctx context.Context, log *slog.Logger) error {
	if os.Getenv(envStarted) == "" {
		return fault.New(fault.Invalid, "the broker is started by komainud run, not by hand")
	}
	mem, err := mapShared(sharedFD)
	if err != nil {
		return err
	}
	for _, fd := range []int{sharedFD, sockFD, groupFD, exeFD} {
		unix.CloseOnExec(fd)
	}
	runtime.GOMAXPROCS(2)
	harden(log, oomNever)
	lockMemory(log)
	hurry(log)
	confine(log)
	b := &broker{log: newAside(log), mem: mem, group: groupFD, sock: sockFD, in: newReceiver(sockFD, false), ignore: newIgnorer(groupFD, exeFD), pid: int32(os.Getpid())}
	defer b.log.close()
	// An answer to the broker before this one must not fit an event of this one.
	b.seq = mem.brokerRuns.Add(1) << 40
	b.now = mono()
	b.pulse = newPulse(beatEvery)
	mem.brokerBeat.Store(b.now)
	mem.brokerPID.Store(b.pid)
	return b.run(ctx)
}

func (b *broker) run(ctx context.Context) error {
	polled := []unix.PollFd{{Events: unix.POLLIN}, {Events: unix.POLLIN}}
	for ctx.Err() == nil {
		// Until the guardian hands over, nothing is read: whoever has had an
		// answer from this broker may rely on it. poll(2) leaves out fd -1.
		polled[0].Fd, polled[1].Fd = -1, -1
		timeout := handOver
		if b.mem.reader.Load() == b.pid {
			polled[0].Fd, polled[1].Fd = int32(b.group), int32(b.sock)
			timeout = int(beatEvery.Milliseconds())
			if b.waiting > 0 {
				timeout = lookEvery
			}
		}
		if _, err := unix.Poll(polled, timeout); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("poll: %w", err)
		}
		b.round()
		if polled[1].Revents != 0 {
			if err := b.hear(); err != nil {
				return err
			}
		}
		if polled[0].Revents != 0 {
			b.read()
		}
		b.sendPending()
		if b.waiting > 0 && b.now-b.looked >= lookEvery*1e6 {
			b.looked = b.now
			b.expire(b.now)
		}
	}
	return nil
}

// round looks at the clock and at the beats of the others.
func (b *broker) round() {
	b.now = mono()
	b.mem.brokerBeat.Store(b.now)
	b.excuse = b.pulse.away(b.now)
	if b.missed > 0 && b.workerLives() {
		b.missed = 0
	}
	if !b.excuse && stale(&b.mem.guardianBeat, b.now, guardianStale) {
		b.log.say(slog.LevelError, "the guardian has stopped; ending it so that it is started again")
		b.mem.endGuardian()
	}
}

func (b *broker) workerLives() bool {
	return b.excuse || !stale(&b.mem.workerBeat, b.now, staleAfter)
}

// read takes what the kernel has, as far as it fits the buffer, and passes
// each event on.
func (b *broker) read() {
	n, err := unix.Read(b.group, b.mem.buf[:])
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		// The whole host may be out of files. Those that wait here hold some.
		b.mem.unreadable.Add(1)
		b.expire(b.now + int64(Deadline))
		return
	case err != nil:
		// The kernel could not open the file of an event (a lease of somebody
		// else, a device that is gone) and has denied that open.
		b.mem.unreadable.Add(1)
		return
	}
	for rest := b.mem.buf[:n]; ; {
		e, next, ok := nextEvent(rest)
		if !ok {
			break
		}
		b.take(e)
		rest = next
	}
	clear(b.mem.buf[:n])
}

func (b *broker) take(e fanEvent) {
	switch {
	case e.mask&unix.FAN_Q_OVERFLOW != 0:
		b.mem.overflowed.Add(1)
		b.mem.unheard.Add(1)
	case e.fd < 0:
	case e.mask&permMask != 0:
		b.mem.events.Add(1)
		b.open(e)
	default:
		if e.mask&unix.FAN_CLOSE_WRITE != 0 {
			b.closed(e)
		} else {
			b.notify(e, opExec)
		}
		unix.Close(int(e.fd))
	}
}

// open asks the worker, or answers at once when nobody needs to be asked or
// nobody is there.
func (b *broker) open(e fanEvent) {
	stamp, regular := stampOf(int(e.fd))
	switch {
	case b.mem.ownPID(e.pid):
		b.mem.own.Add(1)
	case !regular:
		b.mem.allowed.Add(1)
	case !b.workerLives():
		b.mem.passedBy.Add(1)
		b.miss(e.pid, e.fd, reasonWorker)
	case b.expired >= patience && b.now-b.asked < probeEvery:
		b.mem.passedBy.Add(1)
	case b.waiting >= maxWaiting || e.fd >= maxFD || !b.ask(e, stamp):
		b.mem.busy.Add(1)
	default:
		return
	}
	b.answer(e.fd, true)
}

// ask hands the event to the worker and remembers it.
func (b *broker) ask(e fanEvent, stamp Stamp) bool {
	b.asked = b.now
	b.seq++
	b.mem.deadline[e.fd].Store(b.now + int64(Deadline))
	if err := send(b.sock, &message{op: opOpen, seq: b.seq, pid: e.pid, fd: e.fd, file: int(e.fd)}); err != nil {
		b.mem.deadline[e.fd].Store(0)
		return false
	}
	b.slots[e.fd] = slot{seq: b.seq, pid: e.pid, stamp: stamp}
	b.waiting++
	b.highest = max(b.highest, e.fd)
	return true
}

// closed sees to it that a file is looked at again. A store through a shared
// mapping sends no event and leaves the kernel's mark alone: the end of a
// writer is the moment to drop it, and to distrust a judgement under way.
func (b *broker) closed(e fanEvent) {
	b.ignore.remove(int(e.fd))
	if b.waiting > 0 {
		stamp, _ := stampOf(int(e.fd))
		for fd := range b.highest + 1 {
			if s := &b.slots[fd]; s.seq != 0 && s.stamp.inode() == stamp.inode() {
				s.written = true
			}
		}
	}
	b.notify(e, opClosed)
}

func (b *broker) notify(e fanEvent, op uint32) {
	if b.mem.ownPID(e.pid) {
		return
	}
	b.mem.notified.Add(1)
	if !b.forward(&message{op: op, pid: e.pid, file: int(e.fd)}) {
		b.mem.unheard.Add(1)
	}
}

// miss has the worker look at a file that was let through.
func (b *broker) miss(pid, fd int32, reason uint32) {
	b.forward(&message{op: opMissed, pid: pid, arg: reason, file: int(fd)})
}

// forward sends what nobody waits for. A worker that does not live must not
// find its socket full when it does.
func (b *broker) forward(m *message) bool {
	if !b.workerLives() {
		b.missed++
	}
	if b.missed > maxMissed || send(b.sock, m) != nil {
		b.mem.dropped.Add(1)
		return false
	}
	return true
}

// answer lets the opener go on and closes the event's descriptor.
func (b *broker) answer(fd int32, allow bool) {
	if _, err := answer(b.group, fd, allow); err != nil && !allow {
		_, _ = answer(b.group, fd, true) // rather let it through than leave it waiting
	}
	unix.Close(int(fd))
}

// hear takes what the worker has to say.
func (b *broker) hear() error {
	for {
		var m message
		err := b.in.next(&m)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case errors.Is(err, unix.ECONNRESET):
			return fmt.Errorf("the socket to the worker is gone: %w", err)
		case err != nil:
			b.log.say(slog.LevelWarn, "the worker said something odd", "error", err)
			continue
		}
		switch m.op {
		case opAnswer:
			b.settle(&m)
		case opMark:
			b.mark(&m)
		case opFlush:
			// What is being judged now may be judged by what held before.
			for fd := range b.highest + 1 {
				b.slots[fd].written = true
			}
			b.ignore.flush()
		}
		m.close()
	}
}

// settle carries out a judgement, unless its opener has gone on already.
func (b *broker) settle(m *message) {
	if m.arg&answerJudged != 0 {
		b.expired = 0
	}
	if m.seq == 0 || m.fd < 0 || m.fd >= maxFD || b.slots[m.fd].seq != m.seq {
		return
	}
	s := b.slots[m.fd]
	b.release(m.fd)
	if m.arg&answerDeny != 0 {
		b.mem.denied.Add(1)
		b.answer(m.fd, false)
		return
	}
	if m.arg&answerBusy != 0 {
		b.mem.busy.Add(1)
	} else {
		b.mem.allowed.Add(1)
	}
	if m.arg&answerCache != 0 && !s.written {
		b.cache(int(m.fd), s.stamp)
	}
	b.answer(m.fd, true)
}

// cache leaves a mark in the kernel. What was written since the event was read
// shows in the stamp, or its writer's close is still to come and removes the
// mark; what is written from now on removes it at once.
func (b *broker) cache(fd int, judged Stamp) {
	if b.ignore.add(fd) != nil {
		return
	}
	if now, _ := stampOf(fd); now != judged {
		b.ignore.remove(fd)
		return
	}
	b.mem.cached.Add(1)
}

func (b *broker) release(fd int32) {
	b.slots[fd] = slot{}
	b.mem.deadline[fd].Store(0)
	b.waiting--
	if b.waiting == 0 {
		b.highest = 0
	}
}

// expire lets go of openers that have waited long enough.
func (b *broker) expire(now int64) {
	for fd := int32(0); fd <= b.highest; fd++ {
		if at := b.mem.deadline[fd].Load(); at == 0 || at > now {
			continue
		}
		pid := b.slots[fd].pid
		b.release(fd)
		b.expired++
		b.mem.expired.Add(1)
		b.miss(pid, fd, reasonDeadline)
		b.answer(fd, true)
	}
}

// mark sets a filesystem's mark and tells the outcome.
func (b *broker) mark(m *message) {
	errno, _ := errors.AsType[unix.Errno](markFilesystem(b.group, uint64(m.arg), m.file))
	b.pending = append(b.pending, message{op: opDone, seq: m.seq, arg: uint32(errno), file: -1})
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
