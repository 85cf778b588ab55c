package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"komainu/fault"
)

// Soak breaks a running control plane and agent at random, round after round,
// and lets an oracle that stands outside both compare what it did itself with
// what the control plane holds in the end. A round is: write malware, run
// programs and open files all the time; break one thing; mend it; see that
// protection and health come back. What holds over all rounds is checked last:
// every file that held malware is one alert, no event is stored twice, and
// every number that is missing is accounted for by a loss that was told.

// soakRounds is how many rounds a run has that names no number; CI runs
// fewer.
const (
	soakRounds   = 200
	soakRoundsCI = 20
	// soakSeedCI makes the rounds of CI the same every time. It is picked so
	// that every fault happens at least once.
	soakSeedCI = 1
	// brokenFor is how long something stays broken, in milliseconds, at most:
	// longer than it takes the agent to notice, so that its own words can be
	// weighed meanwhile.
	brokenFor = 4000
	// soakInside marks the run that has a mount namespace of its own.
	soakInside = "KOMAINU_SOAK_INSIDE"
)

// soakOptions are the flags of dev soak.
type soakOptions struct {
	rounds int
	seed   uint64
	only   string
	clock  bool
	keep   string
	kills  string
}

func soak(ctx context.Context, h *House, args []string) error {
	var o soakOptions
	flags := flag.NewFlagSet("soak", flag.ContinueOnError)
	flags.IntVar(&o.rounds, "rounds", soakRounds, "how many rounds")
	flags.Uint64Var(&o.seed, "seed", uint64(time.Now().UnixNano()), "the same seed breaks the same things in the same order")
	flags.StringVar(&o.only, "only", "", "only the fault with this name")
	flags.BoolVar(&o.clock, "clock", false, "also move the clock of this machine forwards and backwards for moments: for dev vm")
	flags.StringVar(&o.keep, "keep", "", "folder that the logs are copied to in the end")
	flags.StringVar(&o.kills, "kills", "", "instead: end installations of the agent at this many points of each action, all for every step; takes hours")
	if err := flags.Parse(args); err != nil {
		return fault.New(fault.Invalid, "%w", err)
	}
	if os.Geteuid() != 0 {
		return fault.New(fault.NeedsRoot, "real-time protection needs root")
	}
	if o.kills != "" {
		return soakKills(ctx, h, o)
	}
	if os.Getenv(soakInside) == "" {
		return soakApart(ctx, h, o)
	}
	_, err := runSoak(ctx, h, o)
	return err
}

// soakKills runs the long rounds of the test that ends installations, upgrades
// and removals in their middle.
func soakKills(ctx context.Context, h *House, o soakOptions) error {
	if err := h.Install(ctx, hostTools...); err != nil {
		return err
	}
	points := o.kills
	if points == "all" {
		points = "0"
	}
	cmd := h.Command(ctx, ".", "go", "test", "./e2e", "-count=1", "-v", "-timeout=6h", "-run=^TestKilledAtEveryStep$")
	cmd.Env = append(os.Environ(), "KOMAINU_NEED=root", "KOMAINU_E2E_KILLS="+points, "KOMAINU_E2E_KILL_SEED="+strconv.FormatUint(o.seed, 10))
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fault.New(fault.Internal, "soak: %w", err)
	}
	return nil
}

// soakPhase is the short round in the test run.
func soakPhase(ctx context.Context, h *House) (tally, error) {
	if os.Geteuid() != 0 {
		h.Say("skip soak: real-time protection needs root")
		return tally{skipped: 1}, nil
	}
	if err := soakApart(ctx, h, soakOptions{rounds: soakRoundsCI, seed: soakSeedCI}); err != nil {
		return tally{failed: 1}, err
	}
	return tally{passed: soakRoundsCI}, nil
}

// soakApart runs dev again in a mount namespace of its own, so that no
// filesystem that soak mounts outlives it, however it ends.
func soakApart(ctx context.Context, h *House, o soakOptions) error {
	if err := h.Install(ctx, hostTools...); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	args := []string{"--mount", "--propagation", "private", self, "soak", "-rounds", strconv.Itoa(o.rounds), "-seed", strconv.FormatUint(o.seed, 10)}
	if o.only != "" {
		args = append(args, "-only", o.only)
	}
	if o.clock {
		args = append(args, "-clock")
	}
	if o.keep != "" {
		args = append(args, "-keep", o.keep)
	}
	cmd := h.Command(ctx, ".", "unshare", args...)
	cmd.Env = append(os.Environ(), soakInside+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 40 * time.Second
	if err := cmd.Run(); err != nil {
		return fault.New(fault.Internal, "soak: %w", err)
	}
	return nil
}

// soaker is one run.
type soaker struct {
	*breaker
	o       soakOptions
	random  *rand.Rand
	proxy   *proxy
	oracle  *oracle
	agentFS string
	ctlFS   string
}

func runSoak(ctx context.Context, h *House, o soakOptions) (rounds int, err error) {
	bin, err := h.Build(ctx)
	if err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp("", "komainu-soak-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	s := &soaker{breaker: &breaker{stack: NewStack(h, bin, dir)}, o: o, random: rand.New(rand.NewPCG(o.seed, 0)),
		agentFS: filepath.Join(dir, "agent"), ctlFS: filepath.Join(dir, "control")}
	defer func() {
		err = errors.Join(err, s.close())
		if o.keep != "" {
			err = errors.Join(err, os.CopyFS(o.keep, os.DirFS(filepath.Join(dir, "log"))))
		}
	}()
	if err := s.start(ctx, h); err != nil {
		s.stack.PrintLogs()
		return 0, err
	}
	faults, err := s.chosenFaults()
	if err != nil {
		return 0, err
	}
	h.Say("soak seed=%d rounds=%d faults=%d", o.seed, o.rounds, len(faults))
	s.oracle.run(ctx)
	began := time.Now()
	for i := range o.rounds {
		f := faults[s.random.IntN(len(faults))]
		started := time.Now()
		if err := s.round(ctx, f); err != nil {
			s.oracle.stop()
			s.stack.PrintLogs()
			return i, fmt.Errorf("round %d (%s), seed %d: %w", i+1, f.name, o.seed, err)
		}
		h.Say("ok   round %3d %-42s %s", i+1, f.name, time.Since(started).Round(time.Millisecond))
	}
	s.oracle.stop()
	line, err := s.settle(ctx)
	if err != nil {
		s.stack.PrintLogs()
		return o.rounds, fmt.Errorf("seed %d: %w", o.seed, err)
	}
	h.Say("soak rounds=%d seconds=%.0f %s", o.rounds, time.Since(began).Seconds(), line)
	return o.rounds, nil
}

// start brings up a stack whose state folders are small filesystems of their
// own and whose agent reaches the control plane through a proxy.
func (s *soaker) start(ctx context.Context, h *House) error {
	for _, fs := range []struct {
		path string
		size int64
	}{{s.agentFS, 192 << 20}, {s.ctlFS, 1 << 30}} {
		if err := mountLoop(ctx, h, fs.path, fs.size); err != nil {
			return err
		}
	}
	port, err := freePort(48443)
	if err != nil {
		return err
	}
	if s.proxy, err = newProxy(fmt.Sprintf("127.0.0.1:%d", port)); err != nil {
		return err
	}
	s.stack.through = s.proxy.URL()
	if err := s.stack.start(ctx, port, false); err != nil {
		return err
	}
	if s.api, err = s.stack.API(ctx); err != nil {
		return err
	}
	s.oracle, err = newOracle(s.stack, filepath.Join(s.stack.dir, "outside"))
	return err
}

func (s *soaker) close() error {
	var err error
	if s.proxy != nil {
		err = s.proxy.Close()
	}
	err = errors.Join(err, s.stack.Close())
	for _, path := range []string{s.agentFS, s.ctlFS} {
		if e := unix.Unmount(path, unix.MNT_DETACH); e != nil && !errors.Is(e, unix.EINVAL) && !errors.Is(e, unix.ENOENT) {
			err = errors.Join(err, fmt.Errorf("unmount %s: %w", path, e))
		}
	}
	return err
}

// mountLoop puts an ext4 of its own at path.
func mountLoop(ctx context.Context, h *House, path string, size int64) error {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	image := path + ".img"
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		return err
	}
	if err := os.Truncate(image, size); err != nil {
		return err
	}
	for _, c := range [][]string{{"mkfs.ext4", "-q", "-F", image}, {"mount", "-o", "loop", image, path}} {
		if out, err := exec.CommandContext(ctx, c[0], c[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w: %s", c, err, out)
		}
	}
	return nil
}

func (s *soaker) chosenFaults() ([]soakFault, error) {
	var list []soakFault
	for _, f := range s.allFaults() {
		switch {
		case s.o.only != "" && f.name != s.o.only, f.clock && !s.o.clock:
		case f.able != nil && f.able() != nil:
			s.stack.h.Say("skip %s: %v", f.name, f.able())
		default:
			list = append(list, f)
		}
	}
	if len(list) == 0 {
		return nil, fault.New(fault.Invalid, "no fault %q can be tried here", s.o.only)
	}
	return list, nil
}

// round breaks one thing, lets it be broken for a while, mends it, and sees
// that protection is back and that nothing that was written meanwhile stays.
func (s *soaker) round(ctx context.Context, f soakFault) error {
	s.oracle.breaking()
	mend, err := f.strike(ctx)
	if err != nil {
		if mend != nil {
			mend()
		}
		return fmt.Errorf("break: %w", err)
	}
	for range 1 + s.random.IntN(3) {
		if _, err := s.oracle.write(); err != nil {
			return errors.Join(err, mend())
		}
	}
	wait(ctx, time.Duration(200+s.random.IntN(brokenFor))*time.Millisecond)
	if err := mend(); err != nil {
		return fmt.Errorf("mend: %w", err)
	}
	if err := s.stack.WaitHealthy(ctx); err != nil {
		report, _ := s.stack.CLI(ctx, "health")
		return fmt.Errorf("%w\n%s", err, report)
	}
	s.oracle.mended()
	if err := s.swept(ctx); err != nil {
		return err
	}
	// One more, in quiet times: this one may not be read by anybody.
	name, err := s.oracle.write()
	if err != nil {
		return err
	}
	if err := s.gone(ctx, name); err != nil {
		return err
	}
	if err := s.oracle.quietly(ctx); err != nil {
		return err
	}
	return s.oracle.verdict()
}

// swept opens what was written while nobody may have looked: malware is
// denied, and then gone.
func (s *soaker) swept(ctx context.Context) error {
	for _, name := range s.oracle.written() {
		err := waitFor(ctx, 15*time.Second, name+" is stopped when it is opened", func() (bool, error) {
			if _, err := readable(name); err != nil {
				return false, err
			}
			_, err := os.Lstat(name)
			return errors.Is(err, fs.ErrNotExist), nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
