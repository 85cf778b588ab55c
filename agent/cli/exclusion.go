package cli

import (
	"context"

	"github.com/spf13/cobra"

	"komainu/agent/localapi"
	"komainu/policy"
)

func (a *app) exclusion() *cobra.Command {
	list := a.leaf("list", msgExclusionList, func(ctx context.Context, c *localapi.Client) error {
		all, err := c.Exclusions(ctx)
		if err != nil {
			return err
		}
		return show(a, all, msgNoExclusions, a.exclusionBlock)
	})
	return a.group("exclusion", msgExclusion, list,
		a.excluded(policy.ExcludeFile, msgExcludeFile, "path"),
		a.excluded(policy.ExcludeFolder, msgExcludeFolder, "path"),
		a.excluded(policy.ExcludeExtension, msgExcludeExtension, "name"),
		a.excluded(policy.ExcludeProcess, msgExcludeProcess, "path", "name"))
}

// excluded makes `exclusion TYPE add|remove`, which takes its value by one of
// the flags.
func (a *app) excluded(t policy.ExclusionType, short text, flags ...string) *cobra.Command {
	usage := " --" + flags[0] + " VALUE"
	if len(flags) == 2 {
		usage = " (--path PATH | --name NAME)"
	}
	leaf := func(verb string, does text, done text, send func(*localapi.Client, context.Context, policy.Exclusion) error) *cobra.Command {
		values := make([]string, len(flags))
		scope := string(policy.ScopeEPP)
		exclusion := func() policy.Exclusion {
			x := policy.Exclusion{Type: t, Scope: policy.Scope(scope)}
			for _, v := range values {
				if v != "" {
					x.Value = v
				}
			}
			return x
		}
		cmd := a.leaf(verb+usage+" [--scope epp|global]", does, func(ctx context.Context, c *localapi.Client) error {
			x := exclusion()
			if err := send(c, ctx, x); err != nil {
				return err
			}
			pairs := []string{"scope", scope}
			if a.output == "json" {
				pairs = append(pairs, "type", string(t), "value", x.Value)
			}
			return a.changed(done, pairs...)
		})
		for i, f := range flags {
			cmd.Flags().StringVar(&values[i], f, "", a.say(flagExclude[f]))
		}
		cmd.MarkFlagsMutuallyExclusive(flags...)
		cmd.MarkFlagsOneRequired(flags...)
		cmd.Flags().StringVar(&scope, "scope", scope, a.say(flagScope))
		cmd.RegisterFlagCompletionFunc("scope", cobra.FixedCompletions([]string{"epp", "global"}, cobra.ShellCompDirectiveNoFileComp))
		cmd.PreRunE = func(*cobra.Command, []string) error {
			return oneOf("--scope", scope, string(policy.ScopeEPP), string(policy.ScopeGlobal))
		}
		return cmd
	}
	added, removed := msgExclusionAdded[t], msgExclusionRemoved[t]
	return a.group(string(t), short,
		leaf("add", msgExclusionAddShort, added, (*localapi.Client).AddExclusion),
		leaf("remove", msgExclusionRemoveShort, removed, (*localapi.Client).RemoveExclusion))
}

// managed marks what policy decides.
func managed(o policy.Origin) string {
	if o == policy.FromPolicy {
		return " [managed]"
	}
	return ""
}
