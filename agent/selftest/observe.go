package selftest

import (
	"bytes"
	"slices"
	"strings"
	"time"

	"komainu/drill"
	"komainu/event"
	"komainu/finding"
	"komainu/policy"
)

// What the parts of the agent tell. Each of these is on a busy path, so that
// without a run they cost one load.

// current returns the run under way, nil without one. A nil Runner has none.
func (r *Runner) current() *run {
	if r == nil {
		return nil
	}
	return r.active.Load()
}

// Opened is told of every file that real-time protection judges, and of the
// exclusion that keeps it out, nil without one.
func (r *Runner) Opened(path string, x *policy.Exclusion) {
	u := r.current()
	if u == nil || !u.holds(path) {
		return
	}
	u.edit(func() {
		u.state.Reach(drill.Kernel, time.Now(), "real-time protection was asked about "+path)
		if x != nil {
			u.hit = new(excluded(*x))
		}
	})
}

// Observed is told of every event of the sensor. ancestors returns who started
// a process.
func (r *Runner) Observed(ev *event.Event, ancestors func(event.ProcessKey) []event.Process) {
	u := r.current()
	if u == nil || !u.scenario.Behavior {
		return
	}
	var p *event.Process
	switch ev.Action {
	case event.ProcessCreated:
		p = ev.Process
	case event.SensitiveFileRead:
		p = ev.Initiator
	}
	if p == nil || ev.Action == event.ProcessCreated && u.scenario.ID != behaviorTest || !u.descends(p, ancestors(p.Key)) {
		return
	}
	detail := "the sensor saw " + p.Path
	if ev.File != nil && ev.Action == event.SensitiveFileRead {
		detail = "the sensor saw the opening of " + ev.File.Path
	}
	u.edit(func() { u.state.Reach(drill.Kernel, ev.Time, detail) })
}

// Found is told of every finding before it is recorded. One that this run has
// made is marked as a test.
func (r *Runner) Found(f *finding.Finding) {
	u := r.current()
	if u == nil || !u.made(f) {
		return
	}
	f.Test = true
	u.edit(func() {
		// What was found was seen, whoever has told of it first.
		u.state.Reach(drill.Kernel, f.Time, "")
		u.state.Reach(drill.Agent, time.Now(), f.Title+" ("+string(f.State)+")")
		u.state.Finding, u.verdict = string(f.ID), f.State
	})
}

// Recorded is told of what a finding became in the spool.
func (r *Runner) Recorded(id finding.ID, record []byte) {
	u := r.current()
	if u == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.state.Finding == string(id) && u.position == 0 {
		u.record = bytes.Clone(record)
	}
}

// Handed is told of what the link takes from the spool of findings.
func (r *Runner) Handed(first uint64, records [][]byte) {
	u := r.current()
	if u == nil {
		return
	}
	u.mu.Lock()
	record := u.record
	u.mu.Unlock()
	if record == nil {
		return
	}
	i := slices.IndexFunc(records, func(b []byte) bool { return bytes.Equal(b, record) })
	if i < 0 {
		return
	}
	u.edit(func() {
		u.position = first + uint64(i)
		u.state.Reach(drill.Sent, time.Now(), "")
	})
}

// Acknowledged is told of what the control plane has of the spool of findings.
func (r *Runner) Acknowledged(upTo uint64) {
	u := r.current()
	if u == nil {
		return
	}
	u.mu.Lock()
	ours := u.position != 0 && u.position <= upTo
	u.mu.Unlock()
	if ours {
		u.edit(func() { u.state.Reach(drill.Received, time.Now(), "") })
	}
}

// Answer takes the stages of the control plane.
func (r *Runner) Answer(id string, stages []drill.Stage) {
	u := r.current()
	if u == nil {
		return
	}
	u.mu.Lock()
	ours := u.state.ID == id
	u.mu.Unlock()
	if !ours {
		return
	}
	u.edit(func() {
		u.answered = true
		for _, s := range stages {
			if s.ID != drill.Alert && s.ID != drill.Incident && s.ID != drill.Notification || s.State == drill.Waiting {
				continue // those before are this agent's to say
			}
			// An alert exists only of what was received.
			u.state.Reach(drill.Received, time.Now(), "")
			*u.state.Stage(s.ID) = s
		}
	})
}

func (u *run) holds(path string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.folder != "" && strings.HasPrefix(path, u.folder+"/")
}

// descends reports whether a process is of this run.
func (u *run) descends(p *event.Process, above []event.Process) bool {
	u.mu.Lock()
	pid, folder := u.process, u.folder
	u.mu.Unlock()
	within := func(name string) bool { return strings.HasPrefix(name, folder+"/") }
	ours := func(p *event.Process) bool {
		// The sensor's ids are those of the host, which an agent in a container
		// does not see: the names in the folder of the run tell as well.
		return folder != "" && (pid != 0 && p.Key.PID == pid || within(p.Path) || slices.ContainsFunc(p.Args, within))
	}
	return ours(p) || slices.ContainsFunc(above, func(p event.Process) bool { return ours(&p) })
}

// made reports whether a finding tells of what this run has done, and of
// nothing else: only that is a test. The rule has to be the one that the
// scenario is for, so that whatever else is found meanwhile stays what it is.
func (u *run) made(f *finding.Finding) bool {
	if u.scenario.Behavior {
		if f.Rule.ID != ruleOf(u.scenario.ID) || len(f.Tree) == 0 {
			return false
		}
		return u.descends(&f.Tree[0], f.Tree[1:])
	}
	if f.Source != finding.SourceAntivirus || f.Threat == nil || !strings.Contains(f.Threat.Name, "EICAR") {
		return false
	}
	return slices.ContainsFunc(f.Evidence, func(e finding.Evidence) bool { return e.File != nil && u.holds(e.File.Path) })
}
