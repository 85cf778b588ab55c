// Package need says what a test needs of its machine. A test without it is
// skipped with a reason; where KOMAINU_NEED names the thing (as `go run ./dev
// test` does), its absence is a failure instead, so that a green run means
// that the test ran.
package need

import (
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
