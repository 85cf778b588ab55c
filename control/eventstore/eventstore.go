// Package eventstore says what it means to keep events: the Store that DuckDB
// implements here and that an engine for many machines implements later, the
// columns that every engine has, and what a person sees of an event.
//
// The promises, which eventstoretest checks of every engine:
//
//   - An event is stored once, however often and in whatever order it arrives,
//     also when the process is killed between two arrivals.
//   - When Append has returned without an error, what it was given is on disk.
//   - A reader sees the events of the organization it names and no others: the
//     engine adds that condition itself, and an empty organization is refused.
//   - What is missing is known: Coverage tells which numbers of each sequence
//     came, which did not, and what the agent itself counted as lost.
package eventstore

import (
	"context"
	"time"

	"komainu/event"
)

// Entry is an event on its way into the store.
type Entry struct {
	Organization string
	Event        *event.Event
	// Record is the event in the encoding that it travelled in. The store
	// keeps it as it is and gives it to the Decode that it was opened with, so
	// that an event comes back exactly as it came.
	Record []byte
	// Received is when the control plane got it. Retention counts from here,
	// because the clock of a device can be anything.
	Received time.Time
}

// Decode is the inverse of the encoding of Entry.Record.
type Decode func(event.DeviceID, []byte) (*event.Event, error)

// Appended says what became of the entries of one Append.
type Appended struct {
	Stored     int
	Duplicates int // were there already, or twice in the call
}

// Store keeps events. Its methods may be called concurrently.
type Store interface {
	// Append stores the entries that it does not have yet, all or none, and
	// returns when they are on disk. The entries are the caller's again
	// afterwards. An entry that can never be stored makes it fail with
	// fault.Invalid; a full disk with fault.Exhausted, and the same call
	// succeeds once there is room.
	Append(ctx context.Context, entries []Entry) (Appended, error)
	// Timeline returns a page of events, newest first.
	Timeline(ctx context.Context, q Query) (Page, error)
	// Get returns the events with these ids that exist, in the order of ids.
	Get(ctx context.Context, organization string, ids []event.ID) ([]event.Event, error)
	// Coverage tells, for every sequence of a device, what came and what did
	// not, ordered by epoch and source.
	Coverage(ctx context.Context, organization string, device event.DeviceID) ([]Coverage, error)
	// Purge deletes what was received before the given time and returns how
	// many events that were.
	Purge(ctx context.Context, before time.Time) (int, error)
	// Close makes the store durable and releases it.
	Close() error
}

// Query selects events of a timeline. The zero value of a field does not
// select.
type Query struct {
	Organization string         // required
	Device       event.DeviceID // required
	From, To     time.Time      // From ≤ time < To, on the device's clock
	Actions      []event.Action
	Text         string // case-insensitive part of one of Row.Texts
	Limit        int    // DefaultLimit when 0, at most MaxLimit
	Cursor       string // Page.Next of the page before, or Page.Newer with Newer
	// Newer asks for the events next above the cursor, or next above From
	// without one, instead of those below it.
	Newer bool
}

// Bounds of Query.Limit and Get.
const (
	DefaultLimit = 100
	MaxLimit     = 1000
	MaxText      = 256 // bytes of Query.Text
)

// Page is a part of a timeline, newest first in either direction. Events that
// arrive between two pages do not move what the following pages hold.
type Page struct {
	Events []event.Event
	Next   string // cursor of the page with what is older, "" on the last one
	Newer  string // cursor for Query.Newer; a timeline can always grow there
}

// Coverage tells how complete one sequence of a device is.
type Coverage struct {
	Epoch  event.Epoch
	Source event.Source
	First  uint64 // lowest number that came
	Last   uint64 // highest number that came
	Stored uint64 // how many came
	// Missing is how many of 1…Last did not come (yet), Gaps where, at most
	// MaxGaps of them, newest last.
	Missing uint64
	Gaps    []Range
	// Lost is what the agent counted as lost before it had a number, by where
	// it happened.
	Lost map[string]uint64
	// From and To are the times of the earliest and the latest event.
	From, To time.Time
}

// MaxGaps bounds Coverage.Gaps.
const MaxGaps = 100
