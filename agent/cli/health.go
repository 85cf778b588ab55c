package cli

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"komainu/agent/localapi"
	"komainu/fault"
	"komainu/health"
)

// details are the features that --details can narrow down to, with the
// fields and the parts that belong to each.
var details = map[string]struct{ fields, parts []string }{
	"edr": {
		[]string{"org_id", "edr_client_version", "edr_configuration_version", "edr_device_tags", "edr_group_ids", "edr_machine_id", "supplementary_events_subsystem"},
		[]string{"sensor", "link", "spool", "rules"},
	},
	"definitions": {
		[]string{"automatic_definition_update_enabled", "definitions_updated", "definitions_updated_minutes_ago", "definitions_version", "definitions_status", "engine_version", "engine_load_status"},
		[]string{"definitions", "scanner"},
	},
	"features": {
		[]string{"passive_mode_enabled", "behavior_monitoring", "real_time_protection_enabled", "real_time_protection_available", "real_time_protection_subsystem", "real_time_protection_scope", "supplementary_events_subsystem"},
		[]string{"real_time_protection", "behavior_monitoring", "quarantine"},
	},
	"antivirus": {
		[]string{"engine_version", "engine_load_status", "passive_mode_enabled", "real_time_protection_enabled", "real_time_protection_available", "real_time_protection_subsystem", "real_time_protection_scope", "definitions_version", "definitions_status"},
		[]string{"real_time_protection", "scanner", "quarantine", "definitions"},
	},
}

// absentDetails are the features that runbooks ask for and this version has
// not.
var absentDetails = map[string]struct{ why, do text }{
	"cloud":              {whyCloud, doCloud},
	"network_protection": {whyNetwork, doNetwork},
	"tamper_protection":  {whyTamper, doTamper},
}

const allDetails = "all"

func (a *app) health() *cobra.Command {
	var field, detail string
	cmd := &cobra.Command{
		Use: "health", Short: a.say(msgHealth),
		Args: func(cmd *cobra.Command, args []string) error {
			// --details takes its value with a blank too.
			if len(args) == 1 && detail == allDetails {
				detail = args[0]
				return nil
			}
			return cobra.NoArgs(cmd, args)
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case detail == "help":
				a.ran = true
				a.print("%s", strings.Join(slices.Sorted(maps.Keys(details)), "\n"))
				return nil
			case field != "" && !slices.Contains(fieldNames(), field):
				return fault.New(fault.Invalid, "%s", a.say(msgNoField, field)+a.meant(field, fieldNames()))
			case field != "":
				return a.ask(cmd.Context(), func(ctx context.Context, c *localapi.Client) error { return a.healthField(ctx, c, field) })
			default:
				return a.ask(cmd.Context(), func(ctx context.Context, c *localapi.Client) error { return a.healthReport(ctx, c, detail) })
			}
		},
	}
	cmd.Flags().StringVar(&field, "field", "", a.say(flagField))
	cmd.Flags().StringVar(&detail, "details", "", a.say(flagDetails))
	cmd.Flags().Lookup("details").NoOptDefVal = allDetails
	cmd.MarkFlagsMutuallyExclusive("field", "details")
	cmd.RegisterFlagCompletionFunc("field", cobra.FixedCompletions(fieldNames(), cobra.ShellCompDirectiveNoFileComp))
	cmd.RegisterFlagCompletionFunc("details", cobra.FixedCompletions(slices.Sorted(maps.Keys(details)), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// fieldNames returns the names that --field takes.
func fieldNames() []string {
	var names []string
	for _, f := range new(health.Report).Fields() {
		names = append(names, f.Name)
	}
	return names
}

// healthField prints one bare value.
func (a *app) healthField(ctx context.Context, c *localapi.Client, name string) error {
	r, err := c.Health(ctx)
	if err != nil {
		return err
	}
	f, _ := r.Lookup(name)
	a.print("%s", value(f.Value))
	return nil
}

// healthReport prints the report: all fields, and with detail the state of
// every part, or of what belongs to one feature.
func (a *app) healthReport(ctx context.Context, c *localapi.Client, detail string) error {
	r, err := c.Health(ctx)
	if err != nil {
		return err
	}
	if detail == "" || detail == allDetails {
		if a.output == "json" {
			return a.json(r)
		}
		for _, f := range r.Fields() {
			if f.Name != "proxy" || f.Value != "" {
				a.field(f)
			}
		}
		if detail != "" {
			a.print("")
			a.conditions(r.Conditions)
		}
		return nil
	}
	if r, ok := absentDetails[detail]; ok {
		return fault.New(fault.Unsupported, "%s", a.say(msgMissingBecause, a.say(msgMissing, detail), a.say(r.why), a.say(r.do)))
	}
	feature, known := details[detail]
	if !known {
		feature.parts = []string{detail} // one part by its name
	}
	r.Conditions = slices.DeleteFunc(r.Conditions, func(c health.Condition) bool { return !slices.Contains(feature.parts, c.Part) })
	if !known && len(r.Conditions) == 0 {
		a.ran = false
		return fault.New(fault.Invalid, "%s", a.say(msgNoDetails, detail, strings.Join(slices.Sorted(maps.Keys(details)), ", "))+
			a.meant(detail, slices.Sorted(maps.Keys(details))))
	}
	fields := slices.DeleteFunc(r.Fields(), func(f health.Field) bool { return !slices.Contains(feature.fields, f.Name) })
	if a.output == "json" {
		m := map[string]any{"conditions": r.Conditions}
		for _, f := range fields {
			m[f.Name] = f.Value
		}
		return a.json(m)
	}
	for _, f := range fields {
		a.field(f)
	}
	a.conditions(r.Conditions)
	return nil
}

// conditions prints the state of each part, since when, and for one that is
// not well the reason and the remedy.
func (a *app) conditions(all []health.Condition) {
	for _, c := range all {
		a.print("%-*s: %s since %s", keyWidth, clean(c.Part), strconv.Quote(string(c.State)), c.Since.Local().Format(time.RFC3339))
		if c.Reason != "" {
			a.print("%-*s  reason: %s", keyWidth, "", clean(c.Reason))
		}
		if c.Remedy != "" {
			a.print("%-*s  remedy: %s", keyWidth, "", clean(c.Remedy))
		}
	}
}
