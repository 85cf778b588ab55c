package scan_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"komainu/agent/scan"
	"komainu/internal/need"
)

// TestConfined believes the child, and then asks the kernel.
func TestConfined(t *testing.T) {
	t.Parallel()
	p := start(t, scan.Config{})
	until(t, "the scanner", func() bool { return p.Status().Up })
	s := p.Status()
	if !s.Confined() || len(s.Missing) != 0 || s.Problem != "" {
		t.Fatalf("%+v", s)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.PID))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "CapAmb:\t0000000000000000"}
	if os.Getuid() == 0 {
		want = append(want, "Uid:\t65534\t65534\t65534\t65534", "Gid:\t65534\t65534\t65534\t65534", "Groups:\t \n")
	}
	for _, w := range want {
		if !strings.Contains(string(status), w) {
			t.Errorf("%q is not in\n%s", w, status)
		}
	}
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", s.PID))
	if os.Getuid() == 0 && err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(limits)) {
		f := strings.Fields(line)
		for name, want := range map[string]string{"Max data size": "805306368", "Max open files": "64", "Max file size": "0", "Max core file size": "0", "Max address space": "8589934592"} {
			if strings.HasPrefix(line, name) && f[len(strings.Fields(name))+1] != want {
				t.Errorf("%s", line)
			}
		}
	}
	// Every thread, not only the first.
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", s.PID))
	if err != nil {
		t.Fatal(err)
	}
	for _, th := range threads {
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/status", s.PID, th.Name()))
		if len(status) > 0 && (!strings.Contains(string(status), "Seccomp:\t2") || !strings.Contains(string(status), "NoNewPrivs:\t1")) {
			t.Errorf("thread %s is free", th.Name())
		}
	}
}

// TestEachRestrictionBites puts the restrictions on one by one. Without any,
// root may do nearly everything, so what is refused is refused by that one.
func TestEachRestrictionBites(t *testing.T) {
	need.Root(t)
	refused := map[string]string{}
	for _, step := range []string{"", "landlock", "seccomp", "user"} {
		out, err := exec.Command("/proc/self/exe", "probe", step).CombinedOutput()
		if err != nil || !strings.HasSuffix(string(out), " <nil>\n") {
			t.Fatalf("%q: %s, %v", step, out, err)
		}
		refused[step] = strings.TrimSuffix(string(out), " <nil>\n")
	}
	for step, want := range map[string][]string{
		"landlock": {"open a file", "create a file", "signal another process"},
		"user":     {"become root"},
		"seccomp": {"open a file", "open a folder", "create a file", "make a socket", "start a program", "make a process", "signal another process",
			"trace a process", "make memory executable", "become root"},
	} {
		for _, w := range want {
			if strings.Contains(refused[""], w) {
				t.Errorf("%q is refused to a free process already", w)
			}
			if !strings.Contains(refused[step], w) {
				t.Errorf("%s does not refuse to %s; it refuses: %s", step, w, refused[step])
			}
		}
	}
}

// TestMemoryIsLimited: a process with the limits that wants more memory ends.
func TestMemoryIsLimited(t *testing.T) {
	out, err := exec.Command("/proc/self/exe", "probe", "rlimits").CombinedOutput()
	if err == nil || strings.Contains(string(out), ateAll) {
		t.Errorf("%.300s, %v", out, err)
	}
}

// eat takes more memory than the scanner may have.
func eat() {
	b := make([]byte, scan.DataLimit+1<<20)
	for i := 0; i < len(b); i += 4096 {
		b[i] = 1
	}
	fmt.Println(ateAll, len(b))
}

const ateAll = "ate it all"
