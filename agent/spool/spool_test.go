package spool_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
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
	if _, err := f.WriteAt([]byte{0xff}, 21+9+30+9+5); err != nil { // in its second record
		t.Fatal(err)
	}
	f.Close()
	s = mustOpen(t, dir, spool.Limits{Segment: 100})
	defer s.Close()
	if got, want := positions(t, s), []uint64{1, 2, 3, 4, 6, 7, 8, 9}; !slices.Equal(got, want) {
		t.Errorf("positions %v, want %v", got, want)
	}
	if lost := s.Lost(); lost[0] != 1 {
		t.Errorf("lost %v, want 1", lost)
	}
}

// TestDamageIsCountedOnce restarts over damage of every sort. Until the count
// was taken and flushed it is counted anew, then never again, and what can be
// read stays the same.
func TestDamageIsCountedOnce(t *testing.T) {
	const record = 9 + 30
	flip := func(at int64) func(name string) error {
		return func(name string) error {
			f, err := os.OpenFile(name, os.O_RDWR, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.WriteAt([]byte{0xfe}, at)
			return err
		}
	}
	for name, c := range map[string]struct {
		segment int
		damage  func(name string) error
		left    []uint64
	}{
		"a record":                  {1, flip(21 + record + 9 + 5), []uint64{1, 2, 3, 4, 6, 7, 8, 9}},
		"the length of a record":    {1, flip(21 + record + 3), []uint64{1, 2, 3, 4, 7, 8, 9}},
		"a whole segment":           {1, os.Remove, []uint64{1, 2, 3, 7, 8, 9}},
		"the first record":          {1, flip(21 + 3), []uint64{1, 2, 3, 7, 8, 9}},
		"a record of the last one":  {2, flip(21 + record + 9 + 5), []uint64{1, 2, 3, 4, 5, 6, 7, 9}},
		"the tail of the last one":  {2, func(name string) error { return os.Truncate(name, 21+2*record+4) }, []uint64{1, 2, 3, 4, 5, 6, 7, 8}},
		"the kind of the last one":  {2, flip(21 + 2*record + 8), []uint64{1, 2, 3, 4, 5, 6, 7, 8}},
		"the kind of a middle one":  {0, flip(21 + record + 8), []uint64{1, 3, 4, 5, 6, 7, 8, 9}},
		"the first of them":         {0, flip(21 + 9), []uint64{2, 3, 4, 5, 6, 7, 8, 9}},
		"all of the first":          {0, flip(21 + 3), []uint64{4, 5, 6, 7, 8, 9}},
		"the end of the first file": {0, func(name string) error { return os.Truncate(name, 21+record) }, []uint64{1, 4, 5, 6, 7, 8, 9}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			limits := spool.Limits{Segment: 100}
			s := mustOpen(t, dir, limits)
			for i := range 9 { // three segments of three
				if err := s.Append(1, fmt.Appendf(nil, "%030d", i)); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if err := c.damage(segments(t, dir)[c.segment]); err != nil {
				t.Fatal(err)
			}
			open := func(want uint64) *spool.Spool {
				t.Helper()
				s := mustOpen(t, dir, limits)
				if got := positions(t, s); !slices.Equal(got, c.left) {
					t.Errorf("positions %v, want %v", got, c.left)
				}
				if lost := s.Lost(); lost[0] != want {
					t.Errorf("%d are counted, want %d", lost[0], want)
				}
				return s
			}
			// A tail, and a file of which nothing is left, are taken away when they
			// are found.
			cut := strings.HasPrefix(name, "the tail")
			gone := cut || c.left[0] == 4
			lost := uint64(9 - len(c.left))
			open(lost) // and killed before what was counted is flushed
			if gone {
				lost = 0
			}
			s = open(lost)
			if err := errors.Join(s.Append(1, []byte("what was lost")), s.Sync(), s.Close()); err != nil {
				t.Fatal(err)
			}
			next := uint64(10)
			if cut {
				next = 9 // how long the tail was is not known
			}
			c.left = append(c.left, next)
			for range 2 {
				s = open(0)
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// positions reads to the end and returns what could be read.
func positions(t *testing.T, s *spool.Spool) (list []uint64) {
	t.Helper()
	for after := uint64(0); ; {
		b := read(t, s, after, 1)
		if len(b.Records) == 0 {
			return list
		}
		for i := range b.Records {
			list = append(list, b.First+uint64(i))
		}
		after = b.Last()
	}
}

func segments(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestDamageThatComesWhileItIsOpen(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, spool.Limits{Segment: 100})
	defer s.Close()
	for i := range 9 { // three segments of three
		if err := s.Append(1, fmt.Appendf(nil, "%030d", i)); err != nil {
			t.Fatal(err)
		}
	}
	names := segments(t, dir)
	if err := os.Remove(names[1]); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(names[2], 21+39+5); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second reading counts nothing again
		if got, want := positions(t, s), []uint64{1, 2, 3, 7}; !slices.Equal(got, want) {
			t.Errorf("positions %v, want %v", got, want)
		}
	}
	if lost := s.Lost(); lost[0] != 5 {
		t.Errorf("lost %v, want 5", lost)
	}
	if err := s.Append(1, []byte("after")); err != nil {
		t.Fatal(err)
	}
	if got, want := positions(t, s), []uint64{1, 2, 3, 7, 10}; !slices.Equal(got, want) {
		t.Errorf("positions %v, want %v", got, want)
	}
}

func TestAcknowledgedRecordsThatAPowerCutTookDoNotCostNewOnes(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, spool.Limits{})
	for range 9 {
		if err := s.Append(1, []byte("old")); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(s.Ack(7), s.Sync()); err != nil {
		t.Fatal(err)
	}
	// The state reached the disk, of the segment only two records did.
	if err := os.Truncate(segments(t, dir)[0], 21+2*(9+3)); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, dir, spool.Limits{})
	defer s.Close()
	if err := s.Append(1, []byte("new")); err != nil {
		t.Fatal(err)
	}
	if b := read(t, s, 0, 100); len(b.Records) != 1 || string(b.Records[0]) != "new" || b.First <= 7 {
		t.Errorf("batch %d %q, want the new record behind what is acknowledged", b.First, b.Records)
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
// from some byte on, also when it was acknowledged already.
func TestNothingIsLostOrReordered(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir := memoryDir(t)
		limits := spool.Limits{Segment: 120}
		s, err := spool.Open(dir, limits)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { s.Close() }()
		m := model{held: map[uint64]uint64{}, next: 1}
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) { m.append(t, s, rapid.IntRange(0, 60).Draw(t, "size")) },
			"sync": func(t *rapid.T) {
				if err := s.Sync(); err != nil {
					t.Fatal(err)
				}
				m.synced = m.next - 1
			},
			"read": func(t *rapid.T) {
				after := rapid.Uint64Range(m.acked, m.next-1).Draw(t, "after")
				b := readRapid(t, s, after, rapid.IntRange(1, 300).Draw(t, "bytes"))
				want := after + 1
				for want < m.next && m.held[want] == 0 {
					want++
				}
				if want == m.next {
					if len(b.Records) != 0 {
						t.Fatalf("read %d records behind the end", len(b.Records))
					}
					return
				}
				if b.First != want || len(b.Records) == 0 {
					t.Fatalf("read after %d: batch at %d of %d, want %d", after, b.First, len(b.Records), want)
				}
				m.compare(t, b)
			},
			"ack": func(t *rapid.T) {
				m.acked = rapid.Uint64Range(m.acked, m.next-1).Draw(t, "up to")
				if err := s.Ack(m.acked); err != nil {
					t.Fatal(err)
				}
			},
			"crash": func(t *rapid.T) {
				// The new one opens what the old one wrote; the old one is not closed
				// before, as after a kill.
				if rapid.Bool().Draw(t, "power cut") {
					cutTail(t, dir, m.next-1-min(m.synced, m.next-1))
				}
				if s, err = spool.Open(dir, limits); err != nil {
					t.Fatal(err)
				}
				m.afterCrash(t, s)
			},
		})
	})
}

// model is what a spool holds: the serial number of the record at every
// position.
type model struct {
	held   map[uint64]uint64
	next   uint64 // position
	synced uint64 // everything up to here is on disk
	acked  uint64
	serial uint64
}

func (m *model) append(t *rapid.T, s *spool.Spool, size int) {
	m.serial++
	data := binary.LittleEndian.AppendUint64(nil, m.serial)
	if err := s.Append(spool.Kind(m.serial%4), append(data, make([]byte, size)...)); err != nil {
		t.Fatal(err)
	}
	m.held[m.next] = m.serial
	m.next++
}

func (m *model) compare(t *rapid.T, b spool.Batch) {
	for i, r := range b.Records {
		pos := b.First + uint64(i)
		if got := binary.LittleEndian.Uint64(r); got != m.held[pos] {
			t.Fatalf("position %d holds record %d, want %d", pos, got, m.held[pos])
		}
	}
}

// afterCrash checks what is left and takes it as the new truth: nothing that
// was synced and is not acknowledged may be missing.
func (m *model) afterCrash(t *rapid.T, s *spool.Spool) {
	var left []uint64
	for after := uint64(0); ; {
		b := readRapid(t, s, after, 1<<20)
		if len(b.Records) == 0 {
			break
		}
		m.compare(t, b)
		for i := range b.Records {
			left = append(left, b.First+uint64(i))
		}
		after = b.Last()
	}
	for pos, serial := range m.held {
		if serial == 0 || slices.Contains(left, pos) {
			continue
		}
		if pos <= m.synced && pos > m.acked {
			t.Fatalf("position %d was synced and not acknowledged, and is gone", pos)
		}
		delete(m.held, pos)
	}
	// Where it goes on is seen from where the next record lands.
	m.serial++
	if err := s.Append(0, binary.LittleEndian.AppendUint64(nil, m.serial)); err != nil {
		t.Fatal(err)
	}
	after := uint64(0)
	if len(left) > 0 {
		after = left[len(left)-1]
	}
	b := readRapid(t, s, after, 1)
	if len(b.Records) != 1 || binary.LittleEndian.Uint64(b.Records[0]) != m.serial {
		t.Fatalf("the record after the crash cannot be read: %+v", b)
	}
	m.held[b.First] = m.serial
	m.next = b.First + 1
	// What was acknowledged and not noted is delivered again.
	m.acked = min(m.acked, b.First-1)
	if len(left) > 0 {
		m.acked = min(m.acked, left[0]-1)
	}
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	m.synced = b.First
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
	ends := []int{21}
	for at := 21; at+9 <= len(text); {
		at += 9 + int(binary.LittleEndian.Uint32(text[at:]))
		ends = append(ends, at)
	}
	keep := ends[max(0, len(ends)-1-int(min(n, 1000)))]
	cut := rapid.IntRange(keep, len(text)).Draw(t, "cut at")
	if rapid.Bool().Draw(t, "zeros") {
		// The length reached the disk and the content did not.
		clear(text[cut:])
		err = os.WriteFile(name, text, 0o600)
	} else {
		err = os.Truncate(name, int64(cut))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func FuzzOpen(f *testing.F) {
	f.Add([]byte("KSPL\x01\x01\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01x"))
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

// refusing makes the folder of a spool refuse every new file until back is
// called, as a full disk does.
func refusing(t *testing.T, dir string) (back func()) {
	t.Helper()
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Rename(dir+".away", dir); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWithoutADiskRecordsWaitInMemory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "spool")
	s := mustOpen(t, dir, spool.Limits{Memory: 100})
	defer s.Close()
	back := refusing(t, dir)
	for i := range 15 {
		if err := s.Append(5, fmt.Appendf(nil, "%010d", i)); err != nil {
			t.Fatal(err)
		}
	}
	if st := s.Stats(); st.InMemory != 10 || st.Err == nil || st.Waiting != 10 {
		t.Errorf("stats %+v, want 10 in memory and why", st)
	}
	if lost := s.Lost(); lost[5] != 5 {
		t.Errorf("lost %v, want 5", lost)
	}
	if err := s.Sync(); !fault.Is(err, fault.Exhausted) {
		t.Errorf("sync: %v", err)
	}
	if got := positions(t, s); len(got) != 10 {
		t.Errorf("read from memory: %v", got)
	}
	if err := s.Ack(4); err != nil {
		t.Fatal(err)
	}
	back()
	if err := errors.Join(s.Append(5, []byte("newest")), s.Sync()); err != nil {
		t.Fatal(err)
	}
	if st := s.Stats(); st.InMemory != 0 || st.Err != nil || st.Waiting != 7 {
		t.Errorf("stats %+v, want all on disk", st)
	}
	if got, want := positions(t, s), []uint64{5, 6, 7, 8, 9, 10, 16}; !slices.Equal(got, want) {
		t.Errorf("positions %v, want %v", got, want)
	}
	// A restart does not count again what was lost.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again := mustOpen(t, dir, spool.Limits{})
	defer again.Close()
	if got, lost := positions(t, again), again.Lost(); len(got) != 7 || lost[0]+lost[5] != 0 {
		t.Errorf("after a restart %v, lost %v", got, lost)
	}
}

// TestWhatLeftFromMemoryWaitsForNoDisk: records that were delivered while the
// disk was full leave no trouble behind.
func TestWhatLeftFromMemoryWaitsForNoDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "spool")
	s := mustOpen(t, dir, spool.Limits{})
	defer s.Close()
	back := refusing(t, dir)
	if err := s.Append(5, []byte("record")); err != nil {
		t.Fatal(err)
	}
	if s.Stats().Err == nil {
		t.Error("the disk refuses, and nobody says so")
	}
	if err := s.Ack(1); err != nil {
		t.Fatal(err)
	}
	back()
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	if st := s.Stats(); st.Err != nil || st.InMemory != 0 {
		t.Errorf("stats %+v, want no trouble", st)
	}
}

func TestDiscard(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, spool.Limits{Segment: 100})
	for i := range 10 {
		if err := s.Append(spool.Kind(1+i%2), fmt.Appendf(nil, "%030d", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Ack(3); err != nil { // a whole segment
		t.Fatal(err)
	}
	counts, err := s.Discard()
	if err != nil || counts[1]+counts[2] != 7 || counts[1] < 3 || counts[2] < 3 {
		t.Errorf("discarded %v, %v; want 7 of both kinds", counts, err)
	}
	if lost := s.Lost(); lost != [16]uint64{} {
		t.Errorf("counted as lost too: %v", lost)
	}
	if st := s.Stats(); st.Waiting != 0 || st.Bytes != 0 {
		t.Errorf("%+v is left", st)
	}
	if err := s.Append(1, []byte("new")); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, dir, spool.Limits{}) // killed
	if got := positions(t, s); !slices.Equal(got, []uint64{11}) {
		t.Errorf("positions %v, want the one after", got)
	}
}

func TestAcknowledgingFreesAFullDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "spool")
	s := mustOpen(t, dir, spool.Limits{Segment: 50})
	defer s.Close()
	for range 4 {
		if err := s.Append(1, make([]byte, 60)); err != nil {
			t.Fatal(err)
		}
	}
	// A folder in the place of the state file: it cannot be written.
	state := filepath.Join(dir, "state")
	if err := errors.Join(os.Remove(state), os.MkdirAll(filepath.Join(state, "x"), 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := s.Ack(4); err != nil {
		t.Errorf("ack: %v", err)
	}
	if err := s.Sync(); err == nil {
		t.Error("nobody says that the state could not be written")
	}
	if got := segments(t, dir); len(got) != 1 {
		t.Errorf("%v are left, want only the last one, which holds the position", got)
	}
	if err := errors.Join(os.RemoveAll(state), s.Sync()); err != nil {
		t.Fatal(err)
	}
	if got := segments(t, dir); len(got) != 0 {
		t.Errorf("%v are left", got)
	}
}

func TestAckOfWhatWasNeverWritten(t *testing.T) {
	s := mustOpen(t, t.TempDir(), spool.Limits{})
	defer s.Close()
	if err := s.Append(1, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := s.Ack(2); !fault.Is(err, fault.Invalid) {
		t.Errorf("ack of a record that does not exist: %v", err)
	}
	if got := positions(t, s); len(got) != 1 {
		t.Errorf("left: %v", got)
	}
}

// TestConcurrentUse is for the race detector, and sees that every record
// arrives once.
func TestConcurrentUse(t *testing.T) {
	s := mustOpen(t, memoryDir(t), spool.Limits{Segment: 2000})
	defer s.Close()
	const writers, each = 4, 300
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for i := range each {
				if err := s.Append(spool.Kind(w), fmt.Appendf(nil, "%d/%d", w, i)); err != nil {
					t.Error(err)
				}
				if i%50 == 0 {
					if err := s.Sync(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	seen := map[string]bool{}
	for after := uint64(0); len(seen) < writers*each; {
		b, err := s.Next(t.Context(), after, 500)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range b.Records {
			if seen[string(r)] {
				t.Errorf("%s arrived twice", r)
			}
			seen[string(r)] = true
		}
		after = b.Last()
		if err := s.Ack(after); err != nil {
			t.Error(err)
		}
		s.Stats()
	}
	all.Wait()
	if err := s.Sync(); err != nil {
		t.Error(err)
	}
	if st := s.Stats(); st.Waiting != 0 || st.Bytes != 0 {
		t.Errorf("left %+v", st)
	}
}

// memoryDir returns a folder where a flush costs nothing, if there is one.
func memoryDir(t interface {
	Fatal(...any)
	Cleanup(func())
}) string {
	parent := "/dev/shm"
	if info, err := os.Stat(parent); err != nil || !info.IsDir() {
		parent = ""
	}
	dir, err := os.MkdirTemp(parent, "spool")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
