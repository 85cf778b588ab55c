package cli

// What commands of settings are for.
var (
	msgProxy            = text{"The way to the control plane through an HTTP proxy", "HTTP プロキシ経由でのコントロールプレーンへの接続"}
	msgProxySet         = text{"Connect through a proxy, by CONNECT", "CONNECT でプロキシ経由で接続する"}
	msgProxyClear       = text{"Connect without a proxy", "プロキシを使わずに接続する"}
	msgThreatPolicy     = text{"What is done about kinds of threats", "脅威の種類ごとの処理を管理する"}
	msgThreatPolicySet  = text{"Set what is done about a kind of threat", "脅威の種類に対する処理を設定する"}
	msgThreatPolicyList = text{"List what is done about each kind", "脅威の種類ごとの処理を一覧表示する"}
	msgLogPersist       = text{"Set the log level for good, also after a restart", "再起動後も有効なログレベルを設定する"}
	msgGroupIDs         = text{"Set the group id of this device, which device groups can select by", "このデバイスのグループ ID を設定する（デバイスグループの条件に使える）"}
	msgEDRExclusion     = text{"Exclusions that hold for the sensor too", "センサーにも適用される除外"}
	msgEDRExclusionList = text{"List exclusions of the scope global", "スコープ global の除外を一覧表示する"}
)

var (
	flagProxy      = text{"`URL` of the proxy, http://host:port", "プロキシの `URL`（http://host:port）"}
	flagThreatType = text{"`TYPE` of threat: %s", "脅威の種類 `TYPE`: %s"}
	flagGroupID    = text{"`ID` of the group; empty removes it", "グループの `ID`。空にすると削除する"}
)

// What they say.
var (
	msgProxyEmpty         = text{"the value is empty; to use no proxy: %s clear", "値が空です。プロキシを使わない場合: %s clear"}
	msgLogLevelPersisted  = text{"Log level configured successfully, also for the next starts", "ログレベルを設定しました。次回以降の起動にも適用されます"}
	msgGroupIDsSet        = text{"Group id set", "グループ ID を設定しました"}
	msgGroupIDsCleared    = text{"Group id removed", "グループ ID を削除しました"}
	msgNoGlobalExclusions = text{"No exclusions of this kind in the scope global", "スコープ global にこの種類の除外はありません"}
	msgNotInThisVersion   = text{"Not in this version", "このバージョンにはありません"}
	msgStays              = text{"Nothing had to be changed", "変更の必要はありませんでした"}
	msgStaysLong          = text{"Nothing had to be changed: %s is always %s in this version, because %s", "変更の必要はありませんでした: このバージョンの %s は常に %s です。%s"}
	msgNothingChanged     = text{"nothing was changed: there is no other value of %s in this version, because %s; %s", "何も変更していません: このバージョンの %s に他の値はありません。%s。%s"}
)

// Why settings have one value, and what to do instead.
var (
	whyCloud           = text{"no file and no name of a file is looked up outside of this host", "ファイルもファイル名も、このホストの外で照会されることはないためです"}
	doCloud            = text{"definitions come with the agent: keep it up to date", "定義はエージェントに含まれます。エージェントを最新に保ってください"}
	whyCloudDiagnostic = text{"the agent sends diagnostic data to nobody", "エージェントは診断データをどこにも送信しないためです"}
	doCloudDiagnostic  = text{"to hand diagnostic data to somebody, run: diagnostic create", "診断データを渡すには diagnostic create を実行してください"}
	whySamples         = text{"samples never leave this host", "検体がこのホストの外に出ることはないためです"}
	doSamples          = text{"a sample stays in quarantine, from where it can be restored into a folder and handed on", "検体は検疫に残ります。フォルダーに復元して渡すことができます"}
	whyStatistics      = text{"real-time protection always counts, which costs nothing that can be measured", "リアルタイム保護は常に計数しており、測定できる負荷はないためです"}
	doStatistics       = text{"there is nothing to be gained by switching it off", "無効にしても得られるものはありません"}
	whyNetwork         = text{"connections are recorded and none is blocked: there is no engine for it", "接続は記録されますが、遮断するエンジンがないためです"}
	doNetwork          = text{"block addresses with the host's firewall", "アドレスの遮断にはホストのファイアウォールを使ってください"}
	whyTamper          = text{"nothing keeps root from stopping the agent", "root によるエージェントの停止を防ぐ機能がないためです"}
	doTamper           = text{"the portal shows a device whose agent has stopped as not connected", "エージェントが停止したデバイスは、ポータルで未接続と表示されます"}
	whyRotation        = text{"the agent logs into the system's journal, which rotates by itself", "エージェントはシステムのジャーナルに記録し、ジャーナルが自らローテーションするためです"}
	doRotation         = text{"set SystemMaxUse= and SystemMaxFileSize= in journald.conf", "journald.conf の SystemMaxUse= と SystemMaxFileSize= を設定してください"}
	whyPreview         = text{"every feature of this version is finished and there are no previews", "このバージョンの機能はすべて完成しており、プレビューはないためです"}
	doPreview          = text{"to try what is new, install a newer version on some servers first", "新機能を試すには、先に一部のサーバーへ新しいバージョンを導入してください"}
	whyUnwanted        = text{"it does not look for potentially unwanted applications", "望ましくない可能性のあるアプリケーションを検出しないためです"}
	doUnwanted         = text{"behaviour rules report what such programs do; archive_bomb is the type that can be set", "振る舞いルールがそのようなプログラムの動作を報告します。設定できる種類は archive_bomb です"}
)

var msgMissingBecause = text{"%s: %s; %s", "%s。%s。%s"}

// whyMissing says why there is no such command, and what to do instead.
var whyMissing = map[string]struct{ why, do text }{
	"network-protection":   {text{"connections are recorded and none is blocked", "接続は記録されますが、遮断されません"}, doNetwork},
	"performance-profiles": {text{"protection costs the same in all circumstances and has no profiles", "保護の負荷は状況によらず同じで、プロファイルはありません"}, doExclude},
	"device-control":       {whyMac, doNothing},
	"system-extension":     {whyMac, doNothing},
	"notice":               {whyDesktop, doNothing},
	"tips":                 {whyDesktop, doNothing},
	"user":                 {whyDesktop, doNothing},
	"event":                {text{"events are sent to the control plane", "イベントはコントロールプレーンに送信されます"}, text{"look at the timeline of the device in the portal", "ポータルでデバイスのタイムラインを確認してください"}},
	"ebpf-statistics":      {text{"the sensor's counters are not sampled over time", "センサーのカウンターは時系列で採取されません"}, doCounters},
	"hot-event-sources":    {text{"events are not counted for each file", "イベントはファイルごとには計数されません"}, doCounters},
	"restore":              {whyEmbedded, doEmbedded},
	"path":                 {whyEmbedded, doEmbedded},
}

var (
	doCounters  = text{"the totals are in realtime.json and sensor.json of: diagnostic create", "合計値は diagnostic create の realtime.json と sensor.json にあります"}
	doExclude   = text{"what costs time in special places can be excluded: exclusion folder add", "特定の場所で時間がかかる場合は除外できます: exclusion folder add"}
	whyMac      = text{"this is a matter of desktops with another operating system", "これは別のオペレーティングシステムのデスクトップ向けの機能です"}
	whyDesktop  = text{"a server has nobody in front of it to be spoken to", "サーバーの前には利用者がいません"}
	doNothing   = text{"leave it out of the runbook", "手順書から省いてください"}
	whyEmbedded = text{"the definitions are embedded in the agent", "定義はエージェントに組み込まれています"}
	doEmbedded  = text{"install the version of the agent whose definitions are wanted", "必要な定義を含むバージョンのエージェントを導入してください"}
)
