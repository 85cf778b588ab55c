package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"komainu/dev/farm"
	"komainu/internal/need"
)

// machine is a Debian that systemd has booted in a container, in memory and
// without a network.
type machine struct {
	t       *testing.T
	root    string // its files, seen from here
	init    int    // its first process
	cmd     *exec.Cmd
	booted  bool
	console bytes.Buffer
}

// debian returns a folder with a Debian that only lacks our packages. It is
// made once for a checkout, from Debian's mirror.
func debian(t *testing.T, packages ...string) string {
	t.Helper()
	need.Program(t, "debootstrap")
	need.Program(t, "systemd-nspawn")
	house, err := filepath.Abs("../.komainu")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := farm.Base(t.Context(), house)
	if err == nil && len(packages) > 0 {
		dir, err = farm.With(t.Context(), dir, packages...)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// boot starts a copy of a Debian. The test stands in a mount namespace of its
// own.
//
// The machine is a filesystem of its own, and what systemd-nspawn lends it of
// this host is taken away again: an agent in it can mark no file that belongs
// to anybody else.
func boot(t *testing.T, base string) *machine {
	t.Helper()
	m := &machine{t: t, root: t.TempDir()}
	m.must(unix.Mount("komainu-machine", m.root, "tmpfs", 0, "mode=0755,size=2g"))
	t.Cleanup(func() {
		if err := unix.Unmount(m.root, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if out, err := exec.CommandContext(t.Context(), "cp", "-a", base+"/.", m.root).CombinedOutput(); err != nil {
		t.Fatalf("copy Debian: %v\n%s", err, out)
	}
	m.start()
	t.Cleanup(m.powerOff)
	return m
}

// start powers the machine on.
func (m *machine) start() {
	m.t.Helper()
	// The context of a test ends before its cleanup: it must not kill what
	// takes the machine down.
	m.cmd = exec.CommandContext(context.WithoutCancel(m.t.Context()), "systemd-nspawn", "--directory="+m.root, "--register=no", "--keep-unit", "--boot",
		fmt.Sprintf("--machine=komainu-%d", os.Getpid()), "--console=read-only", "--private-network", "--resolv-conf=off", "--timezone=off", "--link-journal=no",
		"--system-call-filter=fanotify_init fanotify_mark bpf perf_event_open",
		"--capability=CAP_SYS_ADMIN,CAP_BPF,CAP_PERFMON,CAP_NET_ADMIN,CAP_SYS_RESOURCE,CAP_SYS_PTRACE")
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	m.cmd.Stdout, m.cmd.Stderr = &m.console, &m.console
	m.init, m.booted = 0, false
	m.must(m.cmd.Start())
	children := fmt.Sprintf("/proc/%d/task/%d/children", m.cmd.Process.Pid, m.cmd.Process.Pid)
	m.eventually("the machine has booted", func() bool {
		text, err := os.ReadFile(children)
		if err != nil {
			return false
		}
		m.init, err = strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			m.init = 0
			return false
		}
		state, _ := m.try("systemctl", "is-system-running")
		return strings.TrimSpace(state) == "running" || strings.TrimSpace(state) == "degraded"
	})
	m.booted = true
	m.run("sh", "-c", "for m in $(grep ' /run/host/' /proc/mounts | cut -d' ' -f2); do umount $m; done; ! grep ' /run/host/' /proc/mounts")
}

// powerOff has the machine end in order.
func (m *machine) powerOff() {
	_ = m.cmd.Process.Signal(unix.SIGTERM)
	limit := time.AfterFunc(20*time.Second, func() {
		if m.init != 0 {
			_ = unix.Kill(m.init, unix.SIGKILL) // all that is in the machine goes with it
		}
		_ = m.cmd.Process.Kill()
	})
	defer limit.Stop()
	_ = m.cmd.Wait() // its exit code says how the machine ended
	if m.init != 0 && unix.Kill(m.init, 0) == nil {
		_ = unix.Kill(m.init, unix.SIGKILL)
		m.t.Error("the machine outlived its test")
	}
	if m.t.Failed() && !m.booted {
		m.t.Logf("the console ends:\n%s", m.console.Bytes()[max(0, m.console.Len()-3000):])
	}
}

func (m *machine) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

// try runs a program in the machine.
func (m *machine) try(args ...string) (string, error) {
	args = append([]string{"-t", strconv.Itoa(m.init), "-m", "-u", "-i", "-n", "-p", "--"}, args...)
	cmd := exec.CommandContext(m.t.Context(), "nsenter", args...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// run is try for what must go well.
func (m *machine) run(args ...string) string {
	m.t.Helper()
	out, err := m.try(args...)
	if err != nil {
		m.t.Fatalf("%q: %v\n%s%s", args, err, out, m.journal())
	}
	return out
}

// journal is what our services have said last.
func (m *machine) journal() string {
	out, _ := m.try("journalctl", "--no-pager", "-n", "40", "-u", "komainu-control", "-u", "komainu-agent")
	return "the journal ends:\n" + out
}

func (m *machine) eventually(what string, f func() bool) {
	m.t.Helper()
	limit := time.After(60 * time.Second)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-limit:
			m.t.Fatalf("not within 60 s: %s\n%s", what, m.journal())
		case <-tick.C:
		}
	}
}

// bring copies a file into the machine and returns its name there.
func (m *machine) bring(file string) string {
	m.t.Helper()
	text, err := os.ReadFile(file)
	m.must(err)
	inside := filepath.Join("/var/cache", filepath.Base(file))
	m.must(os.WriteFile(filepath.Join(m.root, inside), text, 0o644))
	return inside
}

// install installs a package that is not in the machine yet.
func (m *machine) install(file string) string {
	m.t.Helper()
	return m.run("dpkg", "--install", m.bring(file))
}

// state is what systemd says of a service.
func (m *machine) state(service string) string {
	out, _ := m.try("systemctl", "is-active", service) // it fails for a service that is not
	return strings.TrimSpace(out)
}

// property is one property of a service.
func (m *machine) property(service, name string) string {
	m.t.Helper()
	return strings.TrimSpace(m.run("systemctl", "show", "--value", "--property", name, service))
}
