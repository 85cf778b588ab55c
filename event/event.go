// Package event is the vocabulary of what happens on a host. It has no
// behaviour beyond naming, comparing and printing; producers (the sensor, the
// real-time protection, the agent itself) fill it, the wire carries it, the
// event store keeps it and hunting asks it.
//
// The shape follows the tables of advanced hunting (DeviceProcessEvents,
// DeviceFileEvents, DeviceNetworkEvents, DeviceLogonEvents, DeviceEvents,
// DeviceImageLoadEvents, DeviceRegistryEvents) and the telemetry features
// that the field compares agents by. An Event has an Action and a few detail
// blocks; which blocks an action fills is said beside the action.
//
// Values of this package are plain data: copy them, do not share them between
// goroutines while one of them writes.
package event

import (
	"net/netip"
	"time"
)

// Event is one thing that happened on a device.
type Event struct {
	ID     ID
	Time   time.Time // when it happened on the device's clock, UTC
	Action Action

	// Initiator is the process that did it, as far as it was known. For
	// ProcessCreated it is the parent.
	Initiator *Process
	// Process is the process it was done to: the created one, the one that
	// ended, the one that was traced or signalled.
	Process *Process

	File    *File
	Network *Network
	DNS     *DNS
	Logon   *Logon
	Account *Account // the account that was created, changed or used
	Service *Service
	Task    *Task
	Module  *Module
	Script  *Script
	Memory  *Memory
	Threat  *Threat
	Config  *Config
	Loss    *Loss

	// Fields holds what has no column of its own; it becomes
	// AdditionalFields. Keys are snake_case.
	Fields map[string]string
}

// Process describes a process at the time of an event.
type Process struct {
	Key       ProcessKey
	Parent    ProcessKey
	Path      string // absolute path of the executable in the agent's mount namespace, "" if unknown
	Name      string // base name of Path, or the kernel's comm
	Args      []string
	Truncated bool // Args were cut at the sensor's limit
	Cwd       string
	Started   time.Time
	User      User // effective user
	LoginUID  uint32
	Session   uint32 // Unix session id
	TTY       string
	Container string // container id, "" on the host
	CGroup    string
	Image     *File // the executable
	ExitCode  *int32
	Signal    int32 // that ended it, 0 if none
}

// User is an account as a process carries it.
type User struct {
	UID    uint32 // real user id
	EUID   uint32 // effective user id
	GID    uint32
	EGID   uint32
	Name   string // of EUID, "" if the name service does not know it
	Domain string // Windows domain or realm
	SID    string // Windows only
}

// Hashes are lower-case hexadecimal, "" when not computed.
type Hashes struct {
	MD5    string
	SHA1   string
	SHA256 string
	Fuzzy  string // TLSH
}

// File describes a file at the time of an event.
type File struct {
	Path         string // absolute path in the agent's mount namespace
	PreviousPath string // before a rename
	Size         int64
	Mode         uint32 // st_mode
	Owner        User
	Device       uint64 // st_dev as the kernel's major<<20|minor
	Inode        uint64
	ModTime      time.Time
	ChangeTime   time.Time
	Hashes       Hashes
	Type         string  // media type by content
	Header       []byte  // first bytes, at most 64
	Entropy      float64 // bits per byte, 0 when not computed
	OriginURL    string  // where it was downloaded from, if the host recorded that
	OriginIP     netip.Addr
	Sensitive    Sensitivity
	PreviousMode uint32 // before FilePermissionChanged
}

// Sensitivity is the class of secret that a file holds by its place and name.
type Sensitivity string

// The classes that rules count.
const (
	NotSensitive     Sensitivity = ""
	SSHPrivateKey    Sensitivity = "ssh_private_key"
	CloudCredentials Sensitivity = "cloud_credentials"
	PasswordHashes   Sensitivity = "password_hashes"
	ClusterConfig    Sensitivity = "cluster_config"
	TLSPrivateKey    Sensitivity = "tls_private_key"
	AppSecrets       Sensitivity = "app_secrets"
	ShellHistory     Sensitivity = "shell_history"
	TokenStore       Sensitivity = "token_store"
	DatabaseSecrets  Sensitivity = "database_secrets"
	KeyRing          Sensitivity = "key_ring"
)

// Direction of a connection as the device sees it.
type Direction string

// The directions.
const (
	Outbound  Direction = "outbound"
	Inbound   Direction = "inbound"
	Listening Direction = "listening"
)

// Network describes a connection or a listening socket.
type Network struct {
	Protocol   string // "tcp", "udp", "icmp"
	Direction  Direction
	LocalIP    netip.Addr
	LocalPort  uint16
	RemoteIP   netip.Addr
	RemotePort uint16
	URL        string // URL or host name, if known
	Failure    string // errno name of a failed connection
}

// DNS describes a question and its answers.
type DNS struct {
	Query   string
	Type    string
	Answers []string
	Code    string // response code, "NOERROR" and so on
	Server  netip.Addr
}

// Logon describes a logon, logoff or failed logon.
type Logon struct {
	ID            string
	Type          string // "Interactive", "RemoteInteractive", "Network", "Batch", "Service"
	Protocol      string // "ssh", "pam:login", "su", "sudo"
	RemoteDevice  string
	RemoteIP      netip.Addr
	RemotePort    uint16
	FailureReason string
	LocalAdmin    bool
}

// Account describes a user or group of the host.
type Account struct {
	User   User
	Group  string
	Home   string
	Shell  string
	Groups []string
}

// Service describes a system service.
type Service struct {
	Name    string
	Path    string // unit file
	Command string
	State   string
}

// Task describes a scheduled task: a cron line, a timer, an at job.
type Task struct {
	Name     string
	Path     string
	Command  string
	Schedule string
	User     string
}

// Module describes something loaded: a kernel module, a library, a BPF program.
type Module struct {
	Kind   string // "kernel_module", "library", "bpf"
	Name   string
	Path   string
	Hashes Hashes
	Detail string // BPF program type, module parameters
}

// Script is the content that an interpreter ran.
type Script struct {
	Interpreter string
	Content     string // at most 64 KiB
	Truncated   bool
	Hashes      Hashes
}

// Memory describes an access to another process or to executable memory.
type Memory struct {
	Operation string // "ptrace_attach", "process_vm_writev", "memfd_create", "mprotect_exec", "raw_device_read"
	Target    string // memfd name, device path
	Address   uint64
	Size      uint64
}

// Threat is what the real-time protection or a scan found.
type Threat struct {
	ID          string // the detection's id, the same in `threat list`
	Name        string // CARO name
	Type        string // "virus", "behavior", …
	Action      string // what was done: "blocked", "quarantined", "detected", "failed"
	Reason      string // why an action failed
	Definitions string // version that decided
	Inside      string // member path when it was found within an archive
}

// Config is a change of the agent's own settings or state.
type Config struct {
	Name string
	From string
	To   string
	By   string // "policy", "local", "agent"
}

// Loss says that events or decisions were lost, where and how many. It is
// itself an event, so that the store can show coverage.
type Loss struct {
	Where  string // "kernel_ring", "fanotify_queue", "worker_queue", "spool", …
	Source Source // whose events were lost
	Count  uint64
	Since  time.Time
	Until  time.Time
}
