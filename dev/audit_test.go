package main

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"
)

// exit returns the error of a program that ends with a code.
func exit(t *testing.T, code string) error {
	t.Helper()
	err := exec.CommandContext(t.Context(), "sh", "-c", "exit "+code).Run()
	if err == nil {
		t.Fatal("it ended well")
	}
	return err
}

func isNotRun(err error) bool {
	_, ok := errors.AsType[notRun](err)
	return ok
}

func TestAuditsSayWhenTheyDidNotRun(t *testing.T) {
	if err := goVulnerabilities("No vulnerabilities found.", nil); err != nil {
		t.Error(err)
	}
	if err := goVulnerabilities("Vulnerability #1: GO-2026-1", exit(t, "3")); err == nil || isNotRun(err) || !strings.Contains(err.Error(), "GO-2026-1") {
		t.Errorf("something found: %v", err)
	}
	if err := goVulnerabilities("govulncheck: fetching vulnerabilities: Get \"https://vuln.go.dev/index/modules.json.gz\": dial tcp: no such host", exit(t, "1")); !isNotRun(err) {
		t.Errorf("no network: %v", err)
	}
	if err := goVulnerabilities("loading packages: syntax error", exit(t, "1")); err == nil || isNotRun(err) {
		t.Errorf("code that does not build: %v", err)
	}
	for _, out := range []string{"", "{}", `{"message": "405 Method Not Allowed"}`, "<html>"} {
		if err := nodeVulnerabilities([]byte(out)); !isNotRun(err) {
			t.Errorf("%q: %v", out, err)
		}
	}
	if err := nodeVulnerabilities([]byte(`{"vulnerabilities":{"x":{"severity":"low","range":"1"}},"metadata":{"vulnerabilities":{"low":1}}}`)); err != nil {
		t.Error(err)
	}
	if err := nodeVulnerabilities([]byte(`{"vulnerabilities":{"x":{"severity":"high","range":"<2"}},"metadata":{"vulnerabilities":{"high":1}}}`)); err == nil || isNotRun(err) || !strings.Contains(err.Error(), "x <2: high") {
		t.Errorf("something found: %v", err)
	}
}

func TestWhatDidNotRunIsNotOK(t *testing.T) {
	var said bytes.Buffer
	h := &House{Out: &said}
	if !h.Check(t.Context(), "audit", func(context.Context, *House) error { return notRun{"no database"} }) {
		t.Error("it fails the tests of a machine without a network")
	}
	if !strings.HasPrefix(said.String(), "NOT RUN audit") || strings.Contains(said.String(), "ok ") {
		t.Errorf("it says %q", said.String())
	}
}
