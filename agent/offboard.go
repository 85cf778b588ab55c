package agent

import (
	"context"
	"time"

	"komainu/agent/link"
	"komainu/agent/localapi"
	"komainu/agent/upgrade"
)

// Offboard implements localapi.Enrolment. The plan was the control plane's to
// give: without it this host is no longer protected, as before it enrolled.
func (l *local) Offboard(ctx context.Context, req localapi.OffboardRequest) (localapi.OffboardResult, error) {
	id, untold, err := link.Offboard(ctx, link.OffboardOptions{Dir: l.w.cfg.State, Force: req.Force, Proxy: l.w.proxy(), Now: time.Now})
	if err != nil {
		return localapi.OffboardResult{}, err
	}
	result := localapi.OffboardResult{Device: string(id.Device), Environment: id.Environment, Server: id.Server, Told: untold == nil, Package: upgrade.Form(ctx)}
	if untold != nil {
		result.Untold = untold.Error()
	}
	l.w.log.Warn("this host was offboarded here; it is not protected any more", "device", id.Device, "control_plane_told", result.Told)
	l.w.device.Store(nil)
	err = l.w.settings.Left()
	l.w.link.Reconnect() // which finds no identity, and ends what there is
	l.w.health.changed()
	return result, err
}
