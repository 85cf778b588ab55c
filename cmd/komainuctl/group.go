package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"komainu/control/client"
	"komainu/fault"
)

func (a *app) groupCommands() *cobra.Command {
	return group("group", "Device groups", a.listGroups(), a.getGroup(), a.applyGroups(), a.deleteGroup())
}

const groupHeader = "ID\tNAME\tRANK\tDEVICES\tMATCHES\tVERSION"

func groupRow(g client.Group) string {
	var match []string
	for name, value := range map[string]string{"environment": g.Match.Environment, "name": g.Match.Name, "platform": g.Match.OSPlatform} {
		if value != "" {
			match = append(match, name+" "+value)
		}
	}
	slices.Sort(match)
	for _, t := range g.Match.Tags {
		match = append(match, "tag "+t.Key+"="+t.Value)
	}
	return cells(g.ID, g.Name, g.Rank, g.Devices, strings.Join(match, ", "), g.Version)
}

func (a *app) listGroups() *cobra.Command {
	return &cobra.Command{Use: "list", Short: "List device groups, lowest rank first", Args: exactly(0), RunE: a.with(func(c *cobra.Command, api *client.Client, _ []string) error {
		answer, err := api.Groups(c.Context())
		if err != nil {
			return err
		}
		return show(a, answer, answer.Items, groupHeader, groupRow)
	})}
}

func findGroup(ctx context.Context, api *client.Client, key string) (client.Group, error) {
	list, err := api.Groups(ctx)
	if err != nil {
		return client.Group{}, err
	}
	for _, g := range list.Items {
		if g.ID == key || g.Name == key {
			return g, nil
		}
	}
	return client.Group{}, fault.New(fault.NotFound, "there is no device group %q", key)
}

// groupFile is a device group as people keep it in a file. The environment is
// named by its name or id.
type groupFile struct {
	Name  string       `json:"name"`
	Rank  int          `json:"rank"`
	Match client.Match `json:"match"`
}

func (a *app) getGroup() *cobra.Command {
	return &cobra.Command{Use: "get NAME", Short: "Print a device group in the form that apply reads", Args: exactly(1), RunE: a.with(func(c *cobra.Command, api *client.Client, args []string) error {
		g, err := findGroup(c.Context(), api, args[0])
		if err != nil {
			return err
		}
		return a.print(groupFile{g.Name, g.Rank, g.Match})
	})}
}

func (a *app) applyGroups() *cobra.Command {
	var file string
	c := &cobra.Command{Use: "apply", Short: "Create or change device groups from a file", Args: exactly(0),
		Long: "The file holds a group as `group get` prints it, or a list of them. One whose name is there already is changed.",
		RunE: a.with(func(c *cobra.Command, api *client.Client, _ []string) error {
			text, err := a.read(file)
			if err != nil {
				return err
			}
			list, err := readAll[groupFile](text)
			if err != nil {
				return err
			}
			there, err := api.Groups(c.Context())
			if err != nil {
				return err
			}
			environments, err := api.Environments(c.Context())
			if err != nil {
				return err
			}
			var saved []client.Group
			for _, f := range list {
				if id := idOf(environments.Items, f.Match.Environment, func(e client.Environment) (string, string) { return e.ID, e.Name }); id != "" {
					f.Match.Environment = id
				}
				change := client.GroupChange{Name: f.Name, Rank: f.Rank, Match: f.Match}
				i := slices.IndexFunc(there.Items, func(g client.Group) bool { return g.Name == f.Name })
				var g client.Group
				if i >= 0 {
					change.Version = there.Items[i].Version
					g, err = api.SaveGroup(c.Context(), there.Items[i].ID, change)
				} else {
					g, err = api.CreateGroup(c.Context(), change)
				}
				if err != nil {
					return fault.Wrap(fault.KindOf(err), err, "group %q (%d before it are saved)", f.Name, len(saved))
				}
				saved = append(saved, g)
			}
			return show(a, saved, saved, groupHeader, groupRow)
		})}
	c.Flags().StringVarP(&file, "file", "f", "", "file with groups, - for standard input")
	return c
}

func (a *app) deleteGroup() *cobra.Command {
	return &cobra.Command{Use: "delete NAME", Short: "Delete a device group that no policy is assigned to", Args: exactly(1), RunE: a.with(func(c *cobra.Command, api *client.Client, args []string) error {
		g, err := findGroup(c.Context(), api, args[0])
		if err != nil {
			return err
		}
		if err := api.DeleteGroup(c.Context(), g.ID); err != nil {
			return err
		}
		_, err = fmt.Fprintf(c.ErrOrStderr(), "device group %s is deleted\n", cells(g.Name))
		return err
	})}
}

// devicePolicy shows what applies to a device, and from where.
func (a *app) devicePolicy() *cobra.Command {
	return &cobra.Command{Use: "policy ID", Short: "Show what applies to a device, where it comes from and whether the agent confirms it", Args: exactly(1), RunE: a.with(func(c *cobra.Command, api *client.Client, args []string) error {
		p, err := api.DevicePolicy(c.Context(), args[0])
		if err != nil {
			return err
		}
		var rows []string
		for _, s := range p.Settings {
			confirmed := "no"
			if s.Confirmed {
				confirmed = "yes"
			}
			since := any("")
			if s.Since != nil {
				since = *s.Since
			}
			rows = append(rows, cells(s.Name, string(s.Value), strings.TrimSpace(s.Source.Kind+" "+s.Source.Name), len(s.Overridden), confirmed, since))
		}
		if err := show(a, p, rows, "SETTING\tVALUE\tFROM\tOVERRIDDEN\tCONFIRMED\tSINCE", func(row string) string { return row }); err != nil {
			return err
		}
		switch {
		case a.format == "json":
		case p.Error != "":
			fmt.Fprintf(c.ErrOrStderr(), "the agent refuses version %d: %s\n", p.Version, cells(p.Error))
		case p.Pending:
			fmt.Fprintf(c.ErrOrStderr(), "version %d waits for the agent; it has confirmed version %d\n", p.Version, p.ConfirmedVersion)
		}
		return nil
	})}
}
