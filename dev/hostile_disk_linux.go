package main

import (
	"context"
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

func (f *foe) diskSteps() []step {
	return []step{
		{"an agent whose first start finds a full disk says so, and starts once there is room", f.agentFirstFull},
		{"a control plane whose first start finds a full disk says so, and starts once there is room", f.controlFirstFull},
		{"an agent's disk is full: it protects, says what is the matter, keeps its identity", f.agentFull},
		{"a control plane's disk is full: it says so, nothing is lost, it goes on when there is room", f.controlFull},
	}
}

// tiny mounts a filesystem that is full but for a few bytes.
func (f *foe) tiny(size string) (dir string, mend func() error, err error) {
	dir = filepath.Join(f.dir, "tiny")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", nil, err
	}
	if err := unix.Mount("komainu-tiny", dir, "tmpfs", 0, "size="+size); err != nil {
		return "", nil, err
	}
	mend, err = fill(dir)
	return dir, mend, err
}

func (f *foe) unmountTiny() error {
	return unix.Unmount(filepath.Join(f.dir, "tiny"), unix.MNT_DETACH)
}

func (f *foe) agentFirstFull(ctx context.Context) error {
	dir, mend, err := f.tiny("64m")
	if err != nil {
		return err
	}
	defer f.unmountTiny()
	state := filepath.Join(dir, "state")
	if err := f.run(ctx, f.bin, "komainud", nil, "run", "--state", state).want(fault.ExitFailed, "no space left", "free"); err != nil {
		return err
	}
	if err := mend(); err != nil {
		return err
	}
	agent, err := f.startSkewed(ctx, state, 0)
	if err != nil {
		return fmt.Errorf("there is room, and it does not start: %w", err)
	}
	return ends(agent)
}

func (f *foe) controlFirstFull(ctx context.Context) error {
	dir, mend, err := f.tiny("256m")
	if err != nil {
		return err
	}
	defer f.unmountTiny()
	port, err := freePort(58543)
	if err != nil {
		return err
	}
	args := []string{"run", "--state", filepath.Join(dir, "control"), "--listen", fmt.Sprintf("127.0.0.1:%d", port)}
	o := f.run(ctx, f.bin, "komainu-control", nil, args...)
	if o.code == fault.ExitOK || o.code > fault.ExitUnsupported || o.code < 0 {
		return fmt.Errorf("exit code %d: %s", o.code, tail(o.text, 500))
	}
	if err := o.want(o.code, "no space left"); err != nil && !strings.Contains(o.text, "full") {
		return err
	}
	if strings.Contains(o.text, "panic") || strings.Contains(o.text, "one-time password") {
		return fmt.Errorf("it says what it should not: %s", tail(o.text, 800))
	}
	if err := mend(); err != nil {
		return err
	}
	s := NewStack(f.h, f.bin, dir)
	defer s.Close()
	if err := s.StartControl(ctx, port); err != nil {
		return fmt.Errorf("there is room, and it does not start: %w", err)
	}
	if s.Password == "" {
		return errors.New("there is room, and the first start was over before anybody saw the password")
	}
	return nil
}

// agentFull fills the disk of the agent that runs.
func (f *foe) agentFull(ctx context.Context) error {
	device, err := f.device(f.agentDir())
	if err != nil {
		return err
	}
	mend, err := fill(f.agentDir())
	if err != nil {
		return err
	}
	full := func() error {
		name := filepath.Join(f.stack.Demo(), "full.com")
		if err := os.WriteFile(name, eicar, 0o644); err != nil {
			return err
		}
		if err := f.condition(ctx, f.agentDir(), "quarantine", health.Degraded, health.QuarantineWaiting); err != nil {
			return err
		}
		if out, err := exec.CommandContext(ctx, "cat", name).CombinedOutput(); err == nil || !strings.Contains(string(out), "not permitted") {
			return fmt.Errorf("malware can be read while the disk is full: %s", out)
		}
		if err := f.condition(ctx, f.agentDir(), "spool", health.Degraded, health.SpoolInMemory); err != nil {
			return err
		}
		if err := f.cli(ctx, f.agentDir(), "config", "behavior-monitoring", "--value", "disabled").want(fault.ExitFailed, "no space left"); err != nil {
			return err
		}
		t, err := f.token(ctx, f.api, f.env, 3600, 1)
		if err != nil {
			return err
		}
		return f.refused(ctx, f.agentDir(), t, fault.ExitFailed, "no space left", "free space")
	}
	if err := errors.Join(full(), mend()); err != nil {
		return err
	}
	if now, err := f.device(f.agentDir()); err != nil || now != device {
		return fmt.Errorf("the device was %s and is %s: %w", device, now, err)
	}
	if err := f.stack.WaitHealthy(ctx); err != nil {
		return err
	}
	return waitFor(ctx, startLimit, "the file is sealed after all", func() (bool, error) {
		_, err := os.Lstat(filepath.Join(f.stack.Demo(), "full.com"))
		return os.IsNotExist(err), nil
	})
}

// controlFull fills the disk of the control plane that runs.
func (f *foe) controlFull(ctx context.Context) error {
	count := func() (n int, err error) {
		list, err := f.api.alerts(ctx, 1000)
		for _, a := range list {
			if strings.Contains(a.Title, "EICAR") {
				n++
			}
		}
		return n, err
	}
	before, err := count()
	if err != nil {
		return err
	}
	mend, err := fill(filepath.Join(f.dir, "control"))
	if err != nil {
		return err
	}
	pid := f.stack.control.PID()
	full := func() error {
		var refused error
		for i := range 200 { // what the database has left takes some
			if refused = f.api.call(ctx, "POST", "/environments", map[string]any{"name": fmt.Sprintf("env %d %s", i, strings.Repeat("x", 60))}, nil); refused != nil {
				break
			}
		}
		if refused == nil || fault.Is(refused, fault.Internal) || !strings.Contains(refused.Error(), "space") && !strings.Contains(refused.Error(), "full") {
			return fmt.Errorf("an API call that the disk does not take answers %w", refused)
		}
		if _, err := f.devices(ctx); err != nil {
			return fmt.Errorf("nothing can be read any more: %w", err)
		}
		name := filepath.Join(f.stack.Demo(), "told-later.com")
		if err := os.WriteFile(name, eicar, 0o644); err != nil {
			return err
		}
		return waitFor(ctx, startLimit, "the agent quarantines", func() (bool, error) {
			_, err := os.Lstat(name)
			return os.IsNotExist(err), nil
		})
	}
	if err := errors.Join(full(), mend()); err != nil {
		return err
	}
	err = waitFor(ctx, 60*time.Second, "the alert has arrived", func() (bool, error) {
		n, err := count()
		return err == nil && n == before+1, nil
	})
	if n, e := count(); err != nil || n != before+1 {
		return fmt.Errorf("%w: %d alerts before, %d now, %v", err, before, n, e)
	}
	if now := f.stack.control.PID(); now != pid {
		return fmt.Errorf("the control plane (process %d) has ended over it", pid)
	}
	return f.api.call(ctx, "POST", "/environments", map[string]any{"name": "there is room"}, nil)
}

func (f *foe) newerSteps() []step {
	return []step{
		{"an agent refuses the state of a newer version, and touches nothing", f.newerAgent},
		{"a control plane refuses the state of a newer version, and touches nothing", f.newerControl},
	}
}

func (f *foe) newerAgent(ctx context.Context) error {
	state := filepath.Join(f.dir, "second") // of an agent that is stopped
	for name, edit := range map[string]func(text []byte) []byte{
		"version":            func([]byte) []byte { return []byte("99\n") },
		"spool/events/state": func(text []byte) []byte { text[4] = 99; return text },
	} {
		file := filepath.Join(state, name)
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := os.WriteFile(file, edit(slices.Clone(text)), 0o600); err != nil {
			return err
		}
		if err := f.untouched(state, func() error {
			return f.run(ctx, f.bin, "komainud", nil, "run", "--state", state).want(fault.ExitFailed, "newer version", "install that version")
		}); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := os.WriteFile(file, text, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (f *foe) newerControl(ctx context.Context) error {
	state := filepath.Join(f.other.dir, "control")
	f.other.control.Stop()
	migrate := func(statement string) error {
		_, err := f.h.Output(ctx, ".", "python3", "-c", "import sqlite3, sys\nc = sqlite3.connect(sys.argv[1])\nc.execute(sys.argv[2])\nc.commit()\nc.close()", filepath.Join(state, "state.db"), statement)
		return err
	}
	if err := migrate("INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, 1)"); err != nil {
		return err
	}
	port, err := freePort(58643)
	if err != nil {
		return err
	}
	args := []string{"--state", state}
	if err := f.untouched(state, func() error {
		return f.run(ctx, f.bin, "komainu-control", nil, append([]string{"run", "--listen", fmt.Sprintf("127.0.0.1:%d", port)}, args...)...).want(fault.ExitUnsupported, "newer version", "run that version")
	}); err != nil {
		return err
	}
	if err := f.run(ctx, f.bin, "komainu-control", nil, append([]string{"admin", "reset"}, args...)...).want(fault.ExitUnsupported, "newer version"); err != nil {
		return err
	}
	if err := migrate("DELETE FROM goose_db_version WHERE version_id = 99999"); err != nil {
		return err
	}
	return f.other.StartControl(ctx, port)
}

// untouched sees that the files of a folder are the same after something was
// done. Locks, logs and what SQLite keeps beside its database may come and go.
func (f *foe) untouched(dir string, do func() error) error {
	before, err := contents(dir)
	if err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	after, err := contents(dir)
	if err != nil {
		return err
	}
	for name := range before {
		if before[name] != after[name] {
			return fmt.Errorf("%s has changed", filepath.Join(dir, name))
		}
	}
	for name := range after {
		if _, ok := before[name]; !ok {
			return fmt.Errorf("%s was made", filepath.Join(dir, name))
		}
	}
	return nil
}

func contents(dir string) (map[string]string, error) {
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil || name == "lock" || strings.HasSuffix(name, "-wal") || strings.HasSuffix(name, "-shm") {
			return err
		}
		text, err := os.ReadFile(path)
		files[name] = string(text)
		return err
	})
	return files, err
}
