package e2e

import (
	"encoding/json"
	"math/bits"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"komainu/drill"
)

// run runs a detection test by the command line.
func (s *stack) run(args ...string) (drill.Run, int) {
	s.t.Helper()
	out, code := s.cli(append([]string{"test", "run", "-o", "json"}, args...)...)
	var r drill.Run
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		s.t.Fatalf("test run %q: %d %v\n%s", args, code, err, out)
	}
	return r, code
}

// passes runs a test that has to arrive.
func (s *stack) passes(args ...string) drill.Run {
	s.t.Helper()
	r, code := s.run(args...)
	if code != 0 || r.Outcome != drill.Passed {
		s.t.Errorf("%q ends with %d, %s\n%s", args, code, r.Outcome, pretty(r))
	}
	return r
}

// explains runs a test that has to say why it did not arrive.
func (s *stack) explains(want drill.ReasonID, args ...string) {
	s.t.Helper()
	r, code := s.run(args...)
	if code != 1 || r.Outcome != drill.Explained || r.Reason == nil || r.Reason.ID != want || r.Reason.Text == "" || r.Reason.Remedy == "" {
		s.t.Errorf("%q ends with %d, want %s\n%s", args, code, want, pretty(r))
	}
}

func pretty(r drill.Run) string {
	b, _ := json.MarshalIndent(r, "", " ")
	return string(b)
}

// TestDetectionTests runs every detection test with the real programs, and
// then takes away what each needs: it has to say what.
func TestDetectionTests(t *testing.T) {
	if !onStage(t) {
		return
	}
	s := newStack(t)
	s.startControl("127.0.0.1:0")
	s.startAgent()

	s.explains(drill.NotEnrolled, "eicar")
	s.enrol()
	s.plan(false, "block")
	s.eventually("a policy has come", func() bool {
		out, _ := s.cli("health", "--field", "edr_configuration_version")
		return !strings.Contains(out, `"0"`)
	})
	s.explains(drill.PlanOff, "eicar", "--folder", s.demo)
	s.explains(drill.PlanOff, "behavior")

	s.plan(true, "block")
	s.scope("1 blocking")
	s.eventually("the agent is healthy", func() bool {
		out, _ := s.cli("health", "--field", "healthy")
		return strings.TrimSpace(out) == "true"
	})
	s.leastPrivilege()
	s.diagnosticsTellNoSecrets(filepath.Join(s.dir, "agent"))
	// The control plane has a new machine prove itself, and an agent runs one
	// test at a time.
	s.eventually("the agent is free for tests", func() bool {
		_, code := s.cli("test", "run", "eicar")
		return code == 0
	})
	for _, scenario := range drill.Scenarios() {
		if _, err := exec.LookPath("python3"); err != nil && scenario.ID == "edr-test-python" {
			s.explains(drill.ProgramMissing, scenario.ID)
			continue
		}
		r := s.passes(scenario.ID)
		if !scenario.Behavior && !strings.HasPrefix(r.Folder, s.demo+"/") {
			t.Errorf("%s was run in %s, which is not protected", scenario.ID, r.Folder)
		}
		last := r.Started
		for _, st := range r.Stages[:5] { // the clocks are one
			if st.State != drill.OK || st.At.Before(last.Add(-50*time.Millisecond)) {
				t.Errorf("%s: stage %+v after %s", scenario.ID, st, last)
			}
		}
	}
	out, code := s.cli("test", "run", "eicar")
	if code != 0 || !strings.Contains(out, "[ok] the kernel saw it") || !strings.Contains(out, "[ok] alert") || !strings.Contains(out, "It arrived") {
		t.Errorf("for people: %d\n%s", code, out)
	}
	s.fromThePortal()

	// What each of them needs, taken away.
	s.explains(drill.NotProtected, "eicar", "--folder", s.dir)
	s.do("exclusion", "folder", "add", "--path", s.demo, "--scope", "epp")
	s.explains(drill.Excluded, "eicar", "--folder", s.demo)
	s.do("exclusion", "folder", "remove", "--path", s.demo, "--scope", "epp")
	s.do("config", "real-time-protection", "--value", "disabled")
	s.explains(drill.RealTimeOff, "eicar", "--folder", s.demo)
	s.do("config", "real-time-protection", "--value", "enabled")
	s.scope("1 blocking")
	s.do("config", "scan-archives", "--value", "disabled")
	s.explains(drill.ArchivesOff, "eicar-archive")
	s.do("config", "scan-archives", "--value", "enabled")
	s.do("config", "behavior-monitoring", "--value", "disabled")
	s.explains(drill.BehaviorOff, "behavior")
	s.do("config", "behavior-monitoring", "--value", "enabled")
	s.do("threat", "allowed", "add", "--name", "Virus:DOS/EICAR_Test_File")
	s.explains(drill.ThreatAllowed, "policy-block")
	s.do("threat", "allowed", "remove", "--name", "Virus:DOS/EICAR_Test_File")
	s.plan(true, "watch")
	s.scope("1 watching")
	s.explains(drill.WatchOnly, "policy-block")
	if r := s.passes("eicar"); len(r.Warnings) != 1 || r.Warnings[0].ID != drill.WatchOnly {
		t.Errorf("where it is only watched: %s", pretty(r))
	}
	s.stopControl()
	s.explains(drill.LinkDown, "eicar")
}

func (s *stack) do(args ...string) {
	s.t.Helper()
	if out, code := s.cli(args...); code != 0 {
		s.t.Fatalf("%q: %d %s", args, code, out)
	}
}

// fromThePortal starts a test as the portal does.
func (s *stack) fromThePortal() {
	s.t.Helper()
	device := s.device()
	var run struct {
		drill.Run
		AlertID string
	}
	s.api("POST", "/api/v1/devices/"+device+"/detection-tests", map[string]string{"test": "eicar"}, &run)
	id := run.ID
	s.eventually("the run from the portal ends", func() bool {
		s.api("GET", "/api/v1/detection-tests/runs/"+id, nil, &run)
		return run.Outcome != drill.Running
	})
	if run.Outcome != drill.Passed || run.AlertID == "" {
		s.t.Errorf("from the portal: alert %q\n%s", run.AlertID, pretty(run.Run))
		return
	}
	var alert struct{ Test bool }
	s.api("GET", "/api/v1/alerts/"+run.AlertID, nil, &alert)
	if !alert.Test {
		s.t.Error("the alert is not marked as a test")
	}
	var list struct{ Total int }
	s.api("GET", "/api/v1/detection-tests/runs?device="+device, nil, &list)
	if list.Total < len(drill.Scenarios()) {
		s.t.Errorf("%d runs are listed", list.Total)
	}
}

// leastPrivilege holds what the agent's processes may against what they need.
// That they protect all the same is the rest of the test.
func (s *stack) leastPrivilege() {
	s.t.Helper()
	names := map[string]string{}
	tree, err := os.ReadDir("/proc")
	s.must(err)
	for _, p := range tree {
		line, err := os.ReadFile(filepath.Join("/proc", p.Name(), "cmdline"))
		args := strings.Split(string(line), "\x00")
		exe, _ := os.Readlink(filepath.Join("/proc", p.Name(), "exe"))
		if err != nil || len(args) < 2 || exe != filepath.Join(s.bin, "komainud") {
			continue
		}
		status, err := os.ReadFile(filepath.Join("/proc", p.Name(), "status"))
		if err != nil {
			continue
		}
		fields := map[string]string{}
		for text := range strings.Lines(string(status)) {
			key, value, _ := strings.Cut(text, ":")
			fields[key] = strings.TrimSpace(value)
		}
		role := args[1]
		names[role] = fields["CapEff"]
		if fields["NoNewPrivs"] != "1" {
			s.t.Errorf("%s may gain privileges", role)
		}
		threads, err := filepath.Glob(filepath.Join("/proc", p.Name(), "task/*/status"))
		s.must(err)
		for _, thread := range threads {
			// One that has ended meanwhile says nothing.
			if text, err := os.ReadFile(thread); err == nil && !strings.Contains(string(text), "Seccomp:\t2") {
				s.t.Errorf("a thread of %s may make every system call", role)
			}
		}
		for _, set := range []string{"CapEff", "CapPrm", "CapBnd", "CapInh"} {
			caps, err := strconv.ParseUint(fields[set], 16, 64)
			s.must(err)
			for what, bit := range map[string]uint{"load modules": 16, "use raw I/O": 17, "set the clock": 25, "make devices": 27, "change the audit": 30, "use raw sockets": 13, "reboot": 22} {
				if caps&(1<<bit) != 0 {
					s.t.Errorf("%s may %s (%s)", role, what, set)
				}
			}
			if role == "broker" && set != "CapInh" && bits.OnesCount64(caps) > 5 || role == "scanner" && set == "CapEff" && caps != 0 {
				s.t.Errorf("%s has %s %s", role, set, fields[set])
			}
		}
	}
	for _, role := range []string{"run", "worker", "broker", "scanner"} {
		if _, seen := names[role]; !seen {
			s.t.Errorf("no %s runs: %v", role, names)
		}
	}
}
