package cli_test

import (
	"bytes"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"komainu/agent/cli"
	"komainu/fault"
)

// TestOffboardingAsks answers the question on a terminal.
func TestOffboardingAsks(t *testing.T) {
	dir, err := os.MkdirTemp("", "cli")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	a := &agent{fakeAgent: newFakeAgent(), socket: filepath.Join(dir, "agent.sock"), log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	a.enrolled = true
	if err := a.start(); err != nil {
		t.Fatal(err)
	}
	defer a.stop()
	for _, answer := range []string{"", "\n", "y\n", "no\n", "yes"} {
		var out, errs bytes.Buffer
		code := cli.Run(t.Context(), cli.Env{
			Args: []string{"komainu", "offboard"}, Stdin: strings.NewReader(answer), Stdout: &out, Stderr: &errs, Version: "1.2.3", Terminal: true,
			Getenv: func(k string) string { return map[string]string{"KOMAINU_SOCKET": a.socket}[k] },
		})
		unlock := a.lock()
		enrolled := a.enrolled
		unlock()
		if !strings.Contains(errs.String(), "Offboard this device?") {
			t.Errorf("%q: it was not asked: %s", answer, &errs)
		}
		if meant := answer == "yes"; meant != !enrolled || meant != (code == fault.ExitOK) || meant == strings.Contains(errs.String(), "Nothing was changed") {
			t.Errorf("%q: exit code %d, enrolled %v, %s%s", answer, code, enrolled, &out, &errs)
		}
	}
}
