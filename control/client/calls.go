package client

import (
	"context"
	"net/url"
	"strconv"
)

// none is the answer of calls that return nothing.
type none struct{}

// Query selects items of a list by the names of the API's parameters, such as
// "q", "health", "status", "limit", "cursor". It may be nil.
type Query map[string]string

func (q Query) values() url.Values {
	v := url.Values{}
	for name, value := range q {
		v.Set(name, value)
	}
	return v
}

// SignIn opens a session, which later calls use.
func (c *Client) SignIn(ctx context.Context, name, password string) (Session, error) {
	return call[Session](ctx, c, "POST", "/session", nil, map[string]string{"name": name, "password": password})
}

// ChangePassword changes the password of who is signed in.
func (c *Client) ChangePassword(ctx context.Context, current, next string) (Session, error) {
	return call[Session](ctx, c, "POST", "/session/password", nil, map[string]string{"current": current, "new": next})
}

// Session says who is signed in.
func (c *Client) Session(ctx context.Context) (Session, error) {
	return call[Session](ctx, c, "GET", "/session", nil, nil)
}

// SignOut ends the session.
func (c *Client) SignOut(ctx context.Context) error {
	_, err := call[none](ctx, c, "DELETE", "/session", nil, nil)
	return err
}

// CreateToken makes an API token that lasts for so many seconds.
func (c *Client) CreateToken(ctx context.Context, label, role string, seconds int64) (Token, error) {
	body := map[string]any{"label": label, "role": role}
	if seconds > 0 {
		body["expiresInSeconds"] = seconds
	}
	return call[Token](ctx, c, "POST", "/tokens", nil, body)
}

// Environments lists environments.
func (c *Client) Environments(ctx context.Context) (List[Environment], error) {
	return call[List[Environment]](ctx, c, "GET", "/environments", Query{"limit": strconv.Itoa(1000)}.values(), nil)
}

// Plan returns the plan of an environment.
func (c *Client) Plan(ctx context.Context, environment string) (Plan, error) {
	return call[Plan](ctx, c, "GET", "/environments/"+url.PathEscape(environment)+"/plan", nil, nil)
}

// SavePlan changes the plan of an environment. A change that is based on an
// old version is a fault.Conflict.
func (c *Client) SavePlan(ctx context.Context, environment string, change PlanChange) (Plan, error) {
	return call[Plan](ctx, c, "PUT", "/environments/"+url.PathEscape(environment)+"/plan", nil, change)
}

// CreateJoinToken makes a token that lets hosts enrol into an environment.
func (c *Client) CreateJoinToken(ctx context.Context, environment string, r JoinTokenRequest) (JoinToken, error) {
	return call[JoinToken](ctx, c, "POST", "/environments/"+url.PathEscape(environment)+"/join-tokens", nil, r)
}

// Devices lists devices.
func (c *Client) Devices(ctx context.Context, q Query) (List[Device], error) {
	return call[List[Device]](ctx, c, "GET", "/devices", q.values(), nil)
}

// Device returns one device with its health and policy.
func (c *Client) Device(ctx context.Context, id string) (Device, error) {
	return call[Device](ctx, c, "GET", "/devices/"+url.PathEscape(id), nil, nil)
}

// Revoke offboards a device.
func (c *Client) Revoke(ctx context.Context, id, reason string) (Device, error) {
	return call[Device](ctx, c, "POST", "/devices/"+url.PathEscape(id)+"/revoke", nil, map[string]string{"reason": reason})
}

// Timeline lists events of a device, newest first.
func (c *Client) Timeline(ctx context.Context, device string, q Query) (List[Event], error) {
	return call[List[Event]](ctx, c, "GET", "/devices/"+url.PathEscape(device)+"/timeline", q.values(), nil)
}

// Alerts lists alerts, newest activity first.
func (c *Client) Alerts(ctx context.Context, q Query) (List[Alert], error) {
	return call[List[Alert]](ctx, c, "GET", "/alerts", q.values(), nil)
}

// Alert returns one alert with its story.
func (c *Client) Alert(ctx context.Context, id string) (Alert, error) {
	return call[Alert](ctx, c, "GET", "/alerts/"+url.PathEscape(id), nil, nil)
}

// Incidents lists incidents, newest activity first.
func (c *Client) Incidents(ctx context.Context, q Query) (List[Incident], error) {
	return call[List[Incident]](ctx, c, "GET", "/incidents", q.values(), nil)
}

// Incident returns one incident with its alerts.
func (c *Client) Incident(ctx context.Context, id string) (Incident, error) {
	return call[Incident](ctx, c, "GET", "/incidents/"+url.PathEscape(id), nil, nil)
}
