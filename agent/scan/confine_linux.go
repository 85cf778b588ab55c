package scan

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"unsafe"

	"github.com/landlock-lsm/go-landlock/landlock"
	llsys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/psx"

	"komainu/internal/privilege"
)

// niceVariable carries Config.Nice to the child.
const niceVariable = "KOMAINU_SCANNER_NICE"

const (
	memoryLimit = 192 << 20 // soft, of the Go runtime
	// dataLimit is the hard one. RLIMIT_DATA counts memory that can be
	// written; RLIMIT_AS alone would have to allow the address space that the
	// Go runtime reserves and never touches.
	dataLimit    = 768 << 20
	addressLimit = 8 << 30
	filesLimit   = 64
	nobody       = 65534
)

// step is one restriction. The order matters: each closes doors that the
// later ones do not need.
type step struct {
	name string
	do   func(*Confinement) error
}

var steps = []step{
	{"nice", func(*Confinement) error { return lowerPriority() }},
	{"no_new_privs", noNewPrivs},
	{"rlimits", func(*Confinement) error { return limitResources() }},
	{"user", dropUser},
	{"capabilities", func(*Confinement) error { return dropCapabilities() }},
	{"landlock", restrictFiles},
	{"seccomp", filterCalls},
}

// confine puts every restriction on this process that it can, and then tries
// to break each.
func confine() Confinement {
	var c Confinement
	for _, s := range steps {
		if err := s.do(&c); err != nil {
			c.Missing = append(c.Missing, fmt.Sprintf("%s: %v", s.name, err))
		}
	}
	c.Escapes = escapes()
	return c
}

// Of ioprio_set(2). The idle class would not read at all while others keep a
// disk busy, and a file would run out of its time.
const (
	ioprioWhoProcess = 1
	bestEffortLowest = 2<<13 | 7
)

func lowerPriority() error {
	n, err := strconv.Atoi(os.Getenv(niceVariable))
	if err != nil || n == 0 {
		return nil
	}
	// Priorities belong to threads; new ones inherit that of their creator,
	// so it is enough to lower those that exist.
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range threads {
		if tid, err := strconv.Atoi(t.Name()); err == nil {
			_ = unix.Setpriority(unix.PRIO_PROCESS, tid, n) // a thread that just ended needs none
			_, _, _ = unix.Syscall(unix.SYS_IOPRIO_SET, ioprioWhoProcess, uintptr(tid), bestEffortLowest)
		}
	}
	return nil
}

// allThreads makes the call on every thread of the process, in a static binary
// and in one that is linked with libc.
func allThreads(trap, a1, a2, a3 uintptr) error {
	if _, _, errno := psx.Syscall6(trap, a1, a2, a3, 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

func noNewPrivs(c *Confinement) error {
	err := allThreads(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0)
	c.NoNewPrivs = err == nil
	return err
}

func limitResources() error {
	var errs []error
	for resource, limit := range map[int]uint64{
		unix.RLIMIT_DATA:   dataLimit,
		unix.RLIMIT_AS:     addressLimit,
		unix.RLIMIT_NOFILE: filesLimit,
		unix.RLIMIT_FSIZE:  0, // also where a descriptor would let it write
		unix.RLIMIT_CORE:   0, // a dump would hold other people's files
	} {
		var now unix.Rlimit
		if err := unix.Getrlimit(resource, &now); err != nil {
			errs = append(errs, err)
			continue
		}
		limit = min(limit, now.Max)
		errs = append(errs, unix.Setrlimit(resource, &unix.Rlimit{Cur: limit, Max: limit}))
	}
	return errors.Join(errs...)
}

// dropUser becomes nobody. Descriptors that were opened by root stay readable.
func dropUser(c *Confinement) error {
	defer func() { c.UID = os.Getuid() }()
	if os.Getuid() == 0 {
		if err := syscall.Setgroups(nil); err != nil {
			return fmt.Errorf("groups: %w", err)
		}
		if err := syscall.Setresgid(nobody, nobody, nobody); err != nil {
			return fmt.Errorf("group: %w", err)
		}
		if err := syscall.Setresuid(nobody, nobody, nobody); err != nil {
			return fmt.Errorf("user: %w", err)
		}
		// A change of credentials takes the death signal away.
		if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
			return fmt.Errorf("death signal: %w", err)
		}
	}
	// Nobody else may attach, whoever it runs as.
	return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
}

func dropCapabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	return allThreads(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&none[0])), 0)
}

// restrictFiles takes away every path, TCP, and signals to others, as far as
// the kernel knows them.
func restrictFiles(c *Confinement) error {
	version, err := llsys.LandlockGetABIVersion()
	if err != nil {
		return fmt.Errorf("this kernel does not offer it: %w", err)
	}
	if err := landlock.V8.BestEffort().Restrict(); err != nil {
		return err
	}
	c.Landlock = version
	return nil
}

// filterCalls leaves what the Go runtime needs, which is enough to read a
// descriptor and to answer. Whether the dangerous calls fail is tried at every
// start.
func filterCalls(c *Confinement) error {
	err := privilege.AllowOnly()
	c.Seccomp = err == nil
	return err
}

// escape is something that a taken-over scanner would try.
type escape struct {
	name string
	try  func() error
}

var attempts = []escape{
	{"open a file", func() error {
		fd, err := unix.Open("/proc/self/exe", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		return closed(fd, err)
	}},
	{"open a folder", func() error {
		fd, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		return closed(fd, err)
	}},
	{"create a file", func() error {
		// One without a name: should it get through, nothing is left behind.
		fd, err := unix.Open("/tmp", unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
		return closed(fd, err)
	}},
	{"make a socket", func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		return closed(fd, err)
	}},
	{"start a program", func() error {
		// The empty path names no program: a call that gets through starts none.
		return errnoOf(unix.SYS_EXECVE, uintptr(unsafe.Pointer(&noPath)), 0, 0)
	}},
	{"make a process", func() error {
		// CLONE_THREAD is missing, and CLONE_VM without a stack cannot work:
		// an unfiltered kernel answers EINVAL for this combination.
		return errnoOf(unix.SYS_CLONE, unix.CLONE_SIGHAND, 0, 0)
	}},
	{"signal another process", func() error { return unix.Kill(os.Getppid(), 0) }},
	// Nobody has the pid 0: a call that gets through traces nothing.
	{"trace a process", func() error { return errnoOf(unix.SYS_PTRACE, unix.PTRACE_SEIZE, 0, 0) }},
	{"make memory executable", func() error {
		b, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err == nil {
			_ = unix.Munmap(b)
		}
		return err
	}},
	{"become root", func() error { return errnoOf(unix.SYS_SETRESUID, 0, 0, 0) }},
}

// escapes returns what should have been refused and was not. Refused means
// EPERM or EACCES: any other error says that the call got through.
func escapes() []string {
	var through []string
	for _, a := range attempts {
		if err := a.try(); !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES) {
			through = append(through, fmt.Sprintf("%s: %v", a.name, err))
		}
	}
	return through
}

func closed(fd int, err error) error {
	if err == nil {
		_ = unix.Close(fd)
	}
	return err
}

func errnoOf(trap, a1, a2, a3 uintptr) error {
	if _, _, errno := unix.RawSyscall(trap, a1, a2, a3); errno != 0 {
		return errno
	}
	return nil
}

// noPath is the empty string as the kernel reads it.
var noPath byte
