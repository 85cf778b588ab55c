// Package eventstoretest checks that an engine keeps the promises of
// eventstore.Store. Every engine runs it; it compares the engine with a model
// so naive that it is evidently right.
package eventstoretest

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"komainu/control/eventstore"
	"komainu/event"
	"komainu/fault"
)

// Open opens the engine's store in dir, which keeps what an earlier Open of
// the same dir has stored.
type Open func(t testing.TB, dir string, decode eventstore.Decode) eventstore.Store

// Encode is the encoding of records that the suite uses.
func Encode(e *event.Event) []byte {
	record, err := json.Marshal(e)
	if err != nil {
		panic(fmt.Sprintf("an event that JSON cannot say: %v", err))
	}
	return record
}

// Decode is the inverse of Encode.
func Decode(device event.DeviceID, record []byte) (*event.Event, error) {
	var e event.Event
	if err := json.Unmarshal(record, &e); err != nil {
		return nil, err
	}
	if e.ID.Device != device {
		return nil, errors.New("the record is of another device")
	}
	return &e, nil
}

// Entry returns e as an entry of the organization that arrived at a time.
func Entry(organization string, e *event.Event, received time.Time) eventstore.Entry {
	return eventstore.Entry{Organization: organization, Event: e, Record: Encode(e), Received: received}
}

// day is when the events of the suite happen.
var day = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// Equal makes cmp compare events, with addresses as values.
var Equal = cmp.Options{cmpopts.EquateComparable(netip.Addr{})}

// Run checks the engine.
func Run(t *testing.T, open Open) {
	fresh := func(t *testing.T) eventstore.Store {
		t.Helper()
		s := open(t, t.TempDir(), Decode)
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
		return s
	}
	t.Run("exact", func(t *testing.T) { testExact(t, fresh(t)) })
	t.Run("duplicates", func(t *testing.T) { testDuplicates(t, fresh(t)) })
	t.Run("tenants", func(t *testing.T) { testTenants(t, fresh(t)) })
	t.Run("paging", func(t *testing.T) { testPaging(t, fresh(t)) })
	t.Run("newer", func(t *testing.T) { testNewer(t, fresh(t)) })
	t.Run("hostile_values", func(t *testing.T) { testHostile(t, fresh(t)) })
	t.Run("refusals", func(t *testing.T) { testRefusals(t, fresh(t)) })
	t.Run("concurrency", func(t *testing.T) { testConcurrency(t, fresh(t)) })
	t.Run("losses", func(t *testing.T) { testLosses(t, fresh(t)) })
	t.Run("closed", func(t *testing.T) { testClosed(t, open) })
	t.Run("model", func(t *testing.T) { testModel(t, open) })
}

// must appends and returns what became of it.
func must(t testing.TB, s eventstore.Store, entries ...eventstore.Entry) eventstore.Appended {
	t.Helper()
	done, err := s.Append(t.Context(), entries)
	if err != nil {
		t.Fatalf("append: %v", err)
	}
	return done
}

// timeline reads a whole timeline in pages.
func timeline(t testing.TB, s eventstore.Store, q eventstore.Query) (events []event.Event) {
	t.Helper()
	for {
		page, err := s.Timeline(t.Context(), q)
		if err != nil {
			t.Fatalf("timeline: %v", err)
		}
		events = append(events, page.Events...)
		if page.Next == "" {
			return events
		}
		if len(page.Events) == 0 {
			t.Fatal("a page without events has a next one")
		}
		q.Cursor = page.Next
	}
}

// created is a process event with numbers from its sequence number.
func created(device string, epoch event.Epoch, seq uint64) *event.Event {
	return &event.Event{
		ID:     event.ID{Device: event.DeviceID(device), Epoch: epoch, Source: event.FromProcess, Seq: seq},
		Time:   day.Add(time.Duration(seq) * time.Second),
		Action: event.ProcessCreated,
		Process: &event.Process{
			Key:  event.ProcessKey{Boot: "b1", PID: event.PID(seq), Start: seq * 1000},
			Path: "/usr/bin/tool", Name: "tool", Args: []string{"tool", fmt.Sprintf("--number=%d", seq)},
		},
	}
}

func testExact(t *testing.T, s eventstore.Store) {
	all := Everything("device-1")
	var entries []eventstore.Entry
	for _, e := range all {
		entries = append(entries, Entry("org", e, day))
	}
	if done := must(t, s, entries...); done.Stored != len(all) {
		t.Fatalf("stored %d of %d", done.Stored, len(all))
	}
	var ids []event.ID
	var want []event.Event
	for _, e := range all {
		ids = append(ids, e.ID)
		want = append(want, *e)
	}
	got, err := s.Get(t.Context(), "org", ids)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, Equal); diff != "" {
		t.Errorf("events came back changed (-stored +read):\n%s", diff)
	}
	slices.SortFunc(want, func(a, b event.Event) int {
		return eventstore.PositionOf(&b).Compare(eventstore.PositionOf(&a))
	})
	read := timeline(t, s, eventstore.Query{Organization: "org", Device: "device-1", Limit: 7})
	if diff := cmp.Diff(want, read, Equal); diff != "" {
		t.Errorf("the timeline differs (-want +got):\n%s", diff)
	}
	// Every column that text search looks into finds its event.
	for _, e := range all {
		row := eventstore.RowOf(e)
		for _, text := range row.Texts() {
			if text == "" || len(text) > eventstore.MaxText {
				continue
			}
			q := eventstore.Query{Organization: "org", Device: "device-1", Text: strings.ToUpper(text), Limit: eventstore.MaxLimit}
			if !slices.ContainsFunc(timeline(t, s, q), func(found event.Event) bool { return found.ID == e.ID }) {
				t.Errorf("looking for %q does not find event %s", text, e.ID)
			}
		}
	}
}

func testDuplicates(t *testing.T, s eventstore.Store) {
	var entries []eventstore.Entry
	for seq := range uint64(10) {
		entries = append(entries, Entry("org", created("d", 1, seq+1), day))
	}
	if done := must(t, s, slices.Concat(entries[:6], entries[3:5])...); done != (eventstore.Appended{Stored: 6, Duplicates: 2}) {
		t.Errorf("overlap within a call: %+v", done)
	}
	if done := must(t, s, entries...); done != (eventstore.Appended{Stored: 4, Duplicates: 6}) {
		t.Errorf("overlap with what is stored: %+v", done)
	}
	if done := must(t, s, entries...); done != (eventstore.Appended{Duplicates: 10}) {
		t.Errorf("all again: %+v", done)
	}
	if done := must(t, s, Entry("org", created("d", 2, 1), day)); done.Stored != 1 {
		t.Errorf("the same number of another epoch: %+v", done)
	}
	if n := len(timeline(t, s, eventstore.Query{Organization: "org", Device: "d"})); n != 11 {
		t.Errorf("%d events are stored, want 11", n)
	}
}

func testTenants(t *testing.T, s eventstore.Store) {
	must(t, s, Entry("one", created("d1", 1, 1), day), Entry("two", created("d2", 1, 1), day))
	q := eventstore.Query{Organization: "two", Device: "d1"}
	if got := timeline(t, s, q); got != nil {
		t.Errorf("another tenant's timeline: %v", got)
	}
	id := event.ID{Device: "d1", Epoch: 1, Source: event.FromProcess, Seq: 1}
	if got, err := s.Get(t.Context(), "two", []event.ID{id}); err != nil || got != nil {
		t.Errorf("another tenant's event: %v, %v", got, err)
	}
	if got, err := s.Coverage(t.Context(), "two", "d1"); err != nil || len(got) != 0 {
		t.Errorf("another tenant's coverage: %v, %v", got, err)
	}
	if got, err := s.Get(t.Context(), "one", []event.ID{id}); err != nil || len(got) != 1 {
		t.Errorf("the tenant's own event: %v, %v", got, err)
	}
}

func testPaging(t *testing.T, s eventstore.Store) {
	var entries []eventstore.Entry
	for seq := range uint64(50) {
		e := created("d", 1, seq+1)
		e.Time = day.Add(time.Duration(seq/5) * time.Nanosecond) // five at a time, a nanosecond apart
		entries = append(entries, Entry("org", e, day))
	}
	must(t, s, entries...)
	q := eventstore.Query{Organization: "org", Device: "d", Limit: 7}
	var got []uint64
	for page := range 100 {
		p, err := s.Timeline(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range p.Events {
			got = append(got, e.ID.Seq)
		}
		if p.Next == "" {
			break
		}
		q.Cursor = p.Next
		// Something newer arrives between two pages.
		must(t, s, Entry("org", created("d", 2, uint64(page)+1), day))
	}
	var want []uint64
	for seq := range uint64(50) {
		want = append(want, 50-seq)
	}
	if !slices.Equal(got, want) {
		t.Errorf("pages hold %v", got)
	}
}

// testNewer walks upwards from the middle of a timeline: by time first, then
// by cursor, until there is nothing newer, and further when something came.
func testNewer(t *testing.T, s eventstore.Store) {
	at := func(seq uint64) *event.Event {
		e := created("d", 1, seq)
		e.Time = day.Add(time.Duration(seq/5) * time.Second)
		return e
	}
	var entries []eventstore.Entry
	for seq := range uint64(50) {
		entries = append(entries, Entry("org", at(seq+1), day))
	}
	must(t, s, entries...)
	get := func(q eventstore.Query) eventstore.Page {
		t.Helper()
		q.Organization, q.Device = "org", "d"
		p, err := s.Timeline(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	numbers := func(p eventstore.Page) (list []uint64) {
		for _, e := range p.Events {
			list = append(list, e.ID.Seq)
		}
		return list
	}
	expect := func(p eventstore.Page, want ...uint64) {
		t.Helper()
		if got := numbers(p); !slices.Equal(got, want) {
			t.Fatalf("page holds %v, want %v", got, want)
		}
	}
	middle := get(eventstore.Query{Limit: 3, Newer: true, From: day.Add(8 * time.Second)})
	expect(middle, 42, 41, 40)
	up := get(eventstore.Query{Limit: 4, Newer: true, Cursor: middle.Newer})
	expect(up, 46, 45, 44, 43)
	expect(get(eventstore.Query{Limit: 2, Cursor: middle.Next}), 39, 38)
	expect(get(eventstore.Query{Limit: 2, Cursor: up.Next}), 42, 41)
	top := get(eventstore.Query{Limit: 100, Newer: true, Cursor: up.Newer})
	expect(top, 50, 49, 48, 47)
	nothing := get(eventstore.Query{Limit: 100, Newer: true, Cursor: top.Newer})
	expect(nothing)
	if nothing.Newer != top.Newer {
		t.Errorf("a page without events has the cursor %q, want the one that it was asked with", nothing.Newer)
	}
	must(t, s, Entry("org", at(51), day))
	expect(get(eventstore.Query{Limit: 100, Newer: true, Cursor: nothing.Newer}), 51)
	oldest := get(eventstore.Query{Limit: 2, To: day.Add(time.Second)})
	expect(oldest, 4, 3)
	expect(get(eventstore.Query{Limit: 2, Newer: true, Cursor: oldest.Newer}), 6, 5)
	if p := get(eventstore.Query{Limit: 9, To: day}); len(p.Events) != 0 || p.Next != "" || p.Newer != "" {
		t.Errorf("a page before everything: %+v", p)
	}
}

func testHostile(t *testing.T, s eventstore.Store) {
	long := strings.Repeat("長い ", 100_000)
	times := []time.Time{{}, time.Unix(0, 0).UTC(), time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC), time.Date(1600, 1, 1, 0, 0, 0, 0, time.UTC), day}
	var want []event.ID
	for i, at := range times {
		e := created("d", ^event.Epoch(0), ^uint64(0)-uint64(i))
		e.Time = at
		e.Process.Args = []string{"\x00", "'; DROP TABLE events; --", long, "%", `\`}
		e.Process.Path = "/a\x00b"
		e.Process.User.Name = "\u202e"
		if done := must(t, s, Entry("org", e, day)); done.Stored != 1 {
			t.Errorf("event of %v is not stored", at)
		}
		want = append(want, e.ID)
	}
	got, err := s.Get(t.Context(), "org", want)
	if err != nil || len(got) != len(want) {
		t.Fatalf("%d events, %v", len(got), err)
	}
	for i, e := range got {
		if !e.Time.Equal(times[i]) || e.Process.Args[2] != long {
			t.Errorf("event %d came back changed", i)
		}
	}
	if n := len(timeline(t, s, eventstore.Query{Organization: "org", Device: "d", Limit: 2})); n != len(times) {
		t.Errorf("the timeline has %d events, want %d", n, len(times))
	}
	if n := len(timeline(t, s, eventstore.Query{Organization: "org", Device: "d", Text: "drop table"})); n != len(times) {
		t.Errorf("looking for text finds %d events, want %d", n, len(times))
	}
	for _, wild := range []string{"%_%_%", `\%`, "长"} {
		if n := len(timeline(t, s, eventstore.Query{Organization: "org", Device: "d", Text: wild})); n != 0 {
			t.Errorf("%q is a pattern: %d events", wild, n)
		}
	}
}

func testRefusals(t *testing.T, s eventstore.Store) {
	ctx := t.Context()
	wantKind := func(what string, err error, kind fault.Kind) {
		t.Helper()
		if !fault.Is(err, kind) || err == nil {
			t.Errorf("%s: %v, want kind %v", what, err, kind)
		}
	}
	_, err := s.Timeline(ctx, eventstore.Query{Device: "d"})
	wantKind("timeline without a tenant", err, fault.Internal)
	_, err = s.Get(ctx, "", []event.ID{{Device: "d"}})
	wantKind("get without a tenant", err, fault.Internal)
	_, err = s.Coverage(ctx, "", "d")
	wantKind("coverage without a tenant", err, fault.Internal)
	_, err = s.Timeline(ctx, eventstore.Query{Organization: "org"})
	wantKind("timeline without a device", err, fault.Invalid)
	for _, cursor := range []string{"x", "!", "MS8yLzM", strings.Repeat("A", 1000)} {
		_, err = s.Timeline(ctx, eventstore.Query{Organization: "org", Device: "d", Cursor: cursor})
		wantKind("cursor "+cursor, err, fault.Invalid)
	}
	_, err = s.Timeline(ctx, eventstore.Query{Organization: "org", Device: "d", Limit: eventstore.MaxLimit + 1})
	wantKind("limit", err, fault.Invalid)

	good := Entry("org", created("d", 1, 1), day)
	noSeq := Entry("org", created("d", 1, 0), day)
	noTenant := Entry("", created("d", 1, 2), day)
	for _, bad := range []eventstore.Entry{noSeq, noTenant, {Organization: "org"}} {
		_, err = s.Append(ctx, []eventstore.Entry{good, bad})
		wantKind("bad entry", err, fault.Invalid)
	}
	if n := len(timeline(t, s, eventstore.Query{Organization: "org", Device: "d"})); n != 0 {
		t.Errorf("a refused call stored %d events", n)
	}
	must(t, s, good)
}

func testConcurrency(t *testing.T, s eventstore.Store) {
	const writers, each, overlap = 4, 30, 10
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				first := uint64((w*each + i) * (overlap - 3)) // batches overlap their neighbours
				var entries []eventstore.Entry
				for k := range uint64(overlap) {
					entries = append(entries, Entry("org", created("d", 1, first+k+1), day))
				}
				if _, err := s.Append(t.Context(), entries); err != nil {
					t.Errorf("append: %v", err)
				}
				if _, err := s.Timeline(t.Context(), eventstore.Query{Organization: "org", Device: "d", Limit: 5}); err != nil {
					t.Errorf("timeline: %v", err)
				}
				if _, err := s.Coverage(t.Context(), "org", "d"); err != nil {
					t.Errorf("coverage: %v", err)
				}
			}
		})
	}
	wg.Wait()
	total := (writers*each-1)*(overlap-3) + overlap
	got := timeline(t, s, eventstore.Query{Organization: "org", Device: "d", Limit: eventstore.MaxLimit})
	if len(got) != total {
		t.Errorf("%d events, want %d", len(got), total)
	}
	cover, err := s.Coverage(t.Context(), "org", "d")
	if err != nil || len(cover) != 1 || cover[0].Stored != uint64(total) || cover[0].Missing != 0 || cover[0].Gaps != nil {
		t.Errorf("coverage %+v, %v", cover, err)
	}
}

func testLosses(t *testing.T, s eventstore.Store) {
	loss := func(seq, count uint64, where string, source event.Source) eventstore.Entry {
		return Entry("org", &event.Event{
			ID: event.ID{Device: "d", Epoch: 1, Source: event.FromAgent, Seq: seq}, Time: day, Action: event.EventsLost,
			Loss: &event.Loss{Where: where, Source: source, Count: count, Since: day, Until: day.Add(time.Second)},
		}, day)
	}
	entries := []eventstore.Entry{
		loss(1, 5, "kernel_ring", event.FromProcess), loss(2, 7, "kernel_ring", event.FromProcess),
		loss(3, 1, "spool", event.FromProcess), loss(4, 9, "kernel_ring", event.FromFile),
		Entry("org", created("d", 1, 3), day),
	}
	must(t, s, entries...)
	must(t, s, entries...) // losses do not count twice either
	got, err := s.Coverage(t.Context(), "org", "d")
	if err != nil {
		t.Fatal(err)
	}
	want := []eventstore.Coverage{
		{Epoch: 1, Source: event.FromAgent, First: 1, Last: 4, Stored: 4, From: day, To: day},
		{Epoch: 1, Source: event.FromFile, Lost: map[string]uint64{"kernel_ring": 9}},
		{
			Epoch: 1, Source: event.FromProcess, First: 3, Last: 3, Stored: 1, Missing: 2, Gaps: []eventstore.Range{{First: 1, Last: 2}},
			Lost: map[string]uint64{"kernel_ring": 12, "spool": 1}, From: day.Add(3 * time.Second), To: day.Add(3 * time.Second),
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("coverage (-want +got):\n%s", diff)
	}
}

func testClosed(t *testing.T, open Open) {
	s := open(t, t.TempDir(), Decode)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("closing twice: %v", err)
	}
	if _, err := s.Append(t.Context(), []eventstore.Entry{Entry("org", created("d", 1, 1), day)}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("append after close: %v", err)
	}
	if _, err := s.Timeline(t.Context(), eventstore.Query{Organization: "org", Device: "d"}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("timeline after close: %v", err)
	}
}
