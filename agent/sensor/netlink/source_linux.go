package netlink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"komainu/agent/sensor/procfs"
	"komainu/event"
)

const (
	receiveBuffer = 8 << 20
	// known bounds the processes whose keys are remembered until they end.
	known = 65536
)

// Source listens to the process connector.
type Source struct {
	proc      *procfs.FS
	clock     *procfs.Clock
	log       *slog.Logger
	socket    int
	mu        sync.Mutex // of wake
	wake      int        // eventfd that interrupts the wait for messages, -1 once closed
	sinceBoot uint64
	keys      map[event.PID]event.ProcessKey
	gaps      gaps
	pending   uint64 // losses not yet reported
	flush     atomic.Bool

	lost, brief atomic.Uint64
}

// Open subscribes to process events. The kernel answers only in the initial
// pid and network namespaces.
func Open(proc *procfs.FS, clock *procfs.Clock, log *slog.Logger) (*Source, error) {
	socket, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_CONNECTOR)
	if err != nil {
		return nil, fmt.Errorf("open the process connector: %w", err)
	}
	s := &Source{proc: proc, clock: clock, log: log, socket: socket, wake: -1, keys: map[event.PID]event.ProcessKey{}, gaps: gaps{}}
	if err := s.subscribe(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Source) subscribe() error {
	if err := unix.Bind(s.socket, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: connectorProc}); err != nil {
		return fmt.Errorf("join the process connector: %w", err)
	}
	// Without the privilege the buffer stays at the system's limit.
	_ = unix.SetsockoptInt(s.socket, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer)
	if err := unix.Sendto(s.socket, subscription(), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("subscribe to process events: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("make an eventfd: %w", err)
	}
	s.wake = wake
	var monotonic unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &monotonic); err != nil {
		return fmt.Errorf("read the monotonic clock: %w", err)
	}
	s.sinceBoot = s.clock.Since() - uint64(monotonic.Nano())
	return nil
}

// Close ends the subscription. Run must have ended.
func (s *Source) Close() error {
	s.mu.Lock() // interrupt must not write to what another file has become
	defer s.mu.Unlock()
	return errors.Join(closeFD(&s.socket), closeFD(&s.wake))
}

func closeFD(fd *int) error {
	if *fd < 0 {
		return nil
	}
	err := unix.Close(*fd)
	*fd = -1
	return err
}

// Lost counts the messages that the kernel dropped.
func (s *Source) Lost() uint64 { return s.lost.Load() }

// Know tells the source of processes that run already, so that their end can
// be reported.
func (s *Source) Know(running []event.Process) {
	for _, p := range running {
		s.keys[p.Key.PID] = p.Key
	}
}

// Flush makes Run hand on what the kernel has sent by now and call its flushed
// function.
func (s *Source) Flush() {
	s.flush.Store(true)
	s.interrupt()
}

func (s *Source) interrupt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wake < 0 {
		return
	}
	// A full eventfd wakes as well.
	_, _ = unix.Write(s.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
}

// Run reads until ctx ends. It calls emit for every event, in order, and
// flushed after every Flush, both from its own goroutine.
func (s *Source) Run(ctx context.Context, emit func(*event.Event), flushed func()) error {
	stop := context.AfterFunc(ctx, s.interrupt)
	defer stop()
	wake := s.wake // Close comes after Run
	buffer := make([]byte, 64<<10)
	began := time.Now()
	for ctx.Err() == nil {
		fds := []unix.PollFd{{Fd: int32(s.socket), Events: unix.POLLIN}, {Fd: int32(wake), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for process events: %w", err)
		}
		if fds[1].Revents != 0 {
			_, _ = unix.Read(wake, buffer[:8]) // empty it; EAGAIN means that it is
		}
		flush := s.flush.Swap(false)
		if err := s.drain(buffer, emit); err != nil {
			return err
		}
		if s.pending != 0 {
			now := time.Now()
			s.lost.Add(s.pending)
			emit(&event.Event{Time: now.UTC(), Action: event.EventsLost, Loss: &event.Loss{
				Where: "process_connector", Source: event.FromProcess, Count: s.pending, Since: began.UTC(), Until: now.UTC(),
			}})
			s.pending, began = 0, now
		}
		if flush {
			flushed()
		}
	}
	return nil
}

func (s *Source) drain(buffer []byte, emit func(*event.Event)) error {
	s.clock.Sync()
	for {
		n, from, err := unix.Recvfrom(s.socket, buffer, 0)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ENOBUFS): // the gap in the numbers says how many
			continue
		case err != nil:
			return fmt.Errorf("read process events: %w", err)
		}
		if sender, ok := from.(*unix.SockaddrNetlink); !ok || sender.Pid != 0 {
			continue // not from the kernel
		}
		err = parse(buffer[:n], func(c change) {
			s.pending += s.gaps.next(c.cpu, c.seq)
			if ev := s.event(c); ev != nil {
				emit(ev)
			}
		})
		if err != nil {
			s.log.Error("broken message of the process connector", "error", err)
		}
	}
}

func (s *Source) event(c change) *event.Event {
	if !c.leader() {
		return nil
	}
	at := c.time + s.sinceBoot
	ev := &event.Event{Time: s.clock.Wall(at)}
	switch c.kind {
	case procFork:
		ev.Action, ev.Process = event.ProcessCreated, s.forked(c, at)
		ev.Fields = map[string]string{"via": "fork"}
	case procExec:
		ev.Action, ev.Process = event.ProcessCreated, s.executed(c, at)
	case procExit:
		ev.Action, ev.Process = event.ProcessTerminated, &event.Process{Key: s.key(c.tgid, at), LoginUID: procfs.NoLogin}
		delete(s.keys, c.tgid)
		ev.Process.Signal = int32(c.status & 0x7f)
		if ev.Process.Signal == 0 {
			ev.Process.ExitCode = new(int32(c.status >> 8 & 0xff))
		}
		return ev
	default:
		return nil
	}
	if !ev.Process.Parent.IsZero() {
		ev.Initiator = &event.Process{Key: ev.Process.Parent}
	}
	return ev
}

// forked describes a new process. What it runs is its parent's program, which
// the process tree knows; asking /proc could tell what it executed since.
func (s *Source) forked(c change, at uint64) *event.Process {
	key, err := s.proc.Key(c.tgid)
	if err != nil {
		s.brief.Add(1)
		key = s.guess(c.tgid, at)
	}
	s.remember(key)
	p := &event.Process{Key: key, Parent: s.key(c.parentTGID, at), Started: s.clock.Wall(key.Start), LoginUID: procfs.NoLogin}
	if user, err := s.proc.User(c.tgid); err == nil {
		p.User = user
	}
	return p
}

func (s *Source) executed(c change, at uint64) *event.Process {
	p, err := s.proc.Process(c.tgid)
	if err != nil {
		s.brief.Add(1)
		p = event.Process{Key: s.key(c.tgid, at), LoginUID: procfs.NoLogin}
		p.Started = s.clock.Wall(p.Key.Start)
		return &p
	}
	s.remember(p.Key)
	return &p
}

// key returns the key of a process that was seen before, else by /proc, else
// by the time of the event.
func (s *Source) key(pid event.PID, at uint64) event.ProcessKey {
	if key, ok := s.keys[pid]; ok {
		return key
	}
	key, err := s.proc.Key(pid)
	if err != nil {
		key = s.guess(pid, at)
	}
	s.remember(key)
	return key
}

// guess makes a key for a process that is gone before /proc could be asked.
func (s *Source) guess(pid event.PID, at uint64) event.ProcessKey {
	return event.ProcessKey{Boot: s.proc.Boot(), PID: pid, Start: at - at%uint64(10*time.Millisecond), Inexact: true}
}

func (s *Source) remember(key event.ProcessKey) {
	if len(s.keys) >= known {
		maps.DeleteFunc(s.keys, func(pid event.PID, _ event.ProcessKey) bool {
			_, err := s.proc.Key(pid)
			return err != nil
		})
		if len(s.keys) >= known {
			clear(s.keys)
		}
	}
	s.keys[key.PID] = key
}
