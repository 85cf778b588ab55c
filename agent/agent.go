package agent

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"komainu/agent/realtime"
	"komainu/agent/scan"
	"komainu/fault"
)

// envState and envSocket hand the guardian's flags to the other roles.
const (
	envState  = "KOMAINU_STATE"
	envSocket = "KOMAINU_AGENT_SOCKET"
)

// Main is the command komainud. It returns the exit code.
func Main(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := dispatch(ctx, args, os.Stdout)
	if code, ok := errors.AsType[notStarted](err); ok {
		return int(code) // the worker has said why
	}
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "komainud:", err)
	}
	if errors.Is(err, flag.ErrHelp) {
		return fault.ExitUsage
	}
	return fault.Exit(err)
}

// notStarted is the exit code of an agent whose worker could not start; the
// worker adds notStartedBase, so that the guardian can tell it from a worker
// that ended later, and ends with the same code itself.
type notStarted int

const notStartedBase = 64

func (n notStarted) Error() string { return "the agent could not start" }

func giveUp(exit int) error {
	if exit <= notStartedBase || exit >= 2*notStartedBase {
		return nil
	}
	return notStarted(exit - notStartedBase)
}

const usage = `komainud is the agent of a protected server.

usage:
  komainud run [--state DIR] [--socket FILE] [--log-level LEVEL]
  komainud upgrade [--state DIR]
  komainud version

upgrade goes on with an upgrade that the agent has prepared, until it has ended
one way or the other; its unit, komainu-upgrade, does it. run stays in the foreground; a supervisor (systemd) starts it again when it
ends. Use the command komainu to talk to it.
`

func dispatch(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 {
		fmt.Fprint(os.Stderr, usage)
		return flag.ErrHelp
	}
	switch args[0] {
	case "run":
		return run(ctx, args[1:])
	case "version", "--version":
		fmt.Fprintln(out, Version)
		return nil
	case "help", "-h", "--help":
		fmt.Fprint(out, usage)
		return nil
	case "broker":
		log, _ := newLog("broker")
		dropPrivileges(log, brokerNeeds)
		return realtime.RunBroker(ctx, log)
	case "scanner":
		return scan.Serve(os.NewFile(scan.Socket, "socket"))
	case "upgrade":
		return runUpgrade(ctx, args[1:])
	case "exercise":
		return runExercise(args[1:], os.Stdin, out)
	case "worker":
		if err := runWorker(ctx, configOfRole()); err != nil {
			fmt.Fprintln(os.Stderr, "komainud:", err)
			return notStarted(notStartedBase + fault.Exit(err))
		}
		return nil
	default:
		fmt.Fprint(os.Stderr, usage)
		return fault.New(fault.Invalid, "no command %q", args[0])
	}
}

// newLog writes structured lines to standard error, where systemd and people
// read them.
func newLog(role string) (*slog.Logger, *slog.LevelVar) {
	level := new(slog.LevelVar)
	if err := level.UnmarshalText([]byte(os.Getenv("KOMAINU_LOG"))); err != nil {
		level.Set(slog.LevelInfo)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})).With("role", role), level
}

func configOfRole() Config {
	log, level := newLog("worker")
	return Config{State: os.Getenv(envState), Socket: os.Getenv(envSocket), Log: log, Level: level}
}

// run is the main process: the guardian, or the worker alone where this host
// lets it guard nothing.
func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("komainud run", flag.ContinueOnError)
	state := flags.String("state", DefaultState, "folder for the agent's state")
	socket := flags.String("socket", "", "socket of the local API (default: /run/komainu/agent.sock, or agent.sock in a state folder that was moved)")
	level := flags.String("log-level", "info", "debug, info, warn or error")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return fault.New(fault.Invalid, "%w", err)
	}
	if flags.NArg() != 0 {
		return fault.New(fault.Invalid, "run takes no arguments, only flags: %q", flags.Args())
	}
	if *socket == "" {
		*socket = socketFor(*state)
	}
	for key, value := range map[string]string{envState: *state, envSocket: *socket, "KOMAINU_LOG": *level} {
		if err := os.Setenv(key, value); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(*state, 0o700); err != nil {
		return fault.Wrap(fault.NeedsRoot, err, "make the state folder %s; run as root, or use --state", *state)
	}
	log, _ := newLog("guardian")
	unlock, err := lockState(*state)
	if err != nil {
		return err
	}
	defer unlock()
	dropPrivileges(log, workerNeeds) // which its worker inherits
	err = realtime.Guard(ctx, realtime.GuardConfig{Command: roleCommand, GiveUp: giveUp, Log: log})
	if fault.Is(err, fault.NeedsRoot) || fault.Is(err, fault.Unsupported) {
		log.Warn("running without real-time protection", "reason", err)
		cfg := configOfRole()
		cfg.NoGuardian = err
		if err := tellAlone(ctx); err != nil {
			log.Warn("systemd does not hear of this agent", "error", err)
		}
		return runWorker(ctx, cfg)
	}
	return err
}

// roleCommand returns the command of a role: this binary again, so that what
// runs is what was started even while a package replaces the file.
func roleCommand(role string) *exec.Cmd {
	path := "/proc/self/exe"
	if _, err := os.Stat(path); err != nil {
		path, _ = os.Executable() // not Linux; empty on an error, which Start reports
	}
	cmd := exec.Command(path, role)
	cmd.Args[0] = "komainud"
	cmd.Stderr = os.Stderr
	return cmd
}
