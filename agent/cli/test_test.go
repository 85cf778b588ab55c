package cli

import (
	"bytes"
	"testing"
	"time"

	"komainu/drill"
)

// TestEveryTestAndReasonIsTranslated holds the Japanese texts against the
// vocabulary.
func TestEveryTestAndReasonIsTranslated(t *testing.T) {
	for _, s := range drill.Scenarios() {
		if ja := scenariosJa[s.ID]; ja.name == "" || ja.about == "" {
			t.Errorf("scenario %s has no Japanese text", s.ID)
		}
	}
	for _, id := range drill.Reasons() {
		if ja := reasonsJa[id]; ja.why == "" || ja.remedy == "" {
			t.Errorf("reason %s has no Japanese text", id)
		}
	}
	for _, id := range drill.Stages() {
		if stageNames[id].en == "" || stageNames[id].ja == "" {
			t.Errorf("stage %s has no name", id)
		}
	}
	if len(scenariosJa) != len(drill.Scenarios()) || len(reasonsJa) != len(drill.Reasons()) {
		t.Error("there are texts of things that there are none of")
	}
}

func TestARunForPeople(t *testing.T) {
	at := time.Date(2026, time.January, 2, 3, 4, 5, 0, time.UTC)
	r := drill.New("1", "eicar", at)
	r.Reach(drill.Kernel, at.Add(120*time.Millisecond), "asked about /srv/\x1b[31m")
	r.Explain(drill.Reason{ID: drill.Excluded, Text: "an exclusion keeps it out: folder /srv", Remedy: "remove the exclusion", Detail: "folder /srv"})
	for _, c := range []struct {
		ja   bool
		want string
	}{
		{false, "[ok] the kernel saw it +0.12s — asked about /srv/�[31m\n[missing] the agent judged it\nIt did not arrive: an exclusion keeps it out: folder /srv.\nWhat to do: remove the exclusion.\n"},
		{true, "[完了] カーネルが検知 +0.12s — asked about /srv/�[31m\n[未到達] エージェントが判定\n到達しませんでした: 除外により保護の対象になっていません（folder /srv）。\n対処: 除外を削除するか、--folder で別のフォルダーを指定してください。\n"},
	} {
		var out bytes.Buffer
		a := &app{env: Env{Stdout: &out}, ja: c.ja}
		a.stage(r, r.Stages[0])
		a.stage(r, r.Stages[1])
		a.verdict(r)
		if out.String() != c.want {
			t.Errorf("it says\n%s\nwant\n%s", out.String(), c.want)
		}
	}
}
