package cli

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"komainu/agent/localapi"
	"komainu/fault"
)

func (a *app) scan() *cobra.Command {
	run := func(req localapi.ScanRequest) func(context.Context, *localapi.Client) error {
		return func(ctx context.Context, c *localapi.Client) error { return a.runScan(ctx, c, req) }
	}
	var req localapi.ScanRequest
	custom := a.leaf("custom --path PATH [--ignore-exclusions]", msgScanCustom, func(ctx context.Context, c *localapi.Client) error {
		path, err := filepath.Abs(req.Path)
		if err != nil {
			return err
		}
		return a.runScan(ctx, c, localapi.ScanRequest{Type: localapi.ScanCustom, Path: path, IgnoreExclusions: req.IgnoreExclusions})
	})
	custom.Flags().StringVar(&req.Path, "path", "", a.say(flagScanPath))
	custom.Flags().BoolVar(&req.IgnoreExclusions, "ignore-exclusions", false, a.say(flagIgnoreExclusions))
	custom.MarkFlagRequired("path")
	cancel := a.leaf("cancel", msgScanCancelShort, func(ctx context.Context, c *localapi.Client) error {
		job, err := c.CancelScan(ctx, "")
		if err != nil {
			return err
		}
		return a.changed(msgScanCancelled, "id", job.ID)
	})
	return a.group("scan", msgScan,
		a.leaf("quick", msgScanQuick, run(localapi.ScanRequest{Type: localapi.ScanQuick})),
		a.leaf("full", msgScanFull, run(localapi.ScanRequest{Type: localapi.ScanFull})),
		custom, cancel, a.scanList())
}

func (a *app) scanList() *cobra.Command {
	return a.leaf("list", msgScanList, func(ctx context.Context, c *localapi.Client) error {
		jobs, err := c.ScanJobs(ctx)
		if err != nil {
			return err
		}
		if a.output == "json" || len(jobs) == 0 {
			return show(a, jobs, msgNoScans, nil)
		}
		var rows [][]string
		for _, j := range jobs {
			rows = append(rows, []string{j.ID, string(j.Type), string(j.State), when(j.StartTime), when(j.EndTime),
				strconv.FormatInt(j.FilesScanned, 10), strconv.FormatInt(j.Threats, 10), j.Path})
		}
		a.table([]string{"id", "type", "state", "start", "end", "files scanned", "threats", "path"}, rows)
		return nil
	})
}

// runScan starts a scan, shows how far it is and how it ended. An interrupt
// cancels the scan; when the terminal goes away it goes on in the agent.
func (a *app) runScan(ctx context.Context, c *localapi.Client, req localapi.ScanRequest) error {
	job, err := c.StartScan(ctx, req)
	if err != nil {
		return err
	}
	p := a.progress()
	err = c.WatchScan(ctx, job.ID, func(j localapi.ScanJob) error {
		job = j
		p.show(j)
		return nil
	})
	p.end()
	if err != nil && ctx.Err() != nil {
		return a.interrupted(ctx, c, job.ID)
	}
	if err != nil {
		return err
	}
	if a.output == "json" {
		if err := a.json(job); err != nil {
			return err
		}
	} else {
		a.scanSummary(job)
	}
	switch job.State {
	case localapi.ScanCompleted:
		return nil
	case localapi.ScanFailed:
		return fault.New(fault.Internal, "%s", a.say(msgScanFailed, job.Error))
	default:
		return fault.New(fault.Conflict, "%s", a.say(msgScanWasCancelled))
	}
}

func (a *app) scanSummary(j localapi.ScanJob) {
	a.print("\t%s", a.say(msgFilesScanned, j.FilesScanned))
	if j.FilesSkipped > 0 {
		a.print("\t%s", a.say(msgFilesSkipped, j.FilesSkipped))
	}
	a.print("\t%s", a.say(msgThreatsDetected, j.Threats))
}

// interrupted cancels the scan that the user no longer waits for.
func (a *app) interrupted(ctx context.Context, c *localapi.Client, id string) error {
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if _, err := c.CancelScan(grace, id); err != nil && !fault.Is(err, fault.NotFound) {
		return fmt.Errorf("%s: %w", a.say(msgScanGoesOn), err)
	}
	return fault.New(fault.Conflict, "%s", a.say(msgScanWasCancelled))
}

// progress shows how far a scan is: a bar on a terminal, a line now and then
// in a pipe, nothing beside JSON.
type progress struct {
	a    *app
	bar  *progressbar.ProgressBar
	last time.Time
	seen int64
}

func (a *app) progress() *progress { return &progress{a: a, seen: -1} }

func (p *progress) show(j localapi.ScanJob) {
	switch {
	case p.a.output == "json":
	case p.a.env.Terminal:
		p.draw(j)
	case !j.State.Done() && j.FilesScanned != p.seen && time.Since(p.last) >= p.a.env.ProgressEvery:
		p.last, p.seen = time.Now(), j.FilesScanned
		p.a.print("%s", p.a.say(msgProgress, j.FilesScanned, j.Threats))
	}
}

func (p *progress) draw(j localapi.ScanJob) {
	total := j.FilesTotal
	if total < j.FilesScanned {
		total = -1 // the estimate was too low, or there is none
	}
	if p.bar == nil {
		p.bar = progressbar.NewOptions64(total, progressbar.OptionSetWriter(p.a.env.Stdout),
			progressbar.OptionSetDescription(p.a.say(msgScanning)), progressbar.OptionShowCount(),
			progressbar.OptionSetWidth(30), progressbar.OptionClearOnFinish(), progressbar.OptionThrottle(65*time.Millisecond))
	}
	if total != p.bar.GetMax64() {
		p.bar.ChangeMax64(total)
	}
	p.bar.Set64(j.FilesScanned)
}

// end takes the bar away.
func (p *progress) end() {
	if p.bar != nil {
		p.bar.Finish()
		p.bar.Clear()
	}
}
