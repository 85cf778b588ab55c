package realtime_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"komainu/agent/realtime"
	"komainu/internal/need"
	"komainu/policy"
)

// The test binary plays all roles: a stage in a private mount namespace with
// a filesystem of its own, guardian, broker and worker, and the programs that
// open files. Whatever goes wrong, the stage and all that it started end with
// the deadline, so that no open on this machine can wait for ever.
const (
	envRole  = "KOMAINU_TEST_ROLE"
	envMount = "KOMAINU_TEST_MOUNT"
	deadline = 60 * time.Second
)

// badMark is what the test's judge takes for malware.
const badMark = "BAD CONTENT"

func TestMain(m *testing.M) {
	var err error
	switch role := os.Getenv(envRole); role {
	case "":
		os.Exit(m.Run())
	case "stage":
		os.Exit(m.Run()) // the test itself, inside of the namespace
	case "guard":
		err = realtime.Guard(context.Background(), realtime.GuardConfig{Log: testLog(), Command: func(role string) *exec.Cmd {
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(os.Environ(), envRole+"="+role)
			cmd.Stderr = os.Stderr
			return cmd
		}})
	case "broker":
		err = realtime.RunBroker(context.Background(), testLog())
	case "worker":
		err = runWorker()
	case "opener":
		err = runOpener(os.Args[1])
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

// contentJudge denies files that begin with badMark, never ends for files
// called hang*, and writes what it was asked to a log.
type contentJudge struct{ log *os.File }

func (j contentJudge) Judge(ctx context.Context, o realtime.Open) realtime.Decision {
	fmt.Fprintf(j.log, "%d %s\n", o.Kind, filepath.Base(o.Path))
	if strings.HasPrefix(filepath.Base(o.Path), "hang") {
		<-ctx.Done()
		return realtime.Decision{}
	}
	head := make([]byte, len(badMark))
	n, err := o.File.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return realtime.Decision{}
	}
	return realtime.Decision{Deny: string(head[:n]) == badMark && o.Mode == policy.Block, Cache: true}
}

func runWorker() error {
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
	go func() { done <- h.Run(context.Background(), contentJudge{log}) }()
	if err := h.SetMarks(context.Background(), []realtime.Mark{{Path: mount, Mode: policy.Mode(os.Getenv("KOMAINU_TEST_MODE"))}}); err != nil {
		return err
	}
	fmt.Fprintln(log, "0 ready")
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-tick.C:
			s := h.Stats()
			text := fmt.Sprintf("%d %d %d %d %d %d %d", s.Events, s.Denied, s.Cached, s.Unscanned(), s.BrokerRuns, s.WorkerRuns, s.Allowed)
			// The file is outside of the marked filesystem.
			if err := os.WriteFile(filepath.Join(filepath.Dir(mount), "stats"), []byte(text), 0o600); err != nil {
				return err
			}
		}
	}
}

// runOpener opens and reads a file over and over and prints the longest time
// that one took, in microseconds, when its input ends.
func runOpener(name string) error {
	stop := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(stop)
	}()
	var longest time.Duration
	opens := 0
	for {
		select {
		case <-stop:
			fmt.Println(longest.Microseconds(), opens)
			return nil
		default:
		}
		start := time.Now()
		f, err := os.Open(name)
		longest = max(longest, time.Since(start))
		opens++
		if err == nil {
			// A write drops the kernel's mark, so that the next open asks again.
			if w, err := os.OpenFile(name, os.O_WRONLY, 0); err == nil {
				_, _ = w.Write([]byte{'x'})
				_ = w.Close()
			}
			_ = f.Close()
		}
	}
}

// stage is a running guardian over a filesystem of its own.
type stage struct {
	t     *testing.T
	mount string
	guard *exec.Cmd
	ended chan struct{}
}

// inStage runs the rest of the test in a private mount namespace. It returns
// false in the outer process, whose test is over then.
func inStage(t *testing.T, mode policy.Mode) (*stage, bool) {
	t.Helper()
	need.Root(t)
	need.Program(t, "mkfs.ext4")
	if os.Getenv(envRole) != "stage" {
		ctx, cancel := context.WithTimeout(t.Context(), deadline)
		defer cancel()
		cmd := exec.CommandContext(ctx, "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), envRole+"=stage")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if testing.Verbose() {
			t.Logf("%s", out)
		}
		return nil, false
	}
	dir := t.TempDir()
	must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	must(t, unix.Mount("proc", "/proc", "proc", 0, "")) // of the new pid namespace
	s := &stage{t: t, mount: filepath.Join(dir, "mount"), ended: make(chan struct{})}
	must(t, os.Mkdir(s.mount, 0o755))
	image := filepath.Join(dir, "image")
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, 32<<20))
	run(t, "mkfs.ext4", "-q", "-F", image)
	run(t, "mount", "-o", "loop", image, s.mount)
	t.Cleanup(func() { _ = unix.Unmount(s.mount, unix.MNT_DETACH) })
	s.write("clean", "nothing to see")
	s.write("bad", badMark)
	s.write("hang", "the judge never ends")
	s.write("script", "#!/bin/sh\nexit 0\n")
	t.Setenv(envMount, s.mount)
	t.Setenv("KOMAINU_TEST_MODE", string(mode))
	s.start()
	t.Cleanup(func() {
		_ = s.guard.Process.Kill()
		<-s.ended
	})
	return s, true
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func (s *stage) write(name, content string) {
	s.t.Helper()
	must(s.t, os.WriteFile(s.path(name), []byte(content), 0o755))
}

func (s *stage) path(name string) string { return filepath.Join(s.mount, name) }

// start starts a guardian and waits until the worker has set its marks.
func (s *stage) start() {
	s.t.Helper()
	before := s.judged("0 ready")
	s.guard = exec.Command("/proc/self/exe")
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
	limit := time.After(15 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			s.t.Fatalf("waited too long until %s; stats %v", what, s.stats())
		}
	}
}

// judged counts the lines of the judge's log that begin with a text.
func (s *stage) judged(prefix string) int {
	text, err := os.ReadFile(filepath.Join(filepath.Dir(s.mount), "judged"))
	if err != nil {
		return 0
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, prefix) {
			n++
		}
	}
	return n
}

// stats returns events, denied, cached, unscanned, broker runs, worker runs,
// allowed.
func (s *stage) stats() (n [7]uint64) {
	text, _ := os.ReadFile(filepath.Join(filepath.Dir(s.mount), "stats"))
	_, _ = fmt.Sscan(string(text), &n[0], &n[1], &n[2], &n[3], &n[4], &n[5], &n[6])
	return n
}

// denied reports whether another process may not read a file.
func (s *stage) denied(name string) bool {
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

// pid returns the process that plays a role.
func (s *stage) pid(role string) int {
	found := 0
	s.eventually("the "+role+" runs", func() bool {
		names, _ := filepath.Glob("/proc/[0-9]*/environ")
		for _, name := range names {
			env, _ := os.ReadFile(name)
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			// The last value of a variable counts; a child's is the last.
			for _, v := range bytes.Split(env, []byte{0}) {
				if after, ok := bytes.CutPrefix(v, []byte(envRole+"=")); ok && string(after) == role {
					found = pid
				}
			}
			if found == pid && pid != 0 {
				return true
			}
		}
		return false
	})
	return found
}

func TestBlock(t *testing.T) {
	s, inside := inStage(t, policy.Block)
	if !inside {
		return
	}
	if !s.denied("bad") {
		t.Error("the bad file was read")
	}
	if s.denied("clean") {
		t.Error("the clean file was denied")
	}
	if err := exec.Command(s.path("bad")).Run(); err == nil || !errors.Is(err, errPerm) {
		t.Errorf("the bad file was executed: %v", err)
	}
	// What the kernel knows to be clean asks nobody.
	s.eventually("the clean file is cached", func() bool { return s.stats()[2] > 0 })
	before := s.judged("1 clean")
	for range 20 {
		s.denied("clean")
	}
	if n := s.judged("1 clean") - before; n != 0 {
		t.Errorf("a cached file was judged %d times", n)
	}
	// A change makes it unknown again.
	s.write("clean", badMark)
	if !s.denied("clean") {
		t.Error("a changed file was served from the cache")
	}
	if s.judged("2 clean") == 0 {
		t.Error("nobody was told that the writer has closed the file")
	}
}

var errPerm error = syscall.EPERM

// TestSharedMapping changes a cached file through a mapping, which sends no
// event and leaves the kernel's mark in place.
func TestSharedMapping(t *testing.T) {
	s, inside := inStage(t, policy.Block)
	if !inside {
		return
	}
	s.denied("clean")
	s.eventually("the file is cached", func() bool { return s.stats()[2] > 0 })
	f, err := os.OpenFile(s.path("clean"), os.O_RDWR, 0)
	must(t, err)
	m, err := unix.Mmap(int(f.Fd()), 0, len("nothing to see"), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	copy(m, badMark)
	must(t, unix.Msync(m, unix.MS_SYNC))
	must(t, unix.Munmap(m))
	must(t, f.Close())
	s.eventually("the change is noticed", func() bool { return s.denied("clean") })
}

func TestWatchOnlyWatches(t *testing.T) {
	s, inside := inStage(t, policy.Watch)
	if !inside {
		return
	}
	if s.denied("bad") {
		t.Error("an open was denied on a filesystem that is only watched")
	}
	s.write("more", badMark)
	s.eventually("the written file is judged", func() bool { return s.judged("2 more") > 0 })
	run(t, s.path("script"))
	s.eventually("the execution is judged", func() bool { return s.judged("3 script") > 0 })
	if s.stats()[0] != 0 {
		t.Error("permission events on a filesystem that is only watched")
	}
}

// openFor measures how long one open takes.
func openFor(name string) time.Duration {
	start := time.Now()
	if f, err := os.Open(name); err == nil {
		f.Close()
	}
	return time.Since(start)
}

// longestWait is what an opener may wait at most, by the contracts.
const longestWait = 500 * time.Millisecond

func TestJudgeThatHangs(t *testing.T) {
	s, inside := inStage(t, policy.Block)
	if !inside {
		return
	}
	for i := range 12 { // more than there are judges
		name := fmt.Sprintf("hang%d", i)
		s.write(name, "x")
		if took := openFor(s.path(name)); took > longestWait {
			t.Errorf("open %d took %s", i, took)
		}
	}
	s.eventually("the unscanned opens are counted", func() bool { return s.stats()[3] >= 12 })
}

func TestFlood(t *testing.T) {
	s, inside := inStage(t, policy.Block)
	if !inside {
		return
	}
	const openers, files = 8, 400
	done := make(chan int, openers)
	for o := range openers {
		go func() {
			opened := 0
			for i := range files {
				name := s.path(fmt.Sprintf("f%d-%d", o, i))
				if os.WriteFile(name, []byte("x"), 0o600) == nil {
					if _, err := os.ReadFile(name); err == nil {
						opened++
					}
				}
			}
			done <- opened
		}()
	}
	for range openers {
		select {
		case n := <-done:
			if n != files {
				t.Errorf("an opener has read %d of %d files", n, files)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("openers still wait")
		}
	}
}

// TestChaos kills and stops each process while somebody opens files.
func TestChaos(t *testing.T) {
	s, inside := inStage(t, policy.Block)
	if !inside {
		return
	}
	for _, c := range []struct {
		role   string
		signal syscall.Signal
	}{
		{"worker", syscall.SIGKILL}, {"broker", syscall.SIGKILL}, {"worker", syscall.SIGSTOP}, {"broker", syscall.SIGSTOP},
		{"guard", syscall.SIGKILL}, {"guard", syscall.SIGSTOP},
	} {
		s.write("victim", "nothing to see")
		opener := exec.Command("/proc/self/exe", s.path("victim"))
		opener.Env = append(os.Environ(), envRole+"=opener")
		in, err := opener.StdinPipe()
		must(t, err)
		var out bytes.Buffer
		opener.Stdout = &out
		must(t, opener.Start())
		before := s.judged("2 victim")
		s.eventually("the opener opens", func() bool { return s.judged("2 victim") > before+20 })

		pid := s.pid(c.role)
		must(t, syscall.Kill(pid, c.signal))
		if c.role == "guard" {
			// The supervisor's work: the guardian ends, by the signal or by the
			// broker's hand, and is started again.
			select {
			case <-s.ended:
			case <-time.After(10 * time.Second):
				t.Fatalf("%s of the guardian: nobody has ended it", c.signal)
			}
			s.start()
		} else if c.signal == syscall.SIGKILL {
			s.eventually("the "+c.role+" is a new one", func() bool { return s.pid(c.role) != pid })
		}
		s.eventually("protection is back after "+c.role+" "+c.signal.String(), func() bool {
			// A file that is denied cannot be written to either.
			_ = os.Remove(s.path("again"))
			s.write("again", badMark)
			return s.denied("again")
		})
		must(t, in.Close())
		must(t, opener.Wait())
		var longest, opens int64
		if _, err := fmt.Sscan(out.String(), &longest, &opens); err != nil {
			t.Fatalf("opener said %q: %v", out.String(), err)
		}
		wait := time.Duration(longest) * time.Microsecond
		t.Logf("%-6s %-12s longest open %s of %d", c.role, c.signal, wait.Round(time.Millisecond), opens)
		if wait > longestWait {
			t.Errorf("%s %s: an open took %s", c.role, c.signal, wait)
		}
	}
}

func TestWithoutPrivilege(t *testing.T) {
	if _, err := realtime.Attach(testLog()); err == nil {
		t.Error("a worker without a guardian was attached")
	}
	if err := realtime.RunBroker(t.Context(), testLog()); err == nil {
		t.Error("a broker without a guardian ran")
	}
}
