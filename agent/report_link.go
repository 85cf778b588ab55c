package agent

import (
	"fmt"
	"time"

	"komainu/agent/link"
	"komainu/fault"
	"komainu/health"
)

// clockLimit is how far this clock may be from the control plane's.
const clockLimit = 5 * time.Minute

const enrolAgain = "enrol again with a new join token: komainu enrol --force TOKEN"

// linkCondition says how the link to the control plane is.
func linkCondition(s link.State) health.Condition {
	c := health.Condition{Part: "link", State: health.OK, Since: s.Since.UTC(), Reason: s.Server}
	say := func(state health.State, code health.Code, remedy, format string, args ...any) health.Condition {
		c.State, c.Code, c.Reason, c.Remedy = state, code, fmt.Sprintf(format, args...), remedy
		if s.Error != nil {
			c.Detail = s.Error.Error()
		}
		return c
	}
	switch kind := fault.KindOf(s.Error); {
	case s.Connected && s.Skew.Abs() > clockLimit:
		off := s.Skew.Abs().Round(time.Second)
		c = say(health.Degraded, health.ClockOff, "set the clock right", "this machine's clock is %s away from the control plane's", off)
		c.Detail = off.String()
		return c
	case s.Connected:
		return c
	case !s.Enrolled:
		return say(health.Off, health.NotEnrolled, "", "this device is not enrolled")
	case s.Error == nil:
		c.Detail = s.Server
		return say(health.Starting, health.Connecting, "", "connecting to %s", s.Server)
	case kind == fault.Unauthentic, kind == fault.NotFound:
		return say(health.Failed, health.IdentityRefused, enrolAgain, "%v", s.Error)
	case kind == fault.Invalid:
		return say(health.Failed, health.IdentityDamaged, enrolAgain, "%v", s.Error)
	case kind == fault.Conflict:
		return say(health.Degraded, health.IdentityInUse, "if this host is a copy of another one, "+enrolAgain, "%v", s.Error)
	case kind == fault.Unsupported:
		return say(health.Degraded, health.VersionsDiffer, "upgrade the one that is too old; events are kept and sent later", "%v", s.Error)
	default:
		// Protection goes on and events wait in the spool: not the host's fault.
		return say(health.Starting, health.NoConnection, "events are kept and sent later; see komainu connectivity test", "no connection: %v", s.Error)
	}
}

// certificateCondition says whether the device's certificate will last.
func certificateCondition(s link.State, now time.Time) (c health.Condition, ok bool) {
	if !s.Enrolled || s.NotAfter.IsZero() {
		return c, false
	}
	now = now.Add(-s.Skew) // certificates are the control plane's, and so are their times
	until := s.NotAfter.UTC().Format(time.RFC3339)
	c = health.Condition{Part: "certificate", State: health.OK, Reason: "valid until " + until}
	switch {
	case now.After(s.NotAfter) && !s.Connected:
		c.State, c.Code, c.Detail = health.Degraded, health.CertificateExpired, until
		c.Reason, c.Remedy = "the certificate expired at "+until, "it is renewed when the control plane is reached, for up to 30 days; then "+enrolAgain
		if s.Renewal != nil {
			c.Reason += " and could not be renewed: " + s.Renewal.Error()
		}
	case s.Renewal != nil:
		c.State, c.Code, c.Detail = health.Degraded, health.RenewalFailed, s.Renewal.Error()
		c.Reason = "the certificate is valid until " + until + " and could not be renewed: " + s.Renewal.Error()
		c.Remedy = "it is tried again every few minutes; see the message, and komainu connectivity test"
	}
	return c, true
}
