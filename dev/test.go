package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"komainu/fault"
)

// tally counts test results.
type tally struct{ passed, failed, skipped int }

func (t *tally) add(o tally) {
	t.passed += o.passed
	t.failed += o.failed
	t.skipped += o.skipped
}

// phase is a part of the test run with its own runner.
type phase struct {
	name string
	run  func(context.Context, *House) (tally, error)
}

// test runs every tier that this machine can run and ends with the line that
// CI reads. A phase that fails does not keep the next one from running.
func test(ctx context.Context, h *House, args []string) error {
	if len(args) != 0 {
		return fault.New(fault.Invalid, "test takes no arguments; for one package use go test ./PACKAGE")
	}
	if err := RequirePrerequisites(); err != nil {
		return err
	}
	if err := h.Install(ctx, slices.Concat(browserTools, genTools, hostTools)...); err != nil {
		return err
	}
	phases := []phase{
		{"portal is built", func(ctx context.Context, h *House) (tally, error) { return counted(h.BuildPortal(ctx)) }},
		{"static checks", func(ctx context.Context, h *House) (tally, error) { return runChecks(ctx, h) }},
		{"go test", goTests},
		{"portal tests", portalTests},
		{"resilience", resiliencePhase},
		{"hostile", hostilePhase},
		{"soak", soakPhase},
		{"walk-through", walkthroughPhase},
		{"walk-through of servers", serversPhase},
	}
	var total tally
	var errs []error
	for _, p := range phases {
		started := time.Now()
		h.Say("== %s", p.name)
		t, err := p.run(ctx, h)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p.name, err))
			t.failed = max(t.failed, 1)
			h.Say("%v", err)
		}
		total.add(t)
		h.Say("== %s: %d passed, %d failed, %d skipped in %s", p.name, t.passed, t.failed, t.skipped, time.Since(started).Round(time.Second))
		if ctx.Err() != nil {
			break
		}
	}
	if total.passed == 0 {
		errs = append(errs, errors.New("no test ran"))
	}
	// Once more at the end, where people look first and where a log that is cut
	// begins.
	for _, err := range errs {
		h.Say("== failed: %s", tail(err.Error(), 6000))
	}
	h.Say("%d passed, %d failed, %d skipped", total.passed, total.failed, total.skipped)
	if errs != nil {
		return fault.New(fault.Internal, "%d parts failed", len(errs))
	}
	return nil
}

func counted(err error) (tally, error) {
	if err != nil {
		return tally{failed: 1}, err
	}
	return tally{passed: 1}, nil
}

func runChecks(ctx context.Context, h *House) (tally, error) {
	var t tally
	for _, c := range checks {
		if h.Check(ctx, c.name, c.run) {
			t.passed++
		} else {
			t.failed++
		}
	}
	if t.failed != 0 {
		return t, fmt.Errorf("%d of %d checks failed", t.failed, t.passed+t.failed)
	}
	return t, nil
}

// testEvent is a line of go test -json.
type testEvent struct {
	Action, Package, Test, Output string
	Elapsed                       float64
}

// goTests runs tiers 1 and 2. As root, a test that finds no root or no kernel
// feature that this machine must have fails instead of being skipped. One
// package at a time: protection tests load the machine, and their deadlines
// should not race with a neighbour's.
func goTests(ctx context.Context, h *House) (tally, error) {
	cmd := h.Command(ctx, ".", "go", "test", "-json", "-p=1", "-timeout=40m", "./...")
	cmd.Env = os.Environ()
	if os.Geteuid() == 0 {
		cmd.Env = append(cmd.Env, "KOMAINU_NEED=root")
	}
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.StdoutPipe()
	if err != nil {
		return tally{}, err
	}
	if err := cmd.Start(); err != nil {
		return tally{}, err
	}
	t, failures, readErr := h.readGoTests(out)
	runErr := cmd.Wait()
	if readErr != nil {
		return t, readErr
	}
	if exit, ok := errors.AsType[*exec.ExitError](runErr); ok && t.failed == 0 {
		t.failed++
		return t, fmt.Errorf("go test: %w\n%s", exit, tail(complaints.String(), 8000))
	}
	if t.failed != 0 {
		return t, fmt.Errorf("%d go tests failed\n%s%s", t.failed, strings.Join(failures, ""), tail(complaints.String(), 1000))
	}
	return t, runErr
}

// readGoTests counts results, prints a line per package, and what a failed or
// skipped test said. failures is that again, in short.
func (h *House) readGoTests(r io.Reader) (t tally, failures []string, err error) {
	said := map[string]*bytes.Buffer{}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e testEvent
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			continue // a build message
		}
		key := e.Package + " " + e.Test
		switch e.Action {
		case "output", "build-output":
			if said[key] == nil {
				said[key] = new(bytes.Buffer)
			}
			if said[key].Len() < 64<<10 {
				said[key].WriteString(e.Output)
			}
			continue
		case "pass", "fail", "skip":
		default:
			continue
		}
		if e.Test == "" {
			if e.Action == "fail" || e.Elapsed > 1 {
				h.Say("%-4s %s %.1fs", e.Action, e.Package, e.Elapsed)
			}
			if e.Action == "fail" {
				h.printSaid(said[key])
			}
			continue
		}
		switch e.Action {
		case "pass":
			t.passed++
		case "fail":
			t.failed++
			h.Say("FAIL %s", key)
			h.printSaid(said[key])
			if said[key] != nil {
				failures = append(failures, key+"\n"+gist(said[key].String()))
			}
		case "skip":
			t.skipped++
			h.Say("skip %s: %s", key, skipReason(said[key]))
		}
		delete(said, key)
	}
	return t, failures, lines.Err()
}

// remark is how a test begins what it says: with its file and line.
var remark = regexp.MustCompile(`^\s*\S+_test\.go:\d+: `)

// Bounds of a gist.
const (
	gistRemarks = 25 // the last ones
	gistLines   = 4  // of each
)

// gist keeps of what a test said its remarks, and of each the first lines: the
// rest is mostly logs of what it had started.
func gist(said string) string {
	var remarks []string
	var room int
	for line := range strings.Lines(said) {
		switch {
		case remark.MatchString(line):
			remarks = append(remarks, line)
			room = gistLines - 1
		case room > 0:
			remarks[len(remarks)-1] += line
			room--
		}
	}
	if remarks == nil {
		return tail(said, 2000)
	}
	return strings.Join(remarks[max(0, len(remarks)-gistRemarks):], "")
}

func (h *House) printSaid(b *bytes.Buffer) {
	if b != nil {
		h.Say("%s", tail(b.String(), 6000))
	}
}

// skipReason finds the line that t.Skip wrote.
func skipReason(b *bytes.Buffer) string {
	if b == nil {
		return ""
	}
	for line := range strings.Lines(b.String()) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "===") && !strings.HasPrefix(line, "---") {
			return line
		}
	}
	return ""
}

// portalTests runs the portal's own tests with Node's runner. Its limit for a
// test does not end a runner that waits for a browser: this one does.
func portalTests(ctx context.Context, h *House) (tally, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Minute)
	defer cancel()
	out, err := h.Output(ctx, "portal", "npm", "test", "--silent")
	t := tally{passed: tapCount(out, "pass"), failed: tapCount(out, "fail"), skipped: tapCount(out, "skipped")}
	if err != nil {
		return t, fmt.Errorf("%w\n%s", err, tail(out, 8000))
	}
	if t.passed == 0 {
		return t, fmt.Errorf("no portal test ran:\n%s", tail(out, 2000))
	}
	return t, nil
}

// tapCount reads the summary of Node's test runner: "# pass 12" in TAP,
// "ℹ pass 12" in the spec reporter.
func tapCount(out, what string) int {
	total := 0
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		if len(fields) == 3 && (fields[0] == "#" || fields[0] == "ℹ") && fields[1] == what {
			n, err := strconv.Atoi(fields[2])
			if err == nil {
				total += n
			}
		}
	}
	return total
}
