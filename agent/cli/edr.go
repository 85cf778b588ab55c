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

func (a *app) edr() *cobra.Command {
	return a.group("edr", msgEDR, a.tag(), a.groupIDs(), a.earlyPreview(), a.group("exclusion", msgEDRExclusion, a.globalExclusions()))
}

func (a *app) tag() *cobra.Command {
	var name, v string
	set := a.leaf("set --name GROUP --value VALUE", msgTagSetShort, func(ctx context.Context, c *localapi.Client) error {
		if err := c.SetTag(ctx, policy.Tag{Key: name, Value: v}); err != nil {
			return err
		}
		return a.change(msgTagSet, "name", name, "value", v)
	})
	set.Flags().StringVar(&name, "name", "", a.say(flagTagName))
	set.Flags().StringVar(&v, "value", "", a.say(flagTagValue))
	set.MarkFlagRequired("name")
	set.MarkFlagRequired("value")
	remove := a.leaf("remove --name GROUP", msgTagRemoveShort, func(ctx context.Context, c *localapi.Client) error {
		if err := c.RemoveTag(ctx, name); err != nil {
			return err
		}
		return a.change(msgTagRemoved, "name", name)
	})
	remove.Flags().StringVar(&name, "name", "", a.say(flagTagName))
	remove.MarkFlagRequired("name")
	return a.group("tag", msgTag, set, remove)
}

// groupIDs sets the tag that device groups can select by: there are no other
// ids of groups here. An empty one removes it.
func (a *app) groupIDs() *cobra.Command {
	var v string
	cmd := a.leaf("group-ids --group-id ID", msgGroupIDs, func(ctx context.Context, c *localapi.Client) error {
		if v == "" {
			if err := c.RemoveTag(ctx, localapi.GroupIDs); err != nil && !fault.Is(err, fault.NotFound) {
				return err
			}
			return a.change(msgGroupIDsCleared)
		}
		if err := c.SetTag(ctx, policy.Tag{Key: localapi.GroupIDs, Value: v}); err != nil {
			return err
		}
		return a.change(msgGroupIDsSet, "groupId", v)
	})
	cmd.Flags().StringVar(&v, "group-id", "", a.say(flagGroupID))
	cmd.MarkFlagRequired("group-id")
	return cmd
}

// earlyPreview answers that there is nothing to preview.
func (a *app) earlyPreview() *cobra.Command {
	return &cobra.Command{
		Use: "early-preview enabled|disabled", Short: a.say(whyPreview), Hidden: true, ValidArgs: switchValues,
		Args: cobra.MatchAll(cobra.ExactArgs(1), func(_ *cobra.Command, args []string) error { return oneOf("early-preview", args[0], switchValues...) }),
		RunE: func(_ *cobra.Command, args []string) error {
			return a.stays(fixed{"early-preview", switchValues, "disabled", whyPreview, doPreview}, args[0])
		},
	}
}

// globalExclusions lists what the sensor leaves alone.
func (a *app) globalExclusions() *cobra.Command {
	kinds := map[string][]policy.ExclusionType{
		"processes":  {policy.ExcludeProcess},
		"paths":      {policy.ExcludeFile, policy.ExcludeFolder},
		"extensions": {policy.ExcludeExtension},
	}
	names := []string{"processes", "paths", "extensions", "all"}
	return &cobra.Command{
		Use: "list " + strings.Join(names, "|"), Short: a.say(msgEDRExclusionList), DisableFlagsInUseLine: true, ValidArgs: names,
		Args: cobra.MatchAll(cobra.ExactArgs(1), func(_ *cobra.Command, args []string) error { return oneOf("edr exclusion list", args[0], names...) }),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ask(cmd.Context(), func(ctx context.Context, c *localapi.Client) error {
				all, err := c.Exclusions(ctx)
				if err != nil {
					return err
				}
				var of []localapi.Exclusion
				for _, x := range all {
					if x.Scope == policy.ScopeGlobal && (args[0] == "all" || slices.Contains(kinds[args[0]], x.Type)) {
						of = append(of, x)
					}
				}
				return show(a, of, msgNoGlobalExclusions, a.exclusionBlock)
			})
		},
	}
}

// exclusionBlock prints what lists show of an exclusion.
func (a *app) exclusionBlock(x localapi.Exclusion) {
	a.print("Excluded %s%s", clean(string(x.Type)), managed(x.Origin))
	key := "Path"
	switch {
	case x.Type == policy.ExcludeExtension:
		key = "Extension"
	case x.Type == policy.ExcludeProcess && (x.Value == "" || x.Value[0] != '/'):
		key = "Process name"
	}
	a.print("%s: %s", key, strconv.Quote(x.Value))
	a.print("Scope: %s", strconv.Quote(string(x.Scope)))
}
