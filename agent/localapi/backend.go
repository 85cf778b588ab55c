package localapi

import (
	"context"
	"io"

	"komainu/drill"
	"komainu/health"
	"komainu/policy"
)

// Backend is what the agent does for this API. A part that is nil answers
// fault.Unsupported.
//
// Every method may block; its context ends when the caller goes away or the
// server stops. Errors with a fault.Kind reach the caller with their message;
// an error without one is shown to administrators and logged, others see
// "internal error". Beyond the kinds named below, every method may return
// fault.Unavailable when a part that it needs is down.
type Backend struct {
	Health       Health
	Settings     Settings
	Threats      Threats
	Allowed      Allowed
	Quarantine   Quarantine
	Scans        Scans
	Exclusions   Exclusions
	Connectivity Connectivity
	Enrolment    Enrolment
	Definitions  Definitions
	Diagnostics  Diagnostics
	Tests        Tests
	Upgrades     Upgrades
}

// Health tells the state of the agent.
type Health interface {
	// Report returns the state as of now. It does not fail: what cannot be
	// known is a condition of the report.
	Report(ctx context.Context) health.Report
}

// Settings changes the local settings. The server has checked names and
// values.
type Settings interface {
	// ApplySetting changes a setting and returns once it is in effect and
	// saved. Setting.Patch turns it into settings of the policy. Errors:
	// fault.Managed when policy decides it, fault.Exhausted when it cannot be
	// saved for lack of space.
	ApplySetting(ctx context.Context, name Setting, value string) error
	// SetTag sets the tag with this key. Errors: as ApplySetting.
	SetTag(ctx context.Context, tag policy.Tag) error
	// RemoveTag removes a tag. Errors: as ApplySetting, fault.NotFound.
	RemoveTag(ctx context.Context, key string) error
	// SetLogLevel changes how much is logged until the next start: one of
	// LogLevels.
	SetLogLevel(ctx context.Context, level string) error
	// ThreatTypes returns what is done about each threat type.
	ThreatTypes(ctx context.Context) ([]ThreatType, error)
}

// Threats reads the protection history.
type Threats interface {
	// Threats returns the history, newest first, bounded by its retention.
	Threats(ctx context.Context) ([]Threat, error)
	// Threat returns one entry. Errors: fault.NotFound.
	Threat(ctx context.Context, id string) (Threat, error)
}

// Allowed keeps the names of threats that are not acted upon.
type Allowed interface {
	// AllowedThreats returns the names that policy and local settings allow.
	AllowedThreats(ctx context.Context) ([]AllowedThreat, error)
	// AllowThreat adds a name; a name that is there already is no error.
	// Errors: fault.Managed.
	AllowThreat(ctx context.Context, name string) error
	// DisallowThreat removes a local name. Errors: fault.NotFound,
	// fault.Managed when policy allows it.
	DisallowThreat(ctx context.Context, name string) error
}

// Quarantine is the store of sealed files.
type Quarantine interface {
	// QuarantineObjects returns what is in quarantine, newest first.
	QuarantineObjects(ctx context.Context) ([]QuarantineObject, error)
	// QuarantineThreat quarantines the file of a threat that was only
	// detected or blocked. Errors: fault.NotFound for the threat or its file,
	// fault.Conflict when the file changed since or is in quarantine already.
	QuarantineThreat(ctx context.Context, threat string) (QuarantineObject, error)
	// RemoveQuarantined deletes an object for ever. Errors: fault.NotFound.
	RemoveQuarantined(ctx context.Context, id string) error
	// RemoveAllQuarantined deletes every object and returns how many.
	RemoveAllQuarantined(ctx context.Context) (int, error)
	// RestoreQuarantined puts files back. Errors: fault.NotFound for the
	// object or the destination, fault.Conflict when a file is in the way.
	RestoreQuarantined(ctx context.Context, req RestoreRequest) ([]Restored, error)
}

// Scans runs scans on demand, one at a time.
type Scans interface {
	// StartScan starts a scan that lives on when ctx ends. Errors:
	// fault.Conflict when a scan is running, fault.NotFound for the path.
	StartScan(ctx context.Context, req ScanRequest) (ScanJob, error)
	// WatchScan calls progress with the state of the job: once at once, then
	// when it changes but not more than ten times a second, and a last time
	// with the final state. It returns nil after that, or the error of
	// progress, or of ctx. Errors: fault.NotFound.
	WatchScan(ctx context.Context, id string, progress func(ScanJob) error) error
	// CancelScan stops the scan with this id, or the running one when id is
	// "", and returns its final state. Errors: fault.NotFound when none runs.
	CancelScan(ctx context.Context, id string) (ScanJob, error)
	// ScanJobs returns running and past scans, newest first.
	ScanJobs(ctx context.Context) ([]ScanJob, error)
}

// Exclusions keeps what is left out of protection. The server has validated
// the exclusion.
type Exclusions interface {
	// Exclusions returns what is in effect.
	Exclusions(ctx context.Context) ([]Exclusion, error)
	// AddExclusion adds a local exclusion; one that is there already is no
	// error. Errors: fault.Managed when local exclusions do not count.
	AddExclusion(ctx context.Context, x policy.Exclusion) error
	// RemoveExclusion removes a local exclusion. Errors: fault.NotFound,
	// fault.Managed when it comes from policy.
	RemoveExclusion(ctx context.Context, x policy.Exclusion) error
}

// Connectivity tests the way to the control plane.
type Connectivity interface {
	// TestConnectivity calls step with each outcome as it is known and goes
	// on after one that failed. It returns the error of step or of ctx, and
	// fault.Conflict when the device is not enrolled; a failed step is not an
	// error. The server lets one test run at a time.
	TestConnectivity(ctx context.Context, step func(ConnectivityStep) error) error
}

// Enrolment brings the device into an environment, and out of it.
type Enrolment interface {
	// Enrol enrols. It leaves nothing half done. Errors: fault.Conflict when
	// the device is enrolled and force is not set, fault.Invalid for a token
	// that cannot be read, fault.Unauthentic or fault.Denied when the server
	// refuses it, fault.Unavailable when the server does not answer.
	Enrol(ctx context.Context, req EnrolRequest) (EnrolResult, error)
	// Offboard takes the device out of its environment. Errors, with which
	// nothing was changed: fault.NotFound when the device is not enrolled,
	// fault.Denied when the server does not let hosts do this; without force
	// also fault.Unavailable when the server does not answer and
	// fault.Unauthentic when it does not know the device.
	Offboard(ctx context.Context, req OffboardRequest) (OffboardResult, error)
	// Prove signs a nonce with the key of the device, and nothing else. Errors:
	// fault.NotFound when the device is not enrolled, fault.Invalid for a nonce
	// that is none, fault.Conflict on a copy of the machine that the identity
	// was given to.
	Prove(ctx context.Context, req ProofRequest) (ProofResult, error)
}

// Definitions updates the definitions.
type Definitions interface {
	// UpdateDefinitions looks for newer definitions. Where they are embedded
	// in the agent it returns the version in use and a note that says so.
	UpdateDefinitions(ctx context.Context) (DefinitionsResult, error)
}

// Diagnostics collects what helps to find a fault.
type Diagnostics interface {
	// WriteDiagnostics writes a zip without keys, tokens or contents of
	// scanned files. An error after the first byte breaks the download off.
	WriteDiagnostics(ctx context.Context, w io.Writer) error
	// ScanCounters says how many files real-time protection has scanned for
	// which program, the most first. It fails with fault.Conflict while
	// real-time protection is off.
	ScanCounters(ctx context.Context) ([]ScanCounter, error)
}

// Tests runs detection tests.
type Tests interface {
	// RunTest runs a test and yields its state now and after every change until
	// it has ended. The run goes on when the caller goes away. Errors:
	// fault.NotFound for a test that there is none of, fault.Conflict while
	// another one runs, fault.Invalid for a folder that is none.
	RunTest(ctx context.Context, req TestRequest, yield func(drill.Run) error) error
}
