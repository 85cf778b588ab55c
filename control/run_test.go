package control_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"komainu/agent/link"
	"komainu/control"
	"komainu/control/access"
	"komainu/control/client"
	"komainu/event"
	"komainu/fault"
	"komainu/finding"
	"komainu/policy"
	"komainu/wire"
)

// plane is a control plane that runs in this process.
type plane struct {
	url, password string
	state         string
	stop          func() int
	said          bytes.Buffer // its log; to be read when it has stopped
}

// start runs the command and waits until it says that it is ready.
func start(t *testing.T, state string, more ...string) *plane {
	t.Helper()
	p := &plane{state: state}
	out, in := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan int, 1)
	env := control.Env{Version: "test", Stdout: in, Stderr: io.MultiWriter(t.Output(), &p.said), Secret: in, Hashing: access.Hashing{Passes: 1, Memory: 64, Threads: 1}}
	go func() {
		done <- control.Command(ctx, append([]string{"run", "--state", state, "--listen", "127.0.0.1:0"}, more...), env)
		in.Close()
	}()
	stopped := false
	p.stop = func() int {
		if stopped {
			return 0
		}
		stopped = true
		cancel()
		return <-done
	}
	t.Cleanup(func() { p.stop() })
	lines := bufio.NewScanner(out)
	for p.url == "" {
		if !lines.Scan() {
			t.Fatalf("it has ended with %d", <-done)
		}
		if rest, ok := strings.CutPrefix(lines.Text(), "admin one-time password: "); ok {
			p.password = rest
		}
		if rest, ok := strings.CutPrefix(lines.Text(), "ready "); ok {
			p.url = rest
		}
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	return p
}

// client returns a client that trusts the CA in the state folder.
func (p *plane) client(t *testing.T, token string) *client.Client {
	t.Helper()
	ca, err := os.ReadFile(filepath.Join(p.state, "keys", "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(client.Options{Server: p.url, CA: ca, Token: token})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// admin signs in for the first time and returns a client with a new password.
func (p *plane) admin(t *testing.T) *client.Client {
	t.Helper()
	c := p.client(t, "")
	s, err := c.SignIn(t.Context(), "admin", p.password)
	if err != nil || !s.MustChangePassword {
		t.Fatalf("%+v, %v", s, err)
	}
	if _, err := c.ChangePassword(t.Context(), p.password, "correct horse battery"); err != nil {
		t.Fatal(err)
	}
	return c
}

// eventually waits until f has nothing to complain about.
func eventually(t *testing.T, f func() string) {
	t.Helper()
	deadline := time.After(15 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for problem := f(); problem != ""; problem = f() {
		select {
		case <-deadline:
			t.Fatal(problem)
		case <-tick.C:
		}
	}
}

// spool is the source of a link: records in memory.
type spool struct {
	records chan [][]byte
	acked   atomic.Uint64
	next    uint64
}

func (s *spool) source(stream uint64) link.Source {
	return link.Source{
		Stream: stream,
		Next: func(ctx context.Context, after uint64, _ int) (link.Batch, error) {
			select {
			case r := <-s.records:
				b := link.Batch{First: s.next + 1, Records: r}
				s.next += uint64(len(r))
				return b, nil
			case <-ctx.Done():
				return link.Batch{}, ctx.Err()
			}
		},
		Ack: func(upTo uint64) error { s.acked.Store(upTo); return nil },
	}
}

// TestFromFirstStartToIncident goes the whole way with the real parts of the
// control plane and the link of an agent.
func TestFromFirstStartToIncident(t *testing.T) {
	p := start(t, t.TempDir())
	c := p.admin(t)
	list, err := c.Environments(t.Context())
	if err != nil || len(list.Items) != 1 {
		t.Fatalf("%+v, %v", list, err)
	}
	env := list.Items[0].ID
	token, err := c.CreateJoinToken(t.Context(), env, client.JoinTokenRequest{Label: "test"})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	facts := wire.Facts{Hostname: "web-1", OS: "linux", Distribution: "debian", AgentVersion: "1.0"}
	identity, err := link.Enrol(t.Context(), link.EnrolOptions{Dir: dir, Token: token.Token, Facts: facts})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := link.Enrol(t.Context(), link.EnrolOptions{Dir: t.TempDir(), Token: token.Token, Facts: facts}); !fault.Is(err, fault.Unauthentic) || !strings.Contains(err.Error(), "used up") {
		t.Errorf("a second host with a token for one: %v", err)
	}

	licensed := make(chan bool, 10)
	records := &spool{records: make(chan [][]byte)}
	l := link.New(link.Config{
		Dir: dir, Facts: func() wire.Facts { return facts }, Epoch: 7, Sources: []link.Source{records.source(1)},
		PolicyVersion: func() uint64 { return 0 },
		ApplyPolicy: func(s policy.Signed) (uint64, error) {
			doc, err := policy.Open(s, identity.PolicyKey)
			if err != nil {
				return 0, err
			}
			licensed <- doc.Licensed
			return doc.Version, nil
		},
		Health: func() []byte {
			return []byte(`{"healthy":true,"licensed":true,"real_time_protection_enabled":true,"real_time_protection_available":true}`)
		},
		Counts: func() (uint64, uint64) { return 0, 0 }, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	ctx, cancel := context.WithCancel(t.Context())
	linked := make(chan error, 1)
	go func() { linked <- l.Run(ctx) }()
	defer func() { cancel(); <-linked }()

	// The plan is off at first; switching it on reaches the device.
	if <-licensed {
		t.Error("licensed before the plan is on")
	}
	plan, err := c.Plan(t.Context(), env)
	if err != nil {
		t.Fatal(err)
	}
	if plan, err = c.SavePlan(t.Context(), env, client.PlanChange{Version: plan.Version, Servers: true}); err != nil {
		t.Fatal(err)
	}
	if !<-licensed {
		t.Error("not licensed although the plan is on")
	}
	id := string(identity.Device)
	eventually(t, func() string {
		d, err := c.Device(t.Context(), id)
		switch {
		case err != nil:
			return err.Error()
		case d.Policy.ConfirmedVersion == 0 || d.Policy.ConfirmedVersion != d.Policy.Version || d.Extension.ProvisioningState != "Succeeded" || !d.Connected || d.SensorHealth != "Active" || d.Protection.RealTime != "on":
			return "the device is not protected: " + d.SensorHealth + " " + d.Extension.ProvisioningState + " " + d.Extension.Message
		}
		return ""
	})

	// A policy reaches the device, and its confirmation the page.
	if _, err := c.CreatePolicy(t.Context(), client.PolicyChange{Name: "base", Type: "antivirus", Settings: map[string]json.RawMessage{"scanArchives": json.RawMessage("false")},
		Assignments: []client.Assignment{{Kind: "all"}}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		p, err := c.DevicePolicy(t.Context(), id)
		if err != nil {
			return err.Error()
		}
		for _, s := range p.Settings {
			if s.Name == "scanArchives" && string(s.Value) == "false" && s.Source.Name == "base" && s.Confirmed && s.Since != nil && !p.Pending {
				return ""
			}
		}
		return fmt.Sprintf("the policy is not confirmed: %+v", p)
	})

	// An event and a finding, and then both once more.
	created := event.Event{ID: event.ID{Epoch: 7, Source: event.FromFile, Seq: 1}, Time: time.Now(), Action: event.FileCreated, File: &event.File{Path: "/srv/eicar.com"}}
	f := finding.Finding{ID: "f1", Time: time.Now(), Severity: finding.Informational, Category: finding.CategoryMalware, Source: finding.SourceAntivirus, State: finding.Quarantined,
		Threat: &event.Threat{Name: "Virus:DOS/EICAR_Test_File"}, Evidence: []finding.Evidence{{File: &event.File{Path: "/srv/eicar.com"}}},
		Tree: []event.Process{{Key: event.ProcessKey{Boot: "b", PID: 5, Start: 1}, Name: "curl"}}}
	one, err := wire.EncodeEvent(&created)
	if err != nil {
		t.Fatal(err)
	}
	two, err := wire.EncodeFinding(&f)
	if err != nil {
		t.Fatal(err)
	}
	sent := time.Now()
	records.records <- [][]byte{one, two}
	var alert client.Alert
	eventually(t, func() string {
		list, err := c.Alerts(t.Context(), client.Query{"device": id})
		if err != nil || list.Total != 1 {
			return "no alert"
		}
		alert = list.Items[0]
		return ""
	})
	t.Logf("from the agent to an alert in the API: %v", time.Since(sent))
	if alert.Title != "'EICAR_Test_File' malware was prevented" || alert.Device.Name != "web-1" {
		t.Errorf("alert %+v", alert)
	}
	records.records <- [][]byte{one, two}
	eventually(t, func() string {
		if records.acked.Load() != 4 {
			return "not everything is acknowledged"
		}
		return ""
	})
	in, err := c.Incident(t.Context(), alert.IncidentID)
	if err != nil || in.Name != "'EICAR_Test_File' malware was prevented on one endpoint" || in.Alerts.Total != 1 {
		t.Errorf("incident %+v, %v", in, err)
	}
	eventually(t, func() string {
		list, err := c.Timeline(t.Context(), id, nil)
		if err != nil || len(list.Items) != 1 || list.Items[0].Action != "FileCreated" {
			return "the timeline does not hold the one event"
		}
		return ""
	})

	// A restart keeps everything; the device comes back by itself.
	if code := p.stop(); code != 0 {
		t.Fatalf("it has ended with %d", code)
	}
	again := start(t, p.state, "--listen", strings.TrimPrefix(p.url, "https://"))
	if again.password != "" {
		t.Error("a second start shows a password")
	}
	c = again.client(t, "")
	if _, err := c.SignIn(t.Context(), "admin", "correct horse battery"); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		if d, err := c.Device(t.Context(), id); err != nil || !d.Connected || d.ActiveAlerts != 1 {
			return "the device does not come back with its alert"
		}
		return ""
	})

	// A revoked device is out at once and for good.
	if _, err := c.Revoke(t.Context(), id, "sold"); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		if d, err := c.Device(t.Context(), id); err != nil || d.Connected || d.OnboardingStatus != "Offboarded" {
			return "the revoked device is connected"
		}
		if s := l.State(); s.Connected || s.Error == nil || !strings.Contains(s.Error.Error(), "offboarded") {
			return "the agent does not know that it is revoked"
		}
		return ""
	})
}

func TestOneControlPlaneAtATime(t *testing.T) {
	p := start(t, t.TempDir())
	var out, err strings.Builder
	env := control.Env{Stdout: &out, Stderr: &err, Secret: &out}
	if code := control.Command(t.Context(), []string{"run", "--state", p.state, "--listen", "127.0.0.1:0"}, env); code != fault.ExitFailed || !strings.Contains(err.String(), "another control plane") {
		t.Errorf("the same state: %d %s", code, &err)
	}
	err.Reset()
	address := strings.TrimPrefix(p.url, "https://")
	if code := control.Command(t.Context(), []string{"run", "--state", t.TempDir(), "--listen", address}, env); code != fault.ExitFailed || !strings.Contains(err.String(), address+" is taken") {
		t.Errorf("the same address: %d %s", code, &err)
	}
	if strings.Contains(out.String(), "password") {
		t.Errorf("a start that failed shows a password: %s", &out)
	}
}

func TestAdminTokenWhileItRuns(t *testing.T) {
	p := start(t, t.TempDir())
	var out strings.Builder
	env := control.Env{Stdout: &out, Stderr: t.Output(), Hashing: access.Hashing{Passes: 1, Memory: 64, Threads: 1}}
	if code := control.Command(t.Context(), []string{"admin", "token", "--state", p.state}, env); code != 0 {
		t.Fatal(code)
	}
	// A script reads one line and nothing else.
	token := strings.TrimSuffix(out.String(), "\n")
	if s, err := p.client(t, token).Session(t.Context()); err != nil || s.Role != "admin" || s.MustChangePassword {
		t.Errorf("%q: %+v, %v", token, s, err)
	}
}

func TestAdminResetWhileItRuns(t *testing.T) {
	p := start(t, t.TempDir())
	c := p.admin(t)
	var out strings.Builder
	env := control.Env{Stdout: &out, Stderr: t.Output(), Hashing: access.Hashing{Passes: 1, Memory: 64, Threads: 1}}
	if code := control.Command(t.Context(), []string{"admin", "reset", "--state", p.state}, env); code != 0 {
		t.Fatal(code)
	}
	if _, err := c.Session(t.Context()); !fault.Is(err, fault.Unauthentic) {
		t.Errorf("the old session: %v", err)
	}
	_, password, ok := strings.Cut(out.String(), "one-time password: ")
	if !ok {
		t.Fatalf("it says %s", &out)
	}
	password, _, _ = strings.Cut(password, "\n")
	if s, err := p.client(t, "").SignIn(t.Context(), "admin", password); err != nil || !s.MustChangePassword {
		t.Errorf("%+v, %v", s, err)
	}
}
