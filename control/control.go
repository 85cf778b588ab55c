// Package control is the control plane: its configuration, the wiring of its
// parts and the table of its routes.
//
// Run is the story: each part is started when what it needs is there, and
// stopped in reverse. The slices below control/ do not know each other; what
// one needs of another it gets here as a func.
package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"komainu/control/access"
	"komainu/control/audit"
	"komainu/control/db"
	"komainu/control/device"
	"komainu/control/incident"
	"komainu/control/plan"
	"komainu/control/portal"
	"komainu/control/rest"
	"komainu/event"
	"komainu/fault"
	"komainu/policy"
)

// Env is the world around a run.
type Env struct {
	Version string
	Stdout  io.Writer // the ready line
	Stderr  io.Writer // the log
	// Secret gets the one-time password of a first start. It is Stdout unless
	// --print-once names a descriptor.
	Secret io.Writer
	// Hashing is the cost of passwords; the default when zero.
	Hashing access.Hashing
}

// drain is how long requests may take to end when the control plane stops.
const drain = 10 * time.Second

// Run runs the control plane until ctx ends, and returns nil on a clean end.
func Run(ctx context.Context, cfg Config, env Env) (err error) {
	if err := cfg.Validate(); err != nil {
		return err
	}
	log := cfg.Log.logger(env.Stderr)

	// The state: one control plane at a time, brought up to date before
	// anything reads it.
	lock, err := lockState(cfg.State)
	if err != nil {
		return err
	}
	defer lock.Close()
	state, err := openState(ctx, cfg.State)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, state.Close()) }()

	// The address, before anything is promised to anybody.
	listener, err := listen(ctx, cfg.Listen)
	if err != nil {
		return err
	}
	defer listener.Close()

	// Who may do what, and the record of it.
	trail := audit.New(state, time.Now)
	users := access.New(state, access.Config{Log: part(log, "access"), Version: env.Version, Hashing: env.Hashing, Record: trail.Record})
	password, err := users.Bootstrap(ctx, cfg.Organization)
	if err != nil {
		return db.Explain(err)
	}
	organization, err := users.Organization(ctx)
	if err != nil {
		return err
	}

	tlsConfig, _, policyKey, err := interimTLS()
	if err != nil {
		return err
	}

	// What is protected, how, and what was found.
	changes := newHub()
	plans, err := plan.Open(ctx, state, plan.Config{
		Sign:    func(d *policy.Document) (policy.Signed, error) { return policy.Sign(d, policyKey) },
		Record:  trail.Record,
		Changed: func(environment string) { changes.publish(topicPlan, environment) },
	})
	if err != nil {
		return err
	}
	if err := plans.Begin(ctx, organization.ID, cfg.Environment); err != nil {
		return err
	}
	devices, err := device.Open(ctx, state, device.Config{
		Log: part(log, "device"), Tier: plans.Tier, Record: trail.Record,
		Changed: func(id event.DeviceID) { changes.publish(topicDevice, string(id)) },
	})
	if err != nil {
		return err
	}
	desk := incident.New(state, incident.Config{Record: trail.Record, Changed: changes.found})

	// The door.
	stopping := make(chan struct{})
	a := &api{
		log: part(log, "api"), access: users, audit: trail, plans: plans, devices: devices, desk: desk, hub: changes, stopping: stopping,
		certificate: func(context.Context, event.DeviceID) (*device.Certificate, error) { return nil, nil },
		offboard: func(ctx context.Context, organization string, id event.DeviceID, reason string) error {
			return fault.New(fault.Unavailable, "not wired")
		},
		timeline: func(context.Context, string, *timelineInput) ([]event.Event, string, error) { return nil, "", nil },
	}
	routes := rest.NewAPI(a.log, env.Version, users.Gate, db.Explain)
	routes.Mount(a.routes()...)
	routes.Handle("/", portal.Handler())
	server := &http.Server{
		Handler: rest.Guard(a.log, routes), TLSConfig: tlsConfig,
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(part(log, "http").Handler(), slog.LevelDebug),
	}

	// From here on everything runs until ctx ends or one part fails.
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var parts sync.WaitGroup
	run := func(name string, f func(context.Context) error) {
		parts.Go(func() {
			if err := f(ctx); err != nil {
				stop(fmt.Errorf("%s: %w", name, err))
			}
		})
	}
	run("device", devices.Run)
	run("http", func(context.Context) error {
		if err := server.ServeTLS(listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	if password != "" {
		fmt.Fprintf(env.Secret, "admin one-time password: %s\n", password)
	}
	fmt.Fprintf(env.Stdout, "ready https://%s\n", listener.Addr())
	log.Info("ready", "address", listener.Addr().String(), "version", env.Version)

	<-ctx.Done()
	log.Info("stopping")
	close(stopping)
	timeout, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	if err := server.Shutdown(timeout); err != nil {
		log.Warn("some requests were cut off", "error", err)
		server.Close()
	}
	parts.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

func part(log *slog.Logger, name string) *slog.Logger { return log.With("component", name) }

// found tells pages about alerts and incidents.
func (h *hub) found(c incident.Changed) {
	for _, id := range c.Alerts {
		h.publish(topicAlert, id)
	}
	for _, id := range c.Incidents {
		h.publish(topicIncident, fmt.Sprint(id))
	}
	for _, id := range c.Devices {
		h.publish(topicDevice, string(id))
	}
}

func listen(ctx context.Context, address string) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fault.New(fault.Conflict, "the address %s is taken by another program; stop that one, or choose another address with --listen", address)
	case errors.Is(err, syscall.EACCES):
		return nil, fault.New(fault.NeedsRoot, "this user may not listen on %s; choose a port above 1023 with --listen", address)
	case err != nil:
		return nil, fault.Wrap(fault.Invalid, err, "listen on %s", address)
	}
	return l, nil
}
