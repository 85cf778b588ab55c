package gcp

import (
	"context"
	"net/http"

	"google.golang.org/api/compute/v1"
	"google.golang.org/api/googleapi"
	"google.golang.org/api/option"
	"google.golang.org/api/osconfig/v1"

	"komainu/control/connector/cloud"
)

// api is what is asked of Google. Clients as fields of what goes into an
// interface would have the linker keep all of their methods, for every one of
// which there are types and code: megabytes.
type api struct {
	instances func(ctx context.Context, project, page string) (*compute.InstanceAggregatedList, error)
	instance  func(ctx context.Context, project, zone, id string) (*compute.Instance, error)
	setLabels func(ctx context.Context, project, zone, id string, change *compute.InstancesSetLabelsRequest) (*compute.Operation, error)
	operation func(ctx context.Context, project, zone, name string) (*compute.Operation, error)

	inventory   func(ctx context.Context, name string) (*osconfig.Inventory, error)
	assignments func(ctx context.Context, location, page string) (*osconfig.ListOSPolicyAssignmentsResponse, error)
	assign      func(ctx context.Context, location, id string, a *osconfig.OSPolicyAssignment) (*osconfig.Operation, error)
	unassign    func(ctx context.Context, name string) (*osconfig.Operation, error)
	report      func(ctx context.Context, name string) (*osconfig.OSPolicyAssignmentReport, error)
}

func newAPI(ctx context.Context, client *http.Client, o cloud.Options) (a api, err error) {
	c, err := compute.NewService(ctx, option.WithHTTPClient(client), option.WithEndpoint(at(o, computeURL, "/compute/v1/")))
	if err != nil {
		return a, err
	}
	s, err := osconfig.NewService(ctx, option.WithHTTPClient(client), option.WithEndpoint(at(o, osconfigURL, "/")))
	if err != nil {
		return a, err
	}
	return api{
		instances: func(ctx context.Context, project, page string) (*compute.InstanceAggregatedList, error) {
			return again(ctx, func() (*compute.InstanceAggregatedList, error) {
				return c.Instances.AggregatedList(project).MaxResults(perPage).PageToken(page).Context(ctx).Do(googleapi.QueryParameter("returnPartialSuccess", "true"))
			})
		},
		instance: func(ctx context.Context, project, zone, id string) (*compute.Instance, error) {
			return again(ctx, func() (*compute.Instance, error) { return c.Instances.Get(project, zone, id).Context(ctx).Do() })
		},
		setLabels: func(ctx context.Context, project, zone, id string, change *compute.InstancesSetLabelsRequest) (*compute.Operation, error) {
			return again(ctx, func() (*compute.Operation, error) {
				return c.Instances.SetLabels(project, zone, id, change).Context(ctx).Do()
			})
		},
		operation: func(ctx context.Context, project, zone, name string) (*compute.Operation, error) {
			return again(ctx, func() (*compute.Operation, error) {
				return c.ZoneOperations.Wait(project, zone, name).Context(ctx).Do()
			})
		},
		inventory: func(ctx context.Context, name string) (*osconfig.Inventory, error) {
			return again(ctx, func() (*osconfig.Inventory, error) {
				return s.Projects.Locations.Instances.Inventories.Get(name).Context(ctx).Do()
			})
		},
		assignments: func(ctx context.Context, location, page string) (*osconfig.ListOSPolicyAssignmentsResponse, error) {
			return again(ctx, func() (*osconfig.ListOSPolicyAssignmentsResponse, error) {
				return s.Projects.Locations.OsPolicyAssignments.List(location).PageSize(perPage).PageToken(page).Context(ctx).Do()
			})
		},
		assign: func(ctx context.Context, location, id string, a *osconfig.OSPolicyAssignment) (*osconfig.Operation, error) {
			return again(ctx, func() (*osconfig.Operation, error) {
				return s.Projects.Locations.OsPolicyAssignments.Create(location, a).OsPolicyAssignmentId(id).Context(ctx).Do()
			})
		},
		unassign: func(ctx context.Context, name string) (*osconfig.Operation, error) {
			return again(ctx, func() (*osconfig.Operation, error) {
				return s.Projects.Locations.OsPolicyAssignments.Delete(name).Context(ctx).Do()
			})
		},
		report: func(ctx context.Context, name string) (*osconfig.OSPolicyAssignmentReport, error) {
			return again(ctx, func() (*osconfig.OSPolicyAssignmentReport, error) {
				return s.Projects.Locations.Instances.OsPolicyAssignments.Reports.Get(name).Context(ctx).Do()
			})
		},
	}, nil
}
