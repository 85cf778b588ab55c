package cli_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"komainu/agent/cli"
	"komainu/agent/localapi"
	"komainu/fault"
)

// command is the command line as a process of its own, except that it
// reports progress without waiting.
func command() {
	os.Exit(cli.Run(context.Background(), cli.Env{
		Args: os.Args, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Version: "1.2.3",
	}))
}

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"komainu": command, "mdatp": command})
}

// TestScripts runs the transcripts in testdata/script, each against a server
// of its own. Beyond the usual commands they have
//
//	run CODE command [arg...]   runs it and checks its exit code
//	agent stop|start|...        steers the agent
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		UpdateScripts:       os.Getenv("KOMAINU_UPDATE") != "",
		Setup: func(env *testscript.Env) error {
			a := &agent{fakeAgent: newFakeAgent(), log: slog.New(slog.NewTextHandler(io.Discard, nil))}
			// The folder of a script may be deeper than the path of a socket.
			dir, err := os.MkdirTemp("", "cli")
			if err != nil {
				return err
			}
			a.socket = filepath.Join(dir, "agent.sock")
			env.Defer(func() { a.stop(); os.RemoveAll(dir) })
			env.Values["agent"] = a
			env.Setenv("KOMAINU_SOCKET", a.socket)
			env.Setenv("TZ", "UTC")
			env.Setenv("GORACE", "atexit_sleep_ms=0") // else every command takes a second under -race
			return a.start()
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"run": run,
			"agent": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(ts.Value("agent").(*agent).steer(args[0]))
			},
		},
	})
}

func run(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: run CODE command [arg...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("run %s: %v", args[1], err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("%s ended with %d, want %d", strings.Join(args[1:], " "), got, want)
	}
}

// agent is a fake agent with its server.
type agent struct {
	*fakeAgent
	socket string
	log    *slog.Logger
	cancel context.CancelFunc
	done   chan error
}

func (a *agent) start() error {
	s, err := localapi.Open(localapi.Config{Path: a.socket, Version: "1.2.3", Backend: a.backend(), Log: a.log})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	a.cancel, a.done = cancel, make(chan error, 1)
	go func() { a.done <- s.Run(ctx) }()
	return nil
}

func (a *agent) stop() error {
	if a.cancel == nil {
		return nil
	}
	a.cancel()
	a.cancel = nil
	return <-a.done
}

func (a *agent) steer(what string) error {
	switch what {
	case "stop":
		return a.stop()
	case "start":
		return a.start()
	}
	defer a.lock()()
	switch what {
	case "needs-root":
		a.refuse = fault.New(fault.NeedsRoot, "this needs root, or membership of the group komainu")
	case "empty":
		a.threats, a.quarantine, a.managed.Exclusions = nil, nil, nil
	case "hold-scans":
		a.hold, a.scan = true, newFakeAgent().scan[:3]
	case "fail-scans":
		a.scan = []localapi.ScanJob{{State: localapi.ScanFailed, FilesScanned: 7, Error: "the scanner does not answer"}}
	case "offline":
		a.refuse = fault.New(fault.Unavailable, "cannot reach control.example:8443: connection refused")
	case "may-not-leave":
		a.refuse = fault.New(fault.Denied, "the control plane refuses: hosts of this environment may not offboard themselves")
	case "friendly":
		a.refuse = nil
	case "unreachable-control":
		a.steps[1].OK, a.steps[1].Detail = false, "connection refused; is the control plane running?"
		a.steps = append(a.steps, localapi.ConnectivityStep{Name: "clock", Target: "https://control.example:8443", Skipped: true})
	default:
		return fmt.Errorf("agent %s: no such thing", what)
	}
	return nil
}

// TestInterruptCancels starts a scan that does not end by itself and
// interrupts the command.
func TestInterruptCancels(t *testing.T) {
	dir, err := os.MkdirTemp("", "cli")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	a := &agent{fakeAgent: newFakeAgent(), socket: filepath.Join(dir, "agent.sock"), log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	a.steer("hold-scans")
	if err := a.start(); err != nil {
		t.Fatal(err)
	}
	defer a.stop()
	ctx, cancel := context.WithCancel(t.Context())
	out := &trigger{on: "90 file(s)", do: cancel}
	var stderr bytes.Buffer
	code := cli.Run(ctx, cli.Env{Args: []string{"komainu", "scan", "quick"}, Stdout: out, Stderr: &stderr, Version: "1.2.3",
		Getenv: func(k string) string { return map[string]string{"KOMAINU_SOCKET": a.socket}[k] }})
	if code != fault.ExitFailed || !strings.Contains(stderr.String(), "cancelled") {
		t.Errorf("exit %d, %q", code, stderr.String())
	}
	select {
	case <-a.cancelled:
	default:
		t.Error("the scan goes on in the agent")
	}
}

// trigger does something once the output holds a text.
type trigger struct {
	bytes.Buffer
	on string
	do func()
}

func (w *trigger) Write(p []byte) (int, error) {
	n, err := w.Buffer.Write(p)
	if strings.Contains(w.String(), w.on) {
		w.do()
	}
	return n, err
}

// TestTerminal checks what differs on a terminal: a bar for progress that is
// gone at the end, aligned tables, indented JSON.
func TestTerminal(t *testing.T) {
	dir, err := os.MkdirTemp("", "cli")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	a := &agent{fakeAgent: newFakeAgent(), socket: filepath.Join(dir, "agent.sock"), log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	if err := a.start(); err != nil {
		t.Fatal(err)
	}
	defer a.stop()
	on := func(args ...string) string {
		var out, stderr bytes.Buffer
		code := cli.Run(t.Context(), cli.Env{Args: slices.Concat([]string{"komainu", "--socket", a.socket}, args), Stdout: &out, Stderr: &stderr,
			Getenv: func(string) string { return "" }, Version: "1.2.3", Terminal: true})
		if code != 0 {
			t.Errorf("%v ended with %d: %s", args, code, stderr.String())
		}
		return out.String()
	}
	if got := on("scan", "full"); !strings.Contains(got, "Scanning") || !strings.Contains(got, "\r") || !strings.HasSuffix(got, "\t1 threat(s) detected\n") {
		t.Errorf("progress on a terminal: %q", got)
	}
	if got := on("scan", "list"); !strings.Contains(got, "scan-1  full  completed  ") {
		t.Errorf("table on a terminal: %q", got)
	}
	if got := on("version", "-o", "json"); !strings.Contains(got, "\n  \"agent\": \"1.2.3\"") {
		t.Errorf("JSON on a terminal: %q", got)
	}
}
