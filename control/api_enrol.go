package control

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/uptrace/bun"

	"komainu/control/access"
	"komainu/control/connector"
	"komainu/control/connector/cloud"
	"komainu/control/device"
	"komainu/control/enrol"
	"komainu/control/gateway"
	"komainu/control/machine"
	"komainu/control/notify"
	"komainu/control/onboard"
	"komainu/control/plan"
	"komainu/control/rest"
	"komainu/deploy"
	"komainu/event"
	"komainu/fault"
	"komainu/finding"
)

// JoinToken is a join token; its secret is in the answer to its creation only.
type JoinToken struct {
	ID        string    `json:"id"`
	Label     string    `json:"label"`
	CreatedBy string    `json:"createdBy"`
	CreatedAt time.Time `json:"createdAt"`
	ExpiresAt time.Time `json:"expiresAt"`
	MaxUses   int       `json:"maxUses"`
	Uses      int       `json:"uses"`
	Revoked   bool      `json:"revoked"`
	Token     string    `json:"token,omitempty" doc:"only in the answer to its creation"`
	Command   string    `json:"command,omitempty" doc:"what to type on a server that has the agent; only in the answer to its creation"`
	// Snippets hold the token: they are made with it and kept nowhere.
	Snippets *deploy.Ways `json:"snippets,omitempty" doc:"how servers get agent and token; only in the answer to its creation"`
}

func joinToken(t enrol.Token) JoinToken {
	return JoinToken{ID: t.ID, Label: t.Label, CreatedBy: t.CreatedBy, CreatedAt: t.CreatedAt, ExpiresAt: t.ExpiresAt, MaxUses: t.MaxUses, Uses: t.Uses, Revoked: t.Revoked}
}

type listJoinTokensInput struct {
	ID string `path:"id" doc:"id of an environment"`
	rest.Paging
}

func (a *api) listJoinTokens(ctx context.Context, in *listJoinTokensInput) (rest.List[JoinToken], error) {
	offset, err := in.Offset()
	if err != nil {
		return rest.List[JoinToken]{}, err
	}
	if _, err := a.plans.Get(ctx, access.ActorOf(ctx).Organization, in.ID); err != nil {
		return rest.List[JoinToken]{}, err
	}
	list, err := a.ids.Tokens(ctx, in.ID)
	if err != nil {
		return rest.List[JoinToken]{}, err
	}
	var items []JoinToken
	for _, t := range list[min(offset, len(list)):min(offset+in.Limit, len(list))] {
		items = append(items, joinToken(t))
	}
	return rest.NewList(items, len(list), in.Next(offset, len(items), len(list))), nil
}

type createJoinTokenInput struct {
	ID   string `path:"id" doc:"id of an environment"`
	Body struct {
		Label            string `json:"label,omitempty" maxLength:"100"`
		ExpiresInSeconds int64  `json:"expiresInSeconds,omitempty" minimum:"60" maximum:"31622400" doc:"a day when left out"`
		MaxUses          int    `json:"maxUses,omitempty" minimum:"1" maximum:"100000" doc:"1 when left out"`
	}
}

func (a *api) createJoinToken(ctx context.Context, in *createJoinTokenInput) (JoinToken, error) {
	e, err := a.plans.Get(ctx, access.ActorOf(ctx).Organization, in.ID)
	if err != nil {
		return JoinToken{}, err
	}
	return a.newJoinToken(ctx, enrol.TokenRequest{
		Environment: e.ID, Label: in.Body.Label, Lasts: time.Duration(cmp.Or(in.Body.ExpiresInSeconds, 24*60*60)) * time.Second, MaxUses: cmp.Or(in.Body.MaxUses, 1),
	})
}

// newJoinToken makes a token for who asks, and writes down that they did.
func (a *api) newJoinToken(ctx context.Context, r enrol.TokenRequest) (JoinToken, error) {
	r.CreatedBy, r.Server = access.ActorOf(ctx).Name, a.address
	t, text, err := a.ids.CreateToken(ctx, r)
	if err != nil {
		return JoinToken{}, err
	}
	detail := map[string]any{"environment": r.Environment, "expiresAt": t.ExpiresAt, "maxUses": t.MaxUses}
	if r.Machine != "" {
		detail["machine"] = r.Machine
	}
	err = a.record(ctx, a.state, access.Change{Action: "join_token.create", Target: t.ID, Name: t.Label, Detail: detail})
	if err != nil {
		// A token that nobody is accountable for must not work.
		return JoinToken{}, errors.Join(err, a.ids.RevokeToken(ctx, r.Environment, t.ID))
	}
	v := joinToken(t)
	// Through a pipe: the log of sudo and lists of processes show command lines.
	v.Token, v.Command = text, "echo '"+text+"' | sudo komainu enrol --token-file -"
	v.Snippets = new(deploy.Join{Server: a.address, CA: string(a.ids.CAPEM()), Token: text}.Ways())
	return v, nil
}

type revokeJoinTokenInput struct {
	ID    string `path:"id" doc:"id of an environment"`
	Token string `path:"token" doc:"id of a join token"`
}

func (a *api) revokeJoinToken(ctx context.Context, in *revokeJoinTokenInput) error {
	if _, err := a.plans.Get(ctx, access.ActorOf(ctx).Organization, in.ID); err != nil {
		return err
	}
	if err := a.ids.RevokeToken(ctx, in.ID, in.Token); err != nil {
		return err
	}
	return a.record(ctx, a.state, access.Change{Action: "join_token.revoke", Target: in.Token, Detail: map[string]string{"environment": in.ID}})
}

// registrar lets hosts that enrol into the registry; it is an
// enrol.Registrar.
type registrar struct {
	organization access.Organization
	plans        *plan.Plans
	devices      *device.Registry
	machines     *machine.Registry
	engine       *onboard.Engine
	connectors   *connector.Connectors
	ids          *enrol.Authority
	agents       *gateway.Gateway
	notices      *notify.Notifier
	address      string // URL of the control plane
	log          *slog.Logger

	proving sync.Mutex // a machine that proves who it is comes in once
}

// Recognize implements enrol.Registrar: the connectors know the machines of
// clouds.
func (r *registrar) Recognize(ctx context.Context, e enrol.Evidence) (enrol.Admission, error) {
	found, err := r.connectors.Recognize(ctx, r.organization.ID, cloud.Evidence(e), func(connector, key string) bool {
		_, ok := r.machines.Found(connector, key)
		return ok
	})
	if err != nil {
		return enrol.Admission{}, err
	}
	m, ok := r.machines.Found(found.Connector, found.Key)
	if !ok {
		return enrol.Admission{}, fault.New(fault.Unavailable, "the machine has just left the inventory; try again in a minute")
	}
	return enrol.Admission{Environment: m.Environment, Machine: m.ID}, r.admits(m.ID)
}

// admits says why a machine that has proven who it is must not come in. A
// document can be shown by whoever has read it on the machine, some of them
// for as long as the machine runs. So a machine that has an agent gets no
// second identity, unless the control plane itself is installing there now;
// and one that somebody has offboarded stays out until it is deployed to.
func (r *registrar) admits(id string) error {
	m, err := r.machines.Get(r.organization.ID, id)
	if err != nil {
		return err
	}
	if r.engine.Expects(id) {
		return nil
	}
	device, known := r.devices.State(m.Device)
	switch {
	case m.Offboarded:
		return fault.New(fault.Denied, "the machine %s was offboarded; deploy to it from its page", m.Name)
	case m.Device != "" && known && !device.Offboarded:
		return fault.New(fault.Denied, "the machine %s has an agent already (device %s); offboard that one, or deploy to the machine from its page", m.Name, m.Device)
	}
	return nil
}

// Register creates a device from the facts of a host.
func (r *registrar) Register(ctx context.Context, to enrol.Admission, facts json.RawMessage) (enrol.Registration, error) {
	var f device.Facts
	if err := json.Unmarshal(facts, &f); err != nil {
		return enrol.Registration{}, fault.New(fault.Invalid, "the facts of the host cannot be read: %w", err)
	}
	e, err := r.plans.Get(ctx, r.organization.ID, to.Environment)
	if err != nil {
		return enrol.Registration{}, err
	}
	if to.Evidence {
		r.proving.Lock()
		defer r.proving.Unlock()
		if err := r.admits(to.Machine); err != nil {
			return enrol.Registration{}, err
		}
	}
	id, err := r.devices.Register(ctx, r.organization.ID, e.ID, f)
	if err != nil {
		return enrol.Registration{}, err
	}
	var observe time.Time
	if o := r.engine.Settings(e.ID).Observe; o.Enabled {
		observe = time.Now().UTC().Add(time.Duration(o.Hours) * time.Hour)
	}
	before, _ := r.machines.Lookup(to.Machine)
	if err := r.machines.Enrolled(ctx, r.organization.ID, e.ID, to.Machine, id, knownBy(f), observe); err != nil {
		// Nobody gets an identity of this device: it need not be in the lists.
		return enrol.Registration{}, errors.Join(err, r.devices.Offboard(ctx, r.organization.ID, id, "its machine was offboarded before it had enrolled"))
	}
	if to.Evidence {
		r.engine.Came(to.Machine)
	}
	r.engine.Wake()
	return enrol.Registration{Device: id, Organization: r.organization.ID, Environment: e.Name}, succession{r.devices, r.ids, r.agents}.replaced(ctx, before.Device, id)
}

// succession ends the identities that machines had before; nobody should go on
// with them, and the list should not show a device that can never come back.
type succession struct {
	devices *device.Registry
	ids     *enrol.Authority
	agents  *gateway.Gateway
}

// replaced ends the identity of a machine whose host is another device now: its
// agent was installed anew, or somebody has enrolled it anew.
func (s succession) replaced(ctx context.Context, old, by event.DeviceID) error {
	d, ok := s.devices.State(old)
	if !ok || d.Offboarded || old == by {
		return nil
	}
	return s.revoke(ctx, d.Organization, old, "its machine has enrolled anew, as device "+string(by))
}

// revoke ends the identity of a device for a reason that the control plane has
// seen by itself. One that is ended already is no error.
func (s succession) revoke(ctx context.Context, organization string, id event.DeviceID, reason string) error {
	ctx = access.WithActor(ctx, access.Actor{Kind: access.System, Name: "onboarding", Organization: organization})
	// The certificates first, as when somebody revokes a device.
	if err := s.ids.Revoke(ctx, id); err != nil {
		return err
	}
	if err := s.devices.Offboard(ctx, organization, id, reason); err != nil && !fault.Is(err, fault.Conflict) {
		return err
	}
	s.agents.Disconnect(id, fault.Unauthentic, reason)
	return nil
}

// Leave implements enrol.Registrar. The machine goes first, or a plan that is
// on would bring the agent back; the certificates last, so that the agent can
// ask again when something fails before. Whoever does this on a host may be an
// intruder, so people are told.
func (r *registrar) Leave(ctx context.Context, id event.DeviceID, address string) error {
	d, ok := r.devices.State(id)
	if !ok {
		return fault.New(fault.Unauthentic, "device %s is not known", id)
	}
	if !r.engine.Settings(d.Environment).HostOffboarding {
		r.log.Warn("a host wants to offboard itself and may not", "device", id, "name", d.Name, "remote", address)
		return fault.New(fault.Denied, "hosts of this environment may not offboard themselves; who manages devices can do it in the portal, on the page of the machine, or with komainuctl machine offboard %s", d.Name)
	}
	ctx = access.WithActor(ctx, access.Actor{Kind: access.Device, ID: string(id), Name: d.Name, Organization: d.Organization, Address: address})
	if m, ok := r.machines.Of(id); ok && !m.Offboarded {
		if err := r.machines.Leave(ctx, d.Organization, m.ID); err != nil {
			return err
		}
	}
	err := r.devices.Leave(ctx, d.Organization, id, func(ctx context.Context, tx bun.IDB) error {
		return r.notices.Enqueue(ctx, tx, d.Organization, notify.Message{
			Event: "device.offboarded", Severity: finding.Medium, Title: "the host has offboarded itself", Summary: "It is not protected any more. If nobody meant to do this, look at who was root on the host.",
			Status: "Offboarded", Subject: notify.Subject{Kind: "device", ID: string(id)}, Devices: []notify.Device{{ID: string(id), Name: d.Name}}, Link: r.address + "/devices/" + string(id),
		})
	})
	if err != nil && !fault.Is(err, fault.Conflict) {
		return err
	}
	r.notices.Wake()
	if err := r.ids.Revoke(ctx, id); err != nil {
		return err
	}
	r.agents.Disconnect(id, fault.Unauthentic, "the device was offboarded by its own host")
	return nil
}
