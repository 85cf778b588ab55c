package client

import (
	"context"
	"encoding/json"
	"net/url"
	"time"

	"komainu/policy"
)

// Assignment says which devices a policy is for: kind all, environment or
// group, and the id of the latter two.
type Assignment struct {
	Kind string `json:"kind"`
	ID   string `json:"id,omitempty"`
	Name string `json:"name,omitempty"`
}

// Policy is a policy.
type Policy struct {
	ID          string          `json:"id"`
	Name        string          `json:"name"`
	Description string          `json:"description"`
	Type        string          `json:"type"` // antivirus, exclusions, edr
	Settings    policy.Settings `json:"settings"`
	Priority    int             `json:"priority"`
	Assignments []Assignment    `json:"assignments"`
	Version     uint64          `json:"version"`
	UpdatedAt   time.Time       `json:"updatedAt"`
	UpdatedBy   string          `json:"updatedBy"`
	Devices     struct {
		Assigned  int `json:"assigned"`
		Confirmed int `json:"confirmed"`
		Pending   int `json:"pending"`
		Failed    int `json:"failed"`
	} `json:"devices"`
}

// PolicyChange is what to save of a policy. Settings are as somebody wrote
// them: the control plane says what is wrong with them.
type PolicyChange struct {
	Version     uint64                     `json:"version,omitempty"` // that the change is based on
	Name        string                     `json:"name"`
	Description string                     `json:"description,omitempty"`
	Type        string                     `json:"type"`
	Settings    map[string]json.RawMessage `json:"settings,omitempty"`
	Priority    int                        `json:"priority,omitempty"`
	Assignments []Assignment               `json:"assignments,omitempty"`
}

// Match says what the devices of a group have in common.
type Match struct {
	Environment string       `json:"environment,omitempty"`
	Name        string       `json:"name,omitempty"`
	Tags        []policy.Tag `json:"tags,omitempty"`
	OSPlatform  string       `json:"osPlatform,omitempty"`
}

// Group is a device group.
type Group struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Rank    int    `json:"rank"`
	Match   Match  `json:"match"`
	Devices int    `json:"devices"`
	Version uint64 `json:"version"`
}

// GroupChange is what to save of a group.
type GroupChange struct {
	Version uint64 `json:"version,omitempty"` // that the change is based on
	Name    string `json:"name"`
	Rank    int    `json:"rank,omitempty"`
	Match   Match  `json:"match"`
}

// Source says where a value comes from.
type Source struct {
	Kind string `json:"kind"` // policy, plan, default, device
	ID   string `json:"id"`
	Name string `json:"name"`
}

// Applied is what applies to a device.
type Applied struct {
	Version          uint64   `json:"version"`
	ConfirmedVersion uint64   `json:"confirmedVersion"`
	Pending          bool     `json:"pending"`
	Error            string   `json:"error"`
	Groups           []string `json:"groups"`
	Settings         []struct {
		Name       string          `json:"name"`
		Section    string          `json:"section"`
		Value      json.RawMessage `json:"value"`
		Source     Source          `json:"source"`
		Overridden []struct {
			Source
			Value json.RawMessage `json:"value"`
		} `json:"overridden"`
		Confirmed bool       `json:"confirmed"`
		Since     *time.Time `json:"since"`
	} `json:"settings"`
}

// all asks for the largest page.
var all = url.Values{"limit": {"1000"}}

// Policies lists the policies.
func (c *Client) Policies(ctx context.Context) (List[Policy], error) {
	return call[List[Policy]](ctx, c, "GET", "/policies", all, nil)
}

// CreatePolicy makes a policy.
func (c *Client) CreatePolicy(ctx context.Context, change PolicyChange) (Policy, error) {
	return call[Policy](ctx, c, "POST", "/policies", nil, change)
}

// SavePolicy changes a policy. A change that is based on an old version is a
// fault.Conflict.
func (c *Client) SavePolicy(ctx context.Context, id string, change PolicyChange) (Policy, error) {
	return call[Policy](ctx, c, "PUT", "/policies/"+url.PathEscape(id), nil, change)
}

// DeletePolicy removes a policy, one that is assigned only with force.
func (c *Client) DeletePolicy(ctx context.Context, id string, force bool) error {
	q := url.Values{}
	if force {
		q.Set("force", "true")
	}
	_, err := call[none](ctx, c, "DELETE", "/policies/"+url.PathEscape(id), q, nil)
	return err
}

// Groups lists the device groups, lowest rank first.
func (c *Client) Groups(ctx context.Context) (List[Group], error) {
	return call[List[Group]](ctx, c, "GET", "/device-groups", all, nil)
}

// CreateGroup makes a device group.
func (c *Client) CreateGroup(ctx context.Context, change GroupChange) (Group, error) {
	return call[Group](ctx, c, "POST", "/device-groups", nil, change)
}

// SaveGroup changes a device group. A change that is based on an old version
// is a fault.Conflict.
func (c *Client) SaveGroup(ctx context.Context, id string, change GroupChange) (Group, error) {
	return call[Group](ctx, c, "PUT", "/device-groups/"+url.PathEscape(id), nil, change)
}

// DeleteGroup removes a device group that no policy is assigned to.
func (c *Client) DeleteGroup(ctx context.Context, id string) error {
	_, err := call[none](ctx, c, "DELETE", "/device-groups/"+url.PathEscape(id), nil, nil)
	return err
}

// DevicePolicy says what applies to a device and where it comes from.
func (c *Client) DevicePolicy(ctx context.Context, id string) (Applied, error) {
	return call[Applied](ctx, c, "GET", "/devices/"+url.PathEscape(id)+"/policy", nil, nil)
}
