package control_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"komainu/control"
	"komainu/control/db"
	"komainu/fault"
)

// command runs a command that ends by itself.
func command(t *testing.T, args ...string) (code int, out, err string) {
	t.Helper()
	var stdout, stderr strings.Builder
	code = control.Command(t.Context(), args, control.Env{Version: "1.2.3", Stdout: &stdout, Stderr: &stderr, Secret: &stdout})
	return code, stdout.String(), stderr.String()
}

func TestCommands(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	good := file("good.yaml", "listen: 0.0.0.0:9443\nhostnames: [komainu.example, 192.0.2.1]\n")
	typo := file("typo.yaml", "listen: 0.0.0.0:9443\n\nhostname: x\n")
	wrong := file("wrong.yaml", "listen: nowhere\nlog: {level: loud, format: text}\nevents: {retention_days: 0}\nhostnames: ['a b']\n")
	broken := file("broken.yaml", "listen: [\n")
	for _, c := range []struct {
		name string
		args string
		code int
		want string // of either stream
	}{
		{"version", "version", 0, "komainu-control 1.2.3"},
		{"help", "--help", 0, "admin reset"},
		{"nothing", "", fault.ExitUsage, "name a command"},
		{"unknown_command", "fly", fault.ExitUsage, `no command "fly"`},
		{"unknown_flag", "run --fast", fault.ExitUsage, "-fast"},
		{"argument", "run --state x y", fault.ExitUsage, `"y" comes after the flags`},
		{"check", "config check --config " + good, 0, "is good"},
		{"show", "config show --config " + good, 0, "- komainu.example"},
		{"flag_wins", "config show --config " + good + " --listen 127.0.0.1:1", 0, "listen: 127.0.0.1:1"},
		{"defaults", "config show", 0, "retention_days: 30"},
		{"unknown_key", "config check --config " + typo, fault.ExitUsage, "line 3: field hostname not found"},
		{"not_yaml", "config check --config " + broken, fault.ExitUsage, "line "},
		{"no_file", "config check --config " + dir + "/none", fault.ExitUsage, "no such file"},
		{"all_problems", "config check --config " + wrong, fault.ExitUsage, "retention_days"},
		{"run_refuses_them", "run --config " + wrong, fault.ExitUsage, "log.level"},
		{"nothing_to_reset", "admin reset --state " + dir, fault.ExitFailed, "there is no state in"},
		{"no_descriptor", "run --print-once 999 --listen nowhere", fault.ExitUsage, "listen"},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out, err := command(t, strings.Fields(c.args)...)
			if code != c.code || !strings.Contains(out+err, c.want) {
				t.Errorf("%d\n%s%s", code, out, err)
			}
		})
	}
	if _, _, err := command(t, "config", "check", "--config", wrong); strings.Count(err, "\n") < 4 {
		t.Errorf("not every problem is told: %s", err)
	}
}

func TestStateOfANewerVersionIsLeftAlone(t *testing.T) {
	p := start(t, t.TempDir())
	if code := p.stop(); code != 0 {
		t.Fatal(code)
	}
	state, err := db.Open(p.state)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := state.ExecContext(t.Context(), "INSERT INTO goose_db_version (version_id, is_applied) VALUES (99001, 1)"); err != nil {
		t.Fatal(err)
	}
	if err := state.Close(); err != nil {
		t.Fatal(err)
	}
	code, out, text := command(t, "run", "--state", p.state, "--listen", "127.0.0.1:0")
	if code != fault.ExitUnsupported || !strings.Contains(text, "newer version") || out != "" {
		t.Errorf("%d %s%s", code, out, text)
	}
}
