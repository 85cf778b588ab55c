// Package schedule starts scans at the times that policy names.
//
// Times are the host's local wall-clock times. What was due while the agent
// did not run, or while the host slept, is made up for once, not as often as
// it was missed. A clock that is set forwards or backwards makes no scan run
// twice for the same day and none stay out for longer than a day.
package schedule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"time"

	"komainu/internal/atomicfile"
	"komainu/policy"
)

// Config says what runs when.
type Config struct {
	// File remembers which times have been dealt with.
	File string
	// Seed makes the random delays of this device differ from those of others
	// and the same after a restart.
	Seed string
	// Schedules returns what is in effect now.
	Schedules func() []policy.Schedule
	// Start starts a scan. An error means that it is to be tried again.
	Start func(policy.Schedule) error
	Log   *slog.Logger
}

// Scheduler starts scans. Make one with Open and call Run once.
type Scheduler struct {
	cfg Config
	// done holds, by schedule, the due time that was dealt with last.
	done map[string]time.Time
}

// pace is how often the clock is looked at. Waiting for the due time itself
// would miss that somebody sets the clock.
const pace = 20 * time.Second

// Open reads what has been dealt with. A file that is damaged is begun anew:
// the worst that follows is a scan that is made up for.
func Open(cfg Config) (*Scheduler, error) {
	s := &Scheduler{cfg: cfg, done: map[string]time.Time{}}
	text, err := os.ReadFile(cfg.File)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the schedule's state: %w", err)
	}
	if err == nil && json.Unmarshal(text, &s.done) != nil {
		s.done = map[string]time.Time{}
	}
	return s, nil
}

// Run starts scans until ctx ends.
func (s *Scheduler) Run(ctx context.Context) error {
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for {
		s.look(time.Now())
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// look starts what is due at a time.
func (s *Scheduler) look(now time.Time) {
	now = now.Round(0) // the wall clock counts
	list := s.cfg.Schedules()
	changed := false
	keys := map[string]bool{}
	for _, sc := range list {
		key := keyOf(sc)
		if keys[key] {
			continue // named twice
		}
		keys[key] = true
		last, known := s.done[key]
		if !known || last.After(now.Add(24*time.Hour)) {
			// New here, or noted while the clock was far ahead: what was due
			// before now is not its business.
			s.done[key], changed = now, true
			continue
		}
		due, ok := s.latest(sc, now)
		if !ok || !due.After(last) {
			continue
		}
		if err := s.cfg.Start(sc); err != nil {
			s.cfg.Log.Warn("a scheduled scan could not be started; it is tried again", "kind", sc.Kind, "due", due, "error", err)
			continue
		}
		s.cfg.Log.Info("a scheduled scan has started", "kind", sc.Kind, "due", due)
		s.done[key], changed = due, true
	}
	for key := range s.done {
		if !keys[key] {
			delete(s.done, key)
			changed = true
		}
	}
	if changed {
		s.save()
	}
}

func (s *Scheduler) save() {
	text, err := json.Marshal(s.done)
	if err == nil {
		err = atomicfile.Write(s.cfg.File, text, 0o600)
	}
	if err != nil {
		s.cfg.Log.Warn("which scans have run is not on disk; one may run again after a restart", "error", err)
	}
}

// latest returns the due time that lies nearest before now.
func (s *Scheduler) latest(sc policy.Schedule, now time.Time) (time.Time, bool) {
	at, err := time.Parse("15:04", sc.At)
	if err != nil {
		return time.Time{}, false // policy was validated: cannot be
	}
	// A delay can reach into the next day; a week holds every weekday.
	for back := range 9 {
		day := now.AddDate(0, 0, -back)
		due := time.Date(day.Year(), day.Month(), day.Day(), at.Hour(), at.Minute(), 0, 0, now.Location())
		if len(sc.Days) > 0 && !slices.Contains(sc.Days, policy.Weekdays[due.Weekday()]) {
			continue
		}
		if due = due.Add(s.delay(sc, due)); !due.After(now) {
			return due, true
		}
	}
	return time.Time{}, false
}

// delay is random by device and day, and the same whenever it is asked for.
func (s *Scheduler) delay(sc policy.Schedule, due time.Time) time.Duration {
	if sc.Randomize <= 0 {
		return 0
	}
	h := fnv.New64a()
	fmt.Fprint(h, s.cfg.Seed, keyOf(sc), due.Format(time.DateOnly))
	return time.Duration(h.Sum64()%uint64(sc.Randomize*60+1)) * time.Second
}

// keyOf names a schedule by what it does: a policy that comes again unchanged
// names the same one.
func keyOf(sc policy.Schedule) string {
	return fmt.Sprint(sc.Kind, " ", sc.Path, " ", sc.At, " ", sc.Days, " ", sc.Randomize)
}
