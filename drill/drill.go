// Package drill is the vocabulary of detection tests: harmless things that a
// host does on purpose to show that protection works, stage by stage from the
// kernel to the people who are told. It is plain data.
//
// A Run always ends with an answer. Either everything arrived, or a Reason
// says why it did not and what to do about it.
package drill

import (
	"slices"
	"time"
)

// Scenario is a detection test that an agent can run.
type Scenario struct {
	ID    string   `json:"id"`
	Name  string   `json:"name"`
	About string   `json:"about"`
	Needs []string `json:"needs"` // what has to be on for it to pass, for people
	// Behavior is set when the sensor and its rules find it, not the scan of a
	// file.
	Behavior bool `json:"behavior"`
}

// Command is what runs the scenario on the host itself.
func (s Scenario) Command() string { return "komainu test run " + s.ID }

var scenarios = []Scenario{
	{ID: "eicar", Name: "EICAR test file", About: "A program writes the antivirus test file. Real-time protection finds it and puts it into quarantine.",
		Needs: []string{"the Servers plan", "real-time protection on the folder's filesystem"}},
	{ID: "eicar-archive", Name: "EICAR in an archive within an archive", About: "A program writes a zip that holds a zip that holds the test file. Real-time protection looks into it.",
		Needs: []string{"the Servers plan", "real-time protection on the folder's filesystem", "the scan of archives"}},
	{ID: "policy-block", Name: "Opening malware is denied", About: "A program writes the test file and opens it. Policy blocks on this filesystem, so the program is denied before it reads a byte.",
		Needs: []string{"the Servers plan", "real-time protection that blocks on the folder's filesystem"}},
	{ID: "edr-test", Name: "Search for secrets", About: "A script looks for files with secrets with find, grep and cat, in decoys that it makes and removes. A behaviour rule notices.",
		Needs: []string{"the Servers plan", "endpoint detection", "a shell"}, Behavior: true},
	{ID: "edr-test-python", Name: "Search for secrets, by Python", About: "The same search, read by a Python program.",
		Needs: []string{"the Servers plan", "endpoint detection", "a shell", "Python"}, Behavior: true},
	{ID: "edr-test-builtins", Name: "Search for secrets, by the shell alone", About: "The same search without any program but the shell: only a sensor that sees opens of files can notice.",
		Needs: []string{"the Servers plan", "endpoint detection", "a shell"}, Behavior: true},
	{ID: "edr-test-renamed", Name: "Search for secrets, by a renamed program", About: "The same search by a copy of cat that has another name.",
		Needs: []string{"the Servers plan", "endpoint detection", "a shell"}, Behavior: true},
	{ID: "behavior", Name: "Program in a hidden file", About: "A program is run from a hidden file in a folder for temporary files. A behaviour rule notices; behaviour is reported in this version, not blocked.",
		Needs: []string{"the Servers plan", "endpoint detection"}, Behavior: true},
}

// Scenarios returns every detection test of this version.
func Scenarios() []Scenario { return slices.Clone(scenarios) }

// Find returns the scenario with this id.
func Find(id string) (Scenario, bool) {
	i := slices.IndexFunc(scenarios, func(s Scenario) bool { return s.ID == id })
	if i < 0 {
		return Scenario{}, false
	}
	return scenarios[i], true
}

// StageID names a station on the way of a detection.
type StageID string

// The stages, in their order.
const (
	Kernel       StageID = "kernel"       // the kernel told the agent of it
	Agent        StageID = "agent"        // the agent judged it to be bad
	Sent         StageID = "sent"         // the finding is on its way
	Received     StageID = "received"     // the control plane has it on disk
	Alert        StageID = "alert"        // an alert exists
	Incident     StageID = "incident"     // it is in an incident
	Notification StageID = "notification" // people were told
)

// Stages returns all stages in their order.
func Stages() []StageID {
	return []StageID{Kernel, Agent, Sent, Received, Alert, Incident, Notification}
}

// State of a stage.
type State string

// The states.
const (
	OK      State = "ok"
	Waiting State = "waiting"
	Missing State = "missing" // it did not come in time
	Skipped State = "skipped" // it does not apply here; Detail says why
)

// Stage is how far a run has come at one station.
type Stage struct {
	ID     StageID   `json:"id"`
	State  State     `json:"state"`
	At     time.Time `json:"at,omitzero"` // when it was reached
	Detail string    `json:"detail,omitempty"`
}

// Outcome of a run.
type Outcome string

// The outcomes.
const (
	Running   Outcome = "running"
	Passed    Outcome = "passed"    // every stage was reached or does not apply
	Explained Outcome = "explained" // it did not arrive, and Reason says why
)

// ReasonID names a cause for programs and for readers of other languages. A
// name never changes its meaning.
type ReasonID string

// The reasons why nothing arrived.
const (
	NotEnrolled        ReasonID = "not_enrolled"
	NoPolicy           ReasonID = "no_policy"
	PlanOff            ReasonID = "plan_off"
	RealTimeOff        ReasonID = "real_time_off"         // Detail is the enforcement level
	RealTimeMissing    ReasonID = "real_time_unavailable" // Detail is why
	NotProtected       ReasonID = "filesystem_not_protected"
	WatchOnly          ReasonID = "filesystem_watched" // reports, does not block
	Marking            ReasonID = "filesystem_not_marked"
	Excluded           ReasonID = "excluded" // Detail is the exclusion
	ThreatAllowed      ReasonID = "threat_allowed"
	ArchivesOff        ReasonID = "archives_off"
	DetectionOff       ReasonID = "endpoint_detection_off"
	BehaviorOff        ReasonID = "behavior_monitoring_off"
	SensorDown         ReasonID = "sensor_unavailable" // Detail is why
	SensorLacks        ReasonID = "sensor_tier"        // Detail is what it lacks
	ScannerDown        ReasonID = "scanner_down"
	QuietRule          ReasonID = "rule_quiet" // found a short time ago, and once is enough
	ProgramMissing     ReasonID = "program_missing"
	ScenarioFailed     ReasonID = "scenario_failed"
	LinkDown           ReasonID = "link_down" // Detail is since when and why
	IdentityRefused    ReasonID = "identity_refused"
	ClockOff           ReasonID = "clock_off"
	SpoolBehind        ReasonID = "spool_behind" // Detail is how many records wait
	ControlPlaneBehind ReasonID = "control_plane_behind"
	ControlPlaneOld    ReasonID = "control_plane_old"
	NotificationFailed ReasonID = "notification_failed"
	Unknown            ReasonID = "unknown"
)

// Reasons returns every reason there is.
func Reasons() []ReasonID {
	return []ReasonID{
		NotEnrolled, NoPolicy, PlanOff, RealTimeOff, RealTimeMissing, NotProtected, WatchOnly, Marking, Excluded, ThreatAllowed, ArchivesOff,
		DetectionOff, BehaviorOff, SensorDown, SensorLacks, ScannerDown, QuietRule, ProgramMissing, ScenarioFailed, LinkDown, IdentityRefused,
		ClockOff, SpoolBehind, ControlPlaneBehind, ControlPlaneOld, NotificationFailed, Unknown,
	}
}

// Reason says why a run did not arrive.
type Reason struct {
	ID     ReasonID `json:"id"`
	Text   string   `json:"text"`
	Remedy string   `json:"remedy"`
	Detail string   `json:"detail,omitempty"` // the part of Text that no catalogue can hold
}

// Run is one run of a scenario on a device.
type Run struct {
	ID       string    `json:"id"`
	Test     string    `json:"test"`
	Started  time.Time `json:"startedAt"`
	Outcome  Outcome   `json:"outcome"`
	Folder   string    `json:"folder,omitempty"`  // where it was run
	Finding  string    `json:"finding,omitempty"` // id of what the agent found
	Stages   []Stage   `json:"stages"`
	Reason   *Reason   `json:"reason,omitempty"`
	Warnings []Reason  `json:"warnings,omitempty"` // it arrived, and yet this should be mended
}

// New returns a run of which nothing has happened yet.
func New(id, test string, at time.Time) Run {
	r := Run{ID: id, Test: test, Started: at.UTC(), Outcome: Running}
	for _, s := range Stages() {
		r.Stages = append(r.Stages, Stage{ID: s, State: Waiting})
	}
	return r
}

// Clone returns a copy that shares nothing with r.
func (r Run) Clone() Run {
	r.Stages, r.Warnings = slices.Clone(r.Stages), slices.Clone(r.Warnings)
	if r.Reason != nil {
		r.Reason = new(*r.Reason)
	}
	return r
}

// Stage returns a stage of the run, or a zero one that is not part of it.
func (r *Run) Stage(id StageID) *Stage {
	for i := range r.Stages {
		if r.Stages[i].ID == id {
			return &r.Stages[i]
		}
	}
	return new(Stage)
}

// Reach notes that a stage was reached. What was reached stays so, with the
// first time; a detail may still become fuller.
func (r *Run) Reach(id StageID, at time.Time, detail string) {
	s := r.Stage(id)
	if s.State != OK {
		s.State, s.At = OK, at.UTC()
	}
	if detail != "" {
		s.Detail = detail
	}
}

// First returns the first stage that still waits, "" when none does.
func (r *Run) First() StageID {
	for _, s := range r.Stages {
		if s.State == Waiting {
			return s.ID
		}
	}
	return ""
}

// Explain ends the run without having arrived: what waits is missing.
func (r *Run) Explain(reason Reason) {
	for i := range r.Stages {
		if r.Stages[i].State == Waiting {
			r.Stages[i].State = Missing
		}
	}
	r.Outcome, r.Reason = Explained, &reason
}

// Settle ends the run when nothing is waited for any more and reports whether
// it has ended.
func (r *Run) Settle() bool {
	if r.Outcome == Running && r.First() == "" {
		r.Outcome = Passed
	}
	return r.Outcome != Running
}
