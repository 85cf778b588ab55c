package proctree_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"komainu/agent/proctree"
	"komainu/event"
)

const boot = event.BootID("b")

var epoch = time.Unix(1_000_000, 0).UTC()

func at(ms uint64) time.Time { return epoch.Add(time.Duration(ms) * time.Millisecond) }

func key(pid event.PID, ms uint64) event.ProcessKey {
	return event.ProcessKey{Boot: boot, PID: pid, Start: ms * uint64(time.Millisecond)}
}

func fork(k, parent event.ProcessKey) *event.Event {
	when := at(k.Start / uint64(time.Millisecond))
	return &event.Event{Time: when, Action: event.ProcessCreated, Fields: map[string]string{"via": "fork"},
		Process: &event.Process{Key: k, Parent: parent, Started: when, Name: "comm"}}
}

func execute(k, parent event.ProcessKey, ms uint64, file string, args ...string) *event.Event {
	return &event.Event{Time: at(ms), Action: event.ProcessCreated, Process: &event.Process{
		Key: k, Parent: parent, Started: at(k.Start / uint64(time.Millisecond)), Path: file, Name: "n", Args: args,
		Image: &event.File{Path: file, Mode: 0o100755},
	}}
}

func end(k event.ProcessKey, ms uint64, code int32) *event.Event {
	return &event.Event{Time: at(ms), Action: event.ProcessTerminated, Process: &event.Process{Key: k, ExitCode: &code}}
}

func TestEventsAreCompleted(t *testing.T) {
	tree := proctree.New(proctree.Limits{})
	shell, child := key(10, 100), key(11, 200)
	tree.Seed([]event.Process{{Key: shell, Started: at(100), Path: "/bin/sh", Name: "sh", Args: []string{"sh"}, User: event.User{Name: "root"}}})

	ev := fork(child, shell)
	tree.Apply(ev)
	if ev.Process.Path != "/bin/sh" || ev.Initiator == nil || ev.Initiator.Path != "/bin/sh" {
		t.Errorf("a fork runs its parent's program: %+v by %+v", ev.Process, ev.Initiator)
	}
	ev = execute(child, shell, 210, "/bin/cat", "cat", "x")
	tree.Apply(ev)
	if ev.Process.Path != "/bin/cat" || ev.Initiator.Args[0] != "sh" {
		t.Errorf("exec: %+v by %+v", ev.Process, ev.Initiator)
	}
	ev = &event.Event{Time: at(220), Action: event.ConnectionSuccess, Initiator: &event.Process{Key: child}}
	tree.Apply(ev)
	if ev.Initiator.Path != "/bin/cat" || ev.Initiator.Parent != shell {
		t.Errorf("initiator: %+v", ev.Initiator)
	}
	ev = end(child, 300, 4)
	tree.Apply(ev)
	if ev.Process.Path != "/bin/cat" || *ev.Process.ExitCode != 4 {
		t.Errorf("end: %+v", ev.Process)
	}
	if p, ok := tree.Get(child); !ok || p.Path != "/bin/cat" {
		t.Errorf("an ended process is still known: %+v %v", p, ok)
	}
	if when, ok := tree.Ended(child); !ok || !when.Equal(at(300)) {
		t.Errorf("ended %v, %v", when, ok)
	}
}

func TestAProgramThatNobodyCouldDescribeIsNotTheParents(t *testing.T) {
	tree := proctree.New(proctree.Limits{})
	shell, child := key(10, 100), key(11, 200)
	tree.Apply(execute(shell, event.ProcessKey{}, 100, "/bin/sh", "sh"))
	tree.Apply(fork(child, shell))
	tree.Apply(execute(child, shell, 210, ""))
	if p, _ := tree.Get(child); p.Path != "" || len(p.Args) != 0 || p.Parent != shell {
		t.Errorf("%+v", p)
	}
}

func TestExactKeysReplaceInexactOnes(t *testing.T) {
	tree := proctree.New(proctree.Limits{})
	rounded, exact := key(10, 100), key(10, 103)
	rounded.Inexact = true
	child := key(11, 200)
	tree.Seed([]event.Process{{Key: rounded, Path: "/a"}, {Key: child, Parent: rounded, Path: "/b"}})
	tree.Apply(execute(exact, event.ProcessKey{}, 300, "/c"))
	if p, ok := tree.Get(rounded); !ok || p.Key != exact || p.Path != "/c" {
		t.Errorf("%+v", p)
	}
	if up := tree.Ancestors(child); len(up) != 1 || up[0].Key != exact {
		t.Errorf("ancestors %+v", up)
	}
	if s := tree.Stats(); s.Running != 2 {
		t.Errorf("%+v", s)
	}
}

func TestByPIDKnowsWhoHadItThen(t *testing.T) {
	tree := proctree.New(proctree.Limits{})
	first, second := key(10, 100), key(10, 5000)
	tree.Apply(execute(first, event.ProcessKey{}, 100, "/first"))
	tree.Apply(end(first, 200, 0))
	tree.Apply(execute(second, event.ProcessKey{}, 5000, "/second"))
	for _, c := range []struct {
		when time.Time
		want string
	}{{at(150), "/first"}, {at(4000), "/first"}, {at(5001), "/second"}, {time.Time{}, "/second"}} {
		if p, _ := tree.ByPID(10, c.when); p.Path != c.want {
			t.Errorf("at %v it was %q, want %q", c.when, p.Path, c.want)
		}
	}
	if _, ok := tree.ByPID(10, at(10)); ok {
		t.Error("before the first, nobody had it")
	}
}

func TestRoots(t *testing.T) {
	system := func(file string) *event.File { return &event.File{Path: file, Mode: 0o100755} }
	mine := &event.File{Path: "/usr/sbin/sshd", Mode: 0o100755, Owner: event.User{UID: 1000}}
	tree := proctree.New(proctree.Limits{})
	init, sshd, session, shell, cat := key(1, 0), key(5, 10), key(20, 100), key(21, 110), key(22, 120)
	fake, below := key(30, 130), key(31, 140)
	tree.Seed([]event.Process{
		{Key: init, Path: "/usr/lib/systemd/systemd"},
		{Key: sshd, Parent: init, Path: "/usr/sbin/sshd", Image: system("/usr/sbin/sshd")},
		{Key: session, Parent: sshd, Path: "/usr/sbin/sshd", Image: system("/usr/sbin/sshd")},
		{Key: shell, Parent: session, Path: "/bin/bash"},
		{Key: cat, Parent: shell, Path: "/bin/cat"},
		{Key: fake, Parent: shell, Path: "/usr/sbin/sshd", Image: mine},
		{Key: below, Parent: fake, Path: "/bin/cat"},
	})
	for k, want := range map[event.ProcessKey]event.ProcessKey{cat: session, shell: session, session: session, sshd: sshd, init: init, below: session} {
		if got := tree.Root(k); got != want {
			t.Errorf("root of %v is %v, want %v", k, got, want)
		}
	}
	tree.Apply(end(session, 200, 0)) // the shell lives on
	tree.Apply(end(shell, 200, 0))
	tree.Apply(end(cat, 200, 0))
	tree.Apply(end(fake, 200, 0))
	tree.Apply(&event.Event{Time: at(200 + 3_600_000), Action: event.AgentStarted})
	if got := tree.Root(below); got != session {
		t.Errorf("the root changed to %v when its processes ended", got)
	}
	if got := tree.Root(key(99, 1)); got != key(99, 1) {
		t.Errorf("an unknown process is its own root, not %v", got)
	}
}

func TestTreeIsBounded(t *testing.T) {
	tree := proctree.New(proctree.Limits{Processes: 100, Bytes: 10_000})
	parent := key(1, 0)
	tree.Apply(execute(parent, event.ProcessKey{}, 0, "/init"))
	for i := range uint64(1000) {
		k := key(event.PID(i+2), i+1)
		tree.Apply(execute(k, parent, i+1, "/bin/x", string(make([]byte, 1000))))
		if i%2 == 0 {
			tree.Apply(end(k, i+1, 0))
		}
	}
	s := tree.Stats()
	if s.Running+s.Ended > 100 || s.Running+s.Ended > 10 || s.Forgotten == 0 || s.Evicted == 0 || uint64(s.Running+s.Ended)+s.Forgotten+s.Evicted != 1001 {
		t.Errorf("%+v", s)
	}
}

// naive is a process tree as one would write it without bounds in mind.
type naive struct {
	all []*entry
}

type entry struct {
	key, parent event.ProcessKey
	file        string
	ended       bool
}

func (n *naive) get(k event.ProcessKey) *entry {
	i := slices.IndexFunc(n.all, func(e *entry) bool { return e.key == k })
	if i < 0 {
		return nil
	}
	return n.all[i]
}

func (n *naive) ancestors(k event.ProcessKey) (up []event.ProcessKey) {
	for e := n.get(k); e != nil; {
		if e = n.get(e.parent); e != nil {
			up = append(up, e.key)
		}
	}
	return up
}

func (n *naive) byPID(pid event.PID) *entry {
	for _, e := range slices.Backward(n.all) {
		if e.key.PID == pid {
			return e
		}
	}
	return nil
}

// TestTreeIsWhatANaiveOneIs applies random histories, with few pids so that
// they are used again, to the tree and to a naive one.
func TestTreeIsWhatANaiveOneIs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tree, model := proctree.New(proctree.Limits{}), &naive{}
		first := key(1, 0)
		tree.Apply(execute(first, event.ProcessKey{}, 0, "/0"))
		model.all = append(model.all, &entry{key: first, file: "/0"})
		for now := uint64(10); now < 10*uint64(rapid.IntRange(2, 60).Draw(t, "steps")); now += 10 {
			some := rapid.SampledFrom(model.all).Draw(t, "process")
			switch rapid.IntRange(0, 2).Draw(t, "what") {
			case 0:
				pid := event.PID(rapid.IntRange(2, 8).Draw(t, "pid"))
				if some.ended || some.key.PID == pid {
					continue
				}
				if old := model.byPID(pid); old != nil {
					old.ended = true // its end was missed
				}
				k := key(pid, now)
				tree.Apply(fork(k, some.key))
				model.all = append(model.all, &entry{key: k, parent: some.key, file: some.file})
			case 1:
				some.file = fmt.Sprintf("/%d", now)
				tree.Apply(execute(some.key, some.parent, now, some.file))
			case 2:
				some.ended = true
				tree.Apply(end(some.key, now, 0))
			}
		}
		for _, e := range model.all {
			p, ok := tree.Get(e.key)
			if !ok || p.Path != e.file || p.Parent != e.parent {
				t.Fatalf("Get(%v) = %+v, %v, want %+v", e.key, p, ok, e)
			}
			var up []event.ProcessKey
			for _, a := range tree.Ancestors(e.key) {
				up = append(up, a.Key)
			}
			if !slices.Equal(up, model.ancestors(e.key)) {
				t.Fatalf("Ancestors(%v) = %v, want %v", e.key, up, model.ancestors(e.key))
			}
			if _, ended := tree.Ended(e.key); ended != e.ended {
				t.Fatalf("Ended(%v) = %v", e.key, ended)
			}
			below := map[event.ProcessKey]bool{}
			for _, d := range tree.Descendants(e.key, 1000) {
				below[d.Key] = true
			}
			for _, other := range model.all {
				if below[other.key] != slices.Contains(model.ancestors(other.key), e.key) {
					t.Fatalf("Descendants(%v): %v is wrong", e.key, other.key)
				}
			}
		}
		for pid := event.PID(1); pid < 9; pid++ {
			p, ok := tree.ByPID(pid, time.Time{})
			if want := model.byPID(pid); ok != (want != nil) || ok && p.Key != want.key {
				t.Fatalf("ByPID(%d) = %v, %v", pid, p.Key, ok)
			}
		}
	})
}

func BenchmarkApply(b *testing.B) {
	tree := proctree.New(proctree.Limits{})
	parent := key(1, 0)
	tree.Apply(execute(parent, event.ProcessKey{}, 0, "/init"))
	i := uint64(1)
	b.ReportAllocs()
	for b.Loop() {
		k := key(event.PID(i%30000+2), i)
		tree.Apply(fork(k, parent))
		tree.Apply(execute(k, parent, i, "/bin/x", "x"))
		tree.Apply(end(k, i, 0))
		i++
	}
}
