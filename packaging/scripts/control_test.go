package scripts_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// run runs a script of the control plane as a package manager does.
func (h host) run(script string, args ...string) (said string, code int) {
	h.t.Helper()
	text, err := os.ReadFile(script)
	if err != nil {
		h.t.Fatal(err)
	}
	h.write("calls", "0\n")
	names := strings.NewReplacer("/var/lib/komainu", "lib/komainu", "/run/systemd/system", "booted", "/etc/systemd/system/multi-user.target.wants", "enabled", "systemd-sysusers", "sysusers")
	cmd := exec.CommandContext(h.t.Context(), h.shell[0], append(append(slices.Clone(h.shell[1:]), "-c", names.Replace(systemctl+string(text)), script), args...)...)
	cmd.Dir = h.dir
	cmd.Env = append(os.Environ(), fmt.Sprint("KILL=", 0))
	var b bytes.Buffer
	cmd.Stdout, cmd.Stderr = &b, &b
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return b.String(), exit.ExitCode()
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return b.String(), 0
}

// TestControlPlaneIsNeverHalfInstalled: a unit that is masked, or gone, is no
// reason for a package manager to keep half of an installation or a removal.
func TestControlPlaneIsNeverHalfInstalled(t *testing.T) {
	const unit = "komainu-control.service"
	is := func(h host, state string) bool {
		_, err := os.Stat(filepath.Join(h.dir, state, unit))
		return err == nil
	}
	onShells(t, func(t *testing.T, shell []string) {
		for first, upgrade := range map[string][]string{"configure ": {"configure", "1.0.0"}, "1": {"2"}} {
			h := newHost(t, shell)
			h.write("masked/"+unit, "")
			install := strings.Split(first, " ")
			if said, code := h.run("control.postinst", install...); code != 0 || is(h, "active") || !strings.Contains(said, "systemctl unmask komainu-control") {
				t.Errorf("first, masked: %d, %s", code, said)
			}
			if said, code := h.run("control.postinst", upgrade...); code != 0 || is(h, "active") {
				t.Errorf("upgrade, masked: %d, %s", code, said)
			}
			h.remove("masked/" + unit)
			if said, code := h.run("control.postinst", install...); code != 0 || !is(h, "enabled") || !is(h, "active") {
				t.Errorf("first: %d, %s", code, said)
			}
			remove := map[string]string{"configure": "remove", "1": "0"}[install[0]]
			h.write("masked/"+unit, "")
			if said, code := h.run("control.prerm", remove); code != 0 || is(h, "enabled") || is(h, "active") {
				t.Errorf("removal, masked: %d, %s", code, said)
			}
			h.remove("masked/" + unit)
			// A removal that was ended in its middle has taken the unit away.
			h.write("gone/"+unit, "")
			if said, code := h.run("control.prerm", remove); code != 0 {
				t.Errorf("removal, the unit is gone: %d, %s", code, said)
			}
			// What does not stop must not lose its files.
			h.remove("gone/" + unit)
			h.write("active/"+unit, "")
			h.write("stuck/"+unit, "")
			if said, code := h.run("control.prerm", remove); code == 0 {
				t.Errorf("removal, it does not stop: %s", said)
			}
		}
	})
}
