// Package selftest runs detection tests on this host and follows what comes
// of them, stage by stage.
//
// A test does what its scenario says in a folder of its own, by a process
// that is not the agent's, and then waits for what the parts of the agent
// tell: that the kernel reported it, that it was judged, that the finding was
// sent and acknowledged, and what the control plane made of it. When a stage
// does not come, Diagnose says why.
package selftest

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"komainu/drill"
	"komainu/event"
	"komainu/fault"
	"komainu/finding"
	"komainu/policy"
)

// Config says what a runner asks and whom it tells.
type Config struct {
	// Folders are where a test may be run, the most natural one first.
	Folders func() []string
	// Place describes how a folder is protected.
	Place func(folder string) Place
	// Facts are what is known of the agent now.
	Facts func() Facts
	// Report sends a run to the control plane, which answers with Answer. It
	// must not block. May be nil.
	Report func(drill.Run)
	// Exercise runs the program that writes and opens test files; nil where
	// the platform has none.
	Exercise func(ctx context.Context, folder string, files []File) (Exercised, error)
	Log      *slog.Logger
	// Patience is how long a stage is waited for: 10 s when zero. A stage that
	// something is known to prevent is waited for a fifth of it.
	Patience time.Duration
}

// Place is where a test is run.
type Place struct {
	Mount  string      // the filesystem, "" when it is not known
	Mode   policy.Mode // what real-time protection is to do there
	Marked bool        // whether the kernel was told so
}

// Request asks for a run.
type Request struct {
	ID     string // "" makes one
	Test   string // id of a scenario
	Folder string // "" chooses one that is protected
}

// Times of a run.
const (
	patience   = 10 * time.Second
	tickEvery  = 250 * time.Millisecond
	runLimit   = 2 * time.Minute
	keptRuns   = 16
	maxRunID   = 64
	namePrefix = "komainu-test-"
)

// Runner runs detection tests, one at a time. It is safe for concurrent use.
type Runner struct {
	cfg    Config
	active atomic.Pointer[run]

	mu   sync.Mutex
	done []*run // the last ones, oldest first
}

// New returns a runner.
func New(cfg Config) *Runner {
	if cfg.Patience == 0 {
		cfg.Patience = patience
	}
	return &Runner{cfg: cfg}
}

// run is one run under way.
type run struct {
	scenario drill.Scenario

	mu       sync.Mutex
	state    drill.Run
	folder   string        // "" until it is made
	process  event.PID     // of the scenario's process, 0 until it was started
	hit      *drill.Reason // what held the agent back, as it was observed
	verdict  finding.State // of the finding
	record   []byte        // the finding as it was spooled
	position uint64        // of the record, once it was handed to the link
	answered bool          // the control plane has answered
	more     chan struct{} // closed and replaced when the state has changed
}

// Start begins a run. It ends by itself, also when ctx of the caller ends.
// Errors: fault.NotFound for a test that there is none of, fault.Conflict
// while another run is under way, fault.Invalid for a folder that is none.
func (r *Runner) Start(ctx context.Context, req Request) (drill.Run, error) {
	scenario, ok := drill.Find(req.Test)
	if !ok {
		return drill.Run{}, fault.New(fault.NotFound, "there is no detection test %q; see komainu test list", req.Test)
	}
	if len(req.ID) > maxRunID || strings.ContainsFunc(req.ID, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return drill.Run{}, fault.New(fault.Invalid, "the id of a run is at most %d printable characters", maxRunID)
	}
	if req.Folder != "" {
		resolved, err := filepath.EvalSymlinks(req.Folder)
		if err != nil || !filepath.IsAbs(req.Folder) {
			return drill.Run{}, fault.New(fault.Invalid, "%q is no folder that a test can be run in: give the absolute path of one that exists", req.Folder)
		}
		if info, err := os.Stat(resolved); err != nil || !info.IsDir() {
			return drill.Run{}, fault.New(fault.Invalid, "%q is not a folder", req.Folder)
		}
		req.Folder = resolved
	}
	now := time.Now()
	u := &run{scenario: scenario, state: drill.New(cmp.Or(req.ID, rand.Text()), scenario.ID, now), more: make(chan struct{})}
	if !r.active.CompareAndSwap(nil, u) {
		return drill.Run{}, fault.New(fault.Conflict, "a detection test is running already; wait for it to end")
	}
	r.mu.Lock()
	r.done = append(r.done, u)
	r.done = r.done[max(0, len(r.done)-keptRuns):]
	r.mu.Unlock()
	go func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), runLimit)
		defer cancel()
		r.carry(ctx, u, req.Folder)
	}()
	return u.snapshot(), nil
}

// Watch yields the state of a run, now and after every change, until it has
// ended. Errors: fault.NotFound, or the error of yield.
func (r *Runner) Watch(ctx context.Context, id string, yield func(drill.Run) error) error {
	r.mu.Lock()
	i := slices.IndexFunc(r.done, func(u *run) bool { return u.state.ID == id })
	if i < 0 {
		r.mu.Unlock()
		return fault.New(fault.NotFound, "there is no run %s", id)
	}
	u := r.done[i]
	r.mu.Unlock()
	for {
		u.mu.Lock()
		state, more := u.state.Clone(), u.more
		u.mu.Unlock()
		if err := yield(state); err != nil || state.Outcome != drill.Running {
			return err
		}
		select {
		case <-more:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (u *run) snapshot() drill.Run {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.state.Clone()
}

// edit changes the run and wakes who watches.
func (u *run) edit(f func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	f()
	close(u.more)
	u.more = make(chan struct{})
}

// carry runs the scenario, waits for what comes of it, and ends the run.
func (r *Runner) carry(ctx context.Context, u *run, wanted string) {
	problem := r.perform(ctx, u, wanted)
	if problem == nil {
		problem = r.await(ctx, u)
	}
	facts := r.cfg.Facts()
	// What comes from now on is no part of the run, and who has seen its end
	// can begin another.
	r.cleanUp(u)
	r.active.Store(nil)
	u.edit(func() {
		if problem != nil {
			u.state.Explain(*problem)
		} else {
			u.state.Settle()
			u.state.Warnings = warnings(u.scenario, facts, u.verdict, r.cfg.Place(u.folder))
		}
		if r.cfg.Report != nil {
			r.cfg.Report(u.state.Clone()) // before anybody sees the end
		}
	})
	r.cfg.Log.Info("a detection test has ended", "test", u.scenario.ID, "outcome", u.snapshot().Outcome, "reason", u.snapshot().Reason)
}

func (r *Runner) cleanUp(u *run) {
	u.mu.Lock()
	folder := u.folder
	u.mu.Unlock()
	if folder == "" {
		return
	}
	if err := os.RemoveAll(folder); err != nil {
		r.cfg.Log.Warn("the folder of a detection test is still there", "folder", folder, "error", err)
	}
}

func (r *Runner) report(u *run) {
	if r.cfg.Report != nil {
		r.cfg.Report(u.snapshot())
	}
}

// makeFolder makes the folder of a run: in the one that was asked for, or in
// the one of the candidates that is protected best.
func (r *Runner) makeFolder(u *run, wanted string, facts Facts) (string, error) {
	candidates := []string{wanted}
	if wanted == "" {
		candidates = r.cfg.Folders()
		if !u.scenario.Behavior {
			rank := func(folder string) int {
				p := r.cfg.Place(folder)
				_, excluded := facts.exclusion(filepath.Join(folder, namePrefix, fileName))
				return slices.Index([]bool{p.Mode == policy.Block && !excluded, p.Mode == policy.Watch && !excluded, true}, true)
			}
			slices.SortStableFunc(candidates, func(a, b string) int { return rank(a) - rank(b) })
		}
	}
	var problems []error
	for _, c := range candidates {
		// Exclusions compare real paths.
		if real, err := filepath.EvalSymlinks(c); err == nil {
			c = real
		}
		dir, err := os.MkdirTemp(c, namePrefix)
		if err == nil {
			return dir, nil
		}
		problems = append(problems, err)
	}
	return "", errors.Join(problems...)
}

// await waits for the stages and returns why they do not come, nil when all
// did.
func (r *Runner) await(ctx context.Context, u *run) *drill.Reason {
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	stage, since := drill.StageID(""), time.Now()
	for {
		u.mu.Lock()
		first, more := u.state.First(), u.more
		u.mu.Unlock()
		if first == "" {
			return r.shortfall(u)
		}
		if first != stage {
			stage, since = first, time.Now()
		}
		reason := r.why(u, first)
		wait := r.cfg.Patience
		if reason.ID != drill.Unknown && reason.ID != drill.ControlPlaneBehind && reason.ID != drill.ControlPlaneOld && reason.ID != drill.SpoolBehind {
			wait /= 5 // it will not come
		}
		if time.Since(since) >= wait {
			return &reason
		}
		if first == drill.Alert || first == drill.Incident || first == drill.Notification {
			r.report(u)
		}
		select {
		case <-more:
			// Changes come in bursts; the control plane is asked at most once a tick.
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		case <-tick.C:
		case <-ctx.Done():
			return &reason
		}
		if ctx.Err() != nil {
			return &reason
		}
	}
}

// why diagnoses a stage that has not come.
func (r *Runner) why(u *run, stage drill.StageID) drill.Reason {
	facts := r.cfg.Facts()
	u.mu.Lock()
	hit, folder, answered := u.hit, u.folder, u.answered
	u.mu.Unlock()
	if hit != nil && (stage == drill.Kernel || stage == drill.Agent) {
		return *hit
	}
	facts.Answered = answered
	return Diagnose(u.scenario, stage, filepath.Join(folder, fileName), r.cfg.Place(folder), facts)
}

// shortfall returns what the scenario wanted beyond a finding.
func (r *Runner) shortfall(u *run) *drill.Reason {
	u.mu.Lock()
	defer u.mu.Unlock()
	if s := u.state.Stage(drill.Notification); s.State == drill.Missing {
		return &drill.Reason{ID: drill.NotificationFailed, Text: "the notification could not be delivered: " + s.Detail, Remedy: "try the notification in the portal, with its test button", Detail: s.Detail}
	}
	if u.scenario.ID != blockTest || u.verdict == finding.Blocked || u.verdict == finding.Quarantined {
		return nil
	}
	if u.verdict == finding.Allowed {
		return &drill.Reason{ID: drill.ThreatAllowed, Text: "the threat was found, and is on the list of allowed threats", Remedy: "take it off the list: komainu threat allowed remove"}
	}
	return new(watchOnly(r.cfg.Place(u.folder)))
}
