// Package need says what a test needs of its machine. A test without it is
// skipped with a reason; where KOMAINU_NEED names the thing (as `go run ./dev
// test` does), its absence is a failure instead, so that a green run means
// that the test ran.
package need

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// Variable names the environment variable: a list of words, comma-separated.
const Variable = "KOMAINU_NEED"

// Wanted reports whether the run promises that the machine has this.
func Wanted(word string) bool {
	return slices.Contains(strings.Split(os.Getenv(Variable), ","), word)
}

// Root needs root and the promise "root". Without the promise it skips even
// for root, so that `go test ./...` is hermetic whoever runs it.
func Root(t testing.TB) {
	t.Helper()
	switch {
	case !Wanted("root"):
		t.Skip("needs root; run go run ./dev test as root")
	case os.Geteuid() != 0:
		t.Fatal("needs root, which " + Variable + " promises")
	}
}

// Program needs a program on the PATH and the promise "root": only such a run
// installs programs.
func Program(t testing.TB, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err == nil {
		return
	}
	if Wanted("root") {
		t.Fatalf("needs the program %s, which dev test installs", name)
	}
	t.Skipf("needs the program %s", name)
}

// Kernel needs Linux of at least this version, "5.19" for example. The promise
// "root" says nothing of the kernel: an older one always skips.
func Kernel(t testing.TB, version string) {
	t.Helper()
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		t.Skipf("needs Linux %s", version)
	}
	if older(string(release), version) {
		t.Skipf("needs Linux %s; this is %s", version, strings.TrimSpace(string(release)))
	}
}

// older compares the two leading numbers of kernel releases.
func older(release, version string) bool {
	var have, want [2]int
	// What cannot be read stays 0, which is older than everything.
	_, _ = fmt.Sscanf(release, "%d.%d", &have[0], &have[1])
	_, _ = fmt.Sscanf(version, "%d.%d", &want[0], &want[1])
	return slices.Compare(have[:], want[:]) < 0
}
