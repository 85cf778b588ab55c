package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// soakFault is one thing that can go wrong. strike breaks it and returns what
// mends it; mend is called in any case, also when strike failed half way.
type soakFault struct {
	name   string
	clock  bool         // moves the clock of the machine
	able   func() error // why it cannot be tried here, nil if it can
	strike func(ctx context.Context) (mend func() error, err error)
}

func nothing() error { return nil }

func (s *soaker) allFaults() []soakFault {
	faults := []soakFault{
		{name: "nothing", strike: func(context.Context) (func() error, error) { return nothing, nil }},
		{name: "control plane is killed", strike: s.killControl},
		{name: "control plane stands still", strike: s.stopControl},
		{name: "control plane is killed, junk at the ends of its files", strike: s.garbleControl},
		{name: "link is cut", strike: func(context.Context) (func() error, error) {
			s.proxy.Cut(true)
			return func() error { s.proxy.Cut(false); return nil }, nil
		}},
		{name: "link is half open", strike: func(context.Context) (func() error, error) {
			s.proxy.Silence(true)
			return func() error { s.proxy.Silence(false); return nil }, nil
		}},
		{name: "agent's disk is full", strike: func(ctx context.Context) (func() error, error) { return fill(s.agentFS) }},
		{name: "control plane's disk is full", strike: func(ctx context.Context) (func() error, error) { return fill(s.ctlFS) }},
		{name: "agent's disk is full, and it starts again", strike: s.startFull},
		{name: "agent's disk stands still", strike: func(ctx context.Context) (func() error, error) { return freeze(s.agentFS) }},
		{name: "control plane's disk stands still", strike: func(ctx context.Context) (func() error, error) { return freeze(s.ctlFS) }},
		{name: "agent starts on a read-only disk", strike: s.startReadOnly},
		{name: "agent is killed, its spool's end is torn", strike: s.garbleAgent},
		{name: "memory is short", able: memoryControl, strike: s.pressMemory},
		{name: "clock jumps forwards", clock: true, strike: func(ctx context.Context) (func() error, error) { return moveClock(49 * time.Hour) }},
		{name: "clock jumps backwards", clock: true, strike: func(ctx context.Context) (func() error, error) { return moveClock(-3 * time.Hour) }},
	}
	for _, role := range []string{"worker", "broker", "scanner", "guardian"} {
		for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP} {
			verb := map[syscall.Signal]string{syscall.SIGKILL: "is killed", syscall.SIGSTOP: "stands still"}[sig]
			faults = append(faults, soakFault{name: role + " " + verb, strike: func(context.Context) (func() error, error) { return s.signal(role, sig) }})
		}
	}
	return faults
}

// signal hits a process of the agent. One that only stands still goes on in
// the end, if the agent has not replaced it by then.
func (s *soaker) signal(role string, sig syscall.Signal) (func() error, error) {
	pid, err := s.pid(role)
	if err != nil {
		return nothing, err
	}
	if err := syscall.Kill(pid, sig); err != nil {
		return nothing, err
	}
	return func() error {
		if sig == syscall.SIGSTOP {
			if now, err := s.pid(role); err == nil && now == pid {
				_ = syscall.Kill(pid, syscall.SIGCONT) // the agent may just have replaced it
			}
		}
		return nil
	}, nil
}

func (s *soaker) killControl(context.Context) (func() error, error) {
	return s.controlReady, syscall.Kill(s.stack.control.PID(), syscall.SIGKILL)
}

func (s *soaker) stopControl(context.Context) (func() error, error) {
	pid := s.stack.control.PID()
	return func() error { return syscall.Kill(pid, syscall.SIGCONT) }, syscall.Kill(pid, syscall.SIGSTOP)
}

// controlReady waits until the API answers.
func (s *soaker) controlReady() error {
	return waitFor(context.Background(), startLimit, "the control plane answers", func() (bool, error) {
		_, err := s.api.environment(context.Background())
		return err == nil, nil
	})
}

// garbleControl appends what a torn write would leave to the journals of the
// state and the queue.
func (s *soaker) garbleControl(context.Context) (func() error, error) {
	started := s.stack.control.Starts()
	if err := syscall.Kill(s.stack.control.PID(), syscall.SIGKILL); err != nil {
		return nothing, err
	}
	return s.controlReady, s.garble(s.ctlFS, func() bool { return s.stack.control.Starts() == started }, func(name string) bool {
		return strings.HasSuffix(name, "-wal") || strings.HasSuffix(name, ".blk")
	})
}

// garbleAgent kills the whole agent and appends junk to its spools: the
// record that was being written when the power went.
func (s *soaker) garbleAgent(context.Context) (func() error, error) {
	started := s.stack.agent.Starts()
	if err := syscall.Kill(s.stack.agent.PID(), syscall.SIGKILL); err != nil {
		return nothing, err
	}
	return nothing, s.garble(s.agentFS, func() bool { return s.stack.agent.Starts() == started }, func(name string) bool {
		return strings.HasSuffix(name, ".seg") || strings.HasPrefix(filepath.Base(name), "history")
	})
}

// garble appends random bytes to the files that want names, as long as
// nobody has begun to use them again.
func (s *soaker) garble(dir string, quiet func() bool, want func(string) bool) error {
	junk := make([]byte, 1+s.random.IntN(300))
	for i := range junk {
		junk[i] = byte(s.random.Uint32())
	}
	return filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || !want(name) || !quiet() {
			return nil //nolint:nilerr // files come and go while programs end
		}
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return nil //nolint:nilerr // gone meanwhile
		}
		_, err = f.Write(junk)
		return errors.Join(err, f.Close())
	})
}

// fill leaves no byte free, and takes what becomes free meanwhile, until it
// is mended.
func fill(dir string) (func() error, error) {
	name := filepath.Join(dir, "filler")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nothing, err
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return func() error { return os.Remove(name) }, errors.Join(err, f.Close())
	}
	// All at once where the filesystem can, the rest in small pieces.
	_ = unix.Fallocate(int(f.Fd()), 0, 0, int64(st.Bavail)*st.Bsize)
	err = topUp(f)
	stop, stopped := make(chan struct{}), make(chan error, 1)
	go func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		var err error
		for err == nil {
			select {
			case <-stop:
				stopped <- nil
				return
			case <-tick.C:
				err = topUp(f)
			}
		}
		stopped <- err
	}()
	return func() error {
		close(stop)
		return errors.Join(<-stopped, f.Close(), os.Remove(name))
	}, err
}

// topUp writes until nothing fits any more.
func topUp(f *os.File) error {
	for _, n := range []int{64 << 10, 4 << 10, 512} {
		piece := make([]byte, n)
		var err error
		for err == nil {
			_, err = f.Write(piece)
		}
		if !errors.Is(err, unix.ENOSPC) {
			return err
		}
	}
	return nil
}

// startFull starts the agent while its disk is full: it protects all the
// same.
func (s *soaker) startFull(ctx context.Context) (func() error, error) {
	mend, err := fill(s.agentFS)
	if err != nil {
		return mend, err
	}
	return mend, syscall.Kill(s.stack.agent.PID(), syscall.SIGKILL)
}

// freezeLimit is when a filesystem thaws whatever happens to dev.
const freezeLimit = 10

// freeze makes every write to a filesystem wait. A process of its own thaws
// it after a while, so that nothing hangs for good if dev dies here.
func freeze(dir string) (func() error, error) {
	guard := exec.Command("sh", "-c", fmt.Sprintf("sleep %d; fsfreeze --unfreeze %s", freezeLimit, dir))
	if err := guard.Start(); err != nil {
		return nothing, err
	}
	mend := func() error {
		out, err := exec.Command("fsfreeze", "--unfreeze", dir).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("thaw: %w: %s", err, out)
		}
		return errors.Join(err, guard.Process.Kill(), ended(guard))
	}
	if out, err := exec.Command("fsfreeze", "--freeze", dir).CombinedOutput(); err != nil {
		return func() error { return errors.Join(guard.Process.Kill(), ended(guard)) }, fmt.Errorf("freeze: %w: %s", err, out)
	}
	return mend, nil
}

// ended waits for a process that was killed on purpose.
func ended(cmd *exec.Cmd) error {
	err := cmd.Wait()
	if _, killed := errors.AsType[*exec.ExitError](err); killed {
		return nil
	}
	return err
}

// startReadOnly makes the agent start on a disk that takes no writes.
func (s *soaker) startReadOnly(ctx context.Context) (func() error, error) {
	mend := func() error { return unix.Mount("", s.agentFS, "", unix.MS_REMOUNT, "") }
	if err := syscall.Kill(s.stack.agent.PID(), syscall.SIGKILL); err != nil {
		return mend, err
	}
	// Possible only while no process has a file open for writing there: in the
	// moments between two runs.
	err := poll(ctx, 10*time.Second, time.Millisecond, func() (bool, error) {
		err := unix.Mount("", s.agentFS, "", unix.MS_REMOUNT|unix.MS_RDONLY, "")
		if errors.Is(err, unix.EBUSY) {
			if pid := s.stack.agent.PID(); pid != 0 {
				_ = syscall.Kill(pid, syscall.SIGKILL) // it was faster: again
			}
			return false, nil
		}
		return err == nil, err
	})
	return mend, err
}

const memoryRoot = "/sys/fs/cgroup/memory"

// memoryControl says whether memory can be limited here (cgroup v1).
func memoryControl() error {
	_, err := os.Stat(filepath.Join(memoryRoot, "memory.limit_in_bytes"))
	return err
}

// pressMemory leaves the agent hardly more memory than it uses, then less:
// the kernel reclaims, and in the end kills one of its processes.
func (s *soaker) pressMemory(context.Context) (func() error, error) {
	group := filepath.Join(memoryRoot, fmt.Sprintf("komainu-soak-%d", os.Getpid()))
	if err := os.Mkdir(group, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nothing, err
	}
	mend := func() error {
		err := os.WriteFile(filepath.Join(group, "memory.limit_in_bytes"), []byte("-1"), 0)
		text, e := os.ReadFile(filepath.Join(group, "cgroup.procs"))
		for pid := range strings.FieldsSeq(string(text)) {
			_ = os.WriteFile(filepath.Join(memoryRoot, "cgroup.procs"), []byte(pid), 0) // it may have ended
		}
		return errors.Join(err, e)
	}
	pids := []int{s.stack.agent.PID()}
	for _, role := range []string{"worker", "broker", "scanner"} {
		if pid, err := s.pid(role); err == nil && !slices.Contains(pids, pid) {
			pids = append(pids, pid)
		}
	}
	for _, pid := range pids {
		if err := os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
			return mend, err
		}
	}
	// What a process used before it came here is not counted: the limit is on
	// what it touches from now on.
	return mend, os.WriteFile(filepath.Join(group, "memory.limit_in_bytes"), []byte("1M"), 0)
}

// moveClock moves the clock of this machine, and moves it back by what has
// passed since, which only the monotonic clock knows.
func moveClock(by time.Duration) (func() error, error) {
	began, real := time.Now(), time.Now().Round(0)
	set := func(t time.Time) error {
		ts := unix.NsecToTimespec(t.UnixNano())
		return unix.ClockSettime(unix.CLOCK_REALTIME, &ts)
	}
	return func() error { return set(real.Add(time.Since(began))) }, set(real.Add(by))
}
