package sensor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"komainu/agent/sensor/ebpf"
	"komainu/agent/sensor/netlink"
	"komainu/agent/sensor/procfs"
	"komainu/agent/sensor/sensitive"
	"komainu/event"
)

// source is a back end for processes and connections.
type source interface {
	// Run calls emit for every event, in order, until ctx ends. After a Flush
	// it emits what has happened so far and calls flushed.
	Run(ctx context.Context, emit func(*event.Event), flushed func()) error
	Flush()
	Close() error
}

// waiting bounds the opens that wait for the events before them.
const waiting = 4096

// Sensor observes this host. Make one with Open.
type Sensor struct {
	cfg    Config
	log    *slog.Logger
	proc   *procfs.FS
	users  *procfs.Users
	source source
	watch  *sensitive.Watch
	hashes *hasher
	status Status // what Open found; the rest is asked for

	mu      sync.Mutex
	opens   []sensitive.Open // not yet handed on
	refused uint64           // opens that there was no room for
	full    uint64           // times that the kernel's queue of opens was full
	failed  error            // why the watch ended

	emitted, lost, own, foreign atomic.Uint64
}

// Open takes the best back end that works. A host that allows none is no
// error: the status says what is missing and why.
func Open(cfg Config) (*Sensor, error) {
	cfg.Passwd = cmp.Or(cfg.Passwd, "/etc/passwd")
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Roots == nil {
		cfg.Roots = DefaultRoots()
	}
	if cfg.Own == nil {
		self := event.PID(os.Getpid())
		cfg.Own = func(pid event.PID) bool { return pid == self }
	}
	users := procfs.NewUsers(cfg.Passwd)
	clock := procfs.SystemClock()
	proc, err := procfs.Open("/proc", clock, users)
	if err != nil {
		return nil, err
	}
	s := &Sensor{cfg: cfg, log: cfg.Log, proc: proc, users: users}
	s.choose(clock)
	s.watch, err = sensitive.New(sensitive.Config{Filesystems: cfg.Filesystems, Users: users, Roots: cfg.Roots, Log: cfg.Log})
	if err != nil {
		s.status.Watch.Reason = err.Error()
	}
	if cfg.HashExecutables {
		s.hashes = newHasher()
	}
	return s, nil
}

// choose tries the back ends, the best first.
func (s *Sensor) choose(clock *procfs.Clock) {
	var errs []error
	if s.cfg.EBPF {
		e, err := ebpf.Open("/proc", s.proc, clock, s.log)
		if err == nil {
			s.source = e
			s.status = Status{Subsystem: EBPF, Network: e.Network()}
			switch lacks := e.Lacks(); {
			case lacks == "":
			case e.Network():
				s.status.Limits = lacks
			default:
				s.status.Reason, s.status.Remedy = lacks, "use Linux 5.10 or later with BTF"
			}
			return
		}
		if os.Geteuid() != 0 && errors.Is(err, fs.ErrPermission) {
			err = errors.New("needs root")
		}
		errs = append(errs, fmt.Errorf("eBPF: %w", err))
	} else {
		errs = append(errs, errors.New("eBPF is switched off"))
	}
	n, err := netlink.Open(s.proc, clock, s.log)
	if err == nil {
		s.source = n
		s.status = Status{Subsystem: Netlink, Remedy: "let the agent load BPF programs: root, Linux 5.8 or later with BTF, and ebpfSupplementary on",
			Reason: "no network events, start times are rounded, short processes are known by pid alone: " + errors.Join(errs...).Error()}
		return
	}
	errs = append(errs, fmt.Errorf("netlink: %w", err))
	s.source = newSilence()
	s.status = Status{Subsystem: Unavailable, Reason: errors.Join(errs...).Error(), Remedy: "run the agent as root in the host's own namespaces"}
}

// Snapshot describes the processes that run, to seed the process tree with
// before Run. Their start times are as exact as the back end's.
func (s *Sensor) Snapshot() []event.Process {
	running := s.proc.Snapshot()
	switch source := s.source.(type) {
	case *ebpf.Source:
		source.Exact(running)
	case *netlink.Source:
		source.Know(running)
	}
	return running
}

// Run observes until ctx ends, and calls emit for every event from the calling
// goroutine. Emit may change the event; the sensor keeps nothing of it. Call
// Snapshot before.
func (s *Sensor) Run(ctx context.Context, emit func(*event.Event)) error {
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	if s.watch != nil {
		group.Go(func() {
			if err := s.watch.Run(ctx, s.opened, s.overflowed); err != nil {
				s.log.Error("sensitive files are no longer watched", "error", err)
				s.mu.Lock()
				s.failed = err
				s.mu.Unlock()
			}
		})
	}
	if s.hashes != nil {
		group.Go(func() { s.hashes.run(ctx) })
	}
	deliver := func(ev *event.Event) { s.deliver(ev, emit) }
	return s.source.Run(ctx, deliver, func() { s.handOn(deliver) })
}

// opened queues an open until the events before it have been handed on.
func (s *Sensor) opened(o sensitive.Open) {
	switch {
	case o.PID == 0:
		s.foreign.Add(1)
		return
	case s.cfg.Own(o.PID):
		s.own.Add(1)
		return
	}
	s.mu.Lock()
	if len(s.opens) < waiting {
		s.opens = append(s.opens, o)
	} else {
		s.refused++
	}
	s.mu.Unlock()
	s.source.Flush()
}

func (s *Sensor) overflowed(times uint64) {
	s.mu.Lock()
	s.full += times
	s.mu.Unlock()
	s.source.Flush()
}

// handOn delivers the opens that waited for the events before them.
func (s *Sensor) handOn(deliver func(*event.Event)) {
	s.mu.Lock()
	opens, refused, full := s.opens, s.refused, s.full
	s.opens, s.refused, s.full = nil, 0, 0
	s.mu.Unlock()
	for _, o := range opens {
		p := s.process(o.PID, o.Time)
		deliver(&event.Event{Time: o.Time, Action: event.SensitiveFileRead, Initiator: &p, File: o.File})
	}
	now := time.Now().UTC()
	for where, n := range map[string]uint64{"sensitive_queue": refused, "fanotify_queue": full} {
		if n != 0 {
			deliver(&event.Event{Time: now, Action: event.EventsLost, Loss: &event.Loss{Where: where, Source: event.FromFile, Count: n, Since: now, Until: now}})
		}
	}
}

// process describes who had a pid.
func (s *Sensor) process(pid event.PID, at time.Time) event.Process {
	if s.cfg.Lookup != nil {
		if p, ok := s.cfg.Lookup(pid, at); ok {
			return p
		}
	}
	p, err := s.proc.Process(pid)
	if err != nil {
		return event.Process{Key: event.ProcessKey{Boot: s.proc.Boot(), PID: pid}, LoginUID: procfs.NoLogin}
	}
	return p
}

func (s *Sensor) deliver(ev *event.Event, emit func(*event.Event)) {
	switch ev.Action {
	case event.ProcessCreated:
		p := ev.Process
		p.User.Name = s.users.Name(p.User.EUID)
		if s.hashes != nil && p.Image != nil {
			p.Image.Hashes.SHA256 = s.hashes.of(p)
		}
	case event.EventsLost:
		s.lost.Add(ev.Loss.Count)
	case event.ConnectionSuccess, event.ConnectionFailed, event.InboundConnectionAccepted, event.ListeningConnectionCreated:
		if s.cfg.Own(ev.Initiator.Key.PID) {
			s.own.Add(1)
			return
		}
	}
	s.emitted.Add(1)
	emit(ev)
}

// SetFilesystems replaces the mount points on which sensitive files are
// watched.
func (s *Sensor) SetFilesystems(mounts []string) {
	if s.watch != nil {
		s.watch.SetFilesystems(mounts)
	}
}

// Status returns what the sensor can do and has done.
func (s *Sensor) Status() Status {
	st := s.status
	st.Counters = Counters{Emitted: s.emitted.Load(), Lost: s.lost.Load(), Own: s.own.Load(), Foreign: s.foreign.Load()}
	if s.watch == nil {
		return st
	}
	w := s.watch.State()
	st.Watch = WatchStatus{On: len(w.Filesystems) != 0 || w.Files != 0, Searched: w.Searched, Files: w.Files, Folders: w.Folders, Filesystems: w.Filesystems, Reason: w.Reason, Limits: w.Limits}
	st.Counters.Repeated = s.watch.Repeated()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		st.Watch.On, st.Watch.Reason = false, s.failed.Error()
	}
	return st
}

// Close detaches everything from the kernel. Run must have ended.
func (s *Sensor) Close() error {
	var err error
	if s.watch != nil {
		err = s.watch.Close()
	}
	return errors.Join(err, s.source.Close())
}

// silence is the back end of a host that allows none. It lets opens of
// sensitive files through.
type silence chan struct{}

func newSilence() silence { return make(silence, 1) }

func (q silence) Run(ctx context.Context, _ func(*event.Event), flushed func()) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-q:
			flushed()
		}
	}
}

func (q silence) Flush() {
	select {
	case q <- struct{}{}:
	default: // one is on its way
	}
}

func (q silence) Close() error { return nil }
