// Package sensor turns the activity of the host's kernel into events: process
// start and end, TCP connections and listeners, and opens of files that hold
// secrets.
//
// A Sensor has one back end for processes, chosen at Open by trying (a list of
// kernel features proves nothing, loading and attaching does): eBPF, then the
// kernel's process connector over netlink, then none. Beside it runs the
// sensitive-file watch, which has notification-only fanotify groups of its
// own: they can neither hold an open nor be hidden by the ignore marks of
// real-time protection.
//
// Everything comes out of one goroutine, the one that called Run, in the order
// in which it happened as far as the kernel tells it: an open of a file is
// handed on after the exec of the process that opens it. What the kernel or a
// queue dropped comes out as an EventsLost event.
//
// Only processes of the agent's own pid namespace and of namespaces below it
// are reported, with the pid that they have in the agent's.
package sensor

import (
	"log/slog"
	"time"

	"komainu/event"
	"komainu/health"
)

// Config says what the sensor observes and whom it asks.
type Config struct {
	// EBPF false leaves eBPF out and starts with netlink.
	EBPF bool
	// HashExecutables computes SHA-256 of executables beside the hot path. The
	// first start of a file may come without it, later ones carry it.
	HashExecutables bool
	// Own reports whether a process belongs to the agent. Of those only start
	// and end are reported. Nil means the calling process alone.
	Own func(event.PID) bool
	// Lookup describes the process that had a pid at a time, from the process
	// tree that the events are fed to. Run calls it from its own goroutine.
	// Nil, or no answer, makes the sensor ask /proc.
	Lookup func(event.PID, time.Time) (event.Process, bool)
	// Filesystems are the mount points on which sensitive files are watched,
	// with everything of the same filesystem. SetFilesystems changes them.
	Filesystems []string
	// Passwd is the file that names accounts and homes, /etc/passwd when empty.
	Passwd string
	// Roots are folders to search for application secrets and keys, beside the
	// homes; nil means DefaultRoots.
	Roots []string
	Log   *slog.Logger
}

// DefaultRoots are the folders where applications keep secrets and keys.
func DefaultRoots() []string {
	return []string{"/etc", "/opt", "/srv", "/usr/local/etc", "/var/lib/jenkins", "/var/www"}
}

// Subsystem names a back end the way `komainu health` shows it.
type Subsystem string

// The subsystems.
const (
	EBPF        Subsystem = "ebpf"
	Netlink     Subsystem = "netlink"
	Unavailable Subsystem = "unavailable"
)

// Status is what the sensor can do on this host and what it has done so far.
type Status struct {
	Subsystem Subsystem
	Network   bool   // TCP connections and listeners are reported
	Reason    string // why it is not more, "" when nothing is missing
	Remedy    string
	Limits    string // what this kernel does not give, and the sensor does without
	Watch     WatchStatus
	Counters  Counters
}

// WatchStatus is the state of the sensitive-file watch.
type WatchStatus struct {
	On          bool
	Searched    bool     // the first search for existing files is done
	Files       int      // files watched
	Folders     int      // folders whose children are watched
	Filesystems []string // where new sensitive files are noticed
	Reason      string   // why not everything is watched
	Limits      string   // what this kernel does not give, and the watch does without
}

// Counters of a sensor since Open.
type Counters struct {
	Emitted  uint64 // events handed on
	Lost     uint64 // dropped by the kernel or a queue, reported as EventsLost
	Own      uint64 // of the agent's own processes, left out
	Repeated uint64 // further opens of one file by one process within a second
	Foreign  uint64 // opens by processes outside the agent's pid namespace
}

// Conditions returns the status as the agent's health shows it.
func (s Status) Conditions(since time.Time) []health.Condition {
	sensor := health.Condition{Part: "sensor", State: health.OK, Since: since, Reason: s.Reason, Remedy: s.Remedy}
	switch {
	case s.Subsystem == Unavailable:
		sensor.State, sensor.Code, sensor.Detail = health.Failed, health.SensorMissing, s.Reason
	case s.Reason != "":
		sensor.State, sensor.Code, sensor.Detail = health.Degraded, health.SensorReduced, s.Reason
	case s.Limits != "":
		sensor.Code, sensor.Reason, sensor.Detail = health.KernelLimits, s.Limits, s.Limits
	}
	watch := health.Condition{Part: "sensitive_files", State: health.OK, Since: since, Reason: s.Watch.Reason}
	switch {
	case !s.Watch.On:
		watch.State, watch.Code, watch.Detail = health.Failed, health.FilesNotWatched, s.Watch.Reason
	case s.Watch.Reason != "":
		watch.State, watch.Code, watch.Detail = health.Degraded, health.FilesPartlyWatched, s.Watch.Reason
	case s.Watch.Limits != "":
		watch.Code, watch.Reason, watch.Detail = health.KernelLimits, s.Watch.Limits, s.Watch.Limits
	}
	return []health.Condition{sensor, watch}
}

// IsFork reports whether ev is a process that was created by fork alone. Such
// a process runs the program of its parent; when it executes another one, a
// further ProcessCreated with the same key follows. The tree and the rules
// need both, a store may leave these out.
func IsFork(ev *event.Event) bool {
	return ev.Action == event.ProcessCreated && ev.Fields[fieldVia] == viaFork
}

// Fields of the events, which have no column of their own.
const (
	fieldVia = "via"
	viaFork  = "fork"
)
