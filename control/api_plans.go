package control

import (
	"context"
	"slices"

	"komainu/control/access"
	"komainu/control/connector"
	"komainu/control/device"
	"komainu/control/machine"
	"komainu/control/plan"
	"komainu/control/rest"
	"komainu/fault"
)

// EnvironmentView is an environment with its devices and machines counted.
type EnvironmentView struct {
	plan.Environment
	Devices  device.Counts  `json:"devices"`
	Machines machine.Counts `json:"machines"`
}

// environmentInput names an environment.
type environmentInput struct {
	ID string `path:"id" doc:"id of an environment"`
}

func (a *api) listEnvironments(ctx context.Context, in *rest.Paging) (rest.List[EnvironmentView], error) {
	offset, err := in.Offset()
	if err != nil {
		return rest.List[EnvironmentView]{}, err
	}
	organization := access.ActorOf(ctx).Organization
	list, err := a.plans.List(ctx, organization)
	if err != nil {
		return rest.List[EnvironmentView]{}, err
	}
	counts, machines := a.devices.Counts(organization), a.known.machines.Count(organization)
	var items []EnvironmentView
	for _, e := range list[min(offset, len(list)):min(offset+in.Limit, len(list))] {
		items = append(items, EnvironmentView{e, counts[e.ID], machines[e.ID]})
	}
	return rest.NewList(items, len(list), in.Next(offset, len(items), len(list))), nil
}

type createEnvironmentInput struct {
	Body plan.Creation
}

func (a *api) createEnvironment(ctx context.Context, in *createEnvironmentInput) (EnvironmentView, error) {
	e, err := a.plans.Create(ctx, access.ActorOf(ctx).Organization, in.Body)
	return EnvironmentView{Environment: e}, err
}

type renameEnvironmentInput struct {
	ID   string `path:"id" doc:"id of an environment"`
	Body struct {
		Name string `json:"name" minLength:"1" maxLength:"100"`
	}
}

func (a *api) renameEnvironment(ctx context.Context, in *renameEnvironmentInput) (EnvironmentView, error) {
	if _, err := a.plans.Rename(ctx, access.ActorOf(ctx).Organization, in.ID, in.Body.Name); err != nil {
		return EnvironmentView{}, err
	}
	return a.environment(ctx, &environmentInput{in.ID})
}

// deleteEnvironment refuses as long as something is in it: history must not
// lose the place where it belongs. Machines that no inventory names any more
// and that never had an agent have none.
func (a *api) deleteEnvironment(ctx context.Context, in *environmentInput) error {
	organization := access.ActorOf(ctx).Organization
	e, err := a.environment(ctx, in)
	if err != nil {
		return err
	}
	ways, err := a.known.connectors.List(ctx, organization, connector.Query{ID: in.ID, Paging: rest.Paging{Limit: 1}})
	if err != nil {
		return err
	}
	machines := a.known.machines.All(in.ID)
	gone := func(m *machine.Machine) bool { return m.Gone && m.Device == "" }
	for _, left := range []struct {
		n    int
		what string
	}{{ways.Total, "connectors"}, {len(slices.DeleteFunc(slices.Clone(machines), gone)), "machines"}, {e.Devices.Total, "devices"}} {
		if left.n > 0 {
			return fault.New(fault.Conflict, "%q has %d %s; delete them first", e.Name, left.n, left.what)
		}
	}
	for _, m := range machines {
		if err := a.known.machines.Delete(ctx, organization, m.ID); err != nil {
			return err
		}
	}
	return a.plans.Delete(ctx, organization, in.ID)
}

func (a *api) environment(ctx context.Context, in *environmentInput) (EnvironmentView, error) {
	organization := access.ActorOf(ctx).Organization
	e, err := a.plans.Get(ctx, organization, in.ID)
	return EnvironmentView{e, a.devices.Counts(organization)[in.ID], a.known.machines.Count(organization)[in.ID]}, err
}

func (a *api) plan(ctx context.Context, in *environmentInput) (plan.Settings, error) {
	return a.plans.Settings(ctx, access.ActorOf(ctx).Organization, in.ID)
}

type savePlanInput struct {
	ID   string `path:"id" doc:"id of an environment"`
	Body plan.Change
}

func (a *api) savePlan(ctx context.Context, in *savePlanInput) (plan.Settings, error) {
	return a.plans.Save(ctx, access.ActorOf(ctx).Organization, in.ID, in.Body)
}

// PlansView compares the plans.
type PlansView struct {
	Capabilities []plan.Compared `json:"capabilities"`
}

func (a *api) comparePlans(context.Context, *struct{}) (PlansView, error) {
	return PlansView{plan.Compare()}, nil
}
