// Package realtime decides on file opens while the opener waits.
//
// Three processes share the work (DESIGN.md). The guardian, which is the main
// process, creates the fanotify group and a piece of shared memory, starts
// the other two and restarts them. The broker reads and answers events, and
// keeps the deadline. The worker judges: through a Handle it gets every open
// that the kernel does not know to be clean, asks a Judge, and remembers.
//
// An opener waits at most Deadline, whatever dies, stops or hangs.
package realtime

import (
	"context"
	"os"
	"time"

	"komainu/event"
	"komainu/policy"
)

// Deadline is how long an open is held. With the time to notice that a
// process has stopped it stays below half a second.
const Deadline = 200 * time.Millisecond

// Kind says what happened to a file.
type Kind uint8

// The kinds.
const (
	OpenPerm   Kind = iota + 1 // somebody waits for the answer
	CloseWrite                 // a writer has closed it
	Executed                   // it was started, on a filesystem that is only watched
	Missed                     // it was opened without a judgement; Open.Reason says why
)

// Known is what the worker remembers of a file.
type Known uint8

// What can be known. It holds for the content that Stamp stands for.
const (
	Unknown    Known = iota
	KnownClean       // judged before, and not changed since
	KnownBad         // denied before, and not changed since
)

// Stamp tells whether a file is the one that was scanned.
type Stamp struct {
	Device, Inode uint64
	Size          int64
	ModTime       int64 // nanoseconds
	ChangeTime    int64 // nanoseconds
}

// Open is a file to judge.
type Open struct {
	File   *os.File // read-only; closed when Judge returns
	Path   string   // by the kernel's word, now; "" if it has none
	PID    event.PID
	Kind   Kind
	Mode   policy.Mode // of its filesystem
	Known  Known       // what is known need not be scanned again
	Stamp  Stamp
	Reason string    // of Missed: "deadline", "worker" or "broker", whatever did not answer
	At     time.Time // when the event reached the worker
}

// Decision is the answer to an Open. For other kinds than OpenPerm, Deny
// means that the file is bad and later opens are denied.
type Decision struct {
	Deny bool
	// Cache lets the worker remember the decision for as long as the file does
	// not change, and the kernel too when it is not Deny.
	Cache bool
}

// Judge decides. It is called from several goroutines at once, never for
// files that the agent itself opens. Its ctx ends when the worker stops; the
// opener of an OpenPerm stops waiting at the Deadline, but the judgement goes
// on and is remembered.
//
// A file that is known to be clean comes only as Missed. One that is known to
// be bad comes each time, on goroutines of its own: an exclusion may let this
// opener have it, and whoever counts attempts wants to know.
type Judge interface {
	Judge(ctx context.Context, o Open) Decision
}

// Mark says what to do on the filesystem that holds a path.
type Mark struct {
	Path string
	Mode policy.Mode // Block or Watch; anything else is as if it were not listed
}

// Stats counts since the guardian started; all processes add to them.
type Stats struct {
	Events      uint64 // permission events
	Allowed     uint64 // by a judgement, or because only regular files are judged
	Denied      uint64
	Cached      uint64 // opens that left a mark in the kernel
	Own         uint64 // opens by the agent, allowed at once
	Expired     uint64 // allowed because the deadline passed
	PassedBy    uint64 // allowed because the worker did not live or did not answer
	Busy        uint64 // allowed because there was too much to do
	Drained     uint64 // allowed by the guardian in place of the broker
	Unreadable  uint64 // denied by the kernel because it could not make the event
	Notified    uint64 // CloseWrite and Executed
	Dropped     uint64 // of these and of Missed, not judged for lack of room
	Merged      uint64 // of CloseWrite, seen to by the judgement of a later one
	Overflowed  uint64 // times that the kernel's queue was full
	BrokerRuns  uint64
	WorkerRuns  uint64
	BrokerStale uint64 // times that the guardian found the broker stopped
	WorkerStale uint64 // times that the guardian found the worker stopped
}

// Unscanned returns how many opens were allowed without a judgement.
func (s Stats) Unscanned() uint64 { return s.Expired + s.PassedBy + s.Busy + s.Drained }

// Mount is a mounted local filesystem.
type Mount struct {
	Path   string
	Type   string
	Source string
	Device string // major:minor
}
