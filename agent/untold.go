package agent

import (
	"io/fs"
	"os"
	"time"

	"komainu/agent/quarantine"
	"komainu/event"
	"komainu/finding"
)

// tellUntold makes good for an agent that was killed between sealing a file
// and telling of it: what is in quarantine and in no history becomes a finding
// now. If the original is still there, the agent died before it was removed:
// the sealed copy goes, and the file is put into quarantine anew.
func (p *protector) tellUntold() {
	objects, err := p.store.List()
	if err != nil {
		p.log.Error("the quarantine cannot be read", "error", err)
		return
	}
	for _, o := range objects {
		if _, told := p.history.Get(o.ID); told || !p.history.Covers(o.Time) {
			continue
		}
		d := detection{path: o.Path, state: finding.Quarantined, prevented: true,
			verdict: finding.Verdict{Outcome: finding.Malicious, Threat: finding.ThreatName(o.Threat), SHA256: o.SHA256, Size: o.Size}}
		d.stamp.ModTime = o.ModTime.UnixNano()
		reason := ""
		if info, err := os.Lstat(o.Path); err == nil && isOriginal(info, o) {
			if err := p.store.Remove(o.ID); err != nil {
				p.log.Error("a copy of what is not in quarantine yet could not be removed", "path", o.Path, "error", err)
				continue
			}
			d.state, reason = finding.Detected, "the agent ended before it could"
			f := p.finding(o.ID, o.Time, d, reason)
			p.mu.Lock()
			p.owing = append(p.owing, owed{detection: d, finding: f, was: info, at: o.Time, reason: reason})
			p.mu.Unlock()
		}
		p.tell(o.ID, o.Time, d, p.finding(o.ID, o.Time, d, reason), reason)
	}
}

// isOriginal reports whether a file is the one that was sealed. Who may write
// to its folder can make one that looks so; it is scanned by its hash again.
func isOriginal(info fs.FileInfo, o quarantine.Object) bool {
	return info.Mode().IsRegular() && info.Size() == o.Size && info.ModTime().Equal(o.ModTime)
}

// tell records a finding, then what komainu threat list shows: the control
// plane knows a finding that comes twice by its id.
func (p *protector) tell(id finding.ID, at time.Time, d detection, f *finding.Finding, reason string) {
	p.record.Finding(f)
	p.record.Event(&event.Event{Action: event.AntivirusDetection, Time: at, Initiator: actorOf(d.tree), File: f.Evidence[0].File, Threat: f.Threat})
	user, process := "", ""
	if actor := actorOf(d.tree); actor != nil {
		user, process = actor.User.Name, actor.Path
	}
	entry := quarantine.Threat{ID: id, Name: string(d.verdict.Threat), Type: string(d.verdict.Type), Path: d.path, Inside: d.verdict.Inside, SHA256: d.verdict.SHA256,
		User: user, Process: process, Reason: reason, Severity: f.Severity, State: d.state, Time: at, Size: d.verdict.Size}
	if err := p.history.Add(entry); err != nil {
		p.log.Error("the protection history could not be written", "error", err)
	}
	p.log.Info("malware found", "threat", d.verdict.Threat, "path", d.path, "state", d.state)
}
