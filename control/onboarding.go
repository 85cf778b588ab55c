package control

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/uptrace/bun"

	"komainu/control/access"
	"komainu/control/audit"
	"komainu/control/connector"
	"komainu/control/content"
	"komainu/control/device"
	"komainu/control/enrol"
	"komainu/control/gateway"
	"komainu/control/machine"
	"komainu/control/notify"
	"komainu/control/onboard"
	"komainu/control/plan"
	"komainu/control/policies"
	"komainu/control/selftest"
	"komainu/control/upgrade"
	"komainu/drill"
	"komainu/event"
	"komainu/policy"
)

// onboarding is what brings machines under protection: the registry of
// machines, the ways to them, the packages, and the engine that joins them.
type onboarding struct {
	machines   *machine.Registry
	connectors *connector.Connectors
	repository *content.Repository
	depot      *depot
	engine     *onboard.Engine
	rollouts   *upgrade.Engine
}

// deployTokenLife is how long a host has to use the join token that it is
// given.
const deployTokenLife = 15 * time.Minute

// openMachines opens the registry. What changes reaches the pages, the engine
// and, when it concerns a device, its policy.
func (o *onboarding) openMachines(ctx context.Context, state *bun.DB, trail *audit.Log, pushes *pusher, changes *hub) (err error) {
	o.machines, err = machine.Open(ctx, state, machine.Config{
		Record: trail.Record,
		Changed: func(organization, id string) {
			changes.publish(organization, topicMachine, id)
			if m, err := o.machines.Get(organization, id); err == nil && m.Device != "" {
				pushes.device(m.Device)
			}
			if o.engine != nil {
				o.engine.Wake()
			}
		},
	})
	return err
}

// placed returns what is decided for the machine of a device alone.
func (o *onboarding) placed(id event.DeviceID) (own policy.Tier, observe bool) {
	m, ok := o.machines.Of(id)
	if !ok || o.engine == nil {
		return "", false
	}
	e := onboard.Effective(&m, "", o.engine.Settings(m.Environment).Exclude)
	return e.Plan, m.Observing(time.Now())
}

// tier returns the plan of a device.
func (o *onboarding) tier(plans *plan.Plans) func(string, event.DeviceID) policy.Tier {
	return func(environment string, id event.DeviceID) policy.Tier {
		if own, _ := o.placed(id); own != "" {
			return own
		}
		return plans.Tier(environment)
	}
}

// neighbours are what the engine is joined with.
type neighbours struct {
	state   *bun.DB
	trail   *audit.Log
	plans   *plan.Plans
	devices *device.Registry
	rules   *policies.Policies
	ids     *enrol.Authority
	tests   *selftest.Runs
	pushes  *pusher
	changes *hub
	address string // URL of the control plane
	log     *slog.Logger

	organization string // of the installation
	notices      *notify.Notifier
	agents       *gateway.Gateway
}

// open opens the rest, and adopts devices that enrolled before there were
// machines.
func (o *onboarding) open(ctx context.Context, cfg Config, n neighbours) (err error) {
	server := strings.TrimPrefix(n.address, "https://")
	o.connectors, err = connector.Open(connector.Config{
		DB: n.state, Dir: filepath.Join(cfg.State, keysFolder), Log: part(n.log, "connector"), Record: n.trail.Record, Server: server, Clouds: cfg.Clouds,
		Synced:  o.machines.Sync,
		Gone:    o.machines.Abandon,
		Changed: func(organization, id string) { n.changes.publish(organization, topicWay, id) },
	})
	if err != nil {
		return err
	}
	if err := o.abandon(ctx); err != nil {
		return err
	}
	if err := o.openDepot(cfg, n); err != nil {
		return err
	}
	if o.rollouts, err = upgrade.Open(ctx, o.upgradeConfig(n)); err != nil {
		return err
	}
	engine, err := onboard.Open(ctx, o.engineConfig(n, server))
	if err != nil {
		return err
	}
	o.engine = engine
	return o.adopt(ctx, n.devices)
}

func (o *onboarding) engineConfig(n neighbours, server string) onboard.Config {
	return onboard.Config{
		DB: n.state, Log: part(n.log, "onboard"), Record: n.trail.Record, Machines: o.machines, Reach: o.connectors.Reach, Server: server,
		Plan: func(ctx context.Context, organization, environment string) (onboard.Plan, error) {
			protect, err := n.plans.Protects(ctx, organization, environment)
			return onboard.Plan{Tier: n.plans.Tier(environment), Protect: protect}, err
		},
		Pushed: func(ctx context.Context, m *machine.Machine) (string, error) {
			call, pushed, err := o.connectors.Pushed(ctx, m.Connector)
			if err != nil || !pushed {
				return "", err
			}
			return "komainuctl deploy --connector " + quoted(call), nil
		},
		Package: func(id event.DeviceID, has, format, arch string) (onboard.Package, bool) {
			p, ok, _ := o.given(n.organization, id, has, format, arch)
			return onboard.Package{Version: p.Version, SHA256: p.SHA256, Size: p.Size, URL: n.address + "/repository/" + content.File(p), Content: func() (io.ReadCloser, error) { return o.repository.Content(p) }}, ok
		},
		Pin: n.ids.Pin,
		Token: func(ctx context.Context, m machine.Machine) (string, error) {
			_, text, err := n.ids.CreateToken(ctx, enrol.TokenRequest{
				Environment: m.Environment, Machine: m.ID, Label: "deployment", Lasts: deployTokenLife, MaxUses: 1, CreatedBy: "onboarding", Server: n.address,
			})
			return text, err
		},
		Device: func(organization string, id event.DeviceID) *onboard.Device {
			s, ok := n.devices.State(id)
			if !ok || s.Organization != organization {
				return nil
			}
			d := &onboard.Device{ID: id, Offboarded: s.Offboarded, Connected: s.Connected, Confirmed: n.rules.InForce(id), Version: s.Version, Addresses: s.Addresses}
			if !s.Connected {
				d.Silent = time.Since(s.LastSeen)
			}
			return d
		},
		Proves:   n.ids.Proves,
		Replaced: succession{n.devices, n.ids, n.agents}.replaced,
		Revoke: func(ctx context.Context, organization string, id event.DeviceID) error {
			return succession{n.devices, n.ids, n.agents}.revoke(ctx, organization, id, "its machine was offboarded")
		},
		Test: func(ctx context.Context, organization string, id event.DeviceID, test string) (string, error) {
			ctx = access.WithActor(ctx, access.Actor{Kind: access.System, Name: "onboarding", Organization: organization})
			run, err := n.tests.Start(ctx, organization, id, test)
			return run.ID, err
		},
		Tested: func(ctx context.Context, organization, id string) (drill.Run, string, error) {
			run, err := n.tests.Get(ctx, organization, id)
			return run.Run, run.AlertID, err
		},
		Policy: n.pushes.device,
		Expire: func(ctx context.Context, keep func(environment string) time.Duration) error {
			return n.devices.Expire(ctx, keep, func(ctx context.Context, id event.DeviceID) error {
				return errors.Join(n.rules.Forget(ctx, id), n.tests.Forget(ctx, id))
			})
		},
		Changed: func(organization, environment string) {
			n.pushes.all() // exclusions are part of the plan
			n.changes.publish(organization, topicOnboard, environment)
		},
	}
}

// abandon lets go of machines whose connector is no more: nothing reaches
// them, and nobody could delete them. A control plane that was ended while a
// connector was deleted leaves such.
func (o *onboarding) abandon(ctx context.Context) error {
	ways, err := o.connectors.IDs(ctx)
	if err != nil {
		return err
	}
	for _, m := range o.machines.All("") {
		// Each of them lets go of all the others with it.
		if now, _ := o.machines.Lookup(m.ID); now.Connector != "" && !slices.Contains(ways, now.Connector) {
			if err := o.machines.Abandon(ctx, now.Connector); err != nil {
				return err
			}
		}
	}
	return nil
}

// quoted returns a word as a shell takes it.
func quoted(word string) string {
	plain := func(c rune) bool {
		return unicode.IsLetter(c) || unicode.IsDigit(c) || strings.ContainsRune("_@%+:,./-", c)
	}
	if !strings.ContainsFunc(word, func(c rune) bool { return !plain(c) }) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// adopt makes machines of devices that have none.
func (o *onboarding) adopt(ctx context.Context, devices *device.Registry) error {
	for _, d := range devices.Members() {
		if err := o.adoptOne(ctx, d); err != nil {
			return err
		}
	}
	return nil
}

func (o *onboarding) adoptOne(ctx context.Context, d device.Member) error {
	if _, ok := o.machines.Of(d.ID); ok {
		return nil
	}
	k := machine.Known{Name: d.Name, System: strings.ToLower(d.Platform)}
	return o.machines.Enrolled(ctx, d.Organization, d.Environment, "", d.ID, k, time.Time{})
}

// knownBy is what an agent says of its machine.
func knownBy(f device.Facts) machine.Known {
	return machine.Known{Name: f.Hostname, System: f.OS, OS: f.OSName, Arch: f.Arch}
}

// wake has the engine look at all machines.
func (o *onboarding) wake() {
	if o.engine != nil {
		o.engine.Wake()
	}
}

// news tells the engine that something has changed that it may wait for.
func (o *onboarding) news() {
	if o.engine != nil {
		o.engine.News()
	}
	if o.rollouts != nil {
		o.rollouts.Wake()
	}
}

// root returns the root of the signed repository that devices pin.
func (o *onboarding) root() ([]byte, error) {
	if o.repository == nil {
		return nil, nil
	}
	return o.repository.Root()
}

func (o *onboarding) close() error {
	if o.repository == nil {
		return nil
	}
	return o.repository.Close()
}
