//go:build unix

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// resiliencePhase breaks a running control plane and agent on purpose and
// checks from outside that protection holds, comes back, and tells all.
func resiliencePhase(ctx context.Context, h *House) (tally, error) {
	if os.Geteuid() != 0 {
		h.Say("skip resilience: real-time protection needs root")
		return tally{skipped: 1}, nil
	}
	bin, err := h.Build(ctx)
	if err != nil {
		return tally{failed: 1}, err
	}
	dir, err := os.MkdirTemp("", "komainu-break-")
	if err != nil {
		return tally{failed: 1}, err
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	b := &breaker{stack: NewStack(h, bin, dir)}
	defer b.stack.Close()
	port, err := freePort(38443)
	if err == nil {
		b.port = port
		err = b.stack.start(ctx, port, false)
	}
	if err == nil {
		b.api, err = b.stack.API(ctx)
	}
	if err != nil {
		b.stack.PrintLogs()
		return tally{failed: 1}, err
	}
	var t tally
	for _, s := range b.steps() {
		started := time.Now()
		if err := s.do(ctx); err != nil {
			t.failed++
			h.Say("FAIL %-70s %v", s.name, err)
			b.stack.PrintLogs()
			break
		}
		t.passed++
		h.Say("ok   %-70s %s", s.name, time.Since(started).Round(time.Millisecond))
	}
	if t.failed > 0 {
		return t, fmt.Errorf("%d steps failed", t.failed)
	}
	return t, nil
}

// breaker writes EICAR under a new name every time, so that what was written
// can be compared with what the control plane knows.
type breaker struct {
	stack   *Stack
	api     *api
	port    int
	written int
}

func (b *breaker) steps() []step {
	steps := []step{
		{"EICAR is quarantined, and the alert arrives", b.caught},
		{"with the control plane stopped: still quarantined", b.whileControlStops},
		{"the control plane is killed and comes back: every alert is there, none twice", b.controlComesBack},
	}
	for _, role := range []string{"worker", "broker", "scanner", "guardian"} {
		for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP} {
			if role == "scanner" && sig == syscall.SIGSTOP {
				continue // the worker kills it after its own deadline; tested with the scanner
			}
			steps = append(steps, step{fmt.Sprintf("%s of the agent's %s: protection and health come back", sig, role), func(ctx context.Context) error {
				return b.hurt(ctx, role, sig)
			}})
		}
	}
	return append(steps,
		step{"every EICAR that was written is one alert", b.allTold},
		step{"a backup is restored on an empty folder: every alert, and the agent, come back", b.restored},
		step{"a policy that is made then reaches the agent", b.obeys})
}

// write puts EICAR into a new file.
func (b *breaker) write() (string, error) {
	b.written++
	name := filepath.Join(b.stack.Demo(), fmt.Sprintf("eicar-%d.com", b.written))
	return name, os.WriteFile(name, eicar, 0o644)
}

func (b *breaker) gone(ctx context.Context, name string) error {
	return waitFor(ctx, 15*time.Second, name+" is quarantined", func() (bool, error) {
		_, err := os.Lstat(name)
		return os.IsNotExist(err), nil
	})
}

func (b *breaker) quarantined(ctx context.Context) error {
	name, err := b.write()
	if err != nil {
		return err
	}
	return b.gone(ctx, name)
}

func (b *breaker) caught(ctx context.Context) error {
	if err := b.quarantined(ctx); err != nil {
		return err
	}
	return b.allTold(ctx)
}

func (b *breaker) whileControlStops(ctx context.Context) error {
	if err := syscall.Kill(b.stack.control.PID(), syscall.SIGSTOP); err != nil {
		return err
	}
	if err := b.quarantined(ctx); err != nil {
		return err
	}
	return b.quarantined(ctx)
}

func (b *breaker) controlComesBack(ctx context.Context) error {
	if err := syscall.Kill(b.stack.control.PID(), syscall.SIGKILL); err != nil {
		return err
	}
	return b.allTold(ctx)
}

// allTold waits until there are as many alerts as files were written, and
// looks again a moment later: none may come twice.
func (b *breaker) allTold(ctx context.Context) error {
	count := 0
	err := waitFor(ctx, 60*time.Second, "every alert has arrived", func() (bool, error) {
		list, err := b.api.alerts(ctx, 1000)
		if err != nil {
			return false, nil // the control plane is starting
		}
		count = 0
		for _, a := range list {
			if strings.Contains(a.Title, "EICAR") {
				count++
			}
		}
		return count >= b.written, nil
	})
	if err != nil {
		return fmt.Errorf("%w: %d of %d", err, count, b.written)
	}
	if count != b.written {
		return fmt.Errorf("%d alerts for %d files", count, b.written)
	}
	return nil
}

// restored loses everything that the control plane keeps, and brings it back
// from a backup. Nobody touches the agent, which has seen newer policies than
// the backup knows, and finds something in between.
func (b *breaker) restored(ctx context.Context) error {
	control, state, file := filepath.Join(b.stack.bin, "komainu-control"), filepath.Join(b.stack.dir, "control"), filepath.Join(b.stack.dir, "all.backup")
	if _, err := b.stack.h.Output(ctx, ".", control, "backup", "--state", state, "--to", file); err != nil {
		return err
	}
	for _, mode := range []string{"watch", "block"} {
		if err := b.mode(ctx, mode); err != nil {
			return err
		}
	}
	device, err := b.stack.CLI(ctx, "health", "--field", "edr_machine_id")
	if err != nil {
		return err
	}
	b.stack.control.Stop()
	if err := os.RemoveAll(state); err != nil {
		return err
	}
	if err := b.quarantined(ctx); err != nil {
		return err
	}
	if _, err := b.stack.h.Output(ctx, ".", control, "restore", "--state", state, "--from", file); err != nil {
		return err
	}
	if err := b.stack.StartControl(ctx, b.port); err != nil {
		return err
	}
	// The token of the API is the one from before.
	if err := b.allTold(ctx); err != nil {
		return err
	}
	if err := b.stack.WaitHealthy(ctx); err != nil {
		return err
	}
	if now, err := b.stack.CLI(ctx, "health", "--field", "edr_machine_id"); err != nil || now != device {
		return fmt.Errorf("the agent was device %s, and is %s, %w", device, now, err)
	}
	return nil
}

func (b *breaker) obeys(ctx context.Context) error {
	if err := b.mode(ctx, "watch"); err != nil {
		return err
	}
	return b.mode(ctx, "block")
}

// mode sets how the demo folder is protected, and waits until it is.
func (b *breaker) mode(ctx context.Context, mode string) error {
	env, err := b.api.environment(ctx)
	if err != nil {
		return err
	}
	if err := b.api.untested(ctx, env.ID); err != nil {
		return err
	}
	if err := b.api.protect(ctx, env.ID, []filesystemRule{{"*", b.stack.elsewhere}, {b.stack.Demo(), mode}}); err != nil {
		return err
	}
	return waitFor(ctx, 15*time.Second, "the demo folder is in mode "+mode, func() (bool, error) {
		scope, err := b.stack.CLI(ctx, "health", "--field", "real_time_protection_scope")
		return err == nil && strings.Contains(scope, map[string]string{"watch": "1 watching", "block": "1 blocking"}[mode]), nil
	})
}

// hurt sends a signal to a role and waits until protection is back.
func (b *breaker) hurt(ctx context.Context, role string, sig syscall.Signal) error {
	before, err := b.pid(role)
	if err != nil {
		return err
	}
	if err := syscall.Kill(before, sig); err != nil {
		return err
	}
	err = waitFor(ctx, 30*time.Second, "there is a new "+role, func() (bool, error) {
		now, err := b.pid(role)
		return err == nil && now != before, nil
	})
	if err != nil {
		return err
	}
	// Healthy first: what is written while nobody looks is not judged.
	if err := b.stack.WaitHealthy(ctx); err != nil {
		return err
	}
	return b.quarantined(ctx)
}

// pid finds the process of the agent that plays a role: the guardian is the
// one that was started here, the others descend from it.
func (b *breaker) pid(role string) (int, error) {
	guardian := b.stack.agent.PID()
	if role == "guardian" {
		return guardian, nil
	}
	names, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		words := bytes.Split(bytes.TrimRight(text, "\x00"), []byte{0})
		if len(words) != 2 || string(words[0]) != "komainud" || string(words[1]) != role {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		if err != nil {
			continue
		}
		if parent := parentOf(pid); parent == guardian || role == "scanner" && parentOf(parent) == guardian {
			return pid, nil
		}
	}
	return 0, fmt.Errorf("no %s runs", role)
}

// parentOf reads the parent from proc_pid_stat(5), 0 when it is gone.
func parentOf(pid int) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 2 {
		return 0
	}
	parent, _ := strconv.Atoi(fields[1])
	return parent
}
