package control

import (
	"context"
	"fmt"

	"github.com/uptrace/bun"

	"komainu/control/access"
	"komainu/control/gateway"
	"komainu/control/incident"
	"komainu/control/notify"
	"komainu/control/rest"
	"komainu/control/selftest"
	"komainu/drill"
	"komainu/event"
	"komainu/finding"
)

// newTests returns the runs of detection tests. agents is set before the first
// run can begin.
func newTests(state *bun.DB, record access.Recorder, desk *incident.Desk, agents **gateway.Gateway, notices *notify.Notifier, changes *hub, news func()) *selftest.Runs {
	return selftest.New(state, selftest.Config{
		Record: record,
		Begin: func(ctx context.Context, device event.DeviceID, run, test string) error {
			return (*agents).Test(ctx, device, run, test)
		},
		Trace: func(ctx context.Context, organization string, device event.DeviceID, id string) (selftest.Trace, error) {
			a, found, err := desk.OfFinding(ctx, organization, device, finding.ID(id))
			if err != nil || !found {
				return selftest.Trace{}, err
			}
			return selftest.Trace{Alert: a.ID, Title: a.Title, AlertAt: a.CreatedAt, Incident: a.IncidentID, Test: a.Test}, nil
		},
		Notified: func(ctx context.Context, organization, alert string) (drill.Stage, error) {
			return notified(ctx, desk, notices, organization, alert)
		},
		Changed: func(organization, run string) {
			news()
			changes.publish(organization, topicRun, run)
		},
	})
}

// notified says what became of the notifications of a new alert.
func notified(ctx context.Context, desk *incident.Desk, notices *notify.Notifier, organization, id string) (drill.Stage, error) {
	a, _, err := desk.Alert(ctx, organization, id)
	if err != nil {
		return drill.Stage{}, err
	}
	m := messageOf(&incident.News{Event: incident.AlertCreated, Alert: &a, Test: a.Test}, "")
	o, err := notices.Of(ctx, organization, m, a.CreatedAt)
	s := drill.Stage{Detail: o.Detail}
	switch {
	case o.Wanted == 0:
		s.State, s.Detail = drill.Skipped, "no notification is set up for such alerts"
		if a.Test {
			s.Detail += " of tests"
		}
	case o.Failed > 0:
		s.State = drill.Missing
	case o.Waiting > 0:
		s.State = drill.Waiting
	default:
		s.State, s.At, s.Detail = drill.OK, o.At, fmt.Sprintf("%d delivered", o.Wanted)
	}
	return s, err
}

// DetectionTest is a scenario as it is listed.
type DetectionTest struct {
	drill.Scenario
	Command string `json:"command" doc:"what runs it on the host itself"`
}

func (a *api) listTests(context.Context, *struct{}) (rest.List[DetectionTest], error) {
	scenarios := drill.Scenarios()
	list := make([]DetectionTest, len(scenarios))
	for i, s := range scenarios {
		list[i] = DetectionTest{s, s.Command()}
	}
	return rest.NewList(list, len(list), ""), nil
}

type runTestInput struct {
	ID   event.DeviceID `path:"id" doc:"id of a device"`
	Body struct {
		Test string `json:"test" maxLength:"64" doc:"id of a detection test"`
	}
}

func (a *api) runTest(ctx context.Context, in *runTestInput) (selftest.Run, error) {
	organization := access.ActorOf(ctx).Organization
	if _, err := a.devices.Get(ctx, organization, in.ID); err != nil {
		return selftest.Run{}, err
	}
	return a.namedRun(a.tests.Start(ctx, organization, in.ID, in.Body.Test))
}

func (a *api) namedRun(run selftest.Run, err error) (selftest.Run, error) {
	if err == nil {
		a.nameDevice(&run.Device)
	}
	return run, err
}

func (a *api) testRun(ctx context.Context, in *byID) (selftest.Run, error) {
	return a.namedRun(a.tests.Get(ctx, access.ActorOf(ctx).Organization, in.ID))
}

func (a *api) listTestRuns(ctx context.Context, in *selftest.Query) (rest.List[selftest.Run], error) {
	list, err := a.tests.List(ctx, access.ActorOf(ctx).Organization, *in)
	for i := range list.Items {
		a.nameDevice(&list.Items[i].Device)
	}
	return list, err
}
