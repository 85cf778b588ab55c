package privilege_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"komainu/internal/need"
	"komainu/internal/privilege"
)

// attempt is a system call that does no harm when it gets through: what it is
// given is wrong, so that a free kernel answers anything but EPERM.
type attempt struct {
	name string
	args [4]uintptr
	trap uintptr
}

var nowhere, nothing = text("/nonexistent/komainu"), text("")

func text(s string) uintptr {
	b, err := unix.BytePtrFromString(s)
	if err != nil {
		panic(err)
	}
	kept = append(kept, b)
	return uintptr(unsafe.Pointer(b))
}

// kept keeps what the kernel is told the address of.
var kept []*byte

const wrong = ^uintptr(0)

// forbidden are tried in a process that Forbid has been called in.
var forbidden = []attempt{
	{"trace a process", [4]uintptr{unix.PTRACE_SEIZE}, unix.SYS_PTRACE},
	{"load another kernel", [4]uintptr{0, 0, 0, wrong}, unix.SYS_KEXEC_LOAD},
	{"load a module", [4]uintptr{0, 0, nothing}, unix.SYS_INIT_MODULE},
	{"load a module from a file", [4]uintptr{wrong, nothing}, unix.SYS_FINIT_MODULE},
	{"unload a module", [4]uintptr{nowhere}, unix.SYS_DELETE_MODULE},
	{"mount", [4]uintptr{nowhere, nowhere, nowhere}, unix.SYS_MOUNT},
	{"unmount", [4]uintptr{nowhere}, unix.SYS_UMOUNT2},
	{"change the root", [4]uintptr{nowhere, nowhere}, unix.SYS_PIVOT_ROOT},
	{"chroot", [4]uintptr{nowhere}, unix.SYS_CHROOT},
	{"make a filesystem", [4]uintptr{nowhere}, unix.SYS_FSOPEN},
	{"take a mount", [4]uintptr{wrong, nowhere}, unix.SYS_OPEN_TREE},
	{"enter a namespace", [4]uintptr{wrong}, unix.SYS_SETNS},
	{"leave a namespace", [4]uintptr{1}, unix.SYS_UNSHARE},
	// The kernel refuses these two together.
	{"make a process in a new namespace", [4]uintptr{unix.CLONE_NEWNS | unix.CLONE_FS}, unix.SYS_CLONE},
	{"read another's memory", [4]uintptr{}, unix.SYS_PROCESS_VM_READV},
	{"write another's memory", [4]uintptr{}, unix.SYS_PROCESS_VM_WRITEV},
	{"take another's descriptor", [4]uintptr{wrong, wrong}, unix.SYS_PIDFD_GETFD},
	{"use keys", [4]uintptr{wrong}, unix.SYS_KEYCTL},
	{"add a key", [4]uintptr{}, unix.SYS_ADD_KEY},
	{"reboot", [4]uintptr{}, unix.SYS_REBOOT},
	{"swap", [4]uintptr{nowhere}, unix.SYS_SWAPON},
	{"set the clock", [4]uintptr{99}, unix.SYS_CLOCK_SETTIME},
	{"ask for a personality", [4]uintptr{0xffffffff}, unix.SYS_PERSONALITY},
	{"handle page faults", [4]uintptr{wrong}, unix.SYS_USERFAULTFD},
	{"measure the kernel", [4]uintptr{}, unix.SYS_PERF_EVENT_OPEN},
	{"queue system calls", [4]uintptr{}, unix.SYS_IO_URING_SETUP},
	{"find others' programs in the kernel", [4]uintptr{unix.BPF_PROG_GET_NEXT_ID, 0, 0}, unix.SYS_BPF},
	{"pin in the kernel", [4]uintptr{unix.BPF_OBJ_PIN, 0, 0}, unix.SYS_BPF},
}

// allowed are what a process must keep on doing after Forbid.
var allowed = []attempt{
	{"load its own programs", [4]uintptr{unix.BPF_PROG_LOAD, 0, 0}, unix.SYS_BPF},
	{"make a process", [4]uintptr{unix.CLONE_SIGHAND}, unix.SYS_CLONE},
	{"start a program", [4]uintptr{nowhere}, unix.SYS_EXECVE},
	{"open a file", [4]uintptr{wrong, nowhere}, unix.SYS_OPENAT},
	{"mark for fanotify", [4]uintptr{wrong, wrong}, unix.SYS_FANOTIFY_MARK},
}

// none are tried in a process that AllowOnly has been called in, besides
// those that are forbidden to everybody.
var none = []attempt{
	{"start a program", [4]uintptr{nowhere}, unix.SYS_EXECVE},
	{"make a process", [4]uintptr{unix.CLONE_SIGHAND}, unix.SYS_CLONE},
	{"open a file", [4]uintptr{wrong, nowhere}, unix.SYS_OPENAT},
	{"open a file by handle", [4]uintptr{wrong}, unix.SYS_OPEN_BY_HANDLE_AT},
	{"make a socket", [4]uintptr{wrong}, unix.SYS_SOCKET},
	{"mark for fanotify", [4]uintptr{wrong, wrong}, unix.SYS_FANOTIFY_MARK},
	{"signal", [4]uintptr{wrong, wrong}, unix.SYS_KILL},
	{"map code", [4]uintptr{0, 0, unix.PROT_EXEC}, unix.SYS_MMAP},
	{"make memory executable", [4]uintptr{1, 0, unix.PROT_EXEC}, unix.SYS_MPROTECT},
	{"become somebody else", [4]uintptr{wrong, wrong, wrong}, unix.SYS_SETRESUID},
	{"limit others", [4]uintptr{wrong}, unix.SYS_PRLIMIT64},
}

func (a attempt) try() error {
	if _, _, errno := unix.RawSyscall6(a.trap, a.args[0], a.args[1], a.args[2], a.args[3], 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// tryCalls says of each attempt, on a thread that was there before and on one
// that comes after, and in a child that has restricted nothing itself, whether
// it was refused.
func tryCalls(err error) int {
	if err != nil {
		fmt.Println(err)
		return 1
	}
	try := func(where string) {
		for _, a := range slices.Concat(forbidden, allowed, none) {
			if errors.Is(a.try(), unix.EPERM) {
				fmt.Println("refused "+where, a.name)
			}
		}
		// glibc asks for clone3 first and must hear that there is none.
		if _, _, errno := unix.RawSyscall(unix.SYS_CLONE3, 0, 0, 0); errno == unix.ENOSYS {
			fmt.Println("none " + where + " clone3")
		}
	}
	try("here")
	done := make(chan bool)
	go func() {
		runtime.LockOSThread()
		try("elsewhere")
		close(done)
	}()
	<-done
	if os.Getenv(envRole) == "forbid" {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), envRole+"=free")
		out, err := cmd.CombinedOutput()
		fmt.Print(strings.ReplaceAll(string(out), " here ", " child "))
		if err != nil {
			fmt.Println(err)
			return 1
		}
	}
	return 0
}

func callsOf(t *testing.T, role string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), envRole+"="+role)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", role, err, out)
	}
	return string(out)
}

// TestEachForbiddenCallIsRefused compares a process that has called Forbid,
// what it starts, and one that has called AllowOnly with a free one. They are
// all root.
func TestEachForbiddenCallIsRefused(t *testing.T) {
	need.Root(t)
	free := callsOf(t, "free")
	for role, places := range map[string][]string{"forbid": {"here", "elsewhere", "child"}, "only": {"here", "elsewhere"}} {
		out := callsOf(t, role)
		refused := func(where string, a attempt) bool { return strings.Contains(out, "refused "+where+" "+a.name+"\n") }
		must := forbidden
		if role == "only" {
			must = slices.Concat(forbidden, none)
		}
		for _, where := range places {
			for _, a := range must {
				if strings.Contains(free, "refused here "+a.name+"\n") {
					t.Errorf("a free process may not %s: nothing is shown", a.name)
				}
				if !refused(where, a) {
					t.Errorf("%s: %s may %s", role, where, a.name)
				}
			}
			for _, a := range allowed {
				if role == "forbid" && refused(where, a) {
					t.Errorf("%s: %s may not %s", role, where, a.name)
				}
			}
			if !strings.Contains(out, "none "+where+" clone3\n") {
				t.Errorf("%s: clone3 gets through %s", role, where)
			}
		}
	}
	if strings.Contains(free, "none here clone3") {
		t.Log("this kernel has no clone3")
	}
}

// restrictCalls is what the roles of the test do before they try.
func restrictCalls(role string) error {
	if role == "free" {
		return nil
	}
	// The bounding set stays: what is refused is refused by the filter.
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	if role == "forbid" {
		return privilege.Forbid()
	}
	return privilege.AllowOnly()
}
