package systemd_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// analyze runs systemd-analyze, which knows every option and its values.
func analyze(t *testing.T, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("systemd-analyze is not installed: units are checked where it is")
	}
	out, err := exec.Command("systemd-analyze", args...).CombinedOutput()
	if err != nil {
		t.Errorf("systemd-analyze %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// unit copies a unit to where its program exists.
func unit(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	text = regexp.MustCompile(`(?m)^ExecStart=.*`).ReplaceAll(text, []byte("ExecStart=/bin/true"))
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestUnitsAreUnderstood(t *testing.T) {
	for _, name := range []string{"komainu-agent.service", "komainu-control.service", "komainu-upgrade.service"} {
		// An option that is not known is a warning of one line with the name
		// of the file.
		for line := range strings.Lines(analyze(t, "verify", "--man=no", unit(t, name))) {
			if strings.Contains(line, name) {
				t.Error(line)
			}
		}
	}
}

// TestControlIsConfined holds the exposure of the server that listens to the
// network against a bound: 2.0 of 10.
func TestControlIsConfined(t *testing.T) {
	analyze(t, "security", "--offline=true", "--threshold=20", "--no-pager", unit(t, "komainu-control.service"))
}

// TestAgentGetsNoMore holds the exposure of the agent, which has to see the
// whole host, to what it is today.
func TestAgentGetsNoMore(t *testing.T) {
	analyze(t, "security", "--offline=true", "--threshold=60", "--no-pager", unit(t, "komainu-agent.service"))
}

// TestAgentSeesTheHost refuses options that would give the agent a mount
// namespace of its own, or stop the process that answers for opens.
func TestAgentSeesTheHost(t *testing.T) {
	text, err := os.ReadFile("komainu-agent.service")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		key, _, ok := strings.Cut(line, "=")
		if !ok || strings.HasPrefix(line, "#") {
			continue
		}
		for _, bad := range []string{"Protect", "Private", "ReadOnly", "ReadWrite", "Inaccessible", "TemporaryFileSystem", "Bind", "Root", "DynamicUser", "CPUQuota", "MemoryHigh", "RestrictSUIDSGID", "User"} {
			if strings.HasPrefix(key, bad) {
				t.Errorf("%s must not be set for the agent", key)
			}
		}
	}
}
