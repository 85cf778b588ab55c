// Package sensortest holds what every back end for processes must do: the same
// programs, told in steps, must come out as the same events.
package sensortest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"komainu/event"
)

// Source is a back end.
type Source interface {
	Run(ctx context.Context, emit func(*event.Event), flushed func()) error
	Flush()
}

// Recorder runs a back end and keeps its events.
type Recorder struct {
	t      *testing.T
	source Source

	mu      sync.Mutex
	events  []event.Event
	changed chan struct{} // closed and replaced with every event and flush
	flushes int
}

// Record runs a back end until the test ends.
func Record(t *testing.T, source Source) *Recorder {
	r := &Recorder{t: t, source: source, changed: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() {
		err := source.Run(ctx, func(ev *event.Event) {
			r.note(func() { r.events = append(r.events, *ev) })
		}, func() { r.note(func() { r.flushes++ }) })
		if err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		group.Wait()
	})
	return r
}

func (r *Recorder) note(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
	close(r.changed)
	r.changed = make(chan struct{})
}

// Wait waits for an event.
func (r *Recorder) Wait(what string, is func(event.Event) bool) event.Event {
	r.t.Helper()
	var found event.Event
	r.until(what, func() bool {
		i := slices.IndexFunc(r.events, is)
		if i >= 0 {
			found = r.events[i]
		}
		return i >= 0
	})
	return found
}

func (r *Recorder) until(what string, condition func() bool) {
	r.t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		r.mu.Lock()
		ok, changed := condition(), r.changed
		r.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			r.t.Fatalf("timed out: %s", what)
		}
	}
}

// Events flushes the back end and returns everything up to now.
func (r *Recorder) Events() []event.Event {
	r.t.Helper()
	r.mu.Lock()
	before := r.flushes
	r.mu.Unlock()
	r.source.Flush()
	r.until("flush", func() bool { return r.flushes > before })
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

// Processes runs the conformance stories.
func Processes(t *testing.T, r *Recorder) {
	for _, c := range []struct {
		name   string
		args   []string
		code   int32 // of the process
		signal int32
	}{
		{"ends", []string{"cat"}, 0, 0},
		{"fails", []string{"sh", "-c", "read x; exit 3"}, 3, 0},
		{"is_killed", []string{"sh", "-c", "read x; kill -9 $$"}, 0, 9},
		{"has_odd_arguments", []string{"cat", "-", "", "a b", "ü\n"}, 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			pid, end := start(t, c.args)
			created := r.Wait("the exec", func(ev event.Event) bool {
				return ev.Action == event.ProcessCreated && ev.Process.Key.PID == pid && ev.Fields["via"] != "fork"
			})
			end()
			p := created.Process
			if want := resolve(t, c.args[0]); p.Path != want || p.Name != filepath.Base(want) {
				t.Errorf("path %q, name %q, want %q", p.Path, p.Name, want)
			}
			if !slices.Equal(p.Args, c.args) {
				t.Errorf("args %q, want %q", p.Args, c.args)
			}
			if p.Parent.PID != event.PID(os.Getpid()) || created.Initiator == nil || created.Initiator.Key != p.Parent {
				t.Errorf("parent %v, initiator %+v", p.Parent, created.Initiator)
			}
			if p.User.UID != uint32(os.Getuid()) || p.User.EUID != uint32(os.Geteuid()) {
				t.Errorf("user %+v", p.User)
			}
			if p.Image == nil || p.Image.Inode == 0 || p.Image.Mode&0o111 == 0 {
				t.Errorf("image %+v", p.Image)
			}
			if age := time.Since(p.Started); age < -time.Second || age > time.Minute {
				t.Errorf("started %v", p.Started)
			}
			ended := r.Wait("the end", func(ev event.Event) bool {
				return ev.Action == event.ProcessTerminated && ev.Process.Key.Same(p.Key)
			}).Process
			if ended.Signal != c.signal || c.signal == 0 && (ended.ExitCode == nil || *ended.ExitCode != c.code) || c.signal != 0 && ended.ExitCode != nil {
				t.Errorf("ended with code %v, signal %d", ended.ExitCode, ended.Signal)
			}
			order(t, r, p.Key)
		})
	}
	t.Run("forks_only", func(t *testing.T) {
		pid, end := start(t, []string{"sh", "-c", "(read x; exit 7); exit 4"})
		child := r.Wait("the fork", func(ev event.Event) bool {
			return ev.Action == event.ProcessCreated && ev.Fields["via"] == "fork" && ev.Process.Parent.PID == pid
		}).Process
		end()
		ended := r.Wait("its end", func(ev event.Event) bool {
			return ev.Action == event.ProcessTerminated && ev.Process.Key.Same(child.Key)
		}).Process
		if ended.ExitCode == nil || *ended.ExitCode != 7 {
			t.Errorf("ended with %v", ended.ExitCode)
		}
	})
}

// order checks that a process was forked, then executed, then ended, once.
func order(t *testing.T, r *Recorder, key event.ProcessKey) {
	t.Helper()
	var story []string
	for _, ev := range r.Events() {
		if ev.Process == nil || !ev.Process.Key.Same(key) {
			continue
		}
		switch {
		case ev.Action == event.ProcessTerminated:
			story = append(story, "end")
		case ev.Fields["via"] == "fork":
			story = append(story, "fork")
		default:
			story = append(story, "exec")
		}
	}
	if got := strings.Join(story, " "); got != "fork exec end" {
		t.Errorf("the process's events are %q", got)
	}
}

// start starts a program that waits for its input to end.
func start(t *testing.T, args []string) (event.PID, func()) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return event.PID(cmd.Process.Pid), func() {
		in.Close()
		_ = cmd.Wait() // how it ended is what the back end has to tell
	}
}

func resolve(t *testing.T, name string) string {
	t.Helper()
	file, err := exec.LookPath(name)
	if err != nil {
		t.Fatal(err)
	}
	file, err = filepath.EvalSymlinks(file)
	if err != nil {
		t.Fatal(err)
	}
	return file
}
