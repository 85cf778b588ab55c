package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Section groups settings the way people look for them.
type Section string

// The sections.
const (
	SectionAntivirus  Section = "antivirus"
	SectionExclusions Section = "exclusions"
	SectionEDR        Section = "edr"
)

// ValueKind says what the value of a setting looks like in JSON.
type ValueKind string

// The kinds of values.
const (
	KindBool       ValueKind = "bool"
	KindInt        ValueKind = "int"
	KindEnum       ValueKind = "enum"       // one of Values
	KindStrings    ValueKind = "strings"    // a list of text; of Values, where there are any
	KindActions    ValueKind = "actions"    // an object: threat type → one of Values
	KindSchedules  ValueKind = "schedules"  // a list of Schedule
	KindExclusions ValueKind = "exclusions" // a list of Exclusion
	KindTags       ValueKind = "tags"       // a list of Tag
)

// Setting describes one setting to forms, checks and documentation.
type Setting struct {
	Name    string    `json:"name"` // in JSON
	Section Section   `json:"section"`
	Kind    ValueKind `json:"kind"`
	Values  []string  `json:"values,omitempty"`
	Min     int       `json:"min,omitempty"`
	Max     int       `json:"max,omitempty"`
	Default any       `json:"default"`
	Engine  bool      `json:"engine"` // whether this version does something with it
	United  bool      `json:"united"` // whether the lists of all policies and of the device count together
	About   string    `json:"about"`  // English; the portal translates by Name
}

// catalogue is the one table of settings that policies can hold. What it does
// not name is set by the plan alone.
var catalogue = []Setting{
	{Name: "enforcementLevel", Section: SectionAntivirus, Kind: KindEnum, Values: []string{string(RealTime), string(OnDemand), string(Passive)}, Default: RealTime, Engine: true,
		About: "How far protection goes: files are blocked as they are opened, only found by scans and quarantined, or only found and reported."},
	{Name: "behaviorMonitoring", Section: SectionAntivirus, Kind: KindBool, Default: true, Engine: true,
		About: "Behaviour rules on the device raise alerts about what programs do."},
	{Name: "scanArchives", Section: SectionAntivirus, Kind: KindBool, Default: true, Engine: true,
		About: "Archives are opened and their members scanned."},
	{Name: "maximumOnDemandScanThreads", Section: SectionAntivirus, Kind: KindInt, Min: 1, Max: 64, Default: 2, Engine: true,
		About: "How many files a scan on request looks at in parallel."},
	{Name: "enableFileHashComputation", Section: SectionAntivirus, Kind: KindBool, Default: true, Engine: true,
		About: "Executables are hashed as they start, so that events carry their SHA-256."},
	{Name: "threatTypeSettings", Section: SectionAntivirus, Kind: KindActions, Values: []string{string(ActionBlock), string(ActionAudit), string(ActionOff)},
		Default: map[ThreatType]ThreatAction{ArchiveBomb: ActionAudit}, Engine: true,
		About: "What is done about archives that are made to exhaust whoever opens them."},
	{Name: "allowedThreats", Section: SectionAntivirus, Kind: KindStrings, Default: []string{}, Engine: true, United: true,
		About: "Names of threats that are reported and otherwise left alone."},
	{Name: "disallowedThreatActions", Section: SectionAntivirus, Kind: KindStrings, Values: []string{"allow", "restore"}, Default: []string{}, Engine: true,
		About: "What people on the device may not do about a threat: allow it, or restore it from quarantine."},
	{Name: "scanSchedule", Section: SectionAntivirus, Kind: KindSchedules, Default: []Schedule{}, Engine: true,
		About: "Scans that the device makes by itself, in its own local time."},
	{Name: "scanAfterDefinitionUpdate", Section: SectionAntivirus, Kind: KindBool, Default: false, Engine: true,
		About: "The device makes a quick scan when it has new definitions."},
	{Name: "scanResultsRetentionDays", Section: SectionAntivirus, Kind: KindInt, Min: 1, Max: 180, Default: 90, Engine: true,
		About: "For how many days quarantined files and the protection history are kept."},
	{Name: "scanHistoryMaximumItems", Section: SectionAntivirus, Kind: KindInt, Min: 100, Max: 15000, Default: 10000, Engine: true,
		About: "How many threats the protection history keeps at most."},
	{Name: "unmonitoredFilesystems", Section: SectionAntivirus, Kind: KindStrings, Default: []string{}, Engine: true,
		About: "Types of filesystems, like nfs or fuse, that real-time protection leaves alone."},
	{Name: "exclusions", Section: SectionExclusions, Kind: KindExclusions, Default: []Exclusion{}, Engine: true, United: true,
		About: "Files, folders, extensions and processes that protection leaves alone; with the global scope the sensor leaves them alone too."},
	{Name: "exclusionsAdminOnly", Section: SectionExclusions, Kind: KindBool, Default: false, Engine: true,
		About: "Exclusions that people have made on the device do not count."},
	{Name: "endpointDetection", Section: SectionEDR, Kind: KindBool, Default: true, Engine: true,
		About: "The sensor reports processes, connections and sensitive files."},
	{Name: "ebpfSupplementary", Section: SectionEDR, Kind: KindBool, Default: true, Engine: true,
		About: "The sensor uses eBPF; switched off it uses netlink and sees processes alone."},
	{Name: "tags", Section: SectionEDR, Kind: KindTags, Default: []Tag{}, Engine: true,
		About: "Labels of the device, for groups and filters."},
	{Name: "logLevel", Section: SectionEDR, Kind: KindEnum, Values: logLevels, Default: "info", Engine: true,
		About: "How much the agent writes to its log."},
	{Name: "telemetry", Section: SectionEDR, Kind: KindStrings, Values: TelemetryKinds, Default: TelemetryKinds, Engine: true,
		About: "Which kinds of events the device sends. Behaviour rules on the device see all of them, and an alert brings the events that led to it."},
	{Name: "fileIntegrityMonitoring", Section: SectionEDR, Kind: KindBool, Default: false,
		About: "Changes of system files are reported."},
}

// Catalogue returns every setting that a policy can hold, in the order in
// which forms show them. The caller may change the copy.
func Catalogue() []Setting { return append([]Setting(nil), catalogue...) }

// Names returns the JSON names of the settings that say something, sorted.
func (s *Settings) Names() []string {
	text, err := json.Marshal(s)
	if err != nil {
		return nil // plain data: cannot be
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(text, &fields); err != nil {
		return nil
	}
	return slices.Sorted(maps.Keys(fields))
}

// Unfit returns what a policy cannot hold of these settings: what this
// version has no engine for, and what the plan alone decides.
func (s *Settings) Unfit() error {
	var errs []error
	for _, name := range s.Names() {
		i := slices.IndexFunc(catalogue, func(c Setting) bool { return c.Name == name })
		switch {
		case i < 0:
			errs = append(errs, fmt.Errorf("%s cannot be set by a policy", name))
		case !catalogue[i].Engine:
			errs = append(errs, fmt.Errorf("%s is not available in this version", name))
		}
	}
	if _, ok := s.ThreatTypes[PUA]; ok {
		errs = append(errs, fmt.Errorf("threatTypeSettings: %s is not available in this version", PUA))
	}
	return errors.Join(errs...)
}
