package realtime_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"komainu/agent/realtime"
	"komainu/internal/need"
	"komainu/policy"
)

// The test binary plays all roles: a stage in private mount and pid namespaces
// with a filesystem of its own, guardian, broker and worker, and the programs
// that open files. Whatever goes wrong, the stage ends with the deadline and
// the kernel then ends all that lives in its pid namespace, so that no open on
// this machine can wait for ever.
const (
	envRole  = "KOMAINU_TEST_ROLE"
	envMount = "KOMAINU_TEST_MOUNT"
	envMode  = "KOMAINU_TEST_MODE"
	envLate  = "KOMAINU_TEST_LATE" // how long the worker takes to end
	deadline = 90 * time.Second
)

// badMark is what the test's judge takes for malware.
const badMark = "BAD CONTENT"

func TestMain(m *testing.M) {
	var err error
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	switch role := os.Getenv(envRole); role {
	case "", "stage": // the latter is the test itself, inside of the namespaces
		stop()
		os.Exit(m.Run())
	case "guard":
		program, _ := os.Executable()
		err = realtime.Guard(ctx, realtime.GuardConfig{Log: testLog(), Command: func(role string) *exec.Cmd {
			cmd := exec.Command(program)
			cmd.Env = append(os.Environ(), envRole+"="+role)
			cmd.Stderr = os.Stderr
			return cmd
		}})
	case "broker":
		err = realtime.RunBroker(ctx, testLog())
	case "worker":
		err = runWorker(ctx)
	case "opener":
		err = runOpener(os.Args[1:])
	case "tempted":
		err = runTempted(os.Args[1], os.Args[2])
	default:
		err = fmt.Errorf("no role %q", role)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func testLog() *slog.Logger { return slog.New(slog.NewTextHandler(os.Stderr, nil)) }

// contentJudge denies files that begin with badMark. It never ends for files
// called hang*, takes longer than the deadline for slow* and half of it for
// half*, and writes what it was asked to a log: kind, name, what was known,
// reason, time.
type contentJudge struct{ log *os.File }

func (j contentJudge) Judge(ctx context.Context, o realtime.Open) realtime.Decision {
	name := filepath.Base(o.Path)
	fmt.Fprintf(j.log, "%d %s %d %q %d\n", o.Kind, name, o.Known, o.Reason, time.Now().UnixNano())
	switch {
	case strings.HasPrefix(name, "hang"):
		<-ctx.Done()
		return realtime.Decision{}
	case strings.HasPrefix(name, "slow"):
		<-time.After(realtime.Deadline + 200*time.Millisecond)
	case strings.HasPrefix(name, "half"):
		<-time.After(realtime.Deadline / 2)
	}
	head := make([]byte, len(badMark))
	n, err := o.File.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return realtime.Decision{}
	}
	return realtime.Decision{Deny: string(head[:n]) == badMark && o.Mode == policy.Block, Cache: true}
}

// invalidate is told to the worker in place of a mode.
const invalidate policy.Mode = "invalidate"

// runWorker is the role "worker". It does what it is told over a socket beside
// the filesystem.
func runWorker(ctx context.Context) error {
	h, err := realtime.Attach(testLog())
	if err != nil {
		return err
	}
	mount := os.Getenv(envMount)
	log, err := os.OpenFile(filepath.Join(filepath.Dir(mount), "judged"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx, contentJudge{log}) }()
	set := func(mode policy.Mode) error {
		return h.SetMarks(ctx, []realtime.Mark{{Path: mount, Mode: mode}})
	}
	if err := set(policy.Mode(os.Getenv(envMode))); err != nil {
		return err
	}
	fmt.Fprintln(log, "0 ready")
	control := filepath.Join(filepath.Dir(mount), "control")
	_ = os.Remove(control)
	l, err := net.Listen("unix", control)
	if err != nil {
		return err
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			var mode policy.Mode
			switch {
			case json.NewDecoder(conn).Decode(&mode) != nil || mode == "":
			case mode == invalidate:
				err = h.Invalidate()
			default:
				err = set(mode)
			}
			if err != nil {
				fmt.Fprintln(os.Stderr, "set marks:", err)
			}
			_ = json.NewEncoder(conn).Encode(h.Stats())
			_ = conn.Close()
		}
	}()
	err = <-done
	late, _ := time.ParseDuration(os.Getenv(envLate))
	<-time.After(late)
	return err
}

// starvation is what a thread that waits for nobody notices of a machine that
// gives it no processor.
type starvation struct {
	mu     sync.Mutex
	stalls [][2]time.Time
}

// watch sleeps for two milliseconds, over and over, and notes each time that
// became ten times as much. No process of the agent is asked for that.
func (s *starvation) watch(ctx context.Context) {
	runtime.LockOSThread()
	for ctx.Err() == nil {
		began := time.Now()
		pause := unix.NsecToTimespec(int64(2 * time.Millisecond))
		_ = unix.Nanosleep(&pause, nil)
		if end := time.Now(); end.Sub(began) > 20*time.Millisecond {
			s.mu.Lock()
			s.stalls = append(s.stalls, [2]time.Time{began, end})
			s.mu.Unlock()
		}
	}
}

// within returns how much of a time was starved.
func (s *starvation) within(from, to time.Time) (sum time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, stall := range s.stalls {
		begin, end := stall[0], stall[1]
		if begin.Before(from) {
			begin = from
		}
		if end.After(to) {
			end = to
		}
		sum += max(0, end.Sub(begin))
	}
	return sum
}

// runOpener opens and reads files over and over. When its input ends it prints
// the longest time that one open took, in microseconds, how many there were,
// and for how long the machine gave it no processor meanwhile.
func runOpener(names []string) error {
	ctx, stop := context.WithCancel(context.Background())
	began := time.Now()
	var starved starvation
	go starved.watch(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	longest := make([]time.Duration, len(names))
	opens := make([]int, len(names))
	var all sync.WaitGroup
	for i, name := range names {
		all.Go(func() {
			for ctx.Err() == nil {
				start := time.Now()
				f, err := os.Open(name)
				longest[i] = max(longest[i], time.Since(start))
				opens[i]++
				if err != nil {
					continue
				}
				// A write drops the kernel's mark, so that the next open asks again.
				if w, err := os.OpenFile(name, os.O_WRONLY, 0); err == nil {
					_, _ = w.Write([]byte{'x'})
					_ = w.Close()
				}
				_ = f.Close()
			}
		})
	}
	all.Wait()
	var most time.Duration
	sum := 0
	for i := range names {
		most = max(most, longest[i])
		sum += opens[i]
	}
	fmt.Println(most.Microseconds(), sum, starved.within(began, time.Now()).Microseconds())
	return nil
}

// stage is a filesystem of its own, and the guardian that runs over it.
type stage struct {
	t     testing.TB
	mount string
	guard *exec.Cmd
	ended chan struct{}
	// program is what the guardian is started from.
	program string
}

// inStage runs the rest of the test in private namespaces. It returns false in
// the outer process, whose test is over then.
func inStage(t testing.TB) (*stage, bool) {
	t.Helper()
	need.Root(t)
	need.Program(t, "mkfs.ext4")
	if os.Getenv(envRole) != "stage" {
		playStage(t)
		return nil, false
	}
	dir := t.TempDir()
	must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	must(t, unix.Mount("proc", "/proc", "proc", 0, "")) // of the new pid namespace
	s := &stage{t: t, mount: filepath.Join(dir, "mount"), program: "/proc/self/exe"}
	must(t, os.Mkdir(s.mount, 0o755))
	image := filepath.Join(dir, "image")
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, 256<<20))
	run(t, "mkfs.ext4", "-q", "-F", "-N", "60000", image)
	run(t, "mount", "-o", "loop", image, s.mount)
	t.Cleanup(func() { _ = unix.Unmount(s.mount, unix.MNT_DETACH) })
	s.write("clean", "nothing to see")
	s.write("bad", badMark)
	s.write("hang", "the judge never ends")
	s.write("slow", badMark)
	s.write("script", "#!/bin/sh\nexit 0\n")
	t.Setenv(envMount, s.mount)
	return s, true
}

// playStage runs the test again, in namespaces that end with it.
func playStage(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	which := []string{"-test.run=^" + t.Name() + "$", "-test.v"}
	if _, ok := t.(*testing.B); ok {
		which = []string{"-test.run=^$", "-test.bench=^" + t.Name() + "$", "-test.benchtime=1x"}
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", which...)
	cmd.Env = append(os.Environ(), envRole+"=stage")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func run(t testing.TB, name string, args ...string) {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

func (s *stage) write(name, content string) {
	s.t.Helper()
	must(s.t, os.WriteFile(s.path(name), []byte(content), 0o755))
}

func (s *stage) path(name string) string { return filepath.Join(s.mount, name) }

// play starts the agent and ends it with the test.
func (s *stage) play(mode policy.Mode) {
	s.t.Helper()
	s.t.Setenv(envMode, string(mode))
	s.start()
	s.t.Cleanup(func() {
		_ = s.guard.Process.Kill()
		<-s.ended
	})
}

// start starts a guardian and waits until the worker has set its marks.
func (s *stage) start() {
	s.t.Helper()
	before := s.judged("0 ready")
	s.guard = exec.Command(s.program)
	s.guard.Env = append(os.Environ(), envRole+"=guard")
	s.guard.Stderr = os.Stderr
	must(s.t, s.guard.Start())
	s.ended = make(chan struct{})
	go func(cmd *exec.Cmd, ended chan struct{}) {
		_ = cmd.Wait()
		close(ended)
	}(s.guard, s.ended)
	s.eventually("the worker is ready", func() bool { return s.judged("0 ready") > before })
}

// eventually waits for a condition.
func (s *stage) eventually(what string, ok func() bool) {
	s.t.Helper()
	limit := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			s.t.Fatalf("waited too long until %s", what)
		}
	}
}

// judged counts the lines of the judge's log that begin with a text.
func (s *stage) judged(prefix string) int { return len(s.judgements(prefix)) }

// judgements returns those lines.
func (s *stage) judgements(prefix string) (lines []string) {
	text, err := os.ReadFile(filepath.Join(filepath.Dir(s.mount), "judged"))
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, prefix) {
			lines = append(lines, line)
		}
	}
	return lines
}

// stats asks the worker for its counters, after it has set another mode if
// one is named.
func (s *stage) stats(mode ...policy.Mode) realtime.Stats {
	s.t.Helper()
	var stats realtime.Stats
	s.eventually("the worker tells its counters", func() bool {
		conn, err := net.DialTimeout("unix", filepath.Join(filepath.Dir(s.mount), "control"), time.Second)
		if err != nil {
			return false
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		return json.NewEncoder(conn).Encode(strings.Join(asStrings(mode), "")) == nil && json.NewDecoder(conn).Decode(&stats) == nil
	})
	return stats
}

func asStrings(modes []policy.Mode) (s []string) {
	for _, m := range modes {
		s = append(s, string(m))
	}
	return s
}

// denied reports whether another process may not read a file.
func (s *stage) denied(name string) bool {
	s.t.Helper()
	out, err := exec.Command("cat", s.path(name)).CombinedOutput()
	if err == nil {
		return false
	}
	if !bytes.Contains(out, []byte("not permitted")) {
		s.t.Errorf("cat %s: %v: %s", name, err, out)
	}
	if bytes.Contains(out, []byte(badMark)) {
		s.t.Errorf("bytes reached the reader: %s", out)
	}
	return true
}

// pids returns the processes that play a role.
func pids(role string) (found []int) {
	names, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, name := range names {
		env, _ := os.ReadFile(name)
		last := ""
		for v := range bytes.SplitSeq(env, []byte{0}) {
			if after, ok := bytes.CutPrefix(v, []byte(envRole+"=")); ok {
				last = string(after)
			}
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name))); err == nil && last == role {
			found = append(found, pid)
		}
	}
	return found
}

// pid returns the one process that plays a role.
func (s *stage) pid(role string) (pid int) {
	s.t.Helper()
	s.eventually("one "+role+" runs", func() bool {
		found := pids(role)
		if len(found) == 1 {
			pid = found[0]
		}
		return len(found) == 1
	})
	return pid
}

// opener is a program that opens files all the time.
type opener struct {
	s   *stage
	cmd *exec.Cmd
	in  io.Closer
	out bytes.Buffer
	// starved is, after end, for how long the machine had no processor for a
	// program that waits for nobody.
	starved time.Duration
}

func (s *stage) opener(names ...string) *opener {
	s.t.Helper()
	o := &opener{s: s}
	var paths []string
	for _, name := range names {
		s.write(name, "nothing to see")
		paths = append(paths, s.path(name))
	}
	o.cmd = exec.Command("/proc/self/exe", paths...)
	o.cmd.Env = append(os.Environ(), envRole+"=opener")
	o.cmd.Stdout = &o.out
	in, err := o.cmd.StdinPipe()
	must(s.t, err)
	o.in = in
	must(s.t, o.cmd.Start())
	before := s.stats().Events
	s.eventually("the opener opens", func() bool { return s.stats().Events > before+20 })
	return o
}

// end returns the longest time that an open took, and how many there were.
func (o *opener) end() (longest time.Duration, opens int) {
	o.s.t.Helper()
	must(o.s.t, o.in.Close())
	must(o.s.t, o.cmd.Wait())
	var us, starved int64
	if _, err := fmt.Sscan(o.out.String(), &us, &opens, &starved); err != nil {
		o.s.t.Fatalf("the opener said %q: %v", o.out.String(), err)
	}
	o.starved = time.Duration(starved) * time.Microsecond
	return time.Duration(us) * time.Microsecond, opens
}
