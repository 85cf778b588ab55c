package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"komainu/control/client"
	"komainu/fault"
)

func (a *app) joinTokenCommands() *cobra.Command {
	return group("join-token", "Join tokens, with which servers enrol", a.listJoinTokens(), a.createJoinToken(), a.revokeJoinToken())
}

func (a *app) listJoinTokens() *cobra.Command {
	return &cobra.Command{Use: "list ENVIRONMENT", Short: "List the join tokens of an environment, newest first", Args: exactly(1), RunE: a.with(func(c *cobra.Command, api *client.Client, args []string) error {
		environment, err := findEnvironment(c.Context(), api, args[0])
		if err != nil {
			return err
		}
		answer, err := api.JoinTokens(c.Context(), environment)
		if err != nil {
			return err
		}
		return show(a, answer, answer.Items, "ID\tLABEL\tUSES\tEXPIRES\tREVOKED", func(t client.JoinToken) string {
			return cells(t.ID, t.Label, fmt.Sprintf("%d/%d", t.Uses, t.MaxUses), t.ExpiresAt, t.Revoked)
		})
	})}
}

// way picks the text that was asked for.
func way(t client.JoinToken, as string) (string, error) {
	if t.Snippets == nil && as != "token" {
		return "", fault.New(fault.Unsupported, "this control plane is too old for --as %s", as)
	}
	switch as {
	case "token":
		return t.Token, nil
	case "line":
		return t.Snippets.Line, nil
	case "cloud-init":
		return t.Snippets.CloudInit, nil
	case "ansible":
		return t.Snippets.Ansible, nil
	}
	return t.Snippets.Image, nil
}

func (a *app) createJoinToken() *cobra.Command {
	var label, as string
	var expires time.Duration
	var uses int
	c := &cobra.Command{Use: "create ENVIRONMENT", Short: "Create a join token and print what brings it to servers", Args: exactly(1),
		Long: "Prints what --as names, and nothing else, to be pasted or written to a file: the token, a command for one server, cloud-init user data,\n" +
			"an Ansible play, or a command for the machine of which a golden image is made. The secret is in it, and is shown this once.",
		RunE: a.with(func(c *cobra.Command, api *client.Client, args []string) error {
			switch as {
			case "token", "line", "cloud-init", "ansible", "image":
			default:
				return fault.New(fault.Invalid, "--as %q: want token, line, cloud-init, ansible or image", as)
			}
			environment, err := findEnvironment(c.Context(), api, args[0])
			if err != nil {
				return err
			}
			t, err := api.CreateJoinToken(c.Context(), environment, client.JoinTokenRequest{Label: label, ExpiresInSeconds: int64(expires / time.Second), MaxUses: uses})
			if err != nil {
				return err
			}
			if a.format == "json" {
				return a.print(t)
			}
			text, err := way(t, as)
			if err != nil {
				return err
			}
			fmt.Fprintf(c.ErrOrStderr(), "join token %s: %d servers until %s\n", t.ID, t.MaxUses, t.ExpiresAt.Local().Format(time.DateTime))
			_, err = fmt.Fprintln(a.out, text)
			return err
		})}
	c.Flags().StringVar(&as, "as", "line", "token, line, cloud-init, ansible or image")
	c.Flags().StringVar(&label, "label", "", "what it is for")
	c.Flags().DurationVar(&expires, "expires", 24*time.Hour, "how long it lasts")
	c.Flags().IntVar(&uses, "uses", 1, "how many servers may use it")
	return c
}

func (a *app) revokeJoinToken() *cobra.Command {
	return &cobra.Command{Use: "revoke ENVIRONMENT ID", Short: "Revoke a join token; devices that have used it stay", Args: exactly(2), RunE: a.with(func(c *cobra.Command, api *client.Client, args []string) error {
		environment, err := findEnvironment(c.Context(), api, args[0])
		if err != nil {
			return err
		}
		if err := api.RevokeJoinToken(c.Context(), environment, args[1]); err != nil {
			return err
		}
		_, err = fmt.Fprintf(c.ErrOrStderr(), "join token %s is revoked\n", cells(args[1]))
		return err
	})}
}
