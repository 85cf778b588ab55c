package spool_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"komainu/agent/spool"
	"komainu/fault"
)

func mustOpen(t testing.TB, dir string, l spool.Limits) *spool.Spool {
	t.Helper()
	s, err := spool.Open(dir, l)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// read returns what is there now, without waiting.
func read(t testing.TB, s *spool.Spool, after uint64, maxBytes int) spool.Batch {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b, err := s.Next(ctx, after, maxBytes)
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	return b
}

func TestRecordsComeBackInOrderAfterARestart(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, spool.Limits{Segment: 64})
	for i := range 20 {
		if err := s.Append(1, fmt.Appendf(nil, "record %d", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Ack(7); err != nil {
		t.Fatal(err)
	}
	stream := s.Stream()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, dir, spool.Limits{Segment: 64})
	defer s.Close()
	if s.Stream() != stream {
		t.Error("the stream changed at a restart")
	}
	var got []string
	for after := uint64(0); ; {
		b := read(t, s, after, 30)
		if len(b.Records) == 0 {
			break
		}
		for _, r := range b.Records {
			got = append(got, string(r))
		}
		after = b.Last()
	}
	if len(got) != 13 || got[0] != "record 7" || got[12] != "record 19" {
		t.Errorf("got %q", got)
	}
}

func TestPositionsGoOnWhenEverythingIsAcknowledged(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, spool.Limits{})
	for range 3 {
		if err := s.Append(1, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(s.Ack(3), s.Close()); err != nil {
		t.Fatal(err)
	}
	if names, _ := filepath.Glob(filepath.Join(dir, "*.seg")); len(names) != 0 {
		t.Errorf("left on disk: %v", names)
	}
	s = mustOpen(t, dir, spool.Limits{})
	defer s.Close()
	if err := s.Append(1, []byte("y")); err != nil {
		t.Fatal(err)
	}
	if b := read(t, s, 0, 100); b.First != 4 || len(b.Records) != 1 {
		t.Errorf("batch %+v: positions must not be given twice", b)
	}
}

func TestNextWaitsForARecord(t *testing.T) {
	s := mustOpen(t, t.TempDir(), spool.Limits{})
	defer s.Close()
	got := make(chan spool.Batch)
	go func() {
		b, err := s.Next(context.WithoutCancel(t.Context()), 0, 100)
		if err != nil {
			t.Error(err)
		}
		got <- b
	}()
	if err := s.Append(2, []byte("late")); err != nil {
		t.Fatal(err)
	}
	select {
	case b := <-got:
		if string(b.Records[0]) != "late" {
			t.Errorf("batch %q", b.Records)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("the reader still waits")
	}
}

func TestFullDropsTheOldestAndCounts(t *testing.T) {
	s := mustOpen(t, t.TempDir(), spool.Limits{Bytes: 1000, Segment: 200})
	defer s.Close()
	for range 100 {
		if err := s.Append(3, make([]byte, 41)); err != nil { // 50 with its header
			t.Fatal(err)
		}
	}
	b := read(t, s, 0, 1<<20)
	lost := s.Lost()
	if b.First == 1 || lost[3] != b.First-1 {
		t.Errorf("first kept %d, counted %v", b.First, lost)
	}
	if st := s.Stats(); st.Bytes > 1200 || st.Waiting+lost[3] != 100 {
		t.Errorf("stats %+v, lost %v", st, lost)
	}
}

func TestDamageInTheMiddleIsSkippedAndCounted(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, spool.Limits{Segment: 100})
	for i := range 9 { // three segments of three
		if err := s.Append(1, fmt.Appendf(nil, "%030d", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	if err != nil || len(names) != 3 {
		t.Fatalf("segments %v, %v", names, err)
	}
	f, err := os.OpenFile(names[1], os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{0xff}, 13+9+30+9+5); err != nil { // in its second record
		t.Fatal(err)
	}
	f.Close()
	s = mustOpen(t, dir, spool.Limits{Segment: 100})
	defer s.Close()
	var positions []uint64
	for after := uint64(0); ; {
		b := read(t, s, after, 1)
		if len(b.Records) == 0 {
			break
		}
		positions = append(positions, b.First)
		after = b.Last()
	}
	if want := []uint64{1, 2, 3, 4, 7, 8, 9}; !slices.Equal(positions, want) {
		t.Errorf("positions %v, want %v", positions, want)
	}
	if lost := s.Lost(); lost[0] != 2 {
		t.Errorf("lost %v, want 2", lost)
	}
}

func TestNewerFormatIsRefused(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, spool.Limits{})
	if err := errors.Join(s.Append(1, []byte("x")), s.Close()); err != nil {
		t.Fatal(err)
	}
	for _, pattern := range []string{"*.seg", "state"} {
		names, _ := filepath.Glob(filepath.Join(dir, pattern))
		text, err := os.ReadFile(names[0])
		if err != nil {
			t.Fatal(err)
		}
		newer := slices.Clone(text)
		newer[4] = 9
		if err := os.WriteFile(names[0], newer, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := spool.Open(dir, spool.Limits{}); !fault.Is(err, fault.Conflict) {
			t.Errorf("%s of format 9: %v", pattern, err)
		}
		if err := os.WriteFile(names[0], text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestNothingIsLostOrReordered plays random appends, reads, acknowledgements
// and crashes against a list. A crash loses what came after the last Sync,
// from some byte on.
func TestNothingIsLostOrReordered(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "spool")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		limits := spool.Limits{Segment: 120}
		s, err := spool.Open(dir, limits)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { s.Close() }()
		var (
			all    []uint64 // number written at position i+1
			synced uint64   // everything up to here is on disk
			acked  uint64
			serial uint64
		)
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				serial++
				data := binary.LittleEndian.AppendUint64(nil, serial)
				data = append(data, make([]byte, rapid.IntRange(0, 60).Draw(t, "size"))...)
				if err := s.Append(spool.Kind(serial%4), data); err != nil {
					t.Fatal(err)
				}
				all = append(all, serial)
			},
			"sync": func(t *rapid.T) {
				if err := s.Sync(); err != nil {
					t.Fatal(err)
				}
				synced = uint64(len(all))
			},
			"read": func(t *rapid.T) {
				after := rapid.Uint64Range(acked, uint64(len(all))).Draw(t, "after")
				b := readRapid(t, s, after, rapid.IntRange(1, 300).Draw(t, "bytes"))
				want := max(after, acked) + 1
				if want > uint64(len(all)) {
					if len(b.Records) != 0 {
						t.Fatalf("read %d records behind the end", len(b.Records))
					}
					return
				}
				if b.First != want || len(b.Records) == 0 {
					t.Fatalf("read after %d: batch at %d of %d, want %d", after, b.First, len(b.Records), want)
				}
				for i, r := range b.Records {
					if got := binary.LittleEndian.Uint64(r); got != all[b.First+uint64(i)-1] {
						t.Fatalf("position %d holds %d, want %d", b.First+uint64(i), got, all[b.First+uint64(i)-1])
					}
				}
			},
			"ack": func(t *rapid.T) {
				acked = rapid.Uint64Range(acked, uint64(len(all))).Draw(t, "up to")
				if err := s.Ack(acked); err != nil {
					t.Fatal(err)
				}
			},
			"crash": func(t *rapid.T) {
				// The new one opens what the old one wrote; the old one is not closed
				// before, as after a kill.
				if rapid.Bool().Draw(t, "power cut") {
					cutTail(t, dir, uint64(len(all))-max(synced, acked))
				}
				again, err := spool.Open(dir, limits)
				if err != nil {
					t.Fatal(err)
				}
				s = again
				kept := s.Stats().Waiting
				// What is kept ends between the last sync and the end.
				b := readRapid(t, s, 0, 1<<20)
				if len(b.Records) > 0 {
					acked = b.First - 1
				}
				end := acked + kept
				if end < synced || end > uint64(len(all)) {
					t.Fatalf("kept up to %d, synced %d, written %d", end, synced, len(all))
				}
				all, synced = all[:end], end
			},
		})
	})
}

func readRapid(t *rapid.T, s *spool.Spool, after uint64, maxBytes int) spool.Batch {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	b, err := s.Next(ctx, after, maxBytes)
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	return b
}

// cutTail takes bytes off the end of the last segment, at most as many as its
// last n records have.
func cutTail(t *rapid.T, dir string, n uint64) {
	names, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	if err != nil {
		t.Fatal(err)
	}
	if len(names) == 0 || n == 0 {
		return
	}
	name := slices.Max(names)
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	ends := []int{13}
	for at := 13; at+9 <= len(text); {
		at += 9 + int(binary.LittleEndian.Uint32(text[at:]))
		ends = append(ends, at)
	}
	keep := ends[max(0, len(ends)-1-int(min(n, 1000)))]
	cut := rapid.IntRange(keep, len(text)).Draw(t, "cut at")
	if err := os.Truncate(name, int64(cut)); err != nil {
		t.Fatal(err)
	}
}

func FuzzOpen(f *testing.F) {
	f.Add([]byte("KSPL\x01\x01\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01x"))
	f.Add([]byte("KSPL"))
	f.Fuzz(func(t *testing.T, segment []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "0000000000000001.seg"), segment, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := spool.Open(dir, spool.Limits{})
		if err != nil {
			return
		}
		if err := s.Append(1, []byte("after")); err != nil {
			t.Fatal(err)
		}
		found := false
		for after := uint64(0); ; {
			b := read(t, s, after, 1<<20)
			if len(b.Records) == 0 {
				break
			}
			found = found || string(b.Records[len(b.Records)-1]) == "after"
			after = b.Last()
		}
		if !found {
			t.Error("a record appended after damage cannot be read")
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestEpochsNeverRepeat(t *testing.T) {
	file := filepath.Join(t.TempDir(), "epoch")
	future := uint64(time.Now().Add(time.Hour).UnixMilli()) << 20
	if err := os.WriteFile(file, fmt.Appendf(nil, "%d\n", future), 0o600); err != nil {
		t.Fatal(err)
	}
	n, err := spool.OpenNumbers(file)
	if err != nil || uint64(n.Epoch()) != future+1 {
		t.Fatalf("epoch %d after %d, %v: a clock that went back must not give an epoch twice", n.Epoch(), future, err)
	}
	if a, b := n.Next("d", "file"), n.Next("d", "file"); a.Seq != 1 || b.Seq != 2 || n.Next("d", "agent").Seq != 1 {
		t.Error("sequences are per source, from 1")
	}
	again, err := spool.OpenNumbers(file)
	if err != nil || again.Epoch() <= n.Epoch() {
		t.Errorf("epoch %d after %d, %v", again.Epoch(), n.Epoch(), err)
	}
}
