package main

import (
	"strings"
	"testing"
)

func TestGist(t *testing.T) {
	said := "=== RUN   TestIt\n" +
		"    it_test.go:10: it began\n" +
		"        it_linux_test.go:12: installed is \"1\", want \"2\"\n" +
		strings.Repeat("            Nov 29 a service says something\n", 200) +
		"    it_test.go:14: and the end\n" +
		"--- FAIL: TestIt (0.10s)\n"
	got := gist(said)
	for _, want := range []string{"it began", `want "2"`, "and the end", "--- FAIL: TestIt"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
	if n := strings.Count(got, "a service says"); n != gistLines-1 {
		t.Errorf("%d lines of the log", n)
	}
	if got := gist("panic: at the disco\n"); got != "panic: at the disco\n" {
		t.Errorf("without a remark: %q", got)
	}
}
