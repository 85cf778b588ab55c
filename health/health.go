// Package health is the vocabulary of an agent's state: the one report that
// `komainu health`, the heartbeat and the portal all show. It is plain data.
package health

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"time"
)

// State of a part.
type State string

// The states.
const (
	OK       State = "ok"
	Starting State = "starting"
	Off      State = "off"      // switched off by a setting, the plan or the lack of a licence
	Degraded State = "degraded" // works with less than it should
	Failed   State = "failed"
)

// Condition is what is known of one part of the agent.
type Condition struct {
	Part   string    `json:"part"` // "real_time_protection", "sensor", "scanner", "link", "spool", "broker", …
	State  State     `json:"state"`
	Since  time.Time `json:"since"`
	Reason string    `json:"reason,omitempty"` // what is the matter
	Remedy string    `json:"remedy,omitempty"` // what to do about it
	// Code is what Reason says for programs and for readers of other
	// languages, and Detail the part of it that no catalogue can hold.
	Code   Code   `json:"code,omitempty"`
	Detail string `json:"detail,omitempty"`
}

// Code names a reason. A name never changes its meaning.
type Code string

// The reasons of conditions.
const (
	NotEnrolled        Code = "not_enrolled"
	NoPolicyYet        Code = "no_policy_yet"
	PlanOff            Code = "plan_off"
	NoLicence          Code = "no_licence"
	RealTimeMissing    Code = "real_time_unavailable"
	EnforcementLevel   Code = "enforcement_level" // Detail is the level
	PartlyMarked       Code = "partly_marked"
	Marking            Code = "marking"
	ScannerStarting    Code = "scanner_starting"
	ScannerSilent      Code = "scanner_silent"
	SandboxIncomplete  Code = "sandbox_incomplete"
	SwitchedOff        Code = "switched_off"
	SensorLoading      Code = "sensor_loading"
	SensorReduced      Code = "sensor_reduced"
	SensorMissing      Code = "sensor_unavailable"
	KernelLimits       Code = "kernel_limits" // works as well as this kernel lets it: Detail is what it does not give
	FilesPartlyWatched Code = "files_partly_watched"
	FilesNotWatched    Code = "files_not_watched"
	ClockOff           Code = "clock_off" // Detail is by how much
	Connecting         Code = "connecting"
	IdentityRefused    Code = "identity_refused"
	NoConnection       Code = "no_connection"
	SpoolInMemory      Code = "spool_in_memory"
	QuarantineWaiting  Code = "quarantine_waiting" // Detail is how many
	DefinitionsBuiltIn Code = "definitions_built_in"
	EngineResting      Code = "engine_not_loaded" // no real-time protection and no scan: nothing is wrong
	NeedsRoot          Code = "needs_root"
	IdentityDamaged    Code = "identity_damaged"
	IdentityInUse      Code = "identity_in_use"     // the control plane ends the session: another host has this identity
	VersionsDiffer     Code = "versions_do_not_fit" // of agent and control plane
	RenewalFailed      Code = "renewal_failed"
	CertificateExpired Code = "certificate_expired" // Detail is when
	EpochNotNoted      Code = "epoch_not_noted"
	CopiedMachine      Code = "copied_machine" // Detail is the device that this one is a copy of
	GoldenImage        Code = "golden_image"
	JoinFailed         Code = "join_failed" // Detail is why
)

// Codes returns every reason there is.
func Codes() []Code {
	return []Code{
		NotEnrolled, NoPolicyYet, PlanOff, NoLicence, RealTimeMissing, EnforcementLevel, PartlyMarked, Marking, ScannerStarting, ScannerSilent, SandboxIncomplete,
		SwitchedOff, SensorLoading, SensorReduced, SensorMissing, KernelLimits, FilesPartlyWatched, FilesNotWatched, ClockOff, Connecting, IdentityRefused,
		NoConnection, SpoolInMemory, QuarantineWaiting, DefinitionsBuiltIn, EngineResting, NeedsRoot, IdentityDamaged, IdentityInUse,
		VersionsDiffer, RenewalFailed, CertificateExpired, EpochNotNoted,
		CopiedMachine, GoldenImage, JoinFailed,
	}
}

// Tag is an entry of edr_device_tags.
type Tag struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Report is the state of an agent. The JSON names and their order are the
// field names and the order that `komainu health` prints; a name never
// changes its meaning.
type Report struct {
	Healthy              bool     `json:"healthy"`
	Issues               []string `json:"health_issues"`
	Licensed             bool     `json:"licensed"`
	EngineVersion        string   `json:"engine_version"`
	EngineLoadStatus     string   `json:"engine_load_status"` // "Engine load succeeded" or "Engine not loaded"
	AppVersion           string   `json:"app_version"`
	OrgID                string   `json:"org_id"` // "unavailable" before enrolment
	LogLevel             string   `json:"log_level"`
	MachineGUID          string   `json:"machine_guid"`
	ReleaseRing          string   `json:"release_ring"`
	ProductExpiration    string   `json:"product_expiration"`
	PassiveMode          bool     `json:"passive_mode_enabled"`
	BehaviorMonitoring   string   `json:"behavior_monitoring"` // enabled, disabled
	RealTimeEnabled      bool     `json:"real_time_protection_enabled"`
	RealTimeAvailable    bool     `json:"real_time_protection_available"`
	RealTimeSubsystem    string   `json:"real_time_protection_subsystem"` // fanotify, unavailable
	RealTimeScope        string   `json:"real_time_protection_scope"`     // "all_filesystems", "2 blocking, 3 watching"
	SupplementaryEvents  string   `json:"supplementary_events_subsystem"` // ebpf, netlink, unavailable
	AutomaticDefinitions bool     `json:"automatic_definition_update_enabled"`
	DefinitionsUpdated   string   `json:"definitions_updated"`
	DefinitionsMinutes   int64    `json:"definitions_updated_minutes_ago"`
	DefinitionsVersion   string   `json:"definitions_version"`
	DefinitionsStatus    string   `json:"definitions_status"` // up_to_date, updating, unavailable, out_of_date
	EDRClientVersion     string   `json:"edr_client_version"`
	EDRConfiguration     string   `json:"edr_configuration_version"`
	EDRDeviceTags        []Tag    `json:"edr_device_tags"`
	EDRGroupIDs          string   `json:"edr_group_ids"`
	EDRMachineID         string   `json:"edr_machine_id"`
	Conflicting          []string `json:"conflicting_applications"`
	Proxy                string   `json:"proxy"` // shown where there is one

	// PackageForm is the form of the package that the agent was installed from:
	// deb, rpm or tar; "" when it was none.
	PackageForm string `json:"package_form,omitempty"`

	// Settings says who set each setting that is not at its default. Names are
	// those of policies.
	Settings []Setting `json:"settings,omitempty"`

	// Managed names the fields above whose value policy decides.
	Managed []string `json:"managed"`
	// Conditions is the state of every part; `--details` prints it.
	Conditions []Condition `json:"conditions"`
	Time       time.Time   `json:"time"`
}

// Setting says who set a setting of the device.
type Setting struct {
	Name   string        `json:"name"`
	Origin SettingOrigin `json:"origin"`       // of the value in effect
	By     string        `json:"by,omitempty"` // name of the policy
	// Local is what was set on the device, in effect or not; none when nothing
	// was, or when it is too large to report.
	Local json.RawMessage `json:"local,omitempty"`
}

// SettingOrigin is who set a value.
type SettingOrigin string

// The origins.
const (
	ByPolicy SettingOrigin = "policy"
	ByPlan   SettingOrigin = "plan"
	ByDevice SettingOrigin = "device"
)

// Field is one line of `komainu health`.
type Field struct {
	Name    string
	Value   any // bool, int64, string, []string or []Tag
	Managed bool
}

// Fields returns the report line by line, in the order of the type.
func (r *Report) Fields() []Field {
	v := reflect.ValueOf(r).Elem()
	t := v.Type()
	var fields []Field
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if name == "package_form" || name == "settings" || name == "managed" || name == "conditions" || name == "time" {
			continue
		}
		fields = append(fields, Field{Name: name, Value: v.Field(i).Interface(), Managed: slices.Contains(r.Managed, name)})
	}
	return fields
}

// Lookup returns the field with this name.
func (r *Report) Lookup(name string) (Field, bool) {
	for _, f := range r.Fields() {
		if f.Name == name {
			return f, true
		}
	}
	return Field{}, false
}
