package azure

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/compute/armcompute/v6"
	"github.com/google/go-cmp/cmp"

	"komainu/control/connector/cloud"
	"komainu/control/connector/cloud/cloudtest"
	"komainu/deploy"
)

const vm = "44444444-4444-4444-4444-44444444444"

func fleet() []*cloudtest.Instance {
	return []*cloudtest.Instance{
		{ID: vm + "1", Name: "web", Region: "Prod", State: "running", Agent: "Ready", Tags: map[string]string{"role": "web"}},
		{ID: vm + "2", Name: "win", Region: "prod", State: "running", Agent: "Ready", Windows: true},
		{ID: vm + "3", Name: "spare", Region: "prod", State: "deallocated"},
		{ID: vm + "4", Name: "lab", Region: "lab", State: "running", Agent: "Not Ready"},
	}
}

func open(t *testing.T, fake *cloudtest.Azure, change func(*Settings)) (*Account, Settings, cloud.Options) {
	t.Helper()
	s := Settings{TenantID: strings.ToUpper(fake.Tenant), SubscriptionID: fake.Sub, ClientID: fake.ID, Certificates: fake.Certificates}
	if change != nil {
		change(&s)
	}
	o := cloud.Options{Endpoints: map[string]string{cloud.Azure: fake.URL}, Transport: fake.Transport, Roots: fake.Roots}
	if _, err := s.Check(fake.Secret, o); err != nil {
		t.Fatal(err)
	}
	a, err := Open(s, fake.Secret, o)
	if err != nil {
		t.Fatal(err)
	}
	return a, s, o
}

func TestListsMachines(t *testing.T) {
	fake := cloudtest.NewAzure(t, fleet()...)
	fake.Page = 1
	a, _, _ := open(t, fake, func(s *Settings) { s.ResourceGroups = []string{"PROD"} })
	found, err := a.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, m := range found.Machines {
		lines = append(lines, fmt.Sprintf("%s %s %s %q %t %d", m.Key, m.Name, m.System, m.OS, m.Stopped, len(m.Tags)))
	}
	slices.Sort(lines)
	want := []string{
		"azure:" + fake.Sub + ":" + vm + `1 web linux "debian-12 12" false 1`,
		"azure:" + fake.Sub + ":" + vm + `2 win windows "debian-12 12" false 0`,
		"azure:" + fake.Sub + ":" + vm + `3 spare linux "debian-12 12" true 0`,
	}
	if d := cmp.Diff(want, lines); d != "" {
		t.Error(d)
	}
}

func TestAnswersThatAreErrors(t *testing.T) {
	refuse := func(status int, code string) func(http.ResponseWriter, string, int) bool {
		return func(w http.ResponseWriter, what string, _ int) bool {
			if what != "GET machines" {
				return false
			}
			w.Header().Set("Retry-After", "0")
			cloudtest.AzureError(w, status, code, "because")
			return true
		}
	}
	for name, c := range map[string]struct {
		answer func(http.ResponseWriter, string, int) bool
		want   deploy.ReasonID
	}{
		"not allowed": {refuse(403, "AuthorizationFailed"), deploy.CloudDenied},
		"throttled for ever": {func(w http.ResponseWriter, what string, asked int) bool {
			if asked > 0 && what == "GET machines" {
				w.Header().Set("X-Ms-Retry-After-Ms", "1")
			}
			return refuse(429, "TooManyRequests")(w, what, asked)
		}, deploy.CloudThrottled},
		"not JSON": {func(w http.ResponseWriter, what string, _ int) bool {
			if what == "GET machines" {
				fmt.Fprint(w, "<<<")
			}
			return what == "GET machines"
		}, deploy.CloudFailed},
		"secret": {func(w http.ResponseWriter, what string, _ int) bool {
			if what == "POST login" {
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(401)
				fmt.Fprint(w, `{"error":"invalid_client","error_description":"AADSTS7000222: expired"}`)
			}
			return what == "POST login"
		}, deploy.CloudCredential},
	} {
		t.Run(name, func(t *testing.T) {
			fake := cloudtest.NewAzure(t, fleet()...)
			fake.Answer(c.answer)
			a, _, _ := open(t, fake, nil)
			_, err := a.List(t.Context())
			f, ok := errors.AsType[*deploy.Failure](err)
			if !ok || f.Reason.ID != c.want {
				t.Fatalf("got %v, want %s", err, c.want)
			}
			if strings.Contains(err.Error(), fake.Secret) {
				t.Error("the secret is in the error")
			}
		})
	}
}

func TestThrottlingIsWaitedFor(t *testing.T) {
	fake := cloudtest.NewAzure(t, fleet()...)
	fake.Answer(func(w http.ResponseWriter, what string, asked int) bool {
		if what == "GET machines" && asked < 2 {
			w.Header().Set("X-Ms-Retry-After-Ms", "1")
			cloudtest.AzureError(w, 429, "TooManyRequests", "slow down")
			return true
		}
		return false
	})
	a, _, _ := open(t, fake, nil)
	if found, err := a.List(t.Context()); err != nil || len(found.Machines) != 4 {
		t.Error(found, err)
	}
}

func TestCloudThatHangs(t *testing.T) {
	fake := cloudtest.NewAzure(t, fleet()...)
	fake.Answer(func(http.ResponseWriter, string, int) bool {
		<-t.Context().Done()
		return true
	})
	a, _, _ := open(t, fake, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := a.List(ctx); err == nil {
		t.Error("a list without an answer")
	}
}

func reach(t *testing.T, fake *cloudtest.Azure, a *Account, i *cloudtest.Instance) (deploy.Host, error) {
	return a.Reach(t.Context(), key(fake.Sub, i.ID), fake.Resource(*i))
}

// TestRunsScripts has the pretend extension run them with a real shell.
func TestRunsScripts(t *testing.T) {
	machines := fleet()
	fake := cloudtest.NewAzure(t, machines...)
	fake.Run(func(_ cloudtest.Instance, script string) cloudtest.Ran {
		var out, problems strings.Builder
		cmd := exec.Command("/bin/sh", "-c", script)
		cmd.Stdout, cmd.Stderr = &out, &problems
		_ = cmd.Run()
		return cloudtest.Ran{Stdout: out.String(), Stderr: problems.String(), Code: cmd.ProcessState.ExitCode()}
	})
	a, _, _ := open(t, fake, nil)
	h, err := reach(t, fake, a, machines[0])
	if err != nil {
		t.Fatal(err)
	}
	if got, want := deploy.LimitsOf(h), (deploy.Limits{NoInput: true, Cloud: "azure"}); got != want {
		t.Errorf("limits %+v, want %+v", got, want)
	}
	facts, err := deploy.Inspect(t.Context(), h, "")
	if err != nil || facts.System != "Linux" || facts.Kernel == "" {
		t.Errorf("facts %+v, %v", facts, err)
	}
	var lines []string
	err = h.Run(t.Context(), "#!/bin/sh\nfor a; do echo \"komainu:$a\"; done; echo why >&2; exit 90\n", []string{`it's`, "b c"}, nil, func(l string) { lines = append(lines, l) })
	if exit, ok := errors.AsType[*deploy.Exit](err); !ok || exit.Code != 90 {
		t.Errorf("the script ended with %v", err)
	}
	if d := cmp.Diff([]string{`it's`, "b c"}, lines); d != "" {
		t.Error(d)
	}
	if err := h.Run(t.Context(), "#!/bin/sh\n", nil, strings.NewReader("secret"), nil); err == nil {
		t.Error("input was dropped quietly")
	}
	if err := h.Run(t.Context(), "#!/bin/sh\n", []string{"remove"}, nil, func(string) {}); err != nil || fake.Asked("DELETE extension") != 1 {
		t.Errorf("the extension stays after the agent is removed: %v", err)
	}
}

func TestReachSaysWhy(t *testing.T) {
	machines := fleet()
	fake := cloudtest.NewAzure(t, machines...)
	a, _, _ := open(t, fake, nil)

	elsewhere := strings.Replace(fake.Resource(*machines[0]), fake.Sub, fake.Tenant, 1)
	for name, c := range map[string]struct {
		key, address string
		want         deploy.ReasonID
	}{
		"agent not ready":      {key(fake.Sub, vm+"4"), fake.Resource(*machines[3]), deploy.CloudAgent},
		"another machine":      {key(fake.Sub, vm+"9"), fake.Resource(*machines[0]), deploy.ConnectorFailed},
		"another subscription": {key(fake.Sub, vm+"1"), elsewhere, deploy.ConnectorFailed},
		"nonsense":             {"x", "https://evil.example/", deploy.ConnectorFailed},
	} {
		_, err := a.Reach(t.Context(), c.key, c.address)
		if f, ok := errors.AsType[*deploy.Failure](err); !ok || f.Reason.ID != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

func TestSettingsLeadNowhere(t *testing.T) {
	good := Settings{TenantID: vm + "1", SubscriptionID: vm + "2", ClientID: vm + "3"}
	cloudtest.LeadNowhere(t, good, check, "secret", map[string]func(*Settings){
		"tenant":         func(s *Settings) { s.TenantID = "evil.example/x" },
		"subscription":   func(s *Settings) { s.SubscriptionID = "../.." },
		"client":         func(s *Settings) { s.ClientID = "x y" },
		"resource group": func(s *Settings) { s.ResourceGroups = []string{"a/b"} },
		"cloud":          func(s *Settings) { s.Cloud = "https://evil.example" },
		"own identity":   func(s *Settings) { s.ClientID = "" },
		"certificates":   func(s *Settings) { s.Certificates = "x" },
	})
}

// check is how a connector checks what somebody saves: the secret is wanted.
func check(s Settings, secret string) error {
	wanted, err := s.Check(secret, cloud.Options{})
	if err == nil && !wanted {
		err = errors.New("no secret is wanted")
	}
	return err
}

func TestIdentifies(t *testing.T) {
	fake := cloudtest.NewAzure(t, fleet()...)
	_, s, o := open(t, fake, nil)
	i := *fleet()[0]
	const nonce = "0123456789"
	document := fake.Document(i, nonce, time.Now())
	got, err := s.Identify(cloud.Evidence{Document: document, Nonce: nonce}, o)
	if want := key(fake.Sub, i.ID); err != nil || got != want {
		t.Errorf("got %q, %v", got, err)
	}
	stranger := cloudtest.NewAzure(t)
	raw, err := base64.StdEncoding.DecodeString(document)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(raw), vm+"1", vm+"2", 1)
	if changed == string(raw) {
		t.Fatal("the document does not name its machine")
	}
	for name, e := range map[string]cloud.Evidence{
		"another nonce": {Document: document, Nonce: "0000000000"},
		"no nonce":      {Document: fake.Document(i, "", time.Now())},
		"old":           {Document: fake.Document(i, nonce, time.Now().Add(-time.Hour)), Nonce: nonce},
		"future":        {Document: fake.Document(i, nonce, time.Now().Add(time.Hour)), Nonce: nonce},
		"changed":       {Document: base64.StdEncoding.EncodeToString([]byte(changed)), Nonce: nonce},
		"a stranger":    {Document: stranger.Document(i, nonce, time.Now()), Nonce: nonce},
		"no base64":     {Document: "???", Nonce: nonce},
		"nothing":       {Nonce: nonce},
	} {
		if got, err := s.Identify(e, o); err == nil {
			t.Errorf("%s: taken for %s", name, got)
		}
	}
	other := s
	other.SubscriptionID = fake.Tenant
	if _, err := other.Identify(cloud.Evidence{Document: document, Nonce: nonce}, o); err == nil {
		t.Error("a machine of another subscription is taken")
	}
	noRoot := o
	noRoot.Roots = x509.NewCertPool()
	if _, err := s.Identify(cloud.Evidence{Document: document, Nonce: nonce}, noRoot); err == nil {
		t.Error("a chain that leads to no root is taken")
	}
	// Somebody else's certificate of the same authorities.
	for _, name := range []string{"evil.example", "metadata.azure.com.evil.example", "xmetadata.azure.com"} {
		fake.Named(name)
		named := s
		named.Certificates, o.Roots = fake.Certificates, fake.Roots
		if got, err := named.Identify(cloud.Evidence{Document: fake.Document(i, nonce, time.Now()), Nonce: nonce}, o); err == nil {
			t.Errorf("a document of %s is taken for %s", name, got)
		}
	}
}

// FuzzIdentify shows documents that anybody may have made.
func FuzzIdentify(f *testing.F) {
	fake := cloudtest.NewAzure(f)
	s := Settings{SubscriptionID: fake.Sub, Certificates: fake.Certificates}
	document := fake.Document(*fleet()[0], "0123456789", time.Now())
	raw, err := base64.StdEncoding.DecodeString(document)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte{0x30, 0x80, 0, 0})
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := s.Identify(cloud.Evidence{Document: base64.StdEncoding.EncodeToString(raw), Nonce: "0123456789"}, cloud.Options{Roots: fake.Roots})
		if err == nil && got != key(fake.Sub, fleet()[0].ID) {
			t.Errorf("taken for %s", got)
		}
	})
}

// FuzzOutcome reads what extensions say.
func FuzzOutcome(f *testing.F) {
	f.Add("Enable failed: failed to execute command: command terminated with exit status=90\n[stdout]\nkomainu:fail x\n[stderr]\n")
	f.Add("[stderr][stdout]\nkomainu:done")
	f.Fuzz(func(t *testing.T, message string) {
		var lines int
		_ = outcome(view(message), nil, func(string) { lines++ })
		if lines > strings.Count(message, deploy.Prefix) {
			t.Errorf("%d lines of %q", lines, message)
		}
	})
}

// view is an extension that says something.
func view(message string) *armcompute.VirtualMachineExtensionProperties {
	return &armcompute.VirtualMachineExtensionProperties{InstanceView: &armcompute.VirtualMachineExtensionInstanceView{Statuses: []*armcompute.InstanceViewStatus{{Message: &message}}}}
}
