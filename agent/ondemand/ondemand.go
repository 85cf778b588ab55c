// Package ondemand scans files because somebody asks: a quick scan of where
// malware likes to be, a full scan of all local filesystems, or a path.
//
// One scan runs at a time. It goes on when the one who asked goes away, can be
// cancelled, and is remembered with its outcome.
package ondemand

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"komainu/fault"
	"komainu/finding"
	"komainu/internal/atomicfile"
	"komainu/policy"
)

// Type says what a scan covers.
type Type string

// The types.
const (
	Quick  Type = "quick"
	Full   Type = "full"
	Custom Type = "custom"
)

// State says how far a scan is.
type State string

// The states. The last three are final.
const (
	Running   State = "running"
	Completed State = "completed"
	Cancelled State = "cancelled"
	Failed    State = "failed"
)

// Request asks for a scan.
type Request struct {
	Type             Type
	Path             string // absolute; of a custom scan
	IgnoreExclusions bool
}

// Job is a scan, running or past.
type Job struct {
	ID      string    `json:"id"`
	Type    Type      `json:"type"`
	State   State     `json:"state"`
	Path    string    `json:"path,omitempty"`
	Start   time.Time `json:"start"`
	End     time.Time `json:"end,omitzero"`
	Files   int64     `json:"files"`
	Bytes   int64     `json:"bytes"`
	Skipped int64     `json:"skipped"` // could not be read, or left the limits
	Threats int64     `json:"threats"`
	Current string    `json:"current,omitempty"` // file that is being scanned, while it runs
	Error   string    `json:"error,omitempty"`
}

func (j Job) done() bool { return j.State != Running }

// Config says how files are scanned and what becomes of findings.
type Config struct {
	Scan     func(ctx context.Context, f *os.File) (finding.Verdict, error)
	Found    func(ctx context.Context, kind, path string, f *os.File, v finding.Verdict)
	Settings func() policy.Effective
	History  string          // file of past scans
	Mounts   func() []string // local filesystems
	Log      *slog.Logger
}

// keep is how many past scans are remembered.
const keep = 100

// Runner runs scans. It is safe for concurrent use.
type Runner struct {
	cfg Config

	mu      sync.Mutex
	past    []Job // newest first
	running *job
	next    int
	start   chan *job
}

// job is a running scan.
type job struct {
	request Request
	matcher *policy.Matcher

	mu      sync.Mutex
	job     Job
	cancel  context.CancelFunc
	changed chan struct{} // closed and replaced at the end of the job

	files, bytes, skipped, threats atomic.Int64
	current                        atomic.Pointer[string]
}

func (s *job) view() Job {
	s.mu.Lock()
	defer s.mu.Unlock()
	j := s.job
	j.Files, j.Bytes, j.Skipped, j.Threats = s.files.Load(), s.bytes.Load(), s.skipped.Load(), s.threats.Load()
	if path := s.current.Load(); path != nil && !j.done() {
		j.Current = *path
	}
	return j
}

// New returns a runner and reads the past scans. One that was running when
// the agent ended has failed.
func New(cfg Config) (*Runner, error) {
	r := &Runner{cfg: cfg, start: make(chan *job, 1)}
	text, err := os.ReadFile(cfg.History)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if json.Unmarshal(text, &r.past) != nil {
		r.past = nil // a damaged list of past scans is not worth more
	}
	for i := range r.past {
		if j := &r.past[i]; !j.done() {
			j.State, j.Error, j.End = Failed, "the agent was restarted", time.Now().UTC()
		}
	}
	r.next = int(time.Now().Unix())
	return r, nil
}

// Start starts a scan. Errors: fault.Conflict when one runs, fault.NotFound
// for the path, fault.Invalid for the type.
func (r *Runner) Start(q Request) (Job, error) {
	switch q.Type {
	case Quick, Full:
		q.Path = ""
	case Custom:
		if !filepath.IsAbs(q.Path) {
			return Job{}, fault.New(fault.Invalid, "path %q: want an absolute path", q.Path)
		}
		if _, err := os.Lstat(q.Path); err != nil {
			return Job{}, fault.Wrap(fault.NotFound, err, "nothing to scan")
		}
	default:
		return Job{}, fault.New(fault.Invalid, "scan type %q: want quick, full or custom", q.Type)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.running != nil {
		return Job{}, fault.New(fault.Conflict, "scan %s is running; cancel it first or wait for it", r.running.view().ID)
	}
	r.next++
	s := &job{request: q, changed: make(chan struct{}), job: Job{ID: strconv.Itoa(r.next), Type: q.Type, State: Running, Path: q.Path, Start: time.Now().UTC()}}
	if !q.IgnoreExclusions {
		s.matcher = policy.NewMatcher(r.cfg.Settings().Exclusions, policy.ScopeEPP)
	}
	r.running = s
	r.start <- s // has room: nothing runs
	r.save()
	return s.view(), nil
}

// Run carries out scans until ctx ends.
func (r *Runner) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case s := <-r.start:
			r.carryOut(ctx, s)
		}
	}
}

func (r *Runner) carryOut(ctx context.Context, s *job) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.mu.Lock()
	cancelled := s.job.State == Cancelled
	s.cancel = cancel
	s.mu.Unlock()
	var err error
	if !cancelled {
		err = r.walk(ctx, s)
	}
	s.mu.Lock()
	switch {
	case ctx.Err() != nil || s.job.State == Cancelled:
		s.job.State = Cancelled
	case err != nil:
		s.job.State, s.job.Error = Failed, err.Error()
	default:
		s.job.State = Completed
	}
	s.job.End = time.Now().UTC()
	s.mu.Unlock()

	r.mu.Lock()
	r.past = slices.Insert(r.past, 0, s.view())
	r.past = r.past[:min(len(r.past), keep)]
	r.running = nil
	r.save()
	r.mu.Unlock()
	close(s.changed)
}

// save writes the list with the running scan in it. r.mu is held.
func (r *Runner) save() {
	text, err := json.Marshal(r.jobs())
	if err == nil {
		err = atomicfile.Write(r.cfg.History, text, 0o600)
	}
	if err != nil {
		r.cfg.Log.Warn("the list of scans could not be written", "error", err)
	}
}

func (r *Runner) jobs() []Job {
	list := slices.Clone(r.past)
	if r.running != nil {
		list = slices.Insert(list, 0, r.running.view())
	}
	return list
}

// Jobs returns running and past scans, newest first.
func (r *Runner) Jobs() []Job {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.jobs()
}

// Cancel stops the scan with this id, or the running one when id is "", and
// returns its last state. Errors: fault.NotFound when it does not run.
func (r *Runner) Cancel(id string) (Job, error) {
	r.mu.Lock()
	s := r.running
	r.mu.Unlock()
	if s == nil || id != "" && s.view().ID != id {
		return Job{}, fault.New(fault.NotFound, "no such scan is running")
	}
	s.mu.Lock()
	s.job.State = Cancelled
	if s.cancel != nil {
		s.cancel()
	}
	s.mu.Unlock()
	<-s.changed
	return s.view(), nil
}

// progressEvery is how often a watcher is told.
const progressEvery = 200 * time.Millisecond

// Watch calls progress at once, then while the scan goes on, and a last time
// with its final state. Errors: fault.NotFound, or that of progress or ctx.
func (r *Runner) Watch(ctx context.Context, id string, progress func(Job) error) error {
	r.mu.Lock()
	s := r.running
	i := slices.IndexFunc(r.past, func(j Job) bool { return j.ID == id })
	var past Job
	if i >= 0 {
		past = r.past[i]
	}
	r.mu.Unlock()
	if i >= 0 {
		return progress(past)
	}
	if s == nil || s.view().ID != id {
		return fault.New(fault.NotFound, "there is no scan %s", id)
	}
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	for {
		if j := s.view(); !j.done() {
			if err := progress(j); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.changed:
			return progress(s.view())
		case <-tick.C:
		}
	}
}
