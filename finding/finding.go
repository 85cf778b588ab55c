// Package finding is the vocabulary of what is suspected or proven: a verdict
// on a file, and a finding that somebody should see. The agent makes findings,
// the control plane turns them into alerts and incidents.
package finding

import (
	"fmt"
	"time"

	"komainu/event"
)

// ID identifies a finding for ever: a random UUID made by the agent. The same
// id is shown by `threat list`, names the quarantined object and keeps the
// control plane from making two alerts of one finding.
type ID string

// Severity of a finding or alert.
type Severity uint8

// The severities, in rising order.
const (
	Informational Severity = iota + 1
	Low
	Medium
	High
)

var severities = [...]string{Informational: "Informational", Low: "Low", Medium: "Medium", High: "High"}

// String returns the name that people and API clients see.
func (s Severity) String() string {
	if s >= Informational && s <= High {
		return severities[s]
	}
	return fmt.Sprintf("Severity(%d)", uint8(s))
}

// ParseSeverity is the inverse of String.
func ParseSeverity(s string) (Severity, error) {
	for i := Informational; i <= High; i++ {
		if severities[i] == s {
			return i, nil
		}
	}
	return 0, fmt.Errorf("severity %q: want Informational, Low, Medium or High", s)
}

// MarshalText makes severities travel by name.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (s *Severity) UnmarshalText(b []byte) error {
	v, err := ParseSeverity(string(b))
	if err != nil {
		return err
	}
	*s = v
	return nil
}

// Outcome is what a scan concluded about one file.
type Outcome string

// The outcomes. Only Clean may be cached as clean.
const (
	Clean           Outcome = "clean"
	Malicious       Outcome = "malicious"
	NotFullyScanned Outcome = "not_fully_scanned" // a limit was reached; nothing bad was seen up to it
	ScanFailed      Outcome = "failed"            // unreadable, or the scanner died on it
)

// Verdict is the result of scanning one file.
type Verdict struct {
	Outcome     Outcome
	Threat      ThreatName // set when Malicious
	Type        ThreatType
	Inside      string // member path within an archive, "" for the file itself
	Reason      string // why NotFullyScanned or ScanFailed
	Bomb        Bomb   // set when NotFullyScanned because the file is made to exhaust whoever unpacks it
	SHA256      string // lower-case hex, "" if the file was not read whole
	Size        int64  // bytes
	MediaType   string
	Definitions string // version of the definitions that decided
}

// Bomb is how an archive exhausts whoever unpacks it.
type Bomb string

// The kinds of archive bombs.
const (
	BombRatio Bomb = "ratio" // a little unpacks to very much
	BombSize  Bomb = "size"  // it unpacks to more than anybody has room for
	BombCount Bomb = "count" // it has more members than anybody can handle
	BombDepth Bomb = "depth" // archives within archives without an end
)

// ThreatName is a CARO name: Type:Platform/Family.Variant.
type ThreatName string

// ThreatType is the first part of a CARO name in lower case: "virus",
// "trojan", "behavior", "test".
type ThreatType string

// State is what became of a threat, as `threat list` shows it.
type State string

// The states.
const (
	Detected    State = "detected" // nothing was done: passive, watching, or not yet
	Blocked     State = "blocked"  // an open or exec was denied; the file is still there
	Quarantined State = "quarantined"
	Allowed     State = "allowed"
	Restored    State = "restored"
	Removed     State = "removed"
	Failed      State = "failed" // an action was tried and did not succeed
)

// Category groups alerts by what an attacker would want; the names are those
// of the portal that people know.
type Category string

// The categories in use.
const (
	CategoryMalware             Category = "Malware"
	CategoryExecution           Category = "Execution"
	CategoryPersistence         Category = "Persistence"
	CategoryPrivilegeEscalation Category = "PrivilegeEscalation"
	CategoryDefenseEvasion      Category = "DefenseEvasion"
	CategoryCredentialAccess    Category = "CredentialAccess"
	CategoryDiscovery           Category = "Discovery"
	CategoryCollection          Category = "Collection"
	CategoryCommandAndControl   Category = "CommandAndControl"
	CategorySuspiciousActivity  Category = "SuspiciousActivity"
)

// DetectionSource says which part of the product saw it.
type DetectionSource string

// The detection sources.
const (
	SourceAntivirus DetectionSource = "Antivirus"
	SourceBehavior  DetectionSource = "Behavior"
)

// Finding is something suspicious with the evidence for it.
type Finding struct {
	ID         ID
	Device     event.DeviceID
	Time       time.Time // when it was found
	Title      string    // what the alert is called; does not hold secrets
	Severity   Severity
	Category   Category
	Techniques []string // ATT&CK ids, "T1552.001"
	Source     DetectionSource
	Rule       Rule
	Threat     *event.Threat // for antivirus findings
	State      State
	Summary    string // one or two sentences: what happened, to what, what was done

	// Evidence lists what was involved; the first entry is the main one.
	Evidence []Evidence
	// Tree holds the acting process and its ancestors, nearest first, and
	// further processes of the same tree that took part.
	Tree []event.Process
	// Events are the events that led to it, in order, at most 100.
	Events []event.Event
	// Test marks a self-test of the product, kept out of incidents.
	Test bool
}

// Rule names what decided.
type Rule struct {
	ID      string // stable id of the rule or the signature
	Name    string
	Version string // of the rule pack or the definitions
}

// Role of a piece of evidence.
type Role string

// The roles.
const (
	Impacted Role = "Impacted"
	Related  Role = "Related"
)

// Evidence is an entity that took part: exactly one of the pointers is set.
type Evidence struct {
	Role    Role
	Verdict string // "Malicious", "Suspicious", "NoThreatsFound", "Unknown"
	State   string // remediation: "Prevented", "Remediated", "Active", "NotFound"
	File    *event.File
	Process *event.Process
	User    *event.User
	Network *event.Network
}
