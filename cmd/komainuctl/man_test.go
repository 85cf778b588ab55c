package main

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
	var got bytes.Buffer
	err := manpage.Write(&got, root(nil, t.Output(), t.Output()), manpage.Page{
		Section: 1, Name: "steer a Komainu control plane over its API",
		Sections: []manpage.Section{{Title: "Exit status", Lines: []string{"0\tdone", "1\tthe operation failed", "2\tthe command line or the input is wrong", "4\tthe control plane cannot be reached", "6\tthe control plane refuses it"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join("..", "..", "docs", "man", "komainuctl.1")
	if *update {
		if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(got.Bytes(), want) {
		t.Errorf("%s does not fit the commands (%v); go test ./cmd/komainuctl -run TestManualPage -update", file, err)
	}
}
