package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"komainu/fault"
)

// Stack is a control plane and an agent of this checkout on this machine,
// both supervised, with everything they keep below one folder.
type Stack struct {
	h   *House
	bin string
	dir string

	URL      string
	Password string // one-time, of a first start; "" later
	control  *Program
	agent    *Program
	logs     []*os.File
	demo     bool // the demo folder is a filesystem of its own
	// elsewhere is the mode of all other filesystems: ignored, so that what
	// other programs of this machine do disturbs no test.
	elsewhere string
	// selfTest says that new machines prove themselves, as they do unless
	// somebody counts alerts.
	selfTest bool
	// through is the URL of a proxy that the agent reaches the control plane
	// by; "" is the direct way.
	through string
	// host is the address that the control plane listens on; "" is loopback.
	host string
	// packages is a folder of packages that the repository is filled from.
	packages string
}

// NewStack returns a stack that is not started.
func NewStack(h *House, bin, dir string) *Stack {
	return &Stack{h: h, bin: bin, dir: dir, elsewhere: "ignore"}
}

// Demo is the folder in which malware is blocked.
func (s *Stack) Demo() string { return filepath.Join(s.dir, "demo") }

// Socket is where the agent's local API listens.
func (s *Stack) Socket() string { return filepath.Join(s.dir, "agent", "agent.sock") }

func (s *Stack) log(name string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Join(s.dir, "log"), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(s.dir, "log", name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err == nil {
		s.logs = append(s.logs, f)
	}
	return f, err
}

// startLimit is how long a program may take until it is ready.
const startLimit = time.Minute

// StartControl starts the control plane on a port and waits until it is
// ready.
func (s *Stack) StartControl(ctx context.Context, port int) error {
	log, err := s.log("control")
	if err != nil {
		return err
	}
	lines := &lineWatch{seen: make(chan string, 16)}
	s.control = s.h.Supervise(ctx, "komainu-control", log, func(ctx context.Context) *exec.Cmd {
		cmd := exec.CommandContext(ctx, filepath.Join(s.bin, "komainu-control"), "run", "--state", filepath.Join(s.dir, "control"), "--listen", fmt.Sprintf("%s:%d", cmp.Or(s.host, "127.0.0.1"), port))
		if s.packages != "" {
			cmd.Args = append(cmd.Args, "--packages", s.packages)
		}
		cmd.Stdout = lines
		return cmd
	})
	limit := time.After(startLimit)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-limit:
			return fault.New(fault.Unavailable, "the control plane is not ready after %s; see %s", startLimit, log.Name())
		case line := <-lines.seen:
			if password, ok := strings.CutPrefix(line, "admin one-time password: "); ok {
				s.Password = password
			}
			if url, ok := strings.CutPrefix(line, "ready "); ok {
				s.URL = url
				return nil
			}
		}
	}
}

// API returns a client with a token that was made on the host.
func (s *Stack) API(ctx context.Context) (*api, error) {
	token, err := s.h.Output(ctx, ".", filepath.Join(s.bin, "komainu-control"), "admin", "token", "--state", filepath.Join(s.dir, "control"))
	if err != nil {
		return nil, err
	}
	return newAPI(s.URL, strings.TrimSpace(token)), nil
}

// MountDemo makes the demo folder.
func (s *Stack) MountDemo() (err error) {
	s.demo, err = mountDemo(s.Demo())
	return err
}

// StartAgent starts the agent and waits until its local API answers.
func (s *Stack) StartAgent(ctx context.Context) error {
	log, err := s.log("agent")
	if err != nil {
		return err
	}
	s.agent = s.h.Supervise(ctx, "komainud", log, func(ctx context.Context) *exec.Cmd {
		return exec.CommandContext(ctx, filepath.Join(s.bin, "komainud"), "run", "--state", filepath.Join(s.dir, "agent"))
	})
	return waitFor(ctx, startLimit, "the agent answers", func() (bool, error) {
		_, err := s.CLI(ctx, "health", "--field", "app_version")
		return err == nil, nil
	})
}

// CLI runs the agent's command line as a user would and returns what it
// prints.
func (s *Stack) CLI(ctx context.Context, args ...string) (string, error) {
	return s.runCLI(ctx, "komainu", args...)
}

func (s *Stack) runCLI(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, name), args...)
	cmd.Env = append(os.Environ(), "KOMAINU_SOCKET="+s.Socket(), "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, tail(string(out), 500))
	}
	return string(out), nil
}

// Enrol brings the agent into an environment, if it is in none.
func (s *Stack) Enrol(ctx context.Context, a *api, environment string) error {
	id, err := s.CLI(ctx, "health", "--field", "edr_machine_id")
	if err == nil && strings.Trim(strings.TrimSpace(id), `"`) != "" {
		return nil
	}
	token, err := a.joinToken(ctx, environment)
	if err == nil && s.through != "" {
		token, err = redirect(token, s.through)
	}
	if err != nil {
		return err
	}
	_, err = s.CLI(ctx, "enrol", token)
	return err
}

// redirect makes a join token lead to another address of the same control
// plane. What it pins stays.
func redirect(token, url string) (string, error) { return editToken(token, "s", url) }

// editToken changes a field of a join token.
func editToken(token, field, value string) (string, error) {
	kind, fields, err := openToken(token)
	if err != nil {
		return "", err
	}
	fields[field] = value
	text, err := json.Marshal(fields)
	if err != nil {
		return "", err
	}
	return kind + "." + base64.RawURLEncoding.EncodeToString(text), nil
}

// tokenField reads a field of a join token.
func tokenField(token, field string) (string, error) {
	_, fields, err := openToken(token)
	return fields[field], err
}

func openToken(token string) (kind string, fields map[string]string, err error) {
	kind, body, _ := strings.Cut(token, ".")
	text, err := base64.RawURLEncoding.DecodeString(body)
	if err != nil {
		return "", nil, fmt.Errorf("join token: %w", err)
	}
	if err := json.Unmarshal(text, &fields); err != nil {
		return "", nil, fmt.Errorf("join token: %w", err)
	}
	return kind, fields, nil
}

// WaitHealthy waits until health says so.
func (s *Stack) WaitHealthy(ctx context.Context) error {
	return waitFor(ctx, startLimit, "the agent is healthy", func() (bool, error) {
		out, err := s.CLI(ctx, "health", "--field", "healthy")
		return err == nil && strings.TrimSpace(out) == "true", nil
	})
}

// Close stops the agent, then the control plane, and unmounts the demo
// folder.
func (s *Stack) Close() error {
	if s.agent != nil {
		s.agent.Stop()
	}
	if s.control != nil {
		s.control.Stop()
	}
	err := unmountDemo(s.Demo())
	for _, f := range s.logs {
		err = errors.Join(err, f.Close())
	}
	s.logs = nil
	return err
}

// PrintLogs shows the ends of the logs.
func (s *Stack) PrintLogs() {
	for _, name := range []string{"control", "agent"} {
		text, err := os.ReadFile(filepath.Join(s.dir, "log", name+".log"))
		if err == nil {
			s.h.Say("--- end of the %s log\n%s", name, tail(string(text), 4000))
		}
	}
}

// lineWatch passes complete lines on to whoever waits for them.
type lineWatch struct {
	mu   sync.Mutex
	rest []byte
	seen chan string
}

// Write implements io.Writer. It never waits: lines that nobody takes are
// dropped.
func (l *lineWatch) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rest = append(l.rest, p...)
	for {
		n, line, err := bufio.ScanLines(l.rest, false)
		if n == 0 || err != nil {
			return len(p), nil
		}
		select {
		case l.seen <- string(line):
		default:
		}
		l.rest = l.rest[n:]
	}
}

var _ io.Writer = (*lineWatch)(nil)

// waitFor asks until it is so.
func waitFor(ctx context.Context, limit time.Duration, what string, ok func() (bool, error)) error {
	deadline := time.After(limit)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		done, err := ok()
		if err != nil || done {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline:
			return fault.New(fault.Unavailable, "waited %s until %s", limit, what)
		case <-tick.C:
		}
	}
}

// wait lets time pass.
func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// freePort returns the port, or the next one that is free.
func freePort(port int) (int, error) {
	for p := port; p < port+100; p++ {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p))
		if err == nil {
			return p, l.Close()
		}
	}
	return 0, fault.New(fault.Exhausted, "no free port from %d to %d", port, port+99)
}
