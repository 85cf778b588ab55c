package control

import (
	"context"

	"komainu/control/access"
	"komainu/control/rest"
	"komainu/control/upgrade"
)

// upgradeRoutes are the routes of upgrades in rings.
func (a *api) upgradeRoutes() []rest.Route {
	return []rest.Route{
		rest.JSON("GET /api/v1/upgrades", access.ReadPlans, "Which version the agents get, in which rings, and how far that is", a.upgrades),
		rest.JSON("PUT /api/v1/upgrades", access.ManagePlans, "Change which version the agents get, and in which rings", a.saveUpgrades),
		rest.JSON("GET /api/v1/upgrades/devices", access.ReadDevices, "Devices of the upgrade, ring by ring, with how far each is and why not further", a.upgradeDevices),
		rest.JSON("POST /api/v1/upgrades/halt", access.ManagePlans, "Let no further device begin", a.upgradeAct((*upgrade.Engine).Halt)),
		rest.JSON("POST /api/v1/upgrades/resume", access.ManagePlans, "Go on where the upgrade was halted, or where devices failed without halting it; what failed is tried again", a.upgradeAct((*upgrade.Engine).Resume)),
		rest.JSON("POST /api/v1/upgrades/rollback", access.ManagePlans, "Give devices that were upgraded the version back that they had", a.upgradeAct((*upgrade.Engine).Rollback)),
	}
}

func (a *api) upgrades(ctx context.Context, _ *struct{}) (upgrade.View, error) {
	return a.known.rollouts.Get(access.ActorOf(ctx).Organization), nil
}

type saveUpgradesInput struct{ Body upgrade.Change }

func (a *api) saveUpgrades(ctx context.Context, in *saveUpgradesInput) (upgrade.View, error) {
	if err := a.known.rollouts.Save(ctx, access.ActorOf(ctx).Organization, in.Body); err != nil {
		return upgrade.View{}, err
	}
	return a.upgrades(ctx, nil)
}

func (a *api) upgradeAct(act func(*upgrade.Engine, context.Context, string) error) func(context.Context, *struct{}) (upgrade.View, error) {
	return func(ctx context.Context, _ *struct{}) (upgrade.View, error) {
		if err := act(a.known.rollouts, ctx, access.ActorOf(ctx).Organization); err != nil {
			return upgrade.View{}, err
		}
		return a.upgrades(ctx, nil)
	}
}

func (a *api) upgradeDevices(ctx context.Context, in *upgrade.Query) (rest.List[upgrade.Line], error) {
	return page(&in.Paging, a.known.rollouts.Devices(access.ActorOf(ctx).Organization, *in))
}
