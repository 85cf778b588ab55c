package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"komainu/dev/browser"
)

// pageLimit is how long a page may take to show what it should.
const pageLimit = 30 * time.Second

// newPassword is what the walk-through's administrator chooses.
const newPassword = "walk the dogs at the gate"

// steps follow the first day of a server owner (reference of the product,
// section 0, Linux), in order. Each checks what a person would see.
func (w *walk) steps() []step {
	return []step{
		{"a fresh control plane is ready and shows a one-time password", w.startControl},
		{"sign in with the one-time password and choose one's own", w.signIn},
		{"environment settings: Servers plan off; on starts as P2", w.planOn},
		{"change plan: the comparison; choose P1", w.changePlan},
		{"settings: endpoint protection is on, P2 settings say why they are not", w.lookAtSettings},
		{"save: success message", w.save},
		{"a join token is made in the portal", w.makeToken},
		{"enrol this machine with it", w.enrol},
		{"the device appears in the inventory", w.deviceAppears},
		{"the agent is shown like an extension, provisioning succeeded", w.extension},
		{"mdatp health -details: healthy and licensed", w.healthDetails},
		{"real-time protection off and on through the command line", w.switchProtection},
		{"a policy that is made in the portal reaches the device, which refuses to go against it", w.policy},
		{"a webhook is set up in the portal, and its test arrives", w.webhook},
		{"curl of EICAR is stopped and quarantined", w.eicarByCurl},
		{"mdatp threat list shows it", w.threatList},
		{"incident and alert in the portal, with the process tree", w.malwareInPortal},
		{"download, unzip and run the EDR test", w.edrTest},
		{"one alert of severity Low in the portal, in an incident", w.edrInPortal},
		{"the webhook was told of both, signed", w.webhookTold},
		{"pages had no uncaught errors", w.noComplaints},
	}
}

func (w *walk) startControl(ctx context.Context) error {
	port, err := freePort(18443)
	if err != nil {
		return err
	}
	if err := w.stack.MountDemo(); err != nil {
		return err
	}
	if err := linkMDATP(w.stack.bin); err != nil {
		return err
	}
	if err := w.stack.StartControl(ctx, port); err != nil {
		return err
	}
	if w.stack.Password == "" {
		return fmt.Errorf("no one-time password was shown")
	}
	w.page, err = openPortal(ctx, w.h, w.stack)
	return err
}

// openPortal opens the page of the portal on which people sign in.
func openPortal(ctx context.Context, h *House, s *Stack) (*browser.Browser, error) {
	dir := filepath.Join(s.dir, "browser")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	page, err := browser.Open(ctx, browser.Options{Portal: h.Path("portal"), Dir: dir, Language: "en"})
	if err != nil {
		return nil, err
	}
	if err := page.Goto(s.URL); err != nil {
		return nil, errors.Join(err, page.Close())
	}
	return page, nil
}

func (w *walk) signIn(context.Context) error {
	return signInFirst(w.page, w.stack.Password)
}

// signInFirst does what the first administrator does on the first page: sign
// in with the one-time password and choose another.
func signInFirst(page *browser.Browser, password string) error {
	return all(
		func() error { return page.Wait(browser.ID("signin-name"), pageLimit) },
		func() error { return page.Fill(browser.ID("signin-name"), "admin") },
		func() error { return page.Fill(browser.ID("signin-password"), password) },
		func() error { return page.Click(browser.ID("signin-submit")) },
		func() error { return page.Wait(browser.ID("password-new"), pageLimit) },
		func() error { return page.Fill(browser.ID("password-current"), password) },
		func() error { return page.Fill(browser.ID("password-new"), newPassword) },
		func() error { return page.Fill(browser.ID("password-repeat"), newPassword) },
		func() error { return page.Click(browser.ID("password-submit")) },
		func() error { return page.Wait(browser.ID("nav-environments"), pageLimit) },
	)
}

// all does one thing after the other until one fails.
func all(things ...func() error) error {
	for _, f := range things {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) planOn(context.Context) error {
	return all(
		func() error { return w.page.Click(browser.ID("nav-environments")) },
		func() error { return w.page.Click(browser.ID("environment-row")) },
		func() error { return w.page.Wait(browser.ID("plan-save"), pageLimit) },
		func() error { return w.unchecked("plan-switch") },
		func() error { return w.page.Click(browser.ID("plan-switch")) },
		func() error { return w.reads("plan-tier", "2") },
	)
}

// reads waits until an element holds a text.
func (w *walk) reads(id, want string) error {
	return w.page.Wait(browser.Holding(id, want), pageLimit)
}

func (w *walk) unchecked(id string) error {
	on, err := w.page.Checked(browser.ID(id))
	if err == nil && on {
		err = fmt.Errorf("%s is on", id)
	}
	return err
}

func (w *walk) checked(id string) error {
	on, err := w.page.Checked(browser.ID(id))
	if err == nil && !on {
		err = fmt.Errorf("%s is off", id)
	}
	return err
}

func (w *walk) changePlan(context.Context) error {
	return all(
		func() error { return w.page.Click(browser.ID("change-plan")) },
		func() error { return w.page.Wait(browser.ID("plan-dialog"), pageLimit) },
		func() error {
			text, err := w.page.Text(browser.ID("plan-dialog"))
			if err == nil && !strings.Contains(text, "File integrity monitoring") {
				err = fmt.Errorf("the dialog does not compare what plans provide: %q", text)
			}
			return err
		},
		func() error { return w.page.Click(browser.ID("plan-choose-P1")) },
		func() error { return w.page.Click(browser.ID("plan-confirm")) },
		func() error { return w.reads("plan-tier", "1") },
	)
}

func (w *walk) lookAtSettings(context.Context) error {
	if err := w.checked("setting-endpoint_protection"); err != nil {
		return err
	}
	for _, id := range []string{"file_integrity_monitoring", "agentless_scanning", "vulnerability_assessment"} {
		disabled, err := w.page.Disabled(browser.ID("setting-" + id))
		if err != nil {
			return err
		}
		reason, err := w.page.Text(browser.ID("setting-" + id + "-reason"))
		if err != nil {
			return err
		}
		if !disabled || reason == "" {
			return fmt.Errorf("%s: disabled %v, reason %q", id, disabled, reason)
		}
	}
	return nil
}

func (w *walk) save(context.Context) error {
	return all(
		func() error { return w.page.Click(browser.ID("plan-save")) },
		func() error { return w.page.Wait(browser.ID("toast"), pageLimit) },
	)
}

func (w *walk) makeToken(context.Context) error {
	return all(
		w.openTokens,
		func() error { return w.page.Click(browser.ID("token-create")) },
		func() error { return w.page.Click(browser.ID("token-create-confirm")) },
		func() error { return w.page.Wait(browser.ID("token-value"), pageLimit) },
		func() (err error) {
			w.token, err = w.page.Text(browser.ID("token-value"))
			w.token = strings.TrimSpace(w.token)
			if err == nil && !strings.HasPrefix(w.token, "kmj1.") {
				err = fmt.Errorf("the token reads %q", w.token)
			}
			return err
		},
	)
}

// openTokens opens the tab of join tokens where the page has tabs.
func (w *walk) openTokens() error {
	url, err := w.page.URL()
	if err != nil {
		return err
	}
	base, _, _ := strings.Cut(url, "?")
	return all(
		func() error { return w.page.Goto(base + "?tab=tokens") },
		func() error { return w.page.Wait(browser.ID("token-create"), pageLimit) },
	)
}

func (w *walk) enrol(ctx context.Context) error {
	// The agent of this walk-through looks at the demo folder alone: what else
	// happens on this machine, other tests for one, is none of its business.
	a, err := w.stack.API(ctx)
	if err != nil {
		return err
	}
	env, err := a.environment(ctx)
	if err != nil {
		return err
	}
	if env.Plan != "P1" {
		return fmt.Errorf("the environment's plan is %q after saving P1", env.Plan)
	}
	if err := a.untested(ctx, env.ID); err != nil {
		return err
	}
	if err := a.protect(ctx, env.ID, []filesystemRule{{"*", "ignore"}, {w.stack.Demo(), "block"}}); err != nil {
		return err
	}
	if err := w.stack.StartAgent(ctx); err != nil {
		return err
	}
	if _, err := w.stack.CLI(ctx, "enrol", w.token); err != nil {
		return err
	}
	return w.stack.WaitHealthy(ctx)
}

func (w *walk) deviceAppears(context.Context) error {
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	return all(
		func() error { return w.page.Goto(w.stack.URL + "/devices") },
		func() error { return w.reads("device-row", host) },
		func() error { return w.reads("device-health", "Active") },
	)
}

func (w *walk) extension(context.Context) error {
	return all(
		func() error { return w.page.Click(browser.What{TestID: "device-row"}) },
		func() error { return w.reads("extension-name", "Komainu.Linux") },
		func() error { return w.reads("extension-state", "ucceeded") },
	)
}

func (w *walk) healthDetails(ctx context.Context) error {
	out, err := w.stack.runCLI(ctx, "mdatp", "health", "-details")
	if err != nil {
		return err
	}
	for _, name := range []string{"healthy", "licensed"} {
		if !hasField(out, name, "true") {
			return fmt.Errorf("%s is not true:\n%s", name, out)
		}
	}
	return nil
}

// hasField looks for a line "name   : value".
func hasField(out, name, value string) bool {
	for line := range strings.Lines(out) {
		key, rest, ok := strings.Cut(line, ":")
		if ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(rest) == value
		}
	}
	return false
}

func (w *walk) switchProtection(ctx context.Context) error {
	for _, c := range []struct{ value, want string }{{"disabled", "false"}, {"enabled", "true"}} {
		out, err := w.stack.runCLI(ctx, "mdatp", "config", "real-time-protection", "--value", c.value)
		if err != nil {
			return err
		}
		if !strings.Contains(out, "Configuration property updated") {
			return fmt.Errorf("config said %q", out)
		}
		err = waitFor(ctx, 10*time.Second, "real_time_protection_enabled is "+c.want, func() (bool, error) {
			out, err := w.stack.runCLI(ctx, "mdatp", "health", "--field", "real_time_protection_enabled")
			return strings.TrimSpace(out) == c.want, err
		})
		if err != nil {
			return err
		}
		if c.value == "disabled" {
			if err := w.bypassed(); err != nil {
				return err
			}
		}
	}
	return w.stack.WaitHealthy(ctx)
}

// bypassed checks that "off" is off: EICAR can be read.
func (w *walk) policy(ctx context.Context) error {
	err := all(
		func() error { return w.page.Click(browser.ID("nav-policies")) },
		func() error { return w.page.Click(browser.ID("policy-create")) },
		func() error { return w.page.Click(browser.ID("policy-create-antivirus")) },
		func() error { return w.page.Fill(browser.ID("policy-name"), "Servers") },
		func() error { return w.page.Click(browser.ID("assign-add")) },
		func() error { return w.page.Click(browser.ID("configure-maximumOnDemandScanThreads")) },
		func() error { return w.page.Fill(browser.ID("value-maximumOnDemandScanThreads"), "3") },
		func() error { return w.page.Click(browser.ID("policy-save")) },
		func() error { return w.reads("policy-confirmed", "1") },
	)
	if err != nil {
		return err
	}
	out, err := w.stack.runCLI(ctx, "mdatp", "config", "maximum-on-demand-scan-threads", "--value", "8")
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 5 || !strings.Contains(out, `"Servers"`) {
		return fmt.Errorf("a change on the device: %w: %s", err, out)
	}
	return nil
}

func (w *walk) bypassed() error {
	name := filepath.Join(w.stack.Demo(), "while-off.txt")
	if err := os.WriteFile(name, eicar, 0o644); err != nil {
		return err
	}
	if _, err := os.ReadFile(name); err != nil {
		return fmt.Errorf("protection is off and still denies: %w", err)
	}
	return os.Remove(name)
}

func (w *walk) eicarByCurl(ctx context.Context) error {
	name := filepath.Join(w.stack.Demo(), "eicar.com.txt")
	out, err := exec.CommandContext(ctx, "curl", "-sk", "-o", name, w.stack.URL+"/downloads/eicar.com.txt").CombinedOutput()
	if err != nil {
		return fmt.Errorf("curl: %w: %s", err, out)
	}
	w.ready = time.Now()
	if text, err := exec.CommandContext(ctx, "cat", name).CombinedOutput(); err == nil {
		return fmt.Errorf("EICAR was read: %q", text)
	}
	err = poll(ctx, 5*time.Second, time.Millisecond, func() (bool, error) {
		_, err := os.Lstat(name)
		return os.IsNotExist(err), nil
	})
	w.reactMS = time.Since(w.ready).Milliseconds()
	if err != nil {
		return fmt.Errorf("%s is still there: %w", name, err)
	}
	return nil
}

func (w *walk) threatList(ctx context.Context) error {
	return waitFor(ctx, 5*time.Second, "threat list shows EICAR as quarantined", func() (bool, error) {
		out, err := w.stack.runCLI(ctx, "mdatp", "threat", "list")
		return strings.Contains(out, `Name: "Virus:DOS/EICAR_Test_File"`) && strings.Contains(out, `Status: "quarantined"`), err
	})
}

func (w *walk) malwareInPortal(context.Context) error {
	const title = "'EICAR_Test_File' malware was prevented"
	return all(
		func() error { return w.page.Goto(w.stack.URL + "/incidents") },
		func() error { return w.reads("incident-row", title+" on one endpoint") },
		func() error { return w.page.Click(browser.Holding("incident-row", title)) },
		func() error { return w.reads("story-alert", title) },
		func() error { return w.page.Click(browser.ID("tab-alerts")) },
		func() error { return w.reads("alert-row", title) },
		func() error { return w.page.Click(browser.Holding("alert-row", title)) },
		func() error { return w.reads("page-title", title) },
		func() error { return w.page.Wait(browser.Holding("process-node", "curl"), pageLimit) },
	)
}

func (w *walk) edrTest(ctx context.Context) error {
	a, err := w.stack.API(ctx)
	if err != nil {
		return err
	}
	dir := filepath.Join(w.stack.dir, "edr")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	script := fmt.Sprintf("curl -sk -O %s/downloads/MDE-Linux-EDR-DIY.zip && unzip -qo MDE-Linux-EDR-DIY.zip && chmod +x ./mde_linux_edr_diy.sh && ./mde_linux_edr_diy.sh", w.stack.URL)
	// A session of its own, as a person's login shell has one.
	cmd := exec.CommandContext(ctx, "setsid", "--wait", "sh", "-c", script)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("the EDR test: %w: %s", err, out)
	}
	done := time.Now()
	return poll(ctx, 20*time.Second, 5*time.Millisecond, func() (bool, error) {
		list, err := a.alerts(ctx, 20)
		for _, x := range list {
			if x.Title == edrTitle {
				w.alertMS = max(0, time.Since(done).Milliseconds())
				w.alert = x.ID
				return true, nil
			}
		}
		return false, err
	})
}

const edrTitle = "Enumeration of files with sensitive data"

func (w *walk) edrInPortal(ctx context.Context) error {
	err := all(
		func() error { return w.page.Goto(w.stack.URL + "/incidents") },
		func() error { return w.page.Wait(browser.ID("incident-row"), pageLimit) },
		func() error { return w.page.Goto(w.stack.URL + "/alerts") },
		func() error { return w.reads("alert-row", edrTitle) },
		func() error { return w.reads("alert-severity", "Low") },
		func() error { return w.page.Click(browser.Holding("alert-row", edrTitle)) },
		func() error { return w.reads("page-title", edrTitle) },
		func() error { return w.page.Wait(browser.ID("process-node"), pageLimit) },
	)
	if err != nil {
		return err
	}
	return w.edrOnce(ctx)
}

// edrOnce checks that the test has made one alert, and that it is in an
// incident.
func (w *walk) edrOnce(ctx context.Context) error {
	a, err := w.stack.API(ctx)
	if err != nil {
		return err
	}
	list, err := a.alerts(ctx, 100)
	if err != nil {
		return err
	}
	n := 0
	for _, x := range list {
		if x.Title != edrTitle {
			continue
		}
		n++
		if x.IncidentID == "" || x.Severity != "Low" {
			return fmt.Errorf("alert %s: severity %s, incident %q", x.ID, x.Severity, x.IncidentID)
		}
	}
	if n != 1 {
		return fmt.Errorf("the EDR test made %d alerts, not one", n)
	}
	return nil
}

func (w *walk) noComplaints(context.Context) error {
	messages, err := w.page.Complaints()
	if err == nil && len(messages) > 0 {
		err = fmt.Errorf("%s", strings.Join(messages, "\n"))
	}
	return err
}
