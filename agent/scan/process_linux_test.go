package scan_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"komainu/agent/scan"
	"komainu/fault"
	"komainu/finding"
)

// TestMain lets the test binary be the scanner, as komainud is.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "scanner" {
		if err := scan.Serve(os.NewFile(scan.Socket, "socket")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) == 3 && os.Args[1] == "probe" {
		refused, err := scan.Probe(os.Args[2])
		fmt.Println(refused, err)
		if os.Args[2] == "rlimits" {
			eat()
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func scanner() *exec.Cmd { return exec.Command("/proc/self/exe", "scanner") }

// start runs a process until the test ends.
func start(t testing.TB, cfg scan.Config) *scan.Process {
	t.Helper()
	if cfg.Command == nil {
		cfg.Command = scanner
	}
	cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	p := scan.NewProcess(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return p
}

func fileOf(t testing.TB, content []byte) *os.File {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return open(t, name)
}

func open(t testing.TB, name string) *os.File {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// slow is a file that takes many seconds to read.
func slow(t testing.TB) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "slow"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(1 << 40); err != nil {
		t.Fatal(err)
	}
	return open(t, f.Name())
}

// until waits for a condition, by asking.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		<-time.After(time.Millisecond) // between two looks
	}
}

// busy waits until the child spends time on a scan, and returns its pid.
func busy(t testing.TB, p *scan.Process, not int) int {
	t.Helper()
	until(t, "a busy scanner", func() bool {
		s := p.Status()
		return s.Up && s.PID != not && cpu(s.PID) > 5
	})
	return p.Status().PID
}

// cpu returns the ticks that a process used.
func cpu(pid int) (ticks int) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	var skip string
	var user, system int
	fmt.Sscan(rest, &skip, &skip, &skip, &skip, &skip, &skip, &skip, &skip, &skip, &skip, &skip, &user, &system)
	return user + system
}

func TestProcess(t *testing.T) {
	t.Parallel()
	p := start(t, scan.Config{})
	for _, c := range []struct {
		content []byte
		want    finding.Verdict
	}{
		{eicar(), finding.Verdict{Outcome: finding.Malicious, Threat: eicarName, Type: "virus"}},
		{zipOf("e.com", eicar()), finding.Verdict{Outcome: finding.Malicious, Threat: eicarName, Type: "virus", Inside: "e.com"}},
		{[]byte("harmless"), finding.Verdict{Outcome: finding.Clean}},
	} {
		f := fileOf(t, c.content)
		v, err := p.Scan(t.Context(), f, scan.Options{})
		if err != nil || v.Outcome != c.want.Outcome || v.Threat != c.want.Threat || v.Type != c.want.Type || v.Inside != c.want.Inside || len(v.SHA256) != 64 || v.Size != int64(len(c.content)) {
			t.Errorf("%+v, %v", v, err)
		}
		if at, _ := f.Seek(0, 1); at != 0 {
			t.Errorf("the offset moved to %d", at)
		}
	}
	if s := p.Status(); !s.Up || s.Scans != 3 || s.Failed != 0 || s.Started != 1 {
		t.Errorf("%+v", s)
	}
}

func TestProcessParallel(t *testing.T) {
	t.Parallel()
	p := start(t, scan.Config{Parallel: 3})
	bad, good := fileOf(t, eicar()), fileOf(t, []byte("harmless"))
	var work sync.WaitGroup
	for i := range 64 {
		work.Go(func() {
			f, want := bad, finding.Malicious
			if i%2 == 0 {
				f, want = good, finding.Clean
			}
			if v, err := p.Scan(t.Context(), f, scan.Options{}); err != nil || v.Outcome != want {
				t.Errorf("%+v, %v", v, err)
			}
		})
	}
	work.Wait()
}

func TestProcessRefuses(t *testing.T) {
	t.Parallel()
	p := start(t, scan.Config{})
	if _, err := p.Scan(t.Context(), open(t, t.TempDir()), scan.Options{}); !fault.Is(err, fault.Invalid) {
		t.Errorf("a folder: %v", err)
	}
	f := fileOf(t, nil)
	f.Close()
	if _, err := p.Scan(t.Context(), f, scan.Options{}); err == nil {
		t.Error("a closed file was scanned")
	}
	if v, err := p.Scan(t.Context(), fileOf(t, eicar()), scan.Options{}); err != nil || v.Outcome != finding.Malicious {
		t.Errorf("afterwards: %+v, %v", v, err)
	}
	if s := p.Status(); s.Crashes != 0 || s.Started != 1 {
		t.Errorf("%+v", s)
	}
}

// TestCrash kills the scanner while it scans. The file it was alone with
// twice is blamed; one that only stood beside it is not.
func TestCrash(t *testing.T) {
	t.Parallel()
	p := start(t, scan.Config{})
	f := slow(t)
	got := make(chan finding.Verdict, 1)
	go func() {
		v, err := p.Scan(context.Background(), f, scan.Options{})
		if err != nil {
			t.Error(err)
		}
		got <- v
	}()
	first := busy(t, p, 0)
	unix.Kill(first, unix.SIGKILL)
	second := busy(t, p, first)
	unix.Kill(second, unix.SIGKILL)
	if v := <-got; v.Outcome != finding.ScanFailed || !strings.Contains(v.Reason, "died") {
		t.Errorf("%+v", v)
	}
	began := time.Now()
	if v, err := p.Scan(t.Context(), f, scan.Options{}); err != nil || v.Outcome != finding.ScanFailed || time.Since(began) > time.Second {
		t.Errorf("a blamed file is not tried again: %+v, %v", v, err)
	}
	if v, err := p.Scan(t.Context(), fileOf(t, eicar()), scan.Options{}); err != nil || v.Outcome != finding.Malicious {
		t.Errorf("others are: %+v, %v", v, err)
	}
	if s := p.Status(); s.Crashes != 2 || s.Failed != 2 || s.Started != 3 {
		t.Errorf("%+v", s)
	}
}

func TestCrashOnce(t *testing.T) {
	t.Parallel()
	p := start(t, scan.Config{})
	files := []*os.File{slow(t), slow(t)}
	var work sync.WaitGroup
	for _, f := range files {
		work.Go(func() {
			v, err := p.Scan(context.Background(), f, scan.Options{Budget: 300 * time.Millisecond})
			if err != nil || v.Outcome != finding.NotFullyScanned {
				t.Errorf("%+v, %v", v, err)
			}
		})
	}
	unix.Kill(busy(t, p, 0), unix.SIGKILL)
	work.Wait()
	if s := p.Status(); s.Crashes != 1 || s.Failed != 0 {
		t.Errorf("%+v", s)
	}
}

// TestHang stops the scanner: the scan ends by its deadline all the same.
func TestHang(t *testing.T) {
	t.Parallel()
	p := start(t, scan.Config{})
	f := slow(t)
	got := make(chan finding.Verdict, 1)
	go func() {
		v, err := p.Scan(context.Background(), f, scan.Options{Budget: 500 * time.Millisecond})
		if err != nil {
			t.Error(err)
		}
		got <- v
	}()
	first := busy(t, p, 0)
	unix.Kill(first, unix.SIGSTOP)
	select {
	case v := <-got:
		if v.Outcome != finding.ScanFailed || !strings.Contains(v.Reason, "hung") {
			t.Errorf("%+v", v)
		}
	case <-time.After(5 * time.Second):
		t.Error("the scan hangs")
	}
	if v, err := p.Scan(t.Context(), fileOf(t, eicar()), scan.Options{}); err != nil || v.Outcome != finding.Malicious {
		t.Errorf("%+v, %v", v, err)
	}
	if s := p.Status(); s.PID == first || s.Hangs == 0 {
		t.Errorf("%+v", s)
	}
}

// TestStopped: a scanner that is stopped while it has nothing to do is
// noticed too.
func TestStopped(t *testing.T) {
	t.Parallel()
	p := start(t, scan.Config{})
	until(t, "the scanner", func() bool { return p.Status().Up })
	first := p.Status().PID
	unix.Kill(first, unix.SIGSTOP)
	until(t, "another scanner", func() bool { s := p.Status(); return s.Up && s.PID != first })
}

func TestCancel(t *testing.T) {
	t.Parallel()
	p := start(t, scan.Config{Parallel: 1})
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan error, 1)
	f := slow(t)
	go func() {
		_, err := p.Scan(ctx, f, scan.Options{})
		got <- err
	}()
	pid := busy(t, p, 0)
	cancel()
	if err := <-got; err == nil || ctx.Err() == nil {
		t.Errorf("%v", err)
	}
	// The only place is free again, long before the budget of the first.
	if v, err := p.Scan(t.Context(), fileOf(t, eicar()), scan.Options{}); err != nil || v.Outcome != finding.Malicious {
		t.Errorf("%+v, %v", v, err)
	}
	if s := p.Status(); s.PID != pid {
		t.Error("a cancelled scan cost the scanner")
	}
}

func TestNoScanner(t *testing.T) {
	t.Parallel()
	p := start(t, scan.Config{Command: func() *exec.Cmd { return exec.Command("/bin/false") }})
	until(t, "giving up", func() bool {
		_, err := p.Scan(t.Context(), fileOf(t, nil), scan.Options{})
		return fault.Is(err, fault.Unavailable)
	})
	if s := p.Status(); s.Up || s.Problem == "" {
		t.Errorf("%+v", s)
	}
}

func TestIdle(t *testing.T) {
	t.Parallel()
	p := start(t, scan.Config{Idle: 600 * time.Millisecond, Nice: 10})
	if p.Status().Up {
		t.Error("it is up without need")
	}
	scanIt := func() {
		t.Helper()
		if v, err := p.Scan(t.Context(), fileOf(t, eicar()), scan.Options{}); err != nil || v.Outcome != finding.Malicious {
			t.Errorf("%+v, %v", v, err)
		}
	}
	scanIt()
	pid := p.Status().PID
	if nice, err := unix.Getpriority(unix.PRIO_PROCESS, pid); err != nil || nice != 20-10 { // the system call answers 20-nice
		t.Errorf("nice: %d, %v", 20-nice, err)
	}
	if class, _, errno := unix.Syscall(unix.SYS_IOPRIO_GET, 1, uintptr(pid), 0); errno != 0 || class != 2<<13|7 {
		t.Errorf("I/O priority %#x, %v; want the lowest of the best-effort class", class, errno)
	}
	until(t, "the scanner's end", func() bool { return !p.Status().Up })
	until(t, "its process's end", func() bool { return unix.Kill(pid, 0) != nil })
	scanIt()
	if s := p.Status(); s.Started != 2 || s.Crashes != 0 || s.Failed != 0 {
		t.Errorf("%+v", s)
	}
}

// TestKeep lets one be there without a scan, and go when it need not be.
func TestKeep(t *testing.T) {
	t.Parallel()
	var keep atomic.Bool
	p := start(t, scan.Config{Idle: 300 * time.Millisecond, Keep: keep.Load})
	if p.Status().Up {
		t.Error("it is up without need")
	}
	keep.Store(true)
	until(t, "a scanner that nobody has asked for", func() bool { return p.Status().Up })
	keep.Store(false)
	until(t, "its end", func() bool { return !p.Status().Up })
	if s := p.Status(); s.Started != 1 || s.Crashes != 0 || s.Problem != "" {
		t.Errorf("%+v", s)
	}
}

// TestEndsWithSocket: nobody is left behind when the agent is killed.
func TestEndsWithSocket(t *testing.T) {
	t.Parallel()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	cmd := scanner()
	cmd.ExtraFiles = []*os.File{os.NewFile(uintptr(fds[1]), "theirs")}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	cmd.ExtraFiles[0].Close()
	buf := make([]byte, 4096)
	if n, err := unix.Read(fds[0], buf); err != nil || !strings.Contains(string(buf[:n]), "Hello") {
		t.Fatalf("%s, %v", buf[:n], err)
	}
	unix.Close(fds[0])
	if err := cmd.Wait(); err != nil {
		t.Errorf("a clean end, not %v", err)
	}
}

// TestMemoryBomb: a member that asks for a 4 GiB dictionary may cost the
// scanner, but not the agent, and not the next file.
func TestMemoryBomb(t *testing.T) {
	t.Parallel()
	p := start(t, scan.Config{})
	v, err := p.Scan(t.Context(), fileOf(t, sevenZipBomb()), scan.Options{})
	if err != nil || v.Outcome == finding.Clean || v.Outcome == finding.Malicious {
		t.Errorf("%+v, %v", v, err)
	}
	if v, err := p.Scan(t.Context(), fileOf(t, eicar()), scan.Options{}); err != nil || v.Outcome != finding.Malicious {
		t.Errorf("%+v, %v", v, err)
	}
}

func BenchmarkProcess(b *testing.B) {
	p := start(b, scan.Config{})
	for _, size := range []int{1 << 10, 1 << 20} {
		f := fileOf(b, noise(size))
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			b.SetBytes(int64(size))
			for b.Loop() {
				if v, err := p.Scan(b.Context(), f, scan.Options{}); err != nil || v.Outcome != finding.Clean {
					b.Fatal(v, err)
				}
			}
		})
	}
}
