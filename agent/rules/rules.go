// Package rules decides on the host which behaviour is suspicious: rules with
// state over time, over the events of the sensor and the process tree.
//
// Each rule is one file here with what it looks for, one file in content/rules
// with what people read of it, and one in content/rules/samples with what it
// finds and what it leaves alone. DESIGN.md says how the rules were chosen and
// what they can't see.
package rules

import (
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"time"

	"komainu/content/rules"
	"komainu/event"
	"komainu/finding"
)

// Tree is what rules ask about processes.
type Tree interface {
	// Ancestors returns those who started a process, nearest first.
	Ancestors(event.ProcessKey) []event.Process
	// Descendants returns at most limit processes below a process.
	Descendants(key event.ProcessKey, limit int) []event.Process
	// Root returns the top of the session that a process belongs to.
	Root(event.ProcessKey) event.ProcessKey
}

// Config says what an engine asks.
type Config struct {
	Tree Tree
	// Classify returns the class of secret that a file holds by its path.
	Classify func(path string) event.Sensitivity
	// SecretFolder reports whether a path is a folder of secrets.
	SecretFolder func(path string) bool
	// Inspect describes the file at a path, after all links. Nil asks the
	// filesystem.
	Inspect func(path string) (event.File, error)
}

// Engine evaluates the rules. It belongs to one goroutine.
type Engine struct {
	cfg   Config
	rules []named
	quiet map[string]time.Time // by rule and subject: not again before
}

type named struct {
	rule
	meta     rules.Meta
	severity finding.Severity
}

// rule looks at an event and returns what it gives away, or nil.
type rule interface {
	observe(e *Engine, ev *event.Event) *match
}

// match is what a rule found.
type match struct {
	acting  event.Process
	others  []event.Process // further processes that did it
	around  []event.Process // processes of the same run, for the tree alone
	files   []event.File
	events  []event.Event // before the one that was observed
	summary string
	// subject, if set, is found once in quietFor.
	subject string
}

const (
	quietFor  = 10 * time.Minute
	quietMax  = 4096
	treeMax   = 48  // processes in a finding
	eventsMax = 100 // events in a finding
)

// shipped are the rules of this version, by id.
func shipped() map[string]rule {
	return map[string]rule{
		"sensitive-enumeration": newEnumeration(),
		"reverse-shell":         reverseShell{},
		"download-and-run":      newDownloads(),
		"hidden-file-execution": hiddenFile{},
		"miner":                 miner{},
		"history-cleared":       historyCleared{},
		"audit-disabled":        auditDisabled{},
	}
}

// New returns an engine with all shipped rules.
func New(cfg Config) (*Engine, error) {
	metas, err := rules.All()
	if err != nil {
		return nil, err
	}
	if cfg.Inspect == nil {
		cfg.Inspect = inspect
	}
	e := &Engine{cfg: cfg, quiet: map[string]time.Time{}}
	code := shipped()
	for _, id := range slices.Sorted(maps.Keys(code)) {
		meta, ok := metas[id]
		if !ok {
			return nil, fmt.Errorf("rule %s has no description", id)
		}
		severity, err := finding.ParseSeverity(meta.Severity)
		if err != nil {
			return nil, fmt.Errorf("rule %s: %w", id, err)
		}
		e.rules = append(e.rules, named{code[id], meta, severity})
	}
	return e, nil
}

// Observe takes an event that the tree has been told of, and returns what it
// gives away. The event is not kept. Device and, for evidence that is still to
// come, hashes are the caller's to fill in.
func (e *Engine) Observe(ev *event.Event) []finding.Finding {
	var found []finding.Finding
	for _, r := range e.rules {
		if m := r.observe(e, ev); m != nil && e.loud(r.meta.ID, m.subject, ev.Time) {
			found = append(found, e.finding(r, m, ev))
		}
	}
	return found
}

// loud reports whether a subject was not found by the rule of late.
func (e *Engine) loud(id, subject string, now time.Time) bool {
	if subject == "" {
		return true
	}
	key := id + "\x00" + subject
	if until, ok := e.quiet[key]; ok && now.Before(until) {
		return false
	}
	if len(e.quiet) >= quietMax {
		maps.DeleteFunc(e.quiet, func(_ string, until time.Time) bool { return !now.Before(until) })
		if len(e.quiet) >= quietMax {
			clear(e.quiet)
		}
	}
	e.quiet[key] = now.Add(quietFor)
	return true
}

func (e *Engine) finding(r named, m *match, ev *event.Event) finding.Finding {
	f := finding.Finding{
		ID:         newID(),
		Time:       ev.Time,
		Title:      r.meta.Title,
		Severity:   r.severity,
		Category:   finding.Category(r.meta.Category),
		Techniques: slices.Clone(r.meta.Techniques),
		Source:     finding.SourceBehavior,
		Rule:       finding.Rule{ID: r.meta.ID, Name: r.meta.Title, Version: rules.Version},
		State:      finding.Detected,
		Summary:    m.summary,
		Events:     append(m.events[max(0, len(m.events)-eventsMax+1):len(m.events):len(m.events)], *ev),
	}
	acting := m.acting
	f.Tree = append(f.Tree, acting)
	f.Tree = append(f.Tree, e.cfg.Tree.Ancestors(acting.Key)...)
	for _, p := range slices.Concat(m.others, m.around) {
		if len(f.Tree) < treeMax && !slices.ContainsFunc(f.Tree, func(q event.Process) bool { return q.Key.Same(p.Key) }) {
			f.Tree = append(f.Tree, p)
		}
	}
	f.Evidence = append(f.Evidence, finding.Evidence{Role: finding.Impacted, Verdict: "Suspicious", State: state(&acting), Process: &acting})
	for i := range m.others {
		if m.others[i].Key != acting.Key {
			f.Evidence = append(f.Evidence, finding.Evidence{Role: finding.Related, Verdict: "Suspicious", State: state(&m.others[i]), Process: &m.others[i]})
		}
	}
	for i := range m.files {
		f.Evidence = append(f.Evidence, finding.Evidence{Role: finding.Impacted, Verdict: "Unknown", State: "Active", File: &m.files[i]})
	}
	f.Evidence = append(f.Evidence, finding.Evidence{Role: finding.Impacted, Verdict: "Unknown", State: "Active", User: &acting.User})
	return f
}

// state of a process as evidence.
func state(p *event.Process) string {
	if p.ExitCode != nil || p.Signal != 0 {
		return "NotFound"
	}
	return "Active"
}

// newID returns a random UUID.
func newID() finding.ID {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return finding.ID(fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]))
}
