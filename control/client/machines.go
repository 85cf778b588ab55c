package client

import (
	"context"
	"net/url"
	"time"

	"komainu/deploy"
)

// Tag is a name with a value.
type Tag struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Machine is a machine that an environment knows, with an agent or without
// one; its Journal is on its page only.
type Machine struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	Environment Ref    `json:"environment"`
	Source      string `json:"source"`
	Connector   *Ref   `json:"connector"`
	Address     string `json:"address"`
	System      string `json:"system"`
	OS          string `json:"os"`
	Arch        string `json:"arch"`
	Tags        []Tag  `json:"tags"`
	Plan        struct {
		Effective string `json:"effective"`
		Setting   string `json:"setting"`
		From      string `json:"from"`
	} `json:"plan"`
	ExcludedBy string    `json:"excludedBy"`
	Device     *Ref      `json:"device"`
	FirstSeen  time.Time `json:"firstSeen"`
	LastSeen   time.Time `json:"lastSeen"`
	Gone       bool      `json:"gone"`
	Offboarded bool      `json:"offboarded"`
	Protected  bool      `json:"protected"`
	Extension  struct {
		Name         string         `json:"name"`
		State        deploy.State   `json:"state"`
		Step         deploy.Step    `json:"step"`
		Waits        string         `json:"waits"`
		Reason       *deploy.Reason `json:"reason"`
		Since        time.Time      `json:"since"`
		Seconds      float64        `json:"seconds"`
		Attempt      int            `json:"attempt"`
		NextAttempt  *time.Time     `json:"nextAttemptAt"`
		AgentVersion string         `json:"agentVersion"`
		ProtectedAt  *time.Time     `json:"protectedAt"`
	} `json:"extension"`
	Journal []MachineLine `json:"journal,omitempty"`
}

// MachineLine is what happened on the way of a machine to protection.
type MachineLine struct {
	Time   time.Time      `json:"time"`
	Step   deploy.Step    `json:"step"`
	State  string         `json:"state"`
	Text   string         `json:"text"`
	Reason *deploy.Reason `json:"reason"`
}

// Machines lists machines.
func (c *Client) Machines(ctx context.Context, q Query) (List[Machine], error) {
	return call[List[Machine]](ctx, c, "GET", "/machines", q.values(), nil)
}

// Machine returns a machine with its journal.
func (c *Client) Machine(ctx context.Context, id string) (Machine, error) {
	return call[Machine](ctx, c, "GET", "/machines/"+url.PathEscape(id), nil, nil)
}

// DeployMachine has a machine brought under protection now: despite another
// product that decides on file accesses, and taking it from another control
// plane, if that is wanted.
func (c *Client) DeployMachine(ctx context.Context, id string, despite, take bool) (Machine, error) {
	return call[Machine](ctx, c, "POST", "/machines/"+url.PathEscape(id)+"/deploy", nil, map[string]bool{"despiteConflict": despite, "takeOver": take})
}

// CreateMachineToken makes a token with which the agent on a machine enrols as
// that machine. A machine that is not to get an agent is a fault.Conflict.
func (c *Client) CreateMachineToken(ctx context.Context, id string) (JoinToken, error) {
	return call[JoinToken](ctx, c, "POST", "/machines/"+url.PathEscape(id)+"/join-token", nil, nil)
}

// LinkMachine says that a device runs on a machine.
func (c *Client) LinkMachine(ctx context.Context, id, device string) (Machine, error) {
	return call[Machine](ctx, c, "POST", "/machines/"+url.PathEscape(id)+"/device", nil, map[string]string{"device": device})
}

// OffboardMachine revokes the identity of a machine's agent and has it
// removed.
func (c *Client) OffboardMachine(ctx context.Context, id, reason string) (Machine, error) {
	return call[Machine](ctx, c, "POST", "/machines/"+url.PathEscape(id)+"/offboard", nil, map[string]string{"reason": reason})
}

// DeleteMachine forgets a machine that has no agent and that no inventory
// names.
func (c *Client) DeleteMachine(ctx context.Context, id string) error {
	_, err := call[none](ctx, c, "DELETE", "/machines/"+url.PathEscape(id), nil, nil)
	return err
}

// Connector is a way to machines without an agent.
type Connector struct {
	ID          string         `json:"id"`
	Name        string         `json:"name"`
	Environment string         `json:"environment"`
	Kind        string         `json:"kind"`
	Machines    int            `json:"machines"`
	UpdatedAt   time.Time      `json:"updatedAt"`
	UpdatedBy   string         `json:"updatedBy"`
	LastSync    *time.Time     `json:"lastSync"`
	Error       *deploy.Reason `json:"error"`
	SSH         *SSHConnector  `json:"ssh"` // nil for one of a cloud
}

// SSHConnector says which machines a connector reaches over SSH, and how.
type SSHConnector struct {
	Hosts      string `json:"hosts"` // as remote.ParseInventory reads it
	User       string `json:"user"`
	Port       int    `json:"port"`
	Jump       string `json:"jump"`
	Sudo       string `json:"sudo"`
	Credential string `json:"credential"` // push, certificate or key
	HostKeys   string `json:"hostKeys"`   // first_use or listed
	KnownHosts string `json:"knownHosts"`
}

// ConnectorReport is what a test of a connector has found.
type ConnectorReport struct {
	Hosts []struct {
		Name    string         `json:"name"`
		Address string         `json:"address"`
		OK      bool           `json:"ok"`
		Reason  *deploy.Reason `json:"reason"`
	} `json:"hosts"`
	Total  int `json:"total"`
	Passed int `json:"passed"`
}

// Synced counts what taking over an inventory did.
type Synced struct {
	Known int `json:"known"`
	Added int `json:"added"`
	Gone  int `json:"gone"`
}

// Connectors lists the connectors of an environment.
func (c *Client) Connectors(ctx context.Context, environment string) (List[Connector], error) {
	return call[List[Connector]](ctx, c, "GET", "/environments/"+url.PathEscape(environment)+"/connectors", Query{"limit": "1000"}.values(), nil)
}

// TestConnector logs in to the machines of a connector and looks.
func (c *Client) TestConnector(ctx context.Context, id string) (ConnectorReport, error) {
	return call[ConnectorReport](ctx, c, "POST", "/connectors/"+url.PathEscape(id)+"/test", nil, nil)
}

// SyncConnector takes the inventory of a connector over.
func (c *Client) SyncConnector(ctx context.Context, id string) (Synced, error) {
	return call[Synced](ctx, c, "POST", "/connectors/"+url.PathEscape(id)+"/sync", nil, nil)
}

// JoinTokens lists the join tokens of an environment, newest first.
func (c *Client) JoinTokens(ctx context.Context, environment string) (List[JoinToken], error) {
	return call[List[JoinToken]](ctx, c, "GET", "/environments/"+url.PathEscape(environment)+"/join-tokens", Query{"limit": "1000"}.values(), nil)
}

// RevokeJoinToken ends a join token; devices that have used it stay.
func (c *Client) RevokeJoinToken(ctx context.Context, environment, id string) error {
	_, err := call[none](ctx, c, "DELETE", "/environments/"+url.PathEscape(environment)+"/join-tokens/"+url.PathEscape(id), nil, nil)
	return err
}
