package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"komainu/control/client"
	"komainu/fault"
)

func (a *app) policyCommands() *cobra.Command {
	return group("policy", "Policies", a.listPolicies(), a.getPolicy(), a.applyPolicies(), a.deletePolicy(), a.importPolicies(), a.exportPolicies())
}

// with hands a client to a command.
func (a *app) with(f func(*cobra.Command, *client.Client, []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		return f(c, api, args)
	}
}

func assignedTo(list []client.Assignment) string {
	var text []string
	for _, x := range list {
		text = append(text, strings.TrimSpace(x.Kind+" "+x.Name))
	}
	return strings.Join(text, ", ")
}

const policyHeader = "ID\tNAME\tTYPE\tPRIORITY\tASSIGNED TO\tDEVICES\tCONFIRMED\tPENDING\tFAILED\tVERSION"

func policyRow(p client.Policy) string {
	return cells(p.ID, p.Name, p.Type, p.Priority, assignedTo(p.Assignments), p.Devices.Assigned, p.Devices.Confirmed, p.Devices.Pending, p.Devices.Failed, p.Version)
}

func (a *app) listPolicies() *cobra.Command {
	return &cobra.Command{Use: "list", Short: "List policies by priority", Args: exactly(0), RunE: a.with(func(c *cobra.Command, api *client.Client, _ []string) error {
		answer, err := api.Policies(c.Context())
		if err != nil {
			return err
		}
		return show(a, answer, answer.Items, policyHeader, policyRow)
	})}
}

// findPolicy finds a policy by its id or its name.
func findPolicy(ctx context.Context, api *client.Client, key string) (client.Policy, error) {
	list, err := api.Policies(ctx)
	if err != nil {
		return client.Policy{}, err
	}
	for _, p := range list.Items {
		if p.ID == key || p.Name == key {
			return p, nil
		}
	}
	return client.Policy{}, fault.New(fault.NotFound, "there is no policy %q", key)
}

// policyFile is a policy as people keep it in a file: without what the
// control plane adds, assignments by name.
type policyFile struct {
	Name        string                     `json:"name"`
	Description string                     `json:"description,omitempty"`
	Type        string                     `json:"type"`
	Priority    int                        `json:"priority"`
	Assignments []client.Assignment        `json:"assignments"`
	Settings    map[string]json.RawMessage `json:"settings"`
}

func (a *app) getPolicy() *cobra.Command {
	return &cobra.Command{Use: "get NAME", Short: "Print a policy in the form that apply reads", Args: exactly(1), RunE: a.with(func(c *cobra.Command, api *client.Client, args []string) error {
		p, err := findPolicy(c.Context(), api, args[0])
		if err != nil {
			return err
		}
		f := policyFile{Name: p.Name, Description: p.Description, Type: p.Type, Priority: p.Priority, Assignments: p.Assignments}
		for i := range f.Assignments {
			f.Assignments[i].ID = ""
		}
		text, err := json.Marshal(p.Settings)
		if err == nil {
			err = json.Unmarshal(text, &f.Settings)
		}
		if err != nil {
			return err
		}
		return a.print(f)
	})}
}

func (a *app) print(v any) error {
	e := json.NewEncoder(a.out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// read reads a file, or standard input for "-".
func (a *app) read(name string) ([]byte, error) {
	if name == "" {
		return nil, fault.New(fault.Invalid, "name a file with --file, or - for standard input")
	}
	if name == "-" {
		return io.ReadAll(a.in)
	}
	text, err := os.ReadFile(name)
	return text, fault.Wrap(fault.Invalid, err, "read %s", name)
}

// readAll decodes one item or a list of items.
func readAll[T any](text []byte) ([]T, error) {
	text = bytes.TrimSpace(text)
	if !bytes.HasPrefix(text, []byte("[")) {
		text = []byte("[" + string(text) + "]")
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	var list []T
	if err := d.Decode(&list); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "the file cannot be read")
	}
	return list, nil
}

func (a *app) applyPolicies() *cobra.Command {
	var file string
	c := &cobra.Command{Use: "apply", Short: "Create or change policies from a file", Args: exactly(0),
		Long: "The file holds a policy as `policy get` prints it, or a list of them. One whose name is there already is changed.",
		RunE: a.with(func(c *cobra.Command, api *client.Client, _ []string) error {
			text, err := a.read(file)
			if err != nil {
				return err
			}
			list, err := readAll[policyFile](text)
			if err != nil {
				return err
			}
			saved, err := savePolicies(c.Context(), api, list)
			if err != nil {
				return err
			}
			return show(a, saved, saved, policyHeader, policyRow)
		})}
	c.Flags().StringVarP(&file, "file", "f", "", "file with policies, - for standard input")
	return c
}

// savePolicies creates or changes policies by their names.
func savePolicies(ctx context.Context, api *client.Client, list []policyFile) ([]client.Policy, error) {
	there, err := api.Policies(ctx)
	if err != nil {
		return nil, err
	}
	environments, err := api.Environments(ctx)
	if err != nil {
		return nil, err
	}
	groups, err := api.Groups(ctx)
	if err != nil {
		return nil, err
	}
	var saved []client.Policy
	for _, f := range list {
		change := client.PolicyChange{Name: f.Name, Description: f.Description, Type: f.Type, Settings: f.Settings, Priority: f.Priority}
		for _, x := range f.Assignments {
			switch {
			case x.ID != "" || x.Kind == "all":
			case x.Kind == "environment":
				x.ID = idOf(environments.Items, x.Name, func(e client.Environment) (string, string) { return e.ID, e.Name })
			case x.Kind == "group":
				x.ID = idOf(groups.Items, x.Name, func(g client.Group) (string, string) { return g.ID, g.Name })
			}
			if x.ID == "" && (x.Kind == "environment" || x.Kind == "group") {
				return saved, fault.New(fault.NotFound, "policy %q: there is no %s %q", f.Name, x.Kind, x.Name)
			}
			change.Assignments = append(change.Assignments, client.Assignment{Kind: x.Kind, ID: x.ID})
		}
		i := slices.IndexFunc(there.Items, func(p client.Policy) bool { return p.Name == f.Name })
		var p client.Policy
		if i >= 0 {
			change.Version = there.Items[i].Version
			p, err = api.SavePolicy(ctx, there.Items[i].ID, change)
		} else {
			p, err = api.CreatePolicy(ctx, change)
		}
		if err != nil {
			return saved, fault.Wrap(fault.KindOf(err), err, "policy %q (%d before it are saved)", f.Name, len(saved))
		}
		saved = append(saved, p)
	}
	return saved, nil
}

func idOf[T any](list []T, name string, of func(T) (id, name string)) string {
	for _, item := range list {
		if id, called := of(item); called == name {
			return id
		}
	}
	return ""
}

func (a *app) deletePolicy() *cobra.Command {
	var force bool
	c := &cobra.Command{Use: "delete NAME", Short: "Delete a policy", Args: exactly(1), RunE: a.with(func(c *cobra.Command, api *client.Client, args []string) error {
		p, err := findPolicy(c.Context(), api, args[0])
		if err != nil {
			return err
		}
		if err := api.DeletePolicy(c.Context(), p.ID, force); err != nil {
			return err
		}
		_, err = fmt.Fprintf(c.ErrOrStderr(), "policy %s is deleted; %d devices get what else applies to them\n", cells(p.Name), p.Devices.Assigned)
		return err
	})}
	c.Flags().BoolVar(&force, "force", false, "also when it is assigned")
	return c
}

func (a *app) importPolicies() *cobra.Command {
	var file, name, assign string
	var dry bool
	c := &cobra.Command{Use: "import", Short: "Make policies of a managed configuration file", Args: exactly(0),
		Long: "Reads a file in the shape of mdatp_managed.json and makes of it one policy of each type that it has settings for.\n" +
			"Every key of the file is reported: taken, refused, known without an engine here, or unknown.\nWithout --assign the policies are drafts.",
		RunE: func(c *cobra.Command, _ []string) error {
			text, err := a.read(file)
			if err != nil {
				return err
			}
			settings, lines, err := client.ReadManaged(text)
			if err != nil {
				return err
			}
			var list []policyFile
			for _, kind := range slices.Sorted(maps.Keys(settings)) {
				f := policyFile{Name: name + " " + kind, Description: "made of a managed configuration file", Type: kind}
				text, err := json.Marshal(settings[kind])
				if err == nil {
					err = json.Unmarshal(text, &f.Settings)
				}
				if err != nil {
					return err
				}
				if assign != "" {
					of, called, _ := strings.Cut(assign, ":")
					f.Assignments = []client.Assignment{{Kind: of, Name: called}}
				}
				list = append(list, f)
			}
			if !dry && len(list) > 0 {
				api, err := a.client()
				if err != nil {
					return err
				}
				if _, err := savePolicies(c.Context(), api, list); err != nil {
					return err
				}
			}
			return show(a, map[string]any{"saved": !dry, "policies": list, "keys": lines}, lines, "KEY\tRESULT\tDETAIL",
				func(l client.Line) string { return cells(l.Key, l.Result, l.Detail) })
		}}
	c.Flags().StringVar(&file, "mdatp-managed", "", "the file, - for standard input")
	c.Flags().StringVar(&name, "name", "Imported", "how the names of the policies begin")
	c.Flags().StringVar(&assign, "assign", "", "all, environment:NAME or group:NAME")
	c.Flags().BoolVar(&dry, "dry-run", false, "report and save nothing")
	return c
}

func (a *app) exportPolicies() *cobra.Command {
	c := &cobra.Command{Use: "export NAME", Short: "Print a policy in the shape of mdatp_managed.json", Args: exactly(1), RunE: a.with(func(c *cobra.Command, api *client.Client, args []string) error {
		p, err := findPolicy(c.Context(), api, args[0])
		if err != nil {
			return err
		}
		text, left, err := client.WriteManaged(p.Settings)
		if err != nil {
			return err
		}
		if left != nil {
			fmt.Fprintf(c.ErrOrStderr(), "that shape has no key for %s\n", strings.Join(left, ", "))
		}
		_, err = a.out.Write(text)
		return err
	})}
	return c
}
