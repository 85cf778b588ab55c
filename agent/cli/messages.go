package cli

import (
	"fmt"
	"strings"

	"komainu/agent/localapi"
	"komainu/policy"
)

// text is prose in each language. Names of commands, options, fields, keys
// and states are the same in all of them and stand in no text.
type text struct{ en, ja string }

// japanese reports whether prose is to be Japanese, by the locale. Under its
// other name the command always speaks English: runbooks compare its words.
func japanese(getenv func(string) string, name string) bool {
	if name == alias {
		return false
	}
	for _, v := range []string{"LC_ALL", "LC_MESSAGES", "LANG"} {
		if locale := getenv(v); locale != "" {
			return locale == "ja" || strings.HasPrefix(locale, "ja_") || strings.HasPrefix(locale, "ja.")
		}
	}
	return false
}

// say returns the text in the language of the user.
func (a *app) say(t text, args ...any) string {
	s := t.en
	if a.ja && t.ja != "" {
		s = t.ja
	}
	if len(args) == 0 {
		return s
	}
	return fmt.Sprintf(s, args...)
}

// What commands are for.
var (
	msgRoot      = text{"Look at and steer the protection of this server", "このサーバーの保護を確認・操作する"}
	msgRootLong  = text{"komainu looks at and steers the Komainu agent that protects this server.", "komainu は、このサーバーを保護する Komainu エージェントを確認・操作します。"}
	msgAliasLong = text{"Komainu answers here under the name mdatp and takes the commands that runbooks\nwritten for mdatp type. It steers the Komainu agent that protects this server;\nno other product's agent is involved.", ""}

	msgHealth                = text{"Show the state of the agent", "エージェントの状態を表示する"}
	msgConfig                = text{"Change settings", "設定を変更する"}
	msgScan                  = text{"Scan on demand", "オンデマンドでスキャンする"}
	msgScanQuick             = text{"Scan where malware usually starts", "マルウェアがよく起動する場所をスキャンする"}
	msgScanFull              = text{"Scan all local filesystems", "すべてのローカルファイルシステムをスキャンする"}
	msgScanCustom            = text{"Scan a file or folder", "ファイルまたはフォルダーをスキャンする"}
	msgScanCancelShort       = text{"Cancel the running scan", "実行中のスキャンを中止する"}
	msgScanList              = text{"List running and past scans", "実行中および過去のスキャンを一覧表示する"}
	msgThreat                = text{"Show and treat threats", "脅威を表示・処理する"}
	msgThreatList            = text{"List what was detected", "検出された脅威を一覧表示する"}
	msgThreatGet             = text{"Show one threat in full", "脅威の詳細を表示する"}
	msgAllowed               = text{"Names of threats that are not acted upon", "許可された脅威を管理する"}
	msgAllowedAddShort       = text{"Allow a threat by its name", "脅威を名前で許可する"}
	msgAllowedRemoveShort    = text{"No longer allow a threat", "脅威の許可を取り消す"}
	msgAllowedList           = text{"List allowed threats", "許可された脅威を一覧表示する"}
	msgQuarantine            = text{"Files in quarantine", "検疫されたファイルを管理する"}
	msgQuarantineList        = text{"List what is in quarantine", "検疫内のファイルを一覧表示する"}
	msgQuarantineAddShort    = text{"Quarantine the file of a threat", "脅威のファイルを検疫する"}
	msgQuarantineRemoveShort = text{"Delete an object from quarantine for ever", "検疫からファイルを完全に削除する"}
	msgQuarantineRemoveAll   = text{"Delete everything in quarantine for ever", "検疫内のすべてのファイルを完全に削除する"}
	msgRestore               = text{"Put quarantined files back", "検疫されたファイルを復元する"}
	msgRestoreID             = text{"Restore by the id of the threat", "脅威の ID で復元する"}
	msgRestorePath           = text{"Restore by the path that the file had", "元のパスで復元する"}
	msgExclusion             = text{"Keep things out of protection", "保護からの除外を管理する"}
	msgExclusionList         = text{"List exclusions", "除外を一覧表示する"}
	msgExclusionAddShort     = text{"Add an exclusion", "除外を追加する"}
	msgExclusionRemoveShort  = text{"Remove an exclusion", "除外を削除する"}
	msgExcludeFile           = text{"Exclude a file", "ファイルを除外する"}
	msgExcludeFolder         = text{"Exclude a folder and all below it", "フォルダーとその配下を除外する"}
	msgExcludeExtension      = text{"Exclude files by their extension", "拡張子でファイルを除外する"}
	msgExcludeProcess        = text{"Exclude the files that a process opens", "プロセスが開くファイルを除外する"}
	msgDefinitions           = text{"Definitions of malware", "マルウェア定義を管理する"}
	msgDefinitionsUpdate     = text{"Look for newer definitions", "新しい定義を確認する"}
	msgConnectivity          = text{"The way to the control plane", "コントロールプレーンへの接続"}
	msgConnectivityTest      = text{"Test everything that the agent must reach", "エージェントの接続先をすべて検査する"}
	msgEDR                   = text{"Endpoint detection", "エンドポイント検出"}
	msgTag                   = text{"Tags of this device", "このデバイスのタグを管理する"}
	msgTagSetShort           = text{"Set a tag", "タグを設定する"}
	msgTagRemoveShort        = text{"Remove a tag", "タグを削除する"}
	msgLog                   = text{"The agent's log", "エージェントのログ"}
	msgLogLevel              = text{"How much is logged", "ログの詳細度"}
	msgLogSetShort           = text{"Set the log level", "ログレベルを設定する"}
	msgDiagnostic            = text{"Collect what helps to find a fault", "診断情報を収集する"}
	msgScanStatistics        = text{"Show for which programs files are scanned", "ファイルのスキャンを引き起こしたプログラムを表示する"}
	msgTopTooSmall           = text{"--top takes a number from 1 on", "--top には 1 以上の数を指定してください"}
	flagTop                  = text{"show the `N` programs with the most", "上位 `N` 件のプログラムを表示する"}
	flagSort                 = text{"the most first, which it always is", "多い順 (常にこの順序です)"}
	colName                  = text{"NAME", "名前"}
	colPath                  = text{"PATH", "パス"}
	colFilesScanned          = text{"FILES SCANNED", "スキャンしたファイル"}
	msgDiagnosticCreate      = text{"Write a diagnostic archive", "診断アーカイブを作成する"}
	msgEnrol                 = text{"Bring this device into an environment", "このデバイスを環境に登録する"}
	msgEnrolLong             = text{"Bring this device into an environment of a control plane, by a join token that\nthe control plane made. A token on the command line is visible to other users\nof this host while the command runs; --token-file avoids that.",
		"コントロールプレーンが発行した参加トークンで、このデバイスを環境に登録します。\nコマンドラインに書いたトークンは、実行中にこのホストの他のユーザーから見えます。\n--token-file を使うと避けられます。"}
	msgVersion = text{"Show the versions of command and agent", "コマンドとエージェントのバージョンを表示する"}
)

// msgSettings says what each setting does.
var msgSettings = map[localapi.Setting]text{
	localapi.RealTimeProtection:  {"Scan files when they are opened or run", "ファイルを開く・実行するときにスキャンする"},
	localapi.PassiveMode:         {"Detect but do not act", "検出のみ行い、処理しない"},
	localapi.BehaviorMonitoring:  {"Watch what processes do", "プロセスの振る舞いを監視する"},
	localapi.ScanArchives:        {"Look into archives", "アーカイブの中をスキャンする"},
	localapi.OnDemandScanThreads: {"Threads of a scan on demand", "オンデマンドスキャンのスレッド数"},
	localapi.FileHashComputation: {"Compute hashes of files", "ファイルのハッシュを計算する"},
	localapi.ScanAfterUpdate:     {"Make a quick scan when there are new definitions", "新しい定義が入ったときにクイックスキャンを行う"},
	localapi.EBPFSupplementary:   {"Take events from eBPF, else from netlink", "eBPF からイベントを取得する（無効時は netlink）"},
}

// What options take. A word in back quotes names the value in help.
var (
	flagOutput           = text{"`FORMAT` of the output: text or json", "出力形式 `FORMAT`: text または json"}
	flagSocket           = text{"`PATH` of the agent's socket (default KOMAINU_SOCKET, else %s)", "エージェントのソケットの `PATH`（既定: KOMAINU_SOCKET、なければ %s）"}
	flagHelp             = text{"show help", "ヘルプを表示する"}
	flagField            = text{"print the value of one field, `NAME`, alone", "1 つのフィールド `NAME` の値だけを表示する"}
	flagDetails          = text{"also the state of every part; or only of one `FEATURE`: antivirus, edr, definitions, features", "各部の状態も表示する。または 1 つの `FEATURE` のみ: antivirus, edr, definitions, features"}
	flagTagName          = text{"`NAME` of the tag, such as GROUP", "タグの `NAME`（例: GROUP）"}
	flagTagValue         = text{"`VALUE` of the tag", "タグの `VALUE`"}
	flagLevel            = text{"`LEVEL`: error, warning, info, verbose or debug", "`LEVEL`: error, warning, info, verbose, debug"}
	flagID               = text{"`ID` of the threat", "脅威の `ID`"}
	flagThreatName       = text{"`NAME` of the threat", "脅威の `NAME`"}
	flagOriginal         = text{"`PATH` that the file had", "ファイルの元の `PATH`"}
	flagDestination      = text{"restore into `DIR`, not to where the file was", "元の場所ではなく `DIR` に復元する"}
	flagScope            = text{"`SCOPE`: epp (scans and real-time protection) or global (also the sensor)", "`SCOPE`: epp（スキャンとリアルタイム保護）または global（センサーも含む）"}
	flagScanPath         = text{"`PATH` to scan", "スキャンする `PATH`"}
	flagIgnoreExclusions = text{"scan what is excluded too", "除外されたものもスキャンする"}
	flagTokenFile        = text{"read the token from `FILE`, or from standard input as -", "トークンを `FILE` から読む（- は標準入力）"}
	flagCloud            = text{"prove what machine this is by a document of its cloud instead of a token: `aws`, azure or gcp", "トークンの代わりにクラウドの文書でこのマシンを証明する（`aws`、azure、gcp）"}
	flagServer           = text{"the control plane as https://HOST:PORT, with --cloud", "コントロールプレーンの https://HOST:PORT（--cloud と併用）"}
	flagPin              = text{"the pin of the control plane's CA in `HEX`, with --cloud", "コントロールプレーンの CA のピン `HEX`（--cloud と併用）"}
	flagForce            = text{"also when the device is enrolled already", "登録済みでも登録し直す"}
	flagDiagnosticPath   = text{"write into `DIR`", "`DIR` に書き込む"}
	flagExclude          = map[string]text{
		"path": {"absolute `PATH`", "絶対パス `PATH`"},
		"name": {"`NAME`: an extension such as .log, or the name of a process", "`NAME`: .log などの拡張子、またはプロセス名"},
	}
)

// What commands say.
var (
	msgUpdated            = text{"Configuration property updated", "構成プロパティを更新しました"}
	msgTagSet             = text{"Device tag set", "デバイスタグを設定しました"}
	msgTagRemoved         = text{"Device tag removed", "デバイスタグを削除しました"}
	msgLogLevelSet        = text{"Log level configured successfully", "ログレベルを設定しました"}
	msgDefinitionsUpdated = text{"Definitions updated to version %s", "定義をバージョン %s に更新しました"}
	msgDefinitionsNewest  = text{"Definitions were not changed: version %s is the newest that this agent can have", "定義は変更されていません: バージョン %s はこのエージェントで使える最新のものです"}
	msgNoThreats          = text{"No threats", "脅威はありません"}
	msgNoAllowed          = text{"No allowed threats", "許可された脅威はありません"}
	msgAllowedAdded       = text{"Threat allowed", "脅威を許可しました"}
	msgAllowedRemoved     = text{"Threat is no longer allowed", "脅威の許可を取り消しました"}
	msgNoQuarantine       = text{"Quarantine is empty", "検疫は空です"}
	msgQuarantined        = text{"File moved to quarantine", "ファイルを検疫しました"}
	msgQuarantineRemoved  = text{"Object removed from quarantine", "検疫から削除しました"}
	msgQuarantineEmptied  = text{"Quarantine emptied", "検疫を空にしました"}
	msgRestored           = text{"Restored from quarantine", "検疫から復元しました"}
	msgNoExclusions       = text{"No exclusions", "除外はありません"}
	msgStepSkipped        = text{"not tried, because an earlier step failed", "前の手順が失敗したため実行していません"}
	msgTesting            = text{"Testing connection with %s", "%s との接続を検査しています"}
	msgEnrolled           = text{"Device enrolled", "デバイスを登録しました"}
	msgDiagnosticCreated  = text{"Diagnostic file created: %s", "診断ファイルを作成しました: %s"}
	msgAgentUnreachable   = text{"agent: not reachable", "agent: 接続できません"}
	msgVersionsDiffer     = text{"Command and agent are of different versions; update the older one", "コマンドとエージェントのバージョンが異なります。古い方を更新してください"}

	msgScanning         = text{"Scanning", "スキャン中"}
	msgProgress         = text{"Scanning: %d file(s), %d threat(s)", "スキャン中: %d ファイル、脅威 %d 件"}
	msgFilesScanned     = text{"%d file(s) scanned", "%d ファイルをスキャンしました"}
	msgFilesSkipped     = text{"%d file(s) could not be scanned", "%d ファイルはスキャンできませんでした"}
	msgThreatsDetected  = text{"%d threat(s) detected", "%d 件の脅威を検出しました"}
	msgNoScans          = text{"No scans", "スキャンはありません"}
	msgScanCancelled    = text{"Scan cancelled", "スキャンを中止しました"}
	msgScanWasCancelled = text{"the scan was cancelled before its end", "スキャンは途中で中止されました"}
	msgScanFailed       = text{"the scan failed: %s", "スキャンに失敗しました: %s"}
	msgScanGoesOn       = text{"the scan could not be cancelled and goes on", "スキャンを中止できず、続行しています"}
)

// msgExclusionAdded and msgExclusionRemoved are the lines that scripts look
// for.
var (
	msgExclusionAdded = map[policy.ExclusionType]text{
		policy.ExcludeFile:      {"File exclusion configured successfully", "ファイルの除外を設定しました"},
		policy.ExcludeFolder:    {"Folder exclusion configured successfully", "フォルダーの除外を設定しました"},
		policy.ExcludeExtension: {"Extension exclusion configured successfully", "拡張子の除外を設定しました"},
		policy.ExcludeProcess:   {"Process exclusion configured successfully", "プロセスの除外を設定しました"},
	}
	msgExclusionRemoved = map[policy.ExclusionType]text{
		policy.ExcludeFile:      {"File exclusion removed successfully", "ファイルの除外を削除しました"},
		policy.ExcludeFolder:    {"Folder exclusion removed successfully", "フォルダーの除外を削除しました"},
		policy.ExcludeExtension: {"Extension exclusion removed successfully", "拡張子の除外を削除しました"},
		policy.ExcludeProcess:   {"Process exclusion removed successfully", "プロセスの除外を削除しました"},
	}
)

// What is wrong with a command line.
var (
	msgInterrupted    = text{"interrupted", "中断しました"}
	msgTrySudo        = text{"Run it again with sudo: sudo %s …", "sudo を付けて実行してください: sudo %s …"}
	msgSeeHelp        = text{"See: %s --help", "参照: %s --help"}
	msgWhichCommand   = text{"one of these commands is needed after %s", "%s の後に上のいずれかのコマンドが必要です"}
	msgUnknownCommand = text{"there is no command %[2]q in %[1]s", "%[1]s に %[2]q というコマンドはありません"}
	msgDidYouMean     = text{"; did you mean %q?", "。%q のことですか?"}
	msgMissing        = text{"there is no %s in this version of Komainu", "%s はこのバージョンの Komainu にはありません"}
	msgNoField        = text{"there is no health field %q", "health に %q というフィールドはありません"}
	msgNoDetails      = text{"there are no details of %q: the features are %s", "%q の詳細はありません。指定できるのは %s です"}
	msgOneToken       = text{"give one of the join token, --token-file, or --cloud with --server and --pin", "参加トークン、--token-file、または --server と --pin を伴う --cloud のいずれか一つを指定してください"}
)

// usageTemplate is the part of help that lists commands and options.
func usageTemplate(a *app) string {
	heading := func(en, ja string) string { return a.say(text{en, ja}) }
	return `{{if .Runnable}}` + heading("Usage:", "使い方:") + `
  {{if .HasAvailableSubCommands}}{{.CommandPath}} COMMAND{{else}}{{.UseLine}}{{end}}

{{end}}{{if .HasAvailableSubCommands}}` + heading("Commands:", "コマンド:") + `{{range .Commands}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}

{{end}}{{if .HasAvailableLocalFlags}}` + heading("Options:", "オプション:") + `
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}

{{end}}{{if .HasAvailableInheritedFlags}}` + heading("Options of every command:", "全コマンド共通のオプション:") + `
{{.InheritedFlags.FlagUsages | trimTrailingWhitespaces}}
{{end}}`
}
