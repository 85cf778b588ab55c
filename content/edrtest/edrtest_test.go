package edrtest_test

import (
	"archive/zip"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"komainu/content/edrtest"
)

func TestArchivesUnpackToAProgram(t *testing.T) {
	want := map[string]string{"edr-test-linux.zip": "edr_test_linux.sh", "MDE-Linux-EDR-DIY.zip": "mde_linux_edr_diy.sh"}
	for _, name := range edrtest.Names() {
		var first, second bytes.Buffer
		if err := edrtest.Zip(&first, name); err != nil {
			t.Fatal(err)
		}
		if err := edrtest.Zip(&second, name); err != nil || !bytes.Equal(first.Bytes(), second.Bytes()) {
			t.Errorf("%s differs from one time to the next: %v", name, err)
		}
		z, err := zip.NewReader(bytes.NewReader(first.Bytes()), int64(first.Len()))
		if err != nil {
			t.Fatal(err)
		}
		if len(z.File) != 1 || z.File[0].Name != want[name] || z.File[0].Mode().Perm() != 0o755 {
			t.Fatalf("%s holds %v", name, z.File)
		}
		f, err := z.File[0].Open()
		if err != nil {
			t.Fatal(err)
		}
		if content, err := io.ReadAll(f); err != nil || !bytes.Equal(content, edrtest.Script()) {
			t.Errorf("%s holds another script: %v", name, err)
		}
	}
	if err := edrtest.Zip(io.Discard, "../etc/passwd"); err == nil {
		t.Error("an unknown name has no error")
	}
}

// run runs the script in a home of its own and returns what it printed and
// what it left behind.
func run(t *testing.T, shell string, args ...string) (out string, left []string, err error) {
	t.Helper()
	home := t.TempDir()
	file := filepath.Join(t.TempDir(), "test.sh")
	if err := os.WriteFile(file, edrtest.Script(), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), shell, append([]string{file}, args...)...)
	cmd.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH")}
	b, err := cmd.CombinedOutput()
	entries, readErr := os.ReadDir(home)
	if readErr != nil {
		t.Fatal(readErr)
	}
	for _, e := range entries {
		left = append(left, e.Name())
	}
	return string(b), left, err
}

func TestScriptRunsAndCleansUp(t *testing.T) {
	ran := 0
	for _, shell := range []string{"sh", "dash", "bash"} {
		if _, err := exec.LookPath(shell); err != nil {
			continue
		}
		for _, args := range [][]string{nil, {"--builtins"}, {"--renamed"}} {
			out, left, err := run(t, shell, append(args, "--wait", "0")...)
			if err != nil || left != nil || !strings.Contains(out, edrtest.Title) || !strings.Contains(out, "severity "+edrtest.Severity) {
				t.Errorf("%s %v: %v, left %v\n%s", shell, args, err, left, out)
			}
			for line := range strings.Lines(out) {
				if !strings.HasPrefix(line, "Decoys are in ") && !strings.HasPrefix(line, "Done. ") && !strings.HasPrefix(line, "Its process tree ") {
					t.Errorf("%s %v printed %q", shell, args, line)
				}
			}
			ran++
		}
	}
	if ran == 0 {
		t.Skip("no shell here")
	}
}

func TestScriptSaysWhatIsWrong(t *testing.T) {
	if _, err := exec.LookPath("sh"); err != nil {
		t.Skip("no shell here")
	}
	for _, args := range [][]string{{"--unknown"}, {"--wait"}} {
		out, _, err := run(t, "sh", args...)
		if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 2 || out == "" {
			t.Errorf("%v: %v %q", args, err, out)
		}
	}
	t.Setenv("PATH", t.TempDir()) // nothing is installed
	sh := "/bin/sh"
	out, _, err := run(t, sh, "--python")
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 7 || !strings.Contains(out, "needs Python") {
		t.Errorf("without Python: %v %q", err, out)
	}
}
