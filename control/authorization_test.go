package control

import (
	"cmp"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"komainu/control/access"
	"komainu/control/connector"
	"komainu/control/machine"
	"komainu/control/notify"
	"komainu/control/policies"
	"komainu/control/rest"
	"komainu/drill"
	"komainu/event"
	"komainu/finding"
)

// permissionsFile says what every route is to ask for. It is reviewed as a
// difference: a route that is not in it fails the test.
const permissionsFile = "testdata/permissions.txt"

func TestEveryRouteIsExpected(t *testing.T) {
	var lines []string
	for _, r := range newBench(t).api.routes() {
		lines = append(lines, fmt.Sprintf("%-60s %s\n", r.Method+" "+r.Path, r.Permission))
	}
	slices.Sort(lines)
	got := strings.Join(lines, "")
	if *update {
		if err := os.WriteFile(permissionsFile, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(permissionsFile)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(got) {
		if !strings.Contains(string(want), line) {
			t.Errorf("%s is not expected like that; after a review: go test ./control -run TestEveryRouteIsExpected -update", strings.TrimSpace(line))
		}
	}
	for line := range strings.Lines(string(want)) {
		if !strings.Contains(got, line) {
			t.Errorf("%s is expected and not there", strings.TrimSpace(line))
		}
	}
}

// caller is somebody who sends requests.
type caller struct {
	name   string
	role   access.Role // "" for nobody
	header http.Header
}

// callers are everybody there is: nobody, and each role by API token and by
// session.
func (b *bench) callers() []caller {
	b.t.Helper()
	list := []caller{{name: "nobody"}, {name: "a forged session", header: http.Header{"Cookie": {access.Cookie + "=forged"}}},
		{name: "a forged token", header: http.Header{"Authorization": {"Bearer " + access.TokenPrefix + "forged"}}}}
	for _, role := range []access.Role{access.Reader, access.Operator, access.Admin} {
		list = append(list, caller{"the token of a " + string(role), role, http.Header{"Authorization": {"Bearer " + b.tokens[role]}}})
		u := want[access.UserInfo](b, 200, "POST", "/users", fmt.Sprintf(`{"name":"user-%s","role":%q}`, role, role))
		cookie := b.signIn(u.Name, u.OneTimePassword)
		const password = "a password of enough length"
		if status, text := b.as(caller{header: cookie}, "POST", "/api/v1/session/password", fmt.Sprintf(`{"current":%q,"new":%q}`, u.OneTimePassword, password)); status != 200 {
			b.t.Fatal(text)
		}
		list = append(list, caller{"the session of a " + string(role), role, cookie})
	}
	return list
}

func (b *bench) signIn(name, password string) http.Header {
	b.t.Helper()
	r, err := http.NewRequestWithContext(b.t.Context(), "POST", b.server.URL+"/api/v1/session", strings.NewReader(fmt.Sprintf(`{"name":%q,"password":%q}`, name, password)))
	if err != nil {
		b.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	answer, err := b.server.Client().Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer answer.Body.Close()
	for _, c := range answer.Cookies() {
		if c.Name == access.Cookie {
			return http.Header{"Cookie": {c.Name + "=" + c.Value}}
		}
	}
	b.t.Fatalf("%s cannot sign in: %s", name, answer.Status)
	return nil
}

// as sends a request with a caller's credentials.
func (b *bench) as(c caller, method, path, body string) (int, string) {
	b.t.Helper()
	kept := b.header
	b.header = c.header
	defer func() { b.header = kept }()
	return b.send("", method, path, body)
}

// things are one of everything that a path can name.
type things map[string]string

// things makes them. The longest prefix of a path counts.
func (b *bench) things() things {
	b.t.Helper()
	id := b.device("web-1")
	changed, err := b.api.desk.Take(b.t.Context(), b.org, id, []finding.Finding{{
		ID: "11111111-0000-4000-8000-000000000001", Time: time.Now(), Title: "found", Severity: finding.High, Category: finding.CategoryMalware, Source: finding.SourceAntivirus,
		State: finding.Detected, Threat: &event.Threat{Name: "Virus:DOS/EICAR_Test_File"},
		Evidence: []finding.Evidence{{Role: finding.Impacted, File: &event.File{Path: "/srv/x", Hashes: event.Hashes{SHA256: "aa"}}}},
	}})
	if err != nil || len(changed.Incidents) != 1 {
		b.t.Fatalf("%+v, %v", changed, err)
	}
	if _, err := b.api.tests.Report(b.t.Context(), b.org, id, drill.New("run-of-web-1", "eicar", time.Now())); err != nil {
		b.t.Fatal(err)
	}
	join := want[struct{ ID string }](b, 200, "POST", "/environments/"+b.env+"/join-tokens", `{"label":"x"}`)
	user := want[access.UserInfo](b, 200, "POST", "/users", `{"name":"somebody","role":"reader"}`)
	token := want[access.TokenInfo](b, 200, "POST", "/tokens", `{"label":"something","role":"reader"}`)
	rule := want[policies.Policy](b, 200, "POST", "/policies", `{"name":"ours","type":"antivirus","assignments":[{"kind":"all"}]}`)
	group := want[policies.Group](b, 200, "POST", "/device-groups", `{"name":"ours","match":{"name":"web-*"}}`)
	way := want[connector.Connector](b, 200, "POST", "/environments/"+b.env+"/connectors", `{"name":"ours","kind":"ssh","ssh":{"hosts":"192.0.2.1","user":"root","sudo":"none","credential":"push","hostKeys":"first_use"}}`)
	machines := want[rest.List[machine.View]](b, 200, "GET", "/machines?connector="+way.ID, "")
	notice := want[notify.Notification](b, 200, "POST", "/notifications", `{"name":"ours","kind":"syslog","target":{"host":"192.0.2.1","protocol":"udp"}}`)
	pack := filepath.Join(b.t.TempDir(), "komainu-agent_1.2.3_amd64.deb")
	if err := os.WriteFile(pack, []byte("!<arch>\n"), 0o600); err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.api.known.repository.Add(pack); err != nil {
		b.t.Fatal(err)
	}
	return things{
		"/api/v1/repository/packages/": "1.2.3",
		"/api/v1/notifications/":       notice.ID, "/api/v1/connectors/": way.ID, "/api/v1/machines/": machines.Items[0].ID,
		"/api/v1/policies/": rule.ID, "/api/v1/device-groups/": group.ID,
		"/api/v1/users/": user.ID, "/api/v1/tokens/": token.ID, "/api/v1/environments/": b.env, "/api/v1/devices/": string(id), "{token}": join.ID,
		"/api/v1/alerts/": changed.Alerts[0], "/api/v1/incidents/": fmt.Sprint(changed.Incidents[0]), "/api/v1/detection-tests/runs/": "run-of-web-1",
	}
}

// path names one of ours in a route, and reports whether the route names
// anything.
func (all things) path(t *testing.T, r rest.Route) (string, bool) {
	t.Helper()
	if !strings.Contains(r.Path, "{") {
		return r.Path, false
	}
	path := strings.ReplaceAll(r.Path, "{token}", all["{token}"])
	best := ""
	for prefix := range all {
		if strings.HasPrefix(path, prefix+"{id}") && len(prefix) > len(best) {
			best = prefix
		}
	}
	if best == "" {
		t.Errorf("%s %s: this test has none of those; add one to things", r.Method, r.Path)
		return "", false
	}
	path = strings.Replace(path, "{id}", all[best], 1)
	if strings.Contains(path, "{") {
		t.Errorf("%s %s: what is the other thing that it names?", r.Method, r.Path)
	}
	return path, true
}

// bodies are good bodies of routes that change something that they name: what
// is refused has to be refused for who asks, not for how.
var bodies = map[string]string{
	"PUT /api/v1/notifications/{id}":                 `{"name":"theirs","kind":"syslog","target":{"host":"192.0.2.1"}}`,
	"PATCH /api/v1/users/{id}":                       `{"role":"admin"}`,
	"PATCH /api/v1/environments/{id}":                `{"name":"theirs"}`,
	"PUT /api/v1/environments/{id}/plan":             `{"version":1,"servers":false}`,
	"POST /api/v1/environments/{id}/join-tokens":     `{"label":"stolen"}`,
	"POST /api/v1/devices/{id}/detection-tests":      `{"test":"eicar"}`,
	"PATCH /api/v1/machines/{id}":                    `{"version":1,"plan":"off"}`,
	"POST /api/v1/machines/{id}/device":              `{"device":"theirs"}`,
	"PUT /api/v1/environments/{id}/onboarding":       `{"version":1,"automatic":false,"concurrency":1,"dryRun":false,"observe":{"enabled":false},"excludeTags":[],"allowHostOffboarding":true,"keepOffboardedDays":180}`,
	"POST /api/v1/environments/{id}/connectors":      `{"name":"theirs","kind":"ssh","ssh":{"hosts":"192.0.2.9","user":"root","sudo":"none","credential":"push","hostKeys":"first_use"}}`,
	"POST /api/v1/environments/{id}/connectors/test": `{"name":"theirs","kind":"ssh","ssh":{"hosts":"192.0.2.9","user":"root","sudo":"none","credential":"push","hostKeys":"first_use"}}`,
	"PUT /api/v1/connectors/{id}":                    `{"name":"theirs","kind":"ssh","ssh":{"hosts":"192.0.2.9","user":"root","sudo":"none","credential":"push","hostKeys":"first_use"}}`,
	"POST /api/v1/connectors/{id}/test":              `{"name":"theirs","kind":"ssh","ssh":{"hosts":"192.0.2.9","user":"root","sudo":"none","credential":"push","hostKeys":"first_use"}}`,
	"POST /api/v1/connectors/{id}/host-keys/accept":  `{"host":"192.0.2.1:22","fingerprint":"SHA256:x"}`,
	"PUT /api/v1/policies/{id}":                      `{"version":1,"name":"theirs","type":"antivirus"}`,
	"PUT /api/v1/device-groups/{id}":                 `{"version":1,"name":"theirs","match":{"name":"*"}}`,
	"PATCH /api/v1/alerts/{id}":                      `{"status":"Resolved"}`,
	"PATCH /api/v1/incidents/{id}":                   `{"status":"Resolved"}`,
	"POST /api/v1/alerts/{id}/comments":              `{"text":"x"}`,
	"POST /api/v1/incidents/{id}/comments":           `{"text":"x"}`,
}

// TestEveryRouteByEverybody tries the whole table with everybody there is,
// first with those who may not, so that nothing has changed by then.
func TestEveryRouteByEverybody(t *testing.T) {
	b := newBench(t)
	all := b.things()
	for _, c := range b.callers() {
		for _, r := range b.api.routes() {
			may := r.Permission == rest.Public || c.role != "" && (r.Permission == rest.SignedIn || c.role.May(r.Permission))
			if may {
				continue // TestEveryRouteAsksForItsPermission
			}
			path, _ := all.path(t, r)
			refusal := http.StatusForbidden
			if c.role == "" {
				refusal = http.StatusUnauthorized
			}
			if status, text := b.as(c, r.Method, path, bodies[r.Method+" "+r.Path]); status != refusal {
				t.Errorf("%s: %s %s: %d, want %d: %s", c.name, r.Method, path, status, refusal, text)
			}
		}
	}
}

// TestAnotherOrganizationSeesNothing tries the whole table as an
// administrator of another organization of the same installation.
func TestAnotherOrganizationSeesNothing(t *testing.T) {
	b := newBench(t)
	all := b.things()
	if _, err := b.state.NewRaw("INSERT INTO organizations (id, name, created_at) VALUES ('foreign', 'Foreign', ?)", time.Now()).Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
	in := &access.CreateTokenInput{}
	in.Body.Label, in.Body.Role = "foreign", access.Admin
	token, err := b.api.access.CreateToken(access.WithActor(t.Context(), access.Actor{Kind: access.System, Organization: "foreign"}), in)
	if err != nil {
		t.Fatal(err)
	}
	foreign := caller{"a foreign administrator", access.Admin, http.Header{"Authorization": {"Bearer " + token.Token}}}
	for _, r := range b.api.routes() {
		path, names := all.path(t, r)
		if r.Permission == rest.Public || r.Path == "/api/v1/stream" {
			continue // the stream: TestPagesHearOfTheirOrganizationAlone
		}
		status, text := b.as(foreign, r.Method, path, cmp.Or(bodies[r.Method+" "+r.Path], "{}"))
		if names && status != http.StatusNotFound {
			t.Errorf("%s %s: %d %s", r.Method, path, status, text)
		}
		for what, id := range all {
			if len(id) > 8 && strings.Contains(text, id) && !names {
				t.Errorf("%s %s tells of our %s: %s", r.Method, path, what, text)
			}
		}
		if !names && (strings.Contains(text, "web-1") || strings.Contains(text, b.org)) {
			t.Errorf("%s %s tells of us: %s", r.Method, path, text)
		}
	}
	// And nothing has changed.
	if status, text := b.send(access.Admin, "GET", "/api/v1/devices/"+all["/api/v1/devices/"], ""); status != 200 || strings.Contains(text, `"offboarded":true`) {
		t.Errorf("our device: %d %s", status, text)
	}
}
