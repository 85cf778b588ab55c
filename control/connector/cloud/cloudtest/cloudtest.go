// Package cloudtest are pretend clouds: HTTP servers that follow the published
// APIs as far as the connectors use them, and that can be told to fail.
package cloudtest

import (
	"net/http"
	"sync"
	"testing"
	"time"
)

// Ran is what a script came to.
type Ran struct {
	Stdout, Stderr string
	Code           int
}

// Instance is a machine of a pretend cloud.
type Instance struct {
	ID       string // of AWS i-…, of Azure the vmId, of Google Cloud a number
	Name     string
	Region   string // of Azure a location, of Google Cloud a zone
	Address  string
	State    string
	Windows  bool
	Arch     string
	Tags     map[string]string
	Agent    string // AWS: Online, ConnectionLost, or "" for none
	Launched time.Time
}

// pretend is what the pretend clouds have in common.
type pretend struct {
	mu       sync.Mutex
	machines []*Instance
	asked    map[string]int
	answer   func(w http.ResponseWriter, what string, asked int) bool
	run      func(i Instance, script string) Ran
	local    string // the machine that the metadata service is of
}

func begin(machines []*Instance) pretend {
	return pretend{machines: machines, asked: map[string]int{}}
}

// Set puts machines in the place of those that are there.
func (p *pretend) Set(machines ...*Instance) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.machines = machines
}

// Answer has f answer in the place of the cloud, where it returns true. asked
// counts how often the same was asked for before.
func (p *pretend) Answer(f func(w http.ResponseWriter, what string, asked int) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer = f
}

// Run says what running a script on a machine comes to.
func (p *pretend) Run(f func(i Instance, script string) Ran) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.run = f
}

// Local says which machine the metadata service is of.
func (p *pretend) Local(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.local = id
}

// Asked returns how often something was asked for.
func (p *pretend) Asked(what string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked[what]
}

// answered counts that something is asked for, and reports whether a test has
// answered in the place of the cloud.
func (p *pretend) answered(w http.ResponseWriter, what string) bool {
	p.mu.Lock()
	asked, answer := p.asked[what], p.answer
	p.asked[what]++
	p.mu.Unlock()
	return answer != nil && answer(w, what, asked)
}

// LeadNowhere tries settings that would have a connector talk to somebody
// else, each a change of good ones.
func LeadNowhere[S any](t *testing.T, good S, check func(S, string) error, secret string, changes map[string]func(*S)) {
	t.Helper()
	for name, change := range changes {
		s := good
		change(&s)
		if err := check(s, secret); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if err := check(good, ""); err == nil {
		t.Error("no secret: taken")
	}
	if err := check(good, secret); err != nil {
		t.Error(err)
	}
}
