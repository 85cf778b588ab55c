package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// binaries says how each command is built. The agent and the command line are
// static, so that they run on any distribution; the control plane links
// DuckDB through cgo.
var binaries = []struct {
	name   string
	static bool
}{
	{"komainud", true},
	{"komainu", true},
	{"komainuctl", true},
	{"komainu-control", false},
}

// prebuilt names a folder with the binaries where there is no Go: in the
// virtual machine.
const prebuilt = "KOMAINU_DEV_BIN"

// Build makes the portal if it is stale and every binary into .komainu/bin,
// which it returns. The Go build cache makes an unchanged tree cheap.
func (h *House) Build(ctx context.Context) (string, error) {
	if bin := os.Getenv(prebuilt); bin != "" {
		return bin, nil
	}
	if err := RequirePrerequisites(); err != nil {
		return "", err
	}
	if err := h.BuildPortal(ctx); err != nil {
		return "", err
	}
	bin := h.State("bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return "", err
	}
	for _, b := range binaries {
		cmd := h.Command(ctx, ".", "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", filepath.Join(bin, b.name), "./cmd/"+b.name)
		if b.static {
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("build %s: %w\n%s", b.name, err, tail(string(out), 4000))
		}
	}
	return bin, nil
}

// portalStamp is written after a successful build of the portal.
const portalStamp = "portal.built"

// BuildPortal runs npm when a source of the portal is newer than the last
// build. What it makes is embedded by control/portal.
func (h *House) BuildPortal(ctx context.Context) error {
	stamp := h.State(portalStamp)
	built, err := os.Stat(stamp)
	if err == nil {
		stale, err := newerThan(h.Path("portal"), built.ModTime())
		if err != nil {
			return err
		}
		if _, err := os.Stat(h.Path("control", "portal", "assets", "dist", "index.html")); err == nil && !stale {
			return nil
		}
	}
	h.Say("building the portal (npm)")
	if stale, err := h.modulesStale(); err != nil {
		return err
	} else if stale {
		if err := h.quietIn(ctx, "portal", "npm", "ci", "--no-audit", "--no-fund"); err != nil {
			return err
		}
	}
	if err := h.quietIn(ctx, "portal", "npm", "run", "build"); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(stamp), 0o755); err != nil {
		return err
	}
	return os.WriteFile(stamp, []byte(time.Now().UTC().Format(time.RFC3339)+"\n"), 0o644)
}

// modulesStale reports whether node_modules is older than the lock file. npm
// writes its own copy of the lock when an install is complete.
func (h *House) modulesStale() (bool, error) {
	lock, err := os.Stat(h.Path("portal", "package-lock.json"))
	if err != nil {
		return false, err
	}
	installed, err := os.Stat(h.Path("portal", "node_modules", ".package-lock.json"))
	return err != nil || installed.ModTime().Before(lock.ModTime()), nil
}

func (h *House) quietIn(ctx context.Context, dir, name string, args ...string) error {
	out, err := h.Output(ctx, dir, name, args...)
	if err != nil {
		return fmt.Errorf("%w%s", err, tail(out, 8000))
	}
	return nil
}

// newerThan reports whether a source below dir changed after t.
func newerThan(dir string, t time.Time) (bool, error) {
	newer := false
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "node_modules" || d.Name() == "test" || strings.HasPrefix(d.Name(), ".")) {
			return fs.SkipDir
		}
		info, err := d.Info()
		if err == nil && info.ModTime().After(t) {
			newer = true
			return fs.SkipAll
		}
		return err
	})
	return newer, err
}
