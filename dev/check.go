package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"komainu/fault"
)

// checks are the static gates, cheap ones first. None of them changes a file.
var checks = []struct {
	name string
	run  func(context.Context, *House) error
}{
	{"format", checkFormat},
	{"house rules", checkHouseRules},
	{"vet", func(ctx context.Context, h *House) error { return h.quiet(ctx, "go", "vet", "./...") }},
	{"modernizers", checkModern},
	{"staticcheck", func(ctx context.Context, h *House) error {
		return h.quiet(ctx, "go", "tool", "-modfile=dev/tools.mod", "staticcheck", "./...")
	}},
	{"other platforms", checkPlatforms},
	{"licences", checkLicences},
	{"generated files", checkGenerated},
	{"go vulnerabilities", checkGoVulnerabilities},
	{"npm vulnerabilities", checkNodeVulnerabilities},
}

func check(ctx context.Context, h *House, args []string) error {
	if len(args) != 0 {
		return fault.New(fault.Invalid, "check takes no arguments")
	}
	passed, failed := 0, 0
	for _, c := range checks {
		if h.Check(ctx, c.name, c.run) {
			passed++
		} else {
			failed++
		}
	}
	if failed != 0 {
		return fmt.Errorf("%d of %d checks failed", failed, passed+failed)
	}
	return nil
}

// Check runs one check and prints a line about it. It returns false when the
// check failed.
func (h *House) Check(ctx context.Context, name string, run func(context.Context, *House) error) bool {
	started := time.Now()
	err := run(ctx, h)
	if missed, ok := errors.AsType[notRun](err); ok {
		// Not a failure, and not an assurance either.
		h.Say("NOT RUN %-15s %s", name, missed.why)
		return true
	}
	if err != nil {
		h.Say("FAIL %-18s %s\n%v", name, time.Since(started).Round(100*time.Millisecond), err)
		return false
	}
	h.Say("ok   %-18s %s", name, time.Since(started).Round(100*time.Millisecond))
	return true
}

// quiet runs a program whose output matters only when it fails.
func (h *House) quiet(ctx context.Context, name string, args ...string) error {
	out, err := h.Output(ctx, ".", name, args...)
	if err != nil {
		return fmt.Errorf("%w%s", err, tail(out, 8000))
	}
	return nil
}

func checkFormat(ctx context.Context, h *House) error {
	files, err := h.tracked(ctx, "*.go")
	if err != nil {
		return err
	}
	out, err := h.Output(ctx, ".", "gofmt", append([]string{"-l"}, files...)...)
	if err != nil {
		return err
	}
	if out != "" {
		return fmt.Errorf("not formatted; run gofmt -w on: %s", strings.Join(strings.Fields(out), " "))
	}
	return nil
}

// checkModern holds the tree to what go fix would write.
func checkModern(ctx context.Context, h *House) error {
	out, err := h.Output(ctx, ".", "go", "fix", "-diff", "./...")
	if err != nil || out != "" {
		return fmt.Errorf("run go fix ./... and look at the result:\n%s", tail(out, 4000))
	}
	return nil
}

// checkPlatforms builds what has to exist elsewhere: the agent, its command
// line and the admin command line. The control plane is for Linux alone.
func checkPlatforms(ctx context.Context, h *House) error {
	for _, target := range []string{"linux/amd64", "linux/arm64", "windows/amd64"} {
		system, arch, _ := strings.Cut(target, "/")
		for _, pkg := range []string{"./cmd/komainud", "./cmd/komainu", "./cmd/komainuctl"} {
			cmd := h.Command(ctx, ".", "go", "build", "-o", os.DevNull, pkg)
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+system, "GOARCH="+arch)
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("%s for %s: %w\n%s", pkg, target, err, tail(string(out), 4000))
			}
		}
	}
	return nil
}

// houseRules are lines that no file of the product may hold.
var houseRules = []struct {
	files string // suffix of the name
	line  *regexp.Regexp
	why   string
}{
	{"_test.go", regexp.MustCompile(`\btime\.Sleep\(`), "tests wait for a condition, they do not sleep"},
	{".go", regexp.MustCompile(`^\s*//.*\b(TO` + `DO|FIX` + `ME|XX` + `X)\b`), "finish it or write it down in docs/decisions"},
	{".go", regexp.MustCompile(`\b(GPL|AGPL)-[23]`), "nothing under these licences is linked in"},
	{"", regexp.MustCompile(`X5O!P%@AP\[4\\PZX54`), "EICAR stands whole in no file; build it at run time"},
}

func checkHouseRules(ctx context.Context, h *House) error {
	files, err := h.tracked(ctx, "*")
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range files {
		errs = append(errs, h.lint(name))
	}
	return errors.Join(errs...)
}

func (h *House) lint(name string) error {
	f, err := os.Open(h.Path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // deleted, not committed yet
	}
	if err != nil {
		return err
	}
	defer f.Close()
	var errs []error
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		for _, r := range houseRules {
			if strings.HasSuffix(name, r.files) && r.line.Match(lines.Bytes()) && name != "dev/check.go" {
				errs = append(errs, fmt.Errorf("%s:%d: %s", name, n, r.why))
			}
		}
	}
	return errors.Join(errs...)
}

// tracked lists the files of the checkout that git knows or would add.
func (h *House) tracked(ctx context.Context, pattern string) ([]string, error) {
	out, err := h.Output(ctx, ".", "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", pattern)
	if err != nil {
		return nil, err
	}
	var files []string
	for name := range strings.SplitSeq(out, "\x00") {
		if name == "" {
			continue
		}
		if info, err := os.Lstat(filepath.Join(h.Root, name)); err == nil && info.Mode().IsRegular() {
			files = append(files, name)
		}
	}
	return files, nil
}
