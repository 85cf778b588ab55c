package gateway_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"komainu/agent/link"
	"komainu/control/enrol"
	"komainu/deploy"
	"komainu/fault"
	"komainu/wire"
)

func TestUpgrade(t *testing.T) {
	p := newPlane(t)
	a := p.enrol()
	a.run()
	eventually(t, a.connected)
	want := deploy.Upgrade{ID: "u1", Version: "1.2.0", Downgrade: true}
	if err := p.gateway.Upgrade(t.Context(), a.id.Device, want); err != nil {
		t.Fatal(err)
	}
	a.mu.Lock()
	got := a.upgrade
	status := deploy.UpgradeStatus{ID: "u1", From: "1.1.0", To: "1.2.0", State: deploy.UpgradeStateInstalling, Started: time.Unix(1, 2).UTC()}
	a.upgraded = status
	a.mu.Unlock()
	if got != want {
		t.Errorf("the agent was asked for %+v", got)
	}
	if err := p.gateway.Upgrade(t.Context(), a.id.Device, deploy.Upgrade{ID: "u2"}); !fault.Is(err, fault.Conflict) {
		t.Errorf("an upgrade that the agent refuses: %v", err)
	}

	// It is told when it changes, and once more on the next connection.
	a.link.Upgraded()
	heard := func(n int, want deploy.UpgradeStatus) func() string {
		return func() string {
			p.mu.Lock()
			defer p.mu.Unlock()
			if len(p.upgrades) < n {
				return fmt.Sprintf("%d reports of upgrades, want %d", len(p.upgrades), n)
			}
			return cmp.Diff(want, p.upgrades[n-1])
		}
	}
	eventually(t, heard(1, status))
	p.gateway.Disconnect(a.id.Device, fault.Unavailable, "test")
	eventually(t, heard(2, status))
	status.State, status.Ended, status.Gap = deploy.UpgradeStateRolledBack, time.Unix(3, 4).UTC(), 1234*time.Millisecond
	status.Reason = &deploy.Reason{ID: deploy.UpgradeRolledBack, Text: "text", Remedy: "remedy", Detail: "detail"}
	a.mu.Lock()
	a.upgraded = status
	a.mu.Unlock()
	a.link.Upgraded()
	eventually(t, heard(3, status))
}

// TestOldAgentIsNotAskedToUpgrade: it would not know what is meant.
func TestOldAgentIsNotAskedToUpgrade(t *testing.T) {
	p := newPlane(t)
	a := p.enrol()
	c := a.dial()
	c.send(t, &wire.Hello{Protocol: wire.UpgradeProtocol - 1})
	await[*wire.PolicyPush](t, c)
	if err := p.gateway.Upgrade(t.Context(), a.id.Device, deploy.Upgrade{ID: "u", Version: "2.0.0"}); !fault.Is(err, fault.Unsupported) {
		t.Errorf("an old agent is asked to upgrade: %v", err)
	}
}

// TestContentRootIsPinnedOnce: what is signed is trusted by the root that the
// device saw first, whatever the control plane says later.
func TestContentRootIsPinnedOnce(t *testing.T) {
	p := newPlane(t)
	a := p.enrol() // before there was a repository
	if len(a.id.ContentRoot) != 0 {
		t.Errorf("a root of nowhere: %q", a.id.ContentRoot)
	}
	a.run()
	eventually(t, a.connected)
	for i, root := range []string{"first", "second"} {
		p.locked(func() { p.root = []byte(root) })
		if err := p.gateway.Command(t.Context(), a.id.Device, wire.CommandRenew); err != nil {
			t.Fatal(err)
		}
		if id, err := link.Load(a.dir); err != nil || string(id.ContentRoot) != "first" {
			t.Errorf("after renewal %d the root is %q, %v", i+1, id.ContentRoot, err)
		}
	}
	_, token := p.token(func(r *enrol.TokenRequest) { r.Label = "again" })
	id, err := link.Enrol(t.Context(), link.EnrolOptions{Dir: a.dir, Token: token, Facts: facts, Force: true})
	if err != nil || string(id.ContentRoot) != "second" {
		t.Errorf("enrolled anew, the root is %q, %v", id.ContentRoot, err)
	}
}
