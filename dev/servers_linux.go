package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"komainu/dev/farm"
	"komainu/fault"
)

// servers are pretend servers with a control plane that can reach them.
type servers struct {
	h     *House
	stack *Stack
	farm  *farm.Farm
	api   *api
	dir   string
}

// prepareServers brings what needs the network: the programs, a package of the
// agent, and a Debian. It is done before the namespaces are entered.
func prepareServers(ctx context.Context, h *House) error {
	if os.Geteuid() != 0 {
		return fault.New(fault.NeedsRoot, "pretend servers are containers, which need root")
	}
	if err := h.Install(ctx, hostTools...); err != nil {
		return err
	}
	if _, err := h.Build(ctx); err != nil {
		return err
	}
	if err := shelve(ctx, h, "farm-packages"); err != nil {
		return err
	}
	_, err := farm.Base(ctx, h.State())
	return err
}

// shelve packs the agent for pretend servers into a folder of the state.
func shelve(ctx context.Context, h *House, name string, more ...string) error {
	out := h.State(name)
	if err := os.RemoveAll(out); err != nil {
		return err
	}
	return packages(ctx, h, append([]string{"-only", "komainu-agent", "-arch", runtime.GOARCH, "-formats", "deb", "-o", out}, more...))
}

// openServers starts a control plane in the network of a farm that has no
// servers yet. The caller has entered its namespaces.
func openServers(ctx context.Context, h *House) (s *servers, err error) {
	bin, err := h.Build(ctx)
	if err != nil {
		return nil, err
	}
	s = &servers{h: h}
	if s.dir, err = os.MkdirTemp("", "komainu-farm-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	yard := filepath.Join(s.dir, "farm")
	if err := os.Mkdir(yard, 0o755); err != nil {
		return s, err
	}
	base, err := farm.Base(ctx, h.State())
	if err != nil {
		return s, err
	}
	if s.farm, err = farm.New(ctx, base, yard); err != nil {
		return s, err
	}
	s.stack = NewStack(h, bin, s.dir)
	s.stack.host, s.stack.packages = farm.Gateway, h.State("farm-packages")
	if err := s.stack.StartControl(ctx, 8443); err != nil {
		return s, err
	}
	s.api, err = s.stack.API(ctx)
	return s, err
}

func (s *servers) close() {
	if s.stack != nil {
		if err := s.stack.Close(); err != nil {
			s.h.Say("%v", err)
		}
	}
	if s.farm != nil {
		if err := s.farm.Close(); err != nil {
			s.h.Say("%v", err)
		}
	}
	if err := os.RemoveAll(s.dir); err != nil {
		s.h.Say("%v", err)
	}
}

// bootsAtOnce is how many servers boot together: more only wait for each
// other on two cores.
const bootsAtOnce = 4

// boot starts servers.
func (s *servers) boot(ctx context.Context, n int) ([]*farm.Host, error) {
	var all sync.WaitGroup
	slots := make(chan struct{}, bootsAtOnce)
	hosts, errs := make([]*farm.Host, n), make([]error, n)
	for i := range n {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			hosts[i], errs[i] = s.farm.Boot(ctx)
		})
	}
	all.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return hosts, nil
}

// environment makes an environment with the plan off.
func (s *servers) environment(ctx context.Context, name string) (string, error) {
	var e struct{ ID string }
	err := s.api.call(ctx, "POST", "/environments", map[string]string{"name": name}, &e)
	return e.ID, err
}

// sshConnector is the body of a connector that logs in with the farm's key.
func (s *servers) sshConnector(name string, version int, hosts []*farm.Host) map[string]any {
	var list strings.Builder
	for _, h := range hosts {
		fmt.Fprintln(&list, h.Address)
	}
	return map[string]any{
		"name": name, "kind": "ssh", "version": version,
		"ssh":    map[string]any{"hosts": list.String(), "user": "root", "sudo": "none", "credential": "key", "hostKeys": "first_use"},
		"secret": map[string]string{"privateKey": s.farm.PrivateKey()},
	}
}

// planOn switches the Servers plan of an environment on.
func (s *servers) planOn(ctx context.Context, environment string) error {
	return s.api.call(ctx, "PUT", "/environments/"+environment+"/plan", map[string]any{"version": 1, "servers": true}, nil)
}

// machineView is what is read of a machine.
type machineView struct {
	ID, Name  string
	Protected bool
	Extension struct {
		State, Step string
		Seconds     float64
		Alert       string
		Reason      *struct{ ID, Text, Detail string }
	}
	Device *struct{ ID string }
}

func (s *servers) machines(ctx context.Context, environment string) ([]machineView, error) {
	var list struct{ Items []machineView }
	err := s.api.call(ctx, "GET", "/machines?limit=1000&environment="+environment, nil, &list)
	return list.Items, err
}

// protected waits until so many machines of an environment have proven that
// they are protected.
func (s *servers) protected(ctx context.Context, environment string, n int, limit time.Duration) ([]machineView, error) {
	var last []machineView
	err := poll(ctx, limit, 50*time.Millisecond, func() (bool, error) {
		list, err := s.machines(ctx, environment)
		last = list
		proven := 0
		for _, m := range list {
			if m.Protected && m.Extension.Alert != "" {
				proven++
			}
		}
		return proven >= n, err
	})
	if err != nil {
		for _, m := range last {
			why := ""
			if r := m.Extension.Reason; r != nil {
				why = r.Text + " " + r.Detail
			}
			s.h.Say("%s: %s %s %s", m.Name, m.Extension.State, m.Extension.Step, why)
		}
		return last, fmt.Errorf("%d machines are not protected: %w", n, err)
	}
	return last, nil
}
