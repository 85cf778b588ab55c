package ebpf

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"komainu/agent/sensor/procfs"
	"komainu/event"
)

//go:embed sensor.o
var object []byte

// tier is a set of programs.
type tier struct {
	programs []string
	lacks    string
	network  bool // connections are seen
	olds     bool // and sockets that are older than the agent
}

// The sets of programs, the fullest first: the first that loads and attaches
// is used.
var tiers = []tier{
	{[]string{"on_fork", "on_exec", "on_exit", "on_state", "old_processes", "old_sockets"}, "", true, true},
	{[]string{"on_fork", "on_exec", "on_exit", "on_state_by_address", "old_processes"}, "owners of sockets that are older than the agent are not known", true, false},
	{[]string{"on_fork", "on_exec", "on_exit"}, "network connections are not seen", false, false},
}

// socketMaps are what programs keep of sockets; nobody else uses them.
var socketMaps = map[string][]string{
	"on_state":            {"owners", "old_listeners"},
	"on_state_by_address": {"connecting", "listeners"},
}

const (
	// pace is how long records wait while they keep coming. It is longer than
	// wake_ns of the programs, so that the reader looks again after every
	// record that it was not woken for.
	pace = 12 * time.Millisecond
	// idle is how long the reader sleeps when nothing comes.
	idle = 500 * time.Millisecond
	// tally is how often losses are looked for while records come.
	tally = time.Second
)

// Source reads what the programs record.
type Source struct {
	proc       *procfs.FS
	procRoot   string
	log        *slog.Logger
	decoder    decoder
	collection *ebpf.Collection
	links      []link.Link
	reader     *ringbuf.Reader
	lacks      string
	network    bool
	groups     map[group]placement

	lost, broken atomic.Uint64
}

// group identifies where a process runs, by what the kernel tells cheaply.
type group struct {
	cgroup uint64
	pidns  uint32
}

type placement struct{ cgroup, container string }

// Open loads and attaches the programs. Its error says what the kernel
// refused.
func Open(root string, proc *procfs.FS, clock *procfs.Clock, log *slog.Logger) (*Source, error) {
	var ns unix.Stat_t
	if err := unix.Stat(filepath.Join(root, "self/ns/pid"), &ns); err != nil {
		return nil, fmt.Errorf("read the agent's pid namespace: %w", err)
	}
	s := &Source{
		proc: proc, procRoot: root, log: log, groups: map[group]placement{},
		decoder: decoder{boot: proc.Boot(), clock: clock},
	}
	// Before 5.11 maps count against a limit that is far too small. Where that
	// cannot be raised, loading says what is the matter.
	_ = rlimit.RemoveMemlock()
	var errs []error
	for _, tier := range tiers {
		err := s.use(tier, uint32(ns.Ino))
		if err == nil {
			return s, nil
		}
		errs = append(errs, err)
	}
	return nil, errs[len(errs)-1]
}

// use loads and attaches a tier in place of what is there.
func (s *Source) use(t tier, pidns uint32) error {
	s.unload()
	if err := s.load(t.programs, pidns); err != nil {
		s.unload()
		return err
	}
	s.lacks, s.network = t.lacks, t.network
	if t.olds {
		s.adoptSockets()
	}
	return nil
}

func (s *Source) load(programs []string, pidns uint32) error {
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
	if err != nil {
		return fmt.Errorf("read programs: %w", err)
	}
	for name := range spec.Programs {
		if !slices.Contains(programs, name) {
			delete(spec.Programs, name)
		}
	}
	for program, maps := range socketMaps {
		if !slices.Contains(programs, program) {
			for _, name := range maps {
				delete(spec.Maps, name)
			}
		}
	}
	if err := spec.Variables["agent_pidns"].Set(pidns); err != nil {
		return fmt.Errorf("set the agent's pid namespace: %w", err)
	}
	if s.collection, err = ebpf.NewCollection(spec); err != nil {
		return fmt.Errorf("load programs: %w", err)
	}
	if s.reader, err = ringbuf.NewReader(s.collection.Maps["ring"]); err != nil {
		return fmt.Errorf("open the ring buffer: %w", err)
	}
	for _, name := range programs {
		if name == "old_processes" || name == "old_sockets" {
			continue // iterators run when they are asked
		}
		l, err := link.AttachTracing(link.TracingOptions{Program: s.collection.Programs[name]})
		if err != nil {
			return fmt.Errorf("attach %s: %w", name, err)
		}
		s.links = append(s.links, l)
	}
	return nil
}

func (s *Source) unload() {
	for _, l := range s.links {
		l.Close()
	}
	if s.reader != nil {
		s.reader.Close()
	}
	if s.collection != nil {
		s.collection.Close()
	}
	s.links, s.reader, s.collection = nil, nil, nil
}

// Close detaches the programs and frees what they hold. Run must have ended.
func (s *Source) Close() error {
	s.unload()
	return nil
}

// Network reports whether connections are seen.
func (s *Source) Network() bool { return s.network }

// Lacks says what this kernel does not give, "" if nothing.
func (s *Source) Lacks() string { return s.lacks }

// Lost counts the records that were dropped.
func (s *Source) Lost() uint64 { return s.lost.Load() }

// iterate runs an iterator over the kernel's tasks to its end.
func (s *Source) iterate(program string) ([]byte, error) {
	it, err := link.AttachIter(link.IterOptions{Program: s.collection.Programs[program]})
	if err != nil {
		return nil, err
	}
	defer it.Close()
	out, err := it.Open()
	if err != nil {
		return nil, err
	}
	defer out.Close()
	return io.ReadAll(out)
}

// adoptSockets gives sockets that are open already their owners. Without it
// they are only not attributed.
func (s *Source) adoptSockets() {
	if _, err := s.iterate("old_sockets"); err != nil {
		s.lacks = "owners of sockets that are older than the agent are not known: " + err.Error()
	}
}

// Exact replaces the start times of running processes, which /proc rounds, by
// the kernel's own.
func (s *Source) Exact(running []event.Process) {
	if s.collection.Programs["old_processes"] == nil {
		return
	}
	out, err := s.iterate("old_processes")
	if err != nil {
		s.log.Warn("start times of running processes stay inexact", "error", err)
		return
	}
	exact := map[event.PID]event.ProcessKey{}
	for len(out) >= whoSize {
		p, _ := s.decoder.process(out[:whoSize])
		exact[p.Key.PID] = p.Key
		out = out[whoSize:]
	}
	for i := range running {
		for _, key := range []*event.ProcessKey{&running[i].Key, &running[i].Parent} {
			if e, ok := exact[key.PID]; ok && e.Same(*key) {
				*key = e
			}
		}
		running[i].Started = s.decoder.clock.Wall(running[i].Key.Start)
	}
}

// Flush makes Run hand on what the kernel has recorded by now and call its
// flushed function.
func (s *Source) Flush() {
	// An error means that Run ended, and with it the need to flush.
	_ = s.reader.Flush()
}

// Run reads until ctx ends. It calls emit for every event, in order, and
// flushed after every Flush, both from its own goroutine.
func (s *Source) Run(ctx context.Context, emit func(*event.Event), flushed func()) error {
	stop := context.AfterFunc(ctx, s.Flush)
	defer stop()
	var rec ringbuf.Record
	counted := time.Now()
	before := s.counts()
	quiet := false // nothing came since the last look
	for ctx.Err() == nil {
		wait := pace
		if quiet {
			wait = idle
		}
		s.reader.SetDeadline(time.Now().Add(wait))
		n, err := s.drain(&rec, emit)
		switch {
		case errors.Is(err, ringbuf.ErrFlushed):
			flushed()
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return fmt.Errorf("read the ring buffer: %w", err)
		}
		quiet = n == 0
		if now := time.Now(); !quiet && now.Sub(counted) >= tally || quiet && wait == idle {
			s.decoder.clock.Sync()
			before = s.reportLost(before, counted, now, emit)
			counted = now
		}
	}
	s.drainNow(&rec, emit)
	s.reportLost(before, counted, time.Now(), emit)
	return nil
}

// drain emits records until the deadline passes or a flush is done.
func (s *Source) drain(rec *ringbuf.Record, emit func(*event.Event)) (n int, err error) {
	for {
		if err := s.reader.ReadInto(rec); err != nil {
			return n, err
		}
		n++
		ev, about, err := s.decoder.decode(rec.RawSample)
		if err != nil { // of our own programs: a bug, but no reason to stop
			s.broken.Add(1)
			s.log.Error("broken record of the kernel programs", "error", err)
			continue
		}
		if ev == nil {
			continue
		}
		s.complete(ev, about)
		emit(ev)
	}
}

// drainNow emits what is in the ring without waiting for more.
func (s *Source) drainNow(rec *ringbuf.Record, emit func(*event.Event)) {
	s.reader.SetDeadline(time.Unix(1, 0))
	_, _ = s.drain(rec, emit) // ends with the deadline
}

// complete adds what the record could not hold.
func (s *Source) complete(ev *event.Event, about subject) {
	p := ev.Process
	if p == nil || ev.Action != event.ProcessCreated {
		return
	}
	if about.flags&(pathTruncated|argsMissing) != 0 {
		if now, err := s.proc.Process(p.Key.PID); err == nil && now.Key.Same(p.Key) {
			if about.flags&pathTruncated != 0 {
				p.Path, p.Name = now.Path, now.Name
				p.Image.Path = now.Path
			}
			if about.flags&argsMissing != 0 {
				p.Args, p.Truncated = now.Args, now.Truncated
			}
		}
	}
	at := group{about.cgroup, about.pidns}
	place, ok := s.groups[at]
	if !ok {
		place.cgroup, place.container = s.proc.CGroup(p.Key.PID)
		if place.cgroup == "" && place.container == "" {
			if _, err := os.Stat(filepath.Join(s.procRoot, strconv.Itoa(int(p.Key.PID)))); err != nil {
				return // it ended before it could be asked: leave it to the next one
			}
		}
		if len(s.groups) >= 4096 {
			clear(s.groups)
		}
		s.groups[at] = place
	}
	p.CGroup, p.Container = place.cgroup, place.container
}

// counts reads the kernel's counters: what was dropped, by source.
func (s *Source) counts() map[event.Source]uint64 {
	lost := map[event.Source]uint64{}
	for kind := uint32(kindFork); kind < kinds; kind++ {
		var perCPU []uint64
		if err := s.collection.Maps["counts"].Lookup(kind+kinds, &perCPU); err != nil {
			continue
		}
		for _, n := range perCPU {
			lost[sourceOf(kind)] += n
		}
	}
	// A program that was interrupted by itself did not run a second time.
	for name, p := range s.collection.Programs {
		if stats, err := p.Stats(); err == nil {
			if name == "on_state" {
				lost[event.FromNetwork] += stats.RecursionMisses
			} else {
				lost[event.FromProcess] += stats.RecursionMisses
			}
		}
	}
	return lost
}

func sourceOf(kind uint32) event.Source {
	if kind >= kindConnect {
		return event.FromNetwork
	}
	return event.FromProcess
}

// reportLost emits what was dropped since the last look.
func (s *Source) reportLost(before map[event.Source]uint64, since, until time.Time, emit func(*event.Event)) map[event.Source]uint64 {
	after := s.counts()
	for _, source := range event.Sources() {
		n := after[source] - before[source]
		if n == 0 {
			continue
		}
		s.lost.Add(n)
		emit(&event.Event{Time: until.UTC(), Action: event.EventsLost, Loss: &event.Loss{
			Where: "kernel_ring", Source: source, Count: n, Since: since.UTC(), Until: until.UTC(),
		}})
	}
	return after
}

// Written returns how many records the programs have handed to the ring.
func (s *Source) Written() uint64 {
	var sum uint64
	for kind := uint32(kindFork); kind < kinds; kind++ {
		var perCPU []uint64
		if err := s.collection.Maps["counts"].Lookup(kind, &perCPU); err == nil {
			for _, n := range perCPU {
				sum += n
			}
		}
	}
	return sum
}
