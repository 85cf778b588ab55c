package control

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/uptrace/bun"

	"komainu/control/audit"
	"komainu/control/device"
	"komainu/control/enrol"
	"komainu/control/plan"
	"komainu/control/policies"
	"komainu/event"
	"komainu/policy"
)

// openPolicies joins the policies with what they are made of. What changes
// them reaches the devices and the pages.
func openPolicies(ctx context.Context, state *bun.DB, ids *enrol.Authority, trail *audit.Log, plans *plan.Plans, devices *device.Registry, pushes *pusher, changes *hub) (*policies.Policies, error) {
	rules, err := policies.Open(ctx, state, policies.Config{
		Sign:   func(d *policy.Document) (policy.Signed, error) { return policy.Sign(d, ids.PolicyKey()) },
		Record: trail.Record,
		Plan: func(ctx context.Context, d policies.Device) (policy.Document, error) {
			return plans.Document(ctx, d.Organization, d.Environment, plan.Own{Tier: d.Plan, Observe: d.Observe})
		},
		Environments: func(ctx context.Context, organization string) (map[string]string, error) {
			list, err := plans.List(ctx, organization)
			names := make(map[string]string, len(list))
			for _, e := range list {
				names[e.ID] = e.Name
			}
			return names, err
		},
		Devices: func() []policies.Device { return members(devices) },
		Device: func(id event.DeviceID) (policies.Device, error) {
			m, err := devices.Member(id)
			return policies.Device(m), err
		},
		Changed: func(organization, what, id string) {
			pushes.all()
			topic := topicPolicy
			if what == policies.AGroup {
				topic = topicGroup
			}
			changes.publish(organization, topic, id)
		},
	})
	if err != nil {
		return nil, err
	}
	// Once at the start: what changed before may not have been composed.
	pushes.all()
	return rules, nil
}

func members(devices *device.Registry) []policies.Device {
	list := devices.Members()
	converted := make([]policies.Device, len(list))
	for i, m := range list {
		converted[i] = policies.Device(m)
	}
	return converted
}

// recomposer brings the documents of devices up to date, of all when none is
// named, and returns those whose document has changed.
func recomposer(rules *policies.Policies, devices *device.Registry) func(context.Context, []event.DeviceID) ([]event.DeviceID, error) {
	return func(ctx context.Context, ids []event.DeviceID) ([]event.DeviceID, error) {
		if ids == nil {
			rules.Refresh() // a plan may have changed
			return rules.Recompose(ctx, members(devices))
		}
		var list []policies.Device
		for _, id := range ids {
			if m, err := devices.Member(id); err == nil {
				list = append(list, policies.Device(m))
			}
		}
		return rules.Recompose(ctx, list)
	}
}

// pusher has documents composed after a change and sends them to devices that
// are connected. A device that is not gets its policy when it connects. What
// changes while it works is done together afterwards.
type pusher struct {
	mu    sync.Mutex
	every bool
	some  map[event.DeviceID]bool // as many as there are devices at most
	wake  chan struct{}           // capacity 1
}

// pushesAtOnce is how many devices are sent their policy at once: one that
// does not read holds up one of them until its session ends.
const pushesAtOnce = 8

// retryPolicies is how long after a failure documents are composed again.
const retryPolicies = 5 * time.Second

func newPusher() *pusher {
	return &pusher{some: map[event.DeviceID]bool{}, wake: make(chan struct{}, 1)}
}

// all notes that every device may need a new policy. It never blocks.
func (p *pusher) all() { p.note(func() { p.every = true }) }

// device notes that one device may. It never blocks.
func (p *pusher) device(id event.DeviceID) { p.note(func() { p.some[id] = true }) }

func (p *pusher) note(what func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	what()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// take returns the devices that were noted, nil for all.
func (p *pusher) take() []event.DeviceID {
	p.mu.Lock()
	defer p.mu.Unlock()
	every, some := p.every, p.some
	p.every, p.some = false, map[event.DeviceID]bool{}
	if every {
		return nil
	}
	return slices.AppendSeq(make([]event.DeviceID, 0, len(some)), maps.Keys(some))
}

// run composes and pushes until ctx ends.
func (p *pusher) run(ctx context.Context, recompose func(context.Context, []event.DeviceID) ([]event.DeviceID, error), push func(context.Context, event.DeviceID), log *slog.Logger) error {
	var pushing sync.WaitGroup
	defer pushing.Wait()
	slots := make(chan struct{}, pushesAtOnce)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.wake:
		}
		changed, err := recompose(ctx, p.take())
		if err != nil && ctx.Err() == nil {
			log.Warn("policies wait to be composed", "error", err)
			time.AfterFunc(retryPolicies, p.all)
		}
		for _, id := range changed {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return nil
			}
			pushing.Go(func() {
				defer func() { <-slots }()
				push(ctx, id)
			})
		}
	}
}
