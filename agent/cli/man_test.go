package cli

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"komainu/internal/manpage"
)

var update = flag.Bool("update", false, "write the manual page anew")

// TestManualPage holds the page that packages carry against the commands.
func TestManualPage(t *testing.T) {
	a := &app{env: Env{Stdout: t.Output(), Stderr: t.Output(), Getenv: func(string) string { return "" }}, name: "komainu"}
	var got bytes.Buffer
	err := manpage.Write(&got, a.tree(), manpage.Page{
		Section: 8, Name: "look at and steer the agent that protects this server",
		Sections: []manpage.Section{
			{Title: "Exit status", Lines: []string{
				"0\tdone", "1\tthe operation failed", "2\tthe command line is wrong", "3\troot is needed", "4\tthe agent, or what it needs, cannot be reached",
				"5\ta policy or the plan sets this; it is changed in the portal", "6\tthe control plane refuses it", "7\tthis version, or this host, does not support it",
			}},
			{Title: "Environment", Lines: []string{
				"KOMAINU_SOCKET\tthe socket of the agent", "LC_ALL, LC_MESSAGES, LANG\tja gives messages in Japanese; what scripts read stays as it is",
			}},
			{Title: "Notes", Lines: []string{"Under the name mdatp the same program takes what runbooks type, long options with one dash included."}},
			{Title: "Files", Lines: []string{"/run/komainu/agent.sock\tthe socket of the agent", "/var/lib/komainu/agent\tits state"}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join("..", "..", "docs", "man", "komainu.8")
	if *update {
		if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(got.Bytes(), want) {
		t.Errorf("%s does not fit the commands (%v); go test ./agent/cli -run TestManualPage -update", file, err)
	}
}
