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

// When clocks are set, a window opens once on its day, for as long as it says.
func TestWindowWhenClocksAreSet(t *testing.T) {
	for _, c := range []struct {
		zone, start string
		minutes     int
		days        []string
		opens       string // in UTC
		looks       string // two days before and after it are looked at
	}{
		// 00:00 to 01:00 is missing on Sunday, 8 March 2026; 01:00 is 05:00 in UTC.
		{"America/Havana", "00:00", 60, []string{"sun"}, "2026-03-08T05:00:00Z", "2026-03-08T05:00:00Z"},
		{"America/Havana", "00:45", 30, []string{"sun"}, "2026-03-08T05:00:00Z", "2026-03-08T05:00:00Z"},
		{"America/Havana", "01:00", 60, []string{"sun"}, "2026-03-08T05:00:00Z", "2026-03-08T05:00:00Z"},
		{"America/Havana", "23:00", 180, []string{"sat"}, "2026-03-08T04:00:00Z", "2026-03-08T05:00:00Z"},
		// 00:00 to 01:00 is missing on Sunday, 6 September 2026.
		{"America/Santiago", "00:15", 60, []string{"sun"}, "2026-09-06T04:00:00Z", "2026-09-06T04:00:00Z"},
		// The Saturday before lasts into the third day of the calendar.
		{"America/Santiago", "23:45", 1440, []string{"sat"}, "2026-09-06T03:45:00Z", "2026-09-06T04:00:00Z"},
		{"America/Santiago", "23:45", 1440, []string{"fri"}, "2026-09-05T03:45:00Z", "2026-09-05T04:00:00Z"},
		{"America/Santiago", "00:15", 1440, []string{"sun"}, "2026-09-06T04:00:00Z", "2026-09-06T04:00:00Z"},
		// 02:00 to 03:00 is missing on Sunday, 8 March 2026; 03:00 is 07:00 in UTC.
		{"America/New_York", "02:30", 60, []string{"sun"}, "2026-03-08T07:00:00Z", "2026-03-08T07:00:00Z"},
		{"America/New_York", "01:30", 60, []string{"sun"}, "2026-03-08T06:30:00Z", "2026-03-08T07:00:00Z"},
		{"America/New_York", "22:00", 480, []string{"sat"}, "2026-03-08T03:00:00Z", "2026-03-08T07:00:00Z"},
		// 02:00 to 03:00 is missing on Sunday, 29 March 2026; 03:00 is 01:00 in UTC.
		{"Europe/Berlin", "02:30", 60, []string{"sun"}, "2026-03-29T01:00:00Z", "2026-03-29T01:00:00Z"},
		// Half an hour is missing, from 02:00, on Sunday, 4 October 2026.
		{"Australia/Lord_Howe", "02:15", 30, []string{"sun"}, "2026-10-03T15:30:00Z", "2026-10-03T15:30:00Z"},
		// 01:00 to 02:00 is there twice on Sunday, 1 November 2026.
		{"America/New_York", "01:30", 60, []string{"sun"}, "2026-11-01T05:30:00Z", "2026-11-01T06:00:00Z"},
		{"America/New_York", "02:30", 60, []string{"sun"}, "2026-11-01T07:30:00Z", "2026-11-01T06:00:00Z"},
		{"America/New_York", "22:00", 480, []string{"sat"}, "2026-11-01T02:00:00Z", "2026-11-01T06:00:00Z"},
		// Nothing is set on this day.
		{"Asia/Tokyo", "22:00", 240, []string{"fri"}, "2026-11-27T13:00:00Z", "2026-11-27T13:00:00Z"},
	} {
		w := &Window{Days: c.days, Start: c.start, Minutes: c.minutes, Timezone: c.zone}
		if err := w.check(); err != nil {
			t.Fatal(err)
		}
		around, err := time.Parse(time.RFC3339, c.looks)
		if err != nil {
			t.Fatal(err)
		}
		var opened []string
		const quarter = 15 * time.Minute
		minutes, was := 0, false
		for at := around.AddDate(0, 0, -2); at.Before(around.AddDate(0, 0, 2)); at = at.Add(quarter) {
			open := w.Open(at)
			if open {
				minutes += 15
			}
			if open && !was {
				opened = append(opened, at.Format(time.RFC3339))
			}
			was = open
		}
		if len(opened) != 1 || opened[0] != c.opens || minutes != c.minutes {
			t.Errorf("%s %s for %d minutes opens at %v for %d minutes, want %s", c.zone, c.start, c.minutes, opened, minutes, c.opens)
		}
	}
}
