package rules_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"komainu/agent/proctree"
	"komainu/agent/rules"
	"komainu/agent/sensor"
	"komainu/content/edrtest"
	"komainu/event"
	"komainu/finding"
	"komainu/internal/need"
)

const inNamespace = "KOMAINU_RULES_NAMESPACE"

// TestMain runs itself again in a mount namespace of its own, so that the
// filesystems of these tests are nobody else's.
func TestMain(m *testing.M) {
	if os.Getenv(inNamespace) != "" || os.Geteuid() != 0 || !need.Wanted("root") {
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// host is a pretend server: the real sensor, tree and rules, and a home on a
// filesystem of its own.
type host struct {
	t     *testing.T
	root  string
	home  string
	mu    sync.Mutex
	found []finding.Finding
	reads []event.Event
	wake  chan struct{}
}

func newHost(t *testing.T, ebpf bool) *host {
	need.Root(t)
	h := &host{t: t, root: t.TempDir(), wake: make(chan struct{}, 1)}
	if err := unix.Mount("test", h.root, "tmpfs", 0, "size=64m,mode=755"); err != nil {
		t.Fatal(err)
	}
	h.home = filepath.Join(h.root, "home", "alice")
	h.write("home/alice/.profile", "")
	h.write("passwd", "alice:x:0:0::"+h.home+":/bin/sh\n")

	tree := proctree.New(proctree.Limits{})
	s, err := sensor.Open(sensor.Config{
		EBPF: ebpf, Lookup: tree.ByPID, Filesystems: []string{h.root},
		Passwd: filepath.Join(h.root, "passwd"), Roots: []string{filepath.Join(h.root, "etc")},
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	want := sensor.EBPF
	if !ebpf {
		want = sensor.Netlink
	}
	if s.Status().Subsystem != want {
		t.Fatalf("status %+v", s.Status())
	}
	engine, err := rules.New(rules.Config{Tree: tree, Classify: sensor.Classify, SecretFolder: sensor.SecretFolder})
	if err != nil {
		t.Fatal(err)
	}
	tree.Seed(s.Snapshot())
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() {
		err := s.Run(ctx, func(ev *event.Event) {
			tree.Apply(ev)
			findings := engine.Observe(ev)
			h.mu.Lock()
			defer h.mu.Unlock()
			if ev.Action == event.SensitiveFileRead {
				h.reads = append(h.reads, *ev)
			}
			for _, f := range findings {
				if strings.HasPrefix(lastFile(f), h.root) {
					h.found = append(h.found, f)
				} else {
					t.Logf("elsewhere on this machine: %s: %s", f.Title, f.Summary)
				}
			}
			select {
			case h.wake <- struct{}{}:
			default:
			}
		})
		if err != nil {
			t.Errorf("sensor: %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		group.Wait()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := unix.Unmount(h.root, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	h.wait("the first search", func() bool { return s.Status().Watch.Searched })
	return h
}

// lastFile is the file whose open completed a finding.
func lastFile(f finding.Finding) string {
	for _, ev := range slices.Backward(f.Events) {
		if ev.File != nil {
			return ev.File.Path
		}
	}
	return ""
}

func (h *host) write(name, content string) {
	h.t.Helper()
	file := filepath.Join(h.root, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// wait waits until a condition holds, for events with every one that comes.
func (h *host) wait(what string, condition func() bool) {
	h.t.Helper()
	deadline := time.After(20 * time.Second)
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for {
		h.mu.Lock()
		ok := condition()
		h.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-h.wake:
		case <-look.C:
		case <-deadline:
			h.mu.Lock()
			defer h.mu.Unlock()
			for _, r := range h.reads {
				h.t.Logf("read %s by %s %q", r.File.Path, r.Initiator.Path, r.Initiator.Args)
			}
			h.t.Fatalf("timed out: %s", what)
		}
	}
}

// settle makes sure that everything before has been observed: a program that
// runs afterwards opens a secret, and that has been seen.
func (h *host) settle() {
	h.t.Helper()
	marker := filepath.Join(h.home, fmt.Sprintf("marker-%d.p12", time.Now().UnixNano()))
	h.write(strings.TrimPrefix(marker, h.root+"/"), "marker")
	h.wait("the end of what was run", func() bool {
		// The watch may still be on its way to the marker: ask again.
		if err := exec.Command("cat", marker).Run(); err != nil {
			h.t.Error(err)
			return true
		}
		return slices.ContainsFunc(h.reads, func(r event.Event) bool { return r.File.Path == marker })
	})
}

// run runs a command as a login of its own would: in a session apart.
func (h *host) run(name string, args ...string) {
	h.t.Helper()
	cmd := exec.CommandContext(h.t.Context(), name, args...)
	cmd.Env = []string{"HOME=" + h.home, "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "TMPDIR=" + h.root}
	cmd.Dir = h.home
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if out, err := cmd.CombinedOutput(); err != nil {
		h.t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

func (h *host) findings() []finding.Finding {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.found)
}

func (h *host) script() string {
	h.write("edr_test_linux.sh", string(edrtest.Script()))
	return filepath.Join(h.root, "edr_test_linux.sh")
}

// secrets fills the home with secrets of every kind and with ordinary files.
func (h *host) secrets() {
	for name, content := range map[string]string{
		".ssh/id_rsa": "k", ".aws/credentials": "k", ".kube/config": "k", ".bash_history": "k", ".pgpass": "k", ".git-credentials": "k",
		"app/.env": "k", "app/server.key": "-----BEGIN PRIVATE KEY-----\n", ".gnupg/private-keys-v1.d/A.key": "k",
	} {
		h.write("home/alice/"+name, content)
	}
	for i := range 20 {
		h.write(fmt.Sprintf("home/alice/documents/%d.txt", i), "text")
	}
	h.settle() // the watch has seen them
}

func TestEDRTestRaisesOneAlert(t *testing.T) {
	for _, c := range []struct {
		name, shell string
		args        []string
		programs    []string // that must be in the process tree
		ebpf        bool
	}{
		{"programs", "sh", nil, []string{"find", "cat", "grep"}, true},
		{"programs_bash", "bash", nil, []string{"find", "cat", "grep"}, true},
		{"python", "sh", []string{"--python"}, nil, true},
		{"builtins_dash", "sh", []string{"--builtins"}, nil, true},
		{"builtins_bash", "bash", []string{"--builtins"}, []string{"bash"}, true},
		{"renamed", "sh", []string{"--renamed"}, []string{"notes"}, true},
		{"netlink", "sh", nil, nil, false},
		{"netlink_builtins", "bash", []string{"--builtins"}, []string{"bash"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHost(t, c.ebpf)
			if c.name == "python" {
				need.Program(t, "python3")
			}
			h.run(c.shell, append([]string{h.script(), "--wait", "1"}, c.args...)...)
			h.settle()
			found := h.findings()
			if len(found) != 1 {
				t.Fatalf("%d findings: %+v; reads %+v", len(found), found, h.reads)
			}
			f := found[0]
			if f.Title != edrtest.Title || f.Severity.String() != edrtest.Severity || f.Rule.ID != "sensitive-enumeration" {
				t.Errorf("found %q, severity %v, by %s", f.Title, f.Severity, f.Rule.ID)
			}
			var tree []string
			for _, p := range f.Tree {
				tree = append(tree, p.Name+" "+strings.Join(p.Args, " "))
			}
			for _, want := range c.programs {
				if !slices.ContainsFunc(f.Tree, func(p event.Process) bool { return p.Name == want }) {
					t.Errorf("no %s in the process tree %q", want, tree)
				}
			}
			if !slices.ContainsFunc(f.Tree, func(p event.Process) bool { return slices.Contains(p.Args, filepath.Join(h.root, "edr_test_linux.sh")) }) {
				t.Errorf("the script is not in the process tree %q", tree)
			}
			files := 0
			for _, e := range f.Evidence {
				if e.File != nil {
					files++
				}
			}
			if files < 4 || len(f.Events) < 4 {
				t.Errorf("%d files and %d events as evidence", files, len(f.Events))
			}
		})
	}
}

func TestEDRTestOfAUser(t *testing.T) {
	h := newHost(t, true)
	const uid = 1000
	script := h.script()
	for dir := h.root; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Chmod(script, 0o755), os.Chown(h.home, uid, uid)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), script, "--wait", "1")
	cmd.Env = []string{"HOME=" + h.home, "PATH=/usr/bin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	h.settle()
	found := h.findings()
	if len(found) != 1 || found[0].Tree[0].User.EUID != uid {
		t.Errorf("found %+v", found)
	}
}

func TestTwoRunsAreTwoAlerts(t *testing.T) {
	h := newHost(t, true)
	script := h.script()
	// One shell starts both, as a person would.
	cmd := exec.CommandContext(t.Context(), "bash", "--norc", "-i")
	cmd.Env = []string{"HOME=" + h.home, "PATH=/usr/bin:/bin", "HISTFILE="}
	cmd.Stdin = strings.NewReader("sh " + script + " --wait 1\nsh " + script + " --wait 1\nsh " + script + " --wait 1 --builtins\nexit 0\n")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	h.settle()
	if found := h.findings(); len(found) != 3 {
		t.Errorf("%d findings of three runs: %+v", len(found), found)
	}
}

func TestReadersWithAReasonRaiseNothing(t *testing.T) {
	for _, c := range []struct {
		name string
		run  func(h *host)
	}{
		{"tar_from_cron", func(h *host) {
			h.write("backup.sh", "tar -C "+h.root+" -czf "+h.root+"/backup.tgz home\n")
			h.run("sh", filepath.Join(h.root, "backup.sh"))
		}},
		{"tar_by_hand", func(h *host) { h.run("tar", "-cf", filepath.Join(h.root, "b.tar"), h.home) }},
		{"copy", func(h *host) { h.run("cp", "-a", h.home, filepath.Join(h.root, "copy")) }},
		{"configuration_management", func(h *host) {
			// A module is sent over and run for each task, as root.
			for i, name := range []string{".ssh/id_rsa", ".aws/credentials", ".kube/config", ".pgpass", "app/.env", "app/server.key"} {
				module := fmt.Sprintf("root/.ansible/tmp/ansible-tmp-%d/AnsiballZ_copy.py", i)
				h.write(module, "import sys\nopen(sys.argv[1]).read()\n")
				h.run("/usr/bin/python3", filepath.Join(h.root, module), filepath.Join(h.home, name))
			}
		}},
		{"provisioning", func(h *host) { // secrets are written, not looked for
			h.write("provision.sh", `cd "$HOME"
for name in .ssh/id_ed25519 .aws/credentials .kube/config .pgpass .git-credentials app/.env; do
	mkdir -p "new/$(dirname $name)"; echo secret > "new/$name"; echo more >> "new/$name"; chmod 600 "new/$name"; mv "new/$name" "$name"
done
`)
			h.run("sh", filepath.Join(h.root, "provision.sh"))
		}},
		{"updatedb", func(h *host) { h.run("find", h.home, "-newermt", "2000-01-01") }}, // it reads names and times, no content
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.name == "configuration_management" {
				need.Program(t, "/usr/bin/python3")
			}
			h := newHost(t, true)
			h.secrets()
			c.run(h)
			h.settle()
			if found := h.findings(); len(found) != 0 {
				t.Errorf("found %q: %s", found[0].Title, found[0].Summary)
			}
		})
	}
}

func TestCopierThatIsPointedAtSecretsIsFound(t *testing.T) {
	h := newHost(t, true)
	h.secrets()
	h.run("tar", "-cf", filepath.Join(h.root, "loot.tar"), ".ssh", ".aws", ".kube", ".git-credentials", ".pgpass", "app/.env")
	h.settle()
	if found := h.findings(); len(found) != 1 {
		t.Errorf("%d findings", len(found))
	}
}
