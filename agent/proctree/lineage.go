package proctree

import (
	"path"
	"slices"
	"strings"
	"time"

	"komainu/event"
)

// tick is the resolution of start times that come from /proc.
const tick = 10 * time.Millisecond

// Get returns the process with this key.
func (t *Tree) Get(key event.ProcessKey) (event.Process, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if n := t.lookup(key); n != nil {
		return n.process, true
	}
	return event.Process{}, false
}

// ByPID returns the process that had the pid at a time: the latest that had
// started by then, even if it has ended since. The zero time means now.
func (t *Tree) ByPID(pid event.PID, at time.Time) (event.Process, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, n := range slices.Backward(t.pids[pid]) {
		if at.IsZero() || !n.process.Started.After(at.Add(tick)) {
			return n.process, true
		}
	}
	return event.Process{}, false
}

// Ended returns when a process ended, and false while it runs or when it is
// not known.
func (t *Tree) Ended(key event.ProcessKey) (time.Time, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if n := t.lookup(key); n != nil && n.over {
		return n.end, true
	}
	return time.Time{}, false
}

// Ancestors returns those who started a process, nearest first, as far as they
// are known.
func (t *Tree) Ancestors(key event.ProcessKey) []event.Process {
	t.mu.RLock()
	defer t.mu.RUnlock()
	n := t.lookup(key)
	if n == nil {
		return nil
	}
	var up []event.Process
	for n = n.parent; n != nil && len(up) < t.limits.Depth; n = n.parent {
		up = append(up, n.process)
	}
	return up
}

// Descendants returns at most limit processes that a process started, and
// those that these started, nearest first and in the order of their start.
func (t *Tree) Descendants(key event.ProcessKey, limit int) []event.Process {
	t.mu.RLock()
	defer t.mu.RUnlock()
	n := t.lookup(key)
	if n == nil {
		return nil
	}
	var down []event.Process
	for level := []*node{n}; len(level) != 0 && len(down) < limit; {
		var next []*node
		for _, above := range level {
			for e := above.children.Front(); e != nil && len(down) < limit; e = e.Next() {
				child := e.Value.(*node)
				down, next = append(down, child.process), append(next, child)
			}
		}
		level = next
	}
	return down
}

// Root returns the top of the session that a process belongs to: its highest
// ancestor, itself included, below init or below a daemon that starts sessions
// (sshd, cron, a container shim). It stays the same when processes between
// them end and are forgotten. An unknown process is its own root.
func (t *Tree) Root(key event.ProcessKey) event.ProcessKey {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if n := t.lookup(key); n != nil {
		return n.top.process.Key
	}
	return key
}

// Stats returns the tree's counters.
func (t *Tree) Stats() Stats {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.stats
}

// starters are daemons below init whose children are sessions or jobs that
// have nothing to do with each other.
var starters = []string{"atd", "conmon", "cron", "crond", "inetd", "sshd", "systemd", "xinetd"}

// launcher reports whether the children of p are tops of their own. A process
// must not be able to make itself one, because rules count within a session:
// besides init it must be init's child and run a system file that only root
// can write.
func launcher(p *event.Process) bool {
	if p.Key.PID == 1 || p.Key.PID == 2 { // init and the kernel's own threads
		return true
	}
	if p.Parent.PID != 1 || p.Image == nil || p.Image.Owner.UID != 0 || p.Image.Mode&0o022 != 0 {
		return false
	}
	if !strings.HasPrefix(p.Path, "/usr/") && !strings.HasPrefix(p.Path, "/sbin/") && !strings.HasPrefix(p.Path, "/lib/") && !strings.HasPrefix(p.Path, "/bin/") {
		return false
	}
	name := path.Base(p.Path)
	return slices.Contains(starters, name) || strings.HasPrefix(name, "containerd-shim")
}
