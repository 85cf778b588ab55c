package realtime

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"
)

// Descriptors that a role finds after stdin, stdout and stderr.
const (
	sharedFD = 3
	sockFD   = 4
	groupFD  = 5 // broker only
	exeFD    = 6 // broker only
)

// envStarted tells a role that the guardian has started it.
const envStarted = "KOMAINU_REALTIME"

// Weights against being killed for memory. The worker can be replaced.
const (
	oomNever  = -1000
	oomRather = -900
)

// harden keeps a process that openers wait for in memory and alive. What the
// host does not allow is noted and done without.
func harden(log *slog.Logger, oom int) {
	if err := os.WriteFile("/proc/self/oom_score_adj", fmt.Append(nil, oom), 0); err != nil {
		log.Debug("cannot lower the chance to be killed for memory", "error", err)
	}
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil || files.Cur >= maxFD {
		return
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: maxFD, Max: max(maxFD, files.Max)}); err != nil {
		log.Debug("cannot raise the number of open files", "error", err)
	}
}

// lockMemory keeps what the process uses from being swapped out: reading it
// back could wait for somebody who waits for an open.
func lockMemory(log *slog.Logger) {
	debug.SetGCPercent(50)
	const onFault = 4 // MCL_ONFAULT: the address space that Go reserves is not all faulted in
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | onFault); err != nil {
		log.Debug("cannot lock memory", "error", err)
	}
}

// hurry puts all threads of the broker before others: they do little, and
// somebody waits for it. The broker has a process group of its own.
func hurry(log *slog.Logger) {
	if err := unix.Setpriority(unix.PRIO_PGRP, 0, -10); err != nil {
		log.Debug("cannot raise the broker's priority", "error", err)
	}
}

// aside logs without ever making its caller wait: whoever reads the log may
// himself wait for an open. Its queue is bounded; what finds it full is lost.
type aside struct {
	log   *slog.Logger
	lines chan line
	ended chan struct{}
}

type line struct {
	level slog.Level
	text  string
	args  []any
}

func newAside(log *slog.Logger) *aside {
	a := &aside{log: log, lines: make(chan line, 32), ended: make(chan struct{})}
	go func() {
		defer close(a.ended)
		for l := range a.lines {
			a.log.Log(context.Background(), l.level, l.text, l.args...)
		}
	}()
	return a
}

func (a *aside) say(level slog.Level, text string, args ...any) {
	select {
	case a.lines <- line{level, text, args}:
	default:
	}
}

// close waits a little for the last lines.
func (a *aside) close() {
	close(a.lines)
	select {
	case <-a.ended:
	case <-time.After(time.Second):
	}
}
