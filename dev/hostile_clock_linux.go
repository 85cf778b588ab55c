package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"komainu/fault"
	"komainu/health"
)

// envSkew tells an agent of buildSkewed by how many seconds its clock is off.
const envSkew = "KOMAINU_HOSTILE_SKEW"

// skewedNow is put in the place of the beginning of time.Now. Nothing smaller
// moves the clock of a Go program: it reads the kernel's clock without libc, a
// time namespace has no clock for the time of day, and setting this machine's
// clock would be felt by everybody on it.
const (
	plainNow  = "	sec, nsec, mono := runtimeNow()\n	if mono == 0 {"
	skewedNow = "	sec, nsec, mono := runtimeNow()\n	sec += hostileSkew\n	if mono == 0 {"
	skewedVar = `
var hostileSkew = func() int64 {
	text, _ := syscall.Getenv("` + envSkew + `")
	sign := int64(1)
	if len(text) > 0 && text[0] == '-' {
		sign, text = -1, text[1:]
	}
	n := int64(0)
	for _, c := range []byte(text) {
		n = 10*n + int64(c-'0')
	}
	return sign * n
}()
`
)

// buildSkewed builds the agent with a standard library whose clock can be told
// to be off, and nothing else changed.
func (h *House) buildSkewed(ctx context.Context) (string, error) {
	root, err := h.Output(ctx, ".", "go", "env", "GOROOT")
	if err != nil {
		return "", err
	}
	dir, source := h.State("skewed"), filepath.Join(strings.TrimSpace(root), "src", "time", "time.go")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	text, err := os.ReadFile(source)
	if err != nil {
		return "", err
	}
	if bytes.Count(text, []byte(plainNow)) != 1 || !bytes.Contains(text, []byte("import (\n")) {
		return "", fault.New(fault.Unsupported, "%s is not as it is known here: teach dev how this version of Go reads the clock", source)
	}
	text = bytes.Replace(text, []byte(plainNow), []byte(skewedNow), 1)
	text = bytes.Replace(text, []byte("import (\n"), []byte("import (\n\t\"syscall\"\n"), 1)
	text = append(text, skewedVar...)
	changed, overlay := filepath.Join(dir, "time.go"), filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(changed, text, 0o644); err != nil {
		return "", err
	}
	list, err := json.Marshal(map[string]map[string]string{"Replace": {source: changed}})
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(overlay, list, 0o644); err != nil {
		return "", err
	}
	cmd := h.Command(ctx, ".", "go", "build", "-overlay", overlay, "-buildvcs=false", "-o", filepath.Join(dir, "komainud"), "./cmd/komainud")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build an agent with a clock that can be off: %w\n%s", err, tail(string(out), 4000))
	}
	return dir, nil
}

// off is a clock that is two days fast or slow.
type off struct {
	name, direction string
	by              time.Duration
}

var offs = []off{{"two days fast", "ahead of", 48 * time.Hour}, {"two days slow", "behind", -48 * time.Hour}}

func (f *foe) clockSteps() (steps []step) {
	for _, o := range offs {
		steps = append(steps,
			step{"a clock that is " + o.name + " at enrolment is said, and spends no use of the token", func(ctx context.Context) error { return f.enrolSkewed(ctx, o) }},
			step{"a clock that is " + o.name + " later is shown, and the link holds", func(ctx context.Context) error { return f.linkSkewed(ctx, o) }},
		)
	}
	return steps
}

// startSkewed starts an agent whose clock is off by so much.
func (f *foe) startSkewed(ctx context.Context, state string, by time.Duration) (*Program, error) {
	log, err := f.stack.log("skewed")
	if err != nil {
		return nil, err
	}
	p := f.h.Supervise(ctx, "komainud", log, func(ctx context.Context) *exec.Cmd {
		cmd := exec.CommandContext(ctx, filepath.Join(f.skewed, "komainud"), "run", "--state", state)
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", envSkew, int64(by.Seconds())))
		return cmd
	})
	err = waitFor(ctx, startLimit, "the agent answers", func() (bool, error) {
		return f.cli(ctx, state, "health", "--field", "app_version").code == 0, nil
	})
	if err != nil {
		p.Stop()
	}
	return p, err
}

// ends stops an agent, which has to end by itself and soon.
func ends(p *Program) error {
	began := time.Now()
	p.Stop()
	if took := time.Since(began); took > 5*time.Second {
		return fmt.Errorf("an agent took %s to stop", took.Round(time.Millisecond))
	}
	return nil
}

func (f *foe) enrolSkewed(ctx context.Context, o off) error {
	state := filepath.Join(f.dir, "clock-"+o.direction)
	agent, err := f.startSkewed(ctx, state, o.by)
	if err != nil {
		return err
	}
	made, err := f.token(ctx, f.api, f.env, 3600, 1)
	if err == nil {
		err = f.refused(ctx, state, made, fault.ExitFailed, "this machine's clock is", o.direction, "set it right")
	}
	return errors.Join(err, ends(agent))
}

// linkSkewed enrols with the right clock and starts again with a wrong one.
func (f *foe) linkSkewed(ctx context.Context, o off) error {
	state := filepath.Join(f.dir, "clock-"+o.direction)
	agent, err := f.startSkewed(ctx, state, 0)
	if err != nil {
		return err
	}
	made, err := f.token(ctx, f.api, f.env, 3600, 1)
	if err == nil {
		err = f.cli(ctx, state, "enrol", made.Token).want(fault.ExitOK)
	}
	if err == nil {
		err = f.condition(ctx, state, "link", health.OK, "")
	}
	if err := errors.Join(err, ends(agent)); err != nil {
		return err
	}
	if agent, err = f.startSkewed(ctx, state, o.by); err != nil {
		return err
	}
	defer agent.Stop()
	if err := f.condition(ctx, state, "link", health.Degraded, health.ClockOff); err != nil {
		return err
	}
	if err := f.condition(ctx, state, "certificate", health.OK, ""); err != nil {
		return err
	}
	if err := f.cli(ctx, state, "connectivity", "test").want(fault.ExitFailed, "this machine's clock is"); err != nil {
		return err
	}
	// What it tells arrives: a tag that is set here is a setting that changed.
	id, err := f.device(state)
	if err != nil {
		return err
	}
	return waitFor(ctx, startLimit, "the device is online for the control plane", func() (bool, error) {
		var d struct{ Connected bool }
		err := f.api.call(ctx, "GET", "/devices/"+id, nil, &d)
		return err == nil && d.Connected, nil
	})
}
