package agent

import (
	"sync/atomic"

	"komainu/event"
	"komainu/policy"
)

// sensorFilter keeps out of telemetry and rules what exclusions of the global
// scope name: accesses to files by their path, starts of programs by theirs,
// and what an excluded program does, except that it starts another one. The
// process tree learns of everything, because it describes ancestors.
type sensorFilter struct {
	matcher atomic.Pointer[policy.Matcher]
	left    atomic.Uint64 // events that were left out
}

func (f *sensorFilter) settingsChanged(e policy.Effective) {
	f.matcher.Store(policy.NewMatcher(e.Exclusions, policy.ScopeGlobal))
}

// Excludes reports whether an event is left out, and counts it.
func (f *sensorFilter) Excludes(ev *event.Event) bool {
	m := f.matcher.Load()
	if m == nil || ev.Action == event.EventsLost {
		return false
	}
	file, process := "", ""
	switch {
	case ev.Process != nil:
		file, process = ev.Process.Path, ev.Process.Path
	case ev.Initiator != nil:
		process = ev.Initiator.Path
	}
	if ev.File != nil {
		file = ev.File.Path
	}
	_, excluded := m.Match(file, process)
	if excluded {
		f.left.Add(1)
	}
	return excluded
}
