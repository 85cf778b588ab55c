package cli

import (
	"context"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"komainu/agent/localapi"
	"komainu/fault"
)

func (a *app) threat() *cobra.Command {
	list := a.leaf("list", msgThreatList, func(ctx context.Context, c *localapi.Client) error {
		all, restricted, err := c.Threats(ctx)
		if err != nil {
			return err
		}
		if a.output == "json" {
			if all == nil {
				all = []localapi.Threat{}
			}
			return a.json(items[localapi.Threat]{Items: all, Restricted: restricted})
		}
		return show(a, all, msgNoThreats, a.threatBlock)
	})
	get := a.withID("get --id ID", msgThreatGet, func(ctx context.Context, c *localapi.Client, id string) error {
		t, err := c.Threat(ctx, id)
		switch {
		case err != nil:
			return err
		case a.output == "json":
			return a.json(t)
		}
		a.threatBlock(t)
		a.block("Severity", t.Severity, "Path", t.Path, "Inside", t.Inside, "Initiating user", t.InitiatingUser,
			"Initiating process", t.InitiatingProcess, "SHA256", t.SHA256, "Reason", t.Reason)
		return nil
	})
	return a.group("threat", msgThreat, list, get, a.allowed(), a.quarantine(), a.threatPolicy())
}

// threatBlock prints what `threat list` shows of a threat.
func (a *app) threatBlock(t localapi.Threat) {
	a.block("Id", t.ID, "Name", t.Name, "Type", t.Type)
	a.print("Detection time: %s", when(t.DetectionTime))
	a.block("Status", string(t.Status))
}

// block prints keys with quoted values, and leaves out what is empty.
func (a *app) block(pairs ...string) {
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			a.print("%s: %s", pairs[i], strconv.Quote(pairs[i+1]))
		}
	}
}

// withID makes a leaf that takes the id of a threat.
func (a *app) withID(use string, short text, run func(ctx context.Context, c *localapi.Client, id string) error) *cobra.Command {
	return a.withFlag(use, "id", short, flagID, run)
}

// withFlag makes a leaf with one flag, which it needs.
func (a *app) withFlag(use, flag string, short, usage text, run func(ctx context.Context, c *localapi.Client, v string) error) *cobra.Command {
	var v string
	cmd := a.leaf(use, short, func(ctx context.Context, c *localapi.Client) error { return run(ctx, c, v) })
	cmd.Flags().StringVar(&v, flag, "", a.say(usage))
	need(cmd, flag, func() error {
		if v == "" {
			return fault.New(fault.Invalid, "the value of --%s is empty", flag)
		}
		return nil
	})
	return cmd
}

func (a *app) allowed() *cobra.Command {
	return a.group("allowed", msgAllowed,
		a.withFlag("add --name THREAT", "name", msgAllowedAddShort, flagThreatName, func(ctx context.Context, c *localapi.Client, name string) error {
			if err := c.AllowThreat(ctx, name); err != nil {
				return err
			}
			return a.change(msgAllowedAdded, "name", name)
		}),
		a.withFlag("remove --name THREAT", "name", msgAllowedRemoveShort, flagThreatName, func(ctx context.Context, c *localapi.Client, name string) error {
			if err := c.DisallowThreat(ctx, name); err != nil {
				return err
			}
			return a.change(msgAllowedRemoved, "name", name)
		}),
		a.leaf("list", msgAllowedList, func(ctx context.Context, c *localapi.Client) error {
			all, err := c.AllowedThreats(ctx)
			if err != nil {
				return err
			}
			return show(a, all, msgNoAllowed, func(t localapi.AllowedThreat) {
				a.print("Name: %s%s", strconv.Quote(t.Name), managed(t.Origin))
			})
		}))
}

func (a *app) quarantine() *cobra.Command {
	return a.group("quarantine", msgQuarantine,
		a.leaf("list", msgQuarantineList, func(ctx context.Context, c *localapi.Client) error {
			all, err := c.QuarantineObjects(ctx)
			if err != nil {
				return err
			}
			return show(a, all, msgNoQuarantine, func(o localapi.QuarantineObject) {
				a.block("Id", o.ID, "Name", o.Threat, "Path", o.Path, "SHA256", o.SHA256, "Owner", o.Owner)
				a.print("Size: %d", o.Size)
				a.print("Quarantine time: %s", when(o.QuarantinedTime))
			})
		}),
		a.withID("add --id ID", msgQuarantineAddShort, func(ctx context.Context, c *localapi.Client, id string) error {
			o, err := c.QuarantineThreat(ctx, id)
			if err != nil {
				return err
			}
			return a.changed(msgQuarantined, "id", o.ID, "path", o.Path)
		}),
		a.withID("remove --id ID", msgQuarantineRemoveShort, func(ctx context.Context, c *localapi.Client, id string) error {
			if err := c.RemoveQuarantined(ctx, id); err != nil {
				return err
			}
			return a.changed(msgQuarantineRemoved, "id", id)
		}),
		a.leaf("remove-all", msgQuarantineRemoveAll, func(ctx context.Context, c *localapi.Client) error {
			n, err := c.RemoveAllQuarantined(ctx)
			if err != nil {
				return err
			}
			return a.changed(msgQuarantineEmptied, "removed", strconv.Itoa(n))
		}),
		a.group("restore", msgRestore, a.restore("threat-id", "id", msgRestoreID, flagID), a.restore("threat-path", "path", msgRestorePath, flagOriginal)))
}

// restore makes one of the two ways to name what is to come back.
func (a *app) restore(use, flag string, short, usage text) *cobra.Command {
	var destination string
	cmd := a.withFlag(use+" --"+flag+" "+map[string]string{"id": "ID", "path": "PATH"}[flag]+" [--destination-path DIR]", flag, short, usage,
		func(ctx context.Context, c *localapi.Client, v string) error {
			req := localapi.RestoreRequest{ID: v}
			if flag == "path" {
				req = localapi.RestoreRequest{Path: v}
			}
			var err error
			if destination != "" {
				if req.Destination, err = filepath.Abs(destination); err != nil {
					return err
				}
			}
			all, err := c.RestoreQuarantined(ctx, req)
			if err != nil {
				return err
			}
			if a.output != "json" {
				a.print("%s", a.say(msgRestored))
			}
			return show(a, all, text{}, func(r localapi.Restored) { a.block("Id", r.ID, "Path", r.Path) })
		})
	cmd.Flags().StringVar(&destination, "destination-path", "", a.say(flagDestination))
	return cmd
}
