package selftest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"komainu/control/access"
	"komainu/control/db"
	"komainu/control/rest"
	"komainu/control/selftest"
	"komainu/drill"
	"komainu/event"
	"komainu/fault"
)

// world is what the runs ask, as a test wants it.
type world struct {
	runs     *selftest.Runs
	now      time.Time
	begin    error
	begun    []string
	trace    selftest.Trace
	notified *drill.Stage
	audited  []string
	changed  int
}

func open(t *testing.T, more func(*selftest.Config, *world)) *world {
	t.Helper()
	state, err := db.OpenMemory()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { state.Close() })
	if err := db.Migrate(t.Context(), state, selftest.Migrations); err != nil {
		t.Fatal(err)
	}
	w := &world{now: time.Date(2026, time.January, 2, 3, 4, 5, 0, time.UTC)}
	cfg := selftest.Config{
		Now: func() time.Time { return w.now },
		Record: func(_ context.Context, _ bun.IDB, c access.Change) error {
			w.audited = append(w.audited, c.Action+" "+c.Target)
			return nil
		},
		Begin: func(_ context.Context, device event.DeviceID, run, test string) error {
			w.begun = append(w.begun, string(device)+" "+test)
			return w.begin
		},
		Trace:   func(context.Context, string, event.DeviceID, string) (selftest.Trace, error) { return w.trace, nil },
		Changed: func(string, string) { w.changed++ },
	}
	if more != nil {
		more(&cfg, w)
	}
	w.runs = selftest.New(state, cfg)
	return w
}

func (w *world) report(t *testing.T, device event.DeviceID, r drill.Run) []drill.Stage {
	t.Helper()
	stages, err := w.runs.Report(t.Context(), "org", device, r)
	if err != nil {
		t.Fatal(err)
	}
	return stages
}

func TestARunFromThePortalToTheIncident(t *testing.T) {
	w := open(t, nil)
	run, err := w.runs.Start(t.Context(), "org", "web-1", "eicar")
	if err != nil || run.Outcome != drill.Running || len(w.begun) != 1 || w.begun[0] != "web-1 eicar" {
		t.Fatalf("%+v, begun %q, %v", run, w.begun, err)
	}
	if len(w.audited) != 1 || w.audited[0] != "device.detection_test web-1" {
		t.Errorf("audited %q", w.audited)
	}
	told := drill.New(run.ID, "eicar", w.now)
	told.Reach(drill.Kernel, w.now, "seen")
	// What a device says of an alert is passed over.
	told.Reach(drill.Alert, w.now, "forged")
	stages := w.report(t, "web-1", told)
	if len(stages) != 3 || stages[0].State != drill.Waiting {
		t.Errorf("before there is an alert: %+v", stages)
	}
	got, err := w.runs.Get(t.Context(), "org", run.ID)
	if err != nil || got.Stage(drill.Kernel).State != drill.OK || got.Stage(drill.Alert).State != drill.Waiting {
		t.Errorf("%+v, %v", got, err)
	}
	w.trace = selftest.Trace{Alert: "da1", Title: "found", AlertAt: w.now, Incident: "7"}
	told.Finding = "f"
	for _, id := range []drill.StageID{drill.Agent, drill.Sent, drill.Received} {
		told.Reach(id, w.now, "")
	}
	if stages = w.report(t, "web-1", told); stages[0].State != drill.OK || stages[1].State != drill.OK || stages[2].State != drill.Skipped {
		t.Errorf("with an alert: %+v", stages)
	}
	told.Outcome = drill.Passed
	w.report(t, "web-1", told)
	got, err = w.runs.Get(t.Context(), "org", run.ID)
	if err != nil || got.Outcome != drill.Passed || got.AlertID != "da1" || got.IncidentID != "7" {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := w.runs.Get(t.Context(), "other", run.ID); !fault.Is(err, fault.NotFound) {
		t.Errorf("another organization: %v", err)
	}
	if w.changed < 3 {
		t.Errorf("pages were told %d times", w.changed)
	}
}

func TestADeviceThatIsNotThereIsTheReason(t *testing.T) {
	w := open(t, nil)
	for cause, want := range map[error]drill.ReasonID{
		fault.New(fault.Unavailable, "device web-1 is not connected"): drill.LinkDown,
		fault.New(fault.Conflict, "a test is running already"):        drill.ScenarioFailed,
	} {
		w.begin = cause
		run, err := w.runs.Start(t.Context(), "org", "web-1", "edr-test")
		if err != nil || run.Outcome != drill.Explained || run.Reason.ID != want || run.Reason.Remedy == "" {
			t.Errorf("%v: %+v, %v", cause, run, err)
		}
	}
	if _, err := w.runs.Start(t.Context(), "org", "web-1", "rm -rf /"); !fault.Is(err, fault.Invalid) {
		t.Errorf("a test that is none: %v", err)
	}
	if len(w.begun) != 2 {
		t.Errorf("begun %q", w.begun)
	}
}

func TestADeviceThatFallsSilentIsTheReason(t *testing.T) {
	w := open(t, nil)
	run, err := w.runs.Start(t.Context(), "org", "web-1", "eicar")
	if err != nil {
		t.Fatal(err)
	}
	w.now = w.now.Add(4 * time.Minute)
	got, err := w.runs.Get(t.Context(), "org", run.ID)
	if err != nil || got.Outcome != drill.Explained || got.Reason.ID != drill.LinkDown {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestAlertsOfTestsNeedNoIncident(t *testing.T) {
	w := open(t, func(c *selftest.Config, w *world) {
		c.Notified = func(context.Context, string, string) (drill.Stage, error) { return *w.notified, nil }
	})
	w.trace = selftest.Trace{Alert: "da1", AlertAt: w.now, Test: true}
	w.notified = &drill.Stage{State: drill.Missing, Detail: "503"}
	told := drill.New("from-the-host", "eicar", w.now)
	told.Finding = "f"
	stages := w.report(t, "web-1", told)
	if stages[1].State != drill.Skipped || stages[2] != (drill.Stage{ID: drill.Notification, State: drill.Missing, Detail: "503"}) {
		t.Errorf("%+v", stages)
	}
	list, err := w.runs.List(t.Context(), "org", selftest.Query{Paging: rest.Paging{Limit: 10}, Device: "web-1"})
	if err != nil || list.Total != 1 || list.Items[0].ID != "from-the-host" || list.Items[0].StartedBy != "" {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestReportsThatMakeNoSenseAreRefused(t *testing.T) {
	w := open(t, nil)
	good := drill.New("1", "eicar", w.now)
	w.report(t, "web-1", good)
	for name, spoil := range map[string]func(*drill.Run){
		"no id":           func(r *drill.Run) { r.ID = "" },
		"an id of spaces": func(r *drill.Run) { r.ID = "a b" },
		"no test":         func(r *drill.Run) { r.Test = "x" },
		"outcome":         func(r *drill.Run) { r.Outcome = "won" },
		"no reason":       func(r *drill.Run) { r.Outcome = drill.Explained },
		"no stages":       func(r *drill.Run) { r.Stages = nil },
		"a stage more":    func(r *drill.Run) { r.Stages = append(r.Stages, drill.Stage{ID: "more", State: drill.OK}) },
		"another order":   func(r *drill.Run) { r.Stages[0], r.Stages[1] = r.Stages[1], r.Stages[0] },
		"a state":         func(r *drill.Run) { r.Stages[0].State = "<b>" },
	} {
		r := good.Clone()
		spoil(&r)
		if _, err := w.runs.Report(t.Context(), "org", "web-1", r); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := w.runs.Report(t.Context(), "org", "web-2", good); !fault.Is(err, fault.Denied) {
		t.Errorf("the run of another device: %v", err)
	}
	good.Explain(drill.Reason{ID: drill.PlanOff})
	w.report(t, "web-1", good)
	later := drill.New("1", "eicar", w.now)
	w.report(t, "web-1", later)
	if got, err := w.runs.Get(t.Context(), "org", "1"); err != nil || got.Outcome != drill.Explained {
		t.Errorf("a run that had ended: %+v, %v", got, err)
	}
}

func TestOldRunsAreForgotten(t *testing.T) {
	w := open(t, nil)
	w.begin = errors.New("no")
	for range 103 {
		w.now = w.now.Add(time.Second)
		if _, err := w.runs.Start(t.Context(), "org", "web-1", "eicar"); err != nil {
			t.Fatal(err)
		}
	}
	list, err := w.runs.List(t.Context(), "org", selftest.Query{Paging: rest.Paging{Limit: 1}})
	if err != nil || list.Total != 100 || list.Next == "" {
		t.Errorf("%d are kept, %v", list.Total, err)
	}
	if _, err := w.runs.Start(t.Context(), "org", "web-2", "eicar"); err != nil {
		t.Fatal(err)
	}
	if err := w.runs.Forget(t.Context(), "web-1"); err != nil {
		t.Fatal(err)
	}
	list, err = w.runs.List(t.Context(), "org", selftest.Query{Paging: rest.Paging{Limit: 10}})
	if err != nil || list.Total != 1 || list.Items[0].Device.ID != "web-2" {
		t.Errorf("with web-1 forgotten there are %+v, %v", list.Items, err)
	}
}
