package onboard

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"komainu/control/machine"
	"komainu/deploy"
)

// A trouble of the control plane itself passes: a machine that met with it must
// not wait as long as one that somebody has to mend.
func TestOwnTroubleIsTriedAgainSoon(t *testing.T) {
	w := newWorld(t, "a")
	w.engine.cfg.Token = func(context.Context, machine.Machine) (string, error) { return "", errors.New("the disk is full") }
	w.run()
	if m := w.becomes("a", deploy.Failed, deploy.ConnectorFailed); time.Until(m.Extension.Next) > time.Minute {
		t.Errorf("it is tried again at %s", m.Extension.Next)
	}
}

// counter counts what is logged.
type counter struct {
	slog.Handler
	lines *atomic.Int64
}

func (counter) Enabled(context.Context, slog.Level) bool { return true }

func (c counter) Handle(context.Context, slog.Record) error { c.lines.Add(1); return nil }

// While nothing can be written down, the engine does not fill the log, which may
// be on the same disk.
func TestNothingCanBeWrittenDown(t *testing.T) {
	w := newWorld(t, "a")
	lines := new(atomic.Int64)
	w.engine.cfg.Log = slog.New(counter{slog.DiscardHandler, lines})
	looks := 0
	plan := w.engine.cfg.Plan
	w.engine.cfg.Plan = func(ctx context.Context, organization, environment string) (Plan, error) {
		w.mu.Lock()
		looks++
		w.mu.Unlock()
		return plan(ctx, organization, environment)
	}
	if _, err := w.db.ExecContext(t.Context(), "CREATE TRIGGER full BEFORE UPDATE ON machines BEGIN SELECT RAISE(ABORT, 'the disk is full'); END"); err != nil {
		t.Fatal(err)
	}
	w.run()
	for n := range 20 {
		w.engine.Wake()
		w.until("it has looked", func() bool { return looks > n+1 })
	}
	if n := lines.Load(); n == 0 || n > 4 {
		t.Errorf("%d lines were logged about one machine", n)
	}
}
