package azure

import (
	"context"
	"fmt"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/compute/armcompute/v6"

	"komainu/control/connector/cloud"
	"komainu/deploy"
)

// maxPages bounds an inventory that does not end.
const maxPages = 5000

// List asks for the machines, and for the state that each is in. Azure gives
// the two apart.
func (a *Account) List(ctx context.Context) (cloud.Inventory, error) {
	states := map[string]*armcompute.VirtualMachine{}
	status := a.machines.NewListAllPager(&armcompute.VirtualMachinesClientListAllOptions{StatusOnly: new("true")})
	err := each(ctx, status, func(r armcompute.VirtualMachinesClientListAllResponse) error {
		for _, v := range r.Value {
			states[strings.ToLower(text(v.ID))] = v
		}
		return enough(len(states))
	})
	if err != nil {
		return cloud.Inventory{}, explain(err)
	}
	var found cloud.Inventory
	err = each(ctx, a.machines.NewListAllPager(nil), func(r armcompute.VirtualMachinesClientListAllResponse) error {
		for _, v := range r.Value {
			if m, ok := a.describe(v, states[strings.ToLower(text(v.ID))]); ok {
				found.Machines = append(found.Machines, m)
			}
		}
		return enough(len(found.Machines))
	})
	if err != nil {
		return cloud.Inventory{}, explain(err)
	}
	return found, nil
}

// each goes through the pages of a list.
func each[T any](ctx context.Context, pages *runtime.Pager[T], f func(T) error) error {
	for n := 0; pages.More(); n++ {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return err
		}
		if err := f(page); err != nil {
			return err
		}
		if n >= maxPages {
			return fmt.Errorf("the list has more than %d pages", maxPages)
		}
	}
	return nil
}

func enough(n int) error {
	if n > cloud.MaxMachines {
		return fmt.Errorf("the subscription names more than %d machines", cloud.MaxMachines)
	}
	return nil
}

func text(p *string) string {
	if p == nil {
		return ""
	}
	return *p
}

// describe turns a virtual machine into a machine; false for one that is not
// the connector's or that is being deleted.
func (a *Account) describe(v, state *armcompute.VirtualMachine) (cloud.Machine, bool) {
	id, err := arm.ParseResourceID(text(v.ID))
	if err != nil || v.Properties == nil || text(v.Properties.VMID) == "" || !a.settings.within(id.ResourceGroupName) || strings.EqualFold(text(v.Properties.ProvisioningState), "Deleting") {
		return cloud.Machine{}, false
	}
	m := cloud.Machine{Key: key(id.SubscriptionID, *v.Properties.VMID), Name: text(v.Name), Address: text(v.ID), Tags: map[string]string{}}
	for k, value := range v.Tags {
		m.Tags[k] = text(value)
	}
	if s := v.Properties.StorageProfile; s != nil {
		if s.OSDisk != nil && s.OSDisk.OSType != nil {
			m.System = strings.ToLower(string(*s.OSDisk.OSType))
		}
		if r := s.ImageReference; r != nil {
			m.OS = strings.TrimSpace(text(r.Offer) + " " + text(r.SKU))
		}
	}
	if state != nil && state.Properties != nil && state.Properties.InstanceView != nil {
		m.Stopped = !running(state.Properties.InstanceView)
	}
	return m, true
}

// running reports whether a machine has a state in which it can run something.
// One that Azure says nothing of is taken to run: it shows when it is reached.
func running(view *armcompute.VirtualMachineInstanceView) bool {
	for _, s := range view.Statuses {
		if state, ok := strings.CutPrefix(text(s.Code), "PowerState/"); ok {
			return state == "running" || state == "starting"
		}
	}
	return true
}

// online says why nothing can be run on a machine.
func online(view *armcompute.VirtualMachineInstanceView) *deploy.Failure {
	if view == nil || view.VMAgent == nil || len(view.VMAgent.Statuses) == 0 {
		return deploy.Fail(deploy.CloudAgent, "Azure VM Agent has not reported")
	}
	for _, s := range view.VMAgent.Statuses {
		if strings.EqualFold(text(s.DisplayStatus), "Ready") {
			return nil
		}
	}
	return deploy.Fail(deploy.CloudAgent, "Azure VM Agent: "+cloud.Tail(text(view.VMAgent.Statuses[0].DisplayStatus)+" "+text(view.VMAgent.Statuses[0].Message)))
}

// key names a machine by its vmId: its resource ID would be that of another
// machine after it was deleted and made again under the same name.
func key(subscription, vm string) string {
	return "azure:" + strings.ToLower(subscription) + ":" + strings.ToLower(vm)
}
