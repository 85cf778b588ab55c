package control

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"sync"

	"komainu/control/device"
	"komainu/control/enrol"
	"komainu/control/gateway"
	"komainu/control/plan"
	"komainu/control/queue"
	"komainu/control/selftest"
	"komainu/event"
	"komainu/fault"
	"komainu/health"
	"komainu/policy"
	"komainu/wire"
)

// gatewayConfig tells the gateway whom to ask and whom to tell.
func gatewayConfig(ids *enrol.Authority, plans *plan.Plans, devices *device.Registry, q *queue.Queue, tests *selftest.Runs, log *slog.Logger) gateway.Config {
	return gateway.Config{
		Identify: func(r *http.Request) (event.DeviceID, error) { return ids.Identify(r.Context(), r.TLS) },
		Publish:  q.Publish,
		Hello: func(ctx context.Context, id event.DeviceID, h *wire.Hello) error {
			return devices.Connected(ctx, id, device.Facts(h.Facts))
		},
		Heartbeat: func(_ context.Context, id event.DeviceID, h *wire.Heartbeat) error {
			var report health.Report
			if err := json.Unmarshal(h.Health, &report); err != nil {
				return fault.New(fault.Invalid, "the health report cannot be read: %w", err)
			}
			devices.Report(id, report)
			return nil
		},
		PolicyResult: func(ctx context.Context, id event.DeviceID, p *wire.PolicyResult) error {
			if p.Error != "" {
				log.Warn("a device refuses its policy", "device", id, "version", p.Version, "error", p.Error)
			}
			return devices.PolicyConfirmed(ctx, id, p.Version, p.Error)
		},
		Policy: func(ctx context.Context, id event.DeviceID) (policy.Signed, error) {
			organization, environment, err := devices.Place(id)
			if err != nil {
				return policy.Signed{}, err
			}
			signed, _, err := plans.Policy(ctx, organization, environment, string(id))
			return signed, err
		},
		TestRun: func(ctx context.Context, id event.DeviceID, m *wire.TestRun) (*wire.TestStages, error) {
			organization, _, err := devices.Place(id)
			if err != nil {
				return nil, err
			}
			stages, err := tests.Report(ctx, organization, id, m.Run)
			return &wire.TestStages{Run: m.Run.ID, Stages: stages}, err
		},
		Gone: devices.Disconnected,
		Log:  log,
	}
}

// pusher sends policies to connected devices after a change of their plan. A
// device that is not connected gets its policy when it connects.
type pusher struct {
	mu      sync.Mutex
	waiting map[string]bool // environments; as many as there are at most
	wake    chan struct{}   // capacity 1
}

// pushes is how many devices are sent their policy at once: one that does not
// read holds up one of them until its session ends.
const pushes = 8

func newPusher() *pusher {
	return &pusher{waiting: map[string]bool{}, wake: make(chan struct{}, 1)}
}

// changed notes an environment whose devices need a new policy. It never
// blocks.
func (p *pusher) changed(environment string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting[environment] = true
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *pusher) take() map[string]bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	taken := p.waiting
	p.waiting = map[string]bool{}
	return taken
}

// run pushes until ctx ends.
func (p *pusher) run(ctx context.Context, connected func(environment string) []event.DeviceID, push func(context.Context, event.DeviceID)) error {
	var all sync.WaitGroup
	defer all.Wait()
	slots := make(chan struct{}, pushes)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.wake:
		}
		for environment := range p.take() {
			for _, id := range connected(environment) {
				select {
				case slots <- struct{}{}:
				case <-ctx.Done():
					return nil
				}
				all.Go(func() {
					defer func() { <-slots }()
					push(ctx, id)
				})
			}
		}
	}
}
