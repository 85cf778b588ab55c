package device

import (
	"strings"
	"time"

	"komainu/event"
	"komainu/fault"
	"komainu/health"
	"komainu/policy"
)

// Member is what a device is selected by when policies are given out.
type Member struct {
	ID           event.DeviceID
	Organization string
	Environment  string
	Name         string
	Platform     string
	Tags         []policy.Tag     // that its agent reports
	Settings     []health.Setting // that are not at their default, as its agent reports
	Plan         policy.Tier      // of its machine alone, "" for that of its environment
	Observe      bool             // its machine is only watched for now
}

// Members returns all devices that are not offboarded.
func (r *Registry) Members() []Member {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]Member, 0, len(r.entries))
	for _, e := range r.entries {
		if !e.offboarded {
			list = append(list, r.member(e))
		}
	}
	return list
}

// Member returns one device. An offboarded one is there as it was.
func (r *Registry) Member(id event.DeviceID) (Member, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.entries[id]; e != nil {
		return r.member(e), nil
	}
	return Member{}, fault.New(fault.NotFound, "there is no device %s", id)
}

func (r *Registry) member(e *entry) Member {
	m := Member{ID: e.id, Organization: e.organization, Environment: e.environment, Name: e.name, Platform: e.platform}
	if e.report != nil {
		for _, t := range e.report.EDRDeviceTags {
			m.Tags = append(m.Tags, policy.Tag(t))
		}
		m.Settings = e.report.Settings
	}
	m.Plan, m.Observe = r.cfg.Placed(e.id)
	return m
}

// State is what others want to know of a device at any time, from memory.
type State struct {
	Organization string
	Environment  string
	Offboarded   bool
	Connected    bool
	LastSeen     time.Time
	Version      string // of the agent
	Form         string // of the package that it was installed from, "" when it is not known
	Arch         string // of the processor
	Name         string
	Addresses    []string  // of the host, as its agent tells; not to be changed
	Healthy      bool      // as its last report says
	Problem      string    // what is not well
	Reported     time.Time // the last report, zero before the first
}

// State returns the state of a device; ok is false when there is none.
func (r *Registry) State(id event.DeviceID) (s State, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.entries[id]
	if e == nil {
		return s, false
	}
	s = State{Organization: e.organization, Environment: e.environment, Offboarded: e.offboarded, Connected: e.connected, LastSeen: e.lastSeen, Version: e.agentVersion, Arch: e.arch, Name: e.name, Addresses: e.addresses}
	if e.report != nil {
		s.Healthy, s.Problem, s.Reported, s.Form = e.report.Healthy, problem(e.report), e.reportedAt, e.report.PackageForm
	}
	return s, true
}

// problem names what is not well in a report.
func problem(r *health.Report) string {
	var parts []string
	for _, c := range r.Conditions {
		if c.State == health.Failed || c.State == health.Degraded {
			parts = append(parts, strings.TrimSpace(c.Part+" is "+string(c.State)+" "+string(c.Code)))
		}
	}
	if len(parts) == 0 {
		parts = r.Issues
	}
	return strings.Join(parts, ", ")
}
