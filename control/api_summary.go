package control

import (
	"context"

	"komainu/control/access"
	"komainu/control/device"
	"komainu/control/incident"
	"komainu/control/rest"
	"komainu/event"
	"komainu/policy"
)

// SummaryView is the organization at a glance: what the home page shows.
// Every number is the total of the list that the same filter selects.
type SummaryView struct {
	Devices      device.Totals      `json:"devices"`
	Incidents    incident.Open      `json:"incidents"`
	Alerts       incident.Open      `json:"alerts"`
	Environments []EnvironmentBrief `json:"environments"`
}

// EnvironmentBrief is an environment with its plan.
type EnvironmentBrief struct {
	rest.Ref
	Plan    policy.Tier   `json:"plan" doc:"off, P1 or P2"`
	Devices device.Counts `json:"devices"`
}

func (a *api) summary(ctx context.Context, _ *struct{}) (SummaryView, error) {
	organization := access.ActorOf(ctx).Organization
	risks, err := a.risks(ctx)
	if err != nil {
		return SummaryView{}, err
	}
	v := SummaryView{Devices: a.devices.Totals(organization, risks), Environments: []EnvironmentBrief{}}
	if v.Incidents, err = a.desk.OpenIncidents(ctx, organization); err != nil {
		return v, err
	}
	if v.Alerts, err = a.desk.OpenAlerts(ctx, organization); err != nil {
		return v, err
	}
	list, err := a.plans.List(ctx, organization)
	counts := a.devices.Counts(organization)
	for _, e := range list {
		v.Environments = append(v.Environments, EnvironmentBrief{rest.Ref{ID: e.ID, Name: e.Name}, e.Plan, counts[e.ID]})
	}
	return v, err
}

// risks tells the registry of devices what active alerts say of them.
func (a *api) risks(ctx context.Context) (map[event.DeviceID]device.Risk, error) {
	found, err := a.desk.Risks(ctx, access.ActorOf(ctx).Organization)
	risks := make(map[event.DeviceID]device.Risk, len(found))
	for id, r := range found {
		risks[id] = device.Risk{Active: r.Active, Level: r.Severity.String(), Rank: int(r.Severity)}
	}
	return risks, err
}
