package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"komainu/dev/farm"
)

// benchPush measures how long an operator waits for komainuctl deploy, until
// two bare servers of a connector that holds no credential are protected and
// have proven it, as the machines of its list.
func benchPush(ctx context.Context, h *House) error {
	if entered, err := enterFarm(ctx, h, "bench", "push"); entered || err != nil {
		return err
	}
	s, err := openServers(ctx, h)
	if err != nil {
		return err
	}
	defer s.close()
	hosts, err := s.boot(ctx, 2)
	if err != nil {
		return err
	}
	took, err := s.push(ctx, "push", hosts)
	if err != nil {
		s.stack.PrintLogs()
		return err
	}
	h.Say("push two_s=%.1f", took.Seconds())
	return nil
}

// push makes an environment with servers that nobody but a person reaches, and
// is that person.
func (s *servers) push(ctx context.Context, name string, hosts []*farm.Host) (time.Duration, error) {
	environment, err := s.environment(ctx, name)
	if err != nil {
		return 0, err
	}
	way := s.sshConnector(name, 0, hosts)
	delete(way, "secret")
	way["ssh"].(map[string]any)["credential"] = "push"
	if err := s.api.call(ctx, "POST", "/environments/"+environment+"/connectors", way, nil); err != nil {
		return 0, err
	}
	if err := s.planOn(ctx, environment); err != nil {
		return 0, err
	}
	var listed []machineView
	err = poll(ctx, time.Minute, 50*time.Millisecond, func() (bool, error) {
		listed, err = s.machines(ctx, environment)
		for _, m := range listed {
			if m.Extension.State != "waiting" || m.Extension.Reason == nil || m.Extension.Reason.ID != "credential_missing" {
				return false, err
			}
		}
		return len(listed) == len(hosts), err
	})
	if err != nil {
		return 0, fmt.Errorf("machines that wait for somebody: %+v: %w", listed, err)
	}
	s.h.Say("the machines wait, and say: %s", listed[0].Extension.Reason.Detail)
	profile, err := s.profile()
	if err != nil {
		return 0, err
	}
	key := filepath.Join(s.dir, "operator")
	if err := os.WriteFile(key, []byte(s.farm.PrivateKey()), 0o600); err != nil {
		return 0, err
	}
	started := time.Now()
	out, err := s.stack.runCLI(ctx, "komainuctl", "deploy", "--connector", name, "--profile", profile, "--identity", key, "--known-hosts", filepath.Join(s.dir, "known_hosts"), "--accept-new", "--wait", "3m")
	took := time.Since(started)
	s.h.Say("%s", out)
	if err != nil {
		return took, err
	}
	list, err := s.protected(ctx, environment, len(hosts), time.Minute)
	if err == nil && len(list) != len(hosts) {
		err = fmt.Errorf("%d machines for %d servers", len(list), len(hosts))
	}
	return took, err
}

// profile is that of komainuctl for this control plane.
func (s *servers) profile() (string, error) {
	ca, err := os.ReadFile(filepath.Join(s.dir, "control", "keys", "ca.pem"))
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(map[string]string{"server": s.stack.URL, "ca": string(ca), "token": s.api.token})
	if err != nil {
		return "", err
	}
	file := filepath.Join(s.dir, "ctl.json")
	return file, os.WriteFile(file, text, 0o600)
}
