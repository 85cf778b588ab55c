package sensor_test

import (
	"context"
	"fmt"
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
	"komainu/agent/sensor"
	"komainu/event"
	"komainu/health"
	"komainu/internal/need"
)

const (
	inNamespace = "KOMAINU_SENSOR_NAMESPACE"
	asNobody    = "KOMAINU_SENSOR_NOBODY"
)

// TestMain runs itself again in a mount namespace of its own, so that the
// filesystems of these tests are nobody else's.
func TestMain(m *testing.M) {
	if os.Getenv(asNobody) != "" {
		os.Exit(reportStatus())
	}
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

// reportStatus opens a sensor and prints what it says of itself.
func reportStatus() int {
	s, err := sensor.Open(sensor.Config{EBPF: true, Filesystems: []string{"/"}})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer s.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Run(ctx, func(*event.Event) {}); err != nil {
		fmt.Println(err)
		return 1
	}
	st := s.Status()
	fmt.Printf("%s|%s|%v", st.Subsystem, st.Reason, st.Conditions(time.Now())[0].State)
	return 0
}

// watched is a sensor on filesystems of its own.
type watched struct {
	t    *testing.T
	root string
	s    *sensor.Sensor
	own  map[event.PID]bool

	mu      sync.Mutex
	events  []event.Event
	changed chan struct{}
}

func tmpfs(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	if err := unix.Mount("test", root, "tmpfs", 0, "size=16m,mode=755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(root, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return root
}

func watch(t *testing.T, cfg sensor.Config) *watched {
	t.Helper()
	need.Root(t)
	w := &watched{t: t, root: tmpfs(t), changed: make(chan struct{}), own: map[event.PID]bool{}}
	passwd := filepath.Join(t.TempDir(), "passwd")
	if err := os.WriteFile(passwd, []byte("root:x:0:0::"+w.root+"/home:/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.write("home/.ssh/id_rsa", "before")
	tree := proctree.New(proctree.Limits{})
	cfg.Lookup, cfg.Passwd, cfg.Roots = tree.ByPID, passwd, []string{filepath.Join(w.root, "etc")}
	if cfg.Filesystems == nil {
		cfg.Filesystems = []string{w.root}
	}
	cfg.Own = func(pid event.PID) bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return int(pid) == os.Getpid() || w.own[pid]
	}
	s, err := sensor.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w.s = s
	tree.Seed(s.Snapshot())
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() {
		err := s.Run(ctx, func(ev *event.Event) {
			tree.Apply(ev)
			w.mu.Lock()
			defer w.mu.Unlock()
			w.events = append(w.events, *ev)
			close(w.changed)
			w.changed = make(chan struct{})
		})
		if err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		group.Wait()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	w.until("the first search", func() bool { return s.Status().Watch.Searched })
	return w
}

func (w *watched) write(name, content string) string {
	w.t.Helper()
	file := filepath.Join(w.root, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return file
}

// until waits for a condition of the sensor or of its events.
func (w *watched) until(what string, condition func() bool) {
	w.t.Helper()
	deadline := time.After(10 * time.Second)
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for {
		if condition() {
			return
		}
		w.mu.Lock()
		changed := w.changed
		w.mu.Unlock()
		select {
		case <-changed:
		case <-look.C:
		case <-deadline:
			w.t.Fatalf("timed out: %s; status %+v", what, w.s.Status())
		}
	}
}

// reads returns the opens that were reported of a file.
func (w *watched) reads(file string) []event.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	var found []event.Event
	for _, ev := range w.events {
		if ev.Action == event.SensitiveFileRead && ev.File.Path == file {
			found = append(found, ev)
		}
	}
	return found
}

// noticed lets another program read a file until that is reported: the watch
// may still be on its way to a file that is new.
func (w *watched) noticed(file string, class event.Sensitivity) event.Event {
	w.t.Helper()
	w.until(file, func() bool {
		w.run("cat", file)
		return len(w.reads(file)) != 0
	})
	ev := w.reads(file)[0]
	if ev.File.Sensitive != class || ev.Initiator.Name != "cat" || !slices.Equal(ev.Initiator.Args, []string{"cat", file}) || ev.File.Inode == 0 {
		w.t.Errorf("%s: %+v by %+v", file, ev.File, ev.Initiator)
	}
	return ev
}

func (w *watched) run(name string, args ...string) event.PID {
	w.t.Helper()
	cmd := exec.CommandContext(w.t.Context(), name, args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		w.t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return event.PID(cmd.Process.Pid)
}

// settle waits until everything before has been reported.
func (w *watched) settle() {
	w.t.Helper()
	w.noticed(w.write(fmt.Sprintf("home/%d.p12", time.Now().UnixNano()), "x"), event.TLSPrivateKey)
}

func TestSensitiveFilesAreNoticed(t *testing.T) {
	w := watch(t, sensor.Config{EBPF: true})
	w.noticed(filepath.Join(w.root, "home/.ssh/id_rsa"), event.SSHPrivateKey)
	for name, class := range map[string]event.Sensitivity{
		"new/.aws/credentials": event.CloudCredentials,
		"srv/app/.env":         event.AppSecrets,
		"etc/shadow":           event.PasswordHashes,
	} {
		w.noticed(w.write(name, "x"), class)
	}
	// A key is known by its content, which comes after its name.
	w.noticed(w.write("srv/key.pem", "-----BEGIN PRIVATE KEY-----\n"), event.TLSPrivateKey)
	certificate := w.write("srv/cert.pem", "-----BEGIN CERTIFICATE-----\n")
	w.run("cat", certificate)
	// A name can come by a move, and a file by any of its names.
	moved := filepath.Join(w.root, "srv/id_ed25519")
	if err := os.Rename(w.write("srv/plain", "x"), moved); err != nil {
		t.Fatal(err)
	}
	w.noticed(moved, event.SSHPrivateKey)
	link := filepath.Join(w.root, "srv/innocent")
	if err := os.Link(moved, link); err != nil {
		t.Fatal(err)
	}
	w.until("a read by another name", func() bool {
		w.run("cat", link)
		return len(w.reads(link)) != 0
	})
	w.settle()
	if n := len(w.reads(certificate)); n != 0 {
		t.Errorf("a certificate was reported %d times", n)
	}
}

func TestReadsAreToldFromWrites(t *testing.T) {
	need.Program(t, "python3")
	w := watch(t, sensor.Config{EBPF: true})
	file := w.write("home/.pgpass", "x")
	w.noticed(file, event.DatabaseSecrets)
	writes := w.run("sh", "-c", "echo new > "+file+"; echo more >> "+file)
	maps := w.run("python3", "-c", "import mmap,sys,os; f=os.open(sys.argv[1],os.O_RDONLY); mmap.mmap(f,0,prot=mmap.PROT_READ)[:]", file)
	w.until("the read through memory", func() bool {
		return slices.ContainsFunc(w.reads(file), func(ev event.Event) bool { return ev.Initiator.Key.PID == maps })
	})
	both := w.run("python3", "-c", "import sys; open(sys.argv[1],'r+').read()", file)
	w.settle()
	by := func(pid event.PID) int {
		n := 0
		for _, ev := range w.reads(file) {
			if ev.Initiator.Key.PID == pid {
				n++
			}
		}
		return n
	}
	if by(writes) != 0 || by(maps) != 1 || by(both) != 1 {
		t.Errorf("reported %d writes, %d reads through memory, %d reads of a file that is open for both", by(writes), by(maps), by(both))
	}
}

func TestOpensOfTheAgentAreLeftOut(t *testing.T) {
	w := watch(t, sensor.Config{EBPF: true})
	file := filepath.Join(w.root, "home/.ssh/id_rsa")
	before := w.s.Status().Counters.Own
	if _, err := os.ReadFile(file); err != nil {
		t.Fatal(err)
	}
	w.until("the count", func() bool { return w.s.Status().Counters.Own > before })
	w.settle()
	if n := len(w.reads(file)); n != 0 {
		t.Errorf("%d reads of its own", n)
	}
}

func TestOneReaderIsReportedOnce(t *testing.T) {
	w := watch(t, sensor.Config{EBPF: true})
	file := filepath.Join(w.root, "home/.ssh/id_rsa")
	pid := w.run("sh", "-c", "i=0; while [ $i -lt 50 ]; do read x < "+file+"; i=$((i+1)); done; true")
	w.settle()
	n := 0
	for _, ev := range w.reads(file) {
		if ev.Initiator.Key.PID == pid {
			n++
		}
	}
	if n == 0 || n > 5 { // the kernel merges some, the watch counts the others
		t.Errorf("50 reads were reported %d times", n)
	}
}

func TestFilesystemsComeAndGo(t *testing.T) {
	w := watch(t, sensor.Config{EBPF: true})
	other := tmpfs(t)
	secret := filepath.Join(other, ".env")
	if err := os.WriteFile(secret, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.run("cat", secret)
	w.s.SetFilesystems([]string{w.root, other})
	w.until("the other filesystem", func() bool { return slices.Contains(w.s.Status().Watch.Filesystems, other) })
	again := filepath.Join(other, ".netrc")
	if err := os.WriteFile(again, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.noticed(again, event.TokenStore)
	if n := len(w.reads(secret)); n != 0 {
		t.Errorf("%d reads on a filesystem that was not watched", n)
	}
	// Being watched keeps nobody from unmounting it.
	if err := unix.Mount("test", filepath.Join(other), "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	w.s.SetFilesystems([]string{w.root, other})
	w.until("the search", func() bool { return w.s.Status().Watch.Searched })
	w.settle()
	if err := unix.Unmount(other, 0); err != nil {
		t.Errorf("unmount a watched filesystem: %v", err)
	}
	// A filesystem that cannot tell of new names is a limit of the kernel.
	w.s.SetFilesystems([]string{w.root, "/proc"})
	w.until("the limit", func() bool { return strings.Contains(w.s.Status().Watch.Limits, "/proc") })
	if c := w.s.Status().Conditions(time.Now()); c[1].State != health.OK || c[1].Code != health.KernelLimits {
		t.Errorf("%+v", c[1])
	}
	w.s.SetFilesystems([]string{w.root, "/does/not/exist"})
	w.until("the reason", func() bool { return strings.Contains(w.s.Status().Watch.Reason, "/does/not/exist") })
	if c := w.s.Status().Conditions(time.Now()); c[1].State != health.Degraded {
		t.Errorf("%+v", c[1])
	}
}

func TestExecutablesAreHashed(t *testing.T) {
	w := watch(t, sensor.Config{EBPF: true, HashExecutables: true})
	w.until("a hash", func() bool {
		pid := w.run("cat", "/dev/null")
		w.settle()
		w.mu.Lock()
		defer w.mu.Unlock()
		return slices.ContainsFunc(w.events, func(ev event.Event) bool {
			return ev.Action == event.ProcessCreated && !sensor.IsFork(&ev) && ev.Process.Key.PID == pid && len(ev.Process.Image.Hashes.SHA256) == 64
		})
	})
}

func TestNetlinkTakesOver(t *testing.T) {
	w := watch(t, sensor.Config{})
	st := w.s.Status()
	if st.Subsystem != sensor.Netlink || st.Network || !strings.Contains(st.Reason, "switched off") || st.Conditions(time.Now())[0].State != health.Degraded {
		t.Errorf("%+v", st)
	}
	file := filepath.Join(w.root, "home/.ssh/id_rsa")
	args := []string{"sh", "-c", "read x < " + file + "; sleep 0.3; true"} // long enough for /proc to be read
	pid := w.run(args[0], args[1:]...)
	w.until("the read", func() bool { return len(w.reads(file)) != 0 })
	if p := w.reads(file)[0].Initiator; p.Key.PID != pid || !p.Key.Inexact || !slices.Equal(p.Args, args) {
		t.Errorf("read by %+v", p)
	}
}

func TestWithoutPrivilegesItSaysWhatIsMissing(t *testing.T) {
	need.Root(t)
	exe := filepath.Join(t.TempDir(), "test") // where nobody can reach it
	content, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(exe, content, 0o755); err != nil {
		t.Fatal(err)
	}
	for dir := filepath.Dir(exe); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), asNobody+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	// Since Linux 6.6 everybody may listen to the process connector.
	subsystem, reason, _ := strings.Cut(string(out), "|")
	if err != nil || subsystem == string(sensor.EBPF) || !strings.Contains(reason, "eBPF: needs root") || strings.HasSuffix(reason, "|ok") {
		t.Errorf("%v: %s", err, out)
	}
}
