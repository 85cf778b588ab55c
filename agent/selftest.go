package agent

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"komainu/agent/link"
	"komainu/agent/localapi"
	"komainu/agent/realtime"
	"komainu/agent/selftest"
	"komainu/agent/sensor"
	"komainu/drill"
	"komainu/event"
	"komainu/fault"
	"komainu/policy"
	"komainu/wire"
)

// openTests makes the runner of detection tests. The parts tell it what they
// see; it tells the control plane how far a run is.
func (w *worker) openTests() {
	w.tests = selftest.New(selftest.Config{
		Folders: w.testFolders, Place: w.place, Facts: w.testFacts, Exercise: exercise,
		Report: func(r drill.Run) { w.link.ReportTest(r) },
		Log:    w.log.With("component", "selftest"),
	})
	w.record.tests, w.protect.tests = w.tests, w.tests
}

// testFolders are where people put files, and the filesystems that are
// protected.
func (w *worker) testFolders() []string {
	folders := []string{os.TempDir(), "/var/tmp"}
	now := w.settings.Now()
	for _, m := range localMounts() {
		if mode := now.ModeOf(m); mode == policy.Block || mode == policy.Watch {
			folders = append(folders, m)
		}
	}
	return append(folders, w.cfg.State)
}

// place says how a folder is protected.
func (w *worker) place(folder string) selftest.Place {
	var p selftest.Place
	for _, m := range localMounts() {
		if len(m) >= len(p.Mount) && (folder == m || strings.HasPrefix(folder, path.Clean(m+"/")+"/") || m == "/") {
			p.Mount = m
		}
	}
	if p.Mount == "" {
		return p
	}
	p.Mode = w.settings.Now().ModeOf(p.Mount)
	w.health.mu.Lock()
	defer w.health.mu.Unlock()
	p.Marked = slices.ContainsFunc(w.health.marks, func(m realtime.Mark) bool { return m.Path == p.Mount })
	return p
}

func (w *worker) testFacts() selftest.Facts {
	state, scanner := w.link.State(), w.scanner.Status()
	f := selftest.Facts{
		Settings: w.settings.Now(), Scanner: scanner.Problem, ScannerUp: scanner.Up, Enrolled: state.Enrolled, Connected: state.Connected, LinkSince: state.Since,
		LinkError: state.Error, Refused: fault.Is(state.Error, fault.Unauthentic), Skew: state.Skew, Protocol: state.Protocol,
		Waiting: w.record.events.Stats().Waiting + w.record.findings.Stats().Waiting,
	}
	if w.realtime == nil {
		f.RealTime = w.rtError
	}
	if s := w.sensor.Load(); s != nil {
		st := s.Status()
		f.Sensor, f.SensorProblem = st.Subsystem != sensor.Unavailable, st.Reason
		f.SensitiveFiles, f.WatchProblem = st.Watch.On, cmp.Or(st.Watch.Reason, st.Watch.Limits)
	} else {
		f.SensorProblem = "it is being started"
	}
	return f
}

// beginTest is what the control plane can ask for.
func (w *worker) beginTest(t wire.DetectionTest) error {
	if t.Run == "" {
		return fault.New(fault.Invalid, "the run has no id")
	}
	w.log.Info("the control plane asks for a detection test", "test", t.Test, "run", t.Run)
	_, err := w.tests.Start(context.Background(), selftest.Request{ID: t.Run, Test: t.Test})
	return err
}

// RunTest implements localapi.Tests.
func (l *local) RunTest(ctx context.Context, req localapi.TestRequest, yield func(drill.Run) error) error {
	run, err := l.w.tests.Start(ctx, selftest.Request{Test: req.Test, Folder: req.Folder})
	if err != nil {
		return err
	}
	return l.w.tests.Watch(ctx, run.ID, yield)
}

// exercise writes and opens test files in a process of its own: what the
// agent itself opens is not judged.
func exercise(ctx context.Context, folder string, files []selftest.File) (selftest.Exercised, error) {
	var out selftest.Exercised
	input, err := json.Marshal(files)
	if err != nil {
		return out, err
	}
	cmd := roleCommand("exercise")
	cmd.Args = append(cmd.Args, folder)
	cmd.Env = []string{}
	cmd.Stdin = bytes.NewReader(input)
	var said, problem bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &problem
	if err := cmd.Start(); err != nil {
		return out, err
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	if err := cmd.Wait(); err != nil {
		return out, fmt.Errorf("%w: %s", err, bytes.TrimSpace(problem.Bytes()))
	}
	return out, json.Unmarshal(said.Bytes(), &out)
}

// maxExercise is more than the test files and their encoding need.
const maxExercise = 1 << 20

// runExercise is the process of exercise.
func runExercise(args []string, in io.Reader, out io.Writer) error {
	if len(args) != 1 {
		return fault.New(fault.Invalid, "exercise takes a folder")
	}
	var files []selftest.File
	if err := json.NewDecoder(io.LimitReader(in, maxExercise)).Decode(&files); err != nil {
		return fault.New(fault.Invalid, "the files cannot be read: %w", err)
	}
	result, err := selftest.Exercise(args[0], files)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(result)
}

// observed tells the runner what the sensor saw.
func (w *worker) observed(ev *event.Event) { w.tests.Observed(ev, w.tree.Ancestors) }

// watched tells the runner what the link takes from a spool, and what of it is
// acknowledged.
func watched(s link.Source, tests *selftest.Runner) link.Source {
	next, ack := s.Next, s.Ack
	s.Next = func(ctx context.Context, after uint64, maxBytes int) (link.Batch, error) {
		b, err := next(ctx, after, maxBytes)
		if err == nil {
			tests.Handed(b.First, b.Records)
		}
		return b, err
	}
	s.Ack = func(upTo uint64) error {
		err := ack(upTo)
		tests.Acknowledged(upTo)
		return err
	}
	return s
}
