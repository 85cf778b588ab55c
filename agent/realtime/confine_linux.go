package realtime

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/landlock-lsm/go-landlock/landlock"
	llsys "github.com/landlock-lsm/go-landlock/landlock/syscall"

	"komainu/internal/privilege"
)

// brokerCalls are what the broker does beside reading and writing descriptors
// that it has: it waits, sets marks, and ends a guardian that has stopped.
var brokerCalls = []string{"poll", "ppoll", "fanotify_mark", "kill", "getppid"}

// changing is every way to change, run or control a file, and none to read it.
// Reading has to stay: the descriptor of an event is opened by the kernel in
// the name of who reads the group, and Landlock asks then. A broker that may
// not read would have the kernel deny every open of the host. No call that
// names a file is left to it anyway.
const changing = llsys.AccessFSExecute | llsys.AccessFSWriteFile | llsys.AccessFSTruncate | llsys.AccessFSIoctlDev |
	llsys.AccessFSRemoveDir | llsys.AccessFSRemoveFile | llsys.AccessFSMakeChar | llsys.AccessFSMakeDir | llsys.AccessFSMakeReg |
	llsys.AccessFSMakeSock | llsys.AccessFSMakeFifo | llsys.AccessFSMakeBlock | llsys.AccessFSMakeSym | llsys.AccessFSRefer

// confine takes from the broker what it does not need once it has begun. What
// the kernel does not offer is done without: openers wait for the broker.
func confine(log *slog.Logger) {
	if err := errors.Join(restrictFiles(), privilege.AllowOnly(brokerCalls...)); err != nil {
		log.Warn("the broker is not confined", "error", err)
	}
}

// restrictFiles takes every change of a path, and TCP. Signals stay: the
// broker ends a guardian that has stopped.
func restrictFiles() error {
	cfg, err := landlock.NewConfig(landlock.AccessFSSet(changing), landlock.AccessNetSet(llsys.AccessNetBindTCP|llsys.AccessNetConnectTCP))
	if err != nil {
		return fmt.Errorf("landlock: %w", err)
	}
	if err := cfg.BestEffort().Restrict(); err != nil {
		return fmt.Errorf("landlock: %w", err)
	}
	return nil
}
