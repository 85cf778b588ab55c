package control

import (
	"context"

	"komainu/control/access"
	"komainu/control/policies"
	"komainu/control/rest"
	"komainu/policy"
)

// policyRoutes are the routes of policies and device groups.
func (a *api) policyRoutes() []rest.Route {
	return []rest.Route{
		rest.JSON("GET /api/v1/policies", access.ReadPolicies, "List policies by priority", a.listPolicies),
		rest.JSON("POST /api/v1/policies", access.ManagePolicies, "Create a policy", a.createPolicy),
		rest.JSON("GET /api/v1/policies/catalogue", access.ReadPolicies, "The settings that policies can hold", a.policyCatalogue),
		rest.JSON("GET /api/v1/policies/{id}", access.ReadPolicies, "A policy", a.policy),
		rest.JSON("PUT /api/v1/policies/{id}", access.ManagePolicies, "Change a policy", a.savePolicy),
		rest.Empty("DELETE /api/v1/policies/{id}", access.ManagePolicies, "Delete a policy; one that is assigned with force=true", a.deletePolicy),
		rest.JSON("GET /api/v1/device-groups", access.ReadPolicies, "List device groups by rank", a.listGroups),
		rest.JSON("POST /api/v1/device-groups", access.ManagePolicies, "Create a device group", a.createGroup),
		rest.JSON("GET /api/v1/device-groups/{id}", access.ReadPolicies, "A device group", a.group),
		rest.JSON("PUT /api/v1/device-groups/{id}", access.ManagePolicies, "Change a device group", a.saveGroup),
		rest.Empty("DELETE /api/v1/device-groups/{id}", access.ManagePolicies, "Delete a device group that no policy is assigned to", a.deleteGroup),
		rest.JSON("GET /api/v1/devices/{id}/policy", access.ReadDevices, "What applies to a device, where it comes from, and whether the agent confirms it", a.devicePolicy),
	}
}

// CatalogueView lists the settings that policies can hold.
type CatalogueView struct {
	Settings []policy.Setting `json:"settings"`
}

func (a *api) policyCatalogue(context.Context, *struct{}) (CatalogueView, error) {
	return CatalogueView{policy.Catalogue()}, nil
}

func (a *api) listPolicies(ctx context.Context, in *rest.Paging) (rest.List[policies.Policy], error) {
	list, err := a.rules.List(ctx, access.ActorOf(ctx).Organization)
	if err != nil {
		return rest.List[policies.Policy]{}, err
	}
	return page(in, list)
}

// page cuts one page out of a list that is there as a whole.
func page[T any](in *rest.Paging, list []T) (rest.List[T], error) {
	offset, err := in.Offset()
	if err != nil {
		return rest.List[T]{}, err
	}
	items := list[min(offset, len(list)):min(offset+in.Limit, len(list))]
	return rest.NewList(items, len(list), in.Next(offset, len(items), len(list))), nil
}

type policyInput struct {
	ID string `path:"id" doc:"id of a policy"`
}

func (a *api) policy(ctx context.Context, in *policyInput) (policies.Policy, error) {
	return a.rules.Get(ctx, access.ActorOf(ctx).Organization, in.ID)
}

type createPolicyInput struct {
	Body policies.Change
}

func (a *api) createPolicy(ctx context.Context, in *createPolicyInput) (policies.Policy, error) {
	return a.rules.Create(ctx, access.ActorOf(ctx).Organization, in.Body)
}

type savePolicyInput struct {
	ID   string `path:"id" doc:"id of a policy"`
	Body policies.Change
}

func (a *api) savePolicy(ctx context.Context, in *savePolicyInput) (policies.Policy, error) {
	return a.rules.Save(ctx, access.ActorOf(ctx).Organization, in.ID, in.Body)
}

type deletePolicyInput struct {
	ID    string `path:"id" doc:"id of a policy"`
	Force bool   `query:"force" doc:"delete it although it is assigned; its devices get what else applies to them"`
}

func (a *api) deletePolicy(ctx context.Context, in *deletePolicyInput) error {
	return a.rules.Delete(ctx, access.ActorOf(ctx).Organization, in.ID, in.Force)
}

func (a *api) listGroups(ctx context.Context, in *rest.Paging) (rest.List[policies.Group], error) {
	return page(in, a.rules.Groups(access.ActorOf(ctx).Organization))
}

type groupInput struct {
	ID string `path:"id" doc:"id of a device group"`
}

func (a *api) group(ctx context.Context, in *groupInput) (policies.Group, error) {
	return a.rules.Group(access.ActorOf(ctx).Organization, in.ID)
}

type createGroupInput struct {
	Body policies.GroupChange
}

func (a *api) createGroup(ctx context.Context, in *createGroupInput) (policies.Group, error) {
	return a.rules.CreateGroup(ctx, access.ActorOf(ctx).Organization, in.Body)
}

type saveGroupInput struct {
	ID   string `path:"id" doc:"id of a device group"`
	Body policies.GroupChange
}

func (a *api) saveGroup(ctx context.Context, in *saveGroupInput) (policies.Group, error) {
	return a.rules.SaveGroup(ctx, access.ActorOf(ctx).Organization, in.ID, in.Body)
}

func (a *api) deleteGroup(ctx context.Context, in *groupInput) error {
	return a.rules.DeleteGroup(ctx, access.ActorOf(ctx).Organization, in.ID)
}

func (a *api) devicePolicy(ctx context.Context, in *deviceInput) (policies.Applied, error) {
	if _, err := a.devices.Get(ctx, access.ActorOf(ctx).Organization, in.ID); err != nil {
		return policies.Applied{}, err
	}
	return a.rules.Of(ctx, in.ID)
}
