package agent

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"

	"komainu/agent/quarantine"
	"komainu/event"
	"komainu/finding"
)

// A file that could not be quarantined, because the disk was full or would
// take no writes, stays where it is, denied to everybody. It is tried again
// until it is sealed, gone, or something else.
const (
	retryEvery = 2 * time.Second
	retryMost  = 1000 // files; more are caught when they are opened next
)

// owed is a quarantine that is still to be made good.
type owed struct {
	detection
	finding *finding.Finding
	was     fs.FileInfo
	at      time.Time
	reason  string // of the last failure
}

// owe keeps a failed quarantine for later.
func (p *protector) owe(d detection, f *finding.Finding, reason string) {
	info, err := d.file.Stat()
	if err != nil {
		return // caught again when it is opened next
	}
	d.file = nil // closed when remediate returns
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.owing) < retryMost {
		p.owing = append(p.owing, owed{detection: d, finding: f, was: info, at: f.Time, reason: reason})
	}
}

// owed returns how many quarantines are owed, and why the first one is.
func (p *protector) owed() (n int, reason string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.owing) > 0 {
		reason = p.owing[0].reason
	}
	return len(p.owing), reason
}

// runRetries pays what is owed, until ctx ends.
func (p *protector) runRetries(ctx context.Context) error {
	tick := time.NewTicker(retryEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for p.retryFirst(ctx) {
		}
	}
}

// retryFirst tries the first of them and reports whether to go on: what fails
// for one of them fails for the next one too.
func (p *protector) retryFirst(ctx context.Context) bool {
	p.mu.Lock()
	if len(p.owing) == 0 {
		p.mu.Unlock()
		return false
	}
	o := p.owing[0]
	p.mu.Unlock()
	if !p.retry(ctx, o) {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.owing = p.owing[1:] // only this goroutine takes from it
	return true
}

// retry tries to quarantine a file and reports whether nothing is left to be
// done for it.
func (p *protector) retry(ctx context.Context, o owed) (done bool) {
	f, err := openStill(o.path)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !os.SameFile(info, o.was) || !info.ModTime().Equal(o.was.ModTime()) {
		return true // another file by now: it is judged when it is opened
	}
	_, err = p.store.Add(ctx, quarantine.Request{ID: o.finding.ID, File: f, Path: o.path, Threat: o.verdict.Threat, SHA256: o.verdict.SHA256, Time: o.at})
	if err != nil {
		return false
	}
	o.state = finding.Quarantined
	again := p.finding(o.finding.ID, o.at, o.detection, "")
	if err := p.history.SetState(o.finding.ID, o.state, ""); err != nil {
		p.log.Error("the protection history could not be written", "error", err)
	}
	p.record.Finding(again)
	p.record.Event(&event.Event{Action: event.AntivirusDetection, Initiator: actorOf(o.tree), File: again.Evidence[0].File, Threat: again.Threat})
	p.log.Info("malware was put into quarantine after all", "threat", o.verdict.Threat, "path", o.path, "failed_with", o.reason)
	return true
}
