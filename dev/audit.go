package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// notRun is the outcome of a check that this machine could not run: it has
// found nothing, which is not the same as that there is nothing.
type notRun struct{ why string }

func (n notRun) Error() string { return "not run: " + n.why }

// envVulnerabilities names a folder with a copy of the Go vulnerability
// database, for machines whose network has none.
const envVulnerabilities = "KOMAINU_VULNDB"

// auditLimit is how long an audit may wait for its network.
const auditLimit = 5 * time.Minute

// checkGoVulnerabilities looks for known vulnerabilities in what the product
// calls of its modules and of the Go library.
func checkGoVulnerabilities(ctx context.Context, h *House) error {
	ctx, cancel := context.WithTimeout(ctx, auditLimit)
	defer cancel()
	args := []string{"tool", "-modfile=dev/audit.mod", "govulncheck"}
	if folder := os.Getenv(envVulnerabilities); folder != "" {
		folder, err := filepath.Abs(folder)
		if err != nil {
			return err
		}
		if _, err := os.Stat(filepath.Join(folder, "index", "db.json")); err != nil {
			return fmt.Errorf("%s is no copy of the Go vulnerability database: %w", envVulnerabilities, err)
		}
		args = append(args, "-db", "file://"+filepath.ToSlash(folder))
	}
	out, err := h.Output(ctx, ".", "go", append(args, "./...")...)
	return goVulnerabilities(out, err)
}

// goVulnerabilities reads the outcome of govulncheck: it ends with 3 when it
// has found something.
func goVulnerabilities(out string, err error) error {
	exit, ended := errors.AsType[*exec.ExitError](err)
	switch {
	case err == nil:
		return nil
	case ended && exit.ExitCode() == 3:
		return fmt.Errorf("known vulnerabilities are called:\n%s", tail(out, 8000))
	case isNoDatabase(out + err.Error()):
		return notRun{"the vulnerability database cannot be reached; " + envVulnerabilities + " may name a folder with a copy of it"}
	default:
		return fmt.Errorf("%w%s", err, tail(out, 4000))
	}
}

// isNoDatabase reports whether a tool failed for want of its database or of
// the network.
func isNoDatabase(text string) bool {
	return slices.ContainsFunc([]string{
		"fetching vulnerabilities", "vuln.go.dev", "dial tcp", "no such host", "connection refused", "context deadline exceeded", "i/o timeout",
		"proxyconnect", "ENOTFOUND", "ECONNREFUSED", "EAI_AGAIN", "ETIMEDOUT",
	}, func(s string) bool { return strings.Contains(text, s) })
}

// checkNodeVulnerabilities asks the registry for what is known of the
// portal's modules.
func checkNodeVulnerabilities(ctx context.Context, h *House) error {
	ctx, cancel := context.WithTimeout(ctx, auditLimit)
	defer cancel()
	cmd := h.Command(ctx, "portal", "npm", "audit", "--json", "--audit-level=moderate")
	out, err := cmd.Output()
	if _, ended := errors.AsType[*exec.ExitError](err); err != nil && !ended {
		return notRun{"npm does not run here: " + err.Error()}
	}
	return nodeVulnerabilities(out)
}

// nodeVulnerabilities reads the report of npm audit. What is no report is an
// audit that did not take place.
func nodeVulnerabilities(out []byte) error {
	var report struct {
		Message         string
		Vulnerabilities map[string]struct {
			Severity string
			Range    string
		}
		Metadata *struct {
			Vulnerabilities map[string]int
		}
	}
	if err := json.Unmarshal(out, &report); err != nil || report.Metadata == nil || report.Metadata.Vulnerabilities == nil {
		why := "the registry answers no audits"
		if report.Message != "" {
			why += ": " + report.Message
		}
		return notRun{why}
	}
	var bad []string
	for name, v := range report.Vulnerabilities {
		if v.Severity != "low" && v.Severity != "info" {
			bad = append(bad, fmt.Sprintf("%s %s: %s", name, v.Range, v.Severity))
		}
	}
	if bad == nil {
		return nil
	}
	slices.Sort(bad)
	return fmt.Errorf("known vulnerabilities in the portal's modules:\n%s", strings.Join(bad, "\n"))
}
