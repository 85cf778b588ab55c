package upgrade

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"math"
	"slices"
	"time"

	"github.com/uptrace/bun"
	"golang.org/x/mod/semver"

	"komainu/control/access"
	"komainu/event"
	"komainu/fault"
)

// Newest is the target that follows what the repository offers.
const Newest = "newest"

// Ring is a part of the devices.
type Ring struct {
	ID          string   `json:"id" enum:"canary,early,broad"`
	Share       float64  `json:"share" minimum:"0" maximum:"100" doc:"percent of the devices that no earlier ring has"`
	Groups      []string `json:"groups" doc:"ids of device groups that are in it whatever the share is"`
	SoakMinutes int      `json:"soakMinutes" minimum:"0" maximum:"43200" doc:"how long the next ring waits when this one is through"`
}

// Settings say which version the agents get, and who gets it first.
type Settings struct {
	Automatic bool   `json:"automatic" doc:"off: nothing is upgraded"`
	Target    string `json:"target" minLength:"1" maxLength:"64" doc:"a version, or newest"`
	Rings     []Ring `json:"rings" minItems:"3" maxItems:"3" doc:"canary, early, broad, in this order"`
}

// Saved are settings with their version.
type Saved struct {
	Settings
	Version   uint64    `json:"version"`
	UpdatedAt time.Time `json:"-"`
	UpdatedBy string    `json:"-"`
}

// Change is what somebody saves.
type Change struct {
	Settings
	Version uint64 `json:"version" doc:"version that the change is based on"`
}

var ringIDs = []string{"canary", "early", "broad"}

// defaults are the settings of an organization that has chosen none.
func defaults() Saved {
	return Saved{Settings: Settings{Target: Newest, Rings: []Ring{
		{ID: "canary", Share: 5, Groups: []string{}, SoakMinutes: 60}, {ID: "early", Share: 25, Groups: []string{}, SoakMinutes: 240}, {ID: "broad", Share: 100, Groups: []string{}},
	}}, Version: 1}
}

func (s *Settings) check(offers func(version, form, arch string) bool) error {
	if s.Target != Newest && (!semver.IsValid("v"+s.Target) || !offers(s.Target, "", "")) {
		return fault.New(fault.Invalid, "the repository has no version %q; komainuctl repository list shows those that it has", s.Target)
	}
	if len(s.Rings) != len(ringIDs) {
		return fault.New(fault.Invalid, "there are three rings: canary, early and broad")
	}
	for i := range s.Rings {
		r := &s.Rings[i]
		if r.ID != ringIDs[i] {
			return fault.New(fault.Invalid, "ring %d is %s, not %q", i+1, ringIDs[i], r.ID)
		}
		if math.IsNaN(r.Share) || r.Share < 0 || r.Share > 100 || r.SoakMinutes < 0 || r.SoakMinutes > 43_200 || len(r.Groups) > 100 {
			return fault.New(fault.Invalid, "ring %s: want a share of 0 to 100 percent, a soak of at most 30 days, at most 100 groups", r.ID)
		}
		if r.Groups == nil {
			r.Groups = []string{}
		}
	}
	return nil
}

// ringOf returns the index of the ring that a device is in, -1 for none. It
// depends on nothing but the device and the settings.
func (s *Settings) ringOf(d *Device) int {
	for i, r := range s.Rings {
		if slices.ContainsFunc(d.Groups, func(g string) bool { return slices.Contains(r.Groups, g) }) {
			return i
		}
	}
	for i, r := range s.Rings {
		if place(r.ID, d.ID) < r.Share {
			return i
		}
	}
	return -1
}

// place is a number from 0 up to 100 that a device has in a ring. Those of
// different rings have nothing to do with each other: a share is of the
// devices that are left.
func place(ring string, id event.DeviceID) float64 {
	sum := sha256.Sum256([]byte(ring + "\x00" + string(id)))
	return float64(binary.BigEndian.Uint64(sum[:8])>>11) / (1 << 53) * 100
}

type settingsRow struct {
	bun.BaseModel `bun:"table:upgrade_settings"`

	OrganizationID string `bun:",pk"`
	Automatic      bool
	Target         string
	Rings          []Ring `bun:"type:json"`
	Version        uint64
	UpdatedAt      time.Time
	UpdatedBy      string
}

func (u *upgrades) row() *settingsRow {
	s := u.settings
	return &settingsRow{OrganizationID: u.organization, Automatic: s.Automatic, Target: s.Target, Rings: s.Rings, Version: s.Version, UpdatedAt: s.UpdatedAt, UpdatedBy: s.UpdatedBy}
}

// set stores new settings in the transaction that makes the change. The caller
// holds mu and puts the old ones back when the transaction fails.
func (e *Engine) set(ctx context.Context, tx bun.IDB, u *upgrades, s Settings) error {
	u.settings = Saved{Settings: s, Version: u.settings.Version + 1, UpdatedAt: e.now(), UpdatedBy: access.ActorOf(ctx).Name}
	_, err := tx.NewInsert().Model(u.row()).On("CONFLICT (organization_id) DO UPDATE").Exec(ctx)
	return err
}

// Save changes the settings.
func (e *Engine) Save(ctx context.Context, organization string, c Change) error {
	if err := c.check(e.cfg.Offers); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	u := e.of(organization)
	was := u.settings
	if c.Version != was.Version {
		return fault.New(fault.Conflict, "the upgrades were changed meanwhile by %s; reload the page and change them again", cmp.Or(was.UpdatedBy, "somebody"))
	}
	err := e.change(ctx, u, func(ctx context.Context, tx bun.IDB) error {
		if err := e.set(ctx, tx, u, c.Settings); err != nil {
			return err
		}
		if r := u.rollout; r != nil && !c.Automatic && r.QuietSince != nil {
			r.QuietSince = nil // while nobody looks nothing soaks
			if err := e.keepRollout(ctx, tx, r); err != nil {
				return err
			}
		}
		return e.cfg.Record(ctx, tx, access.Change{Action: "upgrade.change", Detail: map[string]any{"was": was.Settings, "is": c.Settings}})
	})
	if err != nil {
		return err
	}
	e.Wake()
	return nil
}
