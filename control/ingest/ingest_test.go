package ingest_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	"komainu/control/ingest"
	"komainu/event"
	"komainu/fault"
	"komainu/finding"
	"komainu/wire"
)

var now = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

// desk is what ingest works with: it writes down what it is given.
type desk struct {
	entries  []ingest.Entry
	findings map[event.DeviceID][]finding.Finding
	buried   []ingest.Message
	touched  []event.DeviceID

	appendErr, findingsErr, organizationErr error
}

func (d *desk) ingest(t *testing.T) *ingest.Ingest {
	d.findings = map[event.DeviceID][]finding.Finding{}
	return ingest.New(ingest.Config{
		Organization: func(_ context.Context, device event.DeviceID) (string, error) {
			if device == "gone" {
				return "", fault.New(fault.NotFound, "device %s does not exist", device)
			}
			return "org of " + string(device), d.organizationErr
		},
		Append: func(_ context.Context, entries []ingest.Entry) error {
			if d.appendErr == nil {
				d.entries = append(d.entries, entries...)
			}
			return d.appendErr
		},
		Findings: func(_ context.Context, device event.DeviceID, found []finding.Finding) error {
			if device == "gone" {
				return fault.New(fault.NotFound, "device %s does not exist", device)
			}
			if d.findingsErr == nil {
				d.findings[device] = append(d.findings[device], found...)
			}
			return d.findingsErr
		},
		Bury: func(_ context.Context, m ingest.Message, _ error) error {
			d.buried = append(d.buried, m)
			return nil
		},
		Touched: func(devices []event.DeviceID) { d.touched = append(d.touched, devices...) },
		Log:     slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
}

func eventRecord(t *testing.T, seq uint64) []byte {
	t.Helper()
	e := &event.Event{
		ID:   event.ID{Device: "a device that the sender invents", Epoch: 3, Source: event.FromProcess, Seq: seq},
		Time: now, Action: event.ProcessCreated, Process: &event.Process{Path: "/bin/true"},
	}
	b, err := wire.EncodeEvent(e)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func findingRecord(t *testing.T, id finding.ID) []byte {
	t.Helper()
	b, err := wire.EncodeFinding(&finding.Finding{ID: id, Time: now, Title: "t", Severity: finding.Low})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func message(t *testing.T, device event.DeviceID, records ...[]byte) ingest.Message {
	t.Helper()
	payload, err := wire.Encode(&wire.Batch{Epoch: 3, ID: 1, Records: records})
	if err != nil {
		t.Fatal(err)
	}
	return ingest.Message{Device: device, Batch: "3/1", Payload: payload, Received: now}
}

func TestEventsAndFindingsTakeTheirPart(t *testing.T) {
	var d desk
	in := d.ingest(t)
	batch := []ingest.Message{
		message(t, "d1", eventRecord(t, 1), findingRecord(t, "f1"), eventRecord(t, 2)),
		message(t, "d2", findingRecord(t, "f2")),
		message(t, "d1", eventRecord(t, 3)),
	}
	if err := in.Events(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	if err := in.Findings(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	var seqs []uint64
	for _, e := range d.entries {
		seqs = append(seqs, e.Event.ID.Seq)
		if e.Event.ID.Device != "d1" || e.Organization != "org of d1" || !e.Received.Equal(now) {
			t.Errorf("entry %+v", e)
		}
		r, err := wire.DecodeRecord("d1", e.Record)
		if err != nil || r.Event.ID != e.Event.ID {
			t.Errorf("the record of %s is not its encoding: %v", e.Event.ID, err)
		}
	}
	if !slices.Equal(seqs, []uint64{1, 2, 3}) {
		t.Errorf("stored %v", seqs)
	}
	if !slices.Equal(d.touched, []event.DeviceID{"d1"}) {
		t.Errorf("touched %v", d.touched)
	}
	if len(d.findings["d1"]) != 1 || d.findings["d1"][0].ID != "f1" || d.findings["d1"][0].Device != "d1" || len(d.findings["d2"]) != 1 {
		t.Errorf("findings %v", d.findings)
	}
	if got := in.Stats(); got != (ingest.Stats{Events: 3, Findings: 2}) {
		t.Errorf("stats %+v", got)
	}
}

func TestWhatCannotBeDecodedKeepsNothingBack(t *testing.T) {
	var d desk
	in := d.ingest(t)
	hello, err := wire.Encode(&wire.Hello{Protocol: 1})
	if err != nil {
		t.Fatal(err)
	}
	batch := []ingest.Message{
		{Device: "d1", Payload: []byte("\xff\xff not protobuf")},
		{Device: "d1", Payload: hello},
		message(t, "d1", eventRecord(t, 1), []byte("\xff"), findingRecord(t, "f1"), nil),
		message(t, "gone", eventRecord(t, 1), findingRecord(t, "f9")),
	}
	if err := in.Events(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	if err := in.Findings(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	if len(d.entries) != 1 || len(d.findings["d1"]) != 1 {
		t.Errorf("%d events, %v findings", len(d.entries), d.findings)
	}
	if len(d.buried) != 4 {
		t.Errorf("%d messages are buried, want 4", len(d.buried))
	}
	if got := in.Stats(); got != (ingest.Stats{Events: 1, Findings: 1, Undecoded: 3, Unassigned: 2}) {
		t.Errorf("stats %+v", got)
	}
}

func TestAFailureIsHandedBack(t *testing.T) {
	boom := errors.New("boom")
	for name, d := range map[string]*desk{
		"append":       {appendErr: boom},
		"findings":     {findingsErr: boom},
		"organization": {organizationErr: boom},
	} {
		t.Run(name, func(t *testing.T) {
			in := d.ingest(t)
			batch := []ingest.Message{message(t, "d1", eventRecord(t, 1), findingRecord(t, "f1"))}
			err := errors.Join(in.Events(t.Context(), batch), in.Findings(t.Context(), batch))
			if !errors.Is(err, boom) {
				t.Errorf("the failure is swallowed: %v", err)
			}
			if d.touched != nil && name != "findings" {
				t.Errorf("devices are announced though nothing is stored: %v", d.touched)
			}
		})
	}
}
