package cli

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"komainu/agent/localapi"
	"komainu/fault"
	"komainu/policy"
)

// fixed is a setting that runbooks know and that has one value in this
// version. To ask for that value is fine, and answered with why it is so; to
// ask for another one is refused with what can be done instead.
type fixed struct {
	name   string
	values []string
	is     string // the value that it always has
	why    text
	do     text
}

var switchValues = []string{"enabled", "disabled"}

// fixedSettings are those of `config`.
var fixedSettings = []fixed{
	{"cloud", switchValues, "disabled", whyCloud, doCloud},
	{"cloud-diagnostic", switchValues, "disabled", whyCloudDiagnostic, doCloudDiagnostic},
	{"cloud-automatic-sample-submission", switchValues, "disabled", whySamples, doSamples},
	{"real-time-protection-statistics", switchValues, "enabled", whyStatistics, doStatistics},
}

// fixedSetting makes the command of one whose value comes with --value.
func (a *app) fixedSetting(f fixed) *cobra.Command {
	var v string
	cmd := &cobra.Command{
		Use: f.name + " --value " + strings.Join(f.values, "|"), Short: a.say(f.why), Hidden: true, Args: cobra.NoArgs, DisableFlagsInUseLine: true,
		RunE: func(*cobra.Command, []string) error { return a.stays(f, v) },
	}
	cmd.Flags().StringVar(&v, "value", "", strings.Join(f.values, "|"))
	need(cmd, "value", func() error { return oneOf("--value", v, f.values...) })
	return cmd
}

// stays answers to a value that is asked of a fixed setting.
func (a *app) stays(f fixed, v string) error {
	a.ran = true
	if v != f.is {
		return a.nothing(f.name, f.why, f.do)
	}
	if a.output == "json" {
		return a.json(map[string]string{"message": msgStays.en, "setting": f.name, "value": v, "reason": f.why.en})
	}
	a.print("%s", a.say(msgStaysLong, f.name, v, a.say(f.why)))
	return nil
}

// nothing says that nothing happened, why, and what to do instead.
func (a *app) nothing(name string, why, do text) error {
	return fault.New(fault.Unsupported, "%s", a.say(msgNothingChanged, name, a.say(why), a.say(do)))
}

// networkProtection takes the level of a feature that there is not.
func (a *app) networkProtection() *cobra.Command {
	levels := []string{"disabled", "audit", "block"}
	sub := a.fixedSetting(fixed{"enforcement-level", levels, "disabled", whyNetwork, doNetwork})
	cmd := a.group("network-protection", whyNetwork, sub)
	cmd.Hidden = true
	return cmd
}

// logRotation takes sizes that belong to the system's journal.
func (a *app) logRotation() *cobra.Command {
	size := func(name string) *cobra.Command {
		var v string
		cmd := &cobra.Command{
			Use: name + " --size MB", Short: a.say(whyRotation), Args: cobra.NoArgs, DisableFlagsInUseLine: true,
			RunE: func(*cobra.Command, []string) error {
				a.ran = true
				return a.nothing("log-rotation-parameters "+name, whyRotation, doRotation)
			},
		}
		cmd.Flags().StringVar(&v, "size", "", "MB")
		need(cmd, "size", func() error {
			if n, err := strconv.Atoi(v); err != nil || n < 1 {
				return fault.New(fault.Invalid, "--size is a number of megabytes, not %q", v)
			}
			return nil
		})
		return cmd
	}
	cmd := a.group("log-rotation-parameters", whyRotation, size("max-current-size"), size("max-rotated-size"))
	cmd.Hidden = true
	return cmd
}

// proxy makes `config proxy set|clear`.
func (a *app) proxy() *cobra.Command {
	apply := func(v string) func(context.Context, *localapi.Client) error {
		return func(ctx context.Context, c *localapi.Client) error {
			if err := c.ApplySetting(ctx, localapi.ProxyAddress, v); err != nil {
				return err
			}
			return a.change(msgUpdated, "setting", string(localapi.ProxyAddress), "value", v)
		}
	}
	var v string
	set := a.leaf("set --value http://HOST:PORT", msgProxySet, func(ctx context.Context, c *localapi.Client) error { return apply(v)(ctx, c) })
	set.Flags().StringVar(&v, "value", "", a.say(flagProxy))
	need(set, "value", func() error {
		if v == "" {
			return fault.New(fault.Invalid, "%s", a.say(msgProxyEmpty, set.Parent().CommandPath()))
		}
		return localapi.ProxyAddress.Check(v)
	})
	return a.group("proxy", msgProxy, set, a.leaf("clear", msgProxyClear, apply("")))
}

// threatPolicy makes `threat policy set|list`.
func (a *app) threatPolicy() *cobra.Command {
	var kind, action string
	set := &cobra.Command{
		Use: "set --type TYPE --action " + strings.Join(localapi.ThreatActions, "|"), Short: a.say(msgThreatPolicySet), Args: cobra.NoArgs, DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if kind == string(policy.PUA) {
				return a.stays(fixed{"threat policy " + kind, localapi.ThreatActions, string(policy.ActionOff), whyUnwanted, doUnwanted}, action)
			}
			return a.ask(cmd.Context(), func(ctx context.Context, c *localapi.Client) error {
				if err := c.ApplySetting(ctx, localapi.ThreatPolicy(policy.ThreatType(kind)), action); err != nil {
					return err
				}
				return a.change(msgUpdated, "type", kind, "action", action)
			})
		},
	}
	types := []string{string(policy.ArchiveBomb), string(policy.PUA)}
	set.Flags().StringVar(&kind, "type", "", a.say(flagThreatType, strings.Join(types, ", ")))
	set.Flags().StringVar(&action, "action", "", strings.Join(localapi.ThreatActions, "|"))
	set.MarkFlagRequired("type")
	need(set, "action", func() error {
		if set.Flags().Changed("type") && !slices.Contains(types, kind) {
			return oneOf("--type", kind, types...)
		}
		return oneOf("--action", action, localapi.ThreatActions...)
	})
	set.RegisterFlagCompletionFunc("type", cobra.FixedCompletions(types, cobra.ShellCompDirectiveNoFileComp))
	set.RegisterFlagCompletionFunc("action", cobra.FixedCompletions(localapi.ThreatActions, cobra.ShellCompDirectiveNoFileComp))
	list := a.leaf("list", msgThreatPolicyList, func(ctx context.Context, c *localapi.Client) error {
		all, err := c.ThreatTypes(ctx)
		if err != nil {
			return err
		}
		return show(a, all, text{}, func(t localapi.ThreatType) {
			a.block("Type", string(t.Type))
			a.print("Action: %s%s", strconv.Quote(string(t.Action)), managed(t.Origin))
			if !t.Engine {
				a.print("%s", a.say(msgNotInThisVersion))
			}
		})
	})
	return a.group("policy", msgThreatPolicy, set, list)
}
