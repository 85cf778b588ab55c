package control

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"

	"komainu/control/device"
	"komainu/control/enrol"
	"komainu/control/gateway"
	"komainu/control/policies"
	"komainu/control/queue"
	"komainu/control/selftest"
	"komainu/deploy"
	"komainu/event"
	"komainu/fault"
	"komainu/health"
	"komainu/policy"
	"komainu/wire"
)

// gatewayConfig tells the gateway whom to ask and whom to tell.
func gatewayConfig(ids *enrol.Authority, rules *policies.Policies, devices *device.Registry, q *queue.Queue, tests *selftest.Runs, known *onboarding, log *slog.Logger) gateway.Config {
	return gateway.Config{
		Identify: func(r *http.Request) (event.DeviceID, error) { return ids.Identify(r.Context(), r.TLS) },
		Publish:  q.Publish,
		Hello: func(ctx context.Context, id event.DeviceID, h *wire.Hello) error {
			if err := rules.Reported(ctx, id, h.PolicyVersion); err != nil {
				return err
			}
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
			newest, err := rules.Confirmed(ctx, id, p.Version, p.Error)
			if err != nil || !newest {
				return err // a newer one is on its way, and that answer counts
			}
			return devices.PolicyConfirmed(ctx, id, p.Version, p.Error)
		},
		Policy: func(ctx context.Context, id event.DeviceID, protocol int) (policy.Signed, error) {
			return rules.Signed(ctx, id, protocol >= wire.SourcesProtocol)
		},
		TestRun: func(ctx context.Context, id event.DeviceID, m *wire.TestRun) (*wire.TestStages, error) {
			organization, _, err := devices.Place(id)
			if err != nil {
				return nil, err
			}
			stages, err := tests.Report(ctx, organization, id, m.Run)
			return &wire.TestStages{Run: m.Run.ID, Stages: stages}, err
		},
		Upgrade: func(ctx context.Context, id event.DeviceID, s deploy.UpgradeStatus) error {
			organization, _, err := devices.Place(id)
			if err != nil || known.rollouts == nil {
				return err
			}
			return known.rollouts.Report(ctx, organization, id, s)
		},
		Gone: devices.Disconnected,
		Log:  log,
	}
}
