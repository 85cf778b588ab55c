// Package proctree keeps the processes of a host and who started whom, so that
// an event can be completed with what its process is and a finding can show
// where it came from.
//
// The tree learns from the sensor's events (Apply) and from a snapshot of
// running processes (Seed). A process that ended is kept for a while, because
// events about it arrive late, and for as long as a process that it started is
// in the tree. The tree is bounded in processes and in bytes: the processes
// that ended first are forgotten first, then the oldest of all, and both are
// counted.
//
// A Tree can be used by several goroutines. What it returns are copies, whose
// slices and pointers are shared and must not be written through.
package proctree

import (
	"cmp"
	"container/list"
	"slices"
	"sync"
	"time"

	"komainu/event"
)

// Limits bound a tree.
type Limits struct {
	Processes int           // running and ended
	Bytes     int           // of command lines and paths, about
	Keep      time.Duration // how long an ended process is kept
	Depth     int           // ancestors that are followed
}

// DefaultLimits suit a server: some 20 MiB when full.
func DefaultLimits() Limits {
	return Limits{Processes: 32768, Bytes: 8 << 20, Keep: 10 * time.Minute, Depth: 64}
}

// Tree holds processes. Make one with New.
type Tree struct {
	limits Limits

	mu    sync.RWMutex
	pids  map[event.PID][]*node // the processes that had this pid, by start
	all   list.List             // of *node, in the order of arrival
	ended list.List             // of *node without children, in the order of their end
	bytes int
	stats Stats
}

// Stats counts what a tree holds and has forgotten.
type Stats struct {
	Running, Ended int
	Forgotten      uint64 // ended processes forgotten, by age or for room
	Evicted        uint64 // processes forgotten for room that ran or had children
}

type node struct {
	process  event.Process
	parent   *node     // nil when it was not known
	top      *node     // of the session, itself if it is the top
	children list.List // of *node, in the order of arrival
	inParent *list.Element
	over     bool
	end      time.Time
	inAll    *list.Element
	inEnded  *list.Element
	cost     int
}

// New returns an empty tree. A limit of zero is that of DefaultLimits.
func New(limits Limits) *Tree {
	d := DefaultLimits()
	return &Tree{
		limits: Limits{
			Processes: cmp.Or(limits.Processes, d.Processes),
			Bytes:     cmp.Or(limits.Bytes, d.Bytes),
			Keep:      cmp.Or(limits.Keep, d.Keep),
			Depth:     cmp.Or(limits.Depth, d.Depth),
		},
		pids: map[event.PID][]*node{},
	}
}

// Seed adds processes that run already. Those that the tree knows are left as
// they are, but for a start time that is now exact.
func (t *Tree) Seed(running []event.Process) {
	t.mu.Lock()
	defer t.mu.Unlock()
	running = slices.Clone(running)
	slices.SortStableFunc(running, func(a, b event.Process) int { return cmp.Compare(a.Key.Start, b.Key.Start) })
	for i := range running {
		if n := t.find(running[i].Key); n == nil {
			t.insert(running[i])
		}
	}
	t.shrink(time.Time{})
}

// Apply learns from an event and completes it: the processes that it names by
// key get everything that the tree knows of them and the event does not say.
func (t *Tree) Apply(ev *event.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case ev.Process == nil || ev.Process.Key.IsZero():
	case ev.Action == event.ProcessCreated:
		t.created(ev)
	case ev.Action == event.ProcessTerminated:
		t.terminated(ev)
	default:
		t.complete(ev.Process)
	}
	if ev.Initiator != nil {
		t.complete(ev.Initiator)
	}
	t.shrink(ev.Time)
}

func (t *Tree) created(ev *event.Event) {
	n := t.find(ev.Process.Key)
	switch {
	case n == nil:
		parent := t.find(ev.Process.Parent)
		if ev.Process.Path == "" && parent != nil { // a fork runs its parent's program
			inherit(ev.Process, &parent.process)
		}
		n = t.insert(*ev.Process)
	case ev.Fields["via"] != "fork": // it executes another program, even if nobody knows which
		parent := n.process.Parent
		key := n.process.Key
		n.process = *ev.Process
		n.process.Key = key
		if !parent.IsZero() {
			n.process.Parent = parent // who started it, not who adopted it
		}
		t.charge(n)
	}
	*ev.Process = n.process
	if ev.Initiator == nil && !n.process.Parent.IsZero() {
		ev.Initiator = &event.Process{Key: n.process.Parent}
	}
}

func (t *Tree) terminated(ev *event.Event) {
	n := t.find(ev.Process.Key)
	if n == nil {
		return
	}
	n.process.ExitCode, n.process.Signal = ev.Process.ExitCode, ev.Process.Signal
	t.close(n, ev.Time)
	*ev.Process = n.process
}

// inherit gives a forked process what it shares with its parent.
func inherit(p, parent *event.Process) {
	p.Path, p.Args, p.Truncated, p.Image = parent.Path, parent.Args, parent.Truncated, parent.Image
	p.Name = cmp.Or(parent.Name, p.Name)
	p.Cwd = cmp.Or(p.Cwd, parent.Cwd)
	p.TTY = cmp.Or(p.TTY, parent.TTY)
	p.Container = cmp.Or(p.Container, parent.Container)
	p.CGroup = cmp.Or(p.CGroup, parent.CGroup)
	p.User.Name = cmp.Or(p.User.Name, parent.User.Name)
}

// complete fills the blanks of a process that an event names.
func (t *Tree) complete(p *event.Process) {
	n := t.find(p.Key)
	if n == nil {
		return
	}
	if p.Path == "" && len(p.Args) == 0 {
		code, signal := p.ExitCode, p.Signal
		*p = n.process
		if code != nil || signal != 0 {
			p.ExitCode, p.Signal = code, signal
		}
	}
	p.Key = n.process.Key
}

// find returns the node of a key, and makes the start time that is kept for it
// exact when key's is.
func (t *Tree) find(key event.ProcessKey) *node {
	n := t.lookup(key)
	if n != nil && n.process.Key.Inexact && !key.Inexact {
		n.process.Key = key
		for e := n.children.Front(); e != nil; e = e.Next() {
			e.Value.(*node).process.Parent = key
		}
	}
	return n
}

func (t *Tree) lookup(key event.ProcessKey) *node {
	for _, n := range slices.Backward(t.pids[key.PID]) {
		if n.process.Key.Same(key) {
			return n
		}
	}
	return nil
}

func (t *Tree) insert(p event.Process) *node {
	n := &node{process: p}
	n.top = n
	if parent := t.find(p.Parent); parent != nil && parent.process.Key.Start <= p.Key.Start+uint64(tick) {
		n.parent = parent
		n.process.Parent = parent.process.Key
		n.inParent = parent.children.PushBack(n)
		t.unqueue(parent)
		if !launcher(&parent.process) {
			n.top = parent.top
		}
	}
	generations := t.pids[p.Key.PID]
	at, _ := slices.BinarySearchFunc(generations, p.Key.Start, func(o *node, start uint64) int {
		return cmp.Compare(o.process.Key.Start, start)
	})
	for _, older := range generations[:at] { // its end was missed: the pid is in use again
		t.close(older, p.Started)
	}
	t.pids[p.Key.PID] = slices.Insert(generations, at, n)
	n.inAll = t.all.PushBack(n)
	t.stats.Running++
	t.charge(n)
	return n
}

func (t *Tree) charge(n *node) {
	cost := len(n.process.Path) + len(n.process.Cwd) + len(n.process.CGroup)
	for _, a := range n.process.Args {
		cost += len(a) + 16
	}
	t.bytes += cost - n.cost
	n.cost = cost
}

func (t *Tree) close(n *node, at time.Time) {
	if n.over {
		return
	}
	n.over, n.end = true, at
	t.stats.Running--
	t.stats.Ended++
	t.queue(n)
}

// queue lines a node up to be forgotten, once it has ended and nothing in the
// tree descends from it.
func (t *Tree) queue(n *node) {
	if n.over && n.children.Len() == 0 && n.inEnded == nil {
		n.inEnded = t.ended.PushBack(n)
	}
}

func (t *Tree) unqueue(n *node) {
	if n.inEnded != nil {
		t.ended.Remove(n.inEnded)
		n.inEnded = nil
	}
}

// shrink forgets what is too old at the time now, and what there is no room
// for.
func (t *Tree) shrink(now time.Time) {
	for e := t.ended.Front(); e != nil; e = t.ended.Front() {
		n := e.Value.(*node)
		if now.Sub(n.end) <= t.limits.Keep && !t.full() {
			break
		}
		t.forget(n)
		t.stats.Forgotten++
	}
	for t.full() && t.all.Len() > 1 {
		t.forget(t.all.Front().Value.(*node))
		t.stats.Evicted++
	}
}

func (t *Tree) full() bool {
	return t.all.Len() > t.limits.Processes || t.bytes > t.limits.Bytes
}

func (t *Tree) forget(n *node) {
	t.unqueue(n)
	t.all.Remove(n.inAll)
	t.bytes -= n.cost
	if n.over {
		t.stats.Ended--
	} else {
		t.stats.Running--
	}
	pid := n.process.Key.PID
	t.pids[pid] = slices.DeleteFunc(t.pids[pid], func(o *node) bool { return o == n })
	if len(t.pids[pid]) == 0 {
		delete(t.pids, pid)
	}
	for e := n.children.Front(); e != nil; e = e.Next() {
		child := e.Value.(*node)
		child.parent, child.inParent = nil, nil
	}
	if n.parent != nil {
		n.parent.children.Remove(n.inParent)
		t.queue(n.parent)
	}
	// Descendants may point to it as the top of their session for long.
	n.process = event.Process{Key: n.process.Key}
	n.children.Init()
	n.parent, n.inParent = nil, nil
}
