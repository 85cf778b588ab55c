// Package e2e tries the real programs together: a control plane, an agent and
// its command line, in a mount namespace of their own.
package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"komainu/internal/need"
)

// envStage says that this process is a test in its own mount namespace.
const envStage = "KOMAINU_E2E_STAGE"

// deadline ends a stage whatever hangs in it: with it go the agent and every
// open that waits for it.
var deadline = 8 * time.Minute

// endOrphans ends the children that this process did not start itself. It is
// called when it has none of its own.
func endOrphans(t *testing.T) {
	t.Helper()
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range tasks {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // a thread that has ended
		}
		for field := range strings.FieldsSeq(string(text)) {
			pid, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			_ = unix.Kill(pid, unix.SIGKILL) // it may have ended
			_, _ = unix.Wait4(pid, nil, 0, nil)
		}
	}
}

// onStage runs the test that calls it in a mount namespace of its own, where
// it returns true, and reports the outcome here, where it returns false.
func onStage(t *testing.T) bool {
	t.Helper()
	need.Root(t)
	if os.Getenv(envStage) != "" {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Fatal(err)
		}
		return true
	}
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	// What a stage leaves behind when it is killed, the first process of its
	// machine above all, becomes a child of this process, which ends it.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	defer endOrphans(t)
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "-test.run", "^"+t.Name()+"$", "-test.v", "-test.timeout", deadline.String())
	cmd.Env = append(os.Environ(), envStage+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	out, err := cmd.CombinedOutput()
	t.Log(string(out))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Fatal("the test did not run on its stage")
	}
	return false
}

// stack is a control plane and an agent.
type stack struct {
	t       *testing.T
	bin     string
	dir     string
	demo    string // a filesystem of its own, which is blocked
	url     string
	token   string
	http    *http.Client
	control *exec.Cmd
	agent   *exec.Cmd
}

func newStack(t *testing.T) *stack {
	t.Helper()
	s := &stack{t: t, bin: t.TempDir(), dir: t.TempDir()}
	s.demo = filepath.Join(s.dir, "demo")
	s.build("CGO_ENABLED=0", "komainud", "komainu")
	s.build("CGO_ENABLED=1", "komainu-control")
	s.must(os.Mkdir(s.demo, 0o755))
	s.must(unix.Mount("komainu-e2e", s.demo, "tmpfs", 0, "mode=0777,size=64m"))
	t.Cleanup(func() {
		if err := unix.Unmount(s.demo, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *stack) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *stack) build(cgo string, names ...string) {
	s.t.Helper()
	for _, name := range names {
		cmd := exec.CommandContext(s.t.Context(), "go", "build", "-o", filepath.Join(s.bin, name), "komainu/cmd/"+name)
		cmd.Env = append(os.Environ(), cgo)
		if out, err := cmd.CombinedOutput(); err != nil {
			s.t.Fatalf("%s: %v\n%s", name, err, out)
		}
	}
}

func (s *stack) program(name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(s.t.Context(), filepath.Join(s.bin, name), args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.WaitDelay = 15 * time.Second
	cmd.Stderr = s.log(name)
	return cmd
}

func (s *stack) log(name string) io.Writer {
	f, err := os.OpenFile(filepath.Join(s.dir, name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	s.must(err)
	s.t.Cleanup(func() {
		f.Close()
		if s.t.Failed() {
			text, _ := os.ReadFile(f.Name())
			s.t.Logf("the log of %s ends:\n%s", name, text[max(0, len(text)-6000):])
		}
	})
	return f
}

// startControl starts the control plane; address is "127.0.0.1:0" at first.
func (s *stack) startControl(address string) {
	s.t.Helper()
	s.control = s.program("komainu-control", "run", "--state", filepath.Join(s.dir, "control"), "--listen", address)
	out, err := s.control.StdoutPipe()
	s.must(err)
	s.must(s.control.Start())
	lines := bufio.NewScanner(out)
	s.url = ""
	for s.url == "" && lines.Scan() {
		s.url, _ = strings.CutPrefix(lines.Text(), "ready ")
		if !strings.HasPrefix(lines.Text(), "ready ") {
			s.url = ""
		}
	}
	if s.url == "" {
		s.t.Fatal("the control plane is not ready")
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	if s.token != "" {
		return
	}
	token, err := exec.CommandContext(s.t.Context(), filepath.Join(s.bin, "komainu-control"), "admin", "token", "--state", filepath.Join(s.dir, "control")).Output()
	s.must(err)
	s.token = strings.TrimSpace(string(token))
	ca, err := os.ReadFile(filepath.Join(s.dir, "control", "keys", "ca.pem"))
	s.must(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	s.http = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}, Timeout: 20 * time.Second}
}

func (s *stack) stopControl() {
	s.t.Helper()
	s.must(s.control.Process.Signal(unix.SIGTERM))
	_ = s.control.Wait()
}

func (s *stack) startAgent() {
	s.t.Helper()
	s.agent = s.program("komainud", "run", "--state", filepath.Join(s.dir, "agent"))
	s.must(s.agent.Start())
	s.t.Cleanup(func() {
		_ = s.agent.Process.Signal(unix.SIGTERM)
		_ = s.agent.Wait()
	})
	s.eventually("the agent answers", func() bool {
		_, code := s.cli("health", "--field", "app_version")
		return code == 0
	})
}

// cli runs the agent's command line and returns what it printed, and its exit
// code.
func (s *stack) cli(args ...string) (string, int) {
	s.t.Helper()
	cmd := exec.CommandContext(s.t.Context(), filepath.Join(s.bin, "komainu"), args...)
	cmd.Env = append(os.Environ(), "KOMAINU_SOCKET="+filepath.Join(s.dir, "agent", "agent.sock"), "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		s.t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func (s *stack) eventually(what string, f func() bool) {
	s.t.Helper()
	limit := time.After(40 * time.Second)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-limit:
			out, _ := s.cli("health", "--details")
			s.t.Fatalf("not within 40 s: %s\n%s", what, out)
		case <-tick.C:
		}
	}
}

// api asks the control plane and decodes its answer.
func (s *stack) api(method, path string, body, answer any) {
	s.t.Helper()
	text, err := json.Marshal(body)
	s.must(err)
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, bytes.NewReader(text))
	s.must(err)
	req.Header.Set("Authorization", "Bearer "+s.token)
	req.Header.Set("Content-Type", "application/json")
	res, err := s.http.Do(req)
	s.must(err)
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	s.must(err)
	if res.StatusCode >= 300 {
		s.t.Fatalf("%s %s: %s %s", method, path, res.Status, got)
	}
	if answer != nil {
		s.must(json.Unmarshal(got, answer))
	}
}

// environment returns the id of the first environment.
func (s *stack) environment() string {
	s.t.Helper()
	var list struct{ Items []struct{ ID string } }
	s.api("GET", "/api/v1/environments", nil, &list)
	return list.Items[0].ID
}

// plan switches the plan and says what real-time protection does on the demo
// filesystem. All others are left alone: they belong to the machine.
func (s *stack) plan(on bool, demo string) {
	s.t.Helper()
	path := "/api/v1/environments/" + s.environment() + "/plan"
	var now struct{ Version uint64 }
	s.api("GET", path, nil, &now)
	s.api("PUT", path, map[string]any{"version": now.Version, "servers": on, "filesystems": []map[string]string{{"path": "*", "mode": "ignore"}, {"path": s.demo, "mode": demo}}}, nil)
}

func (s *stack) enrol() {
	s.t.Helper()
	var token struct{ Token string }
	s.api("POST", "/api/v1/environments/"+s.environment()+"/join-tokens", map[string]any{"label": "e2e"}, &token)
	if out, code := s.cli("enrol", token.Token); code != 0 {
		s.t.Fatalf("enrol: %d %s", code, out)
	}
}

func (s *stack) device() string {
	s.t.Helper()
	var list struct{ Items []struct{ ID string } }
	s.api("GET", "/api/v1/devices", nil, &list)
	if len(list.Items) != 1 {
		s.t.Fatalf("%d devices", len(list.Items))
	}
	return list.Items[0].ID
}

// scope waits until real-time protection says that it covers this.
func (s *stack) scope(want string) {
	s.t.Helper()
	s.eventually(fmt.Sprintf("the scope is %q", want), func() bool {
		out, _ := s.cli("health", "--field", "real_time_protection_scope")
		return strings.Contains(out, want)
	})
}
