package cli

import (
	"archive/zip"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"komainu/fault"
)

func TestDiagnosticArchiveWithoutAgent(t *testing.T) {
	dir, out, errs := t.TempDir(), new(bytes.Buffer), new(bytes.Buffer)
	code := Run(t.Context(), Env{
		Args:   []string{"komainu", "--socket", filepath.Join(dir, "agent.sock"), "diagnostic", "create", "--path", dir},
		Stdout: out, Stderr: errs, Getenv: func(string) string { return "" }, Version: "1.2.3",
	})
	if code != fault.Unavailable.Exit() || !strings.Contains(errs.String(), "Could not connect to the daemon") {
		t.Errorf("exit code %d, and on stderr %q", code, errs)
	}
	names, _ := filepath.Glob(filepath.Join(dir, "*.zip"))
	if len(names) != 1 || !strings.Contains(out.String(), names[0]) {
		t.Fatalf("archives %q, told %q", names, out)
	}
	if info, err := os.Stat(names[0]); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the archive is %v, %v", info.Mode(), err)
	}
	z, err := zip.OpenReader(names[0])
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	f, err := z.Open("MANIFEST.txt")
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"komainu 1.2.3", "did not answer: could not connect", "Missing is"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the manifest does not say %q:\n%s", want, text)
		}
	}
}
