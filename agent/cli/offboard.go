package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"komainu/agent/localapi"
	"komainu/fault"
)

// What people read when a host is offboarded.
var (
	msgOffboard     = text{"Take this device out of its environment", "このデバイスを環境から外す（オフボード）"}
	msgOffboardLong = text{"Take this device out of its environment: the control plane revokes its identity and\nno longer protects it, also where the plan is on; people who watch there are told.\nWhat is known of the device stays there. The agent stays installed and protects\nnothing until it is enrolled again.",
		"このデバイスを環境から外します。コントロールプレーンは ID を取り消し、プランがオンでも\n保護しなくなり、監視している人に通知します。デバイスの記録は残ります。エージェントは\nインストールされたままですが、再び登録するまで何も保護しません。"}
	flagYes           = text{"do not ask", "確認しない"}
	flagOffboardForce = text{"also when the control plane cannot be told, which goes on counting the device", "コントロールプレーンに伝えられなくても外す（デバイスは数えられ続ける）"}
	msgOffboardAsk    = text{"This host will not be protected any more, and the control plane tells the people who watch it.\nOffboard this device? Type yes: ", "このホストは保護されなくなり、監視している人に通知されます。\nこのデバイスを外しますか？ yes と入力してください: "}
	msgOffboardSayYes = text{"this takes the device out of protection; say --yes where nobody can be asked", "デバイスの保護が外れます。確認できない場合は --yes を指定してください"}
	msgOffboardKept   = text{"Nothing was changed.", "変更されていません。"}
	msgOffboarded     = text{"Device %s is offboarded from %q. This host is not protected any more.", "デバイス %s を %q から外しました。このホストは保護されていません。"}
	msgOffboardUntold = text{"The control plane does not know: %s. It still counts the device, and a connector that reaches this host brings the agent back; offboard the device in the portal.",
		"コントロールプレーンには伝わっていません: %s。デバイスは数えられ続け、コネクタが届く場合はエージェントが復元されます。ポータルでオフボードしてください。"}
	msgOffboardForce  = text{"The device stays enrolled here. --force takes it out here alone; the control plane may then go on counting it.", "デバイスは登録されたままです。--force を指定すると、このホストだけで外します（コントロールプレーンでは数えられ続けることがあります）。"}
	msgOffboardRemove = text{"To remove the agent with everything that it keeps: %s", "エージェントをデータごと削除するには: %s"}
)

// removals say how the agent is removed, by the form that it was installed as.
var removals = map[string]string{
	"deb": "sudo apt purge komainu-agent",
	"rpm": "sudo dnf remove komainu-agent && sudo rm -rf /var/lib/komainu",
	"tar": "sudo sh /usr/lib/komainu/install.sh purge",
}

func (a *app) offboard() *cobra.Command {
	var yes bool
	var req localapi.OffboardRequest
	cmd := &cobra.Command{
		Use: "offboard [--yes] [--force]", Short: a.say(msgOffboard), Long: a.say(msgOffboardLong), Args: cobra.NoArgs, DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !yes {
				if err := a.confirmOffboarding(); err != nil {
					return err
				}
			}
			return a.ask(cmd.Context(), func(ctx context.Context, c *localapi.Client) error {
				r, err := c.Offboard(ctx, req)
				switch {
				case fault.Is(err, fault.Unavailable), fault.Is(err, fault.Unauthentic):
					if a.output != "json" {
						err = fmt.Errorf("%w\n%s", err, a.say(msgOffboardForce))
					}
					return err
				case err != nil:
					return err
				case a.output == "json":
					return a.json(struct {
						localapi.OffboardResult
						Remove string `json:"remove,omitempty"`
					}{r, removals[r.Package]})
				}
				a.offboarded(r)
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, a.say(flagYes))
	cmd.Flags().BoolVar(&req.Force, "force", false, a.say(flagOffboardForce))
	return cmd
}

// confirmOffboarding asks on a terminal; elsewhere it wants to be told.
func (a *app) confirmOffboarding() error {
	if !a.env.Terminal || a.output == "json" {
		return fault.New(fault.Invalid, "%s", a.say(msgOffboardSayYes))
	}
	fmt.Fprint(a.env.Stderr, a.say(msgOffboardAsk))
	answer, err := bufio.NewReader(io.LimitReader(a.env.Stdin, 100)).ReadString('\n')
	if err != nil && err != io.EOF {
		return err
	}
	if strings.TrimSpace(answer) != "yes" {
		fmt.Fprintln(a.env.Stderr, a.say(msgOffboardKept))
		return errShown
	}
	return nil
}

func (a *app) offboarded(r localapi.OffboardResult) {
	a.print("%s", clean(a.say(msgOffboarded, r.Device, r.Environment)))
	if !r.Told {
		a.print("%s", clean(a.say(msgOffboardUntold, r.Untold)))
	}
	if how := removals[r.Package]; how != "" {
		a.print("%s", a.say(msgOffboardRemove, how))
	}
}
