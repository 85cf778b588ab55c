package realtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"time"
)

// child is a role that is kept running.
type child struct {
	role    string
	files   []*os.File
	command func(role string) *exec.Cmd
	log     *aside
	ended   func() // called after each end, before the next start
	// giveUp says, by an exit code, that starting the role again is no use. Nil
	// never does.
	giveUp func(exit int) error

	mu      sync.Mutex
	process *os.Process
	since   int64 // mono
}

// Pauses between restarts: short at first, because every one is a gap.
const (
	firstPause = 20 * time.Millisecond
	maxPause   = 5 * time.Second
	settled    = 30 * time.Second // a run that long resets the pause
	endWithin  = 10 * time.Second // from SIGTERM to SIGKILL
)

// keep runs the role, again and again, until ctx ends, when it returns nil, or
// until that is no use.
func (c *child) keep(ctx context.Context) error {
	// The death signal goes by the thread that has started the child: it has to
	// live as long.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pause := firstPause
	for ctx.Err() == nil {
		began := time.Now()
		err := c.run(ctx)
		c.ended()
		if ctx.Err() != nil {
			return nil
		}
		if exit, ok := errors.AsType[*exec.ExitError](err); ok && c.giveUp != nil {
			if err := c.giveUp(exit.ExitCode()); err != nil {
				return err
			}
		}
		lived := time.Since(began)
		c.log.say(slog.LevelWarn, "a part of the agent has ended and is started again", "part", c.role, "error", err, "after", lived.Round(time.Millisecond))
		if lived > settled {
			pause = firstPause
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, maxPause)
	}
	return nil
}

// run starts the role and waits for its end.
func (c *child) run(ctx context.Context) error {
	cmd := c.command(c.role)
	cmd.ExtraFiles = c.files
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(cmd.Env, envStarted+"=1")
	// A process group of its own: what a terminal sends is for the guardian,
	// which ends the others in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := startAlone(cmd); err != nil {
		return fmt.Errorf("start %s: %w", c.role, err)
	}
	c.set(cmd.Process, mono())
	ended := make(chan struct{})
	var ender sync.WaitGroup
	ender.Go(func() { c.end(ctx, ended) })
	err := cmd.Wait()
	c.set(nil, 0)
	close(ended)
	ender.Wait()
	return err
}

// end ends the role with ctx, by force if it takes too long.
func (c *child) end(ctx context.Context, ended <-chan struct{}) {
	select {
	case <-ended:
		return
	case <-ctx.Done():
	}
	c.signal(syscall.SIGTERM)
	select {
	case <-ended:
	case <-time.After(endWithin):
		c.kill()
	}
}

// starting keeps two starts apart.
var starting sync.Mutex

// startAlone starts a command while the garbage collector rests.
//
// Between fork and exec the forking thread holds its processor and cannot be
// stopped. When the program lies on a protected filesystem and no broker
// lives, exec waits for an answer of this very process: a collection that
// stops the world would wait for the fork, the answer for the collection, and
// the fork for the answer.
func startAlone(cmd *exec.Cmd) error {
	starting.Lock()
	defer starting.Unlock()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	runtime.GC() // ends the one that may be running
	return cmd.Start()
}

func (c *child) set(p *os.Process, since int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.process, c.since = p, since
}

// running returns the process, 0 if there is none, and since when it runs.
func (c *child) running() (pid int32, since int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.process == nil {
		return 0, 0
	}
	return int32(c.process.Pid), c.since
}

func (c *child) kill() { c.signal(syscall.SIGKILL) }

func (c *child) signal(s os.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.process != nil {
		_ = c.process.Signal(s) // it may have ended meanwhile
	}
}
