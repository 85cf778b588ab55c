// Package policy is the document that says how a device is to be protected.
//
// The control plane composes a Document per device, signs the exact bytes
// that travel (Sign), and the agent applies it whole or not at all (Open,
// then Document.Validate). Settings that the document names are managed: they
// cannot be changed on the device. Everything else follows the device's local
// settings, and then the defaults; Merge says where each value came from.
//
// The package depends on the standard library alone and keeps no state.
package policy

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"
)

// Format is the version of the document's shape that this code writes. An
// agent refuses a document with a greater one and keeps the policy it has.
const Format = 1

// Tier is a plan's tier.
type Tier string

// The tiers.
const (
	Off Tier = "off"
	P1  Tier = "P1"
	P2  Tier = "P2"
)

// Document is the policy of one device.
type Document struct {
	Format       int       `json:"format"`
	Version      uint64    `json:"version"` // rises with every change for this device; an agent refuses a lower one
	Organization string    `json:"organization"`
	Environment  string    `json:"environment"`
	Device       string    `json:"device"`
	IssuedAt     time.Time `json:"issuedAt"`

	Plan     Tier `json:"plan"`
	Licensed bool `json:"licensed"` // false: protection and telemetry stop, nothing is deleted

	Managed Settings `json:"managed"`
	// Sources says, by the JSON name of a managed setting, who set it: what
	// people on the device are told who want to change it.
	Sources map[string][]Source `json:"sources,omitempty"`
}

// Source is who set a managed setting.
type Source struct {
	Kind string `json:"kind"` // SourcePolicy, SourcePlan
	Name string `json:"name,omitempty"`
}

// The kinds of sources.
const (
	SourcePolicy = "policy"
	SourcePlan   = "plan"
)

// MaxSources bounds the sources that a document names of one setting.
const MaxSources = 8

// Level is how far the antivirus goes.
type Level string

// The enforcement levels.
const (
	RealTime Level = "real_time" // on-access scan, block, quarantine
	OnDemand Level = "on_demand" // scans on request, remediates what they find
	Passive  Level = "passive"   // scans on request, remediates nothing
)

// Mode is what real-time protection does on a filesystem.
type Mode string

// The modes.
const (
	Block  Mode = "block"  // deny opens of malware, quarantine it
	Watch  Mode = "watch"  // scan what is written or executed, report, change nothing
	Ignore Mode = "ignore" // not looked at
)

// FilesystemRule gives the mode of the filesystems mounted at or below a
// path. The longest matching Path wins; "*" matches every local filesystem
// and is the shortest of all.
type FilesystemRule struct {
	Path string `json:"path"`
	Mode Mode   `json:"mode"`
}

// ExclusionType says what an exclusion compares.
type ExclusionType string

// The exclusion types.
const (
	ExcludeFile      ExclusionType = "file"      // Value is an absolute path; * and ? match within a segment
	ExcludeFolder    ExclusionType = "folder"    // Value is an absolute path; everything below it
	ExcludeExtension ExclusionType = "extension" // Value is ".ext"
	ExcludeProcess   ExclusionType = "process"   // Value is an absolute path or a bare name; files that it opens
)

// Scope says what an exclusion holds back.
type Scope string

// The scopes.
const (
	ScopeEPP    Scope = "epp"    // scans and real-time protection; the sensor still sees
	ScopeGlobal Scope = "global" // the sensor too
)

// Exclusion keeps something out of protection.
type Exclusion struct {
	Type  ExclusionType `json:"type"`
	Value string        `json:"value"`
	Scope Scope         `json:"scope"`
}

// Settings are the values that policy or a local administrator can set. A nil
// pointer or slice says nothing.
type Settings struct {
	EnforcementLevel      *Level           `json:"enforcementLevel,omitempty"`
	Filesystems           []FilesystemRule `json:"filesystems,omitempty"`
	BehaviorMonitoring    *bool            `json:"behaviorMonitoring,omitempty"`
	ScanArchives          *bool            `json:"scanArchives,omitempty"`
	OnDemandScanThreads   *int             `json:"maximumOnDemandScanThreads,omitempty"`
	FileHashComputation   *bool            `json:"enableFileHashComputation,omitempty"`
	ScanAfterUpdate       *bool            `json:"scanAfterDefinitionUpdate,omitempty"`
	QuarantineRetention   *int             `json:"scanResultsRetentionDays,omitempty"` // days
	Exclusions            []Exclusion      `json:"exclusions,omitempty"`
	ExclusionsAdminOnly   *bool            `json:"exclusionsAdminOnly,omitempty"` // local exclusions do not count
	AllowedThreats        []string         `json:"allowedThreats,omitempty"`
	EndpointDetection     *bool            `json:"endpointDetection,omitempty"`       // the sensor and its rules
	SupplementaryProvider *bool            `json:"ebpfSupplementary,omitempty"`       // false: netlink instead of eBPF
	Tags                  []Tag            `json:"tags,omitempty"`                    // shown as edr_device_tags
	Telemetry             []string         `json:"telemetry,omitempty"`               // kinds of events that are sent, of TelemetryKinds
	FileIntegrity         *bool            `json:"fileIntegrityMonitoring,omitempty"` // no engine in this version

	ThreatTypes             map[ThreatType]ThreatAction `json:"threatTypeSettings,omitempty"`
	DisallowedThreatActions []string                    `json:"disallowedThreatActions,omitempty"` // allow, restore: what people on the device may not do
	ScanSchedule            []Schedule                  `json:"scanSchedule,omitempty"`
	ScanHistory             *int                        `json:"scanHistoryMaximumItems,omitempty"` // threats that the protection history keeps
	UnmonitoredFilesystems  []string                    `json:"unmonitoredFilesystems,omitempty"`  // types, like nfs, that real-time protection leaves alone
	LogLevel                *string                     `json:"logLevel,omitempty"`

	// Proxy belongs to the device alone: a policy that named a wrong one could
	// not be taken back.
	Proxy *string `json:"proxy,omitempty"`
}

// ThreatType is a kind of find that is less than malware.
type ThreatType string

// The threat types.
const (
	PUA         ThreatType = "potentially_unwanted_application"
	ArchiveBomb ThreatType = "archive_bomb"
)

// ThreatAction is what is done about a threat type.
type ThreatAction string

// The actions.
const (
	ActionBlock ThreatAction = "block" // treated like malware
	ActionAudit ThreatAction = "audit" // reported, nothing else
	ActionOff   ThreatAction = "off"   // not looked for
)

// Schedule is a scan that the device makes by itself. Times are the device's
// local time; a scan that was missed is made once when the device is back. It
// gives way to everything else, as every scan on request does.
type Schedule struct {
	Kind      string   `json:"kind"`                       // quick, full, custom
	Path      string   `json:"path,omitempty"`             // of a custom scan
	Days      []string `json:"days,omitempty"`             // mon, tue, wed, thu, fri, sat, sun; none: every day
	At        string   `json:"at"`                         // HH:MM
	Randomize int      `json:"randomizeMinutes,omitempty"` // up to so many minutes later
}

// Weekdays are the names of days in a schedule, Sunday first as in package
// time.
var Weekdays = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// Tag is a label of a device, as `edr tag` sets it.
type Tag struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Origin says where an effective value came from.
type Origin string

// The origins, weakest first.
const (
	FromDefault Origin = "default"
	FromLocal   Origin = "local"
	FromPolicy  Origin = "policy" // shown as [managed]
)

// Effective is what a device does: every setting with a value.
type Effective struct {
	Version             uint64 // of the document, 0 before the first one
	Plan                Tier
	Licensed            bool
	EnforcementLevel    Level
	Filesystems         []FilesystemRule
	BehaviorMonitoring  bool
	ScanArchives        bool
	OnDemandScanThreads int
	FileHashComputation bool
	ScanAfterUpdate     bool
	QuarantineRetention int // days
	Exclusions          []Exclusion
	ExclusionsAdminOnly bool // local exclusions do not count
	AllowedThreats      []string
	EndpointDetection   bool
	EBPF                bool
	Tags                []Tag

	ThreatTypes             map[ThreatType]ThreatAction // every type has an action
	DisallowedThreatActions []string
	ScanSchedule            []Schedule
	ScanHistory             int
	UnmonitoredFilesystems  []string
	Telemetry               []string
	LogLevel                string // "" leaves it to the command line
	Proxy                   string // http://host:port, "" for none

	// Origins holds, by the JSON name of a setting, where its value came from.
	Origins map[string]Origin
	// Sources holds, by the same names, who set what policy decides.
	Sources map[string][]Source
}

// Managed reports whether policy decides the setting with this JSON name.
func (e Effective) Managed(name string) bool { return e.Origins[name] == FromPolicy }

// RealTimeOn reports whether on-access protection is to run.
func (e Effective) RealTimeOn() bool { return e.Licensed && e.EnforcementLevel == RealTime }

// ModeOf returns the mode for a filesystem mounted at mountPoint.
func (e Effective) ModeOf(mountPoint string) Mode {
	mode, best := Ignore, -1
	for _, r := range e.Filesystems {
		n := len(r.Path)
		if r.Path == "*" {
			n = 0
		} else if !within(mountPoint, r.Path) {
			continue
		}
		if n > best {
			mode, best = r.Mode, n
		}
	}
	return mode
}

func within(p, folder string) bool {
	return p == folder || folder == "/" || strings.HasPrefix(p, strings.TrimSuffix(folder, "/")+"/")
}

// Merge lays the document over local settings over the defaults. A nil
// document is a device that has no policy yet: not licensed, but protected by
// what the defaults and local settings say once it is.
func Merge(doc *Document, local Settings) Effective {
	e := Effective{
		Plan:                Off,
		EnforcementLevel:    RealTime,
		Filesystems:         []FilesystemRule{{Path: "*", Mode: Block}},
		BehaviorMonitoring:  true,
		ScanArchives:        true,
		OnDemandScanThreads: 2,
		FileHashComputation: true,
		QuarantineRetention: 90,
		EndpointDetection:   true,
		EBPF:                true,
		ScanHistory:         10_000,
		Telemetry:           TelemetryKinds,
		ThreatTypes:         map[ThreatType]ThreatAction{PUA: ActionAudit, ArchiveBomb: ActionAudit},
		Origins:             map[string]Origin{},
	}
	var managed Settings
	if doc != nil {
		e.Version, e.Plan, e.Licensed = doc.Version, doc.Plan, doc.Licensed
		managed, e.Sources = doc.Managed, doc.Sources
	}
	pick(&e, "enforcementLevel", &e.EnforcementLevel, managed.EnforcementLevel, local.EnforcementLevel)
	pick(&e, "behaviorMonitoring", &e.BehaviorMonitoring, managed.BehaviorMonitoring, local.BehaviorMonitoring)
	pick(&e, "scanArchives", &e.ScanArchives, managed.ScanArchives, local.ScanArchives)
	pick(&e, "maximumOnDemandScanThreads", &e.OnDemandScanThreads, managed.OnDemandScanThreads, local.OnDemandScanThreads)
	pick(&e, "enableFileHashComputation", &e.FileHashComputation, managed.FileHashComputation, local.FileHashComputation)
	pick(&e, "scanAfterDefinitionUpdate", &e.ScanAfterUpdate, managed.ScanAfterUpdate, local.ScanAfterUpdate)
	pick(&e, "scanResultsRetentionDays", &e.QuarantineRetention, managed.QuarantineRetention, local.QuarantineRetention)
	pick(&e, "endpointDetection", &e.EndpointDetection, managed.EndpointDetection, local.EndpointDetection)
	pick(&e, "ebpfSupplementary", &e.EBPF, managed.SupplementaryProvider, local.SupplementaryProvider)
	pickList(&e, "filesystems", &e.Filesystems, managed.Filesystems, local.Filesystems)
	pickList(&e, "tags", &e.Tags, managed.Tags, local.Tags)
	pick(&e, "scanHistoryMaximumItems", &e.ScanHistory, managed.ScanHistory, local.ScanHistory)
	pick(&e, "logLevel", &e.LogLevel, managed.LogLevel, local.LogLevel)
	pick(&e, "proxy", &e.Proxy, nil, local.Proxy)
	pickList(&e, "scanSchedule", &e.ScanSchedule, managed.ScanSchedule, local.ScanSchedule)
	pickList(&e, "unmonitoredFilesystems", &e.UnmonitoredFilesystems, managed.UnmonitoredFilesystems, local.UnmonitoredFilesystems)
	pickList(&e, "telemetry", &e.Telemetry, managed.Telemetry, local.Telemetry)
	pickList(&e, "disallowedThreatActions", &e.DisallowedThreatActions, managed.DisallowedThreatActions, nil)
	e.pickThreatTypes(managed.ThreatTypes, local.ThreatTypes)
	pick(&e, "exclusionsAdminOnly", &e.ExclusionsAdminOnly, managed.ExclusionsAdminOnly, nil)
	own := local.Exclusions
	if e.ExclusionsAdminOnly {
		own = nil
	}
	unite(&e, "exclusions", &e.Exclusions, managed.Exclusions, own)
	unite(&e, "allowedThreats", &e.AllowedThreats, managed.AllowedThreats, local.AllowedThreats)
	return e
}

// pickThreatTypes decides type by type, so that a policy on one leaves the
// others to the device.
func (e *Effective) pickThreatTypes(managed, local map[ThreatType]ThreatAction) {
	e.Origins["threatTypeSettings"] = FromDefault
	switch {
	case len(managed) > 0:
		e.Origins["threatTypeSettings"] = FromPolicy
	case len(local) > 0:
		e.Origins["threatTypeSettings"] = FromLocal
	}
	for t := range e.ThreatTypes {
		name := "threatTypeSettings." + string(t)
		e.Origins[name] = FromDefault
		if a, ok := local[t]; ok {
			e.ThreatTypes[t], e.Origins[name] = a, FromLocal
		}
		if a, ok := managed[t]; ok {
			e.ThreatTypes[t], e.Origins[name] = a, FromPolicy
		}
	}
}

// MayDo reports whether people on the device may do something about a threat:
// "allow" or "restore".
func (e Effective) MayDo(action string) bool {
	return !slices.Contains(e.DisallowedThreatActions, action)
}

func pick[T any](e *Effective, name string, dst, managed, local *T) {
	switch {
	case managed != nil:
		*dst, e.Origins[name] = *managed, FromPolicy
	case local != nil:
		*dst, e.Origins[name] = *local, FromLocal
	default:
		e.Origins[name] = FromDefault
	}
}

func pickList[T any](e *Effective, name string, dst *[]T, managed, local []T) {
	switch {
	case managed != nil:
		*dst, e.Origins[name] = slices.Clone(managed), FromPolicy
	case local != nil:
		*dst, e.Origins[name] = slices.Clone(local), FromLocal
	default:
		e.Origins[name] = FromDefault
	}
}

// unite counts both lists together. Where it comes from is the strongest that
// says something; the device can always add to it.
func unite[T any](e *Effective, name string, dst *[]T, managed, local []T) {
	pickList(e, name, dst, managed, local)
	*dst = append(slices.Clone(managed), local...)
}

// Validate returns every problem of the document, joined, or nil.
func (d *Document) Validate() error {
	var errs []error
	if d.Format != Format {
		errs = append(errs, fmt.Errorf("format %d: this version understands %d", d.Format, Format))
	}
	if d.Version == 0 {
		errs = append(errs, errors.New("version is missing"))
	}
	if d.Device == "" {
		errs = append(errs, errors.New("device is missing"))
	}
	if d.Plan != Off && d.Plan != P1 && d.Plan != P2 {
		errs = append(errs, fmt.Errorf("plan %q: want off, P1 or P2", d.Plan))
	}
	if d.Licensed && d.Plan == Off {
		errs = append(errs, errors.New("licensed with plan off"))
	}
	return errors.Join(append(errs, d.Managed.Validate())...)
}

// Validate returns every problem of the settings, joined, or nil.
func (s *Settings) Validate() error {
	var errs []error
	if l := s.EnforcementLevel; l != nil && *l != RealTime && *l != OnDemand && *l != Passive {
		errs = append(errs, fmt.Errorf("enforcementLevel %q: want real_time, on_demand or passive", *l))
	}
	if n := s.OnDemandScanThreads; n != nil && (*n < 1 || *n > 64) {
		errs = append(errs, fmt.Errorf("maximumOnDemandScanThreads %d: want 1 to 64", *n))
	}
	if n := s.QuarantineRetention; n != nil && (*n < 1 || *n > 180) {
		errs = append(errs, fmt.Errorf("scanResultsRetentionDays %d: want 1 to 180", *n))
	}
	for _, r := range s.Filesystems {
		if r.Path != "*" && !path.IsAbs(r.Path) {
			errs = append(errs, fmt.Errorf("filesystem %q: want an absolute path or *", r.Path))
		}
		if r.Mode != Block && r.Mode != Watch && r.Mode != Ignore {
			errs = append(errs, fmt.Errorf("filesystem %q: mode %q: want block, watch or ignore", r.Path, r.Mode))
		}
	}
	for _, x := range s.Exclusions {
		errs = append(errs, x.Validate())
	}
	return errors.Join(append(errs, s.validateScans()...)...)
}

func (s *Settings) validateScans() []error {
	var errs []error
	for t, a := range s.ThreatTypes {
		if t != PUA && t != ArchiveBomb {
			errs = append(errs, fmt.Errorf("threatTypeSettings: type %q: want %s or %s", t, PUA, ArchiveBomb))
		}
		if a != ActionBlock && a != ActionAudit && a != ActionOff {
			errs = append(errs, fmt.Errorf("threatTypeSettings: %s: action %q: want block, audit or off", t, a))
		}
	}
	for _, a := range s.DisallowedThreatActions {
		if a != "allow" && a != "restore" {
			errs = append(errs, fmt.Errorf("disallowedThreatActions %q: want allow or restore", a))
		}
	}
	if n := s.ScanHistory; n != nil && (*n < 100 || *n > 15_000) {
		errs = append(errs, fmt.Errorf("scanHistoryMaximumItems %d: want 100 to 15000", *n))
	}
	if l := s.LogLevel; l != nil && !slices.Contains(logLevels, *l) {
		errs = append(errs, fmt.Errorf("logLevel %q: want one of %s", *l, strings.Join(logLevels, ", ")))
	}
	for _, name := range s.UnmonitoredFilesystems {
		if name == "" || strings.ContainsAny(name, " /\t\n") {
			errs = append(errs, fmt.Errorf("unmonitoredFilesystems %q: want the name of a filesystem type, like nfs", name))
		}
	}
	for _, t := range s.Tags {
		if t.Key == "" || len(t.Key)+len(t.Value) > 200 {
			errs = append(errs, fmt.Errorf("tag %q: want a key, and 200 characters at most with its value", t.Key))
		}
	}
	if s.Proxy != nil {
		_, err := ProxyAddress(*s.Proxy)
		errs = append(errs, err)
	}
	for _, kind := range s.Telemetry {
		if !slices.Contains(TelemetryKinds, kind) {
			errs = append(errs, fmt.Errorf("telemetry %q: want some of %s", kind, strings.Join(TelemetryKinds, ", ")))
		}
	}
	for _, sc := range s.ScanSchedule {
		errs = append(errs, sc.Validate())
	}
	return errs
}

// TelemetryKinds are the kinds of events of the sensor that a device can send
// or keep to itself, in the order that forms show them. What the agent does and
// what it finds is no telemetry: it is always sent.
var TelemetryKinds = []string{
	"processStart", "processEnd", "networkConnection", "failedConnection", "inboundConnection", "listeningSocket", "sensitiveFile",
}

var logLevels = []string{"error", "warning", "info", "verbose", "debug"}

// Validate says what is wrong with the schedule and how to mend it.
func (s Schedule) Validate() error {
	switch s.Kind {
	case "quick", "full":
		if s.Path != "" {
			return fmt.Errorf("scanSchedule: a %s scan takes no path", s.Kind)
		}
	case "custom":
		if !path.IsAbs(s.Path) {
			return fmt.Errorf("scanSchedule: a custom scan wants an absolute path, not %q", s.Path)
		}
	default:
		return fmt.Errorf("scanSchedule: kind %q: want quick, full or custom", s.Kind)
	}
	if _, err := time.Parse("15:04", s.At); err != nil || len(s.At) != 5 {
		return fmt.Errorf("scanSchedule: time %q: want HH:MM, like 02:30", s.At)
	}
	for _, d := range s.Days {
		if !slices.Contains(Weekdays, d) {
			return fmt.Errorf("scanSchedule: day %q: want one of %s", d, strings.Join(Weekdays, ", "))
		}
	}
	if s.Randomize < 0 || s.Randomize > 24*60 {
		return fmt.Errorf("scanSchedule: randomizeMinutes %d: want 0 to 1440", s.Randomize)
	}
	return nil
}

// Validate says what is wrong with the exclusion and how to mend it.
func (x Exclusion) Validate() error {
	if x.Scope != ScopeEPP && x.Scope != ScopeGlobal {
		return fmt.Errorf("exclusion %q: scope %q: want epp or global", x.Value, x.Scope)
	}
	switch x.Type {
	case ExcludeFile, ExcludeFolder:
		if !path.IsAbs(x.Value) {
			return fmt.Errorf("exclusion %q: want an absolute path", x.Value)
		}
		if x.Scope == ScopeGlobal && strings.ContainsAny(x.Value, "*?[") {
			return fmt.Errorf("exclusion %q: the global scope takes full paths only; use the epp scope for wildcards", x.Value)
		}
		if _, err := path.Match(x.Value, "/"); err != nil {
			return fmt.Errorf("exclusion %q: %w", x.Value, err)
		}
	case ExcludeExtension:
		if !strings.HasPrefix(x.Value, ".") || len(x.Value) < 2 || strings.ContainsAny(x.Value, "/*?") {
			return fmt.Errorf("exclusion %q: want an extension such as .log", x.Value)
		}
		if x.Scope == ScopeGlobal {
			return fmt.Errorf("exclusion %q: extensions can be excluded in the epp scope only", x.Value)
		}
	case ExcludeProcess:
		if x.Value == "" {
			return errors.New("process exclusion: want a path or a name")
		}
		if x.Scope == ScopeGlobal && !path.IsAbs(x.Value) {
			return fmt.Errorf("exclusion %q: the global scope takes the full path of a process", x.Value)
		}
	default:
		return fmt.Errorf("exclusion %q: type %q: want file, folder, extension or process", x.Value, x.Type)
	}
	return nil
}
