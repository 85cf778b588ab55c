package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"komainu/control/client"
	"komainu/fault"
)

// app is one invocation.
type app struct {
	in      io.Reader
	out     io.Writer
	profile string // file
	format  string // table, json
}

func root(in io.Reader, out, errs io.Writer) *cobra.Command {
	a := &app{in: in, out: out}
	c := &cobra.Command{
		Use: "komainuctl", Short: "Administer a Komainu control plane", Version: version,
		SilenceUsage: true, SilenceErrors: true, Args: cobra.ArbitraryArgs,
		RunE: noCommand,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if a.format != "table" && a.format != "json" {
				return fault.New(fault.Invalid, "output %q: want table or json", a.format)
			}
			return nil
		},
	}
	c.SetIn(in)
	c.SetOut(out)
	c.SetErr(errs)
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fault.New(fault.Invalid, "%w", err) })
	c.CompletionOptions.DisableDefaultCmd = true
	c.PersistentFlags().StringVar(&a.profile, "profile", defaultProfile(), "file with the server and the token, written by login")
	c.PersistentFlags().StringVarP(&a.format, "output", "o", "table", "table or json")
	c.AddCommand(a.login(), group("device", "Devices", a.devices(), a.devicePolicy(), a.revoke()), group("alert", "Alerts", a.alerts()),
		group("incident", "Incidents", a.incidents()), group("environment", "Environments", a.environments()), group("token", "API tokens", a.createToken()), a.policyCommands(), a.groupCommands(), a.deploy(), a.repositoryCommands(),
		a.upgradeCommands(), a.machineCommands(), a.connectorCommands(), a.joinTokenCommands())
	return c
}

func group(name, short string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: name, Short: short, Args: cobra.ArbitraryArgs, RunE: noCommand}
	c.AddCommand(commands...)
	return c
}

func noCommand(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fault.New(fault.Invalid, "%s has no command %q; --help lists them", c.CommandPath(), args[0])
	}
	return fault.New(fault.Invalid, "name a command of %s; --help lists them", c.CommandPath())
}

// exactly takes so many arguments.
func exactly(n int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) != n {
			return fault.New(fault.Invalid, "%s takes %d arguments, not %d; it is used like: %s", c.CommandPath(), n, len(args), c.UseLine())
		}
		return nil
	}
}

// show prints a value: as JSON, or with a row function as a table.
func show[T any](a *app, value any, items []T, header string, row func(T) string) error {
	if a.format == "json" {
		e := json.NewEncoder(a.out)
		e.SetIndent("", "  ")
		return e.Encode(value)
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, header)
	for _, item := range items {
		fmt.Fprintln(w, row(item))
	}
	return w.Flush()
}

func cells(list ...any) string {
	text := make([]string, len(list))
	for i, v := range list {
		if t, ok := v.(time.Time); ok {
			v = t.Local().Format(time.DateTime)
		}
		// Names come from hosts: nothing in them may move the cursor.
		text[i] = strings.Map(func(r rune) rune {
			if r < ' ' || r == 0x7f {
				return '·'
			}
			return r
		}, fmt.Sprint(v))
	}
	return strings.Join(text, "\t")
}

// list is a command that lists something; filters are flags that become
// parameters of the API.
func list[T any](a *app, use, short string, filters map[string]string, fetch func(*cobra.Command, *client.Client, client.Query) (client.List[T], error), header string, row func(T) string) *cobra.Command {
	values := map[string]*string{}
	c := &cobra.Command{Use: use, Short: short, Args: exactly(0), RunE: func(c *cobra.Command, _ []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		q := client.Query{}
		for name, v := range values {
			if *v != "" {
				q[name] = *v
			}
		}
		answer, err := fetch(c, api, q)
		if err != nil {
			return err
		}
		if err := show(a, answer, answer.Items, header, row); err != nil {
			return err
		}
		if a.format == "table" && answer.Next != "" {
			fmt.Fprintf(c.ErrOrStderr(), "%d of %d; --cursor %s shows the next ones\n", len(answer.Items), answer.Total, answer.Next)
		}
		return nil
	}}
	for name, about := range filters {
		values[name] = c.Flags().String(name, "", about)
	}
	values["limit"] = c.Flags().String("limit", "", "items per page, at most 1000")
	values["cursor"] = c.Flags().String("cursor", "", "where the page begins")
	return c
}

func (a *app) devices() *cobra.Command {
	return list(a, "list", "List devices", map[string]string{"q": "part of a name, or the beginning of an address", "health": "a sensor health state", "environment": "id of an environment"},
		func(c *cobra.Command, api *client.Client, q client.Query) (client.List[client.Device], error) {
			return api.Devices(c.Context(), q)
		},
		"ID\tNAME\tOS\tSENSOR\tREAL TIME\tPLAN\tRISK\tLAST SEEN",
		func(d client.Device) string {
			return cells(d.ID, d.Name, d.OSDistribution+" "+d.OSVersion, d.SensorHealth, d.Protection.RealTime, d.Plan, d.RiskLevel, d.LastSeen)
		})
}

func (a *app) alerts() *cobra.Command {
	return list(a, "list", "List alerts, newest activity first", map[string]string{"device": "id of a device", "status": "New, InProgress or Resolved", "severity": "Informational, Low, Medium or High"},
		func(c *cobra.Command, api *client.Client, q client.Query) (client.List[client.Alert], error) {
			return api.Alerts(c.Context(), q)
		},
		"ID\tTITLE\tSEVERITY\tSTATUS\tDEVICE\tLAST ACTIVITY",
		func(x client.Alert) string {
			return cells(x.ID, x.Title, x.Severity, x.Status, x.Device.Name, x.LastActivity)
		})
}

func (a *app) incidents() *cobra.Command {
	return list(a, "list", "List incidents, newest activity first", map[string]string{"status": "Active, InProgress or Resolved"},
		func(c *cobra.Command, api *client.Client, q client.Query) (client.List[client.Incident], error) {
			return api.Incidents(c.Context(), q)
		},
		"ID\tNAME\tSEVERITY\tSTATUS\tALERTS\tLAST ACTIVITY",
		func(x client.Incident) string {
			return cells(x.ID, x.Name, x.Severity, x.Status, fmt.Sprintf("%d/%d", x.Alerts.Active, x.Alerts.Total), x.LastActivity)
		})
}

func (a *app) environments() *cobra.Command {
	return &cobra.Command{Use: "list", Short: "List environments", Args: exactly(0), RunE: func(c *cobra.Command, _ []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		answer, err := api.Environments(c.Context())
		if err != nil {
			return err
		}
		return show(a, answer, answer.Items, "ID\tNAME\tPLAN\tDEVICES\tACTIVE\tPROTECTED", func(e client.Environment) string {
			return cells(e.ID, e.Name, e.Plan, e.Devices.Total, e.Devices.Active, e.Devices.Protected)
		})
	}}
}

func (a *app) revoke() *cobra.Command {
	var reason string
	c := &cobra.Command{Use: "revoke ID", Short: "Offboard a device: its certificates stop working", Args: exactly(1), RunE: func(c *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		d, err := api.Revoke(c.Context(), args[0], reason)
		if err != nil {
			return err
		}
		return show(a, d, []client.Device{d}, "ID\tNAME\tSTATUS", func(d client.Device) string { return cells(d.ID, d.Name, d.OnboardingStatus) })
	}}
	c.Flags().StringVar(&reason, "reason", "", "for the audit log")
	return c
}

func (a *app) createToken() *cobra.Command {
	var label, role string
	var expires time.Duration
	c := &cobra.Command{Use: "create", Short: "Create an API token; its secret is shown once", Args: exactly(0), RunE: func(c *cobra.Command, _ []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		t, err := api.CreateToken(c.Context(), label, role, int64(expires/time.Second))
		if err != nil {
			return err
		}
		return show(a, t, []client.Token{t}, "ID\tLABEL\tROLE\tEXPIRES\tTOKEN", func(t client.Token) string { return cells(t.ID, t.Label, t.Role, t.ExpiresAt, t.Token) })
	}}
	c.Flags().StringVar(&label, "label", "", "what it is for")
	c.Flags().StringVar(&role, "role", "reader", "reader, operator or admin")
	c.Flags().DurationVar(&expires, "expires", 90*24*time.Hour, "how long it lasts")
	return c
}
