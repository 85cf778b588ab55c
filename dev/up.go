package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"komainu/fault"
)

// upLock is held while `up` runs.
const upLock = "up.lock"

// up starts a control plane and an agent on this machine and stays in the
// foreground.
func up(ctx context.Context, h *House, args []string) error {
	flags := flag.NewFlagSet("up", flag.ContinueOnError)
	whole := flags.Bool("this-machine", false, "block malware on every local filesystem of this machine, not in the demo folder alone")
	port := flags.Int("port", 8443, "port of the portal")
	if err := flags.Parse(args); err != nil {
		return err
	}
	lock, err := takeLock(h.State(upLock))
	if err != nil {
		return err
	}
	defer lock.Release()
	began := time.Now()
	bin, err := h.Build(ctx)
	if err != nil {
		return err
	}
	built := time.Since(began)
	if err := linkMDATP(bin); err != nil {
		return err
	}
	free, err := freePort(*port)
	if err != nil {
		return err
	}
	if free != *port {
		h.Say("port %d is taken; using %d", *port, free)
	}
	s := NewStack(h, bin, h.State())
	s.elsewhere, s.selfTest = "watch", true
	err = s.start(ctx, free, *whole)
	if err == nil {
		s.greet(*whole, built, time.Since(began))
		<-ctx.Done()
		h.Say("stopping")
	} else {
		s.PrintLogs()
		if s.Password != "" {
			h.Say("the control plane's one-time password for admin is %s; it is not shown again", s.Password)
		}
	}
	if closeErr := s.Close(); err == nil {
		err = closeErr
	}
	return err
}

// start brings everything up: plan on, this machine enrolled and healthy.
func (s *Stack) start(ctx context.Context, port int, whole bool) error {
	if err := s.MountDemo(); err != nil {
		return err
	}
	if err := s.StartControl(ctx, port); err != nil {
		return err
	}
	a, err := s.API(ctx)
	if err != nil {
		return err
	}
	env, err := a.environment(ctx)
	if err != nil {
		return err
	}
	rules := []filesystemRule{{"*", s.elsewhere}, {s.Demo(), "block"}}
	if whole {
		rules = []filesystemRule{{"*", "block"}}
	}
	if !s.selfTest {
		if err := a.untested(ctx, env.ID); err != nil {
			return err
		}
	}
	if err := a.protect(ctx, env.ID, rules); err != nil {
		return err
	}
	if err := s.StartAgent(ctx); err != nil {
		return err
	}
	if err := s.Enrol(ctx, a, env.ID); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return nil // healthy it is not: there is no real-time protection
	}
	return s.WaitHealthy(ctx)
}

// linkMDATP gives the command line its second name, unless this machine has
// the real one.
func linkMDATP(bin string) error {
	link := filepath.Join(bin, "mdatp")
	if err := os.Remove(link); err != nil && !os.IsNotExist(err) {
		return err
	}
	if _, err := exec.LookPath("mdatp"); err == nil {
		return nil
	}
	return os.Symlink("komainu", link)
}

// greet says what is there and what to try.
func (s *Stack) greet(whole bool, built, took time.Duration) {
	say := s.h.Say
	say("\nKomainu is up after %s, %s of it building.", took.Round(100*time.Millisecond), built.Round(100*time.Millisecond))
	say("\n  Portal     %s", s.URL)
	if s.Password != "" {
		say("  Sign in    admin, one-time password: %s\n             It is shown this once; you choose your own when you sign in.", s.Password)
	} else {
		say("  Sign in    admin, with the password that you have chosen.\n             Forgotten: %s admin reset --state %s", filepath.Join(s.bin, "komainu-control"), filepath.Join(s.dir, "control"))
	}
	say("             The browser warns of an unknown CA: it is this control plane's own, %s/ca.pem.", s.URL)
	switch {
	case os.Geteuid() != 0:
		say("\n  Not root: no real-time protection and no kernel sensor. Events, scans and the portal work.")
	case whole:
		say("\n  Blocks     malware on every local filesystem of this machine, and puts it into quarantine.")
	default:
		say("\n  Blocks     in %s alone, and puts what it finds there into quarantine.", s.Demo())
		say("  Watches    every other local filesystem: it reports, and changes nothing.")
	}
	say("\nTry, in another terminal:\n")
	say("  export PATH=%s:$PATH KOMAINU_SOCKET=%s", s.bin, s.Socket())
	say("  curl -k -o %s/eicar.com.txt %s/downloads/eicar.com.txt", s.Demo(), s.URL)
	say("  komainu threat list")
	say("  curl -k -O %s/downloads/edr-test-linux.zip && unzip -o edr-test-linux.zip && ./edr_test_linux.sh", s.URL)
	say("  komainu health")
	say("\nCtrl-C stops it; go run ./dev down does so from elsewhere, and cleans up after a crash.")
}

// down stops what `up` has started and takes its mount away. It is safe to
// call at any time.
func down(ctx context.Context, h *House, args []string) error {
	if len(args) != 0 {
		return fault.New(fault.Invalid, "down takes no arguments")
	}
	file := h.State(upLock)
	if held(file) {
		pid := lockHolder(file)
		if pid == 0 {
			return fault.New(fault.Internal, "up runs, but %s does not say as which process", file)
		}
		h.Say("stopping process %d", pid)
		p, err := os.FindProcess(pid)
		if err == nil {
			err = p.Signal(syscall.SIGTERM)
		}
		if err != nil {
			return fmt.Errorf("stop process %d: %w", pid, err)
		}
		if err := waitFor(ctx, 60*time.Second, "up has ended", func() (bool, error) { return !held(file), nil }); err != nil {
			return err
		}
	}
	if err := unmountDemo(h.State("demo")); err != nil {
		return err
	}
	h.Say("down; what was kept is in %s, delete it to start anew", h.State())
	return nil
}
