package privilege_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"komainu/internal/need"
	"komainu/internal/privilege"
)

const envRole = "KOMAINU_PRIVILEGE_TEST"

func TestMain(m *testing.M) {
	switch os.Getenv(envRole) {
	case "":
		os.Exit(m.Run())
	case "kept": // everything that the attempts need
		os.Exit(report(privilege.Keep(unix.CAP_CHOWN, unix.CAP_NET_RAW, unix.CAP_MKNOD, unix.CAP_SYS_CHROOT, unix.CAP_SETPCAP, unix.CAP_DAC_OVERRIDE)))
	case "dropped":
		os.Exit(report(privilege.Keep(unix.CAP_DAC_OVERRIDE)))
	case "child": // started by one that has dropped: nothing comes back
		os.Exit(report(nil))
	case "free", "forbid", "only":
		os.Exit(tryCalls(restrictCalls(os.Getenv(envRole))))
	case "free32", "forbid32":
		err := restrictCalls(strings.TrimSuffix(os.Getenv(envRole), "32"))
		if err == nil {
			var n int64
			n, err = mountOf32()
			fmt.Println(n)
		}
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

// report tries what root may and says what went.
func report(err error) int {
	if err != nil {
		fmt.Println("keep:", err)
		return 1
	}
	dir := os.Getenv("KOMAINU_PRIVILEGE_DIR")
	file := filepath.Join(dir, "file")
	say := func(what string, err error) {
		if err == nil {
			fmt.Println("may", what)
		} else {
			fmt.Println("may not", what)
		}
	}
	say("chown", os.Chown(file, 1, 1))
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP)
	if err == nil {
		unix.Close(fd)
	}
	say("raw socket", err)
	node := filepath.Join(dir, "node")
	err = unix.Mknod(node, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3)))
	if err == nil {
		os.Remove(node)
	}
	say("mknod", err)
	say("chroot", unix.Chroot("/"))
	// Of another thread, which was there before or comes after.
	done := make(chan error)
	go func() { done <- os.Chown(file, 2, 2) }()
	say("chown elsewhere", <-done)
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "NoNewPrivs:") {
			fmt.Print(line)
		}
	}
	if os.Getenv(envRole) == "dropped" {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), envRole+"=child")
		cmd.Stdout = os.Stdout
		if err := cmd.Run(); err != nil {
			fmt.Println(err)
		}
	}
	return 0
}

// TestEachRestrictionBites compares a process that kept what the attempts need
// with one that did not, and with what that one starts.
func TestEachRestrictionBites(t *testing.T) {
	need.Root(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	attempts := []string{"chown", "raw socket", "mknod", "chroot", "chown elsewhere"}
	for role, want := range map[string]struct {
		word  string
		times int
	}{"kept": {"may ", 1}, "dropped": {"may not ", 2}} {
		cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
		cmd.Env = append(os.Environ(), envRole+"="+role, "KOMAINU_PRIVILEGE_DIR="+dir)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", role, err, out)
		}
		for _, a := range attempts {
			if n := strings.Count(string(out), want.word+a+"\n"); n != want.times {
				t.Errorf("%s: %q %d times, want %d\n%s", role, want.word+a, n, want.times, out)
			}
		}
		if n := strings.Count(string(out), "NoNewPrivs:\t1\n"); n != want.times {
			t.Errorf("%s: no_new_privs in %d processes\n%s", role, n, out)
		}
	}
}
