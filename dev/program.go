package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"time"
)

// Program is a process of ours that is started again when it ends: what
// systemd does on a host.
type Program struct {
	Name string

	mu     sync.Mutex
	cmd    *exec.Cmd
	starts int

	stop context.CancelFunc
	done chan struct{}
}

// restartDelay keeps a program that cannot start from using up the machine.
const restartDelay = 200 * time.Millisecond

// Supervise starts build's command and starts it again, with a new command,
// whenever it ends, until Stop or the end of ctx. Both streams go to log.
func (h *House) Supervise(ctx context.Context, name string, log io.Writer, build func(context.Context) *exec.Cmd) *Program {
	ctx, stop := context.WithCancel(ctx)
	p := &Program{Name: name, stop: stop, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		// The death signal of a child goes by the thread that started it: this
		// thread has to live as long as the program.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for ctx.Err() == nil {
			cmd := build(ctx)
			if cmd.Stdout == nil {
				cmd.Stdout = log
			}
			cmd.Stderr = log
			detach(cmd)
			cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
			cmd.WaitDelay = 15 * time.Second
			p.mu.Lock()
			err := cmd.Start()
			if err == nil {
				p.cmd = cmd
				p.starts++
			}
			p.mu.Unlock()
			if err == nil {
				err = cmd.Wait()
			}
			if ctx.Err() != nil {
				return
			}
			fmt.Fprintf(log, "%s ended (%v); starting it again\n", name, err)
			select {
			case <-ctx.Done():
			case <-time.After(restartDelay):
			}
		}
	}()
	return p
}

// PID returns the process id of the present run, 0 before the first.
func (p *Program) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil || p.cmd.Process == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// Starts returns how often it was started.
func (p *Program) Starts() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.starts
}

// Stop ends the program: asked first, killed after fifteen seconds. It
// returns when the process is gone.
func (p *Program) Stop() {
	p.stop()
	<-p.done
}
