package agent

import (
	"log/slog"

	"golang.org/x/sys/unix"

	"komainu/internal/privilege"
)

// What each role has of root's capabilities; docs/threat-model.md says what
// for. What a role starts has no more than the role itself.
var (
	brokerNeeds = []uintptr{
		unix.CAP_SYS_ADMIN, unix.CAP_DAC_READ_SEARCH, // ignore marks of any file
		unix.CAP_SYS_RESOURCE, unix.CAP_SYS_NICE, unix.CAP_IPC_LOCK, // not killed, not late, not swapped out
	}
	workerNeeds = []uintptr{
		unix.CAP_SYS_ADMIN, unix.CAP_DAC_READ_SEARCH, // marks, files by handle
		unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_NET_ADMIN, unix.CAP_SYS_PTRACE, // the sensor and its back ends, /proc of others
		unix.CAP_DAC_OVERRIDE, unix.CAP_CHOWN, unix.CAP_FOWNER, unix.CAP_FSETID, // quarantine and restore
		unix.CAP_SETUID, unix.CAP_SETGID, unix.CAP_SETPCAP, // the scanner becomes nobody
		unix.CAP_KILL, unix.CAP_LEASE,
		unix.CAP_SYS_RESOURCE, unix.CAP_SYS_NICE, unix.CAP_IPC_LOCK,
	}
)

// dropPrivileges leaves a role with what it needs, and without the system
// calls that no role makes. Where the host does not allow it the role goes on:
// to protect less would be worse.
func dropPrivileges(log *slog.Logger, needs []uintptr) {
	if err := privilege.Keep(needs...); err != nil {
		log.Debug("not every capability that is not needed could be dropped", "error", err)
	}
	if err := privilege.Forbid(); err != nil {
		log.Warn("system calls that are not needed could not be given up", "error", err)
	}
}
