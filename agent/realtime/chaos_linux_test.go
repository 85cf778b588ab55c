package realtime_test

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"komainu/policy"
)

// chaos is one round.
type chaos struct {
	roles  string
	signal syscall.Signal
	most   time.Duration
	gap    string // whose absence lets opens through, which must show
}

// starvedRounds is how often a round is played again on a machine that had no
// processor even for who waits for nobody.
const starvedRounds = 4

// TestChaos kills and stops processes while somebody opens files. What is
// promised is how long the agent holds an open, not how long a machine without
// a free processor does: a round that took too long is played again if, and
// only if, an independent thread was kept waiting in it too.
func TestChaos(t *testing.T) {
	s, inside := inStage(t)
	if !inside {
		return
	}
	s.play(policy.Block)
	for _, c := range []chaos{
		// What is killed is back so soon that openers may just wait for it.
		{"worker", syscall.SIGKILL, longestWait, ""},
		{"broker", syscall.SIGKILL, longestWait, ""},
		{"worker broker", syscall.SIGKILL, longestWait, ""},
		{"worker", syscall.SIGSTOP, longestWait, "worker"},
		{"broker", syscall.SIGSTOP, longestWait, "broker"},
		{"guard", syscall.SIGKILL, longestWait, ""},
		{"guard", syscall.SIGSTOP, longestWait, ""},
		{"guard broker worker", syscall.SIGKILL, longestWait, ""},
		// Two at once are not promised to be quick, but to end.
		{"broker worker", syscall.SIGSTOP, longestWait, "broker"},
		{"guard broker", syscall.SIGSTOP, 3 * time.Second, ""},
		{"guard worker", syscall.SIGSTOP, 3 * time.Second, ""},
	} {
		for left := starvedRounds; ; left-- {
			longest, starved := s.chaos(t, c)
			if longest <= c.most {
				break
			}
			if left > 0 && starved > 50*time.Millisecond {
				t.Logf("%s %s: an open took %s on a machine that was starved for %s: once more", c.roles, c.signal, longest, starved)
				continue
			}
			t.Errorf("%s %s: an open took %s; the machine was starved for %s", c.roles, c.signal, longest, starved)
			break
		}
	}
}

// chaos plays a round and returns the longest open, and for how long the
// machine was starved.
func (s *stage) chaos(t *testing.T, c chaos) (longest, starved time.Duration) {
	t.Helper()
	opener := s.opener("victim1", "victim2", "victim3")
	before, missed := s.stats(), s.missed(c.gap)
	guard := strings.Contains(c.roles, "guard")
	var victims []int
	for role := range strings.FieldsSeq(c.roles) {
		victims = append(victims, s.pid(role))
	}
	for _, pid := range victims {
		must(t, syscall.Kill(pid, c.signal))
	}
	if guard {
		// The supervisor's work: the guardian ends, by the signal or by
		// another's hand, and is started again.
		select {
		case <-s.ended:
		case <-time.After(10 * time.Second):
			t.Fatalf("%s of %s: nobody has ended the guardian", c.signal, c.roles)
		}
		s.start()
	}
	s.eventually("others are in the place of "+c.roles, func() bool {
		return !slices.ContainsFunc(victims, lives)
	})
	s.eventually("protection is back after "+c.roles+" "+c.signal.String(), func() bool {
		// A file that is denied cannot be written to either.
		_ = os.Remove(s.path("again"))
		s.write("again", badMark)
		return s.denied("again")
	})
	longest, opens := opener.end()
	t.Logf("%-20s %-16s longest open %s of %d", c.roles, c.signal, longest.Round(time.Millisecond), opens)
	after := s.stats()
	if c.gap != "" {
		if after.Unscanned() == before.Unscanned() {
			t.Errorf("%s %s: opens were let through and not counted: %+v", c.roles, c.signal, after)
		}
		s.eventually("what was let through is judged afterwards", func() bool { return s.missed(c.gap) > missed })
	}
	if guard && (after.BrokerRuns != 1 || after.WorkerRuns != 1) {
		t.Errorf("%s %s: counters of a former life: %+v", c.roles, c.signal, after)
	}
	sums(t, after, 8)
	return longest, opener.starved
}

// missed counts the files that were judged after they had been let through.
func (s *stage) missed(reason string) (n int) {
	for _, line := range s.judgements("4 ") {
		if strings.Contains(line, strconv.Quote(reason)) {
			n++
		}
	}
	return n
}

// lives is false for what waits to be reaped, too.
func lives(pid int) bool {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && !strings.Contains(string(text), ") Z ")
}

// TestProgramOnProtectedFilesystem runs the agent from the filesystem that it
// protects: to start a broker, the kernel asks whether it may be executed, when
// there is none to answer.
func TestProgramOnProtectedFilesystem(t *testing.T) {
	s, inside := inStage(t)
	if !inside {
		return
	}
	program, err := os.ReadFile("/proc/self/exe")
	must(t, err)
	s.program = s.path("agent")
	must(t, os.WriteFile(s.program, program, 0o755))
	s.play(policy.Block)
	opener := s.opener("victim")
	for range 8 {
		pid := s.pid("broker")
		must(t, syscall.Kill(pid, syscall.SIGKILL))
		s.eventually("a new broker runs", func() bool { return s.pid("broker") != pid })
	}
	s.eventually("protection is back", func() bool { return s.denied("bad") })
	if longest, opens := opener.end(); longest > longestWait {
		t.Errorf("an open of %d took %s", opens, longest)
	}
}

// TestCleanEnd ends the agent as a supervisor does, with a worker that takes
// its time: nobody waits meanwhile.
func TestCleanEnd(t *testing.T) {
	s, inside := inStage(t)
	if !inside {
		return
	}
	t.Setenv(envLate, "1.5s")
	s.play(policy.Block)
	opener := s.opener("victim")
	began := time.Now()
	must(t, s.guard.Process.Signal(syscall.SIGTERM))
	select {
	case <-s.ended:
	case <-time.After(8 * time.Second):
		t.Fatal("the guardian does not end")
	}
	if !s.guard.ProcessState.Success() || time.Since(began) < time.Second {
		t.Errorf("the guardian ended after %s: %s", time.Since(began), s.guard.ProcessState)
	}
	if left := append(pids("broker"), pids("worker")...); len(left) != 0 {
		t.Errorf("processes are left: %v", left)
	}
	if longest, opens := opener.end(); longest > longestWait {
		t.Errorf("an open of %d took %s", opens, longest)
	}
	if s.denied("bad") {
		t.Error("a file is denied by nobody")
	}
}

// TestIdle measures what the three processes use of a processor when nothing
// happens.
func TestIdle(t *testing.T) {
	s, inside := inStage(t)
	if !inside {
		return
	}
	s.play(policy.Block)
	victims := []int{s.pid("guard"), s.pid("broker"), s.pid("worker")}
	const period = 5 * time.Second
	var before [3]time.Duration
	for i, pid := range victims {
		before[i] = processorTime(t, pid)
	}
	<-time.After(period)
	var sum time.Duration
	for i, pid := range victims {
		used := processorTime(t, pid) - before[i]
		t.Logf("%s: %.2f %%, %d kB", []string{"guardian", "broker", "worker"}[i], 100*used.Seconds()/period.Seconds(), resident(t, pid))
		sum += used
	}
	if percent := 100 * sum.Seconds() / period.Seconds(); percent > 1.5 {
		t.Errorf("%.2f %% of a processor when idle", percent)
	}
}

// processorTime sums over the threads of a process.
func processorTime(t *testing.T, pid int) (sum time.Duration) {
	t.Helper()
	names, err := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/schedstat")
	must(t, err)
	for _, name := range names {
		text, err := os.ReadFile(name)
		must(t, err)
		ns, err := strconv.ParseInt(strings.Fields(string(text))[0], 10, 64)
		must(t, err)
		sum += time.Duration(ns)
	}
	return sum
}

// resident returns the anonymous memory of a process in kB.
func resident(t *testing.T, pid int) (kb int) {
	t.Helper()
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/smaps_rollup")
	must(t, err)
	for line := range strings.Lines(string(text)) {
		if after, ok := strings.CutPrefix(line, "Pss:"); ok {
			kb, err = strconv.Atoi(strings.Fields(after)[0])
			must(t, err)
		}
	}
	return kb
}
