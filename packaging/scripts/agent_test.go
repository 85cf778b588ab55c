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

// systemctl stands for the program: units are files in folders that say how
// they are. Its calls are counted, and at one of them all ends.
const systemctl = `
called() {
    n=$(($(cat calls) + 1))
    echo $n >calls
    [ "$n" != "$1" ] || kill -KILL $$
}
systemctl() {
    called "$KILL"
    verb=$1
    shift
    code=0
    for unit; do
        case "$unit" in --*) continue ;; esac
        case "$verb" in
        is-enabled)
            if [ -e "masked/$unit" ]; then echo masked; elif [ -e "enabled/$unit" ]; then echo enabled; else echo disabled; fi
            [ ! -e "masked/$unit" ] && [ -e "enabled/$unit" ] || code=1
            ;;
        is-active)
            if [ -e "failed/$unit" ]; then echo failed; elif [ -e "active/$unit" ]; then echo active; else echo inactive; fi
            [ -e "active/$unit" ] || code=3
            ;;
        reset-failed) rm -f "failed/$unit" ;;
        enable) if [ -e "masked/$unit" ] || [ -e "broken/$unit" ]; then code=1; else : >"enabled/$unit"; fi ;;
        disable) if [ -e "masked/$unit" ]; then code=1; else rm -f "enabled/$unit"; fi ;;
        start | restart) if [ -e "masked/$unit" ]; then code=1; else : >"active/$unit"; fi ;;
        stop) if [ -e "gone/$unit" ]; then code=5; elif [ -e "stuck/$unit" ]; then code=1; else rm -f "active/$unit"; fi ;;
        esac
    done
    called "$KILL" # after it
    return $code
}
systemd-sysusers() { :; }
`

// host is a folder that stands for a host with systemd.
type host struct {
	t     *testing.T
	dir   string
	shell []string
}

func newHost(t *testing.T, shell []string) host {
	t.Helper()
	h := host{t, t.TempDir(), shell}
	for _, dir := range []string{"masked", "enabled", "active", "failed", "broken", "gone", "stuck", "booted", "lib"} {
		if err := os.Mkdir(filepath.Join(h.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// do calls a function of the scripts as they do, and ends it at a call of
// systemctl: before the program has run when kill is odd, after it when even.
func (h host) do(kill int, function string) (said string, code int) {
	h.t.Helper()
	return h.sh(kill, "set -eu\n"+systemctl+h.text("agent.sh")+"\n"+function)
}

// places are where the scripts find what a host has, and where this one has it.
// ash takes no function of the name systemd-sysusers.
var places = strings.NewReplacer("/var/lib/komainu", "lib/komainu", "/run/systemd/system", "booted", "/etc/systemd/system/multi-user.target.wants", "enabled", "/usr/bin/komainud", "true", "systemd-sysusers", "sysusers")

// text returns a script of a package.
func (h host) text(script string) string {
	h.t.Helper()
	text, err := os.ReadFile(script)
	if err != nil {
		h.t.Fatal(err)
	}
	return string(text)
}

// sh runs lines with arguments, and ends them as do says; 0 is not at all.
func (h host) sh(kill int, lines string, args ...string) (said string, code int) {
	h.t.Helper()
	h.write("calls", "0\n")
	cmd := exec.CommandContext(h.t.Context(), h.shell[0], append(append(slices.Clone(h.shell[1:]), "-c", places.Replace(lines)), args...)...)
	cmd.Dir = h.dir
	cmd.Env = append(os.Environ(), fmt.Sprint("KILL=", kill))
	var b bytes.Buffer
	cmd.Stdout, cmd.Stderr = &b, &b
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return b.String(), exit.ExitCode()
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return b.String(), 0
}

func (h host) write(name, text string) {
	h.t.Helper()
	if err := os.WriteFile(filepath.Join(h.dir, name), []byte(text), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

func (h host) remove(names ...string) {
	h.t.Helper()
	for _, name := range names {
		if err := os.Remove(filepath.Join(h.dir, name)); err != nil {
			h.t.Fatal(err)
		}
	}
}

// is says which units are enabled and active.
func (h host) is() string {
	var list []string
	for _, state := range []string{"enabled", "active"} {
		for _, unit := range []string{"komainu-agent.service", "komainu-upgrade.path"} {
			if _, err := os.Stat(filepath.Join(h.dir, state, unit)); err == nil {
				list = append(list, state+" "+strings.NewReplacer("komainu-agent.service", "agent", "komainu-upgrade.path", "upgrade").Replace(unit))
			}
		}
	}
	return strings.Join(list, ", ")
}

const all = "enabled agent, enabled upgrade, active agent, active upgrade"

// onShells runs a test with shells that hosts have for /bin/sh.
func onShells(t *testing.T, test func(t *testing.T, shell []string)) {
	for _, shell := range [][]string{{"sh"}, {"busybox", "sh"}} {
		if _, err := exec.LookPath(shell[0]); err == nil {
			t.Run(shell[0], func(t *testing.T) { test(t, shell) })
		}
	}
}

// TestAgentIsSetUpOverEveryKill ends the first installation, and the first of
// a version that has the unit for upgrades, at every call of systemctl.
func TestAgentIsSetUpOverEveryKill(t *testing.T) {
	for _, before := range []string{"", "an older version"} {
		ended := false
		for kill := 1; !ended; kill++ {
			h := newHost(t, []string{"sh"})
			if before != "" {
				h.do(0, "agent_ready")
				h.remove("lib/komainu/agent-upgrades-are-ready", "enabled/komainu-upgrade.path", "active/komainu-upgrade.path")
			}
			_, code := h.do(kill, "agent_ready")
			if ended = code == 0; ended && kill < 10 {
				t.Errorf("after %q it calls systemctl %d times", before, kill/2)
			}
			if said, code := h.do(0, "agent_ready"); code != 0 || said != "" || h.is() != all {
				t.Errorf("after %q, ended at %d and done again: %d, %s; %s", before, kill, code, h.is(), said)
			}
		}
	}
}

func TestAgentLeavesUnitsAsTheAdministratorHasThem(t *testing.T) {
	const service, path, ready, upgrades = "komainu-agent.service", "komainu-upgrade.path", "lib/komainu/agent-is-ready", "lib/komainu/agent-upgrades-are-ready"
	onShells(t, func(t *testing.T, shell []string) {
		for name, c := range map[string]struct {
			there  bool // an agent, before
			change func(h host)
			do     string
			want   string
			says   string
		}{
			"masked path":         {false, func(h host) { h.write("masked/"+path, "") }, "agent_ready", "enabled agent, active agent", "unmask " + path},
			"masked service":      {false, func(h host) { h.write("masked/"+service, "") }, "agent_ready", "enabled upgrade, active upgrade", "unmask komainu-agent "},
			"masked later":        {true, func(h host) { h.write("masked/"+path, "") }, "agent_ready", all, ""},
			"masked while active": {true, func(h host) { h.write("masked/"+service, "") }, "agent_ready", all, "unmask komainu-agent "},
			"unmasked":            {true, func(h host) { h.remove("enabled/"+path, "active/"+path, upgrades) }, "agent_ready", all, ""},
			"path disabled":       {true, func(h host) { h.remove("enabled/"+path, "active/"+path) }, "agent_ready", "enabled agent, active agent", ""},
			"path stopped":        {true, func(h host) { h.remove("active/" + path) }, "agent_ready", "enabled agent, enabled upgrade, active agent", ""},
			"path failed":         {true, func(h host) { h.remove("active/" + path); h.write("failed/"+path, "") }, "agent_ready", all, ""},
			"path not to enable":  {false, func(h host) { h.write("broken/"+path, "") }, "agent_ready", "enabled agent, active agent", ""},
			"service disabled":    {true, func(h host) { h.remove("enabled/"+service, "active/"+service) }, "agent_ready", "enabled upgrade, active upgrade", ""},
			"removed":             {true, func(host) {}, "agent_leave", "", ""},
			"removed, masked":     {true, func(h host) { h.write("masked/"+path, ""); h.write("masked/"+service, "") }, "agent_leave", "", ""},
			"installed again":     {true, func(h host) { h.remove("enabled/"+path, "active/"+path) }, "agent_leave; agent_ready", all, ""},
			"purged":              {true, func(host) {}, "agent_leave; agent_forget; [ ! -e lib/komainu ] || exit 9; agent_ready", all, ""},
			// Its scripts know nothing of the second file.
			"removed by an older version": {true, func(h host) { h.remove("enabled/"+path, "active/"+path, "enabled/"+service, "active/"+service, ready) }, "agent_ready", all, ""},
		} {
			h := newHost(t, shell)
			if c.there {
				h.do(0, "agent_ready")
			}
			c.change(h)
			said, code := h.do(0, c.do)
			if code != 0 || h.is() != c.want || c.says == "" && said != "" || !strings.Contains(said, c.says) {
				t.Errorf("%s: %d, %s; %s", name, code, h.is(), said)
			}
		}
	})
}
