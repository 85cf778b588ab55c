package control

import (
	"testing"
	"time"

	"komainu/control/device"
	"komainu/control/eventstore"
	"komainu/control/incident"
	"komainu/control/rest"
	"komainu/event"
	"komainu/finding"
)

// TestSummaryCountsWhatItsLinksShow compares the numbers of the home page with
// the totals of the lists that they lead to.
func TestSummaryCountsWhatItsLinksShow(t *testing.T) {
	b := newBench(t)
	first, second := b.device("web-1"), b.device("web-2")
	b.finding(first, finding.High)
	b.finding(second, finding.Low)
	s := want[SummaryView](b, 200, "GET", "/summary", "")
	if s.Devices.Total != 2 || s.Incidents.Total != 2 || s.Alerts.Total != 2 || s.Incidents.Unassigned != 2 || len(s.Environments) != 1 {
		t.Fatalf("summary %+v", s)
	}
	for severity, n := range s.Incidents.BySeverity {
		if list := want[rest.List[incident.Incident]](b, 200, "GET", "/incidents?status=Open&severity="+severity.String(), ""); list.Total != n {
			t.Errorf("%d open incidents of severity %s, the list has %d", n, severity, list.Total)
		}
	}
	for severity, n := range s.Alerts.BySeverity {
		if list := want[rest.List[incident.Alert]](b, 200, "GET", "/alerts?status=Open&severity="+severity.String(), ""); list.Total != n {
			t.Errorf("%d open alerts of severity %s, the list has %d", n, severity, list.Total)
		}
	}
	risky := want[rest.List[device.Device]](b, 200, "GET", "/devices?risk=High&coverage=unlicensed&reason=plan_off", "")
	if risky.Total != 1 || risky.Items[0].ID != string(first) || risky.Items[0].RiskLevel != "High" || risky.Items[0].ActiveAlerts != 1 {
		t.Errorf("devices of high risk %+v", risky)
	}
	for _, i := range want[rest.List[incident.Incident]](b, 200, "GET", "/incidents?severity=High", "").Items {
		want[incident.IncidentPage](b, 200, "PATCH", "/incidents/"+i.ID, `{"status":"Resolved"}`)
	}
	if s := want[SummaryView](b, 200, "GET", "/summary", ""); s.Incidents.Total != 1 || s.Incidents.BySeverity[finding.High] != 0 {
		t.Errorf("after one was resolved: %+v", s.Incidents)
	}
}

func TestTimelineGoesBothWays(t *testing.T) {
	b := newBench(t)
	id := b.device("web-1")
	b.store.page = eventstore.Page{Events: []event.Event{{ID: event.ID{Device: id, Epoch: 1, Source: event.FromFile, Seq: 4}}}, Newer: "above"}
	v := want[TimelineView](b, 200, "GET", "/devices/"+string(id)+"/timeline?newer=true&cursor=here", "")
	if v.Newer != "above" || v.Next != "" || len(v.Items) != 1 || !b.store.asked.Newer || b.store.asked.Cursor != "here" {
		t.Errorf("answer %+v, asked for %+v", v, b.store.asked)
	}
}

// finding takes a finding of a device, as the queue would bring it.
func (b *bench) finding(id event.DeviceID, severity finding.Severity) {
	b.t.Helper()
	f := finding.Finding{
		ID: finding.ID("f-" + id), Time: time.Now(), Title: "Something", Severity: severity, Category: finding.CategoryExecution, Source: finding.SourceBehavior,
		State: finding.Detected, Evidence: []finding.Evidence{{Role: finding.Impacted, Verdict: "Suspicious", User: &event.User{Name: "www"}}},
	}
	if _, err := b.api.desk.Take(b.t.Context(), b.org, id, []finding.Finding{f}); err != nil {
		b.t.Fatal(err)
	}
}
