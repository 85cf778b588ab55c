package control_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"komainu/agent/link"
	"komainu/control/client"
	"komainu/fault"
	"komainu/policy"
	"komainu/wire"
)

// enrolled brings a host into the first environment.
func (p *plane) enrolled(t *testing.T, c *client.Client, name string) (link.Identity, string) {
	t.Helper()
	list, err := c.Environments(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	token, err := c.CreateJoinToken(t.Context(), list.Items[0].ID, client.JoinTokenRequest{Label: "test"})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	id, err := link.Enrol(t.Context(), link.EnrolOptions{Dir: dir, Token: token.Token, Facts: wire.Facts{Hostname: name, OS: "linux", Distribution: "debian", AgentVersion: "1.0"}})
	if err != nil {
		t.Fatal(err)
	}
	return id, dir
}

// asker returns a func that asks what the client has no method for.
func (p *plane) asker(t *testing.T, c *client.Client) func(method, path string, body, into any) error {
	t.Helper()
	token, err := c.CreateToken(t.Context(), "test", "admin", 3600)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(filepath.Join(p.state, "keys", "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	h := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	t.Cleanup(h.CloseIdleConnections)
	return func(method, path string, body, into any) error {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		r, err := http.NewRequestWithContext(t.Context(), method, p.url+"/api/v1"+path, bytes.NewReader(text))
		if err != nil {
			return err
		}
		r.Header.Set("Authorization", "Bearer "+token.Token)
		r.Header.Set("Content-Type", "application/json")
		answer, err := h.Do(r)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if text, err = io.ReadAll(answer.Body); err != nil || answer.StatusCode > 299 {
			return fmt.Errorf("%s %s: %s %s, %v", method, path, answer.Status, text, err)
		}
		if into == nil {
			return nil
		}
		return json.Unmarshal(text, into)
	}
}

// TestHostOffboardsItself has a host leave while it is connected, with the
// plan on, and try to come back with what it kept.
func TestHostOffboardsItself(t *testing.T) {
	p := start(t, t.TempDir())
	c := p.admin(t)
	do := p.asker(t, c)
	told := make(chan string, 10)
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body) // what is missing is missed below
		told <- string(b)
	}))
	defer hook.Close()
	notice := map[string]any{"name": "hook", "kind": "webhook", "enabled": true, "minSeverity": "Medium", "target": map[string]any{"url": hook.URL}, "secret": "0123456789abcdef"}
	if err := do("POST", "/notifications", notice, nil); err != nil {
		t.Fatal(err)
	}
	id, dir := p.enrolled(t, c, "web-1")
	kept, err := os.ReadFile(filepath.Join(dir, "identity.json"))
	if err != nil {
		t.Fatal(err)
	}
	l := link.New(link.Config{
		Dir: dir, Facts: func() wire.Facts { return wire.Facts{Hostname: "web-1", OS: "linux"} }, Epoch: 7,
		PolicyVersion: func() uint64 { return 0 },
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
	linked := make(chan error, 1)
	go func() { linked <- l.Run(ctx) }()
	defer func() { cancel(); <-linked }()
	eventually(t, func() string {
		if !l.State().Connected {
			return "it does not connect"
		}
		return ""
	})
	if plan, err := c.Plan(t.Context(), environmentOf(t, c)); err != nil {
		t.Fatal(err)
	} else if _, err := c.SavePlan(t.Context(), environmentOf(t, c), client.PlanChange{Version: plan.Version, Servers: true}); err != nil {
		t.Fatal(err)
	}

	was, untold, err := link.Offboard(t.Context(), link.OffboardOptions{Dir: dir})
	if err != nil || untold != nil || was.Device != id.Device {
		t.Fatalf("%+v, %v, %v", was.Device, untold, err)
	}
	l.Reconnect()
	if _, err := link.Load(dir); !fault.Is(err, fault.NotFound) {
		t.Errorf("the identity is still there: %v", err)
	}
	eventually(t, func() string {
		if s := l.State(); s.Enrolled || s.Connected {
			return "the link goes on with an identity that is gone"
		}
		return ""
	})
	d, err := c.Device(t.Context(), string(id.Device))
	if err != nil || d.OnboardingStatus != "Offboarded" || d.Connected {
		t.Errorf("%+v, %v", d, err)
	}

	// The plan is on, and the machine stays off.
	machines, err := c.Machines(t.Context(), client.Query{})
	if err != nil || len(machines.Items) != 1 {
		t.Fatalf("%+v, %v", machines, err)
	}
	eventually(t, func() string {
		m, err := c.Machine(t.Context(), machines.Items[0].ID)
		if err != nil || !m.Offboarded || m.Extension.State != "none" || m.Extension.Reason == nil || m.Extension.Reason.ID != "offboarded_by_host" {
			return "the machine does not say that its host has offboarded it"
		}
		return ""
	})

	// People see who it was.
	var trail struct {
		Items []struct {
			Actor  struct{ Kind, ID, Name string }
			Action string
		}
	}
	if err := do("GET", "/audit", nil, &trail); err != nil {
		t.Fatal(err)
	}
	found := map[string]int{}
	for _, e := range trail.Items {
		if e.Actor.Kind == "device" && e.Actor.ID == string(id.Device) && e.Actor.Name == "web-1" {
			found[e.Action]++
		}
	}
	if found["device.leave"] != 1 || found["machine.leave"] != 1 || len(found) != 2 {
		t.Errorf("the audit log has %v of the device", found)
	}
	select {
	case m := <-told:
		if !strings.Contains(m, `"device.offboarded"`) || !strings.Contains(m, "web-1") {
			t.Errorf("the notification says %s", m)
		}
	case <-time.After(15 * time.Second):
		t.Error("nobody is told")
	}

	// Who kept the identity does not come back with it. To leave once more is no
	// error: the first answer may have been lost.
	if err := os.WriteFile(filepath.Join(dir, "identity.json"), kept, 0o600); err != nil {
		t.Fatal(err)
	}
	l.Reconnect()
	eventually(t, func() string {
		if s := l.State(); s.Connected || !fault.Is(s.Error, fault.Unauthentic) || !strings.Contains(s.Error.Error(), "offboarded") {
			return "it is not refused"
		}
		return ""
	})
	if _, untold, err := link.Offboard(t.Context(), link.OffboardOptions{Dir: dir}); err != nil || untold != nil {
		t.Errorf("once more: %v, %v", untold, err)
	}
	if _, _, err := link.Offboard(t.Context(), link.OffboardOptions{Dir: dir}); !fault.Is(err, fault.NotFound) {
		t.Errorf("without an identity: %v", err)
	}
}

func environmentOf(t *testing.T, c *client.Client) string {
	t.Helper()
	list, err := c.Environments(t.Context())
	if err != nil || len(list.Items) == 0 {
		t.Fatal(err)
	}
	return list.Items[0].ID
}

// TestHostMayNotOffboardItself is refused, and later finds nobody.
func TestHostMayNotOffboardItself(t *testing.T) {
	p := start(t, t.TempDir())
	c := p.admin(t)
	id, dir := p.enrolled(t, c, "web-1")
	do := p.asker(t, c)
	path := "/environments/" + environmentOf(t, c) + "/onboarding"
	var settings map[string]any
	if err := do("GET", path, nil, &settings); err != nil || settings["allowHostOffboarding"] != true {
		t.Fatalf("%v, %v", settings, err)
	}
	change := map[string]any{}
	for _, k := range []string{"automatic", "concurrency", "dryRun", "observe", "excludeTags", "keepOffboardedDays", "version"} {
		change[k] = settings[k]
	}
	change["allowHostOffboarding"] = false
	if err := do("PUT", path, change, &settings); err != nil || settings["allowHostOffboarding"] != false {
		t.Fatalf("%v, %v", settings, err)
	}
	for _, force := range []bool{false, true} {
		_, _, err := link.Offboard(t.Context(), link.OffboardOptions{Dir: dir, Force: force})
		if !fault.Is(err, fault.Denied) || fault.KindOf(err).Exit() != fault.ExitRefused || !strings.Contains(err.Error(), "who manages devices") {
			t.Errorf("force %v: %v", force, err)
		}
	}
	if d, err := c.Device(t.Context(), string(id.Device)); err != nil || d.OnboardingStatus == "Offboarded" {
		t.Errorf("%+v, %v", d, err)
	}
	if _, err := link.Load(dir); err != nil {
		t.Errorf("the identity is gone: %v", err)
	}

	// A control plane that is away cannot say no. Without force nothing changes.
	p.stop()
	if _, _, err := link.Offboard(t.Context(), link.OffboardOptions{Dir: dir}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("without a control plane: %v", err)
	}
	if _, err := link.Load(dir); err != nil {
		t.Errorf("the identity is gone: %v", err)
	}
	if _, untold, err := link.Offboard(t.Context(), link.OffboardOptions{Dir: dir, Force: true}); err != nil || !fault.Is(untold, fault.Unavailable) {
		t.Errorf("by force: %v, %v", untold, err)
	}
	if _, err := link.Load(dir); !fault.Is(err, fault.NotFound) {
		t.Errorf("the identity is still there: %v", err)
	}
}
