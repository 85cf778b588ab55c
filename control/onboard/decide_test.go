package onboard

import (
	"testing"
	"time"

	"komainu/control/machine"
	"komainu/deploy"
	"komainu/policy"
)

func TestDecide(t *testing.T) {
	on, off := Plan{Tier: policy.P2, Protect: true}, Plan{Tier: policy.Off, Protect: true}
	reached := func(m machine.Machine) *machine.Machine { m.Connector, m.System = "way", "linux"; return &m }
	connected, silent := &Device{ID: "d", Connected: true}, &Device{ID: "d", Silent: time.Hour, Awaited: time.Hour}
	rebooting, away := &Device{ID: "d", Silent: 30 * time.Second, Awaited: 30 * time.Second}, &Device{ID: "d", Silent: time.Minute, Awaited: time.Minute}
	proven := machine.Extension{State: deploy.Succeeded}
	for name, c := range map[string]struct {
		m      *machine.Machine
		plan   Plan
		s      Settings
		device *Device
		work   work
		state  deploy.State
		reason deploy.ReasonID
	}{
		"bare":               {m: reached(machine.Machine{}), plan: on, work: install},
		"plan_off":           {m: reached(machine.Machine{}), plan: off, work: nothing, state: deploy.None, reason: deploy.PlanOff},
		"own_plan_on":        {m: reached(machine.Machine{Plan: policy.P1}), plan: off, work: install},
		"own_plan_off":       {m: reached(machine.Machine{Plan: policy.Off}), plan: on, work: nothing, state: deploy.None, reason: deploy.PlanOff},
		"protection_off":     {m: reached(machine.Machine{}), plan: Plan{Tier: policy.P2}, work: nothing, state: deploy.None, reason: deploy.ProtectionOff},
		"excluded":           {m: reached(machine.Machine{Plan: policy.P2, Tags: []machine.Tag{{Key: "role", Value: "lab"}}}), plan: on, s: Settings{Exclude: []machine.Tag{{Key: "role", Value: "lab"}}}, work: nothing, state: deploy.NotApplicable, reason: deploy.Excluded},
		"excluded_any":       {m: reached(machine.Machine{OwnTags: []machine.Tag{{Key: "role", Value: "x"}}}), plan: on, s: Settings{Exclude: []machine.Tag{{Key: "role", Value: "*"}}}, work: nothing, state: deploy.NotApplicable, reason: deploy.Excluded},
		"other_tag":          {m: reached(machine.Machine{Tags: []machine.Tag{{Key: "role", Value: "web"}}}), plan: on, s: Settings{Exclude: []machine.Tag{{Key: "role", Value: "lab"}}}, work: install},
		"own_tag_wins":       {m: reached(machine.Machine{Tags: []machine.Tag{{Key: "role", Value: "lab"}}, OwnTags: []machine.Tag{{Key: "role", Value: "web"}}}), plan: on, s: Settings{Exclude: []machine.Tag{{Key: "role", Value: "lab"}}}, work: install},
		"windows":            {m: &machine.Machine{Connector: "way", System: "windows"}, plan: on, work: nothing, state: deploy.NotApplicable, reason: deploy.Windows},
		"stopped":            {m: reached(machine.Machine{Stopped: true}), plan: on, work: nothing, state: deploy.NotApplicable, reason: deploy.Stopped},
		"gone":               {m: reached(machine.Machine{Gone: true}), plan: on, work: nothing, state: deploy.None},
		"no_way":             {m: &machine.Machine{}, plan: on, work: nothing, state: deploy.Failed, reason: deploy.NoWay},
		"new_agent":          {m: &machine.Machine{Device: "d"}, plan: on, device: connected, work: verify},
		"protected":          {m: reached(machine.Machine{Extension: proven}), plan: on, device: connected, work: nothing, state: deploy.Succeeded},
		"rebooting":          {m: reached(machine.Machine{Extension: proven}), plan: on, device: rebooting, work: nothing, state: deploy.Succeeded},
		"away":               {m: reached(machine.Machine{Extension: proven}), plan: on, device: away, work: repair},
		"away_without_way":   {m: &machine.Machine{Extension: proven}, plan: on, device: away, work: nothing, state: deploy.Succeeded},
		"agent_removed":      {m: reached(machine.Machine{Extension: proven}), plan: on, device: silent, work: repair},
		"silent_without_way": {m: &machine.Machine{Extension: proven}, plan: on, device: silent, work: nothing, state: deploy.Failed, reason: deploy.NoReport},
		"offboarded":         {m: reached(machine.Machine{Offboarded: true, Extension: proven}), plan: on, device: connected, work: nothing, state: deploy.None, reason: deploy.Offboarded},
		"revoked_elsewhere":  {m: reached(machine.Machine{Extension: proven}), plan: on, device: &Device{ID: "d", Offboarded: true}, work: install},
		"protected_plan_off": {m: reached(machine.Machine{Extension: proven}), plan: off, device: connected, work: nothing, state: deploy.None, reason: deploy.PlanOff},
	} {
		d := decide(c.m, c.plan, c.s, c.device)
		reason := deploy.ReasonID("")
		if d.reason != nil {
			reason = d.reason.ID
		}
		if d.work != c.work || d.state != c.state || reason != c.reason {
			t.Errorf("%s: %s %s %s, want %s %s %s", name, d.work, d.state, reason, c.work, c.state, c.reason)
		}
	}
}

func TestWindow(t *testing.T) {
	at := func(text string) time.Time {
		v, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	night := &Window{Days: []string{"fri"}, Start: "22:00", Minutes: 240}
	tokyo := &Window{Start: "03:00", Minutes: 60, Timezone: "Asia/Tokyo"}
	for _, c := range []struct {
		w    *Window
		at   string
		open bool
	}{
		{night, "2026-11-27T21:59:59Z", false}, // a Friday
		{night, "2026-11-27T22:00:00Z", true},
		{night, "2026-11-28T01:59:59Z", true}, // belongs to the Friday
		{night, "2026-11-28T02:00:00Z", false},
		{night, "2026-11-28T22:30:00Z", false},
		{tokyo, "2026-11-26T18:30:00Z", true},
		{tokyo, "2026-11-26T03:30:00Z", false},
	} {
		if err := c.w.check(); err != nil {
			t.Fatal(err)
		}
		if got := c.w.Open(at(c.at)); got != c.open {
			t.Errorf("%+v at %s: %v", c.w, c.at, got)
		}
	}
	for _, bad := range []Window{{Start: "25:00", Minutes: 60}, {Start: "10:00"}, {Start: "10:00", Minutes: 60, Timezone: "Mars/Base"}, {Start: "10:00", Minutes: 60, Days: []string{"someday"}}} {
		if bad.check() == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}
