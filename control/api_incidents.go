package control

import (
	"context"

	"komainu/control/access"
	"komainu/control/eventstore"
	"komainu/control/incident"
	"komainu/control/rest"
	"komainu/event"
	"komainu/finding"
)

// EvidenceView is an entity that took part in an alert.
type EvidenceView struct {
	Role    finding.Role            `json:"role"`
	Verdict string                  `json:"verdict"`
	State   string                  `json:"state"`
	File    *eventstore.FileView    `json:"file,omitempty"`
	Process *eventstore.ProcessView `json:"process,omitempty"`
	User    *eventstore.UserView    `json:"user,omitempty"`
	Network *eventstore.NetworkView `json:"network,omitempty"`
}

func evidenceView(e finding.Evidence) EvidenceView {
	// An event shows what takes part in it the same way.
	seen := eventstore.ViewOf(&event.Event{File: e.File, Process: e.Process, Network: e.Network})
	v := EvidenceView{Role: e.Role, Verdict: e.Verdict, State: e.State, File: seen.File, Process: seen.Process, Network: seen.Network}
	if e.User != nil {
		v.User = &eventstore.UserView{UID: e.User.UID, EUID: e.User.EUID, Name: e.User.Name}
	}
	return v
}

// AlertView is an alert with its story.
type AlertView struct {
	incident.Alert
	Evidence           []EvidenceView           `json:"evidence" doc:"the first one is the main one"`
	Tree               []eventstore.ProcessView `json:"tree" doc:"the acting process, its ancestors, and others that took part"`
	Events             []eventstore.View        `json:"events" doc:"what led to it, in order"`
	RecommendedActions []string                 `json:"recommendedActions"`
}

func (a *api) listAlerts(ctx context.Context, in *incident.AlertQuery) (rest.List[incident.Alert], error) {
	list, err := a.desk.Alerts(ctx, access.ActorOf(ctx).Organization, *in)
	a.nameAlerts(list.Items)
	return list, err
}

func (a *api) nameAlerts(alerts []incident.Alert) {
	for i := range alerts {
		a.nameDevice(&alerts[i].Device)
	}
}

func (a *api) nameDevice(r *rest.Ref) {
	id := event.DeviceID(r.ID)
	r.Name = a.devices.Names(id)[id]
}

type byID struct {
	ID string `path:"id"`
}

func (a *api) alert(ctx context.Context, in *byID) (AlertView, error) {
	alert, f, err := a.desk.Alert(ctx, access.ActorOf(ctx).Organization, in.ID)
	if err != nil {
		return AlertView{}, err
	}
	v := AlertView{
		Alert: alert, Evidence: make([]EvidenceView, len(f.Evidence)), Tree: make([]eventstore.ProcessView, len(f.Tree)), Events: eventstore.Views(f.Events),
		RecommendedActions: incident.Recommended(&f),
	}
	a.nameDevice(&v.Device)
	for i := range f.Evidence {
		v.Evidence[i] = evidenceView(f.Evidence[i])
	}
	for i := range f.Tree {
		v.Tree[i] = eventstore.ProcessViewOf(f.Tree[i])
	}
	return v, nil
}

type changeAlertInput struct {
	ID   string `path:"id"`
	Body struct {
		Status string `json:"status" enum:"New,InProgress,Resolved"`
	}
}

func (a *api) changeAlert(ctx context.Context, in *changeAlertInput) (AlertView, error) {
	if err := a.desk.SetAlertStatus(ctx, access.ActorOf(ctx).Organization, in.ID, in.Body.Status); err != nil {
		return AlertView{}, err
	}
	return a.alert(ctx, &byID{in.ID})
}

func (a *api) listIncidents(ctx context.Context, in *incident.IncidentQuery) (rest.List[incident.Incident], error) {
	list, err := a.desk.Incidents(ctx, access.ActorOf(ctx).Organization, *in)
	for i := range list.Items {
		for j := range list.Items[i].Devices {
			a.nameDevice(&list.Items[i].Devices[j])
		}
	}
	return list, err
}

func (a *api) incident(ctx context.Context, in *byID) (incident.IncidentPage, error) {
	return a.named(a.desk.Incident(ctx, access.ActorOf(ctx).Organization, in.ID))
}

func (a *api) named(p incident.IncidentPage, err error) (incident.IncidentPage, error) {
	for i := range p.Devices {
		a.nameDevice(&p.Devices[i])
	}
	a.nameAlerts(p.AlertItems)
	return p, err
}

type changeIncidentInput struct {
	ID   string `path:"id"`
	Body struct {
		Status   *string `json:"status,omitempty" enum:"Active,InProgress,Resolved"`
		Assignee *string `json:"assignee,omitempty" maxLength:"64"`
	}
}

func (a *api) changeIncident(ctx context.Context, in *changeIncidentInput) (incident.IncidentPage, error) {
	return a.named(a.desk.UpdateIncident(ctx, access.ActorOf(ctx).Organization, in.ID, in.Body.Status, in.Body.Assignee))
}
