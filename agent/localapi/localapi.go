// Package localapi is how a program on the same host speaks with the agent:
// HTTP with JSON bodies over a Unix socket. The command line is its client.
//
// Who calls is decided by the kernel, not by a secret: the server reads the
// credentials of the peer when it connects. Everybody on the host may read
// health, version, connectivity and the list of threats without the paths in
// it. Whatever changes something, or tells where files of other users lie or
// what is excluded, needs root, the agent's own user, or the group komainu.
//
// The API is versioned in its path. Within a version fields are only added;
// the client ignores what it does not know, the server refuses it.
//
// A Server takes a Backend, which says in the words of this package what the
// agent must be able to do. All methods of a Backend are called from several
// goroutines at once.
package localapi

import (
	"time"

	"komainu/deploy"
	"komainu/policy"
)

// API is the version of the API that this package speaks. It is the first
// element of every path.
const API = 1

// DefaultSocket is where an installed agent listens.
const DefaultSocket = "/run/komainu/agent.sock"

// Group is the name of the group whose members may do what root may.
const Group = "komainu"

// GroupIDs is the key of the tag that `edr group-ids` sets.
const GroupIDs = "GROUP_IDS"

// Version says which agent answers.
type Version struct {
	Agent string `json:"agent"` // of the agent's binary
	API   int    `json:"api"`
	PID   int    `json:"pid"`
}

// Status says what became of a threat.
type Status string

// The statuses of a threat.
const (
	StatusDetected    Status = "detected"    // seen, nothing was done: watching or passive
	StatusBlocked     Status = "blocked"     // the open was denied, the file is still there
	StatusQuarantined Status = "quarantined" // sealed away
	StatusRestored    Status = "restored"    // put back by somebody
	StatusRemoved     Status = "removed"     // deleted from quarantine
	StatusAllowed     Status = "allowed"     // its name is on the list of allowed threats
	StatusFailed      Status = "failed"      // quarantine was tried and failed
)

// Threat is an entry of the protection history.
type Threat struct {
	ID            string    `json:"id"`
	Name          string    `json:"name"` // "Virus:DOS/EICAR_Test_File"
	Type          string    `json:"type"` // "virus", "behavior", …
	DetectionTime time.Time `json:"detectionTime"`
	Status        Status    `json:"status"`
	Severity      string    `json:"severity"` // Informational, Low, Medium, High

	// The rest is for administrators; others get it empty.
	Path              string `json:"path,omitempty"`
	Inside            string `json:"inside,omitempty"` // member path when it was found within an archive
	InitiatingUser    string `json:"initiatingUser,omitempty"`
	InitiatingProcess string `json:"initiatingProcess,omitempty"`
	SHA256            string `json:"sha256,omitempty"`
	Reason            string `json:"reason,omitempty"` // why an action failed
}

// AllowedThreat is a name that is detected but never acted upon.
type AllowedThreat struct {
	Name   string        `json:"name"`
	Origin policy.Origin `json:"origin"`
}

// ThreatType is what is done about a kind of find that is less than malware.
type ThreatType struct {
	Type   policy.ThreatType   `json:"type"`
	Action policy.ThreatAction `json:"action"`
	Origin policy.Origin       `json:"origin"`
	Engine bool                `json:"engine"` // whether this version looks for it
}

// QuarantineObject is a file in quarantine. ID is the id of the threat.
type QuarantineObject struct {
	ID              string    `json:"id"`
	Threat          string    `json:"threat"` // name of the threat
	Path            string    `json:"path"`   // where it was
	SHA256          string    `json:"sha256"`
	Size            int64     `json:"size"`
	Owner           string    `json:"owner,omitempty"` // "user:group" it had
	QuarantinedTime time.Time `json:"quarantinedTime"`
}

// RestoreRequest asks for files back: by ID one object, by Path every object
// that was quarantined from there. Exactly one of them is set.
type RestoreRequest struct {
	ID   string `json:"id,omitempty"`
	Path string `json:"path,omitempty"`
	// Destination is a folder to restore into; "" is where the file was.
	Destination string `json:"destination,omitempty"`
}

// Restored is a file that came back.
type Restored struct {
	ID   string `json:"id"`
	Path string `json:"path"` // where it is now
}

// ScanType says what a scan on demand covers.
type ScanType string

// The scan types.
const (
	ScanQuick  ScanType = "quick"
	ScanFull   ScanType = "full"
	ScanCustom ScanType = "custom"
)

// ScanState says how far a scan is.
type ScanState string

// The states of a scan. The last three are final.
const (
	ScanQueued    ScanState = "queued"
	ScanRunning   ScanState = "running"
	ScanCompleted ScanState = "completed"
	ScanCancelled ScanState = "cancelled"
	ScanFailed    ScanState = "failed"
)

// Done reports whether the state is final.
func (s ScanState) Done() bool {
	return s == ScanCompleted || s == ScanCancelled || s == ScanFailed
}

// ScanRequest asks for a scan on demand.
type ScanRequest struct {
	Type             ScanType `json:"type"`
	Path             string   `json:"path,omitempty"` // absolute; for custom scans only
	IgnoreExclusions bool     `json:"ignoreExclusions,omitempty"`
}

// ScanJob is a scan on demand, running or in the history. While it runs the
// counts grow; FilesTotal is an estimate, 0 when there is none yet.
type ScanJob struct {
	ID           string    `json:"id"`
	Type         ScanType  `json:"type"`
	State        ScanState `json:"state"`
	Path         string    `json:"path,omitempty"` // of a custom scan
	StartTime    time.Time `json:"startTime"`
	EndTime      time.Time `json:"endTime,omitzero"`
	FilesScanned int64     `json:"filesScanned"`
	FilesTotal   int64     `json:"filesTotal,omitempty"`
	BytesScanned int64     `json:"bytesScanned"`
	FilesSkipped int64     `json:"filesSkipped,omitempty"` // could not be read, or left the limits
	Threats      int64     `json:"threats"`
	Error        string    `json:"error,omitempty"` // of a failed scan
}

// Exclusion is an exclusion and where it comes from.
type Exclusion struct {
	policy.Exclusion
	Origin policy.Origin `json:"origin"`
}

// ScanCounter counts the files that real-time protection scanned for one
// program since the agent started. What is known to be clean is not scanned
// again, and not counted.
type ScanCounter struct {
	ID    uint64 `json:"id,string"`
	Name  string `json:"name"`
	Path  string `json:"path"` // "" for processes that had ended
	Files uint64 `json:"totalFilesScanned,string"`
}

// ConnectivityStep is the outcome of one thing that the agent must reach.
type ConnectivityStep struct {
	Name     string        `json:"name"`   // resolve, tcp, proxy, tls, protocol, clock, latency, certificate
	Target   string        `json:"target"` // what was reached for
	OK       bool          `json:"ok"`
	Skipped  bool          `json:"skipped,omitempty"` // not tried, because an earlier step failed
	Detail   string        `json:"detail,omitempty"`  // why it failed and what to do; or what was seen
	Duration time.Duration `json:"durationNanoseconds"`
}

// OffboardRequest takes the device out of its environment.
type OffboardRequest struct {
	Force bool `json:"force,omitempty"` // also when the server cannot be told
}

// OffboardResult says what the device was.
type OffboardResult struct {
	Device      string `json:"device"`
	Environment string `json:"environment"`
	Server      string `json:"server"`
	Told        bool   `json:"told"`              // the server knows of it
	Untold      string `json:"untold,omitempty"`  // why it does not
	Package     string `json:"package,omitempty"` // deb, rpm or tar: how the agent was installed; "" when not by a package
}

// EnrolRequest brings the device into an environment.
type EnrolRequest struct {
	Token string `json:"token,omitempty"`
	// Cloud names the cloud whose document says who this machine is, in the
	// place of a token; Server and Pin say where to enrol and whom to trust.
	Cloud  string `json:"cloud,omitempty"`
	Server string `json:"server,omitempty"`
	Pin    string `json:"pin,omitempty"`
	Force  bool   `json:"force,omitempty"` // also when it is enrolled already
}

// EnrolResult says where the device belongs now.
type EnrolResult struct {
	Device       string `json:"device"`
	Organization string `json:"organization"`
	Environment  string `json:"environment"`
	Server       string `json:"server"`
}

// ProofRequest asks the device to prove who it is.
type ProofRequest struct {
	Nonce deploy.Nonce `json:"nonce"`
}

// ProofResult is the proof, for whoever has made the nonce.
type ProofResult struct {
	Device string `json:"device"`
	Proof  string `json:"proof"` // as deploy.ParseProof reads it
}

// DefinitionsResult is the outcome of an update of the definitions.
type DefinitionsResult struct {
	Version string `json:"version"` // in use now
	Updated bool   `json:"updated"` // false: they were the newest that this agent can have
	Note    string `json:"note,omitempty"`
}

// LogLevels are the levels that `log level set` takes, most quiet first.
var LogLevels = []string{"error", "warning", "info", "verbose", "debug"}
