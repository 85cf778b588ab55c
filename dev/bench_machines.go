package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"
)

const (
	pretendMachines = 10_000
	machineRounds   = 60 // of every question
)

// benchMachines asks what the onboarding pages ask while an environment knows
// ten thousand machines: first with the plan off, then with it on, while the
// engine tries all of them. They are addresses of the loopback network at
// which nothing listens.
func benchMachines(ctx context.Context, h *House) error {
	s, end, err := benchControl(ctx, h)
	if err != nil {
		return err
	}
	defer end()
	a, err := s.API(ctx)
	if err != nil {
		return err
	}
	a.client.Timeout = 2 * time.Minute // for the first, which takes all of them in
	env, err := a.environment(ctx)
	if err != nil {
		return err
	}
	key, err := pretendKey()
	if err != nil {
		return err
	}
	body := map[string]any{
		"name": "many", "kind": "ssh",
		"ssh":    map[string]any{"hosts": "127.[1-40].0.[1-250]:9 fleet=pretend", "user": "root", "sudo": "none", "credential": "key", "hostKeys": "first_use"},
		"secret": map[string]string{"privateKey": key},
	}
	started := time.Now()
	var connector struct {
		ID       string
		Machines int
	}
	if err := a.call(ctx, "POST", "/environments/"+env.ID+"/connectors", body, &connector); err != nil {
		return err
	}
	h.Say("%d machines are known after %.1f s", connector.Machines, time.Since(started).Seconds())
	if connector.Machines != pretendMachines {
		return fmt.Errorf("%d machines, not %d", connector.Machines, pretendMachines)
	}
	quiet, err := askMachines(ctx, h, a, env.ID, connector.ID)
	if err != nil {
		return err
	}
	if err := a.call(ctx, "PUT", "/environments/"+env.ID+"/plan", map[string]any{"version": 1, "servers": true}, nil); err != nil {
		return err
	}
	busy, err := askMachines(ctx, h, a, env.ID, connector.ID)
	if err != nil {
		return err
	}
	h.Say("machines p95_ms=%.0f busy_p95_ms=%.0f", quiet, busy)
	return nil
}

// askMachines asks every question of the pages and returns the worst p95, in
// milliseconds.
func askMachines(ctx context.Context, h *House, a *api, environment, connector string) (float64, error) {
	var list struct{ Items []struct{ ID string } }
	if err := a.call(ctx, "GET", "/machines?limit=1&environment="+environment, nil, &list); err != nil {
		return 0, err
	}
	of := "/machines?limit=100&environment=" + environment
	questions := []struct{ method, path string }{
		{"GET", "/environments"},
		{"GET", "/environments/" + environment},
		{"GET", "/environments/" + environment + "/onboarding"},
		{"POST", "/environments/" + environment + "/onboarding/preview?limit=100"},
		{"GET", "/environments/" + environment + "/coverage?days=30"},
		{"GET", "/environments/" + environment + "/connectors"},
		{"GET", "/connectors/" + connector},
		{"GET", of},
		{"GET", of + "&q=127.17.0.2"},
		{"GET", of + "&state=failed&sort=-since"},
		{"GET", of + "&tag=fleet%3Dpretend&sort=state"},
		{"GET", "/machines?limit=1000&environment=" + environment},
		{"GET", "/machines/" + list.Items[0].ID},
	}
	worst := 0.0
	for _, q := range questions {
		var times []float64
		for range machineRounds {
			started := time.Now()
			if err := a.call(ctx, q.method, q.path, nil, nil); err != nil {
				return 0, err
			}
			times = append(times, float64(time.Since(started).Microseconds())/1000)
		}
		slices.Sort(times)
		p95 := times[len(times)*95/100]
		h.Say("%-4s %-90s p50 %6.1f ms  p95 %6.1f ms", q.method, q.path, times[len(times)/2], p95)
		worst = max(worst, p95)
	}
	return worst, nil
}

// pretendKey is a private key that logs in nowhere.
func pretendKey() (string, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", err
	}
	block, err := ssh.MarshalPrivateKey(private, "bench")
	if err != nil {
		return "", err
	}
	return string(pem.EncodeToMemory(block)), nil
}
