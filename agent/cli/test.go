package cli

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"komainu/agent/localapi"
	"komainu/drill"
	"komainu/fault"
)

// What people read of detection tests.
var (
	msgTest       = text{"Show that protection works, and say why when it does not", "保護が働くことを確かめ、働かない場合は理由を示す"}
	msgTestList   = text{"List the detection tests", "検出テストを一覧表示する"}
	msgTestRun    = text{"Run a detection test and follow it to the alert", "検出テストを実行し、アラートまで追跡する"}
	flagTestPlace = text{"folder to run the test in (default: one that is protected)", "テストを実行するフォルダー（既定: 保護されているフォルダー）"}
	msgTestPassed = text{"It arrived: protection works on this server.", "到達しました。このサーバーの保護は働いています。"}
	msgTestWhere  = text{"Running %s in %s", "%s を %s で実行しています"}
	msgTestWhy    = text{"It did not arrive: %s.", "到達しませんでした: %s。"}
	msgTestDo     = text{"What to do: %s.", "対処: %s。"}
	msgTestWarn   = text{"It arrived, but: %s.", "到達しましたが: %s。"}
	msgTestNeeds  = text{"needs: %s", "必要: %s"}
	msgTestUnsure = text{"the agent ended the test without a reason", "エージェントが理由なくテストを終えました"}

	stageNames = map[drill.StageID]text{
		drill.Kernel: {"the kernel saw it", "カーネルが検知"}, drill.Agent: {"the agent judged it", "エージェントが判定"},
		drill.Sent: {"sent", "送信"}, drill.Received: {"received", "受信"}, drill.Alert: {"alert", "アラート"},
		drill.Incident: {"incident", "インシデント"}, drill.Notification: {"notification", "通知"},
	}
	stateNames = map[drill.State]text{
		drill.OK: {"ok", "完了"}, drill.Waiting: {"waiting", "待機中"}, drill.Missing: {"missing", "未到達"}, drill.Skipped: {"skipped", "対象外"},
	}
)

func (a *app) test() *cobra.Command {
	var folder string
	run := &cobra.Command{
		Use: "run NAME [--folder DIR]", Short: a.say(msgTestRun), Args: cobra.ExactArgs(1), DisableFlagsInUseLine: true,
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			var names []string
			for _, s := range drill.Scenarios() {
				names = append(names, s.ID+"\t"+s.Name)
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, ok := drill.Find(args[0]); !ok {
				var names []string
				for _, s := range drill.Scenarios() {
					names = append(names, s.ID)
				}
				return fault.New(fault.Invalid, "%s", fmt.Sprintf("there is no detection test %q", args[0])+a.meant(args[0], names))
			}
			return a.ask(cmd.Context(), func(ctx context.Context, c *localapi.Client) error { return a.runTest(ctx, c, args[0], folder) })
		},
	}
	run.Flags().StringVar(&folder, "folder", "", a.say(flagTestPlace))
	list := &cobra.Command{
		Use: "list", Short: a.say(msgTestList), Args: cobra.NoArgs, DisableFlagsInUseLine: true,
		RunE: func(*cobra.Command, []string) error {
			a.ran = true
			return show(a, drill.Scenarios(), text{}, func(s drill.Scenario) {
				t := a.scenario(s)
				a.print("%s: %s", s.ID, t.name)
				a.print("\t%s", t.about)
				a.print("\t%s", a.say(msgTestNeeds, strings.Join(s.Needs, "; ")))
			})
		},
	}
	return a.group("test", msgTest, list, run)
}

type scenarioText struct{ name, about string }

func (a *app) scenario(s drill.Scenario) scenarioText {
	if ja, ok := scenariosJa[s.ID]; ok && a.ja {
		return ja
	}
	return scenarioText{s.Name, s.About}
}

// runTest follows a run. It ends well only when the test arrived.
func (a *app) runTest(ctx context.Context, c *localapi.Client, test, folder string) error {
	if folder != "" {
		var err error
		if folder, err = filepath.Abs(folder); err != nil {
			return err
		}
	}
	var last drill.Run
	told, place := map[drill.StageID]bool{}, false
	err := c.RunTest(ctx, localapi.TestRequest{Test: test, Folder: folder}, func(r drill.Run) error {
		last = r
		if a.output == "json" {
			return nil
		}
		if !place && r.Folder != "" {
			place = true
			a.print("%s", clean(a.say(msgTestWhere, r.Test, r.Folder)))
		}
		for _, s := range r.Stages {
			if told[s.ID] {
				continue
			}
			if s.State == drill.Waiting {
				break // in their order
			}
			told[s.ID] = true
			a.stage(r, s)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if a.output == "json" {
		if err := a.json(last); err != nil {
			return err
		}
	} else {
		a.verdict(last)
	}
	if last.Outcome != drill.Passed {
		return errShown
	}
	return nil
}

// stage writes a line: what, whether, and when after the start.
func (a *app) stage(r drill.Run, s drill.Stage) {
	line := fmt.Sprintf("[%s] %s", a.say(stateNames[s.State]), a.say(stageNames[s.ID]))
	if !s.At.IsZero() {
		line += fmt.Sprintf(" +%.2fs", max(0, s.At.Sub(r.Started).Seconds()))
	}
	if s.Detail != "" {
		line += " — " + s.Detail
	}
	a.print("%s", clean(line))
}

func (a *app) verdict(r drill.Run) {
	if r.Outcome == drill.Passed {
		a.print("%s", a.say(msgTestPassed))
		for _, w := range r.Warnings {
			why, remedy := a.reason(w)
			a.print("%s", clean(a.say(msgTestWarn, why)))
			a.print("%s", clean(a.say(msgTestDo, remedy)))
		}
		return
	}
	if r.Reason == nil {
		a.print("%s", a.say(msgTestWhy, a.say(msgTestUnsure)))
		return
	}
	why, remedy := a.reason(*r.Reason)
	a.print("%s", clean(a.say(msgTestWhy, why)))
	a.print("%s", clean(a.say(msgTestDo, remedy)))
}

// reason returns the cause and the remedy in the language of the user.
func (a *app) reason(r drill.Reason) (why, remedy string) {
	ja, ok := reasonsJa[r.ID]
	if !a.ja || !ok {
		return r.Text, r.Remedy
	}
	if r.Detail != "" {
		return ja.why + "（" + r.Detail + "）", ja.remedy
	}
	return ja.why, ja.remedy
}
