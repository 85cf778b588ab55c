package cli

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"komainu/agent/localapi"
	"komainu/deploy"
	"komainu/fault"
)

// What people read of upgrades.
var (
	msgUpgrade         = text{"Replace this agent by another version", "エージェントを別のバージョンに置き換える"}
	msgUpgradeStatus   = text{"Show which version runs and how the last upgrade went", "実行中のバージョンと前回のアップグレードの結果を表示する"}
	msgUpgradeCheck    = text{"Ask the signed repository which versions there are", "署名付きリポジトリにあるバージョンを確認する"}
	msgUpgradeApply    = text{"Upgrade, and follow it to its end", "アップグレードし、完了まで追跡する"}
	flagUpgradeFrom    = text{"folder, medium or address of a mirror with the repository (default: the control plane)", "リポジトリのあるフォルダー、媒体、またはミラーのアドレス（既定: コントロールプレーン）"}
	flagUpgradeTo      = text{"version (default: the newest)", "バージョン（既定: 最新）"}
	flagDowngrade      = text{"the version may be older than the one that runs", "実行中より古いバージョンを許可する"}
	msgUpgradeRuns     = text{"Version %s runs.", "バージョン %s が実行中です。"}
	msgUpgradeNever    = text{"It was not upgraded by itself yet.", "自動アップグレードはまだ行われていません。"}
	msgUpgradeLast     = text{"Upgrade from %s to %s: %s", "%s から %s へのアップグレード: %s"}
	msgUpgradeWhy      = text{"Why: %s.", "理由: %s。"}
	msgUpgradeDo       = text{"What to do: %s.", "対処: %s。"}
	msgUpgradeGap      = text{"Without protection: %s", "保護が途切れた時間: %s"}
	msgUpgradeNone     = text{"The repository has no package for this host.", "リポジトリにこのホスト用のパッケージがありません。"}
	msgUpgradeVersions = text{"Versions in the repository: %s", "リポジトリにあるバージョン: %s"}
	msgUpgradeNewest   = text{"This is the newest version.", "これは最新のバージョンです。"}
	msgUpgradeNote     = text{"This agent does not upgrade itself: %s", "このエージェントは自動アップグレードできません: %s"}

	upgradeStates = map[deploy.UpgradeState]text{
		deploy.UpgradeStateFetching: {"fetching the packages", "パッケージを取得中"}, deploy.UpgradeStateReady: {"ready", "準備完了"},
		deploy.UpgradeStateInstalling: {"installing", "インストール中"}, deploy.UpgradeStateProbation: {"on probation", "試用中"},
		deploy.UpgradeStateSucceeded: {"succeeded", "成功"}, deploy.UpgradeStateFailed: {"failed", "失敗"}, deploy.UpgradeStateRolledBack: {"rolled back", "ロールバック済み"},
	}
)

func (a *app) upgrade() *cobra.Command {
	status := a.leaf("status", msgUpgradeStatus, func(ctx context.Context, c *localapi.Client) error {
		u, err := c.Upgrade(ctx)
		switch {
		case err != nil:
			return err
		case a.output == "json":
			return a.json(u)
		}
		a.print("%s", clean(a.say(msgUpgradeRuns, u.Running)))
		if u.Last == nil {
			a.print("%s", a.say(msgUpgradeNever))
			return nil
		}
		a.upgraded(*u.Last)
		return nil
	})
	var from string
	check := a.leaf("check [--from DIR]", msgUpgradeCheck, func(ctx context.Context, c *localapi.Client) error {
		o, err := a.offer(ctx, c, from)
		switch {
		case err != nil:
			return err
		case a.output == "json":
			return a.json(o)
		}
		a.print("%s", clean(a.say(msgUpgradeRuns, o.Running)))
		switch {
		case len(o.Versions) == 0:
			a.print("%s", a.say(msgUpgradeNone))
		default:
			a.print("%s", clean(a.say(msgUpgradeVersions, strings.Join(slices.Compact(o.Versions), ", "))))
			if o.Versions[0] == o.Running {
				a.print("%s", a.say(msgUpgradeNewest))
			}
		}
		if o.Note != "" {
			a.print("%s", clean(a.say(msgUpgradeNote, o.Note)))
		}
		return nil
	})
	check.Flags().StringVar(&from, "from", "", a.say(flagUpgradeFrom))
	var req localapi.UpgradeRequest
	apply := a.leaf("apply [--from DIR] [--to VERSION]", msgUpgradeApply, func(ctx context.Context, c *localapi.Client) error {
		var err error
		if req.From, err = place(req.From); err != nil {
			return err
		}
		s, err := c.ApplyUpgrade(ctx, req)
		if err != nil {
			return err
		}
		return a.followUpgrade(ctx, s)
	})
	apply.Flags().StringVar(&req.From, "from", "", a.say(flagUpgradeFrom))
	apply.Flags().StringVar(&req.Version, "to", "", a.say(flagUpgradeTo))
	apply.Flags().BoolVar(&req.Downgrade, "downgrade", false, a.say(flagDowngrade))
	return a.group("upgrade", msgUpgrade, status, check, apply)
}

func (a *app) offer(ctx context.Context, c *localapi.Client, from string) (localapi.Offer, error) {
	from, err := place(from)
	if err != nil {
		return localapi.Offer{}, err
	}
	return c.CheckUpgrade(ctx, from)
}

// place makes a folder absolute: the agent stands elsewhere.
func place(from string) (string, error) {
	if from == "" || strings.Contains(from, "://") {
		return from, nil
	}
	return filepath.Abs(from)
}

// followEvery is how often the agent is asked, followLimit how long at most.
const (
	followEvery = 300 * time.Millisecond
	followLimit = time.Hour
)

// followUpgrade tells of an upgrade until it has ended. The agent goes away in
// the middle of it, and another one answers.
func (a *app) followUpgrade(ctx context.Context, s deploy.UpgradeStatus) error {
	ctx, cancel := context.WithTimeout(ctx, followLimit)
	defer cancel()
	var told deploy.UpgradeState
	for {
		if s.State != told && a.output != "json" && !s.State.Terminal() {
			a.print("%s", clean(a.say(msgUpgradeLast, s.From, s.To, a.stateOf(s))))
		}
		told = s.State
		if s.State.Terminal() {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(followEvery):
		}
		next, err := a.lastUpgrade(ctx)
		switch {
		case err == nil && next.Last != nil && next.Last.ID == s.ID:
			s = *next.Last
		case err == nil && next.Last != nil:
			return fault.New(fault.Conflict, "another upgrade has begun meanwhile")
		}
	}
	if a.output == "json" {
		if err := a.json(s); err != nil {
			return err
		}
	} else {
		a.upgraded(s)
	}
	if s.State != deploy.UpgradeStateSucceeded {
		return errShown
	}
	return nil
}

func (a *app) lastUpgrade(ctx context.Context) (localapi.Upgrade, error) {
	c, err := localapi.Dial(ctx, a.socketPath())
	if err != nil {
		return localapi.Upgrade{}, err
	}
	defer c.Close()
	return c.Upgrade(ctx)
}

func (a *app) stateOf(s deploy.UpgradeStatus) string {
	if t, ok := upgradeStates[s.State]; ok {
		return a.say(t)
	}
	return string(s.State)
}

// upgraded says how an upgrade went.
func (a *app) upgraded(s deploy.UpgradeStatus) {
	a.print("%s", clean(a.say(msgUpgradeLast, s.From, s.To, a.stateOf(s))))
	if s.Reason != nil {
		why := s.Reason.Text
		if s.Reason.Detail != "" {
			why += " (" + s.Reason.Detail + ")"
		}
		a.print("%s", clean(a.say(msgUpgradeWhy, why)))
		a.print("%s", clean(a.say(msgUpgradeDo, s.Reason.Remedy)))
	}
	if s.Gap > 0 {
		a.print("%s", a.say(msgUpgradeGap, s.Gap.Round(time.Millisecond)))
	}
}
