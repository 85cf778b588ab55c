package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"komainu/agent/link"
	"komainu/control/client"
	"komainu/deploy"
	"komainu/fault"
	"komainu/policy"
	"komainu/wire"
)

// agentOf enrols an agent with a token and runs it until the test ends.
func agentOf(t *testing.T, name string) func(token string) string {
	return func(token string) string {
		dir := t.TempDir()
		facts := wire.Facts{Hostname: name, OS: "linux", Distribution: "debian", AgentVersion: "1.2.3"}
		id, err := link.Enrol(t.Context(), link.EnrolOptions{Dir: dir, Token: token, Facts: facts})
		if err != nil {
			t.Error(err)
			return ""
		}
		l := link.New(link.Config{
			Dir: dir, Facts: func() wire.Facts { return facts }, Epoch: 7, PolicyVersion: func() uint64 { return 0 },
			ApplyPolicy: func(s policy.Signed) (uint64, error) {
				doc, err := policy.Open(s, id.PolicyKey)
				if err != nil {
					return 0, err
				}
				return doc.Version, nil
			},
			Health: func() []byte { return []byte(`{"healthy":true}`) }, Counts: func() (uint64, uint64) { return 0, 0 }, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.Run(ctx) }()
		t.Cleanup(func() { cancel(); <-done })
		return string(id.Device)
	}
}

// TestDeployToAConnector goes from a list of hosts whose connector holds no
// credential to machines that are protected, each of them once.
func TestDeployToAConnector(t *testing.T) {
	dir := t.TempDir()
	for _, version := range []string{"1.2.3", "1.3.0"} {
		if err := os.WriteFile(filepath.Join(dir, "komainu-agent_"+version+"_amd64.deb"), []byte("!<arch>\n"+version), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	server, ca, password := plane(t, "--packages", dir)
	text, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	api, err := client.New(client.Options{Server: server, CA: text})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := api.SignIn(t.Context(), "admin", password); err != nil {
		t.Fatal(err)
	}
	token, err := api.CreateToken(t.Context(), "test", "admin", 3600)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	via := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	t.Cleanup(via.CloseIdleConnections)
	do := func(method, path string, body, into any) {
		t.Helper()
		text, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		r, err := http.NewRequestWithContext(t.Context(), method, server+"/api/v1"+path, bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token.Token)
		r.Header.Set("Content-Type", "application/json")
		answer, err := via.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		if text, err = io.ReadAll(answer.Body); err != nil || answer.StatusCode > 299 {
			t.Fatalf("%s %s: %s %s, %v", method, path, answer.Status, text, err)
		}
		if into != nil {
			if err := json.Unmarshal(text, into); err != nil {
				t.Fatal(err)
			}
		}
	}

	private, signer := newSigner(t)
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	key, profile := filepath.Join(dir, "key"), filepath.Join(dir, "ctl.json")
	if err := os.WriteFile(key, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSH_AUTH_SOCK", "")
	t.Setenv("HOME", filepath.Join(dir, "home"))
	var hosts []*host
	port := "0"
	for i := range 5 {
		name := fmt.Sprintf("127.0.0.%d", i+1)
		h := (&host{enrols: agentOf(t, name)}).serve(t, net.JoinHostPort(name, port), signer.PublicKey())
		_, port, _ = net.SplitHostPort(h.address)
		hosts = append(hosts, h)
	}
	run := func(code int, args string, words ...string) string {
		t.Helper()
		var b strings.Builder
		c := root(strings.NewReader(password+"\n"), &b, &b)
		c.SetArgs(append(strings.Fields(args), "--profile", profile))
		err := c.ExecuteContext(t.Context())
		if err != nil {
			fmt.Fprintln(&b, "error:", err)
		}
		if got := fault.Exit(err); got != code {
			t.Errorf("%s: exit %d, want %d\n%s", args, got, code, &b)
		}
		for _, w := range words {
			if !strings.Contains(b.String(), w) {
				t.Errorf("%s does not say %q:\n%s", args, w, &b)
			}
		}
		return b.String()
	}
	run(0, "login "+server+" --ca "+ca)

	// Version 1.3.0 is there, and not what new machines get.
	upgrades, err := api.Upgrades(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := api.SaveUpgrades(t.Context(), client.UpgradeChange{Version: upgrades.Version, Target: "1.2.3", Rings: upgrades.Rings}); err != nil {
		t.Fatal(err)
	}
	environments, err := api.Environments(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	env := environments.Items[0].ID
	plan, err := api.Plan(t.Context(), env)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := api.SavePlan(t.Context(), env, client.PlanChange{Version: plan.Version, Servers: true}); err != nil {
		t.Fatal(err)
	}
	var settings map[string]any
	do("GET", "/environments/"+env+"/onboarding", nil, &settings)
	change := map[string]any{"skipSelfTest": true, "excludeTags": []map[string]string{{"key": "role", "value": "lab"}}}
	for _, name := range []string{"version", "automatic", "concurrency", "dryRun", "observe", "allowHostOffboarding", "keepOffboardedDays"} {
		change[name] = settings[name]
	}
	do("PUT", "/environments/"+env+"/onboarding", change, nil)
	way := map[string]any{"name": "shop servers", "kind": "ssh", "ssh": map[string]any{
		"hosts": "127.0.0.1 127.0.0.2 127.0.0.4\n127.0.0.3 role=lab", "user": "root", "port": json.Number(port), "sudo": "none", "credential": "push", "hostKeys": "first_use",
	}}
	// The fourth has enrolled by itself.
	join, err := api.CreateJoinToken(t.Context(), env, client.JoinTokenRequest{Label: "by itself"})
	if err != nil {
		t.Fatal(err)
	}
	hosts[3].agent, hosts[3].device = "1.2.3", agentOf(t, "127.0.0.4")(join.Token)
	var made client.Connector
	do("POST", "/environments/"+env+"/connectors", way, &made)
	machines := func() map[string]client.Machine {
		t.Helper()
		list, err := api.Machines(t.Context(), client.Query{"limit": "100"})
		if err != nil {
			t.Fatal(err)
		}
		byName := map[string]client.Machine{}
		for _, m := range list.Items {
			if m.Connector != nil {
				byName[m.Name] = m
			}
		}
		if len(byName) < len(list.Items) {
			byName["others"] = client.Machine{}
		}
		return byName
	}
	becomes := func(name string, state deploy.State, reason deploy.ReasonID) client.Machine {
		t.Helper()
		deadline := time.After(20 * time.Second)
		for {
			m := machines()[name]
			if x := m.Extension; x.State == state && (x.Reason == nil) == (reason == "") && (reason == "" || x.Reason.ID == reason) {
				return m
			}
			select {
			case <-deadline:
				t.Fatalf("%s is %+v, want %s %s", name, m.Extension, state, reason)
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	first := becomes("127.0.0.1", deploy.Waiting, deploy.CredentialMissing)
	if first.Extension.Reason.Detail != "komainuctl deploy --connector 'shop servers'" {
		t.Errorf("%+v", first.Extension.Reason)
	}
	becomes("127.0.0.3", deploy.NotApplicable, deploy.Excluded)
	with := " --identity " + key + " --known-hosts " + filepath.Join(dir, "known_hosts") + " --connector " + made.ID

	run(fault.ExitUsage, "deploy --port 22"+with, "the list of the connector says the ports")
	run(fault.ExitFailed, "deploy 127.0.0.9"+with, "lists no machine")
	run(fault.ExitFailed, "deploy --connector mars", "there is no connector")
	run(fault.ExitFailed, "deploy --environment mars"+with, "there is no environment")
	run(0, "deploy --dry-run --accept-new"+with, "127.0.0.1\tok\tinstall 1.2.3, enrol", "127.0.0.3\tpassed\ta tag excludes the machine from deployment (role=lab)")
	// One that is named is not passed over in silence.
	run(fault.ExitFailed, "deploy 127.0.0.3 --accept-new"+with, "127.0.0.3\tfailed\ta tag excludes", "1 of 1 hosts failed")
	run(0, "deploy 127.0.0.1"+with, "127.0.0.1\tself_test", "127.0.0.1\tok\tinstall 1.2.3, enrol (")
	if now := becomes("127.0.0.1", deploy.Succeeded, ""); now.ID != first.ID || now.Device == nil || now.Device.ID != hosts[0].device {
		t.Errorf("%+v", now)
	}
	if _, ok := machines()["others"]; !ok {
		t.Error("the machine that enrolled by itself is gone before somebody was there")
	}
	run(0, "deploy"+with, "127.0.0.1\tpassed\tit is protected already", "127.0.0.2\tok\tinstall", "127.0.0.3\tpassed\t", "127.0.0.4\tok\tkeep 1.2.3 (")
	for i, h := range []*host{hosts[0], hosts[1], hosts[3]} {
		m := becomes([]string{"127.0.0.1", "127.0.0.2", "127.0.0.4"}[i], deploy.Succeeded, "")
		if m.Device == nil || m.Device.ID != h.device {
			t.Errorf("%s is the device %+v, not %s", m.Name, m.Device, h.device)
		}
	}
	if all := machines(); len(all) != 4 {
		t.Errorf("there are more machines than hosts: %v", all)
	}
	if hosts[2].installs != 0 || hosts[0].installs != 1 || hosts[1].installs != 1 {
		t.Errorf("%d, %d and %d installations", hosts[0].installs, hosts[1].installs, hosts[2].installs)
	}
	out := run(0, "deploy -o json"+with)
	if n := strings.Count(out, `"passedOver":true`); n != 4 {
		t.Errorf("%d passed over:\n%s", n, out)
	}
	var trail struct {
		Items []struct {
			Action string
			Actor  struct{ Name string }
			Detail json.RawMessage
		}
	}
	do("GET", "/audit?limit=100", nil, &trail)
	told := 0
	for _, e := range trail.Items {
		if e.Action == "join_token.create" && strings.Contains(string(e.Detail), first.ID) {
			told++
		}
	}
	if told != 1 {
		t.Errorf("the audit log tells of %d tokens for %s", told, first.ID)
	}

	// What is offboarded gets no token, and the one that somebody holds ends.
	held, err := api.CreateMachineToken(t.Context(), first.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := api.OffboardMachine(t.Context(), first.ID, "sold"); err != nil {
		t.Fatal(err)
	}
	if _, err := api.CreateMachineToken(t.Context(), first.ID); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "offboarded") {
		t.Errorf("a token for what is offboarded: %v", err)
	}
	if _, err := link.Enrol(t.Context(), link.EnrolOptions{Dir: t.TempDir(), Token: held.Token, Facts: wire.Facts{Hostname: "x", OS: "linux"}}); err == nil || !strings.Contains(err.Error(), "revoked") {
		t.Errorf("a token outlives the offboarding: %v", err)
	}
	run(0, "deploy"+with, "127.0.0.1\tpassed\tsomebody has offboarded")

	// Keys that are listed count alone.
	strict := map[string]any{"name": "strict", "kind": "ssh", "ssh": map[string]any{
		"hosts": "127.0.0.5:" + port, "user": "root", "sudo": "none", "credential": "push", "hostKeys": "listed", "knownHosts": "127.0.0.9 " + string(ssh.MarshalAuthorizedKey(signer.PublicKey())),
	}}
	do("POST", "/environments/"+env+"/connectors", strict, &made)
	becomes("127.0.0.5", deploy.Waiting, deploy.CredentialMissing)
	run(fault.ExitUsage, "deploy --accept-new --connector strict --identity "+key, "--accept-new")
	run(fault.ExitFailed, "deploy --connector strict --identity "+key, "add the key to the connector's known hosts")
	strict["ssh"].(map[string]any)["knownHosts"] = "[127.0.0.5]:" + port + " " + string(ssh.MarshalAuthorizedKey(hosts[4].key.PublicKey()))
	strict["version"] = 1
	do("PUT", "/connectors/"+made.ID, strict, nil)
	run(0, "deploy --connector strict --identity "+key, "127.0.0.5\tok\tinstall 1.2.3, enrol (")
	becomes("127.0.0.5", deploy.Succeeded, "")
}
