package control

import (
	"cmp"
	"context"
	"time"

	"komainu/control/access"
	"komainu/control/device"
	"komainu/control/eventstore"
	"komainu/control/rest"
	"komainu/event"
	"komainu/fault"
)

type deviceInput struct {
	ID event.DeviceID `path:"id" doc:"id of a device"`
}

func (a *api) listDevices(ctx context.Context, in *device.Query) (rest.List[device.Device], error) {
	organization := access.ActorOf(ctx).Organization
	risks, err := a.risks(ctx)
	if err != nil {
		return rest.List[device.Device]{}, err
	}
	list, err := a.devices.List(ctx, organization, *in, risks)
	if err != nil {
		return list, err
	}
	names, err := a.environmentNames(ctx, organization)
	for i := range list.Items {
		list.Items[i].Environment.Name = names[list.Items[i].Environment.ID]
	}
	return list, err
}

func (a *api) environmentNames(ctx context.Context, organization string) (map[string]string, error) {
	list, err := a.plans.List(ctx, organization)
	names := make(map[string]string, len(list))
	for _, e := range list {
		names[e.ID] = e.Name
	}
	return names, err
}

func (a *api) device(ctx context.Context, in *deviceInput) (device.Details, error) {
	organization := access.ActorOf(ctx).Organization
	d, err := a.devices.Get(ctx, organization, in.ID)
	if err != nil {
		return d, err
	}
	e, err := a.plans.Get(ctx, organization, d.Environment.ID)
	if err != nil {
		return d, err
	}
	risks, err := a.desk.Risks(ctx, organization)
	if err != nil {
		return d, err
	}
	if r, ok := risks[in.ID]; ok {
		d.ActiveAlerts, d.RiskLevel = r.Active, r.Severity.String()
	}
	d.Environment.Name, d.Policy.Version = e.Name, a.rules.Version(in.ID)
	c, err := a.ids.Certificate(ctx, in.ID)
	if err == nil && c.Serial != "" {
		d.Certificate = &device.Certificate{Serial: c.Serial, NotAfter: c.NotAfter, Revoked: c.Revoked}
	}
	return d, err
}

type revokeInput struct {
	ID   event.DeviceID `path:"id" doc:"id of a device"`
	Body struct {
		Reason string `json:"reason,omitempty" maxLength:"500"`
	}
}

// revokeDevice offboards a device: its certificates stop working at once, its
// history stays.
func (a *api) revokeDevice(ctx context.Context, in *revokeInput) (device.Details, error) {
	organization := access.ActorOf(ctx).Organization
	if _, err := a.devices.Get(ctx, organization, in.ID); err != nil {
		return device.Details{}, err
	}
	// The certificates first: if what follows fails, the device is out all the
	// same, and the same call completes it.
	if err := a.ids.Revoke(ctx, in.ID); err != nil {
		return device.Details{}, err
	}
	if err := a.devices.Offboard(ctx, organization, in.ID, in.Body.Reason); err != nil {
		return device.Details{}, err
	}
	// Its machine too: a plan that is still on must not bring the agent back.
	if m, ok := a.known.machines.Of(in.ID); ok && !m.Offboarded {
		if err := a.known.machines.Offboard(ctx, organization, m.ID, in.Body.Reason); err != nil {
			return device.Details{}, err
		}
		a.known.engine.Offboarded(m.ID)
	}
	a.agents.Disconnect(in.ID, fault.Unauthentic, "the device was offboarded: "+cmp.Or(in.Body.Reason, "no reason given"))
	return a.device(ctx, &deviceInput{in.ID})
}

// timelineInput selects events of a device.
type timelineInput struct {
	ID     event.DeviceID `path:"id" doc:"id of a device"`
	From   time.Time      `query:"from" doc:"not before"`
	To     time.Time      `query:"to" doc:"before"`
	Action []event.Action `query:"action" doc:"only these actions, separated by commas"`
	Text   string         `query:"q" maxLength:"256" doc:"part of a path, a command line, an address, …"`
	Limit  int            `query:"limit" minimum:"1" maximum:"1000" default:"100"`
	Cursor string         `query:"cursor" doc:"next of the page above, or newer of the page below together with newer=true"`
	Newer  bool           `query:"newer" doc:"what is next above the cursor, or next above from without one"`
}

// TimelineView is a part of a timeline, newest first in either direction.
type TimelineView struct {
	Items []eventstore.View `json:"items"`
	Next  string            `json:"next" doc:"cursor of what is older, empty at the end"`
	Newer string            `json:"newer" doc:"cursor of what is newer, with newer=true; new events arrive there"`
}

func (a *api) deviceTimeline(ctx context.Context, in *timelineInput) (TimelineView, error) {
	organization := access.ActorOf(ctx).Organization
	if _, err := a.devices.Get(ctx, organization, in.ID); err != nil {
		return TimelineView{}, err
	}
	page, err := a.events.Timeline(ctx, eventstore.Query{
		Organization: organization, Device: in.ID, From: in.From, To: in.To, Actions: in.Action, Text: in.Text, Limit: in.Limit, Cursor: in.Cursor, Newer: in.Newer,
	})
	// A timeline is not counted: that would read all of it.
	return TimelineView{eventstore.Views(page.Events), page.Next, page.Newer}, err
}
