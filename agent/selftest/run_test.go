package selftest_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"komainu/agent/selftest"
	"komainu/drill"
	"komainu/event"
	"komainu/fault"
	"komainu/finding"
	"komainu/policy"
)

// host is an agent around a runner: what the exercise makes happen is for the
// test to say.
type host struct {
	runner  *selftest.Runner
	mu      sync.Mutex
	reports []drill.Run
	folder  string
}

func newHost(t *testing.T, exercise func(h *host, file string)) *host {
	t.Helper()
	h := &host{folder: t.TempDir()}
	h.runner = selftest.New(selftest.Config{
		Folders: func() []string { return []string{h.folder} },
		Place:   func(string) selftest.Place { return selftest.Place{Mount: "/", Mode: policy.Block, Marked: true} },
		Facts:   fine, Patience: time.Second,
		Report: func(r drill.Run) {
			h.mu.Lock()
			h.reports = append(h.reports, r)
			h.mu.Unlock()
			if r.Finding == "" || r.Outcome != drill.Running {
				return
			}
			h.runner.Answer(r.ID, []drill.Stage{
				{ID: drill.Kernel, State: drill.Missing}, // not the control plane's to say
				{ID: drill.Alert, State: drill.OK, At: time.Now(), Detail: "found"}, {ID: drill.Incident, State: drill.OK, At: time.Now()},
				{ID: drill.Notification, State: drill.Skipped, Detail: "none"},
			})
		},
		Exercise: func(_ context.Context, folder string, files []selftest.File) (selftest.Exercised, error) {
			exercise(h, filepath.Join(folder, files[0].Name))
			return selftest.Exercised{Denied: 1}, nil
		},
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	return h
}

// run runs a test to its end.
func (h *host) run(t *testing.T, test string) drill.Run {
	t.Helper()
	started, err := h.runner.Start(t.Context(), selftest.Request{Test: test})
	if err != nil {
		t.Fatal(err)
	}
	var last drill.Run
	if err := h.runner.Watch(t.Context(), started.ID, func(r drill.Run) error { last = r; return nil }); err != nil {
		t.Fatal(err)
	}
	return last
}

func malware(id finding.ID, file string, state finding.State) *finding.Finding {
	return &finding.Finding{ID: id, Time: time.Now(), Title: "found", Source: finding.SourceAntivirus, State: state, Threat: &event.Threat{Name: "Virus:DOS/EICAR_Test_File"},
		Evidence: []finding.Evidence{{File: &event.File{Path: file}}}}
}

func TestOnlyWhatTheRunHasDoneIsATest(t *testing.T) {
	h := newHost(t, func(h *host, file string) {
		h.runner.Opened(file, nil)
		elsewhere := malware("1", "/srv/www/upload.php", finding.Quarantined)
		other := malware("2", file, finding.Quarantined)
		other.Threat.Name = "Trojan:Linux/Real.A"
		beside := malware("3", filepath.Dir(file)+"-beside/eicar.com", finding.Quarantined)
		behaviour := &finding.Finding{ID: "4", Source: finding.SourceBehavior, Rule: finding.Rule{ID: "reverse-shell"}, Tree: []event.Process{{Path: file}}}
		for _, f := range []*finding.Finding{elsewhere, other, beside, behaviour} {
			if h.runner.Found(f); f.Test {
				t.Errorf("finding %s is taken for a test", f.ID)
			}
		}
		ours := malware("5", file, finding.Quarantined)
		if h.runner.Found(ours); !ours.Test {
			t.Error("the finding of the run is not marked")
		}
		h.runner.Recorded("5", []byte("record"))
		h.runner.Handed(10, [][]byte{[]byte("other"), []byte("record")})
		h.runner.Acknowledged(10) // the one before
		h.runner.Acknowledged(11)
	})
	r := h.run(t, "eicar")
	if r.Outcome != drill.Passed || r.Finding != "5" || r.Stage(drill.Kernel).State != drill.OK || r.Stage(drill.Received).State != drill.OK {
		t.Errorf("%+v", r)
	}
	if left, err := filepath.Glob(filepath.Join(h.folder, "*")); err != nil || left != nil {
		t.Errorf("it leaves %q behind", left)
	}
	after := malware("6", r.Folder+"/eicar.com", finding.Quarantined)
	if h.runner.Found(after); after.Test {
		t.Error("a finding after the run is taken for a test")
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if last := h.reports[len(h.reports)-1]; last.Outcome != drill.Passed {
		t.Errorf("the control plane is told %s", last.Outcome)
	}
}

func TestAnExclusionThatWasHitIsTheReason(t *testing.T) {
	h := newHost(t, func(h *host, file string) {
		h.runner.Opened(file, &policy.Exclusion{Type: policy.ExcludeProcess, Value: "komainud", Scope: policy.ScopeEPP})
	})
	r := h.run(t, "eicar")
	if r.Outcome != drill.Explained || r.Reason.ID != drill.Excluded || r.Reason.Detail != "process komainud (scope epp)" || r.Stage(drill.Kernel).State != drill.OK || r.Stage(drill.Agent).State != drill.Missing {
		t.Errorf("%+v %+v", r, r.Reason)
	}
}

func TestDetectedIsNotBlocked(t *testing.T) {
	for state, want := range map[finding.State]drill.ReasonID{finding.Detected: drill.WatchOnly, finding.Allowed: drill.ThreatAllowed} {
		h := newHost(t, func(h *host, file string) {
			h.runner.Found(malware("1", file, state))
			h.runner.Recorded("1", []byte("r"))
			h.runner.Handed(1, [][]byte{[]byte("r")})
			h.runner.Acknowledged(1)
		})
		if r := h.run(t, "policy-block"); r.Outcome != drill.Explained || r.Reason.ID != want {
			t.Errorf("%s: %+v", state, r.Reason)
		}
	}
}

func TestWhatIsRefused(t *testing.T) {
	began, goOn := make(chan struct{}), make(chan struct{})
	h := newHost(t, func(*host, string) { close(began); <-goOn })
	for want, req := range map[fault.Kind][]selftest.Request{
		fault.NotFound: {{Test: "reboot"}, {Test: ""}},
		fault.Invalid:  {{Test: "eicar", Folder: "relative"}, {Test: "eicar", Folder: "/nowhere/at/all"}, {Test: "eicar", ID: "a b"}, {Test: "eicar", ID: strings.Repeat("x", 65)}},
	} {
		for _, r := range req {
			if _, err := h.runner.Start(t.Context(), r); !fault.Is(err, want) {
				t.Errorf("%+v: %v", r, err)
			}
		}
	}
	run, err := h.runner.Start(t.Context(), selftest.Request{Test: "eicar", ID: "mine"})
	if err != nil || run.ID != "mine" {
		t.Fatal(run, err)
	}
	<-began
	if _, err := h.runner.Start(t.Context(), selftest.Request{Test: "eicar"}); !fault.Is(err, fault.Conflict) {
		t.Errorf("a second run: %v", err)
	}
	close(goOn)
	if err := h.runner.Watch(t.Context(), "mine", func(drill.Run) error { return nil }); err != nil {
		t.Error(err)
	}
	if err := h.runner.Watch(t.Context(), "other", nil); !fault.Is(err, fault.NotFound) {
		t.Errorf("a run that there is none of: %v", err)
	}
}
