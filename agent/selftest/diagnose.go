package selftest

import (
	"fmt"
	"path/filepath"
	"time"

	"komainu/drill"
	"komainu/finding"
	"komainu/policy"
)

// Facts are what is known of the agent when a stage does not come.
type Facts struct {
	Settings       policy.Effective
	RealTime       error // why there is no real-time protection, nil when there is
	Scanner        string
	ScannerUp      bool
	Sensor         bool   // a sensor runs
	SensorProblem  string // what it lacks or why it does not run
	SensitiveFiles bool   // opens of files with secrets are seen
	WatchProblem   string
	Enrolled       bool
	Connected      bool
	LinkSince      time.Time // of the connection or of its loss
	LinkError      error
	Refused        bool          // the control plane does not want this device
	Skew           time.Duration // this clock minus the control plane's
	Protocol       int           // that the control plane speaks, 0 when not known
	Waiting        uint64        // records in the spools
	Answered       bool          // the control plane has answered this run
}

// tested is the first protocol whose control planes know of detection tests.
const tested = 2

// clockLimit is how far clocks may be apart.
const clockLimit = 5 * time.Minute

// exclusion returns what keeps a file out of real-time protection.
func (f Facts) exclusion(file string) (policy.Exclusion, bool) {
	return policy.NewMatcher(f.Settings.Exclusions, policy.ScopeEPP, policy.ScopeGlobal).Match(file, "")
}

// Diagnose says why a stage does not come for a file in a place, from what is
// known of the agent. The answer is Unknown, or that the control plane is
// behind, only when nothing is known that would prevent it.
func Diagnose(s drill.Scenario, stage drill.StageID, file string, place Place, f Facts) drill.Reason {
	switch stage {
	case drill.Kernel, drill.Agent:
		if r, known := licence(f); known {
			return r
		}
		if s.Behavior {
			return behavior(s, f)
		}
		return antivirus(s, file, place, f)
	case drill.Sent, drill.Received:
		if r, known := link(f); known {
			return r
		}
		if stage == drill.Sent {
			return drill.Reason{ID: drill.SpoolBehind, Text: fmt.Sprintf("the finding waits behind others; %d records are to be sent", f.Waiting),
				Remedy: "wait until the backlog is sent; the finding is kept", Detail: fmt.Sprint(f.Waiting)}
		}
	default:
		if r, known := link(f); known {
			return r
		}
		if f.Protocol < tested {
			return drill.Reason{ID: drill.ControlPlaneOld, Text: "the control plane is older than this agent and cannot tell what became of the finding",
				Remedy: "upgrade the control plane, or look for the alert in the portal"}
		}
	}
	r := drill.Reason{ID: drill.ControlPlaneBehind, Text: "the control plane has not got to it yet", Remedy: "look at its health (/readyz) and its log; what was sent is kept and comes later"}
	if f.Skew.Abs() > clockLimit {
		r = clockOff(f.Skew)
	}
	return r
}

func licence(f Facts) (drill.Reason, bool) {
	switch {
	case !f.Enrolled:
		return drill.Reason{ID: drill.NotEnrolled, Text: "this device is not enrolled, so no plan protects it", Remedy: "run: komainu enrol TOKEN, with a join token from the portal"}, true
	case f.Settings.Version == 0:
		return drill.Reason{ID: drill.NoPolicy, Text: "no policy has arrived from the control plane yet", Remedy: "run: komainu connectivity test"}, true
	case !f.Settings.Licensed:
		return drill.Reason{ID: drill.PlanOff, Text: "the Servers plan of this device's environment is off", Remedy: "switch it on in the portal, environment settings"}, true
	default:
		return drill.Reason{}, false
	}
}

func antivirus(s drill.Scenario, file string, place Place, f Facts) drill.Reason {
	if x, ok := f.exclusion(file); ok {
		return excluded(x)
	}
	level := f.Settings.EnforcementLevel
	switch {
	case f.RealTime != nil:
		return drill.Reason{ID: drill.RealTimeMissing, Text: "this host has no real-time protection: " + f.RealTime.Error(), Remedy: "run the agent as root on Linux", Detail: f.RealTime.Error()}
	case level != policy.RealTime:
		remedy := "run: komainu config real-time-protection --value enabled"
		if f.Settings.Managed("enforcementLevel") {
			remedy = "set the enforcement level to real_time in the policy, in the portal"
		}
		return drill.Reason{ID: drill.RealTimeOff, Text: "real-time protection is off: the enforcement level is " + string(level), Remedy: remedy, Detail: string(level)}
	case place.Mode != policy.Block && place.Mode != policy.Watch:
		where := place.Mount
		if where == "" {
			where = filepath.Dir(file)
		}
		return drill.Reason{ID: drill.NotProtected, Text: "policy does not protect the filesystem at " + where, Remedy: "add it to the filesystems in the policy, or run the test in another folder with --folder", Detail: where}
	case !place.Marked:
		return drill.Reason{ID: drill.Marking, Text: "the kernel does not report opens at " + place.Mount + " yet", Remedy: "wait a few seconds; if it stays so, komainu health --details says why", Detail: place.Mount}
	case !f.ScannerUp:
		return drill.Reason{ID: drill.ScannerDown, Text: "the scanner does not run: " + f.Scanner, Remedy: "look at the agent's log", Detail: f.Scanner}
	case s.ID == archiveTest && !f.Settings.ScanArchives:
		return drill.Reason{ID: drill.ArchivesOff, Text: "archives are not looked into", Remedy: "run: komainu config scan-archives --value enabled, or set it in the policy"}
	default:
		return unknown()
	}
}

func behavior(s drill.Scenario, f Facts) drill.Reason {
	switch {
	case !f.Settings.EndpointDetection:
		return drill.Reason{ID: drill.DetectionOff, Text: "endpoint detection is off, so no sensor runs", Remedy: "switch endpoint detection on in the settings of the plan"}
	case !f.Sensor:
		return drill.Reason{ID: drill.SensorDown, Text: "no sensor runs: " + f.SensorProblem, Remedy: "run the agent as root; komainu health --details says more", Detail: f.SensorProblem}
	case !f.Settings.BehaviorMonitoring:
		return drill.Reason{ID: drill.BehaviorOff, Text: "behaviour monitoring is off: the rule found it, and nothing was told", Remedy: "run: komainu config behavior-monitoring --value enabled, or set it in the policy"}
	case s.ID != behaviorTest && !f.SensitiveFiles:
		return drill.Reason{ID: drill.SensorLacks, Text: "the sensor on this host does not see who opens files with secrets: " + f.WatchProblem, Remedy: "run the test behavior, which does not need it; docs/sensor.md lists what each kernel gives", Detail: f.WatchProblem}
	case f.SensorProblem != "":
		return drill.Reason{ID: drill.SensorLacks, Text: "the sensor on this host sees less than all: " + f.SensorProblem, Remedy: "komainu health --details says what it takes", Detail: f.SensorProblem}
	default:
		return unknown()
	}
}

func link(f Facts) (drill.Reason, bool) {
	switch {
	case f.Connected:
		return drill.Reason{}, false
	case f.Refused:
		return drill.Reason{ID: drill.IdentityRefused, Text: "the control plane refuses this device: " + text(f.LinkError), Remedy: "enrol again with a new join token: komainu enrol --force TOKEN", Detail: text(f.LinkError)}, true
	case f.Skew.Abs() > clockLimit:
		return clockOff(f.Skew), true
	default:
		since := f.LinkSince.UTC().Format(time.RFC3339)
		detail := "since " + since
		if f.LinkError != nil {
			detail += ": " + f.LinkError.Error()
		}
		return drill.Reason{ID: drill.LinkDown, Text: "there is no connection to the control plane, " + detail, Remedy: "run: komainu connectivity test; the finding is kept and sent when the connection is back", Detail: detail}, true
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func clockOff(skew time.Duration) drill.Reason {
	by := skew.Abs().Round(time.Second).String()
	return drill.Reason{ID: drill.ClockOff, Text: "this machine's clock is " + by + " away from the control plane's, so what happens here shows up at another time", Remedy: "set the clock right", Detail: by}
}

func excluded(x policy.Exclusion) drill.Reason {
	detail := fmt.Sprintf("%s %s (scope %s)", x.Type, x.Value, x.Scope)
	return drill.Reason{ID: drill.Excluded, Text: "an exclusion keeps it out of protection: " + detail, Remedy: "remove the exclusion, or run the test in another folder with --folder", Detail: detail}
}

func watchOnly(p Place) drill.Reason {
	return drill.Reason{ID: drill.WatchOnly, Text: "the filesystem at " + p.Mount + " is only watched: malware is reported there, not blocked", Remedy: "set its mode to block in the policy", Detail: p.Mount}
}

func unknown() drill.Reason {
	return drill.Reason{ID: drill.Unknown, Text: "nothing is known that would prevent it", Remedy: "make a diagnostic archive with komainu diagnostic create, and report it"}
}

// warnings are what should be mended although everything has arrived.
func warnings(s drill.Scenario, f Facts, verdict finding.State, place Place) []drill.Reason {
	var list []drill.Reason
	if !s.Behavior && verdict == finding.Detected && place.Mode == policy.Watch {
		list = append(list, watchOnly(place))
	}
	if verdict == finding.Allowed {
		list = append(list, drill.Reason{ID: drill.ThreatAllowed, Text: "the threat is on the list of allowed threats, so nothing was done about it", Remedy: "take it off the list: komainu threat allowed remove"})
	}
	if f.Skew.Abs() > clockLimit {
		list = append(list, clockOff(f.Skew))
	}
	return list
}
