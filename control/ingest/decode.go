package ingest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"komainu/event"
	"komainu/fault"
	"komainu/finding"
	"komainu/wire"
)

// Ingest is the two consumers. Their methods may be called concurrently.
type Ingest struct {
	cfg Config

	events     atomic.Uint64
	findings   atomic.Uint64
	undecoded  atomic.Uint64
	unassigned atomic.Uint64
}

// New returns an Ingest.
func New(cfg Config) *Ingest {
	cfg.Log = cfg.Log.With("component", "ingest")
	return &Ingest{cfg: cfg}
}

// Stats counts since the start. What arrives twice counts twice.
type Stats struct {
	Events     uint64
	Findings   uint64
	Undecoded  uint64 // records and batches that were buried
	Unassigned uint64 // batches dropped because their device does not exist any more
}

// Stats returns the counters.
func (in *Ingest) Stats() Stats {
	return Stats{
		Events: in.events.Load(), Findings: in.findings.Load(),
		Undecoded: in.undecoded.Load(), Unassigned: in.unassigned.Load(),
	}
}

// Events is the handler of EventsConsumer: it stores the events of messages,
// all or none, and then tells Touched. What cannot be decoded is buried and
// does not keep the rest back.
func (in *Ingest) Events(ctx context.Context, messages []Message) error {
	var entries []Entry
	var touched []event.DeviceID
	for _, m := range messages {
		organization, err := in.cfg.Organization(ctx, m.Device)
		if fault.Is(err, fault.NotFound) {
			// Nobody may see these events. They are kept where an operator
			// finds them.
			in.unassigned.Add(1)
			if err := in.cfg.Bury(ctx, m, err); err != nil {
				return fmt.Errorf("bury a batch of a device that does not exist: %w", err)
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("look up the organization of device %s: %w", m.Device, err)
		}
		records, bad := decode(m)
		if bad != nil {
			in.undecoded.Add(1)
			if err := in.cfg.Bury(ctx, m, bad); err != nil {
				return fmt.Errorf("bury a batch that cannot be decoded: %w", err)
			}
		}
		before := len(entries)
		for _, r := range records {
			if r.Event != nil {
				entries = append(entries, Entry{Organization: organization, Event: r.Event, Record: r.raw, Received: m.Received})
			}
		}
		if len(entries) > before && !slices.Contains(touched, m.Device) {
			touched = append(touched, m.Device)
		}
	}
	if len(entries) == 0 {
		return nil
	}
	if err := in.cfg.Append(ctx, entries); err != nil {
		return fmt.Errorf("store %d events: %w", len(entries), err)
	}
	in.events.Add(uint64(len(entries)))
	if in.cfg.Touched != nil {
		in.cfg.Touched(touched)
	}
	return nil
}

// Findings is the handler of FindingsConsumer: it hands the findings of every
// message on, in order. What cannot be decoded is left to Events, which
// buries it.
func (in *Ingest) Findings(ctx context.Context, messages []Message) error {
	for _, m := range messages {
		var found []finding.Finding
		records, _ := decode(m)
		for _, r := range records {
			if r.Finding != nil {
				found = append(found, *r.Finding)
			}
		}
		if len(found) == 0 {
			continue
		}
		switch err := in.cfg.Findings(ctx, m.Device, found); {
		case fault.Is(err, fault.NotFound):
			in.unassigned.Add(1)
			in.cfg.Log.Warn("findings of a device that does not exist", "device", m.Device, "findings", len(found), "error", err)
		case err != nil:
			return fmt.Errorf("hand on %d findings of device %s: %w", len(found), m.Device, err)
		default:
			in.findings.Add(uint64(len(found)))
		}
	}
	return nil
}

// record is a decoded record with the bytes it came in.
type record struct {
	wire.Record
	raw []byte
}

// decode returns the records of a message that can be decoded, and an error
// that names those that cannot.
func decode(m Message) ([]record, error) {
	frame, err := wire.Decode(m.Payload)
	if err != nil {
		return nil, err
	}
	batch, ok := frame.(*wire.Batch)
	if !ok {
		return nil, fmt.Errorf("%w: a %T in the place of a batch", wire.ErrFrame, frame)
	}
	records := make([]record, 0, len(batch.Records))
	var bad []error
	for i, raw := range batch.Records {
		r, err := wire.DecodeRecord(m.Device, raw)
		if err != nil {
			bad = append(bad, fmt.Errorf("record %d: %w", i, err))
			continue
		}
		records = append(records, record{r, raw})
	}
	return records, errors.Join(bad...)
}
