package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"komainu/fault"
	"komainu/health"
)

// Hostile gives the real binaries what they must not be given: tokens of every
// wrong kind, clocks that are days off, frames and bodies that make no sense,
// disks without room, state of a version to come. Each has to be answered with
// a message and an exit code of its own, and leaves nothing half done.

// hostileInside marks the run that has a mount namespace of its own.
const hostileInside = "KOMAINU_HOSTILE_INSIDE"

func hostile(ctx context.Context, h *House, args []string) error {
	if len(args) != 0 {
		return fault.New(fault.Invalid, "hostile takes no arguments")
	}
	if os.Geteuid() != 0 {
		return fault.New(fault.NeedsRoot, "small filesystems can be mounted by root only")
	}
	if os.Getenv(hostileInside) == "" {
		return hostileApart(ctx, h)
	}
	return runHostile(ctx, h)
}

func hostilePhase(ctx context.Context, h *House) (tally, error) {
	if os.Geteuid() != 0 {
		h.Say("skip hostile: small filesystems can be mounted by root only")
		return tally{skipped: 1}, nil
	}
	if err := hostileApart(ctx, h); err != nil {
		return tally{failed: 1}, err
	}
	return tally{passed: 1}, nil
}

// hostileApart runs dev again in a mount namespace that ends with it.
func hostileApart(ctx context.Context, h *House) error {
	if err := h.Install(ctx, hostTools...); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := h.Command(ctx, ".", "unshare", "--mount", "--propagation", "private", self, "hostile")
	cmd.Env = append(os.Environ(), hostileInside+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 40 * time.Second
	if err := cmd.Run(); err != nil {
		return fault.New(fault.Internal, "hostile: %w", err)
	}
	return nil
}

// foe is one run: a control plane and an agent that is not enrolled yet, on
// small filesystems, and a second control plane that knows neither.
type foe struct {
	h      *House
	dir    string
	bin    string
	skewed string // folder of an agent whose clock can be told to be off
	stack  *Stack
	api    *api
	env    string
	other  *Stack
	theirs *api // of the other control plane

	expiring string    // a token that expires while the run goes on
	expires  time.Time // then
}

func runHostile(ctx context.Context, h *House) (err error) {
	ctx, cancel := context.WithTimeout(ctx, 8*time.Minute)
	defer cancel()
	f := &foe{h: h}
	if f.bin, err = h.Build(ctx); err != nil {
		return err
	}
	if f.skewed, err = h.buildSkewed(ctx); err != nil {
		return err
	}
	if f.dir, err = os.MkdirTemp("", "komainu-hostile-"); err != nil {
		return err
	}
	defer os.RemoveAll(f.dir)
	f.stack, f.other = NewStack(h, f.bin, f.dir), NewStack(h, f.bin, filepath.Join(f.dir, "other"))
	defer func() { err = errors.Join(err, f.close()) }()
	for i, s := range f.steps() {
		started := time.Now()
		if err := s.do(ctx); err != nil {
			h.Say("FAIL %-78s %v", s.name, err)
			f.stack.PrintLogs()
			return fault.New(fault.Internal, "step %d failed: %s", i+1, s.name)
		}
		h.Say("ok   %-78s %s", s.name, time.Since(started).Round(time.Millisecond))
	}
	return nil
}

func (f *foe) close() error {
	err := errors.Join(f.other.Close(), f.stack.Close())
	for _, name := range []string{"agent", "control", "tiny"} {
		if e := unix.Unmount(filepath.Join(f.dir, name), unix.MNT_DETACH); e != nil && !errors.Is(e, unix.EINVAL) && !errors.Is(e, unix.ENOENT) {
			err = errors.Join(err, e)
		}
	}
	return err
}

func (f *foe) steps() []step {
	return slices.Concat([]step{
		{"two control planes, and an agent that is not enrolled", f.start},
	}, f.joinSteps(), f.clockSteps(), f.wireSteps(), f.diskSteps(), f.newerSteps(), []step{
		{"a token that has expired is refused as that", f.expiredToken},
	})
}

func (f *foe) start(ctx context.Context) error {
	for name, size := range map[string]int64{"agent": 128 << 20, "control": 512 << 20} {
		if err := mountLoop(ctx, f.h, filepath.Join(f.dir, name), size); err != nil {
			return err
		}
	}
	if err := f.stack.MountDemo(); err != nil {
		return err
	}
	for _, s := range []*Stack{f.stack, f.other} {
		port, err := freePort(58443)
		if err != nil {
			return err
		}
		if err := s.StartControl(ctx, port); err != nil {
			return err
		}
	}
	var err error
	if f.api, err = f.stack.API(ctx); err != nil {
		return err
	}
	if f.theirs, err = f.other.API(ctx); err != nil {
		return err
	}
	env, err := f.api.environment(ctx)
	if err != nil {
		return err
	}
	f.env = env.ID
	if err := f.api.untested(ctx, f.env); err != nil {
		return err
	}
	if err := f.api.protect(ctx, f.env, []filesystemRule{{"*", "ignore"}, {f.stack.Demo(), "block"}}); err != nil {
		return err
	}
	made, err := f.token(ctx, f.api, f.env, 60, 1)
	if err != nil {
		return err
	}
	f.expiring, f.expires = made.Token, time.Now().Add(61*time.Second)
	return f.stack.StartAgent(ctx)
}

// outcome is how a command ended.
type outcome struct {
	code int
	text string
}

// run runs a program of ours to its end.
func (f *foe) run(ctx context.Context, bin, name string, env []string, args ...string) outcome {
	ctx, cancel := context.WithTimeout(ctx, 40*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(bin, name), args...)
	cmd.Env = append(append(os.Environ(), "LC_ALL=C.UTF-8"), env...)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return outcome{exit.ExitCode(), string(out)}
	}
	if err != nil {
		return outcome{-1, string(out) + err.Error()}
	}
	return outcome{0, string(out)}
}

// cli runs the command line of the agent whose state is in a folder.
func (f *foe) cli(ctx context.Context, state string, args ...string) outcome {
	return f.run(ctx, f.bin, "komainu", []string{"KOMAINU_SOCKET=" + filepath.Join(state, "agent.sock")}, args...)
}

// want says what is wrong with an outcome: the code has to be this one, and the
// message hold all the texts, in capitals or not.
func (o outcome) want(code int, texts ...string) error {
	if o.code != code {
		return fmt.Errorf("exit code %d, want %d: %s", o.code, code, tail(o.text, 800))
	}
	for _, text := range texts {
		if !strings.Contains(strings.ToLower(o.text), strings.ToLower(text)) {
			return fmt.Errorf("the message does not say %q: %s", text, tail(o.text, 800))
		}
	}
	return nil
}

func (f *foe) agentDir() string { return filepath.Join(f.dir, "agent") }

// health asks an agent.
func (f *foe) health(ctx context.Context, state string) (health.Report, error) {
	var r health.Report
	o := f.cli(ctx, state, "health", "--details", "-o", "json")
	var details struct{ Conditions []health.Condition }
	if err := json.Unmarshal([]byte(o.text), &details); err != nil {
		return r, fmt.Errorf("health answers %q: %w", tail(o.text, 300), err)
	}
	o = f.cli(ctx, state, "health", "-o", "json")
	if err := json.Unmarshal([]byte(o.text), &r); err != nil {
		return r, fmt.Errorf("health answers %q: %w", tail(o.text, 300), err)
	}
	r.Conditions = details.Conditions
	return r, nil
}

// condition waits until a part is in a state for a reason.
func (f *foe) condition(ctx context.Context, state, part string, want health.State, code health.Code) error {
	var last health.Condition
	err := waitFor(ctx, startLimit, fmt.Sprintf("%s is %s (%s)", part, want, code), func() (bool, error) {
		r, err := f.health(ctx, state)
		if err != nil {
			return false, nil
		}
		for _, c := range r.Conditions {
			if c.Part == part {
				last = c
				return c.State == want && c.Code == code, nil
			}
		}
		return false, nil
	})
	if err != nil {
		return fmt.Errorf("%w; it is %+v", err, last)
	}
	if want != health.OK && (last.Reason == "" || last.Remedy == "") {
		return fmt.Errorf("%s is %s without a reason or a remedy: %+v", part, want, last)
	}
	return nil
}
