package localapi

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"komainu/fault"
)

// socketDir returns a folder whose path is short enough for a socket.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "api")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func config(t *testing.T, path string) Config {
	return Config{Path: path, Version: "9", Backend: Backend{Health: &partial{}}, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
}

// serve runs a server until the returned func is called.
func serve(t *testing.T, path string) (stop func()) {
	t.Helper()
	s, err := Open(config(t, path))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

func TestLifeOfTheSocket(t *testing.T) {
	dir := socketDir(t)
	os.Chmod(dir, 0o755)
	path := filepath.Join(dir, "komainu", "agent.sock")
	defer syscall.Umask(syscall.Umask(0o077)) // as under systemd
	stop := serve(t, path)
	fi, err := os.Stat(path)
	if err != nil || fi.Mode().Perm() != 0o666 {
		t.Errorf("socket: %v, %v", fi.Mode(), err)
	}
	if fi, err := os.Stat(filepath.Dir(path)); err != nil || fi.Mode().Perm() != 0o755 {
		t.Errorf("folder: %v, %v", fi.Mode(), err)
	}
	c, err := Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if v := c.Version(); v.Agent != "9" || v.API != API || v.PID != os.Getpid() {
		t.Errorf("%+v", v)
	}
	if r, err := c.Health(t.Context()); err != nil || !r.Healthy {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := Open(config(t, path)); !fault.Is(err, fault.Conflict) {
		t.Errorf("a second agent: %v", err)
	}
	// Without the lock file the living one is found by asking.
	if err := os.Remove(path + ".lock"); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(config(t, path)); !fault.Is(err, fault.Conflict) {
		t.Errorf("a second agent, lock file gone: %v", err)
	}
	stop()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket stays behind: %v", err)
	}
	if _, err := c.Health(t.Context()); !fault.Is(err, fault.Unavailable) {
		t.Errorf("after the end: %v", err)
	}
}

func TestStaleSocketIsReplaced(t *testing.T) {
	path := filepath.Join(socketDir(t), "agent.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false) // as after kill -9
	l.Close()
	if _, err := Dial(t.Context(), path); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "it does not run") {
		t.Errorf("a stale socket: %v", err)
	}
	serve(t, path)()
}

func TestWhatIsNoSocketStays(t *testing.T) {
	path := filepath.Join(socketDir(t), "agent.sock")
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(config(t, path)); !fault.Is(err, fault.Conflict) {
		t.Errorf("%v", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "mine" {
		t.Error("the file is gone")
	}
	// The lock of the attempt is given back.
	os.Remove(path)
	serve(t, path)()
}

func TestPathTooLong(t *testing.T) {
	path := filepath.Join(socketDir(t), strings.Repeat("x", 110))
	if _, err := Open(config(t, path)); !fault.Is(err, fault.Invalid) {
		t.Errorf("Open: %v", err)
	}
	if _, err := Dial(t.Context(), path); !fault.Is(err, fault.Invalid) {
		t.Errorf("Dial: %v", err)
	}
}

func TestStoppedAgentIsNotWaitedForForEver(t *testing.T) {
	path := filepath.Join(socketDir(t), "agent.sock")
	l, err := net.Listen("unix", path) // takes connections and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	helloTimeout = 50 * time.Millisecond
	defer func() { helloTimeout = 5 * time.Second }()
	if _, err := Dial(t.Context(), path); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "no answer") {
		t.Errorf("%v", err)
	}
}

func TestOlderAgent(t *testing.T) {
	path := filepath.Join(socketDir(t), "agent.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(headerVersion, "0.0.1")
		io.WriteString(w, `{"agent":"0.0.1","api":0}`)
	})}
	go srv.Serve(l)
	defer srv.Close()
	if _, err := Dial(t.Context(), path); !fault.Is(err, fault.Unsupported) || !strings.Contains(err.Error(), "0.0.1") {
		t.Errorf("%v", err)
	}
}

// TestRunEndsCallsUnderWay stops a server while a stream is open.
func TestRunEndsCallsUnderWay(t *testing.T) {
	path := filepath.Join(socketDir(t), "agent.sock")
	cfg := config(t, path)
	cfg.Backend.Connectivity = endless{}
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	c, err := Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	err = c.TestConnectivity(t.Context(), func(ConnectivityStep) error { cancel(); return nil })
	if err == nil {
		t.Error("the stream ended as if all were well")
	}
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
}

type endless struct{}

func (endless) TestConnectivity(ctx context.Context, step func(ConnectivityStep) error) error {
	if err := step(ConnectivityStep{Name: "first", OK: true}); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

// childEnv makes this test binary connect to a socket and wait.
const childEnv = "KOMAINU_TEST_CONNECT"

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		c, err := net.Dial("unix", path)
		if err == nil {
			io.Copy(io.Discard, c)
		}
		return
	}
	os.Exit(m.Run())
}

func TestKernelSaysWhoCalls(t *testing.T) {
	dir := socketDir(t)
	path := filepath.Join(dir, "agent.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	l.SetDeadline(time.Now().Add(10 * time.Second))
	os.Chmod(dir, 0o755)
	os.Chmod(path, 0o666)
	accept := func(attr *syscall.SysProcAttr) (Caller, []uint32, int) {
		t.Helper()
		// The child may not be able to read where the test binary lies.
		self, err := os.Open("/proc/self/exe")
		if err != nil {
			t.Fatal(err)
		}
		defer self.Close()
		child := exec.Command("/proc/self/fd/3")
		child.ExtraFiles = []*os.File{self}
		child.Env, child.SysProcAttr = append(os.Environ(), childEnv+"="+path), attr
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		caller, err := callerOn(conn)
		if err != nil {
			t.Fatal(err)
		}
		var groups []uint32
		raw, _ := conn.(*net.UnixConn).SyscallConn()
		raw.Control(func(fd uintptr) { groups = peerGroups(fd) })
		conn.Close()
		child.Wait()
		return caller, groups, child.Process.Pid
	}
	if c, _, pid := accept(nil); int(c.UID) != os.Getuid() || int(c.PID) != pid || !c.Admin {
		t.Errorf("our own user: %+v, child %d", c, pid)
	}
	if os.Getuid() != 0 {
		t.Skip("only root can become another user: the second half of this test")
	}
	many := make([]uint32, 100) // more than fits at the first try
	for i := range many {
		many[i] = uint32(5000 + i)
	}
	c, groups, _ := accept(&syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534, Groups: many}})
	if c.UID != 65534 || c.Admin {
		t.Errorf("another user: %+v", c)
	}
	if !slices.Contains(groups, 5099) {
		t.Errorf("groups of the caller: %v", groups)
	}
}
