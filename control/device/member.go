package device

import (
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
}

// Members returns all devices that are not offboarded.
func (r *Registry) Members() []Member {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]Member, 0, len(r.entries))
	for _, e := range r.entries {
		if !e.offboarded {
			list = append(list, e.member())
		}
	}
	return list
}

// Member returns one device. An offboarded one is there as it was.
func (r *Registry) Member(id event.DeviceID) (Member, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.entries[id]; e != nil {
		return e.member(), nil
	}
	return Member{}, fault.New(fault.NotFound, "there is no device %s", id)
}

func (e *entry) member() Member {
	m := Member{ID: e.id, Organization: e.organization, Environment: e.environment, Name: e.name, Platform: e.platform}
	if e.report != nil {
		for _, t := range e.report.EDRDeviceTags {
			m.Tags = append(m.Tags, policy.Tag(t))
		}
		m.Settings = e.report.Settings
	}
	return m
}
