package event_test

import (
	"testing"

	"komainu/event"
)

func TestProcessKey(t *testing.T) {
	exact := event.ProcessKey{Boot: "b", PID: 7, Start: 123_456_789}
	rounded := event.ProcessKey{Boot: "b", PID: 7, Start: 120_000_000, Inexact: true}
	if !exact.Same(rounded) || !rounded.Same(exact) {
		t.Error("a start time from /proc must match the exact one of the same tick")
	}
	if exact.Same(event.ProcessKey{Boot: "b", PID: 7, Start: 123_456_790}) {
		t.Error("exact start times must agree to the nanosecond")
	}
	if exact.Same(event.ProcessKey{Boot: "c", PID: 7, Start: 123_456_789}) {
		t.Error("another boot is another process")
	}
	for _, k := range []event.ProcessKey{exact, rounded} {
		got, err := event.ParseProcessKey(k.String())
		if err != nil || got != k {
			t.Errorf("ParseProcessKey(%q) = %+v, %v", k, got, err)
		}
	}
	for _, bad := range []string{"", "b/7", "b/x/1", "b/7/x", "b/4294967296/1", "b/7/1/2"} {
		if _, err := event.ParseProcessKey(bad); err == nil {
			t.Errorf("ParseProcessKey(%q) has no error", bad)
		}
	}
}

func TestID(t *testing.T) {
	id := event.ID{Device: "d", Epoch: 3, Source: event.FromFile, Seq: 9}
	got, err := event.ParseID(id.String())
	if err != nil || got != id {
		t.Errorf("ParseID(%q) = %+v, %v", id, got, err)
	}
	next := id
	next.Seq++
	if id.Compare(next) >= 0 || next.Compare(id) <= 0 || id.Compare(id) != 0 {
		t.Error("Compare does not order by sequence")
	}
	for _, bad := range []string{"", "d/1/file", "d/x/file/1", "d/1/file/-1"} {
		if _, err := event.ParseID(bad); err == nil {
			t.Errorf("ParseID(%q) has no error", bad)
		}
	}
}
