package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// distribution is a package for rpm that stands for those of a distribution:
// the machine is a Debian, whose systemd rpm does not know of.
const distribution = "distribution-" + thisVersion + "-1.noarch.rpm"

// shelf is a folder with packages that several tests need, made once for all
// of them.
type shelf struct {
	once sync.Once
	dir  string
	err  error
}

var agents, controls shelf

// TestMain takes away what tests share.
func TestMain(m *testing.M) {
	code := m.Run()
	for _, s := range []*shelf{&agents, &controls} {
		if s.dir != "" {
			os.RemoveAll(s.dir)
		}
	}
	os.Exit(code)
}

// give puts the packages of the shelf into a folder, and makes them before if
// nobody has.
func (s *shelf) give(t *testing.T, dir string, fill func(dir string) error) {
	t.Helper()
	s.once.Do(func() {
		if s.dir, s.err = os.MkdirTemp("", "komainu-shelf-"); s.err == nil {
			// Until it is full: a build that fails ends its test within fill.
			s.err = errors.New("another test could not make the packages")
			s.err = fill(s.dir)
		}
	})
	if s.err != nil {
		t.Fatal(s.err)
	}
	for _, e := range listed(t, s.dir) {
		if strings.HasPrefix(e.Name(), "SHA256SUMS") {
			continue // a folder's own, which building more packages into it writes anew
		}
		if err := os.Link(filepath.Join(s.dir, e.Name()), filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
}

// agentPackages puts the agent's packages of both versions into a folder.
func agentPackages(t *testing.T, dir string) {
	t.Helper()
	agents.give(t, dir, func(dir string) error {
		for _, version := range []string{thisVersion, nextVersion} {
			build(t, dir, "deb,rpm,tar", "-only", "komainu-agent", "-version", version)
		}
		return makeDistribution(dir)
	})
}

// controlPackages puts the control plane's packages into a folder.
func controlPackages(t *testing.T, dir string) {
	t.Helper()
	controls.give(t, dir, func(dir string) error {
		build(t, dir, "deb,rpm", "-only", "komainu-control", "-version", thisVersion)
		return nil
	})
}

// overlay is a file for the go command by which a source file of the
// repository, named from this folder, has another text. It may be a new one.
func overlay(t *testing.T, file, text string) string {
	t.Helper()
	dir := t.TempDir()
	source, list := filepath.Join(dir, filepath.Base(file)), filepath.Join(dir, "overlay.json")
	target, err := filepath.Abs(file)
	if err != nil {
		t.Fatal(err)
	}
	replace, err := json.Marshal(map[string]any{"Replace": map[string]string{target: source}})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(source, []byte(text), 0o644), os.WriteFile(list, replace, 0o644)); err != nil {
		t.Fatal(err)
	}
	return list
}

func makeDistribution(dir string) error {
	config := filepath.Join(dir, "distribution.yaml")
	text := "name: distribution\narch: all\nplatform: linux\nversion: " + thisVersion + "\nmaintainer: Komainu\ndescription: stands for a distribution\nprovides: [systemd]\n"
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return err
	}
	cmd := exec.Command("go", "run", "-modfile=dev/tools.mod", "-tags=packager", "./dev/packager", "-config", config, "-format", "rpm", "-o", dir)
	cmd.Dir = ".."
	out, err := cmd.CombinedOutput()
	if err != nil {
		return errors.Join(err, fmt.Errorf("%s", out))
	}
	return nil
}
