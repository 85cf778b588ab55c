package control_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"komainu/agent/link"
	"komainu/control/access"
	"komainu/control/client"
	"komainu/deploy"
	"komainu/fault"
	"komainu/policy"
	"komainu/wire"
)

// upgradable is an enrolled device whose agent can upgrade itself: it does
// what a test tells it.
type upgradable struct {
	id   link.Identity
	dir  string
	link *link.Link
	end  func()

	name    string
	mu      sync.Mutex
	version string
	order   deploy.Upgrade
	status  deploy.UpgradeStatus
}

func newUpgradable(t *testing.T, c *client.Client, name string) *upgradable {
	t.Helper()
	list, err := c.Environments(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	token, err := c.CreateJoinToken(t.Context(), list.Items[0].ID, client.JoinTokenRequest{Label: name})
	if err != nil {
		t.Fatal(err)
	}
	u := &upgradable{name: name, version: "1.0.0", dir: t.TempDir()}
	if u.id, err = link.Enrol(t.Context(), link.EnrolOptions{Dir: u.dir, Token: token.Token, Facts: u.facts()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.end() })
	u.start(t)
	return u
}

func (u *upgradable) facts() wire.Facts {
	u.mu.Lock()
	defer u.mu.Unlock()
	return wire.Facts{Hostname: u.name, OS: "linux", Distribution: "debian", AgentVersion: u.version}
}

// restart is what becomes of an agent that was upgraded.
func (u *upgradable) restart(t *testing.T) {
	t.Helper()
	u.end()
	u.start(t)
}

func (u *upgradable) start(t *testing.T) {
	t.Helper()
	u.link = link.New(link.Config{
		Dir: u.dir, Facts: u.facts, Epoch: 7, PolicyVersion: func() uint64 { return 0 },
		ApplyPolicy: func(s policy.Signed) (uint64, error) {
			doc, err := policy.Open(s, u.id.PolicyKey)
			if err != nil {
				return 0, err
			}
			return doc.Version, nil
		},
		Health: func() []byte { return []byte(`{"healthy":true}`) }, Counts: func() (uint64, uint64) { return 0, 0 },
		Upgrade: func(o deploy.Upgrade) error {
			u.mu.Lock()
			defer u.mu.Unlock()
			u.order = o
			return nil
		},
		UpgradeStatus: func() (deploy.UpgradeStatus, bool) {
			u.mu.Lock()
			defer u.mu.Unlock()
			return u.status, u.status.ID != ""
		},
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	running := u.link
	go func() { done <- running.Run(ctx) }()
	u.end = sync.OnceFunc(func() { cancel(); <-done })
}

func (u *upgradable) ordered() deploy.Upgrade {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.order
}

// tell says how far the upgrade is.
func (u *upgradable) tell(state deploy.UpgradeState, reason *deploy.Reason) {
	u.mu.Lock()
	u.status = deploy.UpgradeStatus{ID: u.order.ID, From: u.version, To: u.order.Version, State: state, Reason: reason, Started: time.Now(), Gap: 420 * time.Millisecond}
	if state == deploy.UpgradeStateSucceeded {
		u.version = u.order.Version
	}
	u.order = deploy.Upgrade{}
	u.mu.Unlock()
	u.link.Upgraded()
}

// installs wants all ways to give a host one version, or to leave the agent
// that it has: the plan of the installer, and what komainuctl asks for.
func installs(t *testing.T, p *plane, c *client.Client, device, has, want string) {
	t.Helper()
	lines := []string{"uid 0", "os debian", "os_version 12", "system Linux", "kernel 6.1.0", "arch x86_64", "init systemd", "manager deb", "reach ok"}
	if has != "" {
		lines = append(lines, "agent "+has, "service active", "device "+device)
	}
	body := deploy.Prefix + "fact " + strings.Join(lines, "\n"+deploy.Prefix+"fact ") + "\n" + deploy.Prefix + "done\n"
	ca, err := os.ReadFile(filepath.Join(p.state, "keys", "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	h := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	defer h.CloseIdleConnections()
	answer, err := h.Post(p.url+"/install/plan", "text/plain", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	plan, err := io.ReadAll(answer.Body)
	if err != nil || !strings.Contains(string(plan), "version "+want+"\n") || strings.Contains(string(plan), "package ") != (want != has) {
		t.Errorf("the installer on %q with %q: %s, %v; want %s", device, has, plan, err, want)
	}
	wanted, err := c.WantedPackage(t.Context(), "deb", "amd64", has, device)
	if err != nil || wanted.Package == nil || wanted.Package.Version != want {
		t.Errorf("komainuctl on %q with %q: %+v, %v; want %s", device, has, wanted, err, want)
	}
}

// TestUpgradesOverTheAPI goes from a package that somebody adds to the rollback
// of it, through the real control plane and the real link.
func TestUpgradesOverTheAPI(t *testing.T) {
	p := start(t, t.TempDir())
	c := p.admin(t)
	content(t, p, "add", deb(t, "1.0.0", "one"), deb(t, "1.1.0", "two"))
	environments, err := c.Environments(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	plan, err := c.Plan(t.Context(), environments.Items[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.SavePlan(t.Context(), environments.Items[0].ID, client.PlanChange{Version: plan.Version, Servers: true}); err != nil {
		t.Fatal(err)
	}
	both := []*upgradable{newUpgradable(t, c, "web-1"), newUpgradable(t, c, "web-2")}
	v, err := c.Upgrades(t.Context())
	if err != nil || v.State != "idle" || v.Automatic {
		t.Fatalf("%+v, %v", v, err)
	}
	token, err := c.CreateToken(t.Context(), "operator", string(access.Operator), 3600)
	if err != nil {
		t.Fatal(err)
	}
	change := client.UpgradeChange{Version: v.Version, Automatic: true, Target: "newest", Rings: v.Rings}
	if _, err := p.client(t, token.Token).SaveUpgrades(t.Context(), change); !fault.Is(err, fault.Denied) {
		t.Errorf("an operator switches upgrades on: %v", err)
	}
	if _, err := c.SaveUpgrades(t.Context(), change); err != nil {
		t.Fatal(err)
	}
	if _, err := c.SaveUpgrades(t.Context(), change); !fault.Is(err, fault.Conflict) {
		t.Errorf("saved over another change: %v", err)
	}

	// One of the two is the canary, and fails.
	var canary, other *upgradable
	eventually(t, func() string {
		for i, u := range both {
			if u.ordered().Version == "1.1.0" {
				canary, other = u, both[1-i]
				return ""
			}
		}
		return "nobody is asked"
	})
	// Whoever installs meanwhile does not go past the rings.
	installs(t, p, c, string(other.id.Device), "1.0.0", "1.0.0")
	installs(t, p, c, "", "", "1.0.0")
	canary.tell(deploy.UpgradeStateRolledBack, &deploy.Reason{ID: deploy.UpgradeRolledBack, Detail: "the sensor is failed"})
	until := func(what string, ok func(client.Upgrades) bool) client.Upgrades {
		t.Helper()
		var v client.Upgrades
		eventually(t, func() string {
			var err error
			if v, err = c.Upgrades(t.Context()); err != nil || !ok(v) {
				return fmt.Sprintf("%s: %+v, %v", what, v, err)
			}
			return ""
		})
		return v
	}
	v = until("it halts", func(v client.Upgrades) bool { return v.State == "halted" })
	if v.Halted == nil || v.Halted.ID != deploy.UpgradeRolledBack || v.Current != "canary" || v.Progress[0].Failed != 1 || other.ordered().ID != "" {
		t.Errorf("%+v", v)
	}
	failed, err := c.UpgradeDevices(t.Context(), client.Query{"state": "failed"})
	if err != nil || failed.Total != 1 || failed.Items[0].Device.ID != string(canary.id.Device) || failed.Items[0].State != "rolled_back" || failed.Items[0].Reason.Detail != "the sensor is failed" {
		t.Errorf("%+v, %v", failed, err)
	}

	// Nobody gets what was halted, the device that would be next least of all.
	installs(t, p, c, string(other.id.Device), "1.0.0", "1.0.0")
	installs(t, p, c, string(canary.id.Device), "1.0.0", "1.0.0")
	installs(t, p, c, "", "", "1.0.0")
	if _, err := c.WantedPackage(t.Context(), "deb", "amd64", "1.0.0", "nobody"); !fault.Is(err, fault.NotFound) {
		t.Errorf("a device that is not known: %v", err)
	}

	// Somebody tries it once more, and it succeeds.
	if _, err := c.ActOnUpgrades(t.Context(), "resume"); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		if canary.ordered().Version != "1.1.0" {
			return "it is not asked again"
		}
		return ""
	})
	canary.tell(deploy.UpgradeStateSucceeded, nil)
	eventually(t, func() string {
		list, err := c.UpgradeDevices(t.Context(), client.Query{"ring": "canary"})
		if err != nil || list.Total != 1 || list.Items[0].State != "succeeded" {
			return fmt.Sprintf("what it told has not arrived: %+v, %v", list, err)
		}
		return ""
	})
	canary.restart(t)
	installs(t, p, c, string(canary.id.Device), "1.1.0", "1.1.0")
	installs(t, p, c, string(other.id.Device), "1.0.0", "1.0.0")
	v = until("it is done there", func(v client.Upgrades) bool { return v.Progress[0].Done == 1 })
	if v.State != "running" || v.Progress[0].Gap == nil || v.Progress[0].Gap.Worst != 420 || other.ordered().ID != "" {
		t.Errorf("%+v", v)
	}

	// And it is taken back, where it was installed.
	if v, err = c.ActOnUpgrades(t.Context(), "rollback"); err != nil || v.Target != "1.0.0" || !v.Rollback {
		t.Errorf("%+v, %v", v, err)
	}
	eventually(t, func() string {
		if o := canary.ordered(); o.Version != "1.0.0" || !o.Downgrade {
			return fmt.Sprintf("it is not asked to go back: %+v", o)
		}
		return ""
	})
	if other.ordered().ID != "" {
		t.Error("a device is taken back that never had the version")
	}
	if _, err := c.ActOnUpgrades(t.Context(), "rollback"); !fault.Is(err, fault.Conflict) {
		t.Errorf("taken back twice: %v", err)
	}
}
