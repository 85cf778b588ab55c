package control

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"komainu/control/access"
	"komainu/control/policies"
	"komainu/control/rest"
)

func TestPoliciesOverTheAPI(t *testing.T) {
	b := newBench(t)
	id := b.device("web-1")
	g := want[policies.Group](b, 200, "POST", "/device-groups", `{"name":"web","rank":1,"match":{"name":"web-*"}}`)
	if g.Devices != 1 {
		t.Errorf("%+v", g)
	}
	p := want[policies.Policy](b, 200, "POST", "/policies",
		`{"name":"quiet","type":"exclusions","settings":{"exclusions":[{"type":"folder","value":"/srv/build","scope":"epp"}]},"priority":5,"assignments":[{"kind":"group","id":"`+g.ID+`"}]}`)
	if p.Version != 1 || p.Assignments[0].Name != "web" || p.Devices.Assigned != 1 || p.Devices.Pending != 1 || len(p.Settings.Exclusions) != 1 {
		t.Errorf("%+v", p)
	}
	a := want[policies.Applied](b, 200, "GET", "/devices/"+string(id)+"/policy", "")
	if a.Version == 0 || !a.Pending || len(a.Groups) != 1 {
		t.Errorf("%+v", a)
	}
	for _, s := range a.Settings {
		if s.Name == "exclusions" && (s.Source.ID != p.ID || !strings.Contains(string(s.Value), "/srv/build")) {
			t.Errorf("%+v", s)
		}
	}
	// The operator's messages name the setting and what to do.
	status, text := b.send(access.Operator, "POST", "/api/v1/policies", `{"name":"x","type":"exclusions","settings":{"exclusions":[{"type":"file","value":"relative","scope":"epp"}]}}`)
	if status != http.StatusUnprocessableEntity || !strings.Contains(text, "absolute path") {
		t.Errorf("%d %s", status, text)
	}
	for _, c := range []struct {
		role   access.Role
		method string
		path   string
		body   string
		status int
	}{
		{access.Reader, "GET", "/policies/" + p.ID, "", 200},
		{access.Reader, "GET", "/policies/catalogue", "", 200},
		{access.Reader, "PUT", "/policies/" + p.ID, `{"version":1,"name":"quiet","type":"exclusions"}`, 403},
		{access.Reader, "POST", "/device-groups", `{"name":"x","match":{"name":"*"}}`, 403},
		{access.Operator, "PUT", "/policies/" + p.ID, `{"version":7,"name":"quiet","type":"exclusions"}`, 409},
		{access.Operator, "DELETE", "/policies/" + p.ID, "", 409},
		{access.Operator, "DELETE", "/device-groups/" + g.ID, "", 409},
		{access.Operator, "DELETE", "/policies/" + p.ID + "?force=true", "", 204},
		{access.Operator, "DELETE", "/device-groups/" + g.ID, "", 204},
		{access.Operator, "GET", "/policies/" + p.ID, "", 404},
		{access.Operator, "GET", "/devices/unknown/policy", "", 404},
	} {
		if status, text := b.send(c.role, c.method, "/api/v1"+c.path, c.body); status != c.status {
			t.Errorf("%s %s %s: %d %s", c.role, c.method, c.path, status, text)
		}
	}
	_, text = b.send(access.Admin, "GET", "/api/v1/audit?target="+p.ID, "")
	var log rest.List[struct{ Action string }]
	if err := json.Unmarshal([]byte(text), &log); err != nil || log.Total != 2 || log.Items[0].Action != "policy.delete" {
		t.Errorf("%s, %v", text, err)
	}
}
