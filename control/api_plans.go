package control

import (
	"context"

	"komainu/control/access"
	"komainu/control/device"
	"komainu/control/plan"
	"komainu/control/rest"
)

// EnvironmentView is an environment with its devices counted.
type EnvironmentView struct {
	plan.Environment
	Devices device.Counts `json:"devices"`
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
	counts := a.devices.Counts(organization)
	var items []EnvironmentView
	for _, e := range list[min(offset, len(list)):min(offset+in.Limit, len(list))] {
		items = append(items, EnvironmentView{e, counts[e.ID]})
	}
	return rest.NewList(items, len(list), in.Next(offset, len(items), len(list))), nil
}

type createEnvironmentInput struct {
	Body struct {
		Name string `json:"name" minLength:"1" maxLength:"100"`
	}
}

func (a *api) createEnvironment(ctx context.Context, in *createEnvironmentInput) (EnvironmentView, error) {
	e, err := a.plans.Create(ctx, access.ActorOf(ctx).Organization, in.Body.Name)
	return EnvironmentView{Environment: e}, err
}

func (a *api) environment(ctx context.Context, in *environmentInput) (EnvironmentView, error) {
	organization := access.ActorOf(ctx).Organization
	e, err := a.plans.Get(ctx, organization, in.ID)
	return EnvironmentView{e, a.devices.Counts(organization)[in.ID]}, err
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
