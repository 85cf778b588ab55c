package agent

import (
	"context"
	"os"

	"komainu/agent/localapi"
	"komainu/agent/ondemand"
)

// StartScan implements localapi.Scans.
func (l *local) StartScan(_ context.Context, req localapi.ScanRequest) (localapi.ScanJob, error) {
	j, err := l.w.jobs.Start(ondemand.Request{Type: ondemand.Type(req.Type), Path: req.Path, IgnoreExclusions: req.IgnoreExclusions})
	return jobOf(j), err
}

// WatchScan implements localapi.Scans.
func (l *local) WatchScan(ctx context.Context, id string, progress func(localapi.ScanJob) error) error {
	return l.w.jobs.Watch(ctx, id, func(j ondemand.Job) error { return progress(jobOf(j)) })
}

// CancelScan implements localapi.Scans.
func (l *local) CancelScan(_ context.Context, id string) (localapi.ScanJob, error) {
	j, err := l.w.jobs.Cancel(id)
	return jobOf(j), err
}

// ScanJobs implements localapi.Scans.
func (l *local) ScanJobs(context.Context) ([]localapi.ScanJob, error) {
	var list []localapi.ScanJob
	for _, j := range l.w.jobs.Jobs() {
		list = append(list, jobOf(j))
	}
	return list, nil
}

func jobOf(j ondemand.Job) localapi.ScanJob {
	return localapi.ScanJob{
		ID: j.ID, Type: localapi.ScanType(j.Type), State: localapi.ScanState(j.State), Path: j.Path, StartTime: j.Start, EndTime: j.End,
		FilesScanned: j.Files, BytesScanned: j.Bytes, FilesSkipped: j.Skipped, Threats: j.Threats, Error: j.Error,
	}
}

// openRegular opens a file that is there to be looked at: no link, no device.
func openRegular(path string) (*os.File, error) { return ondemand.OpenRegular(path) }
