package control_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"komainu/control/db"
	"komainu/fault"
)

// older makes the state of a stopped control plane look like that of the
// version before the last migration.
func older(t *testing.T, dir string) {
	t.Helper()
	state, err := db.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range []string{
		"DELETE FROM goose_db_version WHERE version_id = 95001",
		"DROP TABLE notification_outbox", "DROP TABLE notifications",
	} {
		if _, err := state.ExecContext(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	if err := state.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestMigrateCommand(t *testing.T) {
	p := start(t, t.TempDir())
	// Nothing may touch the state of a control plane that runs.
	for _, args := range [][]string{{"migrate"}, {"migrate", "--rollback"}} {
		if code, _, text := command(t, append(args, "--state", p.state)...); code != fault.ExitFailed || !strings.Contains(text, "another control plane") {
			t.Errorf("%v beside one that runs: %d %s", args, code, text)
		}
	}
	if code, out, text := command(t, "migrate", "--check", "--state", p.state); code != 0 || !strings.Contains(out, "migrations to come  0") {
		t.Errorf("check: %d %s%s", code, out, text)
	}
	if code := p.stop(); code != 0 {
		t.Fatal(code)
	}
	if code, _, text := command(t, "migrate", "--rollback", "--state", p.state); code != fault.ExitFailed || !strings.Contains(text, "restore a backup") {
		t.Errorf("nothing to go back to: %d %s", code, text)
	}
	if code, _, text := command(t, "migrate", "--rollback", "--check", "--state", p.state); code != fault.ExitUsage {
		t.Errorf("both: %d %s", code, text)
	}
	if code, _, text := command(t, "migrate", "--state", t.TempDir()); code != fault.ExitFailed || !strings.Contains(text, "no state") {
		t.Errorf("an empty folder: %d %s", code, text)
	}

	older(t, p.state)
	if code, out, text := command(t, "migrate", "--check", "--state", p.state); code != 0 || !strings.Contains(out, "95001_notify_init.sql") {
		t.Errorf("check: %d %s%s", code, out, text)
	}
	if code, out, text := command(t, "migrate", "--state", p.state); code != 0 || !strings.Contains(out, "up to date") {
		t.Fatalf("%d %s%s", code, out, text)
	}
	if code, out, text := command(t, "migrate", "--rollback", "--state", p.state); code != 0 || !strings.Contains(out, "state-0") {
		t.Fatalf("%d %s%s", code, out, text)
	}
	if code, out, text := command(t, "migrate", "--check", "--state", p.state); code != 0 || !strings.Contains(out, "95001_notify_init.sql") {
		t.Errorf("check after the rollback: %d %s%s", code, out, text)
	}
	if _, err := os.Stat(filepath.Join(p.state, "copies", "undone.db")); err != nil {
		t.Error(err)
	}
}

// TestHostCommandsOfANewerVersion run while the older version still does.
func TestHostCommandsOfANewerVersion(t *testing.T) {
	p := start(t, t.TempDir())
	if code := p.stop(); code != 0 {
		t.Fatal(code)
	}
	older(t, p.state)
	lock, err := os.OpenFile(filepath.Join(p.state, "lock"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	hold(t, lock)
	if code, _, text := command(t, "admin", "reset", "--state", p.state); code != fault.ExitFailed || !strings.Contains(text, "restart the control plane first") {
		t.Errorf("%d %s", code, text)
	}
	lock.Close()
	if code, out, text := command(t, "admin", "reset", "--state", p.state); code != 0 || !strings.Contains(out, "one-time password") {
		t.Errorf("%d %s%s", code, out, text)
	}
}

func hold(t *testing.T, f *os.File) {
	t.Helper()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		t.Fatal(err)
	}
}
