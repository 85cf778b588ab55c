package scripts_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// run runs a script of the control plane as a package manager does.
func (h host) run(script string, args ...string) (said string, code int) {
	h.t.Helper()
	return h.sh(0, systemctl+h.text(script), append([]string{script}, args...)...)
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
