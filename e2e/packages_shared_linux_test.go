package e2e

import (
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

// shelf is the folder with the packages that several tests need, made once for
// all of them.
var shelf struct {
	once sync.Once
	dir  string
	err  error
}

// TestMain takes away what tests share.
func TestMain(m *testing.M) {
	code := m.Run()
	if shelf.dir != "" {
		os.RemoveAll(shelf.dir)
	}
	os.Exit(code)
}

// agentPackages puts the agent's packages of both versions into a folder.
func agentPackages(t *testing.T, dir string) {
	t.Helper()
	shelf.once.Do(func() {
		if shelf.dir, shelf.err = os.MkdirTemp("", "komainu-shelf-"); shelf.err != nil {
			return
		}
		for _, version := range []string{thisVersion, nextVersion} {
			build(t, shelf.dir, "deb,rpm,tar", "-only", "komainu-agent", "-version", version)
		}
		shelf.err = makeDistribution(shelf.dir)
	})
	if shelf.err != nil {
		t.Fatal(shelf.err)
	}
	for _, e := range listed(t, shelf.dir) {
		if strings.HasPrefix(e.Name(), "SHA256SUMS") {
			continue // a folder's own, which building more packages into it writes anew
		}
		if err := os.Link(filepath.Join(shelf.dir, e.Name()), filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
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
