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
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"komainu/control/access"
	"komainu/control/audit"
	"komainu/control/db"
	"komainu/control/device"
	"komainu/control/enrol"
	"komainu/control/gateway"
	"komainu/control/incident"
	"komainu/control/notify"
	"komainu/control/plan"
	"komainu/control/portal"
	"komainu/control/rest"
	"komainu/event"
	"komainu/fault"
	"komainu/wire"
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
	log, level := cfg.Log.adjustable(env.Stderr)
	systemd, err := newSupervisor()
	if err != nil {
		return err
	}
	defer systemd.close()

	// The state: one control plane at a time, brought up to date before
	// anything reads it.
	lock, err := lockState(cfg.State)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := interrupted(cfg.State); err != nil {
		return err
	}
	if err := sweepSnapshots(cfg.State); err != nil {
		return err
	}
	state, err := openState(ctx, cfg.State, part(log, "state"))
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

	// Who may do what, the record of it, and who the devices are.
	trail := audit.New(state, time.Now)
	users := access.New(state, access.Config{Log: part(log, "access"), Version: env.Version, Hashing: env.Hashing, Record: trail.Record})
	password, err := users.Bootstrap(ctx, cfg.Organization)
	if err != nil {
		return db.Explain(err)
	}
	if password != "" {
		// Said before anything can fail that comes later: it is said once.
		fmt.Fprintf(env.Secret, "admin one-time password: %s\n", password)
	}
	organization, err := users.Organization(ctx)
	if err != nil {
		return err
	}
	known := &onboarding{}
	ids, err := enrol.Open(enrol.Config{DB: state, Dir: filepath.Join(cfg.State, "keys"), Hosts: cfg.Hostnames, Log: part(log, "enrol"), Root: known.root})
	if err != nil {
		return err
	}

	// What is protected, how, and what was found. A change of a plan reaches
	// its devices and the pages that show it.
	changes := newHub()
	pushes := newPusher()
	plans, err := plan.Open(ctx, state, plan.Config{
		Record: trail.Record,
		Changed: func(organization, environment string) {
			pushes.all()
			known.wake()
			changes.publish(organization, topicPlan, environment)
		},
	})
	if err != nil {
		return err
	}
	if err := plans.Begin(ctx, organization.ID, cfg.Environment); err != nil {
		return err
	}
	if err := known.openMachines(ctx, state, trail, pushes, changes); err != nil {
		return err
	}
	devices, err := device.Open(ctx, state, device.Config{
		Log: part(log, "device"), Tier: known.tier(plans), Placed: known.placed, Record: trail.Record,
		Changed: func(organization string, id event.DeviceID) {
			known.news()
			pushes.device(id)
			changes.publish(organization, topicDevice, string(id))
		},
	})
	if err != nil {
		return err
	}
	rules, err := openPolicies(ctx, state, ids, trail, plans, devices, pushes, changes)
	if err != nil {
		return err
	}
	notices, err := notify.Open(notify.Config{
		DB: state, Dir: filepath.Join(cfg.State, "keys"), Log: part(log, "notify"), Version: env.Version, Record: trail.Record,
		Changed: func(organization, id string) { changes.publish(organization, topicNotice, id) },
	})
	if err != nil {
		return err
	}
	desk := newDesk(state, incident.Config{Record: trail.Record}, notices, devices, changes, cfg.url(listener.Addr()))

	// The way of an event: queue, then the store and the desk.
	events, err := openEvents(ctx, cfg, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, events.Close()) }()
	intake := events.ingest(devices, desk, changes, log)
	var agents *gateway.Gateway
	tests := newTests(state, trail.Record, desk, &agents, notices, changes, known.news)
	agents = gateway.New(gatewayConfig(ids, rules, devices, events.queue, tests, known, part(log, "gateway")))
	err = known.open(ctx, cfg, neighbours{
		state: state, trail: trail, plans: plans, devices: devices, rules: rules, ids: ids, tests: tests, pushes: pushes, changes: changes,
		address: cfg.url(listener.Addr()), log: log, organization: organization.ID, notices: notices, agents: agents,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, known.close()) }()

	// The door.
	stopping := make(chan struct{})
	a := &api{
		log: part(log, "api"), access: users, audit: trail, plans: plans, rules: rules, devices: devices, desk: desk, notices: notices, hub: changes, ids: ids, agents: agents, tests: tests, known: known,
		events: events.store, record: trail.Record, state: state,
		queued:  func(ctx context.Context) error { _, err := events.queue.Status(ctx); return err },
		room:    events.store.Room,
		address: cfg.url(listener.Addr()), stopping: stopping,
	}
	a.meter = newMeter(a, events, cfg.State, env.Version)
	routes := rest.NewAPI(a.log, env.Version, users.Gate, db.Explain)
	routes.Mount(a.routes()...)
	routes.Handle("/", portal.Handler())
	enrolment := ids.Handler(&registrar{
		organization: organization, plans: plans, devices: devices, machines: known.machines, engine: known.engine, connectors: known.connectors,
		ids: ids, agents: agents, notices: notices, address: a.address, log: a.log,
	}, wire.Protocol)
	browsers := rest.Guard(a.log, routes, a.meter.answered)
	packages := known.repository.Handler(agentRepository, http.NotFound)
	entry := newDoor(listener, ids.TLSConfig(), part(log, "door"), split(enrolment, agents, packages, browsers), split(enrolment, agents, packages, http.NotFoundHandler()))

	all := &whole{cfg: cfg, version: env.Version, state: state, ids: ids, events: events, depot: known.depot, log: part(log, "host")}
	commands, err := listenHost(ctx, cfg.State, all.hostCommands(level, trail.Record), all.log)
	if err != nil {
		return err
	}
	defer commands.release()

	// From here on everything runs until ctx ends or one part fails. The door
	// stops first, then what works on what came through it, then what keeps
	// it.
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	working, finish := context.WithCancel(context.WithoutCancel(ctx))
	defer finish()
	var doors, parts sync.WaitGroup
	run := func(name string, f func(context.Context) error) {
		parts.Go(func() {
			if err := f(working); err != nil {
				stop(fmt.Errorf("%s: %w", name, err))
			}
		})
	}
	run("device", devices.Run)
	run("ca", func(ctx context.Context) error { return ids.Run(ctx, agents.Devices, agents.Renew) })
	run("policy", func(ctx context.Context) error {
		return pushes.run(ctx, recomposer(rules, devices), agents.Push, part(log, "policy"))
	})
	run("events", intake.events)
	run("findings", intake.findings)
	run("notify", notices.Run)
	run("content", known.repository.Run)
	run("onboard", known.engine.Run)
	run("connector", known.connectors.Run)
	run("upgrade", known.rollouts.Run)
	run("retention", func(ctx context.Context) error {
		return events.retain(ctx, cfg.Events, part(log, "retention"))
	})
	doors.Go(func() { stop(entry.Run()) })
	doors.Go(func() { stop(commands.run()) })
	systemd.tell("READY=1")
	run("watchdog", func(ctx context.Context) error {
		return systemd.run(ctx, func(ctx context.Context) error { return askAlive(ctx, cfg.State) })
	})
	fmt.Fprintf(env.Stdout, "ready %s\n", a.address)
	log.Info("ready", "address", listener.Addr().String(), "url", a.address, "version", env.Version)

	<-ctx.Done()
	log.Info("stopping")
	systemd.tell("STOPPING=1")
	close(stopping)
	timeout, cancel := context.WithTimeout(working, drain)
	defer cancel()
	ending := sync.WaitGroup{}
	ending.Go(func() {
		if err := entry.Shutdown(timeout); err != nil {
			log.Warn("some requests were cut off", "error", err)
		}
	})
	if err := agents.Close(); err != nil {
		log.Warn("some sessions of agents were cut off", "error", err)
	}
	ending.Wait()
	_ = commands.close() // a backup that is being made is cut off, and says so
	doors.Wait()
	finish()
	parts.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// agentRepository is where agents find the signed repository: as at
// /repository, which they cannot reach with the protocol that they speak.
const agentRepository = "/agent/v1/repository"

// split sends agents their way; everything else is for next.
func split(enrolment, link, packages, next http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET "+agentRepository+"/", packages)
	// The link is outside of Guard: it becomes a WebSocket.
	mux.Handle("GET /agent/v1/link", link)
	mux.Handle("/agent/", enrolment)
	mux.Handle("/", next)
	return mux
}

// url is how agents and browsers reach the port.
func (c *Config) url(bound net.Addr) string {
	host, port, err := net.SplitHostPort(bound.String())
	if err != nil {
		return "https://" + bound.String()
	}
	switch ip := net.ParseIP(host); {
	case len(c.Hostnames) > 0:
		host = c.Hostnames[0]
	case ip != nil && ip.IsUnspecified():
		if name, err := os.Hostname(); err == nil {
			host = name
		}
	}
	return "https://" + net.JoinHostPort(host, port)
}

func part(log *slog.Logger, name string) *slog.Logger { return log.With("component", name) }

// found tells pages about alerts and incidents.
func (h *hub) found(organization string, c incident.Changed) {
	for _, id := range c.Alerts {
		h.publish(organization, topicAlert, id)
	}
	for _, id := range c.Incidents {
		h.publish(organization, topicIncident, fmt.Sprint(id))
	}
	for _, id := range c.Devices {
		h.publish(organization, topicDevice, string(id))
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
