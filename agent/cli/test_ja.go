package cli

import "komainu/drill"

// scenariosJa and reasonsJa are the Japanese texts of detection tests; a test
// holds them against the vocabulary.
var scenariosJa = map[string]scenarioText{
	"eicar":             {"EICAR テストファイル", "プログラムがウイルス対策のテストファイルを書き込みます。リアルタイム保護が検出し、検疫します。"},
	"eicar-archive":     {"二重のアーカイブ内の EICAR", "zip の中の zip にテストファイルを入れて書き込みます。リアルタイム保護が中を調べます。"},
	"policy-block":      {"マルウェアを開くことの拒否", "テストファイルを書き込んで開きます。ポリシーがこのファイルシステムでブロックするため、1 バイトも読めません。"},
	"edr-test":          {"機密ファイルの探索", "スクリプトが find、grep、cat で囮の機密ファイルを探して読みます。振る舞いルールが検出します。"},
	"edr-test-python":   {"機密ファイルの探索（Python）", "同じ探索を Python プログラムで行います。"},
	"edr-test-builtins": {"機密ファイルの探索（シェルのみ）", "シェルだけで同じ探索を行います。ファイルを開く操作を見るセンサーだけが検出できます。"},
	"edr-test-renamed":  {"機密ファイルの探索（名前を変えたプログラム）", "別名にした cat のコピーで同じ探索を行います。"},
	"behavior":          {"隠しファイルのプログラム", "一時フォルダーの隠しファイルからプログラムを実行します。振る舞いルールが検出します。このバージョンではブロックせず報告します。"},
}

var reasonsJa = map[drill.ReasonID]struct{ why, remedy string }{
	drill.NotEnrolled:        {"このデバイスは登録されていないため、保護するプランがありません", "ポータルの参加トークンを使って komainu enrol TOKEN を実行してください"},
	drill.NoPolicy:           {"コントロールプレーンからポリシーがまだ届いていません", "komainu connectivity test を実行してください"},
	drill.PlanOff:            {"このデバイスの環境のサーバープランがオフです", "ポータルの環境設定でオンにしてください"},
	drill.RealTimeOff:        {"リアルタイム保護がオフです", "適用レベルを real_time にしてください"},
	drill.RealTimeMissing:    {"このホストではリアルタイム保護を利用できません", "Linux で root としてエージェントを実行してください"},
	drill.NotProtected:       {"ポリシーはこのファイルシステムを保護していません", "ポリシーのファイルシステムに追加するか、--folder で別のフォルダーを指定してください"},
	drill.WatchOnly:          {"このファイルシステムは監視のみで、マルウェアは報告されますがブロックされません", "ポリシーでモードを block にしてください"},
	drill.Marking:            {"カーネルはまだこのファイルシステムを報告していません", "数秒待ってください。続く場合は komainu health --details を確認してください"},
	drill.Excluded:           {"除外により保護の対象になっていません", "除外を削除するか、--folder で別のフォルダーを指定してください"},
	drill.ThreatAllowed:      {"この脅威は許可された脅威の一覧にあります", "komainu threat allowed remove で一覧から外してください"},
	drill.ArchivesOff:        {"アーカイブの中を調べない設定です", "komainu config scan-archives --value enabled を実行するか、ポリシーで設定してください"},
	drill.DetectionOff:       {"エンドポイント検出がオフのため、センサーが動いていません", "プランの設定でエンドポイント検出をオンにしてください"},
	drill.BehaviorOff:        {"動作の監視がオフです。ルールは検出しましたが、通知しませんでした", "komainu config behavior-monitoring --value enabled を実行するか、ポリシーで設定してください"},
	drill.SensorDown:         {"センサーが動いていません", "root としてエージェントを実行してください。詳細は komainu health --details にあります"},
	drill.SensorLacks:        {"このホストのセンサーでは見えないものがあります", "komainu health --details を確認してください"},
	drill.ScannerDown:        {"スキャナーが動いていません", "エージェントのログを確認してください"},
	drill.QuietRule:          {"少し前に同じものが検出されたため、再び報告されません", "10 分待ってもう一度実行してください"},
	drill.ProgramMissing:     {"テストに必要なプログラムがありません", "別のテストを実行してください"},
	drill.ScenarioFailed:     {"テストを実行できませんでした", "原因を取り除いてもう一度実行してください"},
	drill.LinkDown:           {"コントロールプレーンとの接続がありません", "komainu connectivity test を実行してください。検出結果は保持され、後で送信されます"},
	drill.IdentityRefused:    {"コントロールプレーンがこのデバイスを拒否しています", "新しい参加トークンで komainu enrol --force TOKEN を実行してください"},
	drill.ClockOff:           {"このマシンの時計がコントロールプレーンとずれています", "時計を合わせてください"},
	drill.SpoolBehind:        {"検出結果は他の記録の後ろで送信を待っています", "送信が終わるまで待ってください。検出結果は保持されています"},
	drill.ControlPlaneBehind: {"コントロールプレーンの処理がまだ追いついていません", "コントロールプレーンの /readyz とログを確認してください"},
	drill.ControlPlaneOld:    {"コントロールプレーンが古く、その後の状況を答えられません", "コントロールプレーンを更新するか、ポータルでアラートを確認してください"},
	drill.NotificationFailed: {"通知を配信できませんでした", "ポータルで通知のテストを行ってください"},
	drill.Unknown:            {"妨げとなるものは見つかっていません", "komainu diagnostic create で診断アーカイブを作成し、報告してください"},
}
