package control

import (
	"context"
	"log/slog"
	"net/http"

	"komainu/control/access"
	"komainu/control/audit"
	"komainu/control/device"
	"komainu/control/incident"
	"komainu/control/plan"
	"komainu/control/rest"
	"komainu/event"
)

// api answers the routes. It joins what the slices know: the name of a device
// with its alerts, the plan of its environment with its health.
type api struct {
	log     *slog.Logger
	access  *access.Access
	audit   *audit.Log
	plans   *plan.Plans
	devices *device.Registry
	desk    *incident.Desk
	hub     *hub

	// certificate returns the newest certificate of a device, nil if none.
	certificate func(context.Context, event.DeviceID) (*device.Certificate, error)
	// offboard revokes a device and disconnects it.
	offboard func(ctx context.Context, organization string, id event.DeviceID, reason string) error
	// timeline returns a page of events and the cursor of the next one.
	timeline func(ctx context.Context, organization string, in *timelineInput) ([]event.Event, string, error)

	stopping <-chan struct{} // closed when streams have to end
}

func (a *api) refuse(w http.ResponseWriter, err error) { rest.Write(w, a.log, err) }
