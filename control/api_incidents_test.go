package control

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"komainu/control/access"
	"komainu/control/incident"
	"komainu/control/notify"
	"komainu/control/rest"
	"komainu/event"
	"komainu/finding"
)

// shell is a finding of a reverse shell.
func shell(id finding.ID) finding.Finding {
	p := event.Process{Key: event.ProcessKey{Boot: "b", PID: 9, Start: 1e9}, Path: "/bin/bash", Name: "bash", Args: []string{"bash", "-i"}, User: event.User{Name: "www"}}
	return finding.Finding{
		ID: id, Time: time.Now(), Title: "Potential reverse shell detected", Severity: finding.High, Category: finding.CategoryCommandAndControl, Source: finding.SourceBehavior,
		Rule: finding.Rule{ID: "reverse-shell", Name: "Potential reverse shell detected", Version: "1"}, State: finding.Detected, Tree: []event.Process{p},
		Evidence: []finding.Evidence{{Role: finding.Impacted, Verdict: "Suspicious", State: "Active", Process: &p}},
		Events:   []event.Event{{Action: event.ProcessCreated, Process: &p}},
	}
}

func TestWorkOnIncidentsOverTheAPI(t *testing.T) {
	b := newBench(t)
	changed, err := b.api.desk.Take(t.Context(), b.org, b.device("web-1"), []finding.Finding{shell("f")})
	if err != nil {
		t.Fatal(err)
	}
	alertPath, incidentPath := "/alerts/"+changed.Alerts[0], "/incidents/1"
	a := want[AlertView](b, 200, "GET", alertPath, "")
	if a.Rule.ID != "reverse-shell" || a.Rule.Logic == "" || a.Rule.About == "" || a.Rule.Matched["commandLine"] != "bash -i" || a.Rule.Matched["user"] != "www" || a.Classification != "NotSet" {
		t.Errorf("rule %+v", a.Rule)
	}
	a = want[AlertView](b, 200, "PATCH", alertPath, `{"status":"InProgress","classification":"FalsePositive","determination":"Clean","assignee":"kim"}`)
	if a.Determination != "Clean" || a.Assignee != "kim" || len(a.Effects) != 1 || len(a.Activity) != 4 {
		t.Errorf("alert %+v", a)
	}
	want[rest.Problem](b, 422, "PATCH", alertPath, `{"determination":"Malware"}`)
	want[rest.Problem](b, 409, "PATCH", alertPath, `{"assignee":"lee","was":{"assignee":""}}`)
	c := want[incident.Comment](b, 200, "POST", incidentPath+"/comments", `{"text":"Ours."}`)
	in := want[IncidentView](b, 200, "PATCH", incidentPath, `{"status":"Resolved","severity":"Low","name":"Ours"}`)
	if in.Name != "Ours" || in.Severity != finding.Low || len(in.Effects) != 1 || in.Effects[0].Count != 1 || len(in.Comments) != 1 || in.Comments[0].ID != c.ID {
		t.Errorf("incident %+v", in)
	}
	if len(in.Evidence) != 1 || in.Evidence[0].Verdict != "Suspicious" || in.Evidence[0].Device.Name != "web-1" || in.Evidence[0].Alert != a.ID {
		t.Errorf("evidence %+v", in.Evidence)
	}
	kinds := map[string]string{}
	for _, n := range in.Graph.Nodes {
		kinds[n.Kind] = n.Label
	}
	if kinds["device"] != "web-1" || kinds["process"] != "bash" || kinds["user"] != "www" || kinds["alert"] == "" || len(in.Graph.Edges) == 0 {
		t.Errorf("graph %+v", in.Graph)
	}
	people := want[rest.List[access.Assignee]](b, 200, "GET", "/assignees", "")
	if people.Total != 1 || people.Items[0].Name != access.FirstUser {
		t.Errorf("people %+v", people)
	}
	for query, total := range map[string]int{"category=CommandAndControl": 1, "category=Malware": 0, "severity=High,Low": 1, "classification=FalsePositive": 1, "assignee=kim": 1, "since=2100-01-01T00:00:00Z": 0, "sort=severity&order=asc": 1} {
		if got := want[rest.List[incident.Alert]](b, 200, "GET", "/alerts?"+query, ""); got.Total != total {
			t.Errorf("%s: %d", query, got.Total)
		}
	}
	want[rest.Problem](b, 422, "GET", "/alerts?sort=luck", "")
}

// TestAnAlertIsToldOf goes from a finding to the receiver of a webhook.
func TestAnAlertIsToldOf(t *testing.T) {
	b := newBench(t)
	got := make(chan notify.Message, 10)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var m notify.Message
		if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
			t.Error(err)
		}
		got <- m
	}))
	defer receiver.Close()
	n := want[notify.Notification](b, 200, "POST", "/notifications", `{"name":"hook","kind":"webhook","on":["newAlert","statusChange"],"target":{"url":"`+receiver.URL+`"},"secret":"a secret of some length"}`)
	if !n.SecretSet || n.LastDelivery != nil {
		t.Errorf("notification %+v", n)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.api.notices.Run(ctx) }()
	next := func() notify.Message {
		t.Helper()
		select {
		case m := <-got:
			return m
		case <-time.After(10 * time.Second):
			t.Fatal("nothing arrived")
			return notify.Message{}
		}
	}
	id := b.device("web-1")
	changed, err := b.api.desk.Take(t.Context(), b.org, id, []finding.Finding{shell("f")})
	if err != nil {
		t.Fatal(err)
	}
	m := next()
	if m.Event != "alert.created" || m.Devices[0] != (notify.Device{ID: string(id), Name: "web-1"}) || m.Link != "https://komainu.example:8443/alerts/"+changed.Alerts[0] || m.Subject.Incident != "1" || m.Subject.Rule != "reverse-shell" {
		t.Errorf("message %+v", m)
	}
	want[IncidentView](b, 200, "PATCH", "/incidents/1", `{"status":"Resolved"}`)
	if m := next(); m.Event != "incident.changed" || m.Status != "Resolved" || m.Change == nil || m.Change.From != "Active" || m.Change.By != "admin" {
		t.Errorf("message %+v, change %+v", m, m.Change)
	}
	result := want[notify.TestResult](b, 200, "POST", "/notifications/"+n.ID+"/test", "")
	if m := next(); !result.Ok || m.Event != notify.EventTest {
		t.Errorf("result %+v, message %+v", result, m)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	for _, path := range []string{"/notifications", "/notifications/" + n.ID, "/audit"} {
		if _, text := b.send(access.Admin, "GET", "/api/v1"+path, ""); strings.Contains(text, "a secret of some length") {
			t.Errorf("%s holds the secret: %s", path, text)
		}
	}
}
