package gcp

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"

	"komainu/control/connector/cloud"
	"komainu/control/connector/cloud/cloudtest"
	"komainu/deploy"
)

const (
	zone   = "europe-west3-a"
	number = "100000000000000000" // of an instance, but for its last digit
)

func fleet() []*cloudtest.Instance {
	return []*cloudtest.Instance{
		{ID: number + "1", Name: "web", Region: zone, Address: "10.0.0.1", State: "RUNNING", Arch: "X86_64", Agent: "ok", Tags: map[string]string{"role": "web"}},
		{ID: number + "2", Name: "win", Region: zone, State: "RUNNING", Arch: "X86_64", Agent: "ok", Windows: true},
		{ID: number + "3", Name: "spare", Region: "us-east1-b", State: "TERMINATED", Arch: "ARM64", Agent: "ok"},
		{ID: number + "4", Name: "bare", Region: zone, State: "RUNNING", Arch: "ARM64", Agent: "no account"},
		{ID: number + "5", Name: "dumb", Region: zone, State: "RUNNING", Arch: "X86_64"},
	}
}

func open(t *testing.T, fake *cloudtest.GCP, change func(*Settings)) (*Account, Settings, cloud.Options) {
	t.Helper()
	s := Settings{ProjectID: " " + fake.Project}
	if change != nil {
		change(&s)
	}
	o := cloud.Options{Endpoints: map[string]string{cloud.GCP: fake.URL}}
	if err := o.Validate(); err != nil {
		t.Fatal(err)
	}
	if wanted, err := s.Check(fake.Key, o); err != nil || !wanted || s.ServiceAccount != fake.Email {
		t.Fatal(wanted, err, s)
	}
	a, err := Open(t.Context(), s, fake.Key, o)
	if err != nil {
		t.Fatal(err)
	}
	return a, s, o
}

func lines(found cloud.Inventory) (list []string) {
	for _, m := range found.Machines {
		list = append(list, fmt.Sprintf("%s %s %s %s %s %s %t %t %d", m.Key, m.Name, m.Address, m.System, m.OS, m.Arch, m.Stopped, m.Problem != nil, len(m.Tags)))
	}
	slices.Sort(list)
	return list
}

func TestListsInstances(t *testing.T) {
	fake := cloudtest.NewGCP(t, fleet()...)
	fake.Page = 2
	in := "gcp:" + fake.Project + ":" + zone + ":" + number
	want := []string{
		in + "1 web 10.0.0.1 linux debian-12-bookworm amd64 false false 1",
		in + "2 win  windows windows-server-2022-dc amd64 false false 0",
		in + "4 bare  linux debian-12-bookworm arm64 false true 0",
		in + "5 dumb  linux debian-12-bookworm amd64 false false 0",
		"gcp:" + fake.Project + ":us-east1-b:" + number + "3 spare  linux debian-12-bookworm arm64 true false 0",
	}
	a, _, _ := open(t, fake, nil)
	found, err := a.List(t.Context())
	if d := cmp.Diff(want, lines(found)); d != "" || err != nil || len(found.Missed) != 0 {
		t.Error(d, err, found.Missed)
	}
	if n := fake.Asked("GET instances"); n != 3 {
		t.Errorf("%d pages were asked for", n)
	}
	a, _, _ = open(t, fake, func(s *Settings) { s.Zones = []string{zone} })
	found, err = a.List(t.Context())
	if d := cmp.Diff(want[:4], lines(found)); d != "" || err != nil {
		t.Error(d, err)
	}
}

func TestZonesThatDoNotAnswer(t *testing.T) {
	fake := cloudtest.NewGCP(t, fleet()...)
	fake.Silent = []string{"us-east1-b"}
	fake.Page = 2
	a, _, _ := open(t, fake, nil)
	found, err := a.List(t.Context())
	if err != nil || len(found.Machines) != 4 || len(found.Missed) != 1 {
		t.Fatalf("%+v, %v", found, err)
	}
	m := found.Missed[0]
	if m.Part != "us-east1-b" || !m.Holds(key(fake.Project, "us-east1-b", number+"3")) || m.Holds(key(fake.Project, zone, number+"1")) {
		t.Errorf("missed: %+v", m)
	}
	a, _, _ = open(t, fake, func(s *Settings) { s.Zones = []string{zone} })
	if found, err = a.List(t.Context()); err != nil || len(found.Missed) != 0 {
		t.Errorf("a zone that is not the connector's: %+v, %v", found.Missed, err)
	}
	// A warning that does not say where means everywhere.
	fake.Answer(func(w http.ResponseWriter, what string, _ int) bool {
		if what == "GET instances" {
			fmt.Fprint(w, `{"items":{"zones/us-east1-b":{"warning":{"code":"NO_RESULTS_ON_PAGE"}}},"warning":{"code":"UNREACHABLE","message":"some"}}`)
		}
		return what == "GET instances"
	})
	if found, err = a.List(t.Context()); err != nil || len(found.Missed) != 1 || !found.Missed[0].Holds(key(fake.Project, zone, number+"1")) {
		t.Errorf("a warning without a zone: %+v, %v", found.Missed, err)
	}
}

func TestAnswersThatAreErrors(t *testing.T) {
	refuse := func(status int, reason string) func(http.ResponseWriter, string, int) bool {
		return func(w http.ResponseWriter, what string, _ int) bool {
			if what != "GET instances" {
				return false
			}
			w.Header().Set("Retry-After", "0")
			cloudtest.GCPError(w, status, reason, "because")
			return true
		}
	}
	say := func(of, text string) func(http.ResponseWriter, string, int) bool {
		return func(w http.ResponseWriter, what string, _ int) bool {
			if what == of {
				w.Header().Set("Content-Type", "application/json")
				fmt.Fprint(w, text)
			}
			return what == of
		}
	}
	for name, c := range map[string]struct {
		answer func(http.ResponseWriter, string, int) bool
		want   deploy.ReasonID
	}{
		"not allowed":        {refuse(403, "forbidden"), deploy.CloudDenied},
		"who is that":        {refuse(401, "authError"), deploy.CloudCredential},
		"throttled":          {refuse(429, "rateLimitExceeded"), deploy.CloudThrottled},
		"throttled with 403": {refuse(403, "rateLimitExceeded"), deploy.CloudThrottled},
		"broken":             {refuse(500, "backendError"), deploy.CloudFailed},
		"elsewhere":          {refuse(302, ""), deploy.CloudFailed},
		"not JSON":           {say("GET instances", "<<<"), deploy.CloudFailed},
		"pages without end":  {say("GET instances", `{"nextPageToken":"1"}`), deploy.CloudFailed},
		"token that is none": {say("POST token", "{}"), deploy.CloudFailed},
		"token not JSON":     {say("POST token", "<<<"), deploy.CloudFailed},
		"key that is deleted": {func(w http.ResponseWriter, what string, _ int) bool {
			if what == "POST token" {
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(400)
				fmt.Fprint(w, `{"error":"invalid_grant","error_description":"Invalid JWT Signature."}`)
			}
			return what == "POST token"
		}, deploy.CloudCredential},
	} {
		t.Run(name, func(t *testing.T) {
			fake := cloudtest.NewGCP(t, fleet()...)
			fake.Answer(c.answer)
			a, _, _ := open(t, fake, nil)
			_, err := a.List(t.Context())
			f, ok := errors.AsType[*deploy.Failure](err)
			if !ok || f.Reason.ID != c.want {
				t.Fatalf("got %v, want %s", err, c.want)
			}
			if strings.Contains(err.Error(), "PRIVATE") {
				t.Error("the key is in the error")
			}
		})
	}
}

func TestThrottlingIsWaitedFor(t *testing.T) {
	fake := cloudtest.NewGCP(t, fleet()...)
	fake.Answer(func(w http.ResponseWriter, what string, asked int) bool {
		if what != "GET instances" || asked >= 2 {
			return false
		}
		w.Header().Set("Retry-After", "0")
		cloudtest.GCPError(w, []int{429, 503}[asked], "rateLimitExceeded", "slow down")
		return true
	})
	a, _, _ := open(t, fake, nil)
	if found, err := a.List(t.Context()); err != nil || len(found.Machines) != 5 {
		t.Error(found, err)
	}
}

func TestCloudThatHangs(t *testing.T) {
	for _, of := range []string{"POST token", "GET instances"} {
		fake := cloudtest.NewGCP(t, fleet()...)
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		fake.Answer(func(_ http.ResponseWriter, what string, _ int) bool {
			if what == of {
				<-ctx.Done()
			}
			return what == of
		})
		a, _, _ := open(t, fake, nil)
		start := time.Now()
		_, err := a.List(ctx)
		cancel()
		if err == nil || time.Since(start) > 20*time.Second {
			t.Errorf("%s: %v after %s", of, err, time.Since(start))
		}
	}
}

// TestRunsScripts has the pretend OS Config run them with a real shell.
func TestRunsScripts(t *testing.T) {
	machines := fleet()
	fake := cloudtest.NewGCP(t, machines...)
	fake.Leave(zone, "komainu-"+machines[0].ID+"-kleft")
	fake.Leave(zone, "komainu-"+machines[1].ID+"-kother")
	fake.Leave(zone, "somebodys")
	a, _, _ := open(t, fake, nil)
	h, err := a.Reach(t.Context(), key(fake.Project, zone, machines[0].ID), "")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := deploy.LimitsOf(h), (deploy.Limits{NoInput: true, Cloud: "gcp"}); got != want {
		t.Errorf("limits %+v, want %+v", got, want)
	}
	facts, err := deploy.Inspect(t.Context(), h, "")
	if err != nil || facts.System != "Linux" || facts.Kernel == "" {
		t.Errorf("facts %+v, %v", facts, err)
	}
	var said []string
	err = h.Run(t.Context(), "#!/bin/sh\nfor a; do echo \"komainu:$a\"; done; echo why >&2; exit 90\n", []string{`it's`, "b c"}, nil, func(l string) { said = append(said, l) })
	if exit, ok := errors.AsType[*deploy.Exit](err); !ok || exit.Code != 90 || !strings.Contains(exit.Tail, "why") {
		t.Errorf("the script ended with %v", err)
	}
	if d := cmp.Diff([]string{`it's`, "b c"}, said); d != "" {
		t.Error(d)
	}
	if err := h.Run(t.Context(), "#!/bin/sh\n", nil, strings.NewReader("secret"), nil); err == nil {
		t.Error("input was dropped quietly")
	}
	flood := "#!/bin/sh\nhead -c 200000 /dev/zero | tr '\\0' x; echo; echo komainu:done\n"
	said = nil
	err = h.Run(t.Context(), flood, nil, nil, func(l string) { said = append(said, l) })
	if f, ok := errors.AsType[*deploy.Failure](err); !ok || f.Reason.ID != deploy.OutputFlood || len(said) != 1 {
		t.Errorf("a flood: %v, %v", err, said)
	}
	left := fake.Left()
	slices.Sort(left)
	if d := cmp.Diff([]string{"komainu-" + machines[1].ID + "-kother", "somebodys"}, left); d != "" {
		t.Errorf("what is left: %s", d)
	}
	if d := cmp.Diff(map[string]string{"role": "web"}, fake.Labels(machines[0].ID)); d != "" {
		t.Errorf("the labels are others now: %s", d)
	}
}

// TestRunsOnOneInstance has somebody else change labels meanwhile, and an
// assignment that cannot be deleted at once.
func TestRunsOnOneInstance(t *testing.T) {
	machines := fleet()
	twin := *machines[0]
	twin.ID, twin.Name, twin.Tags = number+"9", "twin", map[string]string{"role": "web", label: "kold"}
	fake := cloudtest.NewGCP(t, append(machines, &twin)...)
	ran := map[string]int{}
	fake.Run(func(i cloudtest.Instance, _ string) cloudtest.Ran {
		ran[i.Name]++
		return cloudtest.Ran{Stdout: "komainu:done\n"}
	})
	fake.Answer(func(w http.ResponseWriter, what string, asked int) bool {
		switch {
		case what == "POST labels" && asked == 0:
			fake.Label(machines[0].ID, "team", "blue")
		case what == "DELETE assignment" && asked < 2:
			cloudtest.GCPError(w, 400, "failedPrecondition", "A rollout is in progress")
			return true
		}
		return false
	})
	a, _, _ := open(t, fake, nil)
	h, err := a.Reach(t.Context(), key(fake.Project, zone, machines[0].ID), "")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Run(t.Context(), "#!/bin/sh\n", nil, nil, func(string) {}); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(map[string]int{"web": 1}, ran); d != "" {
		t.Errorf("it ran on others: %s", d)
	}
	if d := cmp.Diff(map[string]string{"role": "web", "team": "blue"}, fake.Labels(machines[0].ID)); d != "" {
		t.Error(d)
	}
	if left := fake.Left(); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestRunThatFailsLeavesNothing(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(http.ResponseWriter, string, int) bool
		want   deploy.ReasonID
	}{
		"no right to assign": {func(w http.ResponseWriter, what string, _ int) bool {
			if what == "POST assignment" {
				cloudtest.GCPError(w, 403, "forbidden", "osconfig.osPolicyAssignments.create")
			}
			return what == "POST assignment"
		}, deploy.CloudDenied},
		"no right to label": {func(w http.ResponseWriter, what string, _ int) bool {
			if what == "POST labels" {
				cloudtest.GCPError(w, 403, "forbidden", "compute.instances.setLabels")
			}
			return what == "POST labels"
		}, deploy.CloudDenied},
		"a report of nonsense": {func(w http.ResponseWriter, what string, _ int) bool {
			if what == "GET report" {
				fmt.Fprint(w, "<<<")
			}
			return what == "GET report"
		}, deploy.CloudFailed},
	} {
		t.Run(name, func(t *testing.T) {
			machines := fleet()
			fake := cloudtest.NewGCP(t, machines...)
			fake.Answer(c.answer)
			a, _, _ := open(t, fake, nil)
			h, err := a.Reach(t.Context(), key(fake.Project, zone, machines[0].ID), "")
			if err != nil {
				t.Fatal(err)
			}
			err = h.Run(t.Context(), "#!/bin/sh\n", nil, nil, func(string) {})
			if f, ok := errors.AsType[*deploy.Failure](err); !ok || f.Reason.ID != c.want {
				t.Errorf("got %v, want %s", err, c.want)
			}
			if d := cmp.Diff(map[string]string{"role": "web"}, fake.Labels(machines[0].ID)); d != "" || len(fake.Left()) != 0 {
				t.Errorf("left behind: %s %v", d, fake.Left())
			}
		})
	}
}

// TestRunThatNobodyWaitsFor ends while the agent has not reported.
func TestRunThatNobodyWaitsFor(t *testing.T) {
	machines := fleet()
	fake := cloudtest.NewGCP(t, machines...)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the control plane ends")
	fake.Answer(func(w http.ResponseWriter, what string, asked int) bool {
		if what != "GET report" {
			return false
		}
		if asked == 1 {
			cancel(why)
		}
		cloudtest.GCPError(w, 404, "notFound", "no report")
		return true
	})
	a, _, _ := open(t, fake, nil)
	h, err := a.Reach(ctx, key(fake.Project, zone, machines[0].ID), "")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Run(ctx, "#!/bin/sh\n", nil, nil, func(string) {}); !errors.Is(err, why) {
		t.Errorf("it ended with %v", err)
	}
	if d := cmp.Diff(map[string]string{"role": "web"}, fake.Labels(machines[0].ID)); d != "" || len(fake.Left()) != 0 {
		t.Errorf("left behind: %s %v", d, fake.Left())
	}
}

// TestAssignmentsLeftBehindDoNothing runs what asks whether the script is to
// run, with a real shell.
func TestAssignmentsLeftBehindDoNothing(t *testing.T) {
	for name, c := range map[string]struct {
		until time.Time
		want  int
	}{"now": {time.Now().Add(time.Minute), 101}, "later": {time.Now().Add(-time.Second), 100}} {
		p, err := policyOf("knone", "#!/bin/sh\n", c.until)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("/bin/sh", "-c", p.ResourceGroups[0].Resources[0].Exec.Validate.Script)
		_ = cmd.Run()
		if got := cmd.ProcessState.ExitCode(); got != c.want {
			t.Errorf("%s: code %d, want %d", name, got, c.want)
		}
	}
	if _, err := policyOf("knone", strings.Repeat("x", scriptLimit), time.Now()); err == nil {
		t.Error("a script that is too long is taken")
	}
}

func TestReachSaysWhy(t *testing.T) {
	fake := cloudtest.NewGCP(t, fleet()...)
	a, _, _ := open(t, fake, nil)
	for name, c := range map[string]struct {
		key  string
		want deploy.ReasonID
	}{
		"stopped":            {key(fake.Project, "us-east1-b", number+"3"), deploy.Stopped},
		"no service account": {key(fake.Project, zone, number+"4"), deploy.CloudAgent},
		"no agent":           {key(fake.Project, zone, number+"5"), deploy.CloudAgent},
		"gone":               {key(fake.Project, zone, number+"8"), deploy.ConnectorFailed},
		"another project":    {key("example-other", zone, number+"1"), deploy.ConnectorFailed},
		"nonsense":           {"gcp:" + fake.Project + ":../..:1", deploy.ConnectorFailed},
	} {
		_, err := a.Reach(t.Context(), c.key, "")
		if f, ok := errors.AsType[*deploy.Failure](err); !ok || f.Reason.ID != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

// TestZonesForMachineLearning: Google names them in a way of their own.
func TestZonesForMachineLearning(t *testing.T) {
	const special = "us-central1-ai1a"
	web := *fleet()[0]
	web.Region = special
	fake := cloudtest.NewGCP(t, &web)
	a, _, o := open(t, fake, nil)
	found, err := a.List(t.Context())
	want := key(fake.Project, special, web.ID)
	if err != nil || len(found.Machines) != 1 || found.Machines[0].Key != want {
		t.Fatalf("%+v, %v", found, err)
	}
	s := Settings{ProjectID: fake.Project, Zones: []string{special}}
	if _, err := s.Check(fake.Key, cloud.Options{}); err != nil {
		t.Error(err)
	}
	if _, err := a.Reach(t.Context(), want, ""); err != nil {
		t.Error(err)
	}
	e := cloud.Evidence{Nonce: "0123456789", Pin: strings.Repeat("ab", 32)}
	e.Document = fake.Sign(fake.Claims(web, audience(e), time.Now()))
	if got, err := s.Identify(t.Context(), e, o, NewKeys(o)); err != nil || got != want {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestSettingsLeadNowhere(t *testing.T) {
	fake := cloudtest.NewGCP(t)
	good := func() Settings { return Settings{ProjectID: fake.Project} }
	for name, change := range map[string]func(*Settings){
		"project": func(s *Settings) { s.ProjectID = "evil.example/x" },
		"number":  func(s *Settings) { s.ProjectID = "123456789" },
		"zone":    func(s *Settings) { s.Zones = []string{"a/../b"} },
	} {
		s := good()
		change(&s)
		if _, err := s.Check(fake.Key, cloud.Options{}); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	for name, secret := range map[string]string{
		"none": "", "no JSON": "x", "other JSON": "[]",
		"external account": fake.KeyFile(map[string]string{"type": "external_account", "credential_source": "x"}),
		"impersonation":    fake.KeyFile(map[string]string{"type": "impersonated_service_account"}),
		"user":             fake.KeyFile(map[string]string{"type": "authorized_user"}),
		"token elsewhere":  fake.KeyFile(map[string]string{"token_uri": "https://evil.example/token"}),
		"token at Google?": fake.KeyFile(map[string]string{"token_uri": "https://oauth2.googleapis.com.evil.example/token"}),
		"universe":         fake.KeyFile(map[string]string{"universe_domain": "evil.example"}),
		"email":            fake.KeyFile(map[string]string{"client_email": "somebody@evil.example"}),
		"private key":      fake.KeyFile(map[string]string{"private_key": "x"}),
	} {
		s := good()
		if _, err := s.Check(secret, cloud.Options{}); err == nil {
			t.Errorf("%s: taken", name)
		} else if strings.Contains(err.Error(), "PRIVATE") {
			t.Errorf("%s: the key is in the error", name)
		}
		if secret != "" {
			if _, err := Open(t.Context(), s, secret, cloud.Options{OwnIdentity: true}); err == nil {
				t.Errorf("%s: opened", name)
			}
		}
	}
	if _, err := Open(t.Context(), good(), "", cloud.Options{}); err == nil {
		t.Error("the own identity is used though it is not allowed")
	}
	s := good()
	if wanted, err := s.Check("", cloud.Options{OwnIdentity: true}); wanted || err != nil {
		t.Error(wanted, err)
	}
}

func TestIdentifies(t *testing.T) {
	fake := cloudtest.NewGCP(t, fleet()...)
	_, s, o := open(t, fake, nil)
	web := *fleet()[0]
	at := time.Now()
	o.Now = func() time.Time { return at }
	keys := NewKeys(o)
	e := cloud.Evidence{Nonce: "0123456789", Pin: strings.Repeat("ab", 32)}
	identify := func(document string) (string, error) {
		e := e
		e.Document = document
		return s.Identify(t.Context(), e, o, keys)
	}
	claims := func(change jwt.MapClaims, instance map[string]any) jwt.MapClaims {
		c := fake.Claims(web, audience(e), at)
		maps.Copy(c["google"].(map[string]any)["compute_engine"].(map[string]any), instance)
		maps.Copy(c, change)
		return c
	}
	good := fake.Sign(claims(nil, nil))
	if got, err := identify(good); err != nil || got != key(fake.Project, zone, web.ID) {
		t.Fatalf("got %q, %v", got, err)
	}
	stranger := cloudtest.NewGCP(t)
	unsigned := jwt.NewWithClaims(jwt.SigningMethodNone, claims(nil, nil))
	unsigned.Header["kid"] = cloudtest.KeyID
	none, err := unsigned.SignedString(jwt.UnsafeAllowNoneSignatureType)
	if err != nil {
		t.Fatal(err)
	}
	symmetric := jwt.NewWithClaims(jwt.SigningMethodHS256, claims(nil, nil))
	symmetric.Header["kid"] = cloudtest.KeyID
	hmac, err := symmetric.SignedString([]byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(good, ".")
	changed := base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(decoded(t, parts[1]), web.ID, number+"2", 1)))
	for name, document := range map[string]string{
		"another nonce":     fake.Sign(claims(jwt.MapClaims{"aud": "komainu:" + e.Pin + ":9999999999"}, nil)),
		"another plane":     fake.Sign(claims(jwt.MapClaims{"aud": "komainu:" + strings.Repeat("cd", 32) + ":" + e.Nonce}, nil)),
		"several audiences": fake.Sign(claims(jwt.MapClaims{"aud": []string{audience(e), "other"}}, nil)),
		"another issuer":    fake.Sign(claims(jwt.MapClaims{"iss": "https://evil.example"}, nil)),
		"expired":           fake.Sign(claims(jwt.MapClaims{"exp": at.Add(-time.Hour).Unix()}, nil)),
		"does not expire":   fake.Sign(claims(jwt.MapClaims{"exp": nil}, nil)),
		"old":               fake.Sign(claims(jwt.MapClaims{"iat": at.Add(-30 * time.Minute).Unix()}, nil)),
		"of tomorrow":       fake.Sign(claims(jwt.MapClaims{"iat": at.Add(24 * time.Hour).Unix()}, nil)),
		"no time":           fake.Sign(claims(jwt.MapClaims{"iat": nil}, nil)),
		"another project":   fake.Sign(claims(nil, map[string]any{"project_id": "example-other"})),
		"no instance":       fake.Sign(claims(jwt.MapClaims{"google": nil}, nil)),
		"odd instance":      fake.Sign(claims(nil, map[string]any{"instance_id": "1:2"})),
		"odd zone":          fake.Sign(claims(nil, map[string]any{"zone": "x:y"})),
		"a stranger":        stranger.Sign(claims(nil, nil)),
		"changed":           parts[0] + "." + changed + "." + parts[2],
		"not signed":        none,
		"symmetric":         hmac,
		"nonsense":          "a.b.c",
		"nothing":           "",
	} {
		if got, err := identify(document); err == nil {
			t.Errorf("%s: taken for %s", name, got)
		}
	}
	if n := fake.Asked("GET keys"); n != 1 {
		t.Errorf("the keys were asked for %d times", n)
	}
	if _, err := s.Identify(t.Context(), cloud.Evidence{Document: fake.Sign(fake.Claims(web, "komainu::", at))}, o, keys); err == nil {
		t.Error("a token for no question is taken")
	}
}

func decoded(t *testing.T, text string) string {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestKeysAreBounded(t *testing.T) {
	fake := cloudtest.NewGCP(t)
	at := time.Now()
	k := NewKeys(cloud.Options{Endpoints: map[string]string{cloud.GCP: fake.URL}, Now: func() time.Time { return at }})
	find := func(id string, ok bool, asked int) {
		t.Helper()
		if key, err := k.find(t.Context(), id); (err == nil) != ok || (key != nil) != ok {
			t.Errorf("%s: %v, %v", id, key, err)
		}
		if n := fake.Asked("GET keys"); n != asked {
			t.Errorf("%s: asked %d times, want %d", id, n, asked)
		}
	}
	find(cloudtest.KeyID, true, 1)
	for range 10 { // anybody may name keys
		find("other", false, 1)
	}
	at = at.Add(keysAgain)
	find(cloudtest.KeyID, true, 1)
	find("other", false, 2)
	at = at.Add(keysLast)
	find(cloudtest.KeyID, true, 3)
	at = at.Add(keysLast)
	fake.Answer(func(w http.ResponseWriter, what string, _ int) bool {
		fmt.Fprint(w, `{"keys":[{"kty":"RSA","kid":"`+cloudtest.KeyID+`","n":"AQAB","e":"AQAB"}]}`)
		return true
	})
	find(cloudtest.KeyID, false, 4) // too short, and the old ones do not last
	find(cloudtest.KeyID, false, 4)
	fake.Answer(nil)
	at = at.Add(keysFailed)
	find(cloudtest.KeyID, true, 5)
}

// FuzzIdentify shows tokens that anybody may have made.
func FuzzIdentify(f *testing.F) {
	fake := cloudtest.NewGCP(f)
	s, o := Settings{ProjectID: fake.Project}, cloud.Options{Endpoints: map[string]string{cloud.GCP: fake.URL}}
	web := *fleet()[0]
	e := cloud.Evidence{Nonce: "0123456789", Pin: "ab"}
	keys := NewKeys(o)
	f.Add(fake.Sign(fake.Claims(web, audience(e), time.Now())))
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Fuzz(func(t *testing.T, document string) {
		e := e
		e.Document = document
		got, err := s.Identify(t.Context(), e, o, keys)
		if err == nil && got != key(fake.Project, zone, web.ID) {
			t.Errorf("taken for %s", got)
		}
	})
}

// FuzzParseKeys reads what is said to be Google's keys.
func FuzzParseKeys(f *testing.F) {
	f.Add([]byte(`{"keys":[{"kty":"RSA","kid":"a","n":"AQAB","e":"AQAB"}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		known, err := parseKeys(text)
		if err == nil && len(known) == 0 {
			t.Error("no error and no key")
		}
		for id, k := range known {
			if id == "" || tooShort(k) || k.E < 3 {
				t.Errorf("key %q: %v", id, k)
			}
		}
	})
}

// FuzzOutcome reads what machines report.
func FuzzOutcome(f *testing.F) {
	f.Add([]byte("krun 0 20\nkomainu:done\n"))
	f.Add([]byte("krun 90 20\nkomainu:fail x\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		said := 0
		err := outcome("krun", base64.StdEncoding.EncodeToString(raw), func(string) { said++ })
		if said > strings.Count(string(raw), deploy.Prefix) {
			t.Errorf("%d lines of %q", said, raw)
		}
		if err == nil && !strings.Contains(string(raw), "krun") {
			t.Errorf("%q is taken for the run", raw)
		}
	})
}
