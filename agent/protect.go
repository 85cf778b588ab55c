package agent

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"komainu/agent/quarantine"
	"komainu/agent/realtime"
	"komainu/agent/scan"
	"komainu/agent/selftest"
	"komainu/event"
	"komainu/finding"
	"komainu/policy"
)

// protector decides on files: it asks the scanner, denies, quarantines, and
// tells what it found. It is the Judge of real-time protection and serves
// scans on demand.
type protector struct {
	log     *slog.Logger
	scanner *scan.Process
	store   *quarantine.Store
	history *quarantine.History
	record  *recorder
	tests   *selftest.Runner // is told of what is judged
	// who describes the process that had a pid, with its ancestors nearest
	// first.
	who func(pid event.PID) []event.Process

	now     atomic.Pointer[policy.Effective]
	matcher atomic.Pointer[policy.Matcher]

	counts scanCounts

	work sync.WaitGroup // quarantines that go on after the opener has its answer

	mu    sync.Mutex
	known map[realtime.Stamp]time.Time // bad files that were told of lately, without the time of their last change
	owing []owed
}

// settingsChanged takes what is in effect.
func (p *protector) settingsChanged(e policy.Effective) {
	p.now.Store(&e)
	p.matcher.Store(policy.NewMatcher(e.Exclusions, policy.ScopeEPP, policy.ScopeGlobal))
}

// scanBudget is what unpacking may take while somebody waits: the opener goes
// on at the deadline, but its judge is then free for the next one.
const scanBudget = 2 * time.Second

// Judge implements realtime.Judge.
func (p *protector) Judge(ctx context.Context, o realtime.Open) realtime.Decision {
	// Nobody waits for a file that has no name any more, except who is opening
	// it at this moment: quarantine may have taken the name away meanwhile, and
	// the content must not be read for that.
	if o.Path == "" && o.Kind != realtime.OpenPerm {
		return realtime.Decision{}
	}
	tree := p.who(o.PID)
	x, excluded := p.matcher.Load().Match(o.Path, processPath(tree))
	if excluded {
		p.tests.Opened(o.Path, &x)
		return realtime.Decision{} // not remembered: the next opener may be no excluded process
	}
	p.tests.Opened(o.Path, nil)
	p.counts.add(tree)
	v, err := p.scanner.Scan(ctx, o.File, scan.Options{Budget: scanBudget, SkipArchives: !p.now.Load().ScanArchives})
	if err != nil {
		p.log.Warn("a file could not be scanned", "path", o.Path, "error", err)
		return realtime.Decision{}
	}
	switch v = p.rated(v); v.Outcome {
	case finding.Clean:
		return realtime.Decision{Cache: true}
	case finding.Malicious:
		return p.malicious(ctx, o, v, tree)
	default:
		// Not fully scanned: let it through, ask again next time.
		return realtime.Decision{}
	}
}

// malicious denies and quarantines, as far as policy wants.
func (p *protector) malicious(ctx context.Context, o realtime.Open, v finding.Verdict, tree []event.Process) realtime.Decision {
	block := o.Mode == policy.Block && p.now.Load().RealTimeOn() && !p.onlyReported(v)
	allowed := slices.Contains(p.now.Load().AllowedThreats, string(v.Threat))
	deny := block && !allowed
	if !p.first(o.Stamp) {
		return realtime.Decision{Deny: deny, Cache: deny}
	}
	d := detection{path: o.Path, file: o.File, stamp: o.Stamp, verdict: v, tree: tree, state: finding.Detected, prevented: o.Kind == realtime.OpenPerm && deny, reported: p.onlyReported(v)}
	switch {
	case allowed:
		d.state = finding.Allowed
	case block:
		d.state = finding.Blocked
	}
	if o.Path == "" {
		// Nothing is left to be put into quarantine.
		d.path = "a file that has been deleted"
		p.remediate(ctx, d, false)
		return realtime.Decision{Deny: deny, Cache: deny}
	}
	// The opener has its answer before the file is moved away: quarantine takes
	// longer than an open may.
	if o.Kind == realtime.OpenPerm && deny {
		copied, err := reopen(o.File)
		if err == nil {
			d.file = copied
			p.work.Go(func() {
				defer copied.Close()
				p.remediate(context.WithoutCancel(ctx), d, true)
			})
			return realtime.Decision{Deny: true, Cache: true}
		}
		p.log.Warn("a descriptor could not be kept for quarantine", "path", o.Path, "error", err)
	}
	p.remediate(ctx, d, deny)
	return realtime.Decision{Deny: deny, Cache: deny}
}

// first reports whether a bad file is new: a program that tries again and
// again makes one finding a minute.
func (p *protector) first(s realtime.Stamp) bool {
	const quiet = time.Minute
	p.mu.Lock()
	defer p.mu.Unlock()
	s.ChangeTime = 0 // quarantine itself sets it when it takes the name away
	now := time.Now()
	if told, ok := p.known[s]; ok && now.Sub(told) < quiet {
		return false
	}
	if len(p.known) > 10_000 {
		clear(p.known)
	}
	p.known[s] = now
	return true
}

// detection is a malicious file and how it was come across.
type detection struct {
	path      string
	file      *os.File
	stamp     realtime.Stamp
	verdict   finding.Verdict
	tree      []event.Process
	state     finding.State
	prevented bool // an open was denied before
	reported  bool // policy wants it to be told of and no more
	scan      string
}

// remediate quarantines if wanted, and tells history and control plane.
func (p *protector) remediate(ctx context.Context, d detection, quarantineIt bool) finding.State {
	id := newFindingID()
	at := time.Now().UTC()
	reason := ""
	if quarantineIt {
		_, err := p.store.Add(ctx, quarantine.Request{ID: id, File: d.file, Path: d.path, Threat: d.verdict.Threat, SHA256: d.verdict.SHA256, Time: at})
		if err == nil {
			d.state = finding.Quarantined
		} else {
			reason = err.Error()
			p.log.Error("malware could not be quarantined; opens of it are denied where files are blocked", "path", d.path, "error", err)
			if d.state != finding.Blocked {
				d.state = finding.Failed
			}
		}
	}
	f := p.finding(id, at, d, reason)
	if reason != "" {
		p.owe(d, f, reason)
	}
	p.tell(id, at, d, f, reason)
	return d.state
}

// finding describes a detection for people.
func (p *protector) finding(id finding.ID, at time.Time, d detection, reason string) *finding.Finding {
	file := &event.File{Path: d.path, Size: d.verdict.Size, Device: d.stamp.Device, Inode: d.stamp.Inode, Type: d.verdict.MediaType,
		Hashes: event.Hashes{SHA256: d.verdict.SHA256}, ModTime: time.Unix(0, d.stamp.ModTime).UTC(), ChangeTime: time.Unix(0, d.stamp.ChangeTime).UTC()}
	family := familyOf(d.verdict.Threat)
	what, remediation := "detected", "Active"
	if d.state == finding.Blocked || d.state == finding.Quarantined {
		what, remediation = "prevented", "Prevented"
	}
	if d.state == finding.Quarantined {
		remediation = "Remediated"
	}
	f := &finding.Finding{
		ID: id, Time: at, Title: fmt.Sprintf("'%s' malware was %s", family, what), Severity: severityOf(d.verdict), Category: finding.CategoryMalware,
		Source: finding.SourceAntivirus, Rule: finding.Rule{ID: string(d.verdict.Threat), Name: string(d.verdict.Threat), Version: d.verdict.Definitions},
		State: d.state, Tree: d.tree, Summary: summaryOf(d, reason),
		Threat: &event.Threat{ID: string(id), Name: string(d.verdict.Threat), Type: string(d.verdict.Type), Action: string(d.state), Reason: reason,
			Definitions: d.verdict.Definitions, Inside: d.verdict.Inside},
		Evidence: []finding.Evidence{{Role: finding.Impacted, Verdict: "Malicious", State: remediation, File: file}},
	}
	if actor := actorOf(d.tree); actor != nil {
		f.Evidence = append(f.Evidence, finding.Evidence{Role: finding.Related, Verdict: "Unknown", Process: actor},
			finding.Evidence{Role: finding.Related, Verdict: "Unknown", User: &actor.User})
	}
	if d.verdict.Bomb != "" {
		// Nobody gets in by one, and it may be an accident.
		f.Title, f.Severity = "An archive bomb was "+what, finding.Low
	}
	return f
}

func summaryOf(d detection, reason string) string {
	where := d.path
	if d.verdict.Inside != "" {
		where += " (in it: " + d.verdict.Inside + ")"
	}
	by := "A scan"
	if actor := actorOf(d.tree); actor != nil {
		by = cmp.Or(actor.Path, actor.Name, "A process")
	} else if d.scan == "" {
		by = "A process"
	}
	text := fmt.Sprintf("%s touched %s, which is %s.", by, where, d.verdict.Threat)
	if d.scan != "" {
		text = fmt.Sprintf("A %s scan found %s in %s.", d.scan, d.verdict.Threat, where)
	}
	if d.verdict.Bomb != "" {
		text += " It is made to exhaust whoever unpacks it: " + d.verdict.Reason + "."
	}
	switch d.state {
	case finding.Quarantined:
		text += " It was put into quarantine."
	case finding.Blocked:
		text += " Opening it is denied"
		if reason != "" {
			text += "; it could not be put into quarantine: " + reason
		}
		text += "."
	case finding.Failed:
		text += " It could not be put into quarantine: " + reason + "."
	case finding.Allowed:
		text += " The threat is on the list of allowed threats; nothing was done."
	default:
		if d.reported {
			return text + " Nothing was done: archive bombs are only reported on this device."
		}
		text += " Nothing was done, because this filesystem is only watched or protection is passive."
	}
	return text
}

// familyOf takes the family and variant out of a CARO name.
func familyOf(name finding.ThreatName) string {
	if _, family, ok := strings.Cut(string(name), "/"); ok {
		return family
	}
	return string(name)
}

// severityOf rates test files as what they are.
func severityOf(v finding.Verdict) finding.Severity {
	if strings.HasPrefix(familyOf(v.Threat), "EICAR_") || v.Type == "test" {
		return finding.Informational
	}
	return finding.High
}

func actorOf(tree []event.Process) *event.Process {
	if len(tree) == 0 {
		return nil
	}
	return &tree[0]
}

func processPath(tree []event.Process) string {
	if len(tree) == 0 {
		return ""
	}
	return tree[0].Path
}

// newFindingID returns a random UUID (RFC 9562, version 4).
func newFindingID() finding.ID {
	var b [16]byte
	_, _ = rand.Read(b[:]) // ends the program when there is no randomness
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return finding.ID(fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]))
}

// found handles what a scan on demand has found.
func (p *protector) found(ctx context.Context, kind, path string, f *os.File, v finding.Verdict) {
	now := p.now.Load()
	d := detection{path: filepath.Clean(path), file: f, verdict: v, state: finding.Detected, scan: kind, reported: p.onlyReported(v)}
	if info, err := f.Stat(); err == nil {
		d.stamp.ModTime = info.ModTime().UnixNano()
	}
	allowed := slices.Contains(now.AllowedThreats, string(v.Threat))
	if allowed {
		d.state = finding.Allowed
	}
	p.remediate(ctx, d, now.EnforcementLevel != policy.Passive && !allowed && !p.onlyReported(v))
}
