package privilege_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"komainu/internal/need"
)

// mountOf32 makes the call mount(2) as a 32-bit program does, with no
// arguments that a kernel could use, and returns what the kernel says.
func mountOf32() (int64, error) {
	code, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return 0, err
	}
	// push rbx; xor ebx, ebx; xor ecx, ecx; xor edx, edx; mov eax, 21; int 0x80; movsxd rax, eax; pop rbx; ret
	copy(code, "\x53\x31\xdb\x31\xc9\x31\xd2\xb8\x15\x00\x00\x00\xcd\x80\x48\x63\xc0\x5b\xc3")
	if err := unix.Mprotect(code, unix.PROT_READ|unix.PROT_EXEC); err != nil {
		return 0, err
	}
	entry := unsafe.Pointer(&code[0])
	closure := &entry
	return (*(*func() int64)(unsafe.Pointer(&closure)))(), nil
}

// TestTheOtherABIIsClosed: the calls of 32-bit programs have other numbers,
// and would pass by a filter that knows the native ones alone.
func TestTheOtherABIIsClosed(t *testing.T) {
	need.Root(t)
	run := func(role string) string {
		cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
		cmd.Env = append(os.Environ(), envRole+"="+role)
		out, err := cmd.CombinedOutput()
		if err != nil && role == "free32" {
			t.Skipf("this kernel runs no 32-bit programs: %v", err)
		}
		return string(out)
	}
	if free := run("free32"); !strings.Contains(free, "14") { // EFAULT: it got as far as the arguments
		t.Fatalf("a free process: %s", free)
	}
	if out := run("forbid32"); !strings.Contains(out, "-38\n") { // ENOSYS
		t.Errorf("the mount of 32-bit programs: %s", out)
	}
}
