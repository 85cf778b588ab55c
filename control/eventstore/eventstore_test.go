package eventstore_test

import (
	"encoding/json"
	"flag"
	"math/bits"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"komainu/control/eventstore"
	"komainu/control/eventstore/eventstoretest"
	"komainu/event"
	"komainu/fault"
)

var update = flag.Bool("update", false, "write the golden files")

// TestViews compares what the API shows of every kind of event with a file
// that a reviewer reads.
func TestViews(t *testing.T) {
	var views []eventstore.View
	for _, e := range eventstoretest.Everything("device-1") {
		views = append(views, eventstore.ViewOf(e))
	}
	got, err := json.MarshalIndent(views, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "views.json")
	if *update {
		if err := os.WriteFile(golden, append(got, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(string(got)+"\n", "\n")); diff != "" {
		t.Errorf("views differ from %s (-want +got); -update writes it:\n%s", golden, diff)
	}
}

// TestSummaryOfAnything checks that no event, however little or much it says,
// breaks its summary.
func TestSummaryOfAnything(t *testing.T) {
	actions := []event.Action{"", "SomethingOfANewerAgent"}
	for _, e := range eventstoretest.Everything("d") {
		actions = append(actions, e.Action)
	}
	actions = append(actions, event.FileCreated, event.FileModified, event.FileDeleted, event.FilePermissionChanged, event.FileLinked,
		event.SensitiveFileRead, event.RawAccessRead, event.ConnectionFailed, event.InboundConnectionAccepted, event.ListeningConnectionCreated,
		event.LogonSuccess, event.Logoff, event.UserAccountModified, event.ServiceDeleted, event.ImageLoaded, event.BPFProgramLoaded,
		event.OpenAllowedUnscanned, event.BehaviorDetection, event.AntivirusRemediation, event.ScanStarted, event.ProcessAccessed, event.SignalSent,
		event.AgentStarted, event.PolicyApplied, event.HealthChanged)
	for _, a := range actions {
		if s := eventstore.Summary(&event.Event{Action: a}); s == "" && a != "" {
			t.Errorf("%s has no summary", a)
		}
	}
	long := &event.Event{Action: event.ProcessCreated, Process: &event.Process{Name: "x", Args: []string{strings.Repeat("語", 1000)}}}
	if s := eventstore.Summary(long); len(s) > 310 || !utf8.ValidString(s) {
		t.Errorf("summary of %d bytes, valid: %v", len(s), utf8.ValidString(s))
	}
}

func TestCursorRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := eventstore.Position{
			Nanos: rapid.Int64().Draw(t, "nanos"), Epoch: event.Epoch(rapid.Uint64().Draw(t, "epoch")),
			Source: rapid.SampledFrom(event.Sources()).Draw(t, "source"), Seq: rapid.Uint64().Draw(t, "seq"),
		}
		got, err := eventstore.ParsePosition(p.String())
		if err != nil || got != p {
			t.Fatalf("%+v came back as %+v, %v", p, got, err)
		}
	})
	if _, err := eventstore.ParsePosition("%%%"); !fault.Is(err, fault.Invalid) {
		t.Errorf("a broken cursor: %v", err)
	}
}

// TestSequence compares Sequence with 64 bits.
func TestSequence(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s eventstore.Sequence
		var have uint64 // bit n is number n+1
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			first := rapid.IntRange(0, 63).Draw(t, "first")
			last := min(63, first+rapid.IntRange(0, 4).Draw(t, "more"))
			mask := (^uint64(0) >> (63 - (last - first))) << first
			if have&mask == 0 {
				s.Add(eventstore.Range{First: uint64(first) + 1, Last: uint64(last) + 1}, uint64(last-first)+1)
				have |= mask
			}
		}
		for n := range uint64(64) {
			if s.Has(n+1) != (have>>n&1 == 1) {
				t.Fatalf("Has(%d) is wrong of %b: %v", n+1, have, s.Ranges())
			}
		}
		if s.Stored != uint64(bits.OnesCount64(have)) || s.Last() != uint64(bits.Len64(have)) || have != 0 && s.First() != uint64(bits.TrailingZeros64(have))+1 {
			t.Fatalf("%b: %d numbers, %d to %d", have, s.Stored, s.First(), s.Last())
		}
		missing := uint64(0)
		for _, g := range s.Gaps(100) {
			for n := g.First; n <= g.Last; n++ {
				missing++
				if s.Has(n) {
					t.Fatalf("%d is in a gap of %b", n, have)
				}
			}
		}
		if missing != s.Missing() {
			t.Fatalf("gaps hold %d, Missing says %d", missing, s.Missing())
		}
	})
}

// TestSequenceIsBounded gives a sequence a gap after every number.
func TestSequenceIsBounded(t *testing.T) {
	var s eventstore.Sequence
	const n = 2 * eventstore.MaxRanges
	for i := range uint64(n) {
		s.Add(eventstore.Range{First: 2*i + 1, Last: 2*i + 1}, 1)
	}
	if len(s.Ranges()) > eventstore.MaxRanges {
		t.Errorf("%d ranges are kept", len(s.Ranges()))
	}
	if s.Stored != n || s.Missing() != n-1 {
		t.Errorf("%d stored, %d missing", s.Stored, s.Missing())
	}
	if s.Has(2*n) || !s.Has(2*n-1) || s.Has(2*n-2) {
		t.Error("the newest numbers are not exact")
	}
}

func TestNanos(t *testing.T) {
	times := []time.Time{{}, time.Unix(0, -1<<63), time.Unix(-1, 0), time.Unix(0, 0), time.Unix(0, 1), time.Unix(0, 1<<63-1), time.Unix(1<<60, 0)}
	for i, at := range times[1:] {
		if eventstore.Nanos(times[i]) > eventstore.Nanos(at) {
			t.Errorf("%v is not before %v", times[i], at)
		}
	}
}
