package privilege

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"unsafe"

	"github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"
)

// never are the system calls that no process of the agent makes, nor what it
// starts. They are what somebody who has taken over a process of root would
// want: another kernel, other people's memory, another view of the files.
var never = []string{
	// the kernel: another one, its modules, its clock, its name, its ports
	"kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module", "reboot",
	"settimeofday", "clock_settime", "adjtimex", "clock_adjtime", "sethostname", "setdomainname", "iopl", "ioperm",
	"swapon", "swapoff", "acct", "quotactl", "quotactl_fd", "syslog", "vhangup",
	// the files that others see
	"mount", "umount2", "pivot_root", "chroot", "move_mount", "open_tree", "open_tree_attr", "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr",
	// other namespaces
	"setns", "unshare",
	// memory, descriptors and fate of other processes
	"ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "process_mrelease", "pidfd_getfd", "kcmp",
	"move_pages", "migrate_pages",
	// keys of others
	"keyctl", "add_key", "request_key",
	// what has been a way into the kernel more often than anything else
	"userfaultfd", "perf_event_open", "io_uring_setup", "io_uring_enter", "io_uring_register",
	"personality", "modify_ldt", "lookup_dcookie", "nfsservctl", "uselib", "ustat", "sysfs", "_sysctl",
}

// namespaces are the flags of clone(2) that make a new one. That of time has a
// bit that only clone3(2) and unshare(2) know.
const namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

// bpfCommands are what the sensor asks of bpf(2): its own maps, programs,
// links and iterators, by descriptor. The others reach those of somebody else:
// by number, by a pin, or by what they are attached to.
var bpfCommands = []uint64{
	unix.BPF_MAP_CREATE, unix.BPF_MAP_LOOKUP_ELEM, unix.BPF_MAP_UPDATE_ELEM, unix.BPF_MAP_DELETE_ELEM, unix.BPF_MAP_GET_NEXT_KEY,
	unix.BPF_PROG_LOAD, unix.BPF_PROG_BIND_MAP, unix.BPF_RAW_TRACEPOINT_OPEN, unix.BPF_LINK_CREATE, unix.BPF_ITER_CREATE,
	unix.BPF_OBJ_GET_INFO_BY_FD, unix.BPF_BTF_LOAD, unix.BPF_BTF_GET_FD_BY_ID, unix.BPF_BTF_GET_NEXT_ID, unix.BPF_MAP_FREEZE,
}

// Forbid takes from this process, on all its threads, and from everything that
// it starts the system calls that no part of the agent makes. They fail with
// EPERM, and clone3, whose flags a filter cannot see, with ENOSYS: everybody
// then takes clone.
//
// It names what is forbidden and not what is allowed, because the worker
// starts programs of the host. It wants no_new_privs or CAP_SYS_ADMIN.
func Forbid() error {
	info, err := arch.GetInfo("")
	if err != nil {
		return err
	}
	// Another ABI of the same processor has the same calls under other numbers,
	// which the library's filter lets pass when it lets pass by default.
	if err := onlyABI(uint32(info.ID)); err != nil {
		return fmt.Errorf("keep to the native ABI: %w", err)
	}
	// BitsSet matches when one of them is set.
	clone := seccomp.NameWithConditions{Name: "clone", Conditions: seccomp.ArgumentConditions{{Operation: seccomp.BitsSet, Value: namespaces}}}
	bpf := seccomp.NameWithConditions{Name: "bpf"}
	for _, c := range bpfCommands {
		bpf.Conditions = append(bpf.Conditions, seccomp.Condition{Operation: seccomp.NotEqual, Value: c})
	}
	return load(seccomp.ActionAllow,
		seccomp.SyscallGroup{Action: seccomp.ActionErrno, Names: known(info, never)},
		noSys("clone3"),
		seccomp.SyscallGroup{Action: seccomp.ActionErrno, NamesWithCondtions: []seccomp.NameWithConditions{clone, bpf}},
	)
}

// runtimeNeeds are the system calls that the Go runtime makes once it runs,
// and with which a process reads and closes what it has.
var runtimeNeeds = []string{
	"read", "pread64", "write", "close", "fstat", "fcntl", "recvmsg", "sendmsg",
	// poller
	"epoll_ctl", "epoll_pwait", "epoll_wait", "eventfd2",
	// memory; mmap and mprotect are below
	"munmap", "madvise", "brk",
	// threads and time; clone and tgkill are below
	"futex", "sched_yield", "sched_getaffinity", "nanosleep", "clock_nanosleep", "clock_gettime", "restart_syscall",
	"set_robust_list", "rseq", "getpid", "gettid", "exit", "exit_group", "getrandom",
	// signals to itself: the scheduler's preemption
	"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack",
}

// AllowOnly leaves to this process, on all its threads, the system calls that
// the Go runtime makes, and these. Threads are made, programs and processes
// are not; nothing becomes executable.
//
// What is not allowed fails with EPERM and does not kill: the runtime of a new
// Go version may try a call that it can do without, and a process that dies of
// it would protect nobody.
func AllowOnly(calls ...string) error {
	info, err := arch.GetInfo("")
	if err != nil {
		return err
	}
	return load(seccomp.ActionErrno,
		seccomp.SyscallGroup{Action: seccomp.ActionAllow, Names: known(info, slices.Concat(runtimeNeeds, calls))},
		// libc makes threads with clone3, whose flags a filter cannot see, and
		// with clone where there is no clone3.
		noSys("clone3"),
		seccomp.SyscallGroup{Action: seccomp.ActionAllow, NamesWithCondtions: []seccomp.NameWithConditions{
			{Name: "mmap", Conditions: seccomp.ArgumentConditions{{Argument: 2, Operation: seccomp.BitsNotSet, Value: unix.PROT_EXEC}}},
			{Name: "clone", Conditions: seccomp.ArgumentConditions{{Argument: 0, Operation: seccomp.BitsSet, Value: unix.CLONE_THREAD}}},
			{Name: "mprotect", Conditions: seccomp.ArgumentConditions{{Argument: 2, Operation: seccomp.BitsNotSet, Value: unix.PROT_EXEC}}},
			{Name: "tgkill", Conditions: seccomp.ArgumentConditions{{Argument: 0, Operation: seccomp.Equal, Value: uint64(os.Getpid())}}},
		}},
	)
}

func noSys(name string) seccomp.SyscallGroup {
	return seccomp.SyscallGroup{Action: seccomp.ActionErrno | seccomp.Action(unix.ENOSYS), Names: []string{name}}
}

// known leaves out what this architecture does not have.
func known(info *arch.Info, names []string) []string {
	var have []string
	for _, n := range names {
		if _, ok := info.SyscallNames[n]; ok && !slices.Contains(have, n) {
			have = append(have, n)
		}
	}
	return have
}

func load(otherwise seccomp.Action, groups ...seccomp.SyscallGroup) error {
	return seccomp.LoadFilter(seccomp.Filter{Flag: seccomp.FilterFlagTSync, Policy: seccomp.Policy{DefaultAction: otherwise, Syscalls: groups}})
}

// archOffset is where struct seccomp_data says which ABI a call is of.
const archOffset = 4

// onlyABI lets no call of another ABI pass, on all threads.
func onlyABI(id uint32) error {
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: archOffset},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: id, Jt: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: uint32(seccomp.ActionErrno) | uint32(unix.ENOSYS)},
		{Code: unix.BPF_RET | unix.BPF_K, K: uint32(seccomp.ActionAllow)},
	}
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	failed, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(program)
	if errno != 0 {
		return errno
	}
	if failed != 0 {
		return errors.New("a thread has another filter")
	}
	return nil
}
