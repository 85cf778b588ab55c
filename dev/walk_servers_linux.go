package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"komainu/dev/browser"
	"komainu/dev/farm"
)

// The version that the servers are upgraded to: the same program, newer by name.
const (
	nextVersion = "99.0.0"
	nextShelf   = "farm-packages-next"
)

// envTally names the file in which the walk-through that runs in a farm's
// namespaces leaves its count.
const envTally = "KOMAINU_TALLY"

// serversPhase is the walk-through of a server owner who has servers without
// an agent: booted containers with a real sshd. It runs in namespaces of its
// own.
func serversPhase(ctx context.Context, h *House) (tally, error) {
	if os.Geteuid() != 0 {
		h.Say("skip the walk-through of servers: containers need root")
		return tally{skipped: 1}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 12*time.Minute)
	defer cancel()
	if os.Getenv(farm.Inside) != "" {
		t, err := walkServers(ctx, h)
		return t, errors.Join(err, leaveTally(t))
	}
	if err := h.Install(ctx, browserTools...); err != nil {
		return tally{failed: 1}, err
	}
	if err := prepareServers(ctx, h); err != nil {
		return tally{failed: 1}, err
	}
	if err := shelve(ctx, h, nextShelf, "-version", nextVersion); err != nil {
		return tally{failed: 1}, err
	}
	file := h.State("walkthrough-servers.json")
	if err := os.Setenv(envTally, file); err != nil {
		return tally{failed: 1}, err
	}
	if err := os.RemoveAll(file); err != nil {
		return tally{failed: 1}, err
	}
	_, ended := farm.Enter(ctx, "walkthrough", "servers")
	text, err := os.ReadFile(file)
	if err != nil {
		return tally{failed: 1}, errors.Join(ended, err)
	}
	var count [3]int
	if err := json.Unmarshal(text, &count); err != nil {
		return tally{failed: 1}, err
	}
	t := tally{count[0], count[1], count[2]}
	if t.failed == 0 && ended != nil {
		t.failed = 1
	}
	return t, ended
}

// leaveTally tells whoever has entered the namespaces how it went.
func leaveTally(t tally) error {
	text, err := json.Marshal([3]int{t.passed, t.failed, t.skipped})
	if err != nil {
		return err
	}
	return os.WriteFile(os.Getenv(envTally), text, 0o644)
}

// serverWalk is the walk-through of somebody with bare servers.
type serverWalk struct {
	*walk
	servers     *servers
	hosts       []*farm.Host
	environment string // id
	connector   string // its page
	took        time.Duration
}

func walkServers(ctx context.Context, h *House) (tally, error) {
	s, err := openServers(ctx, h)
	if err != nil {
		return tally{failed: 1}, err
	}
	defer s.close()
	shots := h.State("walkthrough-servers")
	if err := errors.Join(os.RemoveAll(shots), os.MkdirAll(shots, 0o755)); err != nil {
		return tally{failed: 1}, err
	}
	w := &serverWalk{walk: &walk{h: h, stack: s.stack, shots: shots}, servers: s}
	defer func() {
		if w.page != nil {
			if err := w.page.Close(); err != nil {
				h.Say("browser: %v", err)
			}
		}
	}()
	steps := w.story()
	t := w.run(ctx, steps)
	h.Say("walkthrough servers steps=%d passed=%d protected_s=%.1f", len(steps), t.passed, w.took.Seconds())
	return t, nil
}

// story is what such a person does and sees. Nothing is typed on a server.
func (w *serverWalk) story() []step {
	return []step{
		{"two bare servers run, without an agent", w.bareServers},
		{"sign in to a fresh control plane", w.signIn},
		{"an environment is made; its Servers plan is off", w.makeEnvironment},
		{"a connector is tried: both servers can get the agent", w.tryConnector},
		{"saved, both servers are known and none is protected", w.saveConnector},
		{"Servers plan on", w.switchOn},
		{"both servers are protected, each proven by a self-test", w.bothProtected},
		{"the page of a server tells every step and its alert", w.lookAtServer},
		{"the alert of the self-test is labelled a test and in no incident", w.testAlert},
		{"on the servers komainu health says healthy and licensed", w.healthOnServers},
		{"EICAR on a server is stopped and becomes an incident of that server", w.eicarOnServer},
		{"each agent reports the processes of its own server alone", w.ownProcesses},
		{"a third server, added to the list, follows by itself", w.thirdFollows},
		{"coverage and onboarding show three of three", w.coverage},
		{"an agent that was stopped, and one that was removed, come back by themselves", w.drift},
		{"a new version goes out: every server runs it, and the gap in protection is shown", w.upgrade},
		{"an offboarded server has no agent any more and stays so", w.offboard},
		{"a server that has enrolled by itself, listed behind a jump host by a name, proves that it is the same", w.provesItself},
		{"pages had no uncaught errors", w.noComplaints},
	}
}

func (w *serverWalk) bareServers(ctx context.Context) (err error) {
	if w.hosts, err = w.servers.boot(ctx, 2); err != nil {
		return err
	}
	for _, h := range w.hosts {
		if out, err := h.Try(ctx, "sh", "-c", "command -v komainu mdatp komainud; ls -d /var/lib/komainu"); err == nil {
			return fmt.Errorf("%s is not bare: %s", h.Name, out)
		}
	}
	return nil
}

func (w *serverWalk) signIn(ctx context.Context) (err error) {
	if w.page, err = openPortal(ctx, w.h, w.stack); err != nil {
		return err
	}
	return signInFirst(w.page, w.stack.Password)
}

func (w *serverWalk) makeEnvironment(context.Context) error {
	return all(
		func() error { return w.page.Click(browser.ID("nav-environments")) },
		func() error { return w.page.Click(browser.ID("environment-create")) },
		func() error { return w.page.Fill(browser.ID("environment-name"), "Tokyo") },
		func() error { return w.page.Click(browser.ID("environment-save")) },
		func() error { return w.reads("page-title", "Tokyo") },
		func() error { return w.page.Wait(browser.ID("connector-create"), pageLimit) },
		func() error {
			url, err := w.page.URL()
			url, _, _ = strings.Cut(url, "?")
			w.environment = url[strings.LastIndexByte(url, '/')+1:]
			return err
		},
	)
}

func (w *serverWalk) tryConnector(context.Context) error {
	return all(
		func() error { return w.page.Click(browser.ID("connector-create")) },
		func() error { return w.page.Click(browser.ID("connector-create-ssh")) },
		func() error { return w.page.Fill(browser.ID("connector-name"), "Rack 1") },
		func() error { return w.page.Fill(browser.ID("connector-hosts"), w.list()) },
		func() error { return w.page.Fill(browser.ID("connector-user"), "root") },
		func() error { return w.page.Click(browser.ID("credential-key")) },
		func() error { return w.page.Fill(browser.ID("connector-key"), w.servers.farm.PrivateKey()) },
		func() error { return w.page.Click(browser.ID("connector-test")) },
		func() error { return w.page.Wait(browser.Holding("test-passed", "2 of 2"), time.Minute) },
	)
}

// list is what stands in the connector's list of hosts.
func (w *serverWalk) list() string {
	var text strings.Builder
	for _, h := range w.hosts {
		fmt.Fprintf(&text, "%s rack=1\n", h.Address)
	}
	return text.String()
}

func (w *serverWalk) saveConnector(ctx context.Context) error {
	err := all(
		func() error { return w.page.Click(browser.ID("connector-save")) },
		func() error { return w.page.Wait(browser.ID("connector-key-stored"), pageLimit) },
		// It is saved, and then its page gets an address of its own.
		func() error {
			return waitFor(ctx, pageLimit, "the connector's page has its address", func() (saved bool, err error) {
				w.connector, err = w.page.URL()
				return !strings.Contains(w.connector, "/connectors/new"), err
			})
		},
		func() error { return w.open("machines") },
		func() error { return w.reads("head-machines", "2") },
		func() error { return w.page.Wait(browser.ID("machine-row"), pageLimit) },
	)
	if err != nil {
		return err
	}
	list, err := w.servers.machines(ctx, w.environment)
	for _, m := range list {
		if m.Protected || m.Extension.Reason == nil || m.Extension.Reason.ID != "plan_off" {
			return fmt.Errorf("with the plan off, %s is %+v", m.Name, m.Extension)
		}
	}
	return err
}

// open goes to a tab of the environment.
func (w *serverWalk) open(tab string) error {
	return w.page.Goto(w.stack.URL + "/environments/" + w.environment + "?tab=" + tab)
}

func (w *serverWalk) switchOn(context.Context) error {
	return all(
		func() error { return w.open("plan") },
		func() error { return w.page.Wait(browser.ID("plan-save"), pageLimit) },
		func() error { return w.unchecked("plan-switch") },
		func() error { return w.page.Click(browser.ID("plan-switch")) },
		func() error { return w.page.Click(browser.ID("plan-save")) },
		func() error { w.ready = time.Now(); return w.page.Wait(browser.ID("toast"), pageLimit) },
	)
}

func (w *serverWalk) bothProtected(ctx context.Context) error {
	if err := w.allProtected(ctx); err != nil {
		return err
	}
	w.took = time.Since(w.ready)
	return nil
}

// allProtected waits until every server there is has become protected.
func (w *serverWalk) allProtected(ctx context.Context) error {
	if err := w.open("machines"); err != nil {
		return err
	}
	// What a person waits for is on the page, which is not loaded anew.
	if err := w.page.Wait(browser.Holding("head-succeeded", fmt.Sprint(len(w.hosts))), 2*time.Minute); err != nil {
		_, why := w.servers.protected(ctx, w.environment, len(w.hosts), time.Second)
		return errors.Join(err, why)
	}
	_, err := w.servers.protected(ctx, w.environment, len(w.hosts), time.Second)
	return err
}

func (w *serverWalk) lookAtServer(context.Context) error {
	return all(
		func() error { return w.page.Click(browser.ID("machine-open")) },
		func() error { return w.page.Wait(browser.ID("machine-alert"), pageLimit) },
		func() error { return w.reads("panel-state", "Protected") },
		func() error {
			text, err := w.page.Text(browser.ID("machine-panel"))
			for _, want := range []string{"Komainu.Linux", "Connect", "Install", "Enrol", "Self-test"} {
				if err == nil && !strings.Contains(text, want) {
					err = fmt.Errorf("the page does not tell of %q: %q", want, text)
				}
			}
			return err
		},
	)
}

func (w *serverWalk) testAlert(ctx context.Context) error {
	err := all(
		func() error { return w.page.Click(browser.ID("machine-alert")) },
		func() error { return w.reads("page-title", "EICAR_Test_File") },
		func() error { return w.page.Wait(browser.ID("alert-test"), pageLimit) },
	)
	if err != nil {
		return err
	}
	var incidents struct{ Total int }
	if err := w.servers.api.call(ctx, "GET", "/incidents", nil, &incidents); err != nil {
		return err
	}
	if incidents.Total != 0 {
		return fmt.Errorf("self-tests have opened %d incidents", incidents.Total)
	}
	return nil
}

func (w *serverWalk) healthOnServers(ctx context.Context) error {
	for _, h := range w.hosts {
		out, err := h.Try(ctx, "komainu", "health", "--details")
		if err != nil {
			return fmt.Errorf("%s: %w: %s", h.Name, err, out)
		}
		for _, name := range []string{"healthy", "licensed", "real_time_protection_enabled"} {
			if !hasField(out, name, "true") {
				return fmt.Errorf("%s: %s is not true:\n%s", h.Name, name, out)
			}
		}
	}
	return nil
}

func (w *serverWalk) eicarOnServer(ctx context.Context) error {
	h := w.hosts[1]
	if out, err := h.Try(ctx, "curl", "-sko", "/root/eicar.com.txt", w.stack.URL+"/downloads/eicar.com.txt"); err != nil {
		return fmt.Errorf("curl: %w: %s", err, out)
	}
	if out, err := h.Try(ctx, "cat", "/root/eicar.com.txt"); err == nil {
		return fmt.Errorf("EICAR was read: %q", out)
	}
	const title = "'EICAR_Test_File' malware was prevented"
	return all(
		func() error { return w.page.Goto(w.stack.URL + "/incidents") },
		func() error { return w.reads("incident-row", title+" on one endpoint") },
		func() error { return w.page.Click(browser.Holding("incident-row", title)) },
		func() error { return w.page.Click(browser.ID("tab-assets")) },
		func() error { return w.page.Wait(browser.What{Role: "link", Name: h.Name}, pageLimit) },
	)
}

// ownProcesses has a program with a name of its own run on one server, and
// looks for it in what the other has told: the servers share a kernel.
func (w *serverWalk) ownProcesses(ctx context.Context) error {
	const marker = "only-on-the-first"
	if out, err := w.hosts[0].Try(ctx, "sh", "-c", "cp /bin/true /usr/local/bin/"+marker+" && /usr/local/bin/"+marker); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	list, err := w.servers.machines(ctx, w.environment)
	if err != nil {
		return err
	}
	seen := map[string]int{}
	err = waitFor(ctx, 20*time.Second, "the first server tells of its process", func() (bool, error) {
		for _, m := range list {
			if m.Device == nil {
				return false, fmt.Errorf("%s has no device", m.Name)
			}
			var events struct {
				Items []struct{ Process *struct{ Path string } }
			}
			if err := w.servers.api.call(ctx, "GET", "/devices/"+m.Device.ID+"/timeline?limit=1000&q="+marker, nil, &events); err != nil {
				return false, err
			}
			seen[m.Name] = len(events.Items)
		}
		return seen[w.machineOf(list, 0)] > 0, nil
	})
	if err != nil {
		return err
	}
	if n := seen[w.machineOf(list, 1)]; n != 0 {
		return fmt.Errorf("%d events of one server come from the other's agent", n)
	}
	return nil
}

// machineOf is the name that the machine of a server has in the inventory.
func (w *serverWalk) machineOf(list []machineView, n int) string {
	host, _, _ := strings.Cut(w.hosts[n].Address, ":")
	for _, m := range list {
		if strings.Contains(m.Name, host) || m.Name == w.hosts[n].Name {
			return m.Name
		}
	}
	return ""
}

func (w *serverWalk) thirdFollows(ctx context.Context) error {
	more, err := w.servers.boot(ctx, 1)
	if err != nil {
		return err
	}
	w.hosts = append(w.hosts, more...)
	return all(
		func() error { return w.page.Goto(w.connector) },
		func() error { return w.page.Fill(browser.ID("connector-hosts"), w.list()) },
		func() error { return w.page.Click(browser.ID("connector-save")) },
		func() error { return w.page.Wait(browser.ID("toast"), pageLimit) },
		func() error { return w.allProtected(ctx) },
	)
}

func (w *serverWalk) coverage(context.Context) error {
	return all(
		func() error { return w.open("onboarding") },
		func() error { return w.reads("count-succeeded", "3") },
		func() error { return w.page.Goto(w.stack.URL + "/environments") },
		func() error { return w.page.Wait(browser.Holding("environment-protected", "3"), pageLimit) },
	)
}

// drift has somebody take the protection off two servers behind the back of
// the control plane.
func (w *serverWalk) drift(ctx context.Context) error {
	for n, line := range []string{"systemctl disable --now komainu-agent", "dpkg --purge komainu-agent"} {
		if out, err := w.hosts[n].Try(ctx, "sh", "-c", line); err != nil {
			return fmt.Errorf("%s: %s: %w: %s", w.hosts[n].Name, line, err, out)
		}
	}
	began := time.Now()
	for _, h := range w.hosts[:2] {
		err := waitFor(ctx, 3*time.Minute, h.Name+" has its agent again", func() (bool, error) {
			out, err := h.Try(ctx, "sh", "-c", "systemctl is-active -q komainu-agent && systemctl is-enabled -q komainu-agent && komainu health --field licensed")
			return err == nil && strings.TrimSpace(out) == "true", ctx.Err()
		})
		if err != nil {
			_, why := w.servers.protected(ctx, w.environment, len(w.hosts), time.Second)
			return errors.Join(err, why)
		}
	}
	w.h.Say("two agents were back %.0f s after they went", time.Since(began).Seconds())
	if err := w.allProtected(ctx); err != nil {
		return err
	}
	var devices struct{ Total int }
	if err := w.servers.api.call(ctx, "GET", "/devices?onboarding=Onboarded&environment="+w.environment, nil, &devices); err != nil {
		return err
	}
	if devices.Total != len(w.hosts) {
		return fmt.Errorf("%d devices for %d servers: the one whose agent was removed is there twice", devices.Total, len(w.hosts))
	}
	return nil
}

// upgrade puts a new version into the signed repository and has it rolled out;
// all servers are in the first ring.
func (w *serverWalk) upgrade(ctx context.Context) error {
	files, err := filepath.Glob(filepath.Join(w.h.State(nextShelf), "*.deb"))
	if err != nil || len(files) != 1 {
		return fmt.Errorf("the package of the next version: %v, %w", files, err)
	}
	if out, err := w.h.Output(ctx, ".", filepath.Join(w.stack.bin, "komainu-control"), "content", "add", files[0], "--state", filepath.Join(w.stack.dir, "control")); err != nil {
		return fmt.Errorf("content add: %w: %s", err, out)
	}
	ring := func(id string) map[string]any {
		return map[string]any{"id": id, "share": 100, "groups": []string{}, "soakMinutes": 0}
	}
	settings := map[string]any{"version": 1, "automatic": true, "target": nextVersion, "rings": []any{ring("canary"), ring("early"), ring("broad")}}
	if err := w.servers.api.call(ctx, "PUT", "/upgrades", settings, nil); err != nil {
		return err
	}
	if err := w.page.Goto(w.stack.URL + "/upgrades"); err != nil {
		return err
	}
	type line struct {
		Device    struct{ Name string }
		State, To string
		GapMs     *int64
		Reason    *struct{ Text, Detail string }
	}
	var list struct{ Items []line }
	err = waitFor(ctx, 3*time.Minute, "every server has been upgraded", func() (bool, error) {
		if err := w.servers.api.call(ctx, "GET", "/upgrades/devices", nil, &list); err != nil {
			return false, err
		}
		done := 0
		for _, l := range list.Items {
			if l.State == "succeeded" && l.GapMs != nil {
				done++
			}
		}
		return done == len(w.hosts), nil
	})
	if err != nil {
		return fmt.Errorf("%w: %+v", err, list.Items)
	}
	for _, l := range list.Items {
		w.h.Say("%s was without protection for %d ms while it was upgraded", l.Device.Name, *l.GapMs)
	}
	if err := w.page.Wait(browser.ID("upgrade-canary-done"), pageLimit); err != nil {
		return err
	}
	for _, h := range w.hosts {
		out, err := h.Try(ctx, "sh", "-c", "komainu health --field app_version; komainu health --field healthy; dpkg-query -W -f '${Version} ${db:Status-Status}' komainu-agent; dpkg --audit")
		if err != nil || !strings.Contains(out, nextVersion) || !strings.Contains(out, "true") || !strings.HasSuffix(out, nextVersion+" installed") {
			return fmt.Errorf("%s after the upgrade: %w: %s", h.Name, err, out)
		}
	}
	return nil
}

func (w *serverWalk) offboard(ctx context.Context) error {
	h := w.hosts[2]
	err := all(
		func() error { return w.open("machines") },
		func() error { return w.page.Click(browser.Holding("machine-open", w.address(2))) },
		func() error { return w.page.Click(browser.ID("machine-offboard")) },
		func() error { return w.page.Fill(browser.ID("offboard-reason"), "it is retired") },
		func() error { return w.page.Click(browser.ID("offboard-confirm")) },
		func() error { return w.page.Wait(browser.Holding("panel-state", "offboarded"), time.Minute) },
	)
	if err != nil {
		return err
	}
	const nothing = `for f in /usr/bin/komainu /usr/bin/komainud /usr/bin/mdatp /var/lib/komainu /etc/komainu /usr/lib/systemd/system/komainu-agent.service; do
		[ ! -e $f ] && [ ! -L $f ] || { echo "$f is left"; exit 1; }
	done
	dpkg --audit; [ -z "$(dpkg --audit)" ]`
	if out, err := h.Try(ctx, "sh", "-c", nothing); err != nil {
		return fmt.Errorf("on %s: %w: %s", h.Name, err, out)
	}
	// The plan is still on, and the machine stays as somebody wanted it.
	return w.page.Wait(browser.Holding("head-succeeded", "2"), pageLimit)
}

// provesItself has a server enrol with a join token and be listed then by a
// name that its jump host alone resolves: no address tells who it is.
func (w *serverWalk) provesItself(ctx context.Context) error {
	more, err := w.servers.boot(ctx, 1)
	if err != nil {
		return err
	}
	h, jump := more[0], w.hosts[0]
	var token struct{ Snippets struct{ Shell string } }
	if err := w.servers.api.call(ctx, "POST", "/environments/"+w.environment+"/join-tokens", map[string]any{"label": "by hand", "maxUses": 1}, &token); err != nil {
		return err
	}
	if out, err := h.Try(ctx, "bash", "-c", token.Snippets.Shell); err != nil {
		return fmt.Errorf("enrol %s: %w: %s", h.Name, err, out)
	}
	protected := func(name string) (found machineView, err error) {
		err = waitFor(ctx, 2*time.Minute, name+" is protected", func() (bool, error) {
			list, err := w.servers.machines(ctx, w.environment)
			for _, m := range list {
				if m.Name == name {
					found = m
				}
			}
			return found.Protected, err
		})
		if err != nil {
			err = fmt.Errorf("%w: %+v", err, found)
		}
		return found, err
	}
	byHand, err := protected(h.Name)
	if err != nil {
		return err
	}
	const name = "behind.example"
	address, _, _ := strings.Cut(h.Address, ":")
	if out, err := jump.Try(ctx, "sh", "-c", "echo "+address+" "+name+" >>/etc/hosts"); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	way := w.servers.sshConnector("Behind a jump host", 0, nil)
	ssh := way["ssh"].(map[string]any)
	ssh["hosts"], ssh["jump"] = name, "root@"+jump.Address
	if err := w.servers.api.call(ctx, "POST", "/environments/"+w.environment+"/connectors", way, nil); err != nil {
		return err
	}
	listed, err := protected(name)
	if err != nil {
		return err
	}
	if byHand.Device == nil || listed.Device == nil || listed.Device.ID != byHand.Device.ID {
		return fmt.Errorf("%s is %+v, it was %+v", name, listed, byHand)
	}
	list, err := w.servers.machines(ctx, w.environment)
	for _, m := range list {
		if m.Name == h.Name {
			return fmt.Errorf("the server is there twice: %+v", list)
		}
	}
	return err
}

// address is the host of a server as its machine is named.
func (w *serverWalk) address(n int) string {
	host, _, _ := strings.Cut(w.hosts[n].Address, ":")
	return host
}
