package cli

import (
	"context"

	"github.com/spf13/cobra"

	"komainu/agent/localapi"
	"komainu/deploy"
)

// What people read who look for what the host script calls.
var (
	msgIdentity      = text{"The identity of this device", "このデバイスの ID"}
	msgIdentityProve = text{"Prove to a control plane which device this is", "このデバイスであることをコントロールプレーンに証明する"}
)

// identity is for the script that the control plane runs here, not for people.
func (a *app) identity() *cobra.Command {
	prove := &cobra.Command{
		Use: "prove NONCE", Short: a.say(msgIdentityProve), Args: cobra.ExactArgs(1), DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ask(cmd.Context(), func(ctx context.Context, c *localapi.Client) error {
				r, err := c.Prove(ctx, localapi.ProofRequest{Nonce: deploy.Nonce(args[0])})
				switch {
				case err != nil:
					return err
				case a.output == "json":
					return a.json(r)
				}
				a.print("%s", clean(r.Proof))
				return nil
			})
		},
	}
	cmd := a.group("identity", msgIdentity, prove)
	cmd.Hidden = true
	return cmd
}
