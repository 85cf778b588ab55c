package schedule

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"komainu/policy"
)

// bench is a scheduler whose scans are only noted.
type bench struct {
	*Scheduler
	list    []policy.Schedule
	started []string
	refuse  error
}

func newBench(t testing.TB, file string, list ...policy.Schedule) *bench {
	t.Helper()
	b := &bench{list: list}
	s, err := Open(Config{
		File: file, Seed: "device", Log: slog.New(slog.DiscardHandler),
		Schedules: func() []policy.Schedule { return b.list },
		Start: func(sc policy.Schedule) error {
			if b.refuse == nil {
				b.started = append(b.started, sc.Kind)
			}
			return b.refuse
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	b.Scheduler = s
	return b
}

func at(text string) time.Time {
	t, err := time.Parse("2006-01-02 15:04:05", text)
	if err != nil {
		panic(err)
	}
	return t
}

func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now() // midnight UTC in the bubble
		b := newBench(t, filepath.Join(t.TempDir(), "state"), policy.Schedule{Kind: "quick", At: begun.Add(time.Hour).Format("15:04")})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- b.Run(ctx) }()
		<-time.After(59 * time.Minute)
		synctest.Wait()
		if b.started != nil {
			t.Error("too early")
		}
		<-time.After(2 * time.Minute)
		synctest.Wait()
		if !slices.Equal(b.started, []string{"quick"}) {
			t.Errorf("started %v", b.started)
		}
		<-time.After(24 * time.Hour)
		synctest.Wait()
		if len(b.started) != 2 {
			t.Errorf("started %v in two days", b.started)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestMissedIsMadeUpForOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state")
	nightly := policy.Schedule{Kind: "quick", At: "02:30"}
	b := newBench(t, file, nightly)
	b.look(at("2026-11-02 12:00:00"))
	if b.started != nil {
		t.Error("a schedule that is new makes up for what was before it")
	}
	// Five nights without the agent.
	again := newBench(t, file, nightly)
	again.look(at("2026-11-07 09:00:00"))
	again.look(at("2026-11-07 09:01:00"))
	if len(again.started) != 1 {
		t.Errorf("%d scans for five nights, want one", len(again.started))
	}
}

func TestARefusalIsTriedAgain(t *testing.T) {
	b := newBench(t, filepath.Join(t.TempDir(), "state"), policy.Schedule{Kind: "full", At: "02:30", Days: []string{"sun"}})
	b.look(at("2026-11-07 12:00:00")) // a Saturday
	b.refuse = errors.New("a scan runs already")
	b.look(at("2026-11-08 02:30:01"))
	b.refuse = nil
	b.look(at("2026-11-08 02:31:00"))
	b.look(at("2026-11-08 02:32:00"))
	b.look(at("2026-11-09 02:32:00"))
	if !slices.Equal(b.started, []string{"full"}) {
		t.Errorf("started %v", b.started)
	}
}

func TestClockThatWasFarAhead(t *testing.T) {
	b := newBench(t, filepath.Join(t.TempDir(), "state"), policy.Schedule{Kind: "quick", At: "02:30"})
	b.look(at("2026-11-02 12:00:00"))
	b.look(at("2027-05-01 12:00:00")) // somebody sets the clock
	b.look(at("2026-11-02 12:01:00")) // and back
	b.started = nil
	b.look(at("2026-11-03 02:30:20"))
	if len(b.started) != 1 {
		t.Errorf("started %v: the clock's excursion keeps scans away", b.started)
	}
}

func TestDamagedState(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state")
	if err := os.WriteFile(file, []byte(`{"quick`), 0o600); err != nil {
		t.Fatal(err)
	}
	b := newBench(t, file, policy.Schedule{Kind: "quick", At: "02:30"})
	b.look(at("2026-11-02 12:00:00"))
	b.look(at("2026-11-03 12:00:00"))
	if len(b.started) != 1 {
		t.Errorf("started %v", b.started)
	}
}

// TestAgainstNaive compares with a model that goes through the days one by
// one, over restarts and gaps of any length.
func TestAgainstNaive(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		sc := policy.Schedule{Kind: "quick", At: rapid.SampledFrom([]string{"00:00", "02:30", "12:00", "23:59"}).Draw(rt, "at"),
			Days: rapid.SliceOfNDistinct(rapid.SampledFrom(policy.Weekdays), 0, 3, rapid.ID[string]).Draw(rt, "days"), Randomize: rapid.IntRange(0, 180).Draw(rt, "randomize")}
		dir, err := os.MkdirTemp("", "schedule")
		if err != nil {
			rt.Fatal(err)
		}
		defer os.RemoveAll(dir)
		file := filepath.Join(dir, "state")
		b := newBench(t, file, sc)
		now := at("2026-11-02 10:00:00")
		b.look(now)
		want, began, last := 0, now, now
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(1, 60*60*24*9).Draw(rt, "gap")) * time.Second)
			if rapid.Bool().Draw(rt, "restart") {
				started := b.started
				b = newBench(t, file, sc)
				b.started = started
			}
			b.look(now)
			// The model: is there a due time since the last one that counted?
			due := time.Time{}
			for day := began.AddDate(0, 0, -2); !day.After(now.AddDate(0, 0, 1)); day = day.AddDate(0, 0, 1) {
				clock, _ := time.Parse("15:04", sc.At)
				d := time.Date(day.Year(), day.Month(), day.Day(), clock.Hour(), clock.Minute(), 0, 0, time.UTC)
				wanted := len(sc.Days) == 0 || slices.Contains(sc.Days, policy.Weekdays[d.Weekday()])
				if d = d.Add(b.delay(sc, d)); wanted && !d.After(now) && d.After(last) {
					due = d
				}
			}
			if !due.IsZero() {
				want, last = want+1, due
			}
		}
		if len(b.started) != want {
			rt.Fatalf("%d scans, want %d", len(b.started), want)
		}
	})
}
