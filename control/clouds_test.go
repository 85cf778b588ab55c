package control

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"komainu/agent/instance"
	"komainu/agent/link"
	"komainu/control/access"
	"komainu/control/connector"
	"komainu/control/connector/cloud"
	"komainu/control/connector/cloud/cloudtest"
	"komainu/control/machine"
	"komainu/deploy"
	"komainu/fault"
	"komainu/wire"
)

// doorOf serves the enrolment of a bench, as the control plane does, and has
// its engine work on machines that reach it there.
func doorOf(t *testing.T, b *bench, clouds cloud.Options) (address string) {
	t.Helper()
	organization, err := b.api.access.Organization(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var handler http.Handler
	serve := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r) })
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address = "https://" + listener.Addr().String()
	b.open(address, clouds)
	known := b.api.known
	handler = b.api.ids.Handler(&registrar{organization: organization, plans: b.api.plans, devices: b.api.devices, machines: known.machines, engine: known.engine, connectors: known.connectors}, wire.Protocol)
	entry := newDoor(listener, b.api.ids.TLSConfig(), slog.New(slog.DiscardHandler), serve, serve)
	ended := make(chan error, 1)
	go func() { ended <- entry.Run() }()
	t.Cleanup(func() {
		if err := entry.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		<-ended
	})
	return address
}

// joinByCloud enrols as the agent does, with the document of a metadata service.
func joinByCloud(ctx context.Context, dir, kind, server, pin, metadata string, force bool) (link.Identity, error) {
	return link.Enrol(ctx, link.EnrolOptions{
		Dir: dir, Force: force, Facts: wire.Facts{Hostname: "web", OS: "linux", Distribution: "debian", OSVersion: "12", AgentVersion: "1.0.0"},
		Cloud: &link.CloudJoin{Cloud: kind, Server: server, Pin: pin, Document: instance.At(metadata).Document},
	})
}

// goodFacts are those of a server that can get the agent.
func goodFacts() string {
	var text strings.Builder
	for _, f := range []string{
		"uid 0", "hostname web", "os debian", "os_version 12", "os_name Debian GNU/Linux 12", "system Linux", "kernel 6.1.0", "arch x86_64", "init systemd", "container none",
		"memory_kb 4000000", "var_kb 9000000", "usr_kb 9000000", fmt.Sprintf("clock %d", time.Now().Unix()), "manager deb", "reach ok",
	} {
		text.WriteString("komainu:fact " + f + "\n")
	}
	return text.String() + "komainu:done\n"
}

var argument = regexp.MustCompile(`'([a-z0-9]+)=([^']*)'`)

// arguments are those that stand in a script.
func arguments(script string) map[string]string {
	args := map[string]string{}
	first := strings.SplitN(script, "\n", 3)[1]
	for _, m := range argument.FindAllStringSubmatch(first, -1) {
		args[m[1]] = m[2]
	}
	return args
}

// eventually waits until f holds.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	deadline, tick := time.After(20*time.Second), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-deadline:
			t.Fatal(what)
		case <-tick.C:
		}
	}
}

// newHost is a server that the script of a deployment runs on: it answers as
// the script does, and enrols as the agent does.
func newHost(t *testing.T, b *bench, metadata string) (run func(cloudtest.Instance, string) cloudtest.Ran, installs chan map[string]string) {
	t.Helper()
	deb := filepath.Join(t.TempDir(), "komainu-agent_1.0.0_amd64.deb")
	if err := os.WriteFile(deb, []byte("!<arch>\ndebian-binary   "), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := b.api.known.repository.Add(deb); err != nil {
		t.Fatal(err)
	}
	state := t.TempDir()
	installs = make(chan map[string]string, 10)
	return func(_ cloudtest.Instance, script string) cloudtest.Ran {
		if strings.Contains(script, "set -- 'facts'") {
			return cloudtest.Ran{Stdout: goodFacts()}
		}
		args := arguments(script)
		installs <- args
		id, err := joinByCloud(t.Context(), state, args["cloud"], "https://"+args["server"], args["pin"], metadata, args["enrol"] == "cloudforce")
		if err != nil {
			return cloudtest.Ran{Stdout: "komainu:fail enrol_refused " + err.Error() + "\n", Code: 90}
		}
		return cloudtest.Ran{Stdout: "komainu:step enrol\nkomainu:done 1.0.0 " + string(id.Device) + "\n"}
	}, installs
}

// protects has the engine of a bench work until a machine has an agent.
func protects(t *testing.T, b *bench, name string) {
	t.Helper()
	want[any](b, 200, "PUT", "/environments/"+b.env+"/plan", `{"version":1,"servers":true}`)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.api.known.engine.Run(ctx) }()
	defer func() { stop(); <-ended }()
	eventually(t, name+" did not enrol", func() bool {
		list := want[struct{ Items []machine.View }](b, 200, "GET", "/machines?q="+name, "")
		if len(list.Items) != 1 {
			t.Fatalf("%d machines %s", len(list.Items), name)
		}
		if r := list.Items[0].Extension.Reason; r != nil && list.Items[0].Extension.State == deploy.Failed {
			t.Fatalf("%s: %s (%s)", name, r.Text, r.Detail)
		}
		return list.Items[0].Device != nil
	})
}

// TestAzureFromConnectorToEnrolment is the same over the extension.
func TestAzureFromConnectorToEnrolment(t *testing.T) {
	web := &cloudtest.Instance{ID: "44444444-4444-4444-4444-444444444444", Name: "web", Region: "prod", State: "running", Agent: "Ready"}
	fake := cloudtest.NewAzure(t, web)
	fake.Local(web.ID)
	b := newBench(t)
	server := doorOf(t, b, cloud.Options{Endpoints: map[string]string{cloud.Azure: fake.URL}, Transport: fake.Transport, Roots: fake.Roots})
	host, installs := newHost(t, b, fake.Metadata)
	fake.Run(host)
	certificates, _ := json.Marshal(fake.Certificates)
	way := want[connector.Connector](b, 200, "POST", "/environments/"+b.env+"/connectors", fmt.Sprintf(
		`{"name":"a","kind":"azure","azure":{"tenantId":%q,"subscriptionId":%q,"clientId":%q,"certificates":%s},"secret":{"clientSecret":%q}}`, fake.Tenant, fake.Sub, fake.ID, certificates, fake.Secret))
	if way.Machines != 1 || way.Verified != cloud.Unverified || way.Azure == nil || !way.Azure.HasSecret {
		t.Errorf("the connector is %+v", way)
	}
	if _, text := b.send(access.Admin, "GET", "/api/v1/connectors/"+way.ID, ""); strings.Contains(text, fake.Secret) || strings.Contains(b.log.String(), fake.Secret) {
		t.Error("the secret came back")
	}
	protects(t, b, "web")
	if args := <-installs; args["enrol"] != "cloud" || args["cloud"] != "azure" || args["token"] != "" || !strings.HasPrefix(args["url"], server+"/repository/targets/") {
		t.Errorf("the script was called with %v", args)
	}
}

// TestGCPFromConnectorToEnrolment is the same over OS Config, and a token that
// was shown is good for nobody else.
func TestGCPFromConnectorToEnrolment(t *testing.T) {
	web := &cloudtest.Instance{ID: "1000000000000000001", Name: "web", Region: "europe-west3-a", Address: "10.0.0.1", State: "RUNNING", Arch: "X86_64", Agent: "ok", Tags: map[string]string{"role": "web"}}
	spare := &cloudtest.Instance{ID: "1000000000000000002", Name: "spare", Region: "us-east1-b", State: "RUNNING", Arch: "X86_64", Agent: "ok"}
	fake := cloudtest.NewGCP(t, web, spare)
	fake.Local(web.ID)
	b := newBench(t)
	server := doorOf(t, b, cloud.Options{Endpoints: map[string]string{cloud.GCP: fake.URL}})
	host, installs := newHost(t, b, fake.Metadata)
	fake.Run(host)
	body, err := json.Marshal(map[string]any{"name": "g", "kind": "gcp", "gcp": map[string]any{"projectId": fake.Project}, "secret": map[string]string{"serviceAccountKey": fake.Key}})
	if err != nil {
		t.Fatal(err)
	}
	report := want[connector.Report](b, 200, "POST", "/environments/"+b.env+"/connectors/test", string(body))
	if report.Total != 2 || report.Passed != 2 {
		t.Errorf("the test found %+v", report)
	}
	way := want[connector.Connector](b, 200, "POST", "/environments/"+b.env+"/connectors", string(body))
	if way.Machines != 2 || way.Verified != cloud.Unverified || way.GCP == nil || !way.GCP.HasSecret || way.GCP.ServiceAccount != fake.Email {
		t.Errorf("the connector is %+v", way)
	}
	if _, text := b.send(access.Admin, "GET", "/api/v1/connectors/"+way.ID, ""); strings.Contains(text, "PRIVATE KEY") || strings.Contains(b.log.String(), "PRIVATE KEY") {
		t.Error("the key came back")
	}

	// A zone that is down keeps its machines.
	fake.Silent = []string{"us-east1-b"}
	if synced := want[machine.Synced](b, 200, "POST", "/connectors/"+way.ID+"/sync", ""); synced.Gone != 0 || synced.Known != 1 {
		t.Errorf("with a zone down: %+v", synced)
	}
	if got := want[connector.Connector](b, 200, "GET", "/connectors/"+way.ID, ""); got.Error == nil || got.Error.ID != deploy.InventoryPartial {
		t.Errorf("the connector does not say that a zone is down: %+v", got.Error)
	}
	fake.Silent = nil
	fake.Set(web)
	if synced := want[machine.Synced](b, 200, "POST", "/connectors/"+way.ID+"/sync", ""); synced.Gone != 1 {
		t.Errorf("with an instance deleted: %+v", synced)
	}

	protects(t, b, "web")
	if args := <-installs; args["enrol"] != "cloud" || args["cloud"] != "gcp" || args["token"] != "" || !strings.HasPrefix(args["url"], server+"/repository/targets/") {
		t.Errorf("the script was called with %v", args)
	}
	if left := fake.Left(); len(left) != 0 || fake.Labels(web.ID)["komainu-run"] != "" {
		t.Errorf("left behind: %v, %v", left, fake.Labels(web.ID))
	}
	show := func(document func(nonce, pin string) string) error {
		_, err := link.Enrol(t.Context(), link.EnrolOptions{Dir: t.TempDir(), Cloud: &link.CloudJoin{
			Cloud: cloud.GCP, Server: server, Pin: b.api.ids.Pin(),
			Document: func(_ context.Context, _, nonce, pin string) (string, string, error) {
				return document(nonce, pin), "", nil
			},
		}})
		return err
	}
	sign := func(i *cloudtest.Instance, audience string) string {
		return fake.Sign(fake.Claims(*i, audience, time.Now()))
	}
	if err := show(func(_, pin string) string { return sign(web, "komainu:"+pin+":0123456789") }); !fault.Is(err, fault.Unauthentic) {
		t.Errorf("a token that was made for another question: %v", err)
	}
	if err := show(func(nonce, pin string) string { return sign(spare, "komainu:"+pin+":"+nonce) }); !fault.Is(err, fault.Unavailable) {
		t.Errorf("an instance that is not in the inventory: %v", err)
	}
}

// TestAWSFromConnectorToEnrolment goes the whole way: a connector is made over
// the API, its instances are listed, the plan goes on, Systems Manager runs the
// script, and the agent enrols by the identity document of its instance.
func TestAWSFromConnectorToEnrolment(t *testing.T) {
	web := &cloudtest.Instance{ID: "i-0123456789abcdef0", Name: "web", Region: "eu-central-1", Address: "10.0.0.1", State: "running", Arch: "x86_64", Agent: "Online", Tags: map[string]string{"role": "web"}, Launched: time.Now().Add(-time.Hour)}
	stopped := &cloudtest.Instance{ID: "i-0123456789abcdef1", Name: "spare", Region: "us-east-1", State: "stopped", Arch: "x86_64", Launched: time.Now()}
	fake := cloudtest.NewAWS(t, web, stopped)
	fake.Local(web.ID)
	b := newBench(t)
	server := doorOf(t, b, cloud.Options{Endpoints: map[string]string{cloud.AWS: fake.URL}})
	host, installs := newHost(t, b, fake.Metadata)
	fake.Run(host)

	const secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
	body := func(secret string) string {
		text, err := json.Marshal(map[string]any{
			"name": "Our account", "kind": "aws",
			"aws":    map[string]any{"regions": []string{"eu-central-1", "us-east-1"}, "accessKeyId": fake.AccessKey, "certificates": fake.Certificate},
			"secret": map[string]string{"secretAccessKey": secret},
		})
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	report := want[connector.Report](b, 200, "POST", "/environments/"+b.env+"/connectors/test", body(secret))
	if report.Total != 2 || report.Passed != 1 {
		t.Errorf("the test found %+v", report)
	}
	way := want[connector.Connector](b, 200, "POST", "/environments/"+b.env+"/connectors", body(secret))
	if way.Machines != 2 || way.Verified != cloud.Unverified || way.Error != nil || way.AWS == nil || !way.AWS.HasSecret || way.LastSync == nil {
		t.Errorf("the connector is %+v", way)
	}
	_, text := b.send(access.Admin, "GET", "/api/v1/connectors/"+way.ID, "")
	if strings.Contains(text, secret) || strings.Contains(b.log.String(), secret) {
		t.Error("the secret came back")
	}

	// A region that is down keeps its machines.
	fake.Answer(func(w http.ResponseWriter, region, _ string, _ int) bool {
		if region == "us-east-1" {
			cloudtest.AWSError(w, 403, "UnauthorizedOperation", "no")
		}
		return region == "us-east-1"
	})
	synced := want[machine.Synced](b, 200, "POST", "/connectors/"+way.ID+"/sync", "")
	if synced.Gone != 0 || synced.Known != 1 {
		t.Errorf("with a region down: %+v", synced)
	}
	if got := want[connector.Connector](b, 200, "GET", "/connectors/"+way.ID, ""); got.Error == nil || got.Error.ID != deploy.InventoryPartial {
		t.Errorf("the connector does not say that a region is down: %+v", got.Error)
	}
	fake.Answer(nil)

	// The plan goes on, and the engine works.
	want[any](b, 200, "POST", "/connectors/"+way.ID+"/sync", "")
	want[any](b, 200, "PUT", "/environments/"+b.env+"/plan", `{"version":1,"servers":true}`)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.api.known.engine.Run(ctx) }()
	defer func() { stop(); <-done }()
	args := <-installs
	if args["enrol"] != "cloud" || args["cloud"] != "aws" || args["token"] != "" || !strings.HasPrefix(args["url"], server+"/repository/targets/") {
		t.Errorf("the script was called with %v", args)
	}
	find := func(name string) machine.View {
		list := want[struct{ Items []machine.View }](b, 200, "GET", "/machines?q="+name, "")
		if len(list.Items) != 1 {
			t.Fatalf("%d machines %s", len(list.Items), name)
		}
		return list.Items[0]
	}
	eventually(t, "the machine did not enrol", func() bool { return find("web").Device != nil })
	eventually(t, "the stopped one is not said to be stopped", func() bool {
		r := find("spare").Extension.Reason
		return r != nil && r.ID == deploy.Stopped
	})

}

// TestEvidenceIsGoodOnce tries documents without an engine: a machine that
// boots from an image enrols by itself, once.
func TestEvidenceIsGoodOnce(t *testing.T) {
	web := &cloudtest.Instance{ID: "i-0123456789abcdef0", Name: "web", Region: "eu-central-1", State: "running", Arch: "x86_64", Agent: "Online", Launched: time.Now()}
	fake := cloudtest.NewAWS(t, web)
	fake.Local(web.ID)
	fake.Run(func(cloudtest.Instance, string) cloudtest.Ran {
		return cloudtest.Ran{Stdout: "komainu:step remove\nkomainu:done\n"}
	})
	b := newBench(t)
	server := doorOf(t, b, cloud.Options{Endpoints: map[string]string{cloud.AWS: fake.URL}})
	pin := b.api.ids.Pin()
	try := func() error {
		_, err := joinByCloud(t.Context(), t.TempDir(), cloud.AWS, server, pin, fake.Metadata, false)
		return err
	}
	if err := try(); !fault.Is(err, fault.Unauthentic) {
		t.Errorf("without a connector: %v", err)
	}
	fake.Set()
	certificates, _ := json.Marshal(fake.Certificate)
	want[connector.Connector](b, 200, "POST", "/environments/"+b.env+"/connectors", fmt.Sprintf(
		`{"name":"a","kind":"aws","aws":{"regions":["eu-central-1"],"accessKeyId":%q,"certificates":%s},"secret":{"secretAccessKey":"s"}}`, fake.AccessKey, certificates))
	fake.Set(web)
	if err := try(); !fault.Is(err, fault.Unavailable) {
		t.Errorf("before it is known: %v", err)
	}
	list := want[struct{ Items []connector.Connector }](b, 200, "GET", "/environments/"+b.env+"/connectors", "")
	want[any](b, 200, "POST", "/connectors/"+list.Items[0].ID+"/sync", "")
	if err := try(); err != nil {
		t.Fatalf("a machine that is known: %v", err)
	}
	if err := try(); !fault.Is(err, fault.Denied) {
		t.Errorf("a second time: %v", err)
	}
	m := b.api.known.machines.All(b.env)[0]
	want[any](b, 200, "POST", "/machines/"+m.ID+"/offboard", `{}`)
	if err := try(); !fault.Is(err, fault.Denied) {
		t.Errorf("after it was offboarded: %v", err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.api.known.engine.Run(ctx) }()
	eventually(t, "the agent is not removed", func() bool { return b.api.known.machines.All(b.env)[0].Extension.State == deploy.None })
	stop()
	<-ended
	want[any](b, 200, "POST", "/machines/"+m.ID+"/deploy", `{}`)
	if err := try(); err != nil {
		t.Errorf("after somebody has asked for it: %v", err)
	}
	if _, err := joinByCloud(t.Context(), t.TempDir(), cloud.AWS, server, strings.Repeat("0", 64), fake.Metadata, false); !fault.Is(err, fault.Unauthentic) {
		t.Errorf("a control plane with another pin: %v", err)
	}
}

// Machines whose connector is no more, because the control plane was ended
// while it was deleted, are let go of at the next start.
func TestMachinesWithoutTheirConnectorAreLetGo(t *testing.T) {
	b := newBench(t)
	found := machine.Inventory{Machines: []machine.Known{{Key: "web:22", Name: "web"}, {Key: "db:22", Name: "db"}}}
	if _, err := b.api.known.machines.Sync(t.Context(), b.org, b.env, "no-more", connector.KindSSH, found); err != nil {
		t.Fatal(err)
	}
	way := want[connector.Connector](b, 200, "POST", "/environments/"+b.env+"/connectors", `{"name":"ours","kind":"ssh","ssh":{"hosts":"192.0.2.1","user":"root","sudo":"none","credential":"push","hostKeys":"first_use"}}`)
	b.open("https://127.0.0.1:1", cloud.Options{})
	for _, m := range b.api.known.machines.All(b.env) {
		if m.Connector == way.ID {
			continue
		}
		if m.Connector != "" || !m.Gone {
			t.Errorf("%s is still of the connector %q", m.Name, m.Connector)
		}
		want[struct{}](b, 204, "DELETE", "/machines/"+m.ID, "")
	}
	if left := b.api.known.machines.All(b.env); len(left) != 1 {
		t.Errorf("%d machines are left", len(left))
	}
}
