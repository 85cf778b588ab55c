package realtime

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// GuardConfig says how the guardian starts the other roles.
type GuardConfig struct {
	// Command returns the command of a role, "broker" or "worker", without
	// extra files; standard streams are as it sets them.
	Command func(role string) *exec.Cmd
	// GiveUp is asked, with its exit code, when a worker ends before any has been
	// ready. With an error the guardian ends too, and returns it. Nil means that
	// the worker is started again whatever it says.
	GiveUp func(exit int) error
	Log    *slog.Logger
}

// Guard is the guardian. It returns when ctx ends and its children have, with
// the error of GiveUp, or with fault.NeedsRoot or fault.Unsupported when this host lets it have no
// fanotify group; the caller then runs the worker alone.
//
// Nothing else should run in its process: whatever stops the world while a
// child is being forked stops the answers too.
func Guard(ctx context.Context, c GuardConfig) error {
	group, err := createGroup()
	if err != nil {
		return err
	}
	defer group.Close()
	file, mem, err := createShared()
	if err != nil {
		return err
	}
	defer file.Close()
	brokerEnd, workerEnd, err := socketPair()
	if err != nil {
		return err
	}
	defer brokerEnd.Close()
	defer workerEnd.Close()
	exe, err := os.Open("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("open the agent's own program: %w", err)
	}
	defer exe.Close()

	// A thread that forks keeps its processor until the child runs; the watch
	// needs one beside it.
	runtime.GOMAXPROCS(3)
	harden(c.Log, oomNever)
	lockMemory(c.Log)
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("make an eventfd: %w", err)
	}
	defer unix.Close(wake)
	log := newAside(c.Log)
	defer log.close()
	g := &guardian{log: log, mem: mem, group: int(group.Fd()), sock: int(brokerEnd.Fd()), wake: wake}
	g.ignore = newIgnorer(g.group, int(exe.Fd()))
	mem.guardianPID.Store(int32(os.Getpid()))
	g.broker = &child{role: "broker", files: []*os.File{file, brokerEnd, group, exe}, command: c.Command, log: log, ended: g.takeOver}
	g.worker = &child{role: "worker", files: []*os.File{file, workerEnd}, command: c.Command, log: log, ended: mem.forgetWorker}
	if c.GiveUp != nil {
		g.worker.giveUp = func(exit int) error {
			if g.lived.Load() {
				return nil // its state was good before: it may be so again
			}
			return c.GiveUp(exit)
		}
	}
	g.takeOver()
	g.pulse = newPulse(guardEvery)

	// The worker ends first and the watch last, so that there is somebody to
	// answer all the time. Closing the group then frees whoever still waits.
	brokers, endBroker := context.WithCancel(context.WithoutCancel(ctx))
	watching, endWatch := context.WithCancel(context.WithoutCancel(ctx))
	var children sync.WaitGroup
	var ended error
	children.Go(func() {
		defer endBroker()
		ended = g.worker.keep(ctx)
	})
	children.Go(func() {
		defer endWatch()
		_ = g.broker.keep(brokers) // is never given up
	})
	g.watch(watching)
	children.Wait()
	return ended
}

// guardian watches the others and answers in the broker's place.
type guardian struct {
	log    *aside
	mem    *shared
	group  int
	sock   int // the broker's end
	ignore *ignorer
	broker *child
	worker *child
	wake   int // an eventfd that ends a pause of the watch

	lived  atomic.Bool  // a worker was ready
	drain  atomic.Bool  // the broker does not answer: the guardian does
	former atomic.Int32 // the broker that it took over from, if that lived then
	missed int          // files sent to the worker since it answers
	pulse  pulse
}

// Times that the guardian gives the others to begin.
const (
	brokerStart = 5 * time.Second
	workerStart = time.Minute
)

// watch beats, looks after the beats of the others, and answers openers while
// there is no broker, until ctx ends.
func (g *guardian) watch(ctx context.Context) {
	notify := newNotifier()
	defer notify.close()
	var stirring sync.WaitGroup
	defer stirring.Wait() // whoever writes to wake must have ended before that is closed
	stirring.Add(1)
	stop := context.AfterFunc(ctx, func() { defer stirring.Done(); g.stir() })
	defer func() {
		if stop() {
			stirring.Done()
		}
	}()
	buf := make([]byte, bufSize)
	for ctx.Err() == nil {
		now := mono()
		g.mem.guardianBeat.Store(now)
		excuse := g.pulse.away(now)
		if g.drain.Load() {
			g.standIn(now, buf)
		} else if !excuse && g.brokerStopped(now) {
			g.log.say(slog.LevelError, "the broker has stopped; answering in its place and starting it again")
			g.mem.brokerStale.Add(1)
			g.takeOver()
			g.broker.kill()
			g.standIn(now, buf)
		}
		if !excuse {
			g.lookAtWorker(now)
		}
		if !stale(&g.mem.workerBeat, now, staleAfter) {
			g.lived.Store(true)
			notify.ready()
		}
		notify.alive(now)
		if g.drain.Load() {
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(g.group), Events: unix.POLLIN}}, 5)
			continue
		}
		g.pause()
	}
}

// pause waits for the next round, or for stir. It sleeps in one system call:
// to wait for a timer of Go takes twice as many threads to wake.
func (g *guardian) pause() {
	if n, _ := unix.Poll([]unix.PollFd{{Fd: int32(g.wake), Events: unix.POLLIN}}, int(guardEvery.Milliseconds())); n > 0 {
		var count [8]byte
		_, _ = unix.Read(g.wake, count[:]) // empty it
	}
}

// stir ends a pause at once.
func (g *guardian) stir() {
	_, _ = unix.Write(g.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // one that is full wakes as well
}

// brokerStopped reports whether the broker is to be replaced. While nobody
// waits for it, a busy host may leave it without a processor for longer.
func (g *guardian) brokerStopped(now int64) bool {
	if !stale(&g.mem.brokerBeat, now, staleAfter) {
		return false
	}
	if stale(&g.mem.brokerBeat, now, brokerLate) {
		return true
	}
	if n, _ := unix.Poll([]unix.PollFd{{Fd: int32(g.group), Events: unix.POLLIN}}, 0); n > 0 {
		return true
	}
	for fd := range g.mem.deadline {
		if g.mem.deadline[fd].Load() != 0 {
			return true
		}
	}
	// read(2) may have returned, and nothing come of it yet.
	_, _, unhandled := nextEvent(g.mem.buf[:])
	return unhandled
}

// takeOver makes the guardian answer from now on. No broker reads the group
// any more, should it still live, until the guardian lets one.
func (g *guardian) takeOver() {
	pid, _ := g.broker.running()
	g.former.Store(pid)
	g.mem.reader.Store(0)
	g.mem.brokerPID.Store(0)
	g.mem.brokerBeat.Store(never)
	g.drain.Store(true)
	g.stir()
}

// standIn answers whatever waits, and hands over to a broker that is ready.
func (g *guardian) standIn(now int64, buf []byte) {
	pid, since := g.broker.running()
	ready := pid != 0 && g.mem.brokerPID.Load() == pid && !stale(&g.mem.brokerBeat, now, staleAfter)
	g.answerRead(pid == 0 || pid != g.former.Load())
	g.answerQueued(buf)
	switch {
	case ready:
		g.missed = 0
		g.drain.Store(false)
		g.mem.reader.Store(pid)
	case pid != 0 && now-since > int64(brokerStart):
		g.broker.kill()
	}
}

// answerRead allows every open that a broker has read, by the numbers in
// shared memory. As long as that broker lives it may be within read(2): the
// kernel tells the number of an event a moment before it takes an answer for
// it. So what is noted is answered again and again, and forgotten only after
// an answer that was given when the broker had ended.
func (g *guardian) answerRead(ended bool) {
	for fd := range g.mem.deadline {
		if g.mem.deadline[fd].Load() != 0 {
			g.allow(int32(fd))
			if ended {
				g.mem.deadline[fd].Store(0)
			}
		}
	}
	for rest := g.mem.buf[:]; ; {
		e, next, ok := nextEvent(rest)
		if !ok {
			break
		}
		if e.mask&permMask != 0 && e.fd >= 0 && g.allow(e.fd) {
			g.mem.events.Add(1)
		}
		rest = next
	}
	if ended {
		clear(g.mem.buf[:])
	}
}

// allow reports whether somebody was waiting.
func (g *guardian) allow(fd int32) bool {
	waited, _ := answer(g.group, fd, true)
	if waited {
		g.mem.drained.Add(1)
	}
	return waited
}

// answerQueued allows every open that the kernel still holds, and leaves the
// worker a note of each file.
func (g *guardian) answerQueued(buf []byte) {
	for {
		n, err := unix.Read(g.group, buf)
		if err != nil {
			return // EAGAIN: nobody waits
		}
		for rest := buf[:n]; ; {
			e, next, ok := nextEvent(rest)
			if !ok {
				break
			}
			if e.fd >= 0 {
				g.take(e)
				unix.Close(int(e.fd))
			}
			rest = next
		}
	}
}

func (g *guardian) take(e fanEvent) {
	m := message{op: opExec, pid: e.pid, file: int(e.fd)}
	own := g.mem.ownPID(e.pid)
	switch {
	case e.mask&permMask != 0:
		g.mem.events.Add(1)
		if own {
			g.mem.own.Add(1)
			_, _ = answer(g.group, e.fd, true)
			return
		}
		g.allow(e.fd)
		m.op, m.arg = opMissed, reasonBroker
	case e.mask&unix.FAN_CLOSE_WRITE != 0:
		g.ignore.remove(int(e.fd))
		m.op = opClosed
		fallthrough
	default:
		if own {
			return
		}
		g.mem.notified.Add(1)
	}
	if g.missed++; g.missed > maxMissed || send(g.sock, &m) != nil {
		g.mem.dropped.Add(1)
		g.mem.unheard.Add(1)
	}
}

// lookAtWorker kills a worker that has stopped, or that never began. Openers
// do not wait for it: the broker has noticed long before.
func (g *guardian) lookAtWorker(now int64) {
	pid, since := g.worker.running()
	limit := workerHung
	if g.mem.workerBeat.Load() == never {
		limit = workerStart
	}
	if pid == 0 || now-max(since, g.mem.workerBeat.Load()) <= int64(limit) {
		return
	}
	g.log.say(slog.LevelError, "the worker has stopped; starting it again")
	g.mem.workerStale.Add(1)
	g.worker.kill()
}
