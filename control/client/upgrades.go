package client

import (
	"context"
	"time"

	"komainu/deploy"
)

// Ring is a part of the devices in an upgrade.
type Ring struct {
	ID          string   `json:"id"`
	Share       float64  `json:"share"` // percent of the devices that no earlier ring has
	Groups      []string `json:"groups"`
	SoakMinutes int      `json:"soakMinutes"`
}

// RingProgress is how far a ring is.
type RingProgress struct {
	Ring    string `json:"ring"`
	Devices int    `json:"devices"`
	Done    int    `json:"done"`
	Failed  int    `json:"failed"`
	Waiting int    `json:"waiting"`
	Gap     *struct {
		Median int64 `json:"median"` // milliseconds
		Worst  int64 `json:"worst"`
	} `json:"gapMs"`
}

// Upgrades say which version the agents get, and how far that is.
type Upgrades struct {
	Automatic bool           `json:"automatic"`
	Target    string         `json:"target"` // a version, or newest
	Rings     []Ring         `json:"rings"`
	Version   uint64         `json:"version"` // of these settings
	State     string         `json:"state"`   // idle, running, halted, done
	Rollout   string         `json:"rollout"` // the version on its way, or the last one
	Rollback  bool           `json:"rollback"`
	Current   string         `json:"current"` // the ring
	Halted    *deploy.Reason `json:"halted"`
	Progress  []RingProgress `json:"progress"`
	// Held is how many devices wait for something that nobody waits for.
	Held []UpgradeHeld `json:"held"`
}

// UpgradeHeld is how many devices wait for one reason.
type UpgradeHeld struct {
	Reason  deploy.Reason `json:"reason"`
	Devices int           `json:"devices"`
}

// UpgradeChange is what somebody saves.
type UpgradeChange struct {
	Version   uint64 `json:"version"` // that the change is based on
	Automatic bool   `json:"automatic"`
	Target    string `json:"target"`
	Rings     []Ring `json:"rings"`
}

// UpgradeDevice is a device in an upgrade.
type UpgradeDevice struct {
	Device    Ref            `json:"device"`
	Ring      string         `json:"ring"`
	State     string         `json:"state"`
	Connected bool           `json:"connected"`
	From      string         `json:"from"`
	To        string         `json:"to"`
	Waits     string         `json:"waits"`
	Reason    *deploy.Reason `json:"reason"`
	GapMs     *int64         `json:"gapMs"`
	StartedAt *time.Time     `json:"startedAt"`
	EndedAt   *time.Time     `json:"endedAt"`
}

// Upgrades returns how the upgrades stand.
func (c *Client) Upgrades(ctx context.Context) (Upgrades, error) {
	return call[Upgrades](ctx, c, "GET", "/upgrades", nil, nil)
}

// SaveUpgrades changes which version the agents get. A change that is based on
// an older version is fault.Conflict.
func (c *Client) SaveUpgrades(ctx context.Context, change UpgradeChange) (Upgrades, error) {
	return call[Upgrades](ctx, c, "PUT", "/upgrades", nil, change)
}

// ActOnUpgrades halts, resumes or rolls back: act is "halt", "resume" or
// "rollback".
func (c *Client) ActOnUpgrades(ctx context.Context, act string) (Upgrades, error) {
	return call[Upgrades](ctx, c, "POST", "/upgrades/"+act, nil, nil)
}

// UpgradeDevices lists devices of the upgrade, ring by ring.
func (c *Client) UpgradeDevices(ctx context.Context, q Query) (List[UpgradeDevice], error) {
	return call[List[UpgradeDevice]](ctx, c, "GET", "/upgrades/devices", q.values(), nil)
}
