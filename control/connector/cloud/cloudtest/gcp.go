package cloudtest

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// GCP is a pretend Google Cloud: the token service, Compute Engine and OS
// Config of one project behind one address, and the metadata service of one
// instance. Scripts of OS policies are run by a real shell.
type GCP struct {
	URL, Metadata  string
	Project, Email string
	Key            string // JSON of the service account
	Page           int
	// Silent zones do not answer.
	Silent []string

	t       testing.TB
	account *rsa.PrivateKey
	signer  *rsa.PrivateKey // of identity tokens
	folder  string          // in the place of /run

	pretend
	prints      map[string]int // of labels, by instance
	assignments map[string]*gcpAssignment
	scripts     []string
}

type gcpAssignment struct {
	zone, policy string
	labels       map[string]string
	reports      map[string]map[string]any // by instance
	asks         int
}

// KeyID names the key that identity tokens are signed with.
const KeyID = "pretend-key-1"

// NewGCP starts a pretend Google Cloud.
func NewGCP(t testing.TB, machines ...*Instance) *GCP {
	t.Helper()
	g := &GCP{
		t: t, Project: "example-works-123456", Email: "komainu@example-works-123456.iam.gserviceaccount.com", Page: 100, pretend: begin(machines), folder: t.TempDir(),
		prints: map[string]int{}, assignments: map[string]*gcpAssignment{},
	}
	var err error
	if g.account, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		t.Fatal(err)
	}
	if g.signer, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		t.Fatal(err)
	}
	g.Key = g.KeyFile(nil)
	server, meta := httptest.NewServer(http.HandlerFunc(g.serve)), httptest.NewServer(http.HandlerFunc(g.metadata))
	t.Cleanup(server.Close)
	t.Cleanup(meta.Close)
	g.URL, g.Metadata = server.URL, meta.URL
	return g
}

// KeyFile is the key of the service account, with some fields replaced.
func (g *GCP) KeyFile(change map[string]string) string {
	raw, err := x509.MarshalPKCS8PrivateKey(g.account)
	if err != nil {
		g.t.Fatal(err)
	}
	file := map[string]string{
		"type": "service_account", "project_id": g.Project, "private_key_id": "0123456789abcdef", "private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})),
		"client_email": g.Email, "client_id": "100000000000000000001", "auth_uri": "https://accounts.google.com/o/oauth2/auth", "token_uri": "https://oauth2.googleapis.com/token",
		"universe_domain": "googleapis.com",
	}
	maps.Copy(file, change)
	text, err := json.Marshal(file)
	if err != nil {
		g.t.Fatal(err)
	}
	return string(text)
}

// Left are the names of assignments that are there.
func (g *GCP) Left() (names []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for name := range g.assignments {
		names = append(names, name)
	}
	return names
}

// Leave puts an assignment there that somebody has left behind.
func (g *GCP) Leave(zone, name string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.assignments[name] = &gcpAssignment{zone: zone, reports: map[string]map[string]any{}}
}

// Labels returns the labels of a machine.
func (g *GCP) Labels(id string) map[string]string {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, i := range g.machines {
		if i.ID == id {
			return maps.Clone(i.Tags)
		}
	}
	return nil
}

// Label has somebody else change a label.
func (g *GCP) Label(id, key, value string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, i := range g.machines {
		if i.ID == id {
			i.Tags = maps.Clone(i.Tags)
			if i.Tags == nil {
				i.Tags = map[string]string{}
			}
			i.Tags[key] = value
			g.prints[id]++
		}
	}
}

// Scripts are all that machines were given to run.
func (g *GCP) Scripts() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]string(nil), g.scripts...)
}

// GCPError answers with an error as the APIs do.
func GCPError(w http.ResponseWriter, status int, reason, text string) {
	reply(w, status, map[string]any{"error": map[string]any{"code": status, "message": text, "errors": []map[string]string{{"message": text, "domain": "global", "reason": reason}}}})
}

// gcpRoutes are what is asked for, by its name.
var gcpRoutes = []struct {
	what string
	form *regexp.Regexp
}{
	{"POST token", regexp.MustCompile(`^POST /token$`)},
	{"GET keys", regexp.MustCompile(`^GET /oauth2/v3/certs$`)},
	{"GET instances", regexp.MustCompile(`^GET /compute/v1/projects/([^/]+)/aggregated/instances$`)},
	{"GET instance", regexp.MustCompile(`^GET /compute/v1/projects/([^/]+)/zones/([^/]+)/instances/([^/]+)$`)},
	{"POST labels", regexp.MustCompile(`^POST /compute/v1/projects/([^/]+)/zones/([^/]+)/instances/([^/]+)/setLabels$`)},
	{"POST wait", regexp.MustCompile(`^POST /compute/v1/projects/([^/]+)/zones/([^/]+)/operations/([^/]+)/wait$`)},
	{"GET inventory", regexp.MustCompile(`^GET /v1/projects/([^/]+)/locations/([^/]+)/instances/([^/]+)/inventory$`)},
	{"GET report", regexp.MustCompile(`^GET /v1/projects/([^/]+)/locations/([^/]+)/instances/([^/]+)/osPolicyAssignments/([^/]+)/report$`)},
	{"GET assignments", regexp.MustCompile(`^GET /v1/projects/([^/]+)/locations/([^/]+)/osPolicyAssignments$`)},
	{"POST assignment", regexp.MustCompile(`^POST /v1/projects/([^/]+)/locations/([^/]+)/osPolicyAssignments$`)},
	{"DELETE assignment", regexp.MustCompile(`^DELETE /v1/projects/([^/]+)/locations/([^/]+)/osPolicyAssignments/([^/]+)$`)},
}

func (g *GCP) serve(w http.ResponseWriter, r *http.Request) {
	what, parts := "?", []string(nil)
	for _, route := range gcpRoutes {
		if m := route.form.FindStringSubmatch(r.Method + " " + r.URL.Path); m != nil {
			what, parts = route.what, m[1:]
		}
	}
	if g.answered(w, what) {
		return
	}
	switch {
	case what == "POST token":
		g.token(w, r)
		return
	case what == "GET keys":
		reply(w, 200, map[string]any{"keys": []any{map[string]string{"kty": "EC", "kid": "other"}, g.webKey()}})
		return
	case r.Header.Get("Authorization") != "Bearer a-token":
		GCPError(w, 401, "authError", "Request had invalid authentication credentials.")
		return
	case len(parts) == 0:
		GCPError(w, 404, "notFound", "The requested URL was not found.")
		return
	case parts[0] != g.Project:
		GCPError(w, 403, "forbidden", "Required permission for project")
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch what {
	case "GET instances":
		g.list(w, r)
	case "POST wait":
		reply(w, 200, map[string]any{"kind": "compute#operation", "name": parts[2], "status": "DONE", "progress": 100})
	case "GET assignments":
		g.listed(w, parts[1])
	case "POST assignment":
		g.assign(w, r, parts[1])
	case "DELETE assignment":
		if a := g.assignments[parts[2]]; a == nil || a.zone != parts[1] {
			GCPError(w, 404, "notFound", "not found")
			return
		}
		delete(g.assignments, parts[2])
		reply(w, 200, map[string]any{"name": "projects/1/locations/" + parts[1] + "/osPolicyAssignments/" + parts[2] + "/operations/x", "done": false})
	default:
		g.instance(w, r, what, parts)
	}
}

// instance answers what is asked of one machine, by its number or its name.
func (g *GCP) instance(w http.ResponseWriter, r *http.Request, what string, parts []string) {
	i := g.find(parts[1], parts[2])
	if i == nil {
		GCPError(w, 404, "notFound", "The resource was not found")
		return
	}
	switch what {
	case "GET instance":
		reply(w, 200, g.shown(*i))
	case "GET inventory":
		if i.Agent == "" {
			GCPError(w, 404, "notFound", "Inventory not found")
			return
		}
		reply(w, 200, map[string]any{"name": "projects/1/locations/" + i.Region + "/instances/" + i.ID + "/inventory", "osInfo": map[string]string{"osconfigAgentVersion": "20250115.00"}})
	case "POST labels":
		var in struct {
			Labels           map[string]string
			LabelFingerprint string
		}
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil || in.Labels == nil {
			GCPError(w, 400, "invalid", "Labels make no sense")
			return
		}
		if in.LabelFingerprint != g.fingerprint(*i) {
			GCPError(w, 412, "conditionNotMet", "Labels fingerprint either invalid or resource labels have changed")
			return
		}
		i.Tags = in.Labels
		g.prints[i.ID]++
		reply(w, 200, map[string]any{"kind": "compute#operation", "name": "operation-" + i.ID, "status": "RUNNING"})
	case "GET report":
		a := g.assignments[parts[3]]
		if a == nil || a.zone != i.Region || a.reports[i.ID] == nil {
			GCPError(w, 404, "notFound", "Report not found")
			return
		}
		if a.asks++; a.asks == 1 {
			reply(w, 200, report(a.policy, map[string]any{"complianceState": "UNKNOWN", "complianceStateReason": "os-policy-execution-pending"}))
			return
		}
		reply(w, 200, report(a.policy, a.reports[i.ID]))
	}
}

func report(policy string, compliance map[string]any) map[string]any {
	compliance["osPolicyId"] = policy
	return map[string]any{"lastRunId": "1", "updateTime": "2026-01-01T00:00:00Z", "osPolicyCompliances": []any{compliance}}
}

func (g *GCP) find(zone, name string) *Instance {
	for _, i := range g.machines {
		if i.Region == zone && (i.ID == name || i.Name == name) {
			return i
		}
	}
	return nil
}

func (g *GCP) fingerprint(i Instance) string {
	return base64.StdEncoding.EncodeToString([]byte(i.ID + "-" + strconv.Itoa(g.prints[i.ID])))
}

// shown is a machine as Compute Engine shows it.
func (g *GCP) shown(i Instance) map[string]any {
	base := "https://www.googleapis.com/compute/v1/projects/"
	licence, features := base+"debian-cloud/global/licenses/debian-12-bookworm", []map[string]string{{"type": "UEFI_COMPATIBLE"}}
	if i.Windows {
		licence, features = base+"windows-cloud/global/licenses/windows-server-2022-dc", append(features, map[string]string{"type": "WINDOWS"})
	}
	v := map[string]any{
		"kind": "compute#instance", "id": i.ID, "name": i.Name, "status": i.State, "zone": base + g.Project + "/zones/" + i.Region, "labels": i.Tags, "labelFingerprint": g.fingerprint(i),
		"networkInterfaces": []map[string]string{{"networkIP": i.Address}},
		"disks": []map[string]any{
			{"boot": true, "architecture": i.Arch, "licenses": []string{licence}, "guestOsFeatures": features}, {"boot": false, "licenses": []string{base + "x/global/licenses/windows-data"}},
		},
	}
	if i.Agent != "no account" {
		v["serviceAccounts"] = []map[string]any{{"email": "1-compute@developer.gserviceaccount.com", "scopes": []string{"https://www.googleapis.com/auth/cloud-platform"}}}
	}
	return v
}

func (g *GCP) list(w http.ResponseWriter, r *http.Request) {
	if len(g.Silent) > 0 && r.URL.Query().Get("returnPartialSuccess") != "true" {
		GCPError(w, 503, "backendError", "zones are unreachable")
		return
	}
	from := 0
	_, _ = fmt.Sscan(r.URL.Query().Get("pageToken"), &from)
	items := map[string]map[string]any{"zones/us-east1-b": {"warning": map[string]any{"code": "NO_RESULTS_ON_PAGE", "message": "There are no results for scope 'zones/us-east1-b' on this page."}}}
	silent := map[string]bool{}
	for _, z := range g.Silent {
		silent[z] = true
	}
	for _, i := range g.machines[min(from, len(g.machines)):min(from+g.Page, len(g.machines))] {
		if silent[i.Region] {
			continue
		}
		at := items["zones/"+i.Region]
		if at == nil || at["instances"] == nil {
			at = map[string]any{"instances": []any{}}
			items["zones/"+i.Region] = at
		}
		at["instances"] = append(at["instances"].([]any), g.shown(*i))
	}
	answer := map[string]any{"kind": "compute#instanceAggregatedList", "items": items}
	if from+g.Page < len(g.machines) {
		answer["nextPageToken"] = fmt.Sprint(from + g.Page)
	}
	var unreachable []string
	for _, z := range g.Silent {
		unreachable = append(unreachable, "projects/"+g.Project+"/zones/"+z)
	}
	answer["unreachables"] = unreachable
	reply(w, 200, answer)
}

func (g *GCP) listed(w http.ResponseWriter, zone string) {
	list := []any{}
	for name, a := range g.assignments {
		if a.zone == zone {
			list = append(list, map[string]any{"name": "projects/1/locations/" + zone + "/osPolicyAssignments/" + name})
		}
	}
	reply(w, 200, map[string]any{"osPolicyAssignments": list})
}

// gcpPolicies are the assignments that are understood: one script each.
type gcpPolicies struct {
	OSPolicies []struct {
		ID, Mode       string
		ResourceGroups []struct {
			Resources []struct {
				ID   string
				Exec struct {
					Validate, Enforce struct{ Interpreter, Script, OutputFilePath string }
				}
			}
		}
	} `json:"osPolicies"`
	InstanceFilter struct {
		All             bool
		InclusionLabels []struct{ Labels map[string]string }
	}
	Rollout struct {
		DisruptionBudget struct{ Fixed int }
		MinWaitDuration  string
	}
}

var assignmentForm = regexp.MustCompile(`^[a-z][a-z0-9-]{0,61}[a-z0-9]$`)

// assign makes an assignment, and has the machines that it is aimed at run it.
func (g *GCP) assign(w http.ResponseWriter, r *http.Request, zone string) {
	var in gcpPolicies
	name := r.URL.Query().Get("osPolicyAssignmentId")
	body, _ := io.ReadAll(r.Body)
	err := json.Unmarshal(body, &in)
	if err != nil || !assignmentForm.MatchString(name) || len(in.OSPolicies) != 1 || !assignmentForm.MatchString(in.OSPolicies[0].ID) || in.OSPolicies[0].Mode != "ENFORCEMENT" ||
		len(in.OSPolicies[0].ResourceGroups) != 1 || len(in.OSPolicies[0].ResourceGroups[0].Resources) != 1 || in.InstanceFilter.All || len(in.InstanceFilter.InclusionLabels) != 1 ||
		in.Rollout.DisruptionBudget.Fixed < 1 || in.Rollout.MinWaitDuration == "" {
		GCPError(w, 400, "badRequest", "the assignment makes no sense")
		return
	}
	resource := in.OSPolicies[0].ResourceGroups[0].Resources[0]
	validate, enforce := resource.Exec.Validate, resource.Exec.Enforce
	if validate.Interpreter != "SHELL" || enforce.Interpreter != "SHELL" || len(enforce.Script) > 32<<10 || len(validate.Script) > 32<<10 {
		GCPError(w, 400, "badRequest", "the scripts make no sense")
		return
	}
	if g.assignments[name] != nil {
		GCPError(w, 409, "alreadyExists", "already exists")
		return
	}
	a := &gcpAssignment{zone: zone, policy: in.OSPolicies[0].ID, labels: in.InstanceFilter.InclusionLabels[0].Labels, reports: map[string]map[string]any{}}
	g.assignments[name] = a
	for _, i := range g.machines {
		if i.Region != zone || i.State != "RUNNING" || i.Agent != "ok" || !within(a.labels, i.Tags) {
			continue
		}
		g.scripts = append(g.scripts, validate.Script, enforce.Script)
		at := *i
		g.mu.Unlock() // the script may ask for something
		state := g.enforce(at, validate.Script, enforce.Script, enforce.OutputFilePath)
		g.mu.Lock()
		state["osPolicyResourceCompliances"].([]map[string]any)[0]["osPolicyResourceId"] = resource.ID
		a.reports[at.ID] = state
	}
	reply(w, 200, map[string]any{"name": "projects/1/locations/" + zone + "/osPolicyAssignments/" + name + "/operations/1", "done": false})
}

func within(want, have map[string]string) bool {
	for k, v := range want {
		if have[k] != v {
			return false
		}
	}
	return true
}

var inner = regexp.MustCompile(`(?s)<<'(\w+)'\n(.*?)\n(k\w+)\n`)

// enforce does what the OS Config agent does: it asks whether the state is the
// wanted one, brings it about, keeps the output, and asks again.
func (g *GCP) enforce(i Instance, validate, enforce, output string) map[string]any {
	g.mu.Lock()
	run := g.run
	g.mu.Unlock()
	if m := inner.FindStringSubmatch(enforce); run != nil && m != nil {
		ran := run(i, m[2]+"\n")
		quoted := func(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
		enforce = strings.Replace(enforce, m[2], "printf %s "+quoted(ran.Stdout)+"\nprintf %s "+quoted(ran.Stderr)+" >&2\nexit "+strconv.Itoa(ran.Code), 1)
	}
	resource := map[string]any{}
	policy := map[string]any{"complianceState": "COMPLIANT", "osPolicyResourceCompliances": []map[string]any{resource}}
	problem := func(text string) map[string]any {
		policy["complianceState"], policy["complianceStateReason"] = "UNKNOWN", "resource-execution-errors"
		resource["configSteps"] = []map[string]string{{"type": "DESIRED_STATE_ENFORCEMENT", "errorMessage": text}}
		return policy
	}
	switch code := g.shell(validate); code {
	case 100:
		return policy
	case 101:
	default:
		return problem(fmt.Sprintf("validate: exit code %d", code))
	}
	if code := g.shell(enforce); code != 100 {
		return problem(fmt.Sprintf("enforce: exit code %d", code))
	}
	text, err := os.ReadFile(g.moved(output))
	if err != nil || len(text) > 100<<10 {
		return problem("the output file cannot be read")
	}
	resource["execResourceOutput"] = map[string]any{"enforcementOutput": text}
	if code := g.shell(validate); code != 100 {
		policy["complianceState"] = "NON_COMPLIANT"
	}
	return policy
}

// moved is a script or a path with the folder of this cloud for /run.
func (g *GCP) moved(text string) string { return strings.ReplaceAll(text, "/run/", g.folder+"/") }

func (g *GCP) shell(script string) int {
	file := filepath.Join(g.folder, "script-"+rand.Text())
	if err := os.WriteFile(file, []byte(g.moved(script)), 0o600); err != nil {
		return -1
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", file)
	_ = cmd.Run() // its code says it
	return cmd.ProcessState.ExitCode()
}

// token gives a token for an assertion that the service account has signed.
func (g *GCP) token(w http.ResponseWriter, r *http.Request) {
	_, err := jwt.Parse(r.FormValue("assertion"), func(*jwt.Token) (any, error) { return g.account.Public(), nil },
		jwt.WithValidMethods([]string{"RS256"}), jwt.WithIssuer(g.Email), jwt.WithAudience("https://oauth2.googleapis.com/token"), jwt.WithExpirationRequired())
	if err != nil || r.FormValue("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer" {
		reply(w, 400, map[string]string{"error": "invalid_grant", "error_description": "Invalid JWT Signature."})
		return
	}
	reply(w, 200, map[string]any{"access_token": "a-token", "expires_in": 3599, "token_type": "Bearer"})
}

func (g *GCP) webKey() map[string]string {
	public := g.signer.PublicKey
	return map[string]string{
		"kty": "RSA", "alg": "RS256", "use": "sig", "kid": KeyID, "n": base64.RawURLEncoding.EncodeToString(public.N.Bytes()),
		"e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(public.E)).Bytes()),
	}
}

// Claims are those of an instance's identity token.
func (g *GCP) Claims(i Instance, audience string, made time.Time) jwt.MapClaims {
	return jwt.MapClaims{
		"aud": audience, "azp": "100000000000000000002", "email": "1-compute@developer.gserviceaccount.com", "email_verified": true, "sub": "100000000000000000002",
		"iss": "https://accounts.google.com", "iat": made.Unix(), "exp": made.Add(time.Hour).Unix(),
		"google": map[string]any{"compute_engine": map[string]any{
			"project_id": g.Project, "project_number": 739419398126, "zone": i.Region, "instance_id": i.ID, "instance_name": i.Name, "instance_creation_timestamp": 1556233114,
		}},
	}
}

// Sign makes a token of claims.
func (g *GCP) Sign(claims jwt.MapClaims) string {
	t := jwt.NewWithClaims(jwt.SigningMethodRS256, claims)
	t.Header["kid"] = KeyID
	text, err := t.SignedString(g.signer)
	if err != nil {
		g.t.Error(err)
	}
	return text
}

func (g *GCP) metadata(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if r.URL.Path != "/computeMetadata/v1/instance/service-accounts/default/identity" || r.Header.Get("Metadata-Flavor") != "Google" || q.Get("audience") == "" || q.Get("format") != "full" {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	g.mu.Lock()
	var local Instance
	for _, i := range g.machines {
		if i.ID == g.local {
			local = *i
		}
	}
	g.mu.Unlock()
	_, _ = io.WriteString(w, g.Sign(g.Claims(local, q.Get("audience"), time.Now())))
}
