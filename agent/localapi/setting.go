package localapi

import (
	"slices"
	"strconv"
	"strings"

	"komainu/fault"
	"komainu/policy"
)

// Setting is a setting by the name that `config` knows it by.
type Setting string

// The settings.
const (
	RealTimeProtection  Setting = "real-time-protection"
	PassiveMode         Setting = "passive-mode"
	BehaviorMonitoring  Setting = "behavior-monitoring"
	ScanArchives        Setting = "scan-archives"
	OnDemandScanThreads Setting = "maximum-on-demand-scan-threads"
	FileHashComputation Setting = "enable-file-hash-computation"
	EBPFSupplementary   Setting = "ebpf-supplementary-event-provider"
	ScanAfterUpdate     Setting = "scan-after-definition-update"
)

// Settings that other commands than `config` change.
const (
	LogLevel        Setting = "log-level" // that lasts, unlike Settings.SetLogLevel
	ProxyAddress    Setting = "proxy"     // http://host:port, "" for none
	ArchiveBombs    Setting = "threat-policy-archive-bomb"
	UnwantedProgram Setting = "threat-policy-potentially-unwanted-application"
)

// ThreatPolicy returns the setting of what is done about a threat type.
func ThreatPolicy(t policy.ThreatType) Setting {
	if t == policy.PUA {
		return UnwantedProgram
	}
	return ArchiveBombs
}

// AllSettings names every setting of `config`, in the order that help shows.
var AllSettings = []Setting{
	RealTimeProtection, PassiveMode, BehaviorMonitoring, ScanArchives,
	OnDemandScanThreads, FileHashComputation, EBPFSupplementary, ScanAfterUpdate,
}

// Key returns the JSON name of the setting in policy.Settings: what
// policy.Effective.Managed and Origins go by. It is "" for an unknown one.
func (s Setting) Key() string {
	switch s {
	case RealTimeProtection, PassiveMode:
		return "enforcementLevel"
	case BehaviorMonitoring:
		return "behaviorMonitoring"
	case ScanArchives:
		return "scanArchives"
	case OnDemandScanThreads:
		return "maximumOnDemandScanThreads"
	case FileHashComputation:
		return "enableFileHashComputation"
	case EBPFSupplementary:
		return "ebpfSupplementary"
	case ScanAfterUpdate:
		return "scanAfterDefinitionUpdate"
	case LogLevel:
		return "logLevel"
	case ProxyAddress:
		return "proxy"
	case ArchiveBombs:
		return "threatTypeSettings." + string(policy.ArchiveBomb)
	case UnwantedProgram:
		return "threatTypeSettings." + string(policy.PUA)
	}
	return ""
}

// Values says what the setting takes, for usage messages.
func (s Setting) Values() string {
	if s == OnDemandScanThreads {
		return "1..64"
	}
	return "enabled|disabled"
}

// Check returns fault.Invalid, saying what is allowed, for a setting or a
// value that does not exist.
func (s Setting) Check(value string) error {
	_, err := s.Patch(policy.Effective{}, value)
	return err
}

// Patch returns what to lay over the local settings so that this one has the
// value, given what is in effect now. Real-time protection and passive mode
// are one scale, the enforcement level: switching the one on switches the
// other off; passive mode off means real-time protection, as it does for
// those who type it; and switching off what is not on changes nothing.
func (s Setting) Patch(now policy.Effective, value string) (policy.Settings, error) {
	if s.Key() == "" {
		return policy.Settings{}, fault.New(fault.Invalid, "there is no setting %q", string(s))
	}
	var p policy.Settings
	switch s {
	case OnDemandScanThreads:
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 || n > 64 {
			return p, fault.New(fault.Invalid, "the value of %s is a number from 1 to 64, not %q", s, value)
		}
		p.OnDemandScanThreads = &n
		return p, nil
	case LogLevel:
		if !slices.Contains(LogLevels, value) {
			return p, fault.New(fault.Invalid, "the log level is one of %s, not %q", strings.Join(LogLevels, ", "), value)
		}
		p.LogLevel = &value
		return p, nil
	case ProxyAddress:
		if _, err := policy.ProxyAddress(value); err != nil {
			return p, fault.New(fault.Invalid, "%w", err)
		}
		p.Proxy = &value
		return p, nil
	case ArchiveBombs, UnwantedProgram:
		return s.threatPolicy(policy.ThreatAction(value))
	}
	if value != "enabled" && value != "disabled" {
		return p, fault.New(fault.Invalid, "the value of %s is enabled or disabled, not %q", s, value)
	}
	on := value == "enabled"
	switch s {
	case RealTimeProtection:
		p.EnforcementLevel = new(level(on, policy.RealTime, policy.OnDemand, now.EnforcementLevel))
	case PassiveMode:
		p.EnforcementLevel = new(level(on, policy.Passive, policy.RealTime, now.EnforcementLevel))
	case BehaviorMonitoring:
		p.BehaviorMonitoring = &on
	case ScanArchives:
		p.ScanArchives = &on
	case FileHashComputation:
		p.FileHashComputation = &on
	case EBPFSupplementary:
		p.SupplementaryProvider = &on
	case ScanAfterUpdate:
		p.ScanAfterUpdate = &on
	}
	return p, nil
}

func (s Setting) threatPolicy(a policy.ThreatAction) (policy.Settings, error) {
	switch {
	case !slices.Contains(ThreatActions, string(a)):
		return policy.Settings{}, fault.New(fault.Invalid, "the action is one of %s, not %q", strings.Join(ThreatActions, ", "), string(a))
	case s == UnwantedProgram:
		return policy.Settings{}, fault.New(fault.Unsupported, "nothing was changed: this version does not look for potentially unwanted applications")
	}
	return policy.Settings{ThreatTypes: map[policy.ThreatType]policy.ThreatAction{policy.ArchiveBomb: a}}, nil
}

// ThreatActions are what can be done about a threat type.
var ThreatActions = []string{string(policy.ActionBlock), string(policy.ActionAudit), string(policy.ActionOff)}

// level returns the enforcement level after the level self is switched on or
// off: other is what comes in its place, and only if self was in effect.
func level(on bool, self, other, now policy.Level) policy.Level {
	switch {
	case on:
		return self
	case now == self || now == "":
		return other
	default:
		return now
	}
}
