package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"komainu/control/client"
	"komainu/deploy"
	"komainu/fault"
)

func (a *app) upgradeCommands() *cobra.Command {
	return group("upgrades", "Upgrades of the agents, in rings", a.upgradeStatus(), a.upgradeDevices(), a.setUpgrades(),
		a.actOnUpgrades("halt", "Let no further device begin"), a.actOnUpgrades("resume", "Go on where the upgrade was halted; what failed is tried again"),
		a.actOnUpgrades("rollback", "Give devices that were upgraded the version back that they had"))
}

func (a *app) upgradeStatus() *cobra.Command {
	return &cobra.Command{Use: "status", Short: "Show how far the rings are, and what they are waiting for", Args: exactly(0), RunE: a.with(func(c *cobra.Command, api *client.Client, _ []string) error {
		v, err := api.Upgrades(c.Context())
		if err != nil {
			return err
		}
		return showUpgrades(a, c, v)
	})}
}

// showUpgrades prints the rings, and beside them what is not a row.
func showUpgrades(a *app, c *cobra.Command, v client.Upgrades) error {
	err := show(a, v, v.Progress, "RING\tSHARE\tSOAK\tDEVICES\tDONE\tFAILED\tWAITING\tGAP MEDIAN\tGAP WORST", func(p client.RingProgress) string {
		name, share, soak, median, worst := p.Ring, "", "", "", ""
		if p.Ring == v.Current {
			name += " *"
		}
		if i := slices.IndexFunc(v.Rings, func(r client.Ring) bool { return r.ID == p.Ring }); i >= 0 {
			share, soak = fmt.Sprintf("%v%%", v.Rings[i].Share), fmt.Sprintf("%d min", v.Rings[i].SoakMinutes)
		}
		if p.Gap != nil {
			median, worst = fmt.Sprintf("%d ms", p.Gap.Median), fmt.Sprintf("%d ms", p.Gap.Worst)
		}
		return cells(name, share, soak, p.Devices, p.Done, p.Failed, p.Waiting, median, worst)
	})
	if err != nil || a.format == "json" {
		return err
	}
	what := "to"
	if v.Rollback {
		what = "back to"
	}
	switched := "off"
	if v.Automatic {
		switched = "on"
	}
	fmt.Fprintf(c.ErrOrStderr(), "upgrades are %s, the target is %s; %s", switched, cells(v.Target), v.State)
	if v.Rollout != "" {
		fmt.Fprintf(c.ErrOrStderr(), " (%s %s)", what, cells(v.Rollout))
	}
	fmt.Fprintln(c.ErrOrStderr())
	if v.Halted != nil {
		fmt.Fprintf(c.ErrOrStderr(), "halted: %s\n", because(*v.Halted))
	}
	for _, h := range v.Held {
		fmt.Fprintf(c.ErrOrStderr(), "%d waiting: %s (komainuctl upgrades devices --held %s)\n", h.Devices, because(h.Reason), cells(h.Reason.ID))
	}
	return nil
}

// because is a reason in a line.
func because(r deploy.Reason) string {
	return cells(strings.TrimRight(r.Text+": "+r.Detail, ": "))
}

func (a *app) upgradeDevices() *cobra.Command {
	return list(a, "devices", "List the devices of the upgrade, ring by ring", map[string]string{"ring": "canary, early or broad", "state": "done, failed, waiting, or one of the states in the list", "held": "id of the reason for which they wait", "q": "part of a name"},
		func(c *cobra.Command, api *client.Client, q client.Query) (client.List[client.UpgradeDevice], error) {
			return api.UpgradeDevices(c.Context(), q)
		},
		"ID\tNAME\tRING\tSTATE\tFROM\tTO\tGAP\tWHY",
		func(d client.UpgradeDevice) string {
			gap, why := "", ""
			if d.GapMs != nil {
				gap = fmt.Sprintf("%d ms", *d.GapMs)
			}
			switch {
			case d.Reason != nil:
				why = because(*d.Reason)
			case d.Waits != "":
				why = "waits for its " + d.Waits
			}
			return cells(d.Device.ID, d.Device.Name, d.Ring, d.State, d.From, d.To, gap, why)
		})
}

func (a *app) setUpgrades() *cobra.Command {
	var automatic, target string
	var shares, soaks []string
	c := &cobra.Command{Use: "set", Short: "Choose the version, and who gets it first", Args: exactly(0),
		Long: "What is not named stays. Shares and soaks are given per ring: --share canary=5 --soak canary=60.",
		RunE: a.with(func(c *cobra.Command, api *client.Client, _ []string) error {
			v, err := api.Upgrades(c.Context())
			if err != nil {
				return err
			}
			change := client.UpgradeChange{Version: v.Version, Automatic: v.Automatic, Target: v.Target, Rings: v.Rings}
			switch automatic {
			case "":
			case "on", "off":
				change.Automatic = automatic == "on"
			default:
				return fault.New(fault.Invalid, "--automatic %q: want on or off", automatic)
			}
			if target != "" {
				change.Target = target
			}
			if err := eachRing(change.Rings, "share", shares, func(r *client.Ring, n float64) { r.Share = n }); err != nil {
				return err
			}
			if err := eachRing(change.Rings, "soak", soaks, func(r *client.Ring, n float64) { r.SoakMinutes = int(n) }); err != nil {
				return err
			}
			if v, err = api.SaveUpgrades(c.Context(), change); err != nil {
				return err
			}
			return showUpgrades(a, c, v)
		})}
	c.Flags().StringVar(&automatic, "automatic", "", "on or off; off: nothing is upgraded")
	c.Flags().StringVar(&target, "target", "", "a version of the repository, or newest")
	c.Flags().StringArrayVar(&shares, "share", nil, "RING=PERCENT of the devices that no earlier ring has; may be repeated")
	c.Flags().StringArrayVar(&soaks, "soak", nil, "RING=MINUTES that the next ring waits; may be repeated")
	return c
}

// eachRing reads what flags say of rings.
func eachRing(rings []client.Ring, flag string, values []string, set func(*client.Ring, float64)) error {
	for _, v := range values {
		name, text, _ := strings.Cut(v, "=")
		n, err := strconv.ParseFloat(text, 64)
		i := slices.IndexFunc(rings, func(r client.Ring) bool { return r.ID == name })
		if err != nil || i < 0 {
			return fault.New(fault.Invalid, "--%s %q: want RING=NUMBER, with the rings canary, early and broad", flag, v)
		}
		set(&rings[i], n)
	}
	return nil
}

func (a *app) actOnUpgrades(act, short string) *cobra.Command {
	return &cobra.Command{Use: act, Short: short, Args: exactly(0), RunE: a.with(func(c *cobra.Command, api *client.Client, _ []string) error {
		v, err := api.ActOnUpgrades(c.Context(), act)
		if err != nil {
			return err
		}
		return showUpgrades(a, c, v)
	})}
}
