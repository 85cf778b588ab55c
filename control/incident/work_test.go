package incident_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"komainu/control/access"
	"komainu/control/db"
	"komainu/control/incident"
	"komainu/control/rest"
	"komainu/event"
	"komainu/fault"
	"komainu/finding"
)

func as(t *testing.T, name string) context.Context {
	return access.WithActor(t.Context(), access.Actor{Kind: access.User, Name: name, Organization: org})
}

func TestWorkOnAnIncident(t *testing.T) {
	d, _, recorded := open(t)
	take(t, d, "host", behaviour("1", 90, 0), behaviour("2", 91, 0))
	id := alerts(t, d)[0].IncidentID
	effects, err := d.ChangeIncident(as(t, "kim"), org, id, incident.Triage{
		Name: new("  The night  shift "), Severity: new(finding.High), Assignee: new("kim"),
		Classification: new(incident.TruePositive), Determination: new("Malware"),
	})
	if err != nil || len(effects) != 1 || effects[0].Field != "classification" {
		t.Fatalf("effects %+v, %v", effects, err)
	}
	page, err := d.Incident(t.Context(), org, id)
	if err != nil || page.Name != "The night shift" || page.Severity != finding.High || page.Classification != incident.TruePositive || page.Determination != "Malware" {
		t.Errorf("page %+v, %v", page.Incident, err)
	}
	for _, a := range page.AlertItems {
		if a.Classification != incident.TruePositive || a.Determination != "Malware" {
			t.Errorf("alert %+v", a)
		}
	}
	c, err := d.CommentIncident(as(t, "lee"), org, id, " Looked at the shell. \n")
	if err != nil || c.Author != "lee" || c.Text != "Looked at the shell." {
		t.Errorf("comment %+v, %v", c, err)
	}
	work, err := d.IncidentWork(t.Context(), page.Incident)
	if err != nil || len(work.Comments) != 1 || work.Comments[0].ID != c.ID || !work.Comments[0].At.Equal(c.At) {
		t.Errorf("work %+v, %v", work, err)
	}
	var told []string
	for _, a := range work.Activity {
		told = append(told, fmt.Sprintf("%s %s %s→%s", a.Actor, a.Action, a.From, a.To))
	}
	for _, want := range []string{"kim severity Low→High", "kim assignee →kim", "kim determination →Malware", "system created →"} {
		if !slices.Contains(told, want) {
			t.Errorf("activity %q lacks %q", told, want)
		}
	}
	if want := []string{"incident.change", "incident.comment"}; !slices.Equal(*recorded, want) {
		t.Errorf("recorded %q", *recorded)
	}
	// Another classification drops what was said under the old one.
	if _, err := d.ChangeIncident(as(t, "kim"), org, id, incident.Triage{Classification: new(incident.FalsePositive)}); err != nil {
		t.Fatal(err)
	}
	if page, err := d.Incident(t.Context(), org, id); err != nil || page.Determination != "" || page.Classification != incident.FalsePositive {
		t.Errorf("page %+v, %v", page.Incident, err)
	}
	// The severity that a person has set counts in queries too.
	high, err := d.Incidents(t.Context(), org, incident.IncidentQuery{Paging: rest.Paging{Limit: 10}, Selection: incident.Selection{Severity: "High,Medium"}})
	if err != nil || high.Total != 1 {
		t.Errorf("high %+v, %v", high, err)
	}
}

func TestRefusedChanges(t *testing.T) {
	d, _, recorded := open(t)
	take(t, d, "host", behaviour("1", 90, 0))
	a := alerts(t, d)[0]
	for name, c := range map[string]incident.Triage{
		"a determination alone":         {Determination: new("Malware")},
		"one of another classification": {Classification: new(incident.FalsePositive), Determination: new("Malware")},
		"an unknown classification":     {Classification: new("Perhaps")},
		"an unknown status":             {Status: new("Done")},
		"the name of an alert":          {Name: new("mine")},
		"the severity of an alert":      {Severity: new(finding.High)},
	} {
		if _, err := d.ChangeAlert(t.Context(), org, a.ID, c); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, text := range []string{"", " \n\t"} {
		if _, err := d.CommentAlert(t.Context(), org, a.ID, text); !fault.Is(err, fault.Invalid) {
			t.Errorf("comment %q: %v", text, err)
		}
	}
	if _, err := d.CommentIncident(t.Context(), "another", a.IncidentID, "hello"); !fault.Is(err, fault.NotFound) {
		t.Errorf("a comment from another organization: %v", err)
	}
	if len(*recorded) != 0 {
		t.Errorf("recorded %q", *recorded)
	}
}

// TestStaleChanges has two people who have looked at the same page.
func TestStaleChanges(t *testing.T) {
	d, _, _ := open(t)
	take(t, d, "host", behaviour("1", 90, 0))
	id := alerts(t, d)[0].IncidentID
	seen := map[string]string{"assignee": "", "status": incident.StatusActive}
	change := func(who string, c incident.Triage) error {
		c.Was = seen
		_, err := d.ChangeIncident(as(t, who), org, id, c)
		return err
	}
	if err := change("kim", incident.Triage{Assignee: new("kim")}); err != nil {
		t.Fatal(err)
	}
	if err := change("lee", incident.Triage{Assignee: new("lee"), Status: new(incident.StatusInProgress)}); !fault.Is(err, fault.Conflict) {
		t.Errorf("the assignee was overwritten unseen: %v", err)
	}
	if page, err := d.Incident(t.Context(), org, id); err != nil || page.Assignee != "kim" || page.Status != incident.StatusActive {
		t.Errorf("a refused change left %+v, %v", page.Incident, err)
	}
	if err := change("lee", incident.Triage{Status: new(incident.StatusInProgress)}); err != nil {
		t.Errorf("another field was refused, though nothing would be lost: %v", err)
	}
	if err := change("lee", incident.Triage{Assignee: new("kim")}); err != nil {
		t.Errorf("what is so already was refused: %v", err)
	}
}

func TestStatusesRollUp(t *testing.T) {
	d, _, _ := open(t)
	take(t, d, "host", behaviour("1", 90, 0), behaviour("2", 91, 0))
	list := alerts(t, d)
	id := list[0].IncidentID
	status := func() string {
		page, err := d.Incident(t.Context(), org, id)
		if err != nil {
			t.Fatal(err)
		}
		return page.Status
	}
	set := func(i int, s string) {
		t.Helper()
		if _, err := d.ChangeAlert(as(t, "kim"), org, list[i].ID, incident.Triage{Status: &s}); err != nil {
			t.Fatal(err)
		}
	}
	for i, step := range []struct {
		alert      int
		to, expect string
	}{
		{0, incident.StatusResolved, incident.StatusInProgress},
		{1, incident.StatusInProgress, incident.StatusInProgress},
		{1, incident.StatusResolved, incident.StatusResolved},
		{0, incident.StatusNew, incident.StatusInProgress},
	} {
		if set(step.alert, step.to); status() != step.expect {
			t.Errorf("step %d: %s, want %s", i, status(), step.expect)
		}
	}
}

func TestQueriesSelectAndPage(t *testing.T) {
	d, _, _ := open(t)
	for i := range 25 {
		take(t, d, event.DeviceID(fmt.Sprint("host", i)), behaviour(fmt.Sprint("b", i), 90, time.Duration(i)*time.Minute), eicar(fmt.Sprint("e", i), finding.Quarantined, "/a", time.Duration(i)*time.Minute))
	}
	var got []string
	q := incident.AlertQuery{Paging: rest.Paging{Limit: 7}, Selection: incident.Selection{Sort: "severity", Order: "asc"}}
	for {
		page, err := d.Alerts(t.Context(), org, q)
		if err != nil || page.Total != 50 {
			t.Fatalf("%d alerts, %v", page.Total, err)
		}
		for _, a := range page.Items {
			got = append(got, a.Severity.String())
		}
		if q.Cursor = page.Next; q.Cursor == "" {
			break
		}
	}
	if len(got) != 50 || got[0] != "Informational" || got[49] != "Low" || !slices.IsSorted(got) {
		t.Errorf("%d in the order %q", len(got), got)
	}
	count := func(s incident.Selection) int {
		t.Helper()
		page, err := d.Alerts(t.Context(), org, incident.AlertQuery{Paging: rest.Paging{Limit: 100}, Selection: s})
		if err != nil {
			t.Fatal(err)
		}
		in, err := d.Incidents(t.Context(), org, incident.IncidentQuery{Paging: rest.Paging{Limit: 100}, Selection: s})
		if err != nil || in.Total == 0 != (page.Total == 0) {
			t.Fatalf("%d incidents for %d alerts, %v", in.Total, page.Total, err)
		}
		return page.Total
	}
	for name, c := range map[string]struct {
		s    incident.Selection
		want int
	}{
		"category":   {incident.Selection{Category: "Malware"}, 25},
		"categories": {incident.Selection{Category: "Malware,CredentialAccess"}, 50},
		"nobody":     {incident.Selection{Assignee: "-"}, 50},
		"somebody":   {incident.Selection{Assignee: "kim"}, 0},
		"since":      {incident.Selection{Since: start.Add(20 * time.Minute)}, 10},
		"until":      {incident.Selection{Until: start.Add(4 * time.Minute)}, 10},
		"a name":     {incident.Selection{Q: "enumeration"}, 25},
		"a wildcard": {incident.Selection{Q: "%"}, 0},
		"a device":   {incident.Selection{Device: "host3"}, 2},
	} {
		if got := count(c.s); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
	if _, err := d.Alerts(t.Context(), org, incident.AlertQuery{Selection: incident.Selection{Severity: "Huge"}}); !fault.Is(err, fault.Invalid) {
		t.Errorf("an unknown severity: %v", err)
	}
}

func TestGraph(t *testing.T) {
	d, _, _ := open(t)
	f := behaviour("1", 90, 0)
	f.Evidence = []finding.Evidence{{Verdict: "Suspicious", State: "Active", Process: &f.Tree[0]}, {File: &event.File{Path: "/etc/shadow"}}}
	f.Events = []event.Event{{Action: event.ConnectionSuccess, Time: start, Initiator: &f.Tree[0], Network: &event.Network{RemoteIP: netip.MustParseAddr("192.0.2.9"), RemotePort: 443}}}
	take(t, d, "host", f)
	page, err := d.Incident(t.Context(), org, alerts(t, d)[0].IncidentID)
	if err != nil {
		t.Fatal(err)
	}
	told, err := d.Told(t.Context(), page)
	if err != nil {
		t.Fatal(err)
	}
	g := incident.GraphOf(told)
	label := map[string]string{}
	for _, n := range g.Nodes {
		label[n.ID] = n.Kind + " " + n.Label
	}
	var edges []string
	for _, e := range g.Edges {
		edges = append(edges, label[e.From]+" "+e.Label+" "+label[e.To])
	}
	alert := "alert Enumeration of files with sensitive data"
	for _, want := range []string{
		"process p90 raised " + alert, alert + " involves file shadow", "process p50 started process p90", "device host runs process p1",
		"process p90 connected to address 192.0.2.9:443", "process p90 ran as user 0",
	} {
		if !slices.Contains(edges, want) {
			t.Errorf("edges %q lack %q", edges, want)
		}
	}
}

func TestGraphIsBounded(t *testing.T) {
	f := behaviour("1", 90, 0)
	for i := range 500 {
		f.Evidence = append(f.Evidence, finding.Evidence{File: &event.File{Path: fmt.Sprint("/f", i)}})
	}
	g := incident.GraphOf([]incident.Told{{Alert: incident.Alert{ID: "a"}, Finding: f}})
	// Device, alert, three processes, the user and 500 files.
	if len(g.Nodes) != 200 || len(g.Nodes)+g.LeftOut != 506 {
		t.Errorf("%d nodes, %d left out", len(g.Nodes), g.LeftOut)
	}
	for _, e := range g.Edges {
		if !slices.ContainsFunc(g.Nodes, func(n incident.Node) bool { return n.ID == e.To }) {
			t.Errorf("an edge leads to %s, which is not there", e.To)
		}
	}
}

// TestNews checks what is told of, and that it is told where it becomes true.
func TestNews(t *testing.T) {
	state, err := db.OpenMemory()
	if err != nil {
		t.Fatal(err)
	}
	defer state.Close()
	if err := db.Migrate(t.Context(), state, incident.Migrations); err != nil {
		t.Fatal(err)
	}
	var told []string
	var refuse error
	d := incident.New(state, incident.Config{
		Record: func(context.Context, bun.IDB, access.Change) error { return nil },
		Tell: func(_ context.Context, _ bun.IDB, _ string, n incident.News) error {
			switch {
			case n.Alert != nil:
				told = append(told, fmt.Sprint(n.Event, " ", n.Alert.Severity, " ", n.Was != 0, " ", n.From, n.Test))
			default:
				told = append(told, fmt.Sprint(n.Event, " ", n.Incident.Severity, " ", n.Was != 0, " ", n.From, n.Test))
			}
			return refuse
		},
	})
	expect := func(want ...string) {
		t.Helper()
		if !slices.Equal(told, want) {
			t.Errorf("told %q, want %q", told, want)
		}
		told = nil
	}
	take(t, d, "host", behaviour("1", 90, 0))
	expect("alert.created Low false false", "incident.created Low false false")
	take(t, d, "host", behaviour("1", 90, 0))
	expect()
	worse := behaviour("2", 90, time.Hour)
	worse.Severity = finding.High
	take(t, d, "host", worse)
	expect("alert.created High false false", "incident.raised High true false")
	test := eicar("3", finding.Detected, "/t", 0)
	test.Test = true
	take(t, d, "other", test)
	expect("alert.created Informational false true")
	id := alerts(t, d)[0].IncidentID
	if id == "" {
		id = alerts(t, d)[1].IncidentID
	}
	if _, err := d.ChangeIncident(as(t, "kim"), org, id, incident.Triage{Status: new(incident.StatusResolved)}); err != nil {
		t.Fatal(err)
	}
	expect("incident.changed High false Activefalse")
	// What cannot be told has not happened.
	refuse = fault.New(fault.Exhausted, "full")
	if _, err := d.Take(t.Context(), org, "third", []finding.Finding{behaviour("9", 95, 0)}); !fault.Is(err, fault.Exhausted) {
		t.Errorf("taken: %v", err)
	}
	if n := len(alerts(t, d)); n != 3 {
		t.Errorf("%d alerts", n)
	}
}
