package e2e

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The rounds of TestKilledAtEveryStep: how many points of each action, 0 for
// all of them, and what they are picked with. go run ./dev soak asks for more
// than CI.
const (
	envKills    = "KOMAINU_E2E_KILLS"
	envKillSeed = "KOMAINU_E2E_KILL_SEED"
	envKillWay  = "KOMAINU_E2E_KILL_WAY" // only what has this in its name, like: rpm, remove
	killsCI     = 2
	killSeedCI  = 4
)

// kills is one run of the test.
type kills struct {
	*machine
	random *rand.Rand
	points int
	clean  map[string]string // the files before anything was installed
	others string            // packages that are not ours
	rounds int
}

// TestKilledAtEveryStep ends installations, upgrades, downgrades and removals
// in their middle, and sees that the host has the old or the new agent, that
// the same command again does the rest by itself, and that nothing else on the
// host has changed.
func TestKilledAtEveryStep(t *testing.T) {
	number := func(name string, otherwise uint64) uint64 {
		if text := os.Getenv(name); text != "" {
			n, err := strconv.ParseUint(text, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		return otherwise
	}
	points, seed := int(number(envKills, killsCI)), number(envKillSeed, killSeedCI)
	deadline = 15 * time.Minute
	if points != killsCI {
		deadline = 5 * time.Hour
	}
	m := onMachine(t, func(dir string) { agentPackages(t, dir) })
	if m == nil {
		return
	}
	k := &kills{machine: m, random: rand.New(rand.NewPCG(seed, 0)), points: points}
	t.Logf("seed %d", seed)
	k.others = k.packages()
	m.stock()
	m.layShims()
	k.clean = m.files()
	k.way(plainDpkg())
	k.way(m.hostScript("deb"))
	// A host that has rpm, and one that has neither.
	m.run("mv", "/usr/bin/dpkg", "/usr/bin/dpkg-query", "/opt")
	m.layShims()
	// rpm gives its scripts a PATH of its own.
	m.run("mkdir", "-p", "/etc/rpm")
	m.must(os.WriteFile(filepath.Join(m.root, "etc/rpm/macros"), []byte("%_install_script_path /usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin\n"), 0o644))
	m.run("rpm", "--upgrade", m.bring(filepath.Join(os.Getenv(envPackages), distribution)))
	k.clean = m.files()
	k.way(m.hostScript("rpm"))
	m.run("mv", "/usr/bin/rpm", "/opt")
	m.layShims()
	k.clean = m.files()
	k.way(m.hostScript("tar"))
	t.Logf("%d rounds", k.rounds)
}

// packages lists what dpkg has, our package left out.
func (k *kills) packages() string {
	k.t.Helper()
	var list []string
	for line := range strings.Lines(k.run("dpkg-query", "-W", "-f", "${Package} ${Version} ${db:Status-Abbrev}\n")) {
		if !strings.HasPrefix(line, "komainu-agent ") {
			list = append(list, line)
		}
	}
	return strings.Join(list, "")
}

// action is a way from one version to another; "" is no agent.
type action struct{ name, from, to string }

// way tries one way to install, with everything that it is for.
func (k *kills) way(w way) {
	k.t.Helper()
	for _, a := range []action{{"install", "", thisVersion}, {"upgrade", thisVersion, nextVersion}, {"downgrade", nextVersion, thisVersion}, {"remove", thisVersion, ""}} {
		if !strings.Contains(w.name+", "+a.name, os.Getenv(envKillWay)) {
			continue
		}
		line := w.remove("")
		if a.to != "" {
			line = w.install(a.to)
		}
		// Undisturbed, to know its steps and how long it takes.
		k.reach(w, a.from)
		began := time.Now()
		out, calls, failed := k.act(line, "", 0)
		took := time.Since(began).Seconds()
		if failed {
			k.t.Fatalf("%s, %s: %s%s", w.name, a.name, out, k.journal())
		}
		k.arrived(w, a)
		list := k.pick(w, calls)
		k.t.Logf("%s, %s: %d calls in %.1f s; ended at %q", w.name, a.name, calls, took, list)
		for _, p := range list {
			k.reach(w, a.from)
			k.round(w, a, line, p, took)
		}
	}
}

// pick chooses where an action is ended.
func (k *kills) pick(w way, calls int) (list []point) {
	for n := 1; n <= calls; n++ {
		list = append(list, point("before "+strconv.Itoa(n)), point("after "+strconv.Itoa(n)))
		if w.form != "tar" {
			list = append(list, point("manager "+strconv.Itoa(n)))
		}
	}
	timed := func(word string) point { return point(fmt.Sprintf("%s %.3f", word, k.random.Float64())) }
	if k.points == 0 {
		for range 20 {
			list = append(list, timed("time"))
		}
		for range 5 {
			list = append(list, timed("power"))
		}
		return list
	}
	k.random.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	list = append(list[:min(len(list), k.points-1)], timed("time"))
	if w.form == "deb" && strings.HasPrefix(w.name, "host") {
		list = append(list, timed("power"))
	}
	return list
}

// reach brings the host to where an action begins.
func (k *kills) reach(w way, version string) {
	k.t.Helper()
	if k.version() == version && (version != "" || !k.there()) {
		return
	}
	line := w.remove("")
	if version != "" {
		line = w.install(version)
	}
	if out, _, failed := k.act(line, "", 0); failed {
		k.t.Fatalf("%s: to begin with %q: %s", w.name, version, out)
	}
	k.arrived(w, action{to: version})
}

// round ends an action, looks at what there is, and does it again.
func (k *kills) round(w way, a action, line string, p point, took float64) {
	k.t.Helper()
	k.rounds++
	fatal := func(format string, args ...any) {
		k.t.Helper()
		log, _ := k.try("cat", "/run/kill/log")
		k.t.Fatalf("%s, %s, ended at %q: %s\nthe calls:\n%s%s", w.name, a.name, p, fmt.Sprintf(format, args...), log, k.journal())
	}
	k.act(line, p, took)
	if why := k.between(a); why != "" {
		fatal("%s", why)
	}
	out, _, failed := k.act(line, "", 0)
	if failed {
		fatal("again, it fails:\n%s", out)
	}
	if strings.HasPrefix(w.name, "host") && !strings.Contains(out, "komainu:done") {
		fatal("again, the script says:\n%s", out)
	}
	k.arrived(w, a)
	if k.t.Failed() {
		fatal("see above")
	}
}

// between looks at a host on which an action has ended in its middle. An
// upgrade leaves an agent that works; an installation and a removal leave one
// that works or none that runs.
func (k *kills) between(a action) string {
	k.t.Helper()
	limit := time.After(20 * time.Second)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		state, version := k.state("komainu-agent"), k.version()
		switch {
		case version != "" && (version == a.from || version == a.to) && state == "active":
			return ""
		case version == "" && state == "inactive" && (a.from == "" || a.to == ""):
			return ""
		}
		select {
		case <-limit:
			return fmt.Sprintf("the service is %s, the agent that answers %q", state, version)
		case <-tick.C:
		}
	}
}

// facts are what the engine decides by.
func (k *kills) facts() (pack, agent string) {
	k.t.Helper()
	for line := range strings.Lines(k.run("sh", "/var/cache/host.sh", "facts")) {
		fields := strings.SplitN(strings.TrimSpace(line), " ", 3)
		if len(fields) == 3 && fields[1] == "package" {
			pack = fields[2]
		}
		if len(fields) == 3 && fields[1] == "agent" {
			agent = fields[2]
		}
		if len(fields) == 3 && fields[1] == "manager_broken" && fields[2] != "" {
			k.t.Errorf("the package manager is said to be broken: %s", line)
		}
	}
	return pack, agent
}

// version is that of the agent that answers.
func (k *kills) version() string {
	out, err := k.try("/usr/bin/komainu", "version", "-o", "json")
	if err != nil {
		return ""
	}
	var v struct{ Agent string }
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		return ""
	}
	return v.Agent
}

// there reports whether anything of ours is on the host.
func (k *kills) there() bool { return len(difference(k.clean, k.files())) != 0 }

// arrived checks a host on which an action was done to its end.
func (k *kills) arrived(w way, a action) {
	k.t.Helper()
	if a.to == "" {
		if d := difference(k.clean, k.files()); d != nil {
			slices.Sort(d)
			k.t.Errorf("removed, the host is not what it was:\n%s", strings.Join(d, "\n"))
		}
		if s := k.state("komainu-agent"); s != "inactive" {
			k.t.Errorf("removed, the service is %s", s)
		}
	} else {
		k.eventually("the agent answers as "+a.to, func() bool { return k.version() == a.to && k.state("komainu-agent") == "active" })
		if out, _ := k.try("systemctl", "is-enabled", "komainu-agent"); strings.TrimSpace(out) != "enabled" {
			k.t.Errorf("the service is %s", out)
		}
		k.unfinished()
	}
	if strings.HasPrefix(w.name, "host") {
		if pack, agent := k.facts(); agent != a.to || a.to != "" && strings.TrimSuffix(pack, "-1") != "installed "+a.to {
			k.t.Errorf("the engine is told of package %q and agent %q, not of %q", pack, agent, a.to)
		}
	}
	switch w.form {
	case "deb":
		k.healthyDpkg(a)
	case "rpm":
		k.healthyRPM(a)
	}
}

// unfinished looks for files that were never put in place.
func (k *kills) unfinished() {
	k.t.Helper()
	k.must(filepath.WalkDir(k.root, func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() && slices.Contains([]string{"proc", "sys", "run", "dev"}, strings.TrimPrefix(path, k.root+"/")) {
			return fs.SkipDir
		}
		if err != nil {
			return nil // it has gone meanwhile
		}
		for _, end := range []string{".dpkg-new", ".dpkg-tmp", ".komainu-new", "komainu-deploy.??????", ";????????"} {
			if is, _ := filepath.Match("*"+end, d.Name()); is { // the patterns are well formed
				k.t.Errorf("%s is left", strings.TrimPrefix(path, k.root))
			}
		}
		return nil
	}))
}

// healthyDpkg asks dpkg itself.
func (k *kills) healthyDpkg(a action) {
	k.t.Helper()
	if out := k.run("dpkg", "--audit"); out != "" {
		k.t.Errorf("dpkg --audit:\n%s", out)
	}
	if out := k.run("dpkg", "--configure", "--pending"); out != "" {
		k.t.Errorf("dpkg had something to configure:\n%s", out)
	}
	want := "installed " + a.to
	if a.to == "" {
		want = ""
	}
	got, _ := k.try("dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}", "komainu-agent")
	if a.to == "" && (strings.HasPrefix(got, "not-installed") || strings.Contains(got, "no packages found")) {
		got = ""
	}
	if got != want {
		k.t.Errorf("dpkg has %q, want %q", got, want)
	}
	if now := k.packages(); now != k.others {
		k.t.Errorf("other packages were\n%s\nand are\n%s", k.others, now)
	}
	for _, dir := range []string{"updates", "tmp.ci"} {
		if list, err := os.ReadDir(filepath.Join(k.root, "var/lib/dpkg", dir)); err == nil && len(list) != 0 {
			k.t.Errorf("/var/lib/dpkg/%s holds %v", dir, list)
		}
	}
	// Who may lock it, may use it.
	if out, err := k.try("dpkg", "--clear-avail"); err != nil {
		k.t.Errorf("dpkg is locked: %s", out)
	}
}

// healthyRPM asks rpm itself.
func (k *kills) healthyRPM(a action) {
	k.t.Helper()
	out, err := k.try("rpm", "-q", "--qf", "%{VERSION}\n", "komainu-agent")
	if a.to == "" {
		if err == nil {
			k.t.Errorf("rpm still has %s", out)
		}
	} else if err != nil || out != a.to+"\n" {
		k.t.Errorf("rpm has %q", out)
	} else if out, err := k.try("rpm", "--verify", "komainu-agent"); err != nil {
		k.t.Errorf("rpm --verify:\n%s", out)
	}
	if out, err := k.try("rpmdb", "--verifydb"); err != nil {
		k.t.Errorf("rpmdb --verifydb:\n%s", out)
	}
	if out := k.run("rpm", "-qa"); strings.Count(out, "\n") > 2 || !strings.Contains(out, "distribution-") {
		k.t.Errorf("rpm has these packages:\n%s", out)
	}
}
