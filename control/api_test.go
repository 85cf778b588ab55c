package control

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/uptrace/bun"

	"komainu/control/access"
	"komainu/control/audit"
	"komainu/control/connector/cloud"
	"komainu/control/db"
	"komainu/control/device"
	"komainu/control/enrol"
	"komainu/control/eventstore"
	"komainu/control/gateway"
	"komainu/control/incident"
	"komainu/control/notify"
	"komainu/control/plan"
	"komainu/control/queue"
	"komainu/control/rest"
	"komainu/event"
	"komainu/fault"
	"komainu/finding"
	"komainu/policy"
)

var update = flag.Bool("update", false, "write schema.sql anew")

var cheap = access.Hashing{Passes: 1, Memory: 64, Threads: 1}

// fakeStore is a timeline of one page.
type fakeStore struct {
	eventstore.Store
	asked eventstore.Query
	page  eventstore.Page
}

func (f *fakeStore) Timeline(_ context.Context, q eventstore.Query) (eventstore.Page, error) {
	f.asked = q
	return f.page, nil
}

// bench is the API over real slices, behind TLS, without queue and store.
type bench struct {
	t      *testing.T
	api    *api
	state  *bun.DB
	store  *fakeStore
	server *httptest.Server
	tokens map[access.Role]string
	org    string
	env    string
	log    *bytes.Buffer
	header http.Header // sent with every request
	// open opens machines, connectors and packages anew, for another address.
	open func(address string, clouds cloud.Options)
}

func newBench(t *testing.T) *bench {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	state, err := db.OpenMemory()
	must(err)
	t.Cleanup(func() { state.Close() })
	must(db.Migrate(t.Context(), state, migrations()...))
	b := &bench{t: t, state: state, store: &fakeStore{}, tokens: map[access.Role]string{}, log: new(bytes.Buffer)}
	log := slog.New(slog.NewTextHandler(b.log, nil))
	trail := audit.New(state, time.Now)
	users := access.New(state, access.Config{Log: log, Version: "test", Hashing: cheap, Record: trail.Record})
	_, err = users.Bootstrap(t.Context(), "Example")
	must(err)
	org, err := users.Organization(t.Context())
	must(err)
	ids, err := enrol.Open(enrol.Config{DB: state, Dir: t.TempDir(), Log: log})
	must(err)
	changes := newHub()
	plans, err := plan.Open(t.Context(), state, plan.Config{
		Record: trail.Record, Changed: func(organization, id string) { changes.publish(organization, topicPlan, id) },
	})
	must(err)
	must(plans.Begin(t.Context(), org.ID, "On-premises"))
	known, pushes := &onboarding{}, newPusher()
	must(known.openMachines(t.Context(), state, trail, pushes, changes))
	devices, err := device.Open(t.Context(), state, device.Config{Log: log, Tier: known.tier(plans), Placed: known.placed, Record: trail.Record})
	must(err)
	rules, err := openPolicies(t.Context(), state, ids, trail, plans, devices, pushes, changes)
	must(err)
	notices, err := notify.Open(notify.Config{DB: state, Dir: t.TempDir(), Log: log, Version: "test", Record: trail.Record})
	must(err)
	b.api = &api{
		log: log, access: users, audit: trail, plans: plans, rules: rules, devices: devices, hub: changes, ids: ids, events: b.store,
		notices: notices, desk: newDesk(state, incident.Config{Record: trail.Record}, notices, devices, changes, "https://komainu.example:8443"),
		agents: gateway.New(gateway.Config{Log: log}), record: trail.Record, state: state, address: "https://komainu.example:8443",
		queued: func(context.Context) error { return nil }, stopping: t.Context().Done(),
	}
	b.api.meter = newMeter(b.api, &events{}, t.TempDir(), "test")
	b.api.meter.queue, b.api.meter.store = calm{}, calm{}
	b.api.tests = newTests(state, trail.Record, b.api.desk, &b.api.agents, b.api.notices, changes, known.news)
	b.open = func(address string, clouds cloud.Options) {
		cfg := DefaultConfig()
		cfg.State, cfg.Content.Packages, cfg.Clouds = t.TempDir(), t.TempDir(), clouds
		must(known.open(t.Context(), cfg, neighbours{
			state: state, trail: trail, plans: plans, devices: devices, rules: rules, ids: ids, tests: b.api.tests, pushes: pushes, changes: changes,
			address: address, log: log, organization: org.ID, notices: notices, agents: b.api.agents,
		}))
		repository := known.repository
		t.Cleanup(func() { repository.Close() })
	}
	b.open(b.api.address, cloud.Options{})
	b.api.known = known
	routes := rest.NewAPI(log, "test", users.Gate, db.Explain)
	routes.Mount(b.api.routes()...)
	b.server = httptest.NewTLSServer(rest.Guard(log, routes, nil))
	t.Cleanup(b.server.Close)
	list, err := plans.List(t.Context(), org.ID)
	must(err)
	b.org, b.env = org.ID, list[0].ID
	admin := access.WithActor(t.Context(), access.Actor{Kind: access.System, Organization: org.ID})
	for _, role := range []access.Role{access.Reader, access.Operator, access.Admin} {
		in := &access.CreateTokenInput{}
		in.Body.Label, in.Body.Role = string(role), role
		token, err := users.CreateToken(admin, in)
		must(err)
		b.tokens[role] = token.Token
	}
	return b
}

// send makes a request and returns status and body. An event stream is not
// read.
func (b *bench) send(role access.Role, method, path, body string) (int, string) {
	b.t.Helper()
	r, err := http.NewRequestWithContext(b.t.Context(), method, b.server.URL+path, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	maps.Copy(r.Header, b.header)
	if role != "" {
		r.Header.Set("Authorization", "Bearer "+b.tokens[role])
	}
	answer, err := b.server.Client().Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.Header.Get("Content-Type") == "text/event-stream" {
		return answer.StatusCode, ""
	}
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return answer.StatusCode, string(text)
}

// want makes a request as an administrator and decodes the answer.
func want[T any](b *bench, status int, method, path, body string) T {
	b.t.Helper()
	got, text := b.send(access.Admin, method, "/api/v1"+path, body)
	if got != status {
		b.t.Fatalf("%s %s: status %d, want %d: %s", method, path, got, status, text)
	}
	var v T
	if text != "" {
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			b.t.Fatalf("%s %s: %v in %s", method, path, err, text)
		}
	}
	return v
}

// device makes a device that has enrolled.
func (b *bench) device(name string) event.DeviceID {
	b.t.Helper()
	id, err := b.api.devices.Register(b.t.Context(), b.org, b.env, device.Facts{Hostname: name, OS: "linux", Distribution: "debian", OSVersion: "12", AgentVersion: "1.0", IPAddresses: []string{"192.0.2.7"}})
	if err != nil {
		b.t.Fatal(err)
	}
	return id
}

// TestEveryRouteAsksForItsPermission walks every route with every role and
// with no credentials at all.
func TestEveryRouteAsksForItsPermission(t *testing.T) {
	b := newBench(t)
	for _, r := range b.api.routes() {
		path := r.Path
		for _, parameter := range []string{"{id}", "{token}"} {
			path = strings.ReplaceAll(path, parameter, "unknown")
		}
		for _, role := range []access.Role{"", access.Reader, access.Operator, access.Admin} {
			status, text := b.send(role, r.Method, path, "{}")
			switch {
			case r.Permission == rest.Public:
				if status == http.StatusForbidden || status >= 500 {
					t.Errorf("%s %s for everybody: %d %s", r.Method, path, status, text)
				}
			case role == "":
				if status != http.StatusUnauthorized {
					t.Errorf("%s %s without credentials: %d %s", r.Method, path, status, text)
				}
			case r.Permission != rest.SignedIn && !role.May(r.Permission):
				if status != http.StatusForbidden {
					t.Errorf("%s %s as %s: %d %s", r.Method, path, role, status, text)
				}
			default:
				if status == http.StatusUnauthorized || status == http.StatusForbidden || status >= 500 {
					t.Errorf("%s %s as %s: %d %s", r.Method, path, role, status, text)
				}
				if r.Method == "GET" && path == r.Path && status != http.StatusOK {
					t.Errorf("%s %s as %s: %d %s", r.Method, path, role, status, text)
				}
			}
			if status >= 400 {
				var p rest.Problem
				if err := json.Unmarshal([]byte(text), &p); err != nil || p.Kind == "" || p.Message == "" {
					t.Errorf("%s %s as %q: the error %s", r.Method, path, role, text)
				}
			}
		}
	}
	// Nothing of all that has changed what people of less than admin may not.
	if strings.Contains(b.log.String(), "request failed") {
		t.Errorf("internal errors: %s", b.log)
	}
}

func TestOpenAPIListsEveryRoute(t *testing.T) {
	b := newBench(t)
	status, text := b.send("", "GET", "/api/openapi.json", "")
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal([]byte(text), &doc); err != nil || status != http.StatusOK || doc.OpenAPI != "3.1.0" {
		t.Fatalf("%d %q, %v", status, doc.OpenAPI, err)
	}
	for _, r := range b.api.routes() {
		if _, ok := doc.Paths[r.Path][strings.ToLower(r.Method)]; !ok {
			t.Errorf("it does not describe %s %s", r.Method, r.Path)
		}
	}
}

// TestSchema lets reviewers see the schema as a difference.
func TestSchema(t *testing.T) {
	b := newBench(t)
	var list []string
	err := b.state.NewRaw("SELECT sql || ';' FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' ORDER BY tbl_name, type DESC, name").Scan(t.Context(), &list)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(list, "\n\n") + "\n"
	if *update {
		if err := os.WriteFile("schema.sql", []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("schema.sql")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("schema.sql is not what the migrations make; go test ./control -run TestSchema -update\n%s", diff)
	}
}

func TestBrokenRequests(t *testing.T) {
	b := newBench(t)
	for _, c := range []struct{ name, method, path, body, kind, message string }{
		{"json", "POST", "/users", `{"name":`, "invalid", "unexpected end"},
		{"unknown_field", "POST", "/users", `{"name":"kim","role":"reader","shoe":44}`, "invalid", "body.shoe: unexpected property"},
		{"missing_field", "POST", "/users", `{"name":"kim"}`, "invalid", "required property role"},
		{"wrong_type", "POST", "/users", `{"name":7,"role":"reader"}`, "invalid", "body.name: expected string"},
		{"unknown_role", "POST", "/users", `{"name":"kim","role":"root"}`, "invalid", "body.role"},
		{"empty", "POST", "/users", ``, "invalid", "body is required"},
		{"large", "POST", "/users", `{"name":"` + strings.Repeat("x", rest.MaxBody) + `"}`, "exhausted", "too large"},
		{"unknown_parameter", "GET", "/devices?colour=red", ``, "invalid", "unknown query parameter"},
		{"cursor", "GET", "/alerts?cursor=abc", ``, "invalid", "next from the previous page"},
		{"limit", "GET", "/alerts?limit=0", ``, "invalid", "query.limit"},
		{"unknown_path", "GET", "/elsewhere", ``, "not_found", "openapi.json"},
		{"unknown_device", "GET", "/devices/x", ``, "not_found", "no device x"},
		{"unknown_alert", "PATCH", "/alerts/x", `{"status":"New"}`, "not_found", "no alert x"},
		{"unknown_incident", "GET", "/incidents/x", ``, "not_found", "no incident x"},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, text := b.send(access.Admin, c.method, "/api/v1"+c.path, c.body)
			var p rest.Problem
			if err := json.Unmarshal([]byte(text), &p); err != nil || p.Kind != c.kind || !strings.Contains(p.Message, c.message) || status < 400 || status >= 500 {
				t.Errorf("%d %s, %v", status, text, err)
			}
		})
	}
	if _, text := b.send("", "POST", "/api/v1/session", `{"name":"kim","password":"tell nobody","shoe":44}`); strings.Contains(text, "tell nobody") {
		t.Errorf("the answer repeats the password: %s", text)
	}
}

func TestPlanOverTheAPI(t *testing.T) {
	b := newBench(t)
	path := "/environments/" + b.env + "/plan"
	p := want[plan.Settings](b, 200, "GET", path, "")
	if p.Servers || p.Tier != policy.P2 || p.Version != 1 {
		t.Errorf("at first %+v", p)
	}
	p = want[plan.Settings](b, 200, "PUT", path, `{"version":1,"servers":true}`)
	if p.Tier != policy.P2 || !p.Settings[0].Enabled || p.Settings[0].ID != "endpoint_protection" {
		t.Errorf("switched on %+v", p)
	}
	want[rest.Problem](b, 409, "PUT", path, `{"version":1,"servers":false}`)
	want[rest.Problem](b, 422, "PUT", path, `{"version":2,"servers":true,"settings":{"file_integrity_monitoring":true}}`)
	p = want[plan.Settings](b, 200, "PUT", path, `{"version":2,"servers":true,"tier":"P1"}`)
	i := slices.IndexFunc(p.Settings, func(s plan.Setting) bool { return s.ID == "agentless_scanning" })
	if p.Settings[i].Changeable || p.Settings[i].Reason != plan.ReasonRequiresP2 {
		t.Errorf("under P1 %+v", p.Settings[i])
	}
	e := want[EnvironmentView](b, 200, "GET", "/environments/"+b.env, "")
	if e.Plan != policy.P1 {
		t.Errorf("environment %+v", e)
	}
	log := want[rest.List[audit.Entry]](b, 200, "GET", "/audit?action=plan.change", "")
	if log.Total != 2 || log.Items[0].Actor.Name != "admin" || log.Items[0].Target.ID != b.env {
		t.Errorf("audit %+v", log)
	}
}

// TestEnvironmentsOverTheAPI makes the scopes that plans are for.
func TestEnvironmentsOverTheAPI(t *testing.T) {
	b := newBench(t)
	made := want[EnvironmentView](b, 200, "POST", "/environments", `{"name":"Production","kind":"aws","externalId":"123456789012"}`)
	if made.Kind != "aws" || made.External != "123456789012" || made.Plan != policy.Off {
		t.Errorf("%+v", made)
	}
	if renamed := want[EnvironmentView](b, 200, "PATCH", "/environments/"+made.ID, `{"name":"Staging"}`); renamed.Name != "Staging" {
		t.Errorf("%+v", renamed)
	}
	way := want[struct{ ID string }](b, 200, "POST", "/environments/"+made.ID+"/connectors", `{"name":"ours","kind":"ssh","ssh":{"hosts":"192.0.2.[1-3]","user":"root","sudo":"none","credential":"push","hostKeys":"first_use"}}`)
	if e := want[EnvironmentView](b, 200, "GET", "/environments/"+made.ID, ""); e.Machines.Machines != 3 {
		t.Errorf("%+v", e)
	}
	if status, text := b.send(access.Admin, "DELETE", "/api/v1/environments/"+made.ID, ""); status != 409 || !strings.Contains(text, "1 connectors") {
		t.Errorf("with a connector: %d %s", status, text)
	}
	want[struct{}](b, 204, "DELETE", "/connectors/"+way.ID, "")
	want[struct{}](b, 204, "DELETE", "/environments/"+made.ID, "")
	if status, _ := b.send(access.Admin, "GET", "/api/v1/environments/"+made.ID, ""); status != 404 {
		t.Errorf("it is gone: %d", status)
	}
}

func TestJoinTokensOverTheAPI(t *testing.T) {
	b := newBench(t)
	path := "/environments/" + b.env + "/join-tokens"
	token := want[JoinToken](b, 200, "POST", path, `{"label":"rack 4","expiresInSeconds":3600,"maxUses":20}`)
	if !strings.HasPrefix(token.Token, "kmj1.") || token.Command != "echo '"+token.Token+"' | sudo komainu enrol --token-file -" || token.MaxUses != 20 {
		t.Errorf("token %+v", token)
	}
	list := want[rest.List[JoinToken]](b, 200, "GET", path+"?limit=200", "")
	if list.Total != 1 || list.Items[0].Token != "" || list.Items[0].CreatedBy != "admin" {
		t.Errorf("list %+v", list)
	}
	want[any](b, 204, "DELETE", path+"/"+token.ID, "")
	if list = want[rest.List[JoinToken]](b, 200, "GET", path, ""); !list.Items[0].Revoked {
		t.Errorf("list %+v", list)
	}
	if log := want[rest.List[audit.Entry]](b, 200, "GET", "/audit?target="+token.ID, ""); log.Total != 2 {
		t.Errorf("audit %+v", log)
	}
}

func TestDeviceOverTheAPI(t *testing.T) {
	b := newBench(t)
	id := b.device("web-1")
	b.device("db-1")
	list := want[rest.List[device.Device]](b, 200, "GET", "/devices?q=WEB", "")
	if list.Total != 1 || list.Items[0].Name != "web-1" || list.Items[0].Environment != (rest.Ref{ID: b.env, Name: "On-premises"}) || list.Items[0].RiskLevel != "None" {
		t.Fatalf("list %+v", list)
	}
	f := finding.Finding{ID: "f", Time: time.Now(), Title: "Reverse shell", Severity: finding.High, Category: finding.CategoryExecution, Source: finding.SourceBehavior,
		Tree:     []event.Process{{Key: event.ProcessKey{Boot: "b", PID: 9, Start: 1}, Name: "sh", Args: []string{"sh", "-i"}}},
		Evidence: []finding.Evidence{{Role: finding.Impacted, Verdict: "Suspicious", User: &event.User{Name: "www"}}, {Role: finding.Related, File: &event.File{Path: "/bin/sh"}}},
		Events:   []event.Event{{ID: event.ID{Device: id, Epoch: 1, Source: event.FromProcess, Seq: 1}, Action: event.ProcessCreated}}}
	if _, err := b.api.desk.Take(t.Context(), b.org, id, []finding.Finding{f}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.api.rules.Recompose(t.Context(), members(b.api.devices)); err != nil {
		t.Fatal(err)
	}
	d := want[device.Details](b, 200, "GET", "/devices/"+string(id), "")
	if d.RiskLevel != "High" || d.ActiveAlerts != 1 || d.Extension.Name != "Komainu.Linux" || d.Extension.ProvisioningState != "Creating" || d.Certificate != nil || d.Policy.Version != 1 {
		t.Errorf("device %+v", d)
	}
	alerts := want[rest.List[incident.Alert]](b, 200, "GET", "/alerts?device="+string(id), "")
	if alerts.Total != 1 || alerts.Items[0].Device != (rest.Ref{ID: string(id), Name: "web-1"}) {
		t.Fatalf("alerts %+v", alerts)
	}
	a := want[AlertView](b, 200, "PATCH", "/alerts/"+alerts.Items[0].ID, `{"status":"InProgress"}`)
	if a.Status != "InProgress" || a.Tree[0].Args[1] != "-i" || a.Evidence[0].User.Name != "www" || a.Evidence[1].File.Path != "/bin/sh" || len(a.Events) != 1 || len(a.RecommendedActions) == 0 {
		t.Errorf("alert %+v", a)
	}
	in := want[incident.IncidentPage](b, 200, "PATCH", "/incidents/"+a.IncidentID, `{"status":"Resolved","assignee":"kim"}`)
	if in.Name != "Reverse shell on one endpoint" || in.Devices[0].Name != "web-1" || in.AlertItems[0].Device.Name != "web-1" || in.Status != "Resolved" {
		t.Errorf("incident %+v", in)
	}
	d = want[device.Details](b, 200, "POST", "/devices/"+string(id)+"/revoke", `{"reason":"sold"}`)
	if d.OnboardingStatus != "Offboarded" || d.RiskLevel != "None" {
		t.Errorf("device %+v", d)
	}
	want[rest.Problem](b, 409, "POST", "/devices/"+string(id)+"/revoke", `{}`)
	log := want[rest.List[audit.Entry]](b, 200, "GET", "/audit", "")
	var actions []string
	for _, e := range log.Items {
		actions = append(actions, e.Action)
	}
	if !slices.Equal(actions[:3], []string{"device.revoke", "incident.change", "alert.change"}) {
		t.Errorf("audit %q", actions)
	}
}

func TestTimelineOverTheAPI(t *testing.T) {
	b := newBench(t)
	id := b.device("web-1")
	b.store.page = eventstore.Page{Events: []event.Event{{ID: event.ID{Device: id, Epoch: 1, Source: event.FromFile, Seq: 4}, Action: event.FileCreated, File: &event.File{Path: "/a"}}}, Next: "more"}
	list := want[rest.List[eventstore.View]](b, 200, "GET", "/devices/"+string(id)+"/timeline?from=2026-11-01T00:00:00Z&action=FileCreated,FileDeleted&q=a&limit=5", "")
	if list.Next != "more" || len(list.Items) != 1 || list.Items[0].File.Path != "/a" {
		t.Errorf("list %+v", list)
	}
	q := b.store.asked
	if q.Organization != b.org || q.Device != id || q.Limit != 5 || q.Text != "a" || !q.To.IsZero() || q.From.Year() != 2026 || !slices.Equal(q.Actions, []event.Action{event.FileCreated, event.FileDeleted}) {
		t.Errorf("asked for %+v", q)
	}
}

// calm is a queue and a store with nothing in them.
type calm struct{}

func (calm) Status(context.Context) (queue.Status, error) { return queue.Status{}, nil }
func (calm) Count(context.Context) (int64, error)         { return 0, nil }
func (calm) Size() (int64, error)                         { return 0, nil }

func TestStreamTellsChanges(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, "GET", b.server.URL+"/api/v1/stream", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+b.tokens[access.Reader])
	answer, err := b.server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	want[plan.Settings](b, 200, "PUT", "/environments/"+b.env+"/plan", `{"version":1,"servers":true}`)
	var got strings.Builder
	buffer := make([]byte, 256)
	for !strings.Contains(got.String(), "event: plan\ndata: {\"id\":\""+b.env+"\"}") {
		n, err := answer.Body.Read(buffer)
		if err != nil {
			t.Fatalf("%v after %q", err, got.String())
		}
		got.Write(buffer[:n])
	}
}

// TestPagesHearOfTheirOrganizationAlone tells two organizations of changes,
// also when one has so many that they are told as one.
func TestPagesHearOfTheirOrganizationAlone(t *testing.T) {
	h := newHub()
	subs := map[string]*subscriber{}
	for _, name := range []string{"ours", "theirs"} {
		s, err := h.subscribe(name)
		if err != nil {
			t.Fatal(err)
		}
		subs[name] = s
	}
	h.publish("ours", topicAlert, "a")
	for range 2 * maxPending {
		h.publish("ours", topicDevice, rest.NewID())
	}
	h.publish("theirs", topicIncident, "7")
	if got := h.take(subs["theirs"]); len(got) != 1 || !got[change{topicIncident, "7"}] {
		t.Errorf("theirs: %v", got)
	}
	if got := h.take(subs["ours"]); !got[change{topicAlert, "a"}] || got[change{topicIncident, "7"}] {
		t.Errorf("ours: %d changes", len(got))
	}
}

func TestHubIsBounded(t *testing.T) {
	h := newHub()
	s, err := h.subscribe("ours")
	if err != nil {
		t.Fatal(err)
	}
	h.publish("ours", topicPlan, "p")
	for i := range 3 * maxPending {
		h.publish("ours", topicDevice, rest.NewID()[:8]+string(rune('a'+i%26)))
	}
	got := h.take(s)
	if len(got) > maxPending+1 || !got[change{topicDevice, ""}] || !got[change{topicPlan, "p"}] {
		t.Errorf("%d changes wait, of all devices %v", len(got), got[change{topicDevice, ""}])
	}
}

func TestPusherReachesConnectedDevicesOnce(t *testing.T) {
	p := newPusher()
	ctx, cancel := context.WithCancel(t.Context())
	pushed := make(chan event.DeviceID, 10)
	p.device("a")
	p.device("a")
	done := make(chan error)
	asked := make(chan []event.DeviceID, 10)
	go func() {
		done <- p.run(ctx, func(_ context.Context, ids []event.DeviceID) ([]event.DeviceID, error) {
			asked <- ids
			if ids == nil {
				return []event.DeviceID{"b"}, nil
			}
			return ids, nil
		}, func(_ context.Context, id event.DeviceID) { pushed <- id }, slog.New(slog.DiscardHandler))
	}()
	if id := <-pushed; id != "a" || len(<-asked) != 1 {
		t.Errorf("pushed to %s", id)
	}
	p.all()
	if id := <-pushed; id != "b" || <-asked != nil {
		t.Errorf("pushed to %s", id)
	}
	cancel()
	if err := <-done; err != nil || len(pushed) != 0 {
		t.Errorf("%v, %d more", err, len(pushed))
	}
}

func TestReadiness(t *testing.T) {
	b := newBench(t)
	if status, text := b.send("", "GET", "/readyz", ""); status != 200 {
		t.Errorf("%d %s", status, text)
	}
	b.api.queued = func(context.Context) error { return fault.New(fault.Unavailable, "it is down") }
	if status, text := b.send("", "GET", "/readyz", ""); status != 503 || !strings.Contains(text, "the queue: it is down") {
		t.Errorf("%d %s", status, text)
	}
}
