package realtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// GuardConfig says how the guardian starts the other roles.
type GuardConfig struct {
	// Command returns the command of a role, "broker" or "worker", without
	// extra files; standard streams are as it sets them.
	Command func(role string) *exec.Cmd
	Log     *slog.Logger
}

// Guard is the guardian. It returns when ctx ends and its children have, or
// with fault.NeedsRoot or fault.Unsupported when this host lets it have no
// fanotify group; the caller then runs the worker alone.
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
	ends, err := socketPair()
	if err != nil {
		return err
	}
	defer ends[0].Close()
	defer ends[1].Close()

	g := &guardian{log: c.Log, mem: mem, group: int(group.Fd())}
	harden(c.Log, -1000)
	mem.guardianPID.Store(int32(os.Getpid()))
	mem.guardianBeat.Store(mono())
	g.drain.Store(true)

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var children sync.WaitGroup
	g.broker = &child{role: "broker", files: []*os.File{file, ends[0], group}, command: c.Command, log: c.Log, ended: g.takeOver}
	g.worker = &child{role: "worker", files: []*os.File{file, ends[1]}, command: c.Command, log: c.Log, ended: func() {}}
	children.Go(func() { g.broker.keep(ctx) })
	children.Go(func() { g.worker.keep(ctx) })
	g.watch(ctx)
	children.Wait()
	return nil
}

// socketPair returns the ends of broker and worker. The guardian keeps both,
// so that a restart of either needs no new pair, and messages wait.
func socketPair() (ends [2]*os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return ends, fmt.Errorf("create socket pair: %w", err)
	}
	for i, fd := range fds {
		// Room for a burst of some thousand opens; root may exceed the limit.
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 4<<20)
		ends[i] = os.NewFile(uintptr(fd), "pair")
	}
	return ends, nil
}

// guardian watches the broker and answers in its place.
type guardian struct {
	log    *slog.Logger
	mem    *shared
	group  int
	broker *child
	worker *child
	drain  atomic.Bool // the broker does not answer: the guardian does
}

// watch beats, looks after the beats of the others, and answers openers while
// there is no broker, until ctx ends. Then nobody answers any more: the group
// is closed, which lets all openers go on.
func (g *guardian) watch(ctx context.Context) {
	notify := newNotifier()
	buf := make([]byte, bufSize)
	ready := false
	for ctx.Err() == nil {
		now := mono()
		g.mem.guardianBeat.Store(now)
		if g.drain.Load() {
			if fresh := g.broker.startedAt.Load(); fresh != 0 && g.mem.brokerBeat.Load() > fresh {
				g.drain.Store(false)
			} else {
				g.answerRead()
				g.answerQueued(buf)
			}
		} else if stale(&g.mem.brokerBeat, now, staleAfter) {
			g.log.Error("the broker has stopped; answering in its place and starting it again")
			g.mem.brokerStale.Add(1)
			g.drain.Store(true)
			g.answerRead()
			g.broker.kill()
		}
		if at := g.worker.startedAt.Load(); at != 0 && now-at > int64(workerHung) && stale(&g.mem.workerBeat, now, workerHung) {
			g.log.Error("the worker has stopped; starting it again")
			g.worker.kill()
		}
		if !ready && !stale(&g.mem.workerBeat, now, staleAfter) {
			ready = notify.send("READY=1")
		}
		notify.watchdog(now)
		g.wait()
	}
}

// wait lets a while pass: short while it answers openers itself.
func (g *guardian) wait() {
	if !g.drain.Load() {
		time.Sleep(beatEvery)
		return
	}
	_, _ = unix.Poll([]unix.PollFd{{Fd: int32(g.group), Events: unix.POLLIN}}, 5)
}

// takeOver is called when the broker has ended and before the next one
// starts.
func (g *guardian) takeOver() {
	g.drain.Store(true)
	g.answerRead()
	clear(g.mem.buf[:]) // nobody else touches it now
}

// answerRead allows every open that the broker has read and not answered: by
// the numbers in the table, and in the buffer that its last read has filled.
// A broker that has just started may lose a judgement to it, never an answer.
func (g *guardian) answerRead() {
	for fd := range g.mem.deadline {
		if g.mem.deadline[fd].Load() != 0 && g.mem.deadline[fd].Swap(0) != 0 {
			g.mem.drained.Add(1)
			_ = answer(g.group, int32(fd), true)
		}
	}
	for rest := g.mem.buf[:]; ; {
		e, next, ok := nextEvent(rest)
		if !ok {
			return
		}
		if e.mask&permMask != 0 && e.fd >= 0 {
			_ = answer(g.group, e.fd, true)
		}
		rest = next
	}
}

// answerQueued allows every open that the kernel still holds.
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
			g.allow(e)
			rest = next
		}
	}
}

func (g *guardian) allow(e fanEvent) {
	if e.fd < 0 {
		return
	}
	if e.mask&permMask != 0 {
		g.mem.events.Add(1)
		g.mem.drained.Add(1)
		_ = answer(g.group, e.fd, true)
	} else {
		_ = removeIgnore(g.group, e.fd)
		g.mem.dropped.Add(1)
	}
	unix.Close(int(e.fd))
}

// child is a role that is kept running.
type child struct {
	role    string
	files   []*os.File
	command func(role string) *exec.Cmd
	log     *slog.Logger
	ended   func()

	startedAt atomic.Int64 // mono, 0 while it does not run
	mu        sync.Mutex
	process   *os.Process
}

// Pauses between restarts: short at first, because every one is a gap.
const (
	firstPause = 20 * time.Millisecond
	maxPause   = 5 * time.Second
	settled    = 30 * time.Second // a run that long resets the pause
)

// keep runs the role, again and again, until ctx ends.
func (c *child) keep(ctx context.Context) {
	// The death signal goes by the thread that has started the child: it has to
	// live as long.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pause := firstPause
	for ctx.Err() == nil {
		began := time.Now()
		err := c.run(ctx)
		c.startedAt.Store(0)
		c.ended()
		if ctx.Err() != nil {
			return
		}
		c.log.Warn("a part of the agent has ended and is started again", "part", c.role, "error", err, "after", time.Since(began).Round(time.Millisecond))
		if time.Since(began) > settled {
			pause = firstPause
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, maxPause)
	}
}

func (c *child) run(ctx context.Context) error {
	cmd := c.command(c.role)
	cmd.ExtraFiles = c.files
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(cmd.Env, envStarted+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", c.role, err)
	}
	c.mu.Lock()
	c.process = cmd.Process
	c.mu.Unlock()
	c.startedAt.Store(mono())
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-ended:
			return
		case <-ctx.Done():
		}
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(5 * time.Second):
			c.kill()
		}
	}()
	err := cmd.Wait()
	c.mu.Lock()
	c.process = nil
	c.mu.Unlock()
	return err
}

func (c *child) kill() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.process != nil {
		_ = c.process.Kill() // it may have ended meanwhile
	}
}

// notifier speaks the protocol of sd_notify(3).
type notifier struct {
	conn  net.Conn
	every int64
	last  int64
}

func newNotifier() *notifier {
	n := &notifier{}
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return n
	}
	conn, err := net.Dial("unixgram", path)
	if err != nil {
		return n
	}
	n.conn = conn
	if us, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64); err == nil {
		n.every = us * 1000 / 3
	}
	return n
}

// send reports whether there is nothing more to say.
func (n *notifier) send(state string) bool {
	if n.conn == nil {
		return true
	}
	_, err := n.conn.Write([]byte(state))
	return err == nil || errors.Is(err, net.ErrClosed)
}

func (n *notifier) watchdog(now int64) {
	if n.every > 0 && now-n.last > n.every {
		n.last = now
		n.send("WATCHDOG=1")
	}
}
