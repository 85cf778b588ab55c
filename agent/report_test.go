package agent

import (
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"komainu/agent/link"
	"komainu/event"
	"komainu/fault"
	"komainu/health"
	"komainu/policy"
)

func discard() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func TestLinkCondition(t *testing.T) {
	enrolled := func(s link.State) link.State {
		s.Enrolled, s.Server = true, "https://control"
		return s
	}
	for name, c := range map[string]struct {
		state  link.State
		want   health.State
		code   health.Code
		remedy string
	}{
		"connected":         {enrolled(link.State{Connected: true}), health.OK, "", ""},
		"clock off":         {enrolled(link.State{Connected: true, Skew: 48 * time.Hour}), health.Degraded, health.ClockOff, "clock"},
		"clock behind":      {enrolled(link.State{Connected: true, Skew: -48 * time.Hour}), health.Degraded, health.ClockOff, "clock"},
		"not enrolled":      {link.State{}, health.Off, health.NotEnrolled, ""},
		"first try":         {enrolled(link.State{}), health.Starting, health.Connecting, ""},
		"unreachable":       {enrolled(link.State{Error: fault.New(fault.Unavailable, "no route")}), health.Starting, health.NoConnection, "connectivity test"},
		"refused":           {enrolled(link.State{Error: fault.New(fault.Unauthentic, "offboarded")}), health.Failed, health.IdentityRefused, "enrol --force"},
		"forgotten":         {enrolled(link.State{Error: fault.New(fault.NotFound, "no such device")}), health.Failed, health.IdentityRefused, "enrol --force"},
		"damaged":           {enrolled(link.State{Error: fault.New(fault.Invalid, "identity.json is damaged")}), health.Failed, health.IdentityDamaged, "enrol --force"},
		"copy of a host":    {enrolled(link.State{Error: fault.New(fault.Conflict, "another connection has taken over")}), health.Degraded, health.IdentityInUse, "copy"},
		"versions":          {enrolled(link.State{Error: fault.New(fault.Unsupported, "the control plane speaks protocol 0")}), health.Degraded, health.VersionsDiffer, "upgrade"},
		"something unknown": {enrolled(link.State{Error: errors.New("odd")}), health.Starting, health.NoConnection, "connectivity test"},
	} {
		got := linkCondition(c.state)
		if got.State != c.want || got.Code != c.code || !strings.Contains(got.Remedy, c.remedy) {
			t.Errorf("%s: %+v", name, got)
		}
		if c.state.Error != nil && (!strings.Contains(got.Reason, c.state.Error.Error()) || got.Detail != c.state.Error.Error()) {
			t.Errorf("%s: does not tell the reason: %+v", name, got)
		}
		if got.Code != "" && !slices.Contains(health.Codes(), got.Code) {
			t.Errorf("%s: %q is no code", name, got.Code)
		}
	}
}

func TestCertificateCondition(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	good := link.State{Enrolled: true, Connected: true, NotAfter: now.Add(24 * time.Hour)}
	for name, c := range map[string]struct {
		edit   func(*link.State)
		want   health.State
		code   health.Code
		reason string
	}{
		"good":        {func(*link.State) {}, health.OK, "", "valid until 2026-05-02"},
		"not renewed": {func(s *link.State) { s.Renewal = errors.New("no disk") }, health.Degraded, health.RenewalFailed, "no disk"},
		"expired":     {func(s *link.State) { s.Connected, s.NotAfter = false, now.Add(-time.Hour) }, health.Degraded, health.CertificateExpired, "expired at"},
		"expired, not renewed": {func(s *link.State) {
			s.Connected, s.NotAfter, s.Renewal = false, now.Add(-time.Hour), errors.New("no disk")
		}, health.Degraded, health.CertificateExpired, "no disk"},
		"only this clock is off": {func(s *link.State) { s.Connected, s.Skew = false, 48*time.Hour }, health.OK, "", "valid"},
	} {
		s := good
		c.edit(&s)
		at := now
		if s.Skew != 0 {
			at = now.Add(s.Skew)
		}
		if got, ok := certificateCondition(s, at); !ok || got.State != c.want || got.Code != c.code || !strings.Contains(got.Reason, c.reason) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if _, ok := certificateCondition(link.State{NotAfter: now}, now); ok {
		t.Error("a device that is not enrolled has a certificate")
	}
}

func TestSensorFilter(t *testing.T) {
	var f sensorFilter
	if f.Excludes(&event.Event{Action: event.ProcessCreated, Process: &event.Process{Path: "/opt/backup"}}) {
		t.Error("excluded without exclusions")
	}
	f.settingsChanged(policy.Effective{Exclusions: []policy.Exclusion{
		{Type: policy.ExcludeProcess, Value: "/opt/backup", Scope: policy.ScopeGlobal},
		{Type: policy.ExcludeFolder, Value: "/srv/cache", Scope: policy.ScopeGlobal},
		{Type: policy.ExcludeFolder, Value: "/srv/seen", Scope: policy.ScopeEPP},
		{Type: policy.ExcludeProcess, Value: "/usr/bin/seen", Scope: policy.ScopeEPP},
	}})
	backup, shell, cached := &event.Process{Path: "/opt/backup"}, &event.Process{Path: "/bin/sh"}, &event.Process{Path: "/srv/cache/tool"}
	for name, c := range map[string]struct {
		event event.Event
		want  bool
	}{
		"its start":                           {event.Event{Action: event.ProcessCreated, Process: backup, Initiator: shell}, true},
		"what it starts":                      {event.Event{Action: event.ProcessCreated, Process: shell, Initiator: backup}, false},
		"a start in the folder":               {event.Event{Action: event.ProcessCreated, Process: cached, Initiator: shell}, true},
		"its connection":                      {event.Event{Action: event.ConnectionSuccess, Initiator: backup}, true},
		"another's connection":                {event.Event{Action: event.ConnectionSuccess, Initiator: shell}, false},
		"a tool of the folder on the network": {event.Event{Action: event.ConnectionSuccess, Initiator: cached}, false},
		"a file that it reads":                {event.Event{Action: event.SensitiveFileRead, Initiator: backup, File: &event.File{Path: "/root/.ssh/id_rsa"}}, true},
		"a file of the folder":                {event.Event{Action: event.SensitiveFileRead, Initiator: shell, File: &event.File{Path: "/srv/cache/.env"}}, true},
		"a file beside":                       {event.Event{Action: event.SensitiveFileRead, Initiator: shell, File: &event.File{Path: "/srv/cache2/.env"}}, false},
		"the other scope, file":               {event.Event{Action: event.SensitiveFileRead, Initiator: shell, File: &event.File{Path: "/srv/seen/.env"}}, false},
		"the other scope, process":            {event.Event{Action: event.ProcessCreated, Process: &event.Process{Path: "/usr/bin/seen"}}, false},
		"losses":                              {event.Event{Action: event.EventsLost, Loss: &event.Loss{Count: 1}}, false},
	} {
		if got := f.Excludes(&c.event); got != c.want {
			t.Errorf("%s: excluded %v", name, got)
		}
	}
	if f.left.Load() != 5 {
		t.Errorf("%d events counted as left out", f.left.Load())
	}
}

func TestVerdictsRestOnTheseSettings(t *testing.T) {
	base := policy.Merge(nil, policy.Settings{})
	for name, edit := range map[string]func(*policy.Effective){
		"archives":   func(e *policy.Effective) { e.ScanArchives = !e.ScanArchives },
		"allowed":    func(e *policy.Effective) { e.AllowedThreats = []string{"x"} },
		"exclusions": func(e *policy.Effective) { e.Exclusions = []policy.Exclusion{{Type: policy.ExcludeFile, Value: "/x"}} },
	} {
		changed := base
		edit(&changed)
		if judgedByOf(base).same(judgedByOf(changed)) {
			t.Errorf("%s: what was judged before is believed", name)
		}
	}
	if !judgedByOf(base).same(judgedByOf(policy.Merge(nil, policy.Settings{}))) {
		t.Error("nothing has changed, and all is forgotten")
	}
}
