package agent

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"time"

	"komainu/agent/ondemand"
	"komainu/agent/scan"
	"komainu/fault"
	"komainu/internal/atomicfile"
	"komainu/policy"
)

// runDefinitions makes a quick scan when the definitions are not those of the
// last start, where that is wanted. Then it waits for ctx.
func (w *worker) runDefinitions(ctx context.Context) error {
	if err := w.scanAfterUpdate(ctx, scan.Embedded().Version(), time.Minute); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// scanAfterUpdate notes the version once its scan has begun, so that an agent
// that is stopped before does it the next time.
func (w *worker) scanAfterUpdate(ctx context.Context, version string, pause time.Duration) error {
	name := w.cfg.path("definitions")
	text, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	was := strings.TrimSpace(string(text))
	if was == version {
		return nil
	}
	if was != "" { // else this is the first start: nothing was updated
		w.awaitChange(ctx, func(e policy.Effective) bool { return e.Licensed })
		if w.settings.Now().ScanAfterUpdate {
			if err := w.scanWhenFree(ctx, pause); err != nil {
				return err
			}
			w.log.Info("new definitions: a quick scan has begun", "version", version, "before", was)
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return atomicfile.Write(name, []byte(version+"\n"), 0o600)
}

// scanWhenFree starts a quick scan as soon as no other one runs.
func (w *worker) scanWhenFree(ctx context.Context, pause time.Duration) error {
	for {
		_, err := w.jobs.Start(ondemand.Request{Type: ondemand.Quick})
		if !fault.Is(err, fault.Conflict) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}
