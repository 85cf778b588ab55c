package main

import (
	"cmp"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"komainu/control/client"
	"komainu/deploy"
	"komainu/deploy/remote"
	"komainu/fault"
)

// target is a host to work on.
type target struct {
	remote.Entry
	machine *client.Machine // that it is in the list of a connector, else nil
	pass    *deploy.Reason  // why nothing is done with it
	asked   bool            // it was named, so that passing it over is a failure
}

func targetsOf(hosts []remote.Entry) []target {
	list := make([]target, len(hosts))
	for i, e := range hosts {
		list[i].Entry = e
	}
	return list
}

// follow takes over what a connector says: which machines there are, and how
// to log in to them. named are those of them to work on, none for all that
// need it. What a flag says is stronger.
func (d *deployment) follow(c *cobra.Command, named []remote.Entry) ([]target, error) {
	o, given := &d.options, c.Flags().Changed
	way, err := findConnector(c.Context(), d.api, o.connector, o.environment)
	switch {
	case err != nil:
		return nil, err
	case way.SSH == nil:
		return nil, fault.New(fault.Invalid, "the connector %q is of the kind %s, and deploy goes over SSH; komainuctl machine deploy has the control plane do it", way.Name, way.Kind)
	case given("port"):
		return nil, fault.New(fault.Invalid, "--port: the list of the connector says the ports")
	}
	d.environment = way.Environment
	if !given("user") {
		o.user = cmp.Or(way.SSH.User, o.user)
	}
	if !given("jump") {
		o.jump = way.SSH.Jump
	}
	if !given("sudo") {
		o.sudo = way.SSH.Sudo
	}
	if d.listed = way.SSH.HostKeys == "listed" && !given("known-hosts"); d.listed {
		if o.acceptNew {
			return nil, fault.New(fault.Invalid, "--accept-new: the connector %q takes listed host keys only; add the key to its list, or name a file with --known-hosts", way.Name)
		}
		if d.known, err = listedKeys(way.SSH.KnownHosts); err != nil {
			return nil, err
		}
	}
	all, err := machinesOf(c.Context(), d.api, way)
	if err != nil {
		return nil, err
	}
	if len(named) == 0 {
		for i := range all {
			all[i].pass = cmp.Or(unwanted(all[i].machine), settled(all[i].machine))
		}
		return all, nil
	}
	return pick(all, named, way)
}

// findConnector finds a connector by its id or its name.
func findConnector(ctx context.Context, api *client.Client, key, environment string) (client.Connector, error) {
	environments, err := api.Environments(ctx)
	if err != nil {
		return client.Connector{}, err
	}
	var found []client.Connector
	known := environment == ""
	for _, e := range environments.Items {
		if environment != "" && environment != e.ID && environment != e.Name {
			continue
		}
		known = true
		list, err := api.Connectors(ctx, e.ID)
		if err != nil {
			return client.Connector{}, err
		}
		for _, way := range list.Items {
			if way.ID == key || way.Name == key {
				found = append(found, way)
			}
		}
	}
	switch {
	case !known:
		return client.Connector{}, fault.New(fault.NotFound, "there is no environment %q; komainuctl environment list shows them", environment)
	case len(found) == 0:
		return client.Connector{}, fault.New(fault.NotFound, "there is no connector %q; komainuctl connector list ENVIRONMENT shows those of an environment", key)
	case len(found) > 1:
		return client.Connector{}, fault.New(fault.Conflict, "%d connectors are called %q; name one by its id, or its environment with --environment", len(found), key)
	}
	return found[0], nil
}

// listedKeys are the host keys of a connector that takes no others.
func listedKeys(text string) (*remote.KnownHosts, error) {
	dir, err := os.MkdirTemp("", "komainuctl-")
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "keep the host keys of the connector")
	}
	defer os.RemoveAll(dir) // they are read once
	file := filepath.Join(dir, "known-hosts-of-the-connector")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "keep the host keys of the connector")
	}
	return remote.OpenKnownHosts(file)
}

// machinesOf returns the machines that a connector lists, with the way to each
// of them.
func machinesOf(ctx context.Context, api *client.Client, way client.Connector) ([]target, error) {
	entries, err := remote.ParseInventory(way.SSH.Hosts, way.SSH.Port)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "the list of the connector %q", way.Name)
	}
	byAddress := map[string]remote.Entry{}
	for _, e := range entries {
		e.Port = cmp.Or(e.Port, way.SSH.Port, 22)
		byAddress[e.Address(0)] = e
	}
	var all []target
	q := client.Query{"connector": way.ID, "limit": "1000"}
	for {
		page, err := api.Machines(ctx, q)
		if err != nil {
			return nil, err
		}
		for _, m := range page.Items {
			if e, ok := byAddress[m.Address]; ok {
				all = append(all, target{Entry: e, machine: &m})
			}
		}
		if q["cursor"] = page.Next; page.Next == "" {
			break
		}
	}
	if len(all) == 0 {
		return nil, fault.New(fault.Invalid, "the connector %q lists no machines; add hosts to its list", way.Name)
	}
	return all, nil
}

// pick returns those that were named: by name, by name and port, or by the id
// of the machine.
func pick(all []target, named []remote.Entry, way client.Connector) ([]target, error) {
	var picked []target
	for _, n := range named {
		i := slices.IndexFunc(all, func(t target) bool {
			return t.machine.ID == n.Name || strings.EqualFold(t.Name, n.Name) && (n.Port == 0 || n.Port == t.Port)
		})
		if i < 0 {
			return nil, fault.New(fault.NotFound, "the connector %q lists no machine %q; komainuctl machine list --connector %s shows those that it does", way.Name, n.Name, way.ID)
		}
		t := all[i]
		t.asked, t.pass, t.User = true, unwanted(t.machine), cmp.Or(n.User, t.User)
		if !slices.ContainsFunc(picked, func(p target) bool { return p.machine.ID == t.machine.ID }) {
			picked = append(picked, t)
		}
	}
	return picked, nil
}

// unwanted says why a machine is not to get an agent, nil when it is. The
// control plane decides it, and refuses a token all the same.
func unwanted(m *client.Machine) *deploy.Reason {
	x := m.Extension
	switch {
	case m.Offboarded:
		return new(deploy.ReasonOf(deploy.Offboarded, ""))
	case x.State == deploy.Removing:
		return &deploy.Reason{ID: deploy.Offboarded, Text: "its agent is being removed", Remedy: "wait for the end of it"}
	case x.State == deploy.None, x.State == deploy.NotApplicable:
		return x.Reason
	}
	return nil
}

// settled says why a machine needs nobody to deploy to it, nil when it does.
func settled(m *client.Machine) *deploy.Reason {
	switch m.Extension.State {
	case deploy.Succeeded:
		return &deploy.Reason{Text: "it is protected already"}
	case deploy.Creating:
		return &deploy.Reason{Text: "the control plane is working on it"}
	}
	return nil
}
