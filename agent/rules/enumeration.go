package rules

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"komainu/event"
)

const (
	// enumerationClasses is how many kinds of secrets must be opened.
	enumerationClasses = 4
	// enumerationWindow is the time within which they must be, and for which
	// the same burst then stays one finding, from its last open on.
	enumerationWindow = time.Minute
	// enumerationOpens and enumerationSessions bound the state.
	enumerationOpens    = 128
	enumerationSessions = 1024
	enumerationBursts   = 16
)

// enumeration finds sessions whose processes open files with secrets of
// several kinds, other than by programs that have a reason to. DESIGN.md says
// how the numbers were chosen.
type enumeration struct {
	sessions map[event.ProcessKey]*session
}

// session is what is known of one tree of processes, by its root.
type session struct {
	opens  []secretOpen
	bursts []burst
	last   time.Time
}

type secretOpen struct {
	event event.Event
	class event.Sensitivity
}

// burst is a run that was found: what its scope opens belongs to it until a
// minute has passed without any.
type burst struct {
	scope event.ProcessKey
	until time.Time
}

func newEnumeration() *enumeration {
	return &enumeration{sessions: map[event.ProcessKey]*session{}}
}

func (r *enumeration) observe(e *Engine, ev *event.Event) *match {
	if ev.Action != event.SensitiveFileRead || ev.Initiator == nil || ev.File == nil {
		return nil
	}
	p, class := ev.Initiator, ev.File.Sensitive
	if class == event.NotSensitive || e.trusted(p, class) {
		return nil
	}
	above := e.cfg.Tree.Ancestors(p.Key)
	s := r.session(e.cfg.Tree.Root(p.Key), ev.Time)
	if s.absorb(p, above, ev.Time) {
		return nil
	}
	s.opens = slices.DeleteFunc(s.opens, func(o secretOpen) bool { return ev.Time.Sub(o.event.Time) > enumerationWindow })
	if len(s.opens) == enumerationOpens {
		s.opens = slices.Delete(s.opens, 0, 1)
	}
	s.opens = append(s.opens, secretOpen{*ev, class})
	classes := s.classes()
	if len(classes) < enumerationClasses {
		return nil
	}
	m := r.match(e, ev, s, classes)
	s.opens = nil
	return m
}

// session returns the state of a tree. When there are too many, those that
// were quiet the longest are forgotten, a quarter at once.
func (r *enumeration) session(root event.ProcessKey, now time.Time) *session {
	s, ok := r.sessions[root]
	if !ok {
		if len(r.sessions) >= enumerationSessions {
			roots := slices.SortedFunc(maps.Keys(r.sessions), func(a, b event.ProcessKey) int {
				return r.sessions[a].last.Compare(r.sessions[b].last)
			})
			for _, old := range roots[:enumerationSessions/4] {
				delete(r.sessions, old)
			}
		}
		s = &session{}
		r.sessions[root] = s
	}
	s.last = now
	return s
}

// absorb reports whether an open belongs to a burst that was found already.
func (s *session) absorb(p *event.Process, above []event.Process, now time.Time) bool {
	s.bursts = slices.DeleteFunc(s.bursts, func(b burst) bool { return now.After(b.until) })
	for i, b := range s.bursts {
		if p.Key.Same(b.scope) || slices.ContainsFunc(above, func(a event.Process) bool { return a.Key.Same(b.scope) }) {
			s.bursts[i].until = now.Add(enumerationWindow)
			return true
		}
	}
	return false
}

func (s *session) classes() []string {
	seen := map[string]bool{}
	for _, o := range s.opens {
		seen[strings.ReplaceAll(string(o.class), "_", " ")] = true
	}
	return slices.Sorted(maps.Keys(seen))
}

// match makes one finding of everything that the session opened, and starts
// the burst that takes in what follows.
func (r *enumeration) match(e *Engine, ev *event.Event, s *session, classes []string) *match {
	m := &match{acting: *ev.Initiator}
	var participants []event.Process
	files := map[string]bool{}
	for _, o := range s.opens {
		if !slices.ContainsFunc(participants, func(p event.Process) bool { return p.Key.Same(o.event.Initiator.Key) }) {
			participants = append(participants, *o.event.Initiator)
		}
		if !files[o.event.File.Path] {
			files[o.event.File.Path] = true
			m.files = append(m.files, *o.event.File)
		}
		m.events = append(m.events, o.event)
	}
	m.events = m.events[:len(m.events)-1] // the last is the one observed
	scope := e.scope(participants)
	if len(s.bursts) == enumerationBursts {
		s.bursts = slices.Delete(s.bursts, 0, 1)
	}
	s.bursts = append(s.bursts, burst{scope, ev.Time.Add(enumerationWindow)})

	m.others = participants
	for _, p := range e.cfg.Tree.Descendants(scope, treeMax) { // who looked for what others then opened
		if ev.Time.Sub(p.Started) <= enumerationWindow {
			m.around = append(m.around, p)
		}
	}
	m.summary = fmt.Sprintf("%d files with secrets of %d kinds (%s) were opened within %s by %s and %d further processes of its session. Nothing was blocked.",
		len(m.files), len(classes), strings.Join(classes, ", "),
		max(ev.Time.Sub(s.opens[0].event.Time), time.Second).Round(time.Second), base(&m.acting), len(participants)-1)
	return m
}

// scope returns the process whose descendants are one run: the script that the
// participants have in common. Where that is a person's shell and only one
// process took part, it is that process, so that the same command typed again
// is another run.
func (e *Engine) scope(participants []event.Process) event.ProcessKey {
	chain := e.chain(participants[0])
	for _, p := range participants[1:] {
		other := e.chain(p)
		at := slices.IndexFunc(chain, func(c event.Process) bool {
			return slices.ContainsFunc(other, func(o event.Process) bool { return o.Key.Same(c.Key) })
		})
		if at < 0 { // nothing in common that is still known
			return participants[len(participants)-1].Key
		}
		chain = chain[at:]
	}
	for i := range chain {
		if !isInterpreter(&chain[i]) {
			continue
		}
		if !runsScript(&chain[i]) { // a person's shell
			break
		}
		for i+1 < len(chain) && sameProgram(&chain[i], &chain[i+1]) {
			i++ // a subshell is the script
		}
		return chain[i].Key
	}
	return chain[0].Key
}

// chain returns a process and its ancestors.
func (e *Engine) chain(p event.Process) []event.Process {
	return append([]event.Process{p}, e.cfg.Tree.Ancestors(p.Key)...)
}
