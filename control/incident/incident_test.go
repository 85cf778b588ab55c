package incident_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/uptrace/bun"
	"pgregory.net/rapid"

	"komainu/control/access"
	"komainu/control/db"
	"komainu/control/incident"
	"komainu/control/rest"
	"komainu/event"
	"komainu/fault"
	"komainu/finding"
)

const org = "org"

var start = time.Date(2026, 11, 1, 9, 0, 0, 0, time.UTC)

type fataler interface {
	Fatal(...any)
	Helper()
}

// open returns a desk over an empty database, and the audit it keeps.
func open(t fataler) (*incident.Desk, *bun.DB, *[]string) {
	t.Helper()
	d, err := db.OpenMemory()
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Migrate(context.Background(), d, incident.Migrations); err != nil {
		t.Fatal(err)
	}
	recorded := new([]string)
	desk := incident.New(d, incident.Config{
		Now: func() time.Time { return start },
		Record: func(_ context.Context, _ bun.IDB, c access.Change) error {
			*recorded = append(*recorded, c.Action)
			return nil
		},
	})
	return desk, d, recorded
}

func process(pid event.PID, parent event.PID, session uint32) event.Process {
	key := func(p event.PID) event.ProcessKey {
		return event.ProcessKey{Boot: "b", PID: p, Start: uint64(p) * 1e9}
	}
	return event.Process{Key: key(pid), Parent: key(parent), Session: session, Name: fmt.Sprint("p", pid)}
}

// eicar is a finding of the test file by curl (77), started by a shell (50).
func eicar(id string, state finding.State, file string, at time.Duration) finding.Finding {
	return finding.Finding{
		ID: finding.ID(id), Time: start.Add(at), Title: "whatever", Severity: finding.Informational, Category: finding.CategoryMalware,
		Source: finding.SourceAntivirus, Threat: &event.Threat{Name: "Virus:DOS/EICAR_Test_File"}, State: state,
		Evidence: []finding.Evidence{{File: &event.File{Path: file, Hashes: event.Hashes{SHA256: "275a"}}}},
		Tree:     []event.Process{process(77, 50, 50), process(50, 1, 50), process(1, 0, 1)},
	}
}

// behaviour is a finding about a script (pid), started by the same shell.
func behaviour(id string, pid event.PID, at time.Duration) finding.Finding {
	return finding.Finding{
		ID: finding.ID(id), Time: start.Add(at), Title: "Enumeration of files with sensitive data", Severity: finding.Low,
		Category: finding.CategoryCredentialAccess, Source: finding.SourceBehavior, Rule: finding.Rule{ID: "sensitive-enumeration"}, State: finding.Detected,
		Tree: []event.Process{process(pid, 50, 50), process(50, 1, 50), process(1, 0, 1)},
	}
}

func take(t fataler, d *incident.Desk, device event.DeviceID, list ...finding.Finding) {
	t.Helper()
	for _, f := range list {
		if _, err := d.Take(context.Background(), org, device, []finding.Finding{f}); err != nil {
			t.Fatal(err)
		}
	}
}

func incidents(t fataler, d *incident.Desk) []incident.Incident {
	t.Helper()
	list, err := d.Incidents(context.Background(), org, incident.IncidentQuery{Paging: rest.Paging{Limit: 1000}})
	if err != nil {
		t.Fatal(err)
	}
	return list.Items
}

func alerts(t fataler, d *incident.Desk) []incident.Alert {
	t.Helper()
	list, err := d.Alerts(context.Background(), org, incident.AlertQuery{Paging: rest.Paging{Limit: 1000}})
	if err != nil {
		t.Fatal(err)
	}
	return list.Items
}

func TestEICARBecomesOneAlertInOneIncident(t *testing.T) {
	d, _, _ := open(t)
	take(t, d, "host", eicar("1", finding.Blocked, "/srv/eicar.com", 0), eicar("2", finding.Quarantined, "/srv/eicar.com", time.Second), eicar("3", finding.Blocked, "/srv/eicar.com", 2*time.Second))
	list := alerts(t, d)
	if len(list) != 1 {
		t.Fatalf("%d alerts", len(list))
	}
	a := list[0]
	if a.Title != "'EICAR_Test_File' malware was prevented" || a.Severity != finding.Informational || a.Category != "Malware" || a.State != "quarantined" || a.Occurrences != 3 || a.DetectionSource != "Antivirus" {
		t.Errorf("alert %+v", a)
	}
	if !a.LastActivity.Equal(start.Add(2*time.Second)) || !a.FirstActivity.Equal(start) {
		t.Errorf("activity %v to %v", a.FirstActivity, a.LastActivity)
	}
	in := incidents(t, d)
	if len(in) != 1 || in[0].Name != "'EICAR_Test_File' malware was prevented on one endpoint" || in[0].Alerts != (incident.AlertCounts{Active: 1, Total: 1}) || in[0].ID != a.IncidentID {
		t.Errorf("incidents %+v", in)
	}
	if _, f, err := d.Alert(t.Context(), org, a.ID); err != nil || f.ID != "2" || len(f.Tree) != 3 {
		t.Errorf("evidence of %q, %v", f.ID, err)
	}
}

func TestOnlyWatchingSaysDetected(t *testing.T) {
	d, _, _ := open(t)
	take(t, d, "host", eicar("1", finding.Detected, "/srv/eicar.com", 0))
	if a := alerts(t, d); a[0].Title != "'EICAR_Test_File' malware was detected" || a[0].State != "detected" {
		t.Errorf("alert %+v", a[0])
	}
}

func TestTheSameFindingToldAgainWithItsOutcome(t *testing.T) {
	d, _, _ := open(t)
	take(t, d, "host", eicar("1", finding.Detected, "/srv/eicar.com", 0), eicar("1", finding.Quarantined, "/srv/eicar.com", 0), eicar("1", finding.Detected, "/srv/eicar.com", 0))
	if a := alerts(t, d); len(a) != 1 || a[0].State != "quarantined" || a[0].Occurrences != 1 {
		t.Errorf("alerts %+v", a)
	}
}

func TestTestFileAndBehaviourOfOneSessionStayApart(t *testing.T) {
	d, _, _ := open(t)
	take(t, d, "host", eicar("1", finding.Quarantined, "/srv/eicar.com", 0), behaviour("2", 90, time.Minute))
	var names []string
	for _, in := range incidents(t, d) {
		names = append(names, in.Name)
	}
	slices.Sort(names)
	want := []string{"'EICAR_Test_File' malware was prevented on one endpoint", "Enumeration of files with sensitive data on one endpoint"}
	if !slices.Equal(names, want) {
		t.Errorf("incidents %q", names)
	}
}

func TestWhatBelongsTogether(t *testing.T) {
	malware := func(id string, pid event.PID, at time.Duration) finding.Finding {
		f := eicar(id, finding.Blocked, "/srv/"+id, at)
		f.Severity, f.Threat, f.Evidence[0].File.Hashes.SHA256 = finding.High, &event.Threat{Name: "Trojan:Linux/Mirai.A"}, id
		f.Tree = []event.Process{process(pid, 40, 40), process(40, 1, 40)}
		return f
	}
	other := malware("5", 66, time.Hour)
	other.Tree = []event.Process{process(66, 41, 41), process(41, 1, 41)}
	child := behaviour("6", 67, time.Hour)
	child.Tree = []event.Process{process(67, 66, 99), process(66, 41, 41)}
	d, _, _ := open(t)
	for _, c := range []struct {
		name string
		list []finding.Finding
		want int
	}{
		{"same_file_elsewhere", []finding.Finding{eicar("1", finding.Blocked, "/a", 0), eicar("2", finding.Blocked, "/b", time.Hour)}, 1},
		{"same_file_a_day_later", []finding.Finding{eicar("1", finding.Blocked, "/a", 0), eicar("2", finding.Blocked, "/b", 25*time.Hour)}, 2},
		{"same_session", []finding.Finding{behaviour("1", 90, 0), behaviour("2", 91, time.Hour)}, 1},
		{"other_session", []finding.Finding{malware("1", 60, 0), behaviour("2", 90, time.Hour)}, 2},
		{"ancestor", []finding.Finding{other, child}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, _, _ = open(t)
			take(t, d, "host", c.list...)
			if got := incidents(t, d); len(got) != c.want {
				t.Errorf("%d incidents, want %d: %+v", len(got), c.want, got)
			}
		})
	}
	t.Run("other_device", func(t *testing.T) {
		d, _, _ = open(t)
		take(t, d, "host", eicar("1", finding.Blocked, "/a", 0))
		take(t, d, "guest", eicar("2", finding.Blocked, "/a", 0))
		if got := incidents(t, d); len(got) != 2 {
			t.Errorf("%d incidents", len(got))
		}
	})
	if a := alerts(t, d); a[0].Title != "'EICAR_Test_File' malware was prevented" {
		t.Errorf("title %q", a[0].Title)
	}
}

func TestSelfTestsStayOutOfIncidents(t *testing.T) {
	d, _, _ := open(t)
	f := eicar("1", finding.Quarantined, "/a", 0)
	f.Test = true
	take(t, d, "host", f)
	if a := alerts(t, d); len(a) != 1 || !a[0].Test || a[0].IncidentID != "" || len(incidents(t, d)) != 0 {
		t.Errorf("alerts %+v, incidents %+v", a, incidents(t, d))
	}
	if risks, err := d.Risks(t.Context(), org); err != nil || len(risks) != 0 {
		t.Errorf("risks %v, %v", risks, err)
	}
}

func TestTriage(t *testing.T) {
	d, _, recorded := open(t)
	take(t, d, "host", eicar("1", finding.Quarantined, "/a", 0), behaviour("2", 90, 0))
	if r, err := d.Risks(t.Context(), org); err != nil || r["host"] != (incident.Risk{Active: 2, Severity: finding.Low}) {
		t.Errorf("risk %+v, %v", r, err)
	}
	a := alerts(t, d)[0]
	effects, err := d.ChangeAlert(t.Context(), org, a.ID, incident.Triage{Status: new(incident.StatusInProgress)})
	if err != nil || len(effects) != 1 || effects[0].To != incident.StatusInProgress || effects[0].ID != a.IncidentID {
		t.Fatalf("effects %+v, %v", effects, err)
	}
	if _, err := d.ChangeAlert(t.Context(), org, a.ID, incident.Triage{Status: new("Done")}); !fault.Is(err, fault.Invalid) {
		t.Errorf("a status of one's own: %v", err)
	}
	if _, err := d.ChangeAlert(t.Context(), "another", a.ID, incident.Triage{Status: new(incident.StatusNew)}); !fault.Is(err, fault.NotFound) {
		t.Errorf("of another organization: %v", err)
	}
	effects, err = d.ChangeIncident(t.Context(), org, a.IncidentID, incident.Triage{Status: new(incident.StatusResolved), Assignee: new("kim")})
	if err != nil || len(effects) != 1 || effects[0].Kind != "alerts" || effects[0].Count != 1 {
		t.Errorf("effects %+v, %v", effects, err)
	}
	page, err := d.Incident(t.Context(), org, a.IncidentID)
	if err != nil || page.Status != incident.StatusResolved || page.Assignee != "kim" || page.Alerts.Active != 0 || page.AlertItems[0].Status != incident.StatusResolved {
		t.Errorf("page %+v, %v", page, err)
	}
	if want := []string{"alert.change", "incident.change"}; !slices.Equal(*recorded, want) {
		t.Errorf("recorded %q", *recorded)
	}
	// A resolved incident takes no further alerts.
	take(t, d, "host", eicar("3", finding.Quarantined, "/b", time.Hour), behaviour("4", 91, time.Hour))
	if got := incidents(t, d); len(got) != 3 {
		t.Errorf("%d incidents", len(got))
	}
}

// outcome is what people see, without ids that depend on the order of arrival.
func outcome(t fataler, d *incident.Desk) string {
	byIncident := map[string][]string{}
	for _, a := range alerts(t, d) {
		byIncident[a.IncidentID] = append(byIncident[a.IncidentID], fmt.Sprintf("%s %s %s %s %s×%d %v–%v", a.Device.ID, a.Title, a.Severity, a.State, a.Summary, a.Occurrences, a.FirstActivity, a.LastActivity))
	}
	var all []string
	for _, list := range byIncident {
		slices.Sort(list)
		all = append(all, strings.Join(list, "\n"))
	}
	slices.Sort(all)
	for _, in := range incidents(t, d) {
		all = append(all, fmt.Sprintf("%s %d %v–%v", in.Name, in.Alerts.Total, in.FirstActivity, in.LastActivity))
	}
	slices.Sort(all)
	return strings.Join(all, "\n---\n")
}

func TestOrderOfArrivalDoesNotMatter(t *testing.T) {
	d, b, _ := open(t)
	rapid.Check(t, func(t *rapid.T) {
		one := rapid.Custom(func(t *rapid.T) finding.Finding {
			at := time.Duration(rapid.IntRange(0, 60*60*60).Draw(t, "seconds")) * time.Second
			if rapid.Bool().Draw(t, "near") {
				at = time.Duration(rapid.IntRange(0, 200).Draw(t, "seconds")) * time.Second
			}
			id := fmt.Sprint(rapid.IntRange(0, 6).Draw(t, "id"))
			var f finding.Finding
			if rapid.Bool().Draw(t, "antivirus") {
				state := rapid.SampledFrom([]finding.State{finding.Detected, finding.Blocked, finding.Quarantined, finding.Failed}).Draw(t, "state")
				f = eicar("av"+id, state, rapid.SampledFrom([]string{"/a", "/b"}).Draw(t, "file"), at)
				if rapid.Bool().Draw(t, "harmful") {
					f.Severity, f.Evidence[0].File.Hashes.SHA256 = finding.High, "other"
				}
			} else {
				f = behaviour("b"+id, event.PID(rapid.IntRange(90, 92).Draw(t, "pid")), at)
			}
			f.Summary = fmt.Sprint(f.ID, f.State)
			return f
		})
		// An agent tells of one id always the same thing, but for its state.
		seen := map[string]finding.Finding{}
		for _, f := range rapid.SliceOfN(one, 1, 12).Draw(t, "findings") {
			key := string(f.ID) + string(f.State)
			for other, g := range seen {
				if g.ID == f.ID && other != key {
					state, summary := f.State, f.Summary
					f = g
					f.State, f.Summary = state, summary
				}
			}
			if _, ok := seen[key]; !ok {
				seen[key] = f
			}
		}
		keys := slices.Sorted(maps.Keys(seen))
		var results []string
		for range 2 {
			// The same tables for every round: making them takes longest.
			for _, table := range []string{"incident_activity", "alert_keys", "findings", "alerts", "incidents"} {
				if _, err := b.ExecContext(context.Background(), "DELETE FROM "+table); err != nil {
					t.Fatal(err)
				}
			}
			for i, key := range rapid.Permutation(keys).Draw(t, "order") {
				take(t, d, "host", seen[key])
				if i%3 == 0 {
					take(t, d, "host", seen[key]) // delivered again
				}
			}
			got := outcome(t, d)
			for _, key := range keys {
				take(t, d, "host", seen[key])
			}
			if again := outcome(t, d); again != got {
				t.Fatalf("replay changed\n%s\nto\n%s", got, again)
			}
			results = append(results, got)
		}
		if results[0] != results[1] {
			t.Fatalf("one order:\n%s\n\nanother order:\n%s", results[0], results[1])
		}
	})
}

func TestRecommended(t *testing.T) {
	f := eicar("1", finding.Detected, "/a", 0)
	if got := incident.Recommended(&f); !strings.Contains(got[0], "Nothing was done") {
		t.Errorf("%q", got)
	}
	f = behaviour("2", 90, 0)
	if got := incident.Recommended(&f); len(got) == 0 || strings.Contains(got[0], "file") {
		t.Errorf("%q", got)
	}
}
