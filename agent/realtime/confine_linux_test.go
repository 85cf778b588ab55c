package realtime_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"komainu/agent/realtime"
	"komainu/internal/need"
)

// temptation is what a broker that was taken over would try.
type temptation struct {
	name string
	try  func(dir string) error
}

var temptations = []temptation{
	{"read a file", func(dir string) error { return opened(filepath.Join(dir, "file"), unix.O_RDONLY) }},
	{"write a file", func(dir string) error { return opened(filepath.Join(dir, "file"), unix.O_WRONLY) }},
	{"make a file", func(dir string) error { return opened(filepath.Join(dir, "new"), unix.O_WRONLY|unix.O_CREAT) }},
	{"remove a file", func(dir string) error { return os.Remove(filepath.Join(dir, "file")) }},
	{"start a program", func(dir string) error { return exec.Command("/proc/self/exe", "-test.run=^$").Run() }},
	{"connect", func(string) error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Connect(fd, &unix.SockaddrInet4{Port: 1, Addr: [4]byte{127, 0, 0, 1}})
	}},
	{"make a fanotify group", func(string) error {
		fd, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_CLOEXEC, 0)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}},
}

func opened(name string, flags int) error {
	fd, err := unix.Open(name, flags|unix.O_CLOEXEC, 0o600)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// runTempted restricts this process as the broker does, or in part, and says
// what it may then do.
func runTempted(how, dir string) error {
	if err := realtime.Restrict(how); err != nil {
		return err
	}
	for _, a := range temptations {
		if err := a.try(dir); errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
			fmt.Println("refused:", a.name)
		}
	}
	return nil
}

// TestBrokerIsConfined tries what a broker may not, with each restriction
// alone and with both, and in a free process, which is root and may.
func TestBrokerIsConfined(t *testing.T) {
	need.Root(t)
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for how, want := range map[string][]string{
		"":         nil,
		"landlock": {"write a file", "make a file", "remove a file", "start a program", "connect"},
		"seccomp":  {"read a file", "write a file", "make a file", "remove a file", "start a program", "connect", "make a fanotify group"},
		"both":     {"read a file", "write a file", "make a file", "remove a file", "start a program", "connect", "make a fanotify group"},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "file"), []byte("text"), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), program, how, dir)
		cmd.Env = append(os.Environ(), envRole+"=tempted")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%q: %v\n%s", how, err, out)
		}
		for _, a := range temptations {
			refused, should := strings.Contains(string(out), "refused: "+a.name+"\n"), slices.Contains(want, a.name)
			if refused != should {
				t.Errorf("%q: refused to %s: %t, want %t\n%s", how, a.name, refused, should, out)
			}
		}
	}
}
