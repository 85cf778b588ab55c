package duckdb_test

import (
	"testing"
	"time"

	"komainu/control/eventstore"
	"komainu/control/eventstore/duckdb"
	"komainu/control/eventstore/eventstoretest"
	"komainu/fault"
)

// TestShrinkDeletesTheOldest fills a store beyond a limit: the oldest events
// go, the newest stay. A bound that cannot be kept is said, not reached for.
func TestShrinkDeletesTheOldest(t *testing.T) {
	s, err := duckdb.Open(t.Context(), config(t, t.TempDir(), eventstoretest.Decode))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	const each, batches = 10_000, 26 // more than two row groups
	for i := range batches {
		var entries []eventstore.Entry
		for n := range uint64(each) {
			entries = append(entries, eventstoretest.Entry("org", fileEvent(uint64(i)*each+n+1), time.Unix(int64(1_800_000_000+i), 0)))
		}
		if _, err := s.Append(t.Context(), entries); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Purge(t.Context(), time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	full, err := s.Used(t.Context())
	if err != nil || full == 0 {
		t.Fatal(full, err)
	}
	if n, err := s.Shrink(t.Context(), full); err != nil || n != 0 {
		t.Errorf("what fits is left alone: %d, %v", n, err)
	}
	deleted, err := s.Shrink(t.Context(), full*3/4)
	used, _ := s.Used(t.Context())
	left, _ := s.Count(t.Context())
	t.Logf("%d bytes, %d after %d of %d events were deleted", full, used, deleted, each*batches)
	if err != nil || used > full*3/4 || deleted == 0 || int64(deleted)+left != each*batches || left == 0 {
		t.Fatalf("deleted %d, left %d, used %d of %d, %v", deleted, left, used, full, err)
	}
	page, err := s.Timeline(t.Context(), eventstore.Query{Organization: "org", Device: "d", Limit: 1})
	if err != nil || len(page.Events) != 1 || page.Events[0].ID.Seq != each*batches {
		t.Errorf("the newest is not there: %+v, %v", page.Events, err)
	}
	left, _ = s.Count(t.Context())
	if _, err := s.Shrink(t.Context(), 1); !fault.Is(err, fault.Exhausted) {
		t.Errorf("a bound of one byte: %v", err)
	}
	if now, _ := s.Count(t.Context()); now < left/3 {
		t.Errorf("for a bound that cannot be kept %d of %d events were deleted", left-now, left)
	}
}
