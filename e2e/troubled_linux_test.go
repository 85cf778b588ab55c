package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// slow is a package of somebody else whose installation takes until it is let
// go on.
const slow = `Package: slow
Version: 1
Architecture: all
Maintainer: nobody
Description: takes its time
`

// broken is a package of somebody else that cannot be configured.
const broken = `Package: broken
Version: 1
Architecture: all
Maintainer: nobody
Description: cannot be configured
`

// foreign makes a package of somebody else in the machine.
func (m *machine) foreign(control, postinst string) string {
	m.t.Helper()
	dir := m.t.TempDir()
	m.must(os.Mkdir(filepath.Join(dir, "DEBIAN"), 0o755))
	m.must(os.WriteFile(filepath.Join(dir, "DEBIAN/control"), []byte(control), 0o644))
	m.must(os.WriteFile(filepath.Join(dir, "DEBIAN/postinst"), []byte("#!/bin/sh\n"+postinst), 0o755))
	m.must(os.Chmod(dir, 0o755))
	name := filepath.Join(m.t.TempDir(), strings.Fields(control)[1]+".deb")
	if out, err := exec.CommandContext(m.t.Context(), "dpkg-deb", "--build", "--root-owner-group", dir, name).CombinedOutput(); err != nil {
		m.t.Fatalf("dpkg-deb: %v\n%s", err, out)
	}
	return m.bring(name)
}

// TestTroubledHost installs on hosts whose package manager is busy or has
// troubles of its own, and whose disk is full.
func TestTroubledHost(t *testing.T) {
	m := onMachine(t, func(dir string) { agentPackages(t, dir) })
	if m == nil {
		return
	}
	m.stock()
	k := &kills{machine: m}
	script := m.hostScript("deb")
	k.knowsItsFiles(script)
	do := func(line string) string {
		t.Helper()
		out, _, failed := m.act(line, "", 0)
		if failed {
			t.Fatalf("%s\n%s%s", line, out, m.journal())
		}
		return out
	}
	refused := func(line, reason string) {
		t.Helper()
		if out, _, failed := m.act(line, "", 0); !failed || !strings.Contains(out, "komainu:fail "+reason+" ") {
			t.Errorf("%s should end with %s:\n%s", line, reason, out)
		}
	}

	// Somebody else is at work: they are waited for, or left alone.
	m.run("mkfifo", "/var/cache/go")
	m.run("sh", "-c", "nohup dpkg --install "+m.foreign(slow, "cat /var/cache/go\n")+" >/var/cache/slow.log 2>&1 </dev/null &")
	m.eventually("somebody else configures", func() bool {
		out, _ := m.try("dpkg-query", "-W", "-f", "${db:Status-Status}", "slow")
		return out == "half-configured"
	})
	refused(script.install(thisVersion)+" patience=1", "package_manager_busy")
	m.run("sh", "-c", script.install(thisVersion)+" patience=60 >/var/cache/ours.log 2>&1 &")
	m.eventually("it is said who is waited for", func() bool {
		out, _ := m.try("cat", "/var/cache/ours.log")
		return strings.Contains(out, "komainu:wait dpkg, process ")
	})
	m.run("sh", "-c", "echo go >/var/cache/go")
	m.eventually("the agent is installed afterwards", func() bool {
		out, _ := m.try("cat", "/var/cache/ours.log")
		return strings.Contains(out, "komainu:done "+thisVersion)
	})
	if got := m.run("dpkg-query", "-W", "-f", "${db:Status-Status}", "slow"); got != "installed" {
		t.Errorf("the package of somebody else is %s: %s", got, m.run("cat", "/var/cache/slow.log"))
	}

	// Two at once.
	m.run("sh", "-c", script.install(thisVersion)+" >/var/cache/ours.log 2>&1 & "+strings.Replace(script.install(thisVersion), "exec ", "", 1)+" >/var/cache/theirs.log 2>&1; wait")
	for _, log := range []string{"ours", "theirs"} {
		if out := m.run("cat", "/var/cache/"+log+".log"); !strings.Contains(out, "komainu:done "+thisVersion) {
			t.Errorf("one of two at once:\n%s", out)
		}
	}

	// The disk is full: the old agent stays, and dpkg is healthy.
	for _, megabytes := range []string{"24", "5"} {
		m.run("sh", "-c", `free=$(df -Pm / | awk 'NR == 2 { print $4 }') && fallocate -l $((free - `+megabytes+`))M /var/cache/fill`)
		refused(script.install(nextVersion), "disk_full")
		m.run("rm", "/var/cache/fill")
		if why := k.between(action{from: thisVersion, to: thisVersion}); why != "" {
			t.Errorf("with %s MB: %s", megabytes, why)
		}
		if out := m.run("dpkg", "--audit"); out != "" {
			t.Errorf("with %s MB, dpkg --audit:\n%s", megabytes, out)
		}
		if pack, agent := k.facts(); pack != "installed "+thisVersion || agent != thisVersion {
			t.Errorf("with %s MB, the host has package %q and agent %q", megabytes, pack, agent)
		}
		k.unfinished()
	}

	// Somebody else's package is broken: that is not ours to mend, nor in our way.
	if out, err := m.try("dpkg", "--install", m.foreign(broken, "exit 1\n")); err == nil {
		t.Fatalf("it is not broken:\n%s", out)
	}
	do(script.install(nextVersion))
	if got := m.run("dpkg-query", "-W", "-f", "${db:Status-Status}", "broken"); got != "half-configured" {
		t.Errorf("the broken package has become %s", got)
	}
	do(script.remove(""))
	if got := m.run("dpkg-query", "-W", "-f", "${db:Status-Status}", "broken"); got != "half-configured" {
		t.Errorf("the broken package has become %s", got)
	}
}

// knowsItsFiles compares the files that the script takes away where no package
// manager does with those of the packages.
func (k *kills) knowsItsFiles(script way) {
	k.t.Helper()
	before := k.files()
	// As if dpkg had never heard of them.
	k.run("sh", "-c", "dpkg-deb --extract "+onShelf("deb")(thisVersion)+" / && tar -xzf "+onShelf("tar")(thisVersion)+" -C / --strip-components=2 --wildcards '*/files/*'")
	if d := difference(before, k.files()); len(d) < 10 {
		k.t.Fatalf("this has changed: %q", d)
	}
	if out, _, failed := k.act(script.remove(""), "", 0); failed {
		k.t.Fatal(out)
	}
	if d := difference(before, k.files()); d != nil {
		k.t.Errorf("the script does not take away:\n%s", strings.Join(d, "\n"))
	}
}
