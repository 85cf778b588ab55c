package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"komainu/dev/farm"
)

// benchOnboard measures how long it takes from the switch of the plan until
// bare servers are protected and have proven it: one, and twenty at once.
// Servers are containers with a real sshd on this machine, so that all of them
// share its processors.
func benchOnboard(ctx context.Context, h *House) error {
	if entered, err := enterFarm(ctx, h, "bench", "onboard"); entered || err != nil {
		return err
	}
	s, err := openServers(ctx, h)
	if err != nil {
		return err
	}
	defer s.close()
	started := time.Now()
	hosts, err := s.boot(ctx, 21)
	if err != nil {
		return err
	}
	h.Say("21 servers have booted in %s", time.Since(started).Round(time.Second))
	one, err := s.onboard(ctx, "one", hosts[:1])
	if err != nil {
		return err
	}
	twenty, err := s.onboard(ctx, "twenty", hosts[1:])
	if err != nil {
		return err
	}
	h.Say("onboard host_s=%.1f twenty_s=%.1f", one.Seconds(), twenty.Seconds())
	return nil
}

// enterFarm prepares what pretend servers need and runs the command anew where
// they can be.
func enterFarm(ctx context.Context, h *House, args ...string) (bool, error) {
	if os.Getenv(farm.Inside) == "" {
		if err := prepareServers(ctx, h); err != nil {
			return true, err
		}
	}
	return farm.Enter(ctx, args...)
}

// onboard makes an environment with servers, switches its plan on, and waits
// until they are protected.
func (s *servers) onboard(ctx context.Context, name string, hosts []*farm.Host) (time.Duration, error) {
	environment, err := s.environment(ctx, name)
	if err != nil {
		return 0, err
	}
	if err := s.api.call(ctx, "POST", "/environments/"+environment+"/connectors", s.sshConnector(name, 0, hosts), nil); err != nil {
		return 0, err
	}
	started := time.Now()
	if err := s.planOn(ctx, environment); err != nil {
		return 0, err
	}
	list, err := s.protected(ctx, environment, len(hosts), 5*time.Minute)
	if err != nil {
		s.stack.PrintLogs()
		return 0, err
	}
	took := time.Since(started)
	var sum float64
	for _, m := range list {
		sum += m.Extension.Seconds
	}
	s.h.Say("%s: %d protected after %.1f s, %.1f s each on average", name, len(list), took.Seconds(), sum/float64(len(list)))
	if len(list) != len(hosts) {
		return 0, fmt.Errorf("%d machines for %d servers", len(list), len(hosts))
	}
	return took, nil
}
