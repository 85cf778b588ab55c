package agent

import (
	"bytes"
	"compress/gzip"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"komainu/agent/ondemand"
	"komainu/agent/scan"
	"komainu/finding"
	"komainu/policy"
)

// archiveBomb is a few kilobytes that unpack to 96 MiB.
func archiveBomb(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	zeros := make([]byte, 1<<20)
	for range 96 {
		if _, err := w.Write(zeros); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// withBombs lays an action on archive bombs over what the device does.
func withBombs(p *protector, action policy.ThreatAction) {
	e := *p.now.Load()
	e.ThreatTypes = map[policy.ThreatType]policy.ThreatAction{policy.ArchiveBomb: action}
	p.settingsChanged(e)
}

// TestArchiveBombs: policy decides whether they are blocked, reported or left
// alone, when they are opened and when a scan comes across them.
func TestArchiveBombs(t *testing.T) {
	p := protectorOf(t, t.TempDir())
	content := archiveBomb(t)
	for _, c := range []struct {
		action policy.ThreatAction
		deny   bool
		states []finding.State // of what is told
	}{
		{policy.ActionOff, false, nil},
		{policy.ActionAudit, false, []finding.State{finding.Detected}},
		{policy.ActionBlock, true, []finding.State{finding.Quarantined}},
	} {
		t.Run(string(c.action), func(t *testing.T) {
			withBombs(p, c.action)
			told := func(name string) (states []finding.State) {
				for _, threat := range p.history.List() {
					if threat.Path == name {
						states = append(states, threat.State)
						if threat.Name != "ArchiveBomb:Any/Ratio" || threat.Type != "archive_bomb" || threat.Severity != finding.Low {
							t.Errorf("told of as %+v", threat)
						}
					}
				}
				return states
			}
			check := func(how, name string) {
				t.Helper()
				if got := told(name); len(got) != len(c.states) || len(got) == 1 && got[0] != c.states[0] {
					t.Errorf("%s: told of as %v, want %v", how, got, c.states)
				}
				if _, err := os.Lstat(name); os.IsNotExist(err) != c.deny {
					t.Errorf("%s: the file: %v", how, err)
				}
			}
			o := opened(t, filepath.Join(t.TempDir(), "bomb.gz"), content)
			o.Stamp.Inode = uint64(len(c.action)) // another file each time
			if d := p.Judge(t.Context(), o); d.Deny != c.deny || d.Cache && !d.Deny {
				t.Errorf("opened: %+v", d)
			}
			p.work.Wait()
			check("opened", o.Path)

			o = opened(t, filepath.Join(t.TempDir(), "bomb.gz"), content)
			v, err := p.scanner.Scan(t.Context(), o.File, scan.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if v = p.rated(v); (v.Outcome == finding.Malicious) != (c.action != policy.ActionOff) {
				t.Fatalf("scanned: %+v", v)
			}
			if v.Outcome == finding.Malicious {
				p.found(context.Background(), string(ondemand.Quick), o.Path, o.File, v)
			}
			check("scanned", o.Path)
		})
	}
}

// TestSummaryOfABomb: people learn why nothing was done, and what the archive
// does.
func TestSummaryOfABomb(t *testing.T) {
	d := detection{path: "/srv/x.gz", scan: "quick", state: finding.Detected, reported: true,
		verdict: named(finding.Verdict{Outcome: finding.NotFullyScanned, Bomb: finding.BombDepth, Reason: "archives are nested deeper than 12"})}
	if text := summaryOf(d, ""); !strings.Contains(text, "nested deeper than 12") || !strings.Contains(text, "only reported") {
		t.Error(text)
	}
}

// TestVerdictsOnBombsAreForgotten: what was remembered under another action
// does not count.
func TestVerdictsOnBombsAreForgotten(t *testing.T) {
	audit, block := policy.Merge(nil, policy.Settings{}), policy.Merge(nil, policy.Settings{ThreatTypes: map[policy.ThreatType]policy.ThreatAction{policy.ArchiveBomb: policy.ActionBlock}})
	if judgedByOf(audit).same(judgedByOf(block)) || !judgedByOf(audit).same(judgedByOf(audit)) {
		t.Error("a change of what is done about bombs does not drop verdicts")
	}
}
