package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"komainu/control/client"
	"komainu/fault"
)

func (a *app) machineCommands() *cobra.Command {
	return group("machine", "Machines that the environments know, with an agent or without one", a.listMachines(), a.showMachine(), a.deployMachine(), a.offboardMachine(), a.deleteMachine())
}

const machineHeader = "ID\tNAME\tENVIRONMENT\tADDRESS\tPLAN\tSTATE\tWHY\tAGENT"

func machineRow(m client.Machine) string {
	x, why := m.Extension, m.Extension.Waits
	if x.Reason != nil {
		why = x.Reason.Text
	}
	state := string(x.State)
	if x.Step != "" {
		state += " " + string(x.Step)
	}
	return cells(m.ID, m.Name, m.Environment.Name, m.Address, m.Plan.Effective, state, why, x.AgentVersion)
}

func (a *app) listMachines() *cobra.Command {
	return list(a, "list", "List machines by name", map[string]string{
		"q": "part of a name, or the beginning of an address", "environment": "id of an environment", "state": "none, waiting, creating, succeeded, failed, not_applicable, removing or gone",
		"reason": "id of a reason", "connector": "id of a connector", "tag": "NAME=VALUE, or NAME for any value", "plan": "off, P1 or P2",
	}, func(c *cobra.Command, api *client.Client, q client.Query) (client.List[client.Machine], error) {
		return api.Machines(c.Context(), q)
	}, machineHeader, machineRow)
}

// findMachine finds a machine by its id, its name or its address.
func findMachine(ctx context.Context, api *client.Client, key string) (string, error) {
	if m, err := api.Machine(ctx, key); err == nil || !fault.Is(err, fault.NotFound) {
		return m.ID, err
	}
	list, err := api.Machines(ctx, client.Query{"q": key, "limit": "1000"})
	if err != nil {
		return "", err
	}
	var found []string
	for _, m := range list.Items {
		if m.Name == key || m.Address == key {
			found = append(found, m.ID)
		}
	}
	switch len(found) {
	case 0:
		return "", fault.New(fault.NotFound, "there is no machine %q", key)
	case 1:
		return found[0], nil
	}
	return "", fault.New(fault.Conflict, "%d machines are called %q; name one by its id: %s", len(found), key, strings.Join(found, ", "))
}

// onMachine is a command that does something with one machine.
func (a *app) onMachine(use, short string, f func(context.Context, *client.Client, string) (client.Machine, error)) *cobra.Command {
	return &cobra.Command{Use: use + " MACHINE", Short: short, Long: short + ".\nMACHINE is an id, a name or an address.", Args: exactly(1), RunE: a.with(func(c *cobra.Command, api *client.Client, args []string) error {
		id, err := findMachine(c.Context(), api, args[0])
		if err != nil {
			return err
		}
		m, err := f(c.Context(), api, id)
		if err != nil {
			return err
		}
		return show(a, m, []client.Machine{m}, machineHeader, machineRow)
	})}
}

func (a *app) showMachine() *cobra.Command {
	return &cobra.Command{Use: "show MACHINE", Short: "Show a machine, why it is not protected, and what happened on its way", Args: exactly(1), RunE: a.with(func(c *cobra.Command, api *client.Client, args []string) error {
		id, err := findMachine(c.Context(), api, args[0])
		if err != nil {
			return err
		}
		m, err := api.Machine(c.Context(), id)
		if err != nil {
			return err
		}
		if a.format == "table" {
			fmt.Fprintf(a.out, "%s\n%s\n\n", machineHeader, machineRow(m))
			if r := m.Extension.Reason; r != nil {
				fmt.Fprintf(a.out, "%s\n%s\nWhat to do: %s\n\n", cells(r.Text), cells(r.Detail), cells(r.Remedy))
			}
		}
		return show(a, m, m.Journal, "TIME\tSTEP\tSTATE\tTEXT", func(l client.MachineLine) string { return cells(l.Time, l.Step, l.State, l.Text) })
	})}
}

func (a *app) deployMachine() *cobra.Command {
	var despite, take bool
	c := a.onMachine("deploy", "Bring a machine under protection now", func(ctx context.Context, api *client.Client, id string) (client.Machine, error) {
		return api.DeployMachine(ctx, id, despite, take)
	})
	c.Flags().BoolVar(&despite, "despite-conflict", false, "also beside another product that decides on file accesses")
	c.Flags().BoolVar(&take, "take-over", false, "also when its agent belongs to another control plane")
	return c
}

func (a *app) offboardMachine() *cobra.Command {
	var reason string
	c := a.onMachine("offboard", "Revoke the identity of a machine's agent and remove it; what is known of it stays", func(ctx context.Context, api *client.Client, id string) (client.Machine, error) {
		return api.OffboardMachine(ctx, id, reason)
	})
	c.Flags().StringVar(&reason, "reason", "", "for the audit log")
	return c
}

func (a *app) deleteMachine() *cobra.Command {
	return &cobra.Command{Use: "delete MACHINE", Short: "Forget a machine that has no agent and that no inventory names", Args: exactly(1), RunE: a.with(func(c *cobra.Command, api *client.Client, args []string) error {
		id, err := findMachine(c.Context(), api, args[0])
		if err != nil {
			return err
		}
		if err := api.DeleteMachine(c.Context(), id); err != nil {
			return err
		}
		_, err = fmt.Fprintf(c.ErrOrStderr(), "machine %s is forgotten\n", cells(args[0]))
		return err
	})}
}

func (a *app) connectorCommands() *cobra.Command {
	return group("connector", "Ways to machines without an agent", a.listConnectors(), a.testConnector(), a.syncConnector())
}

// findEnvironment finds an environment by its id or its name.
func findEnvironment(ctx context.Context, api *client.Client, key string) (string, error) {
	list, err := api.Environments(ctx)
	if err != nil {
		return "", err
	}
	for _, e := range list.Items {
		if e.ID == key || e.Name == key {
			return e.ID, nil
		}
	}
	return "", fault.New(fault.NotFound, "there is no environment %q", key)
}

func (a *app) listConnectors() *cobra.Command {
	return &cobra.Command{Use: "list ENVIRONMENT", Short: "List the connectors of an environment", Args: exactly(1), RunE: a.with(func(c *cobra.Command, api *client.Client, args []string) error {
		environment, err := findEnvironment(c.Context(), api, args[0])
		if err != nil {
			return err
		}
		answer, err := api.Connectors(c.Context(), environment)
		if err != nil {
			return err
		}
		return show(a, answer, answer.Items, "ID\tNAME\tKIND\tMACHINES\tLAST SYNC\tERROR", func(x client.Connector) string {
			problem, synced := "", any("")
			if x.Error != nil {
				problem = x.Error.Text
			}
			if x.LastSync != nil {
				synced = *x.LastSync
			}
			return cells(x.ID, x.Name, x.Kind, x.Machines, synced, problem)
		})
	})}
}

func (a *app) testConnector() *cobra.Command {
	return &cobra.Command{Use: "test ID", Short: "Log in to the machines of a connector and look; nothing is changed", Args: exactly(1), RunE: a.with(func(c *cobra.Command, api *client.Client, args []string) error {
		report, err := api.TestConnector(c.Context(), args[0])
		if err != nil {
			return err
		}
		var rows []string
		for _, h := range report.Hosts {
			result, why := "ok", ""
			if !h.OK {
				result = "failed"
			}
			if h.Reason != nil {
				why = h.Reason.Text + "; " + h.Reason.Remedy
			}
			rows = append(rows, cells(h.Name, h.Address, result, why))
		}
		if err := show(a, report, rows, "NAME\tADDRESS\tRESULT\tWHY", func(row string) string { return row }); err != nil {
			return err
		}
		if report.Passed < len(report.Hosts) {
			return fault.New(fault.Conflict, "%d of %d machines that were tried can get the agent", report.Passed, len(report.Hosts))
		}
		return nil
	})}
}

func (a *app) syncConnector() *cobra.Command {
	return &cobra.Command{Use: "sync ID", Short: "Take the inventory of a connector over now", Args: exactly(1), RunE: a.with(func(c *cobra.Command, api *client.Client, args []string) error {
		n, err := api.SyncConnector(c.Context(), args[0])
		if err != nil {
			return err
		}
		return show(a, n, []client.Synced{n}, "KNOWN\tADDED\tGONE", func(n client.Synced) string { return cells(n.Known, n.Added, n.Gone) })
	})}
}
