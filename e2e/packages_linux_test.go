package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"komainu/internal/need"
)

// envPackages is where the packages are that this test has built before it
// went onto its stage.
const envPackages = "KOMAINU_E2E_PACKAGES"

// Versions of the packages of this test: of this checkout, and of one that has
// a migration more.
const (
	thisVersion = "1.0.0"
	nextVersion = "1.1.0"
)

// probe is a migration that fails while there is a user with a certain name.
const probe = `-- +goose Up
CREATE TABLE upgrade_probe (name TEXT NOT NULL CHECK (name <> 'stands-in-the-way'));
INSERT INTO upgrade_probe SELECT name FROM users;
`

// build runs the command that makes packages.
func build(t *testing.T, dir, formats string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"run", "./dev", "packages", "-o", dir, "-formats", formats, "-arch", "amd64"}, args...)...)
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=1767225600")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%q: %v\n%s", cmd.Args, err, out)
	}
}

// inspect has rpm read a package, install its files into an empty folder, and
// compare them with what it says of them.
func inspect(t *testing.T, dir, name string, want map[string]string) {
	t.Helper()
	need.Program(t, "rpm")
	file := filepath.Join(dir, name+"-"+thisVersion+"-1.x86_64.rpm")
	rpm := func(args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), "rpm", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("rpm %q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	for option, text := range want {
		if got := rpm("--query", option, "--package", file); !strings.Contains(got, text) {
			t.Errorf("rpm %s of %s lacks %q:\n%s", option, name, text, got)
		}
	}
	root := t.TempDir()
	rpm("--root", root, "--install", "--nodeps", "--noscripts", "--nosignature", file)
	rpm("--root", root, "--verify", "--nodeps", "--noscripts", name)
}

// onMachine boots a Debian, with some of its packages beside what each server
// has, and returns nil on the stage's parent. prepare puts our packages into a
// folder.
func onMachine(t *testing.T, prepare func(dir string), packages ...string) *machine {
	t.Helper()
	need.Root(t)
	if runtime.GOARCH != "amd64" {
		t.Skip("the packages of this test are for amd64")
	}
	base := debian(t, packages...)
	if os.Getenv(envStage) == "" {
		dir := t.TempDir()
		prepare(dir)
		t.Setenv(envPackages, dir)
	}
	if !onStage(t) {
		return nil
	}
	return boot(t, base)
}

func deb(name, version string) string {
	return filepath.Join(os.Getenv(envPackages), name+"_"+version+"_amd64.deb")
}

func TestControlPackage(t *testing.T) {
	m := onMachine(t, func(dir string) {
		controlPackages(t, dir)
		inspect(t, dir, "komainu-control", map[string]string{
			"--configfiles": "/etc/komainu/control.yaml\n",
			"--requires":    "libstdc++.so.6(GLIBCXX_",
			"--list":        "/usr/bin/komainu-control\n/usr/bin/komainuctl\n/usr/lib/systemd/system/komainu-control.service\n",
			"--scripts":     "preuninstall scriptlet",
		})
		agentPackages(t, dir)
		build(t, dir, "deb", "-only", "komainu-control", "-version", nextVersion, "-overlay", overlay(t, "../control/access/migrations/10999_access_probe.sql", probe))
	})
	if m == nil {
		return
	}
	const service = "komainu-control"

	// Installed, it runs, confined, and says no secret to the journal.
	m.install(deb(service, thisVersion))
	if s := m.state(service); s != "active" {
		t.Fatalf("installed, it is %s\n%s", s, m.journal())
	}
	if got := strings.TrimSpace(m.run("stat", "-c", "%a %U", "/var/lib/komainu/control")); got != "700 komainu-control" {
		t.Errorf("the state folder is %s", got)
	}
	if j := m.journal(); !strings.Contains(j, "msg=ready") || strings.Contains(j, "password") {
		t.Errorf("the journal holds too little or too much:\n%s", j)
	}
	m.run("systemd-analyze", "security", "--no-pager", "--threshold=20", service)
	c := &console{machine: m}
	c.password = c.oneTime()
	c.signIn()
	c.choose("correct-horse-battery")
	c.token = strings.TrimSpace(m.run("komainu-control", "admin", "token"))
	c.firstDay(deb("komainu-agent", thisVersion))
	m.run("sh", "-c", "echo 'events: {retention_days: 31}' >> /etc/komainu/control.yaml && systemctl restart "+service)
	c.signIn()

	// It comes back when it is killed, and when it hangs.
	for _, signal := range []string{"KILL", "STOP"} {
		if signal == "STOP" {
			m.run("sh", "-c", "mkdir -p /run/systemd/system/komainu-control.service.d && printf '[Service]\\nWatchdogSec=2s\\n' > /run/systemd/system/komainu-control.service.d/test.conf && systemctl daemon-reload && systemctl restart "+service)
		}
		before := m.property(service, "MainPID")
		m.run("sh", "-c", "kill -"+signal+" "+before)
		m.eventually("another process after SIG"+signal, func() bool {
			now := m.property(service, "MainPID")
			return now != before && now != "0" && m.state(service) == "active"
		})
	}

	// A migration that fails: the version before starts again with its data.
	user := c.call("POST", "/api/v1/users", `{"name":"stands-in-the-way","role":"reader"}`)
	if out := m.install(deb(service, nextVersion)); !strings.Contains(out, "does not start") {
		t.Errorf("an upgrade that fails is told as\n%s", out)
	}
	m.eventually("the service has failed and is not tried again", func() bool { return m.state(service) == "failed" })
	if j := m.journal(); !strings.Contains(j, "10999_access_probe.sql failed") || !strings.Contains(j, "Nothing was changed") {
		t.Errorf("what has failed is not in the journal:\n%s", j)
	}
	m.install(deb(service, thisVersion))
	c.signIn()
	if list := c.call("GET", "/api/v1/users", ""); !strings.Contains(list, "stands-in-the-way") {
		t.Errorf("the users after it: %s", list)
	}

	// An upgrade keeps state and configuration, and makes a copy.
	var created struct{ ID string }
	m.must(json.Unmarshal([]byte(user), &created))
	c.call("DELETE", "/api/v1/users/"+created.ID, "")
	m.install(deb(service, nextVersion))
	c.signIn()
	if v := m.run("komainu-control", "version"); !strings.Contains(v, nextVersion) {
		t.Errorf("the version is %s", v)
	}
	if config := m.run("komainu-control", "config", "show", "--config", "/etc/komainu/control.yaml"); !strings.Contains(config, "retention_days: 31") {
		t.Errorf("the configuration after it:\n%s", config)
	}
	if status := m.run("komainu-control", "migrate", "--check"); !strings.Contains(status, "migrations to come  0") || !strings.Contains(status, "copies              1") {
		t.Errorf("the state after it:\n%s", status)
	}

	// And back.
	m.run("systemctl", "stop", service)
	m.run("komainu-control", "migrate", "--rollback")
	m.install(deb(service, thisVersion))
	if s := m.state(service); s != "inactive" {
		t.Errorf("what the administrator has stopped is %s", s)
	}
	m.run("systemctl", "start", service)
	c.signIn()

	// Removed, its state stays; purged, nothing does.
	m.run("dpkg", "--remove", service)
	if s := m.state(service); s != "inactive" {
		t.Errorf("removed, it is %s", s)
	}
	m.run("ls", "/var/lib/komainu/control/state.db", "/etc/komainu/control.yaml")
	m.install(deb(service, thisVersion))
	c.signIn()
	m.run("dpkg", "--purge", service, "komainu-agent")
	m.run("test", "!", "-e", "/var/lib/komainu", "-a", "!", "-e", "/etc/komainu")
}

// console is somebody who uses the API in the machine.
type console struct {
	*machine
	password string
	token    string
}

func (c *console) curl(args ...string) string {
	c.t.Helper()
	// Until it listens again after a restart.
	return c.run(append([]string{"curl", "--silent", "--show-error", "--fail-with-body", "--insecure", "--max-time", "20", "--retry", "20", "--retry-connrefused", "--retry-delay", "1", "-H", "Content-Type: application/json"}, args...)...)
}

// oneTime makes a one-time password on the host.
func (c *console) oneTime() string {
	c.t.Helper()
	_, rest, ok := strings.Cut(c.run("komainu-control", "admin", "reset"), "one-time password: ")
	if !ok {
		c.t.Fatal("no password")
	}
	password, _, _ := strings.Cut(rest, "\n")
	return password
}

func (c *console) signIn() {
	c.t.Helper()
	text, err := json.Marshal(map[string]string{"name": "admin", "password": c.password})
	c.must(err)
	c.curl("--cookie-jar", "/run/cookies", "--data", string(text), "https://localhost:8443/api/v1/session")
}

// choose replaces the one-time password of who has signed in.
func (c *console) choose(password string) {
	c.t.Helper()
	text, err := json.Marshal(map[string]string{"current": c.password, "new": password})
	c.must(err)
	c.curl("--cookie", "/run/cookies", "--data", string(text), "https://localhost:8443/api/v1/session/password")
	c.password = password
}

// call uses the API with a token.
func (c *console) call(method, path, body string) string {
	c.t.Helper()
	args := []string{"--request", method, "-H", "Authorization: Bearer " + c.token, "https://localhost:8443" + path}
	if body != "" {
		args = append(args, "--data", body)
	}
	return c.curl(args...)
}

func TestAgentPackage(t *testing.T) {
	m := onMachine(t, func(dir string) {
		agentPackages(t, dir)
		inspect(t, dir, "komainu-agent", map[string]string{
			"--list":     "/usr/share/zsh/site-functions/_komainu\n",
			"--requires": "systemd\n",
		})
		build(t, dir, "deb,rpm", "-only", "komainu-mdatp", "-version", thisVersion)
	})
	if m == nil {
		return
	}
	const service = "komainu-agent"
	m.install(deb(service, thisVersion))
	if s := m.state(service); s != "active" {
		t.Fatalf("installed, it is %s\n%s", s, m.journal())
	}
	m.run("sh", "-c", "! test -e /usr/bin/mdatp -o -L /usr/bin/mdatp")
	second := filepath.Join(os.Getenv(envPackages), "komainu-mdatp_"+thisVersion+"_all.deb")
	m.install(second)
	if v := m.run("mdatp", "version"); !strings.Contains(v, thisVersion) {
		t.Errorf("under the name mdatp: %s", v)
	}

	// It is four processes; each one that is killed comes back.
	all := []string{"broker", "run", "scanner", "worker"}
	for _, role := range all {
		m.scan()
		before := m.roles()
		if got := before.names(); !slices.Equal(got, all) {
			t.Fatalf("the agent is %v\n%s", got, m.journal())
		}
		m.run("sh", "-c", "kill -KILL "+before[role])
		m.eventually("another process instead of "+role, func() bool {
			_, err := m.try("komainu", "scan", "custom", "--path", "/etc/hostname") // starts the scanner
			now := m.roles()
			return err == nil && slices.Equal(now.names(), all) && now[role] != before[role]
		})
	}

	// An upgrade replaces all of them.
	before := m.roles()
	m.install(deb(service, nextVersion))
	m.eventually("the new version answers", func() bool {
		out, _ := m.try("komainu", "version")
		return strings.Contains(out, "agent "+nextVersion)
	})
	m.scan()
	for role, pid := range m.roles() {
		if before[role] == pid {
			t.Errorf("the upgrade has left the old %s running", role)
		}
	}

	// Stopped, none is left; removed, its state stays, and its name goes.
	m.run("systemctl", "stop", service)
	if left := m.roles(); len(left) != 0 {
		t.Errorf("stopped, there is still %v", left)
	}
	m.run("dpkg", "--remove", "komainu-mdatp", service)
	m.run("sh", "-c", "test -d /var/lib/komainu/agent && ! test -e /usr/bin/mdatp -o -L /usr/bin/mdatp")

	// The name of another product's command is not taken.
	theirs := filepath.Join(m.root, "usr/bin/mdatp")
	m.must(os.WriteFile(theirs, []byte("#!/bin/sh\necho theirs\n"), 0o755))
	m.run("dpkg", "--purge", service)
	m.run("test", "!", "-e", "/var/lib/komainu")
	m.install(deb(service, nextVersion))
	if out, err := m.try("dpkg", "--install", m.bring(second)); err == nil || !strings.Contains(out, "belongs to something else") {
		t.Errorf("komainu-mdatp over the command of somebody else: %v\n%s", err, out)
	}
	m.run("dpkg", "--purge", "komainu-mdatp", service)
	if got := m.run("mdatp"); got != "theirs\n" {
		t.Errorf("mdatp is now %q", got)
	}
}

// TestAgentPackageAmongDecisions installs over units that somebody has masked
// or disabled, and removes the agent together with the package that depends on
// it, in all forms of package.
func TestAgentPackageAmongDecisions(t *testing.T) {
	m := onMachine(t, func(dir string) {
		agentPackages(t, dir)
		build(t, dir, "deb,rpm", "-only", "komainu-mdatp", "-version", thisVersion)
	})
	if m == nil {
		return
	}
	m.stock()
	m.decidedUnits()

	second := func(name string) string { return m.bring(filepath.Join(os.Getenv(envPackages), name)) }
	before := m.files()
	script := m.hostScript("deb")
	do := func(line string) {
		t.Helper()
		if out, _, failed := m.act(line, "", 0); failed || !strings.Contains(out, "komainu:done") {
			t.Fatalf("%s\n%s%s", line, out, m.journal())
		}
	}
	gone := func(form string) {
		t.Helper()
		do(script.remove(""))
		if d := difference(before, m.files()); d != nil {
			t.Errorf("removed as %s, the host is not what it was:\n%s", form, strings.Join(d, "\n"))
		}
	}
	name := "komainu-mdatp_" + thisVersion + "_all.deb"
	do(script.install(thisVersion))
	m.run("dpkg", "--install", second(name))
	gone("deb")
	// Also one that waits for the agent, and one whose agent was torn away.
	if out, err := m.try("dpkg", "--install", second(name)); err == nil {
		t.Errorf("without the agent it is configured:\n%s", out)
	}
	gone("deb without the agent")
	do(script.install(thisVersion))
	m.run("dpkg", "--install", second(name))
	m.run("dpkg", "--force-depends", "--purge", "komainu-agent")
	gone("deb that has lost the agent")
	if out := m.run("dpkg", "--audit"); out != "" {
		t.Errorf("dpkg --audit:\n%s", out)
	}

	// A host with rpm that wants signatures of packages.
	m.run("mv", "/usr/bin/dpkg", "/usr/bin/dpkg-query", "/opt")
	m.run("rpm", "--upgrade", second(distribution))
	m.run("sh", "-c", "mkdir -p /etc/rpm && echo '%_pkgverify_level all' >/etc/rpm/macros")
	before = m.files()
	script = m.hostScript("rpm")
	if out, err := m.try("rpm", "--upgrade", onShelf("rpm")(thisVersion)); err == nil {
		t.Errorf("this host does not want signatures:\n%s", out)
	}
	do(script.install(thisVersion))
	m.run("rpm", "--upgrade", "--nosignature", second("komainu-mdatp-"+thisVersion+"-1.noarch.rpm"))
	gone("rpm")
	if out := m.run("rpm", "-qa"); strings.Contains(out, "komainu") {
		t.Errorf("rpm has\n%s", out)
	}

	// And one with neither, where people make the name by hand.
	m.run("mv", "/usr/bin/rpm", "/opt")
	before = m.files()
	script = m.hostScript("tar")
	for _, remove := range []string{"sh /usr/lib/komainu/install.sh purge", "true"} {
		do(script.install(thisVersion))
		m.run("ln", "-s", "komainu", "/usr/bin/mdatp")
		m.run("sh", "-c", remove)
		gone("tar, " + remove)
	}
}

// decidedUnits has units masked or disabled before and after an installation.
func (m *machine) decidedUnits() {
	m.t.Helper()
	const service, path = "komainu-agent.service", "komainu-upgrade.path"
	is := func(when, unit, enabled, active string) {
		m.t.Helper()
		e, _ := m.try("systemctl", "is-enabled", unit)
		a, _ := m.try("systemctl", "is-active", unit)
		if strings.TrimSpace(e) != enabled || strings.TrimSpace(a) != active {
			m.t.Errorf("%s, %s is %s and %s, not %s and %s", when, unit, strings.TrimSpace(e), strings.TrimSpace(a), enabled, active)
		}
	}
	install := func(when, version, says string) {
		m.t.Helper()
		out := m.run("dpkg", "--install", onShelf("deb")(version))
		if strings.Contains(out, "is masked") != (says != "") || !strings.Contains(out, says) {
			m.t.Errorf("%s, the installation says\n%s", when, out)
		}
		if got := m.run("dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}", "komainu-agent"); got != "installed "+version {
			m.t.Errorf("%s, dpkg has %q", when, got)
		}
	}
	install("first", thisVersion, "")
	is("first", path, "enabled", "active")
	m.run("systemctl", "disable", "--now", path)
	install("disabled", nextVersion, "")
	is("disabled", path, "disabled", "inactive")
	is("disabled", service, "enabled", "active")
	// A version without the unit leaves no word of it.
	m.run("rm", "/var/lib/komainu/agent-upgrades-are-ready")
	install("after an older version", thisVersion, "")
	is("after an older version", path, "enabled", "active")
	m.run("dpkg", "--purge", "komainu-agent")
	m.run("test", "!", "-e", "/var/lib/komainu")

	for _, how := range []string{"--no-reload", "--runtime"} {
		m.run("systemctl", "mask", how, path)
		install("masked", thisVersion, "systemctl unmask "+path)
		is("masked", service, "enabled", "active")
		m.run("systemctl", "unmask", how, path)
		install("unmasked", nextVersion, "")
		is("unmasked", path, "enabled", "active")
		m.run("dpkg", "--purge", "komainu-agent")
	}

	m.run("systemctl", "mask", service)
	install("the service masked", thisVersion, "systemctl unmask komainu-agent ")
	is("the service masked", service, "masked", "inactive")
	is("the service masked", path, "enabled", "active")
	if out, _, failed := m.act(m.hostScript("deb").install(thisVersion), "", 0); !failed || !strings.Contains(out, "komainu:fail service_failed komainu-agent.service is masked") {
		m.t.Errorf("the script says of it\n%s", out)
	}
	m.run("dpkg", "--remove", "komainu-agent")
	m.run("systemctl", "unmask", service)
	install("the service unmasked", thisVersion, "")
	is("the service unmasked", service, "enabled", "active")
	m.run("systemctl", "mask", service)
	install("masked while it runs", nextVersion, "systemctl unmask komainu-agent ")
	m.run("dpkg", "--purge", "komainu-agent")
	is("purged", service, "masked", "inactive")
	m.run("systemctl", "unmask", service)
}

// scan makes the agent scan, which starts its scanner.
func (m *machine) scan() {
	m.t.Helper()
	m.eventually("a scan", func() bool {
		_, err := m.try("komainu", "scan", "custom", "--path", "/etc/hostname")
		return err == nil
	})
}

// roles are the processes of an agent by what they do.
type roles map[string]string

func (r roles) names() (list []string) {
	for name := range r {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

func (m *machine) roles() roles {
	m.t.Helper()
	out := m.run("sh", "-c", `for p in /proc/[0-9]*; do n=$(tr '\0' ' ' <$p/cmdline 2>/dev/null); case "$n" in komainud\ *|/usr/bin/komainud\ *) echo "${p#/proc/}" $n;; esac; done`)
	list := roles{}
	for line := range strings.Lines(out) {
		if fields := strings.Fields(line); len(fields) == 3 {
			list[fields[2]] = fields[0]
		}
	}
	return list
}
