// Package ingest works on what agents have sent: it takes batches from the
// queue, hands their events to the event store and their findings to whoever
// makes alerts of them.
//
// The two are consumers of their own, Events and Findings, each reading every
// batch, so that a slow store never delays an alert. Both may be given a batch
// any number of times: the store drops events that it has, and findings carry
// an id. Who sent a batch is what the queue says, never what the batch says.
package ingest

import (
	"context"
	"log/slog"
	"time"

	"komainu/event"
	"komainu/finding"
)

// Names of the two consumers at the queue.
const (
	EventsConsumer   = "events"
	FindingsConsumer = "findings"
)

// Message is a batch as the queue delivers it. Its fields are those of
// queue.Message, so that one converts to the other.
type Message struct {
	Device   event.DeviceID
	Batch    string
	Payload  []byte
	Received time.Time
}

// Entry is an event for the store. Its fields are those of eventstore.Entry,
// so that one converts to the other.
type Entry struct {
	Organization string
	Event        *event.Event
	Record       []byte
	Received     time.Time
}

// Config names what ingest works with.
type Config struct {
	// Organization returns the organization that a device belongs to. For a
	// device that does not exist it fails with fault.NotFound.
	Organization func(context.Context, event.DeviceID) (string, error)
	// Append stores events, and drops those that are stored already.
	Append func(context.Context, []Entry) error
	// Findings takes the findings of a device; it may get one more than once.
	Findings func(context.Context, event.DeviceID, []finding.Finding) error
	// Bury puts aside what cannot be decoded.
	Bury func(context.Context, Message, error) error
	// Touched is told which devices have new events, after they are stored.
	// It must not block. May be nil.
	Touched func([]event.DeviceID)
	Log     *slog.Logger
}
