package control

import (
	"context"
	"log/slog"
	"net/http"

	"github.com/uptrace/bun"

	"komainu/control/access"
	"komainu/control/audit"
	"komainu/control/device"
	"komainu/control/enrol"
	"komainu/control/eventstore"
	"komainu/control/gateway"
	"komainu/control/incident"
	"komainu/control/notify"
	"komainu/control/plan"
	"komainu/control/policies"
	"komainu/control/rest"
	"komainu/control/selftest"
)

// api answers the routes. It joins what the slices know: the name of a device
// with its alerts, the plan of its environment with its health.
type api struct {
	log     *slog.Logger
	access  *access.Access
	audit   *audit.Log
	plans   *plan.Plans
	devices *device.Registry
	rules   *policies.Policies
	desk    *incident.Desk
	notices *notify.Notifier
	hub     *hub
	meter   *meter
	ids     *enrol.Authority
	agents  *gateway.Gateway
	tests   *selftest.Runs
	known   *onboarding
	events  eventstore.Store
	record  access.Recorder
	state   *bun.DB
	// queued fails while the queue does not take batches.
	queued  func(context.Context) error
	room    func() error // fails while the disk is too full to take events; nil for a store without one
	address string       // URL that agents and browsers reach the control plane by

	stopping <-chan struct{} // closed when streams have to end
}

func (a *api) refuse(w http.ResponseWriter, err error) { rest.Write(w, a.log, err) }
