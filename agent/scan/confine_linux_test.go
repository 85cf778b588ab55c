package scan_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"komainu/agent/scan"
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
