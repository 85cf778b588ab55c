package event

// Action says what happened. The names are the ActionType values of advanced
// hunting where those exist.
type Action string

// Process actions. Initiator is the parent or the acting process, Process the
// subject.
const (
	ProcessCreated    Action = "ProcessCreated"    // fork and exec; Process, Initiator
	ProcessTerminated Action = "ProcessTerminated" // Process with ExitCode or Signal
	ProcessAccessed   Action = "ProcessAccessed"   // Process is the target; Memory
	ProcessTampered   Action = "ProcessTampered"   // Process is the target; Memory
	ScriptContent     Action = "ScriptContent"     // Initiator; Script
	MemfdCreated      Action = "MemfdCreated"      // Initiator; Memory
	SignalSent        Action = "SignalSent"        // Initiator, Process
)

// File actions: Initiator and File.
const (
	FileCreated           Action = "FileCreated"
	FileModified          Action = "FileModified"
	FileDeleted           Action = "FileDeleted"
	FileRenamed           Action = "FileRenamed"
	FilePermissionChanged Action = "FilePermissionChanged"
	FileLinked            Action = "FileLinked"
	SensitiveFileRead     Action = "SensitiveFileRead" // File.Sensitive says the class
	RawAccessRead         Action = "RawAccessRead"     // Memory.Target is the device
)

// Network actions: Initiator and Network, or DNS.
const (
	ConnectionSuccess          Action = "ConnectionSuccess"
	ConnectionFailed           Action = "ConnectionFailed"
	InboundConnectionAccepted  Action = "InboundConnectionAccepted"
	ListeningConnectionCreated Action = "ListeningConnectionCreated"
	DNSQueryResponse           Action = "DnsQueryResponse"
)

// Authentication and account actions: Logon, Account.
const (
	LogonSuccess        Action = "LogonSuccess"
	LogonFailed         Action = "LogonFailed"
	Logoff              Action = "Logoff"
	UserAccountCreated  Action = "UserAccountCreated"
	UserAccountModified Action = "UserAccountModified"
	UserAccountDeleted  Action = "UserAccountDeleted"
)

// System actions: Service, Task or Module.
const (
	ServiceInstalled     Action = "ServiceInstalled"
	ServiceModified      Action = "ServiceModified"
	ServiceDeleted       Action = "ServiceDeleted"
	ScheduledTaskCreated Action = "ScheduledTaskCreated"
	ScheduledTaskUpdated Action = "ScheduledTaskUpdated"
	ScheduledTaskDeleted Action = "ScheduledTaskDeleted"
	DriverLoad           Action = "DriverLoad"
	ImageLoaded          Action = "ImageLoaded"
	BPFProgramLoaded     Action = "BpfProgramLoaded"
)

// Protection actions: Threat, File, Initiator.
const (
	AntivirusDetection   Action = "AntivirusDetection"
	AntivirusRemediation Action = "AntivirusRemediation" // the outcome of an action on a detection
	OpenAllowedUnscanned Action = "OpenAllowedUnscanned" // the deadline passed; Fields["reason"]
	ScanStarted          Action = "AntivirusScanStarted"
	ScanCompleted        Action = "AntivirusScanCompleted"
	ScanCancelled        Action = "AntivirusScanCancelled"
	BehaviorDetection    Action = "BehaviorDetection"
)

// Agent actions: Config or Loss.
const (
	AgentStarted   Action = "AgentStarted"
	AgentStopped   Action = "AgentStopped"
	PartRestarted  Action = "AgentPartRestarted" // Fields["part"], Fields["reason"]
	SettingChanged Action = "AgentSettingChanged"
	PolicyApplied  Action = "AgentPolicyApplied"
	EventsLost     Action = "EventsLost"
	HealthChanged  Action = "AgentHealthChanged"
)

// Table names the advanced-hunting table that an action belongs to.
type Table string

// The tables that events of a server land in.
const (
	DeviceProcessEvents   Table = "DeviceProcessEvents"
	DeviceFileEvents      Table = "DeviceFileEvents"
	DeviceNetworkEvents   Table = "DeviceNetworkEvents"
	DeviceLogonEvents     Table = "DeviceLogonEvents"
	DeviceImageLoadEvents Table = "DeviceImageLoadEvents"
	DeviceEvents          Table = "DeviceEvents"
)

// Table returns the hunting table of an action; an unknown action belongs to
// DeviceEvents.
func (a Action) Table() Table {
	switch a {
	case ProcessCreated, ProcessTerminated:
		return DeviceProcessEvents
	case FileCreated, FileModified, FileDeleted, FileRenamed:
		return DeviceFileEvents
	case ConnectionSuccess, ConnectionFailed, InboundConnectionAccepted, ListeningConnectionCreated:
		return DeviceNetworkEvents
	case LogonSuccess, LogonFailed, Logoff:
		return DeviceLogonEvents
	case ImageLoaded:
		return DeviceImageLoadEvents
	default:
		return DeviceEvents
	}
}

// Source returns the source that numbers events of this action.
func (a Action) Source() Source {
	switch a {
	case ProcessCreated, ProcessTerminated, ProcessAccessed, ProcessTampered, ScriptContent, MemfdCreated, SignalSent:
		return FromProcess
	case FileCreated, FileModified, FileDeleted, FileRenamed, FilePermissionChanged, FileLinked, SensitiveFileRead, RawAccessRead:
		return FromFile
	case ConnectionSuccess, ConnectionFailed, InboundConnectionAccepted, ListeningConnectionCreated, DNSQueryResponse:
		return FromNetwork
	case LogonSuccess, LogonFailed, Logoff, UserAccountCreated, UserAccountModified, UserAccountDeleted:
		return FromAuth
	case ServiceInstalled, ServiceModified, ServiceDeleted, ScheduledTaskCreated, ScheduledTaskUpdated,
		ScheduledTaskDeleted, DriverLoad, ImageLoaded, BPFProgramLoaded:
		return FromSystem
	case AntivirusDetection, AntivirusRemediation, OpenAllowedUnscanned, ScanStarted, ScanCompleted, ScanCancelled, BehaviorDetection:
		return FromProtection
	default:
		return FromAgent
	}
}
