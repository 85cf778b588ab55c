package control

import (
	"context"

	"github.com/uptrace/bun"

	"komainu/control/device"
	"komainu/control/incident"
	"komainu/control/notify"
	"komainu/event"
)

// newDesk returns the desk, which tells pages what changed and puts what
// people want to know into the outbox of the notifications.
func newDesk(state *bun.DB, cfg incident.Config, notifier *notify.Notifier, devices *device.Registry, changes *hub, address string) *incident.Desk {
	cfg.Changed = func(organization string, c incident.Changed) {
		changes.found(organization, c)
		notifier.Wake()
	}
	cfg.Tell = func(ctx context.Context, tx bun.IDB, organization string, n incident.News) error {
		m := messageOf(&n, address)
		for i := range m.Devices {
			m.Devices[i].Name = m.Devices[i].ID
			id := event.DeviceID(m.Devices[i].ID)
			if name := devices.Names(id)[id]; name != "" {
				m.Devices[i].Name = name
			}
		}
		return notifier.Enqueue(ctx, tx, organization, m)
	}
	return incident.New(state, cfg)
}

// messageOf is what people are told of news.
func messageOf(n *incident.News, address string) notify.Message {
	m := notify.Message{Event: n.Event, Was: n.Was, Test: n.Test, Devices: []notify.Device{}}
	if a := n.Alert; a != nil {
		m.Severity, m.Title, m.Summary, m.Status, m.Link = a.Severity, a.Title, a.Summary, a.Status, address+"/alerts/"+a.ID
		m.Devices = append(m.Devices, notify.Device{ID: a.Device.ID})
		m.Subject = notify.Subject{
			Kind: "alert", ID: a.ID, Incident: a.IncidentID, Categories: []string{a.Category}, DetectionSource: []string{a.DetectionSource},
			FirstActivity: a.FirstActivity, LastActivity: a.LastActivity, Assignee: a.Assignee, ThreatName: a.ThreatName, Rule: a.Rule.ID,
		}
	}
	if in := n.Incident; in != nil {
		m.Severity, m.Title, m.Status, m.Link = in.Severity, in.Name, in.Status, address+"/incidents/"+in.ID
		for _, d := range in.Devices {
			m.Devices = append(m.Devices, notify.Device{ID: d.ID})
		}
		m.Subject = notify.Subject{
			Kind: "incident", ID: in.ID, Incident: in.ID, Categories: in.Categories, DetectionSource: in.DetectionSources,
			FirstActivity: in.FirstActivity, LastActivity: in.LastActivity, Assignee: in.Assignee,
		}
	}
	if n.From != "" {
		m.Change = &notify.Change{From: n.From, To: m.Status, By: n.By}
	}
	return m
}
