// Package rules decides on the host which behaviour is suspicious: rules with
// state over time, over the events of the sensor and the process tree.
//
// Each rule is one file here with what it looks for, and one file in
// content/rules with what people read of it and with samples of what it finds
// and what it leaves alone. DESIGN.md says how the rules were chosen and what
// they can't see.
package rules

import (
	"komainu/event"
	"komainu/finding"
)

// Tree is what rules ask about processes.
type Tree interface {
	Get(event.ProcessKey) (event.Process, bool)
	// Ancestors returns those who started a process, nearest first.
	Ancestors(event.ProcessKey) []event.Process
	// Descendants returns at most limit processes below a process.
	Descendants(key event.ProcessKey, limit int) []event.Process
	// Root returns the top of the session that a process belongs to.
	Root(event.ProcessKey) event.ProcessKey
}

// Engine evaluates the rules. It belongs to one goroutine.
type Engine struct{}

// New returns an engine with all shipped rules.
func New(tree Tree) *Engine { return &Engine{} }

// Observe takes an event that the tree has been told of, and returns what it
// gives away. The event is not kept.
func (e *Engine) Observe(ev *event.Event) []finding.Finding { return nil }
