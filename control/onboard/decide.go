package onboard

import (
	"time"

	"komainu/control/machine"
	"komainu/deploy"
	"komainu/event"
	"komainu/policy"
)

// Plan is what the plan of an environment says.
type Plan struct {
	Tier    policy.Tier
	Protect bool // endpoint protection is on
}

// Device is what is known of the agent on a machine.
type Device struct {
	ID         event.DeviceID
	Offboarded bool
	Connected  bool
	Silent     time.Duration // how long it has not been connected
	Awaited    time.Duration // as much of that as it could have connected
	Confirmed  bool          // it has confirmed the policy that applies now
	Version    string        // of the agent
	Addresses  []string      // of its host, as the agent tells
}

const (
	// peekAfter is how long the agent of a protected machine may be away before
	// somebody looks: a service that was stopped and a package that was removed
	// are put right then.
	peekAfter = 45 * time.Second
	// silentFor is how long it may be away while the machine cannot be reached
	// either: a reboot takes less.
	silentFor = 3 * time.Minute
	// removeTries bounds how often a removal is tried: for about a day.
	removeTries = 50
)

// work is what is to be done about a machine.
type work string

const (
	nothing work = "nothing"
	verify  work = "verify"  // the agent is there: let it prove itself
	install work = "install" // there is none yet
	repair  work = "repair"  // there was one, and it is silent
	remove  work = "remove"  // somebody wants the agent taken off
)

// decision is what should be with a machine.
type decision struct {
	work   work
	state  deploy.State   // when nothing is to be done
	reason *deploy.Reason // of the state
	// early says that the machine still counts as protected: what keeps the
	// work from being done now is no reason to call it otherwise.
	early bool
}

func stay(state deploy.State, id deploy.ReasonID, detail string) decision {
	return decision{work: nothing, state: state, reason: new(deploy.ReasonOf(id, detail))}
}

// Effective returns the plan of a machine: an exclusion is stronger than its
// own setting, which is stronger than the plan of the environment.
func Effective(m *machine.Machine, p policy.Tier, exclude []machine.Tag) machine.Effective {
	if t, ok := m.Has(exclude); ok {
		return machine.Effective{Plan: policy.Off, From: "tag", Excluded: t.String()}
	}
	if m.Plan != machine.Inherit {
		return machine.Effective{Plan: m.Plan, From: "machine"}
	}
	return machine.Effective{Plan: p, From: "environment"}
}

// decide says what should be with a machine. device is nil when it has no
// agent that is known here.
func decide(m *machine.Machine, p Plan, s Settings, device *Device) decision {
	plan := Effective(m, p.Tier, s.Exclude)
	if device != nil && device.Offboarded {
		device = nil
	}
	switch {
	case m.Gone && device == nil:
		return decision{work: nothing, state: deploy.None}
	case m.Offboarded && m.Extension.Reason != nil && m.Extension.Reason.ID == deploy.RemoveFailed:
		return decision{work: nothing, state: m.Extension.State, reason: m.Extension.Reason}
	case m.Offboarded && m.Left:
		return stay(deploy.None, deploy.OffboardedByHost, "")
	case m.Offboarded:
		return stay(deploy.None, deploy.Offboarded, "")
	case plan.Excluded != "":
		return stay(deploy.NotApplicable, deploy.Excluded, plan.Excluded)
	case plan.Plan == policy.Off:
		return stay(deploy.None, deploy.PlanOff, "")
	case p.Tier != policy.Off && !p.Protect:
		return stay(deploy.None, deploy.ProtectionOff, "")
	case m.Stopped:
		return stay(deploy.NotApplicable, deploy.Stopped, "")
	case m.System == "windows" && device == nil:
		return stay(deploy.NotApplicable, deploy.Windows, "")
	}
	proven := m.Extension.State == deploy.Succeeded
	switch {
	case device != nil && device.Connected && proven:
		return decision{work: nothing, state: deploy.Succeeded}
	case device != nil && device.Connected:
		return decision{work: verify}
	case device != nil && proven && m.Extension.Requested.IsZero() && (device.Awaited < peekAfter || device.Awaited < silentFor && (m.Connector == "" || m.Gone)):
		return decision{work: nothing, state: deploy.Succeeded}
	case m.Connector != "" && !m.Gone && device != nil:
		return decision{work: repair, early: proven && device.Awaited < silentFor}
	case m.Connector != "" && !m.Gone:
		return decision{work: install}
	case device != nil:
		return stay(deploy.Failed, deploy.NoReport, "silent for "+device.Silent.Round(time.Minute).String())
	}
	return stay(deploy.Failed, deploy.NoWay, "")
}
