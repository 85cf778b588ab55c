package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"komainu/deploy"
)

// brokenVersion is one whose program ends at once, lameVersion one whose
// program says that it is ready, and does nothing.
const (
	brokenVersion = "1.2.0"
	lameVersion   = "1.2.1"
)

const brokenMain = `package main

import "os"

func main() { os.Exit(1) }
`

const lameMain = `package main

import (
	"net"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	if c, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET")); err == nil {
		c.Write([]byte("READY=1"))
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	<-end
}
`

// TestUpgrade upgrades the agent of a booted Debian from the repository of a
// real control plane, with the real package manager: to a version that works,
// to one that does not, and with the installer killed at each of its steps.
// Somebody outside tries all the time whether malware can be opened.
func TestUpgrade(t *testing.T) {
	deadline = 8 * time.Minute // ten upgrades with their probation
	u := newUpgrader(t, "deb", map[string]string{brokenVersion: brokenMain})
	if u == nil {
		return
	}
	if out := u.run("komainu", "upgrade", "check"); !strings.Contains(out, brokenVersion+", "+nextVersion+", "+thisVersion) {
		t.Errorf("the versions in the repository:\n%s", out)
	}
	u.good()
	u.refused()
	u.rolledBack(brokenVersion)
	for _, step := range []string{"prepare", "install", "probe"} {
		u.killed(step, thisVersion, false)
		u.killed(step, nextVersion, false)
	}
	for _, step := range []string{"back", "reprobe"} {
		u.killed(step, brokenVersion, true)
	}
}

// TestUpgradeFromArchive does the same on a host where no package manager
// knows the agent.
func TestUpgradeFromArchive(t *testing.T) {
	u := newUpgrader(t, "tar", map[string]string{brokenVersion: brokenMain, lameVersion: lameMain})
	if u == nil {
		return
	}
	u.good()
	u.rolledBack(brokenVersion)
	u.rolledBack(lameVersion)
	u.killed("install", thisVersion, false)
	u.killed("back", brokenVersion, true)
}

// newUpgrader boots a machine with a control plane and an agent that was
// installed from one form of package. bad are the programs of versions that
// are not as they should be. It returns nil on the stage's parent.
func newUpgrader(t *testing.T, form string, bad map[string]string) *upgrader {
	t.Helper()
	m := onMachine(t, func(dir string) {
		controlPackages(t, dir)
		agentPackages(t, dir)
		for version, program := range bad {
			build(t, dir, form, "-only", "komainu-agent", "-version", version, "-overlay", overlay(t, "../cmd/komainud/main.go", program))
		}
	})
	if m == nil {
		return nil
	}
	file := func(version string) string {
		if form == "tar" {
			return strings.TrimSuffix(deb("komainu-agent", version), "deb") + "tar.gz"
		}
		return deb("komainu-agent", version)
	}
	packages := filepath.Join(m.root, "usr/share/komainu/packages")
	m.must(os.MkdirAll(packages, 0o755))
	for _, v := range slices.Concat([]string{thisVersion, nextVersion}, slices.Collect(maps.Keys(bad))) {
		text, err := os.ReadFile(file(v))
		m.must(err)
		m.must(os.WriteFile(filepath.Join(packages, filepath.Base(file(v))), text, 0o644))
	}
	m.install(deb("komainu-control", thisVersion))
	c := &console{machine: m}
	c.password = c.oneTime()
	c.signIn()
	c.choose("correct-horse-battery")
	c.token = strings.TrimSpace(m.run("komainu-control", "admin", "token"))
	c.firstDay(file(thisVersion))
	return &upgrader{console: c, o: c.watchGate(), form: form}
}

type upgrader struct {
	*console
	o    *opener
	form string
}

// installed is the version that is installed whole.
func (u *upgrader) installed() string {
	u.t.Helper()
	if u.form == "tar" {
		return strings.TrimPrefix(strings.TrimSpace(u.run("sh", "/usr/lib/komainu/install.sh", "status")), "installed ")
	}
	return strings.TrimPrefix(strings.TrimSpace(u.run("dpkg-query", "-W", "-f", "${db:Status-Abbrev}${Version}", "komainu-agent")), "ii ")
}

// apply upgrades and returns how it went, by what the command says.
func (u *upgrader) apply(version string) (s deploy.UpgradeStatus) {
	u.t.Helper()
	out, err := u.try("komainu", "upgrade", "apply", "--downgrade", "--to", version, "-o", "json")
	if json.Unmarshal([]byte(out), &s) != nil {
		u.t.Fatalf("upgrade to %s: %v\n%s\n%s", version, err, out, u.installerJournal())
	}
	if (err == nil) != (s.State == deploy.UpgradeStateSucceeded) {
		u.t.Errorf("the upgrade ended as %s, the command with %v", s.State, err)
	}
	return s
}

func (u *upgrader) installerJournal() string {
	out, _ := u.try("journalctl", "--no-pager", "-n", "60", "-u", "komainu-upgrade", "-u", "komainu-agent")
	return out
}

// sound checks what has to hold after every upgrade, however it went.
func (u *upgrader) sound(version string) {
	u.t.Helper()
	got := u.installed()
	if got != version {
		u.t.Errorf("installed is %q, want %q\n%s", got, version, u.installerJournal())
	}
	if out := u.run("dpkg", "--audit"); out != "" {
		u.t.Errorf("dpkg is not well:\n%s", out)
	}
	if out := u.run("komainu", "version"); !strings.Contains(out, "agent "+got) {
		u.t.Errorf("installed is %q, and there answers\n%s", got, out)
	}
	u.eventually("malware cannot be opened", u.o.shut)
	if left, _ := os.ReadDir(filepath.Join(u.root, "var/lib/komainu/agent/upgrade")); len(left) != 1 {
		u.t.Errorf("left behind: %v", left)
	}
	// The installer ends after it has let go of the upgrade.
	u.eventually("the copy of the program is gone", func() bool {
		_, err := os.Stat(filepath.Join(u.root, "usr/libexec/komainu-upgrade"))
		return errors.Is(err, os.ErrNotExist)
	})
}

func (u *upgrader) good() {
	u.t.Helper()
	u.o.reset()
	s := u.apply(nextVersion)
	if s.State != deploy.UpgradeStateSucceeded || s.From != thisVersion || s.To != nextVersion || s.Gap <= 0 {
		u.t.Errorf("a good version: %+v, %+v\n%s", s, s.Reason, u.installerJournal())
	}
	u.sound(nextVersion)
	seen := u.o.open()
	u.t.Logf("without protection during the upgrade: %v by the agent's measure, %v as seen from outside in %d openings", s.Gap, seen, u.o.tries())
	if seen > s.Gap+50*time.Millisecond {
		u.t.Errorf("from outside malware could be opened for %v, the agent tells of %v", seen, s.Gap)
	}
}

// refused asks for what is not done.
func (u *upgrader) refused() {
	u.t.Helper()
	for _, args := range [][]string{{"--to", nextVersion}, {"--to", thisVersion}, {"--to", "9.9.9"}, {"--to", "no-version"}, {"--from", "/srv"}} {
		out, err := u.try(append([]string{"komainu", "upgrade", "apply"}, args...)...)
		if err == nil {
			u.t.Errorf("%v was done:\n%s", args, out)
		}
		u.t.Logf("%v: %s", args, strings.TrimSpace(out))
	}
	u.sound(nextVersion)
	// A way back is wanted before anything is begun.
	u.run("sh", "-c", "cp -r /var/lib/komainu/control/repository /srv/stick && rm -r /srv/stick/targets/komainu-agent/"+nextVersion)
	out, err := u.try("komainu", "upgrade", "apply", "--from", "/srv/stick", "--to", thisVersion, "--downgrade")
	if err == nil || !strings.Contains(out, "no way back") {
		u.t.Errorf("without a way back: %v\n%s", err, out)
	}
	u.sound(nextVersion)
}

// rolledBack upgrades to a version that does not become well.
func (u *upgrader) rolledBack(version string) {
	u.t.Helper()
	u.o.reset()
	s := u.apply(version)
	if s.State != deploy.UpgradeStateRolledBack || s.Reason == nil || s.Reason.ID != deploy.UpgradeRolledBack {
		u.t.Errorf("%s: %+v, %+v\n%s", version, s, s.Reason, u.installerJournal())
	}
	u.sound(nextVersion)
	u.t.Logf("without protection while %s did not become well: %v by the agent's measure, %v as seen from outside", version, s.Gap, u.o.open())
}

// killed kills everything of the installer when it has noted a step.
func (u *upgrader) killed(step, version string, back bool) {
	u.t.Helper()
	was := u.installed()
	done := make(chan deploy.UpgradeStatus, 1)
	journal := filepath.Join(u.root, "var/lib/komainu/agent/upgrade/journal.json")
	before := u.property("komainu-upgrade", "NRestarts")
	go func() {
		var s deploy.UpgradeStatus
		out, _ := u.try("komainu", "upgrade", "apply", "--downgrade", "--to", version, "-o", "json")
		_ = json.Unmarshal([]byte(out), &s) // what is missing is seen below
		done <- s
	}()
	u.reach(journal, step, version)
	main := u.property("komainu-upgrade", "MainPID")
	// It may find others gone that it is about to kill, and says so: what counts
	// is that the installer itself is. At the first step it may not run yet.
	if out, err := u.try("systemctl", "kill", "--signal=KILL", "komainu-upgrade.service"); err != nil {
		u.t.Logf("kill at %s: %v, %s", step, err, out)
	}
	if main != "0" {
		u.eventually("the installer is killed", func() bool { return u.property("komainu-upgrade", "MainPID") != main })
	}
	s := <-done
	want := deploy.UpgradeStateSucceeded
	if back {
		want = deploy.UpgradeStateRolledBack
	}
	if s.State != want {
		u.t.Errorf("killed at %s on the way to %s: %+v, %+v\n%s", step, version, s, s.Reason, u.installerJournal())
	}
	if back {
		u.sound(was)
	} else {
		u.sound(version)
	}
	u.t.Logf("killed at %s on the way from %s to %s: %s, restarts %s to %s, gap %v", step, was, version, s.State, before, u.property("komainu-upgrade", "NRestarts"), s.Gap)
}

// reach waits until the journal names a step of an upgrade that goes on.
func (u *upgrader) reach(journal, step, version string) {
	u.t.Helper()
	limit := time.After(90 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		var j struct {
			Step   string
			Status deploy.UpgradeStatus
		}
		text, err := os.ReadFile(journal)
		_, going := os.Stat(filepath.Join(filepath.Dir(journal), "go"))
		if err == nil && json.Unmarshal(text, &j) == nil && going == nil && j.Step == step && j.Status.To == version {
			return
		}
		select {
		case <-limit:
			u.t.Fatalf("the upgrade to %s does not reach %s:\n%s\n%s", version, step, text, u.installerJournal())
		case <-tick.C:
		}
	}
}

// opener tries all the time whether a file with malware can be opened in the
// machine.
type opener struct {
	path string

	mu     sync.Mutex
	count  int
	denied bool          // the last time
	first  time.Duration // that it could be opened, since it was denied last
	sum    time.Duration // for how long it could be opened, at least
}

// watchGate puts EICAR on a filesystem from which nothing can be taken away,
// has it protected, and begins to open it.
func (c *console) watchGate() *opener {
	c.t.Helper()
	c.run("sh", "-c", `mkdir -p /srv/gate && mount -t tmpfs komainu-gate /srv/gate && printf '%s%s%s' 'X5O!P%@AP' '[4\PZX54(P^)7CC)7}$EICAR-STAND' 'ARD-ANTIVIRUS-TEST-FILE!$H+H*' >/srv/gate/file && mount -o remount,ro /srv/gate`)
	var list struct{ Items []struct{ ID string } }
	c.must(json.Unmarshal([]byte(c.call("GET", "/api/v1/environments", "")), &list))
	environment := "/api/v1/environments/" + list.Items[0].ID
	var plan struct{ Version uint64 }
	c.must(json.Unmarshal([]byte(c.call("GET", environment+"/plan", "")), &plan))
	body, err := json.Marshal(map[string]any{"version": plan.Version, "servers": true,
		"filesystems": []map[string]string{{"path": "*", "mode": "ignore"}, {"path": "/srv/demo", "mode": "block"}, {"path": "/srv/gate", "mode": "block"}}})
	c.must(err)
	c.call("PUT", environment+"/plan", string(body))
	o := &opener{path: fmt.Sprintf("/proc/%d/root/srv/gate/file", c.init)}
	c.eventually("malware cannot be opened", func() bool { o.try(); return o.shut() })
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				o.try()
			}
		}
	}()
	c.t.Cleanup(func() { close(stop); <-stopped })
	return o
}

func now() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return time.Duration(ts.Nano())
}

// try opens it once. What counts is the time between the first success and the
// last one: only then it is certain that there was no protection, however long
// this process had to wait for the processor in between.
func (o *opener) try() {
	before := now()
	f, err := os.Open(o.path)
	after := now()
	if err == nil {
		f.Close()
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.count++
	o.denied = errors.Is(err, unix.EPERM)
	switch {
	case o.denied:
		o.first = 0
	case err == nil && o.first == 0:
		o.first = after
	case err == nil && before > o.first:
		o.sum += before - o.first
		o.first = before
	}
}

func (o *opener) shut() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.denied
}

func (o *opener) reset() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sum, o.count = 0, 0
}

func (o *opener) open() time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.sum
}

func (o *opener) tries() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.count
}
