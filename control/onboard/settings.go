package onboard

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/uptrace/bun"

	"komainu/control/access"
	"komainu/control/machine"
	"komainu/fault"
)

// Window is when machines may be changed.
type Window struct {
	Days     []string `json:"days" doc:"mon, tue, wed, thu, fri, sat, sun; empty: every day"`
	Start    string   `json:"start" doc:"HH:MM"`
	Minutes  int      `json:"minutes" minimum:"5" maximum:"1440"`
	Timezone string   `json:"timezone,omitempty" maxLength:"64" doc:"like Asia/Tokyo; UTC when left out"`
}

var days = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// check says what is wrong with a window.
func (w *Window) check() error {
	if _, err := time.Parse("15:04", w.Start); err != nil {
		return fault.New(fault.Invalid, "the window begins at %q; want HH:MM", w.Start)
	}
	if w.Minutes < 5 || w.Minutes > 24*60 {
		return fault.New(fault.Invalid, "a window lasts 5 minutes to a day, not %d minutes", w.Minutes)
	}
	if _, err := time.LoadLocation(cmp.Or(w.Timezone, "UTC")); err != nil {
		return fault.New(fault.Invalid, "the time zone %q is not known here; want a name like Asia/Tokyo", w.Timezone)
	}
	for _, d := range w.Days {
		if !slices.Contains(days, d) {
			return fault.New(fault.Invalid, "%q is no day; want mon, tue, wed, thu, fri, sat or sun", d)
		}
	}
	return nil
}

// Open reports whether a time lies in the window. One that runs past midnight
// belongs to the day on which it began, and it lasts as long as it says, also
// where clocks are set meanwhile.
func (w *Window) Open(now time.Time) bool {
	zone, err := time.LoadLocation(cmp.Or(w.Timezone, "UTC"))
	if err != nil {
		return false // check has refused it
	}
	at, err := time.Parse("15:04", w.Start)
	if err != nil {
		return false
	}
	year, month, day := now.In(zone).Date()
	// Where an hour is missing, a day from just before midnight ends two days
	// later by the calendar.
	for back := range 3 {
		wanted := time.Date(year, month, day-back, at.Hour(), at.Minute(), 0, 0, time.UTC)
		if len(w.Days) > 0 && !slices.Contains(w.Days, days[wanted.Weekday()]) {
			continue
		}
		begin := instant(wanted, zone)
		if !now.Before(begin) && now.Before(begin.Add(time.Duration(w.Minutes)*time.Minute)) {
			return true
		}
	}
	return false
}

// instant is when the clocks of a zone show what wanted says in UTC. A time
// that they leave out, because they go forward then, is the first instant
// after that.
func instant(wanted time.Time, zone *time.Location) time.Time {
	year, month, day := wanted.Date()
	t := time.Date(year, month, day, wanted.Hour(), wanted.Minute(), 0, 0, zone)
	year, month, day = t.Date()
	shown := time.Date(year, month, day, t.Hour(), t.Minute(), 0, 0, time.UTC)
	since, until := t.ZoneBounds()
	switch {
	case shown.Before(wanted):
		return until
	case shown.After(wanted):
		return since
	}
	return t
}

// Observe is whether machines are watched first, before malware is blocked.
type Observe struct {
	Enabled bool `json:"enabled"`
	Hours   int  `json:"hours,omitempty" minimum:"0" maximum:"8760"`
}

// Settings say how an environment's machines are brought under protection.
type Settings struct {
	Automatic   bool          `json:"automatic" doc:"plan on means that every machine gets the agent, also later ones"`
	Concurrency int           `json:"concurrency" minimum:"1" maximum:"100" doc:"machines that are worked on at once"`
	DryRun      bool          `json:"dryRun" doc:"only look; change no machine by itself"`
	Window      *Window       `json:"window,omitempty" doc:"when machines may be changed; left out: always"`
	Observe     Observe       `json:"observe"`
	Exclude     []machine.Tag `json:"excludeTags" doc:"machines with one of these tags are not protected; the value * stands for any"`
	// SkipSelfTest calls a machine protected that has its policy in force,
	// without a detection on it as the proof.
	SkipSelfTest bool `json:"skipSelfTest" required:"false" doc:"no detection test proves the protection of a machine"`
	// HostOffboarding lets whoever is root on a host take it out of protection.
	HostOffboarding bool `json:"allowHostOffboarding" doc:"root on a host may offboard it with komainu offboard; people are told"`
	// KeepOffboarded is how long what is known of a machine is kept after it
	// was offboarded.
	KeepOffboarded int `json:"keepOffboardedDays" minimum:"0" maximum:"3650" doc:"days that the record of an offboarded machine is kept; 0: for good"`
}

// keep returns how long the record of an offboarded machine is kept, 0 for
// good.
func (s Settings) keep() time.Duration { return time.Duration(s.KeepOffboarded) * 24 * time.Hour }

// Saved are settings with their version.
type Saved struct {
	Settings
	Version   uint64    `json:"version"`
	UpdatedAt time.Time `json:"updatedAt,omitzero"`
	UpdatedBy string    `json:"updatedBy"`
}

// Change is what somebody saves.
type Change struct {
	Settings
	Version uint64 `json:"version" doc:"version that the change is based on"`
}

// defaults are the settings of an environment that has chosen none.
func defaults() Saved {
	return Saved{Settings: Settings{Automatic: true, Concurrency: 20, Observe: Observe{Hours: 24}, Exclude: []machine.Tag{}, HostOffboarding: true, KeepOffboarded: 180}, Version: 1}
}

type row struct {
	bun.BaseModel `bun:"table:onboarding"`

	EnvironmentID        string `bun:",pk"`
	Automatic            bool
	Concurrency          int
	DryRun               bool
	Window               *Window       `bun:"type:json"`
	Observe              Observe       `bun:"type:json"`
	Exclude              []machine.Tag `bun:"type:json"`
	SkipSelfTest         bool
	AllowHostOffboarding bool
	KeepOffboardedDays   int
	Version              uint64
	UpdatedAt            time.Time
	UpdatedBy            string
}

func (s Settings) check() error {
	if s.Concurrency < 1 || s.Concurrency > 100 {
		return fault.New(fault.Invalid, "1 to 100 machines are worked on at once, not %d", s.Concurrency)
	}
	if s.Observe.Enabled && (s.Observe.Hours < 1 || s.Observe.Hours > 365*24) {
		return fault.New(fault.Invalid, "machines are watched for an hour to a year, not %d hours", s.Observe.Hours)
	}
	if s.KeepOffboarded < 0 || s.KeepOffboarded > 3650 {
		return fault.New(fault.Invalid, "the record of an offboarded machine is kept for 1 to 3650 days, or with 0 for good, not for %d days", s.KeepOffboarded)
	}
	if s.Window != nil {
		if err := s.Window.check(); err != nil {
			return err
		}
	}
	return machine.CheckTags(s.Exclude)
}

// load reads the settings of all environments.
func (e *Engine) load(ctx context.Context) error {
	var rows []row
	if err := e.cfg.DB.NewSelect().Model(&rows).Scan(ctx); err != nil {
		return fmt.Errorf("read the settings of onboarding: %w", err)
	}
	for _, r := range rows {
		e.settings[r.EnvironmentID] = r.saved()
	}
	return nil
}

func (r row) saved() Saved {
	s := Saved{Version: r.Version, UpdatedAt: r.UpdatedAt, UpdatedBy: r.UpdatedBy}
	s.Settings = Settings{r.Automatic, r.Concurrency, r.DryRun, r.Window, r.Observe, r.Exclude, r.SkipSelfTest, r.AllowHostOffboarding, r.KeepOffboardedDays}
	if s.Exclude == nil {
		s.Exclude = []machine.Tag{}
	}
	return s
}

// Settings returns how an environment's machines are brought under protection.
func (e *Engine) Settings(environment string) Saved {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s, ok := e.settings[environment]; ok {
		return s
	}
	return defaults()
}

// Save changes the settings of an environment. That it is of the organization
// is the caller's to check.
func (e *Engine) Save(ctx context.Context, organization, environment, name string, c Change) (Saved, error) {
	if err := c.check(); err != nil {
		return Saved{}, err
	}
	e.saving.Lock()
	defer e.saving.Unlock()
	was := e.Settings(environment)
	if c.Version != was.Version {
		return Saved{}, fault.New(fault.Conflict, "the settings were changed meanwhile by %s; reload the page and change them again", cmp.Or(was.UpdatedBy, "somebody"))
	}
	if c.Exclude == nil {
		c.Exclude = []machine.Tag{}
	}
	r := row{
		EnvironmentID: environment, Automatic: c.Automatic, Concurrency: c.Concurrency, DryRun: c.DryRun, Window: c.Window, Observe: c.Observe, Exclude: c.Exclude, SkipSelfTest: c.SkipSelfTest, AllowHostOffboarding: c.HostOffboarding, KeepOffboardedDays: c.KeepOffboarded,
		Version: was.Version + 1, UpdatedAt: e.now(), UpdatedBy: access.ActorOf(ctx).Name,
	}
	err := e.cfg.DB.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		if _, err := tx.NewInsert().Model(&r).On("CONFLICT (environment_id) DO UPDATE").Exec(ctx); err != nil {
			return err
		}
		return e.cfg.Record(ctx, tx, access.Change{Action: "onboarding.change", Target: environment, Name: name, Detail: map[string]any{"was": was.Settings, "is": c.Settings}})
	})
	if err != nil {
		return Saved{}, err
	}
	e.mu.Lock()
	e.settings[environment] = r.saved()
	e.mu.Unlock()
	e.cfg.Changed(organization, environment)
	e.Wake()
	return r.saved(), nil
}
