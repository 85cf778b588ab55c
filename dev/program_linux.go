package main

import (
	"os/exec"
	"syscall"
)

// detach gives a program a process group of its own, so that Ctrl-C reaches
// dev alone and the order of stopping is ours, and kills it when dev dies.
func detach(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
