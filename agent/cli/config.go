package cli

import (
	"context"
	"slices"

	"github.com/spf13/cobra"

	"komainu/agent/localapi"
	"komainu/fault"
)

func (a *app) config() *cobra.Command {
	cmd := a.group("config", msgConfig)
	for _, s := range localapi.AllSettings {
		var v string
		sub := a.leaf(string(s)+" --value "+s.Values(), msgSettings[s], func(ctx context.Context, c *localapi.Client) error {
			if err := c.ApplySetting(ctx, s, v); err != nil {
				return err
			}
			return a.change(msgUpdated, "setting", string(s), "value", v)
		})
		sub.Flags().StringVar(&v, "value", "", s.Values())
		need(sub, "value", func() error { return s.Check(v) })
		if s != localapi.OnDemandScanThreads {
			sub.RegisterFlagCompletionFunc("value", cobra.FixedCompletions([]string{"enabled", "disabled"}, cobra.ShellCompDirectiveNoFileComp))
		}
		cmd.AddCommand(sub)
	}
	for _, f := range fixedSettings {
		cmd.AddCommand(a.fixedSetting(f))
	}
	cmd.AddCommand(a.proxy(), a.networkProtection(), a.logRotation(), a.missing("device-control"))
	return cmd
}

func (a *app) log() *cobra.Command {
	var level string
	set := a.leaf("set --level LEVEL", msgLogSetShort, func(ctx context.Context, c *localapi.Client) error {
		if err := c.SetLogLevel(ctx, level); err != nil {
			return err
		}
		return a.change(msgLogLevelSet, "level", level)
	})
	set.Flags().StringVar(&level, "level", "", a.say(flagLevel))
	set.MarkFlagRequired("level")
	set.RegisterFlagCompletionFunc("level", cobra.FixedCompletions(localapi.LogLevels, cobra.ShellCompDirectiveNoFileComp))
	var lasting string
	persist := a.leaf("persist --level LEVEL", msgLogPersist, func(ctx context.Context, c *localapi.Client) error {
		if err := c.ApplySetting(ctx, localapi.LogLevel, lasting); err != nil {
			return err
		}
		return a.change(msgLogLevelPersisted, "level", lasting)
	})
	persist.Flags().StringVar(&lasting, "level", "", a.say(flagLevel))
	need(persist, "level", func() error { return localapi.LogLevel.Check(lasting) })
	persist.RegisterFlagCompletionFunc("level", cobra.FixedCompletions(localapi.LogLevels, cobra.ShellCompDirectiveNoFileComp))
	return a.group("log", msgLog, a.group("level", msgLogLevel, set, persist))
}

func (a *app) definitions() *cobra.Command {
	update := a.leaf("update", msgDefinitionsUpdate, func(ctx context.Context, c *localapi.Client) error {
		r, err := c.UpdateDefinitions(ctx)
		switch {
		case err != nil:
			return err
		case a.output == "json":
			return a.json(r)
		case r.Updated:
			a.print("%s", a.say(msgDefinitionsUpdated, r.Version))
		default:
			a.print("%s", a.say(msgDefinitionsNewest, r.Version))
		}
		if r.Note != "" {
			a.print("%s", clean(r.Note))
		}
		return nil
	})
	return a.group("definitions", msgDefinitions, update, a.missing("restore"), a.missing("path"))
}

// change says that a setting was changed: the plain line that scripts look
// for, and the details for machines only.
func (a *app) change(done text, pairs ...string) error {
	if a.output == "json" {
		return a.changed(done, pairs...)
	}
	return a.changed(done)
}

// need makes a flag of the command required, and its value checked before
// the agent is asked.
func need(cmd *cobra.Command, flag string, check func() error) {
	cmd.MarkFlagRequired(flag)
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if !cmd.Flags().Changed(flag) {
			return nil // cobra says that it is required
		}
		return check()
	}
}

// oneOf returns fault.Invalid unless v is one of the allowed words.
func oneOf(what, v string, allowed ...string) error {
	if slices.Contains(allowed, v) {
		return nil
	}
	return fault.New(fault.Invalid, "%s is one of %v, not %q", what, allowed, v)
}
