package db_test

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/uptrace/bun"

	"komainu/control/db"
	"komainu/fault"
)

// versions are what a product's migrations are over time: each has one more,
// and the last fails after it has changed the data.
func versions(n int) fstest.MapFS {
	files := map[string]string{}
	for i := range n {
		files[fmt.Sprintf("%05d_x_step.sql", i+1)] = fmt.Sprintf("CREATE TABLE t%d (n INTEGER);\nINSERT INTO t%d VALUES (%d);", i+1, i+1, i+1)
	}
	return migrations(files)
}

func failing(n int) fstest.MapFS {
	m := versions(n)
	m[fmt.Sprintf("migrations/%05d_x_bad.sql", n+1)] = &fstest.MapFile{Data: []byte("-- +goose Up\nDROP TABLE t1;\nCREATE TABLE t2 (n INTEGER);\n")}
	return m
}

// upgrade opens a folder, upgrades it and hands it to f.
func upgrade(t *testing.T, dir string, m fs.FS, f func(*bun.DB)) error {
	t.Helper()
	d, err := db.Open(dir)
	if err != nil {
		return err
	}
	defer func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := db.Upgrade(t.Context(), d, dir, m); err != nil {
		return err
	}
	if f != nil {
		f(d)
	}
	return nil
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func exec1(t *testing.T, d *bun.DB, query string) {
	t.Helper()
	_, err := d.ExecContext(t.Context(), query)
	must(t, err)
}

func value(t *testing.T, d *bun.DB, query string) (n int) {
	t.Helper()
	must(t, d.NewRaw(query).Scan(t.Context(), &n))
	return n
}

func TestUpgradeKeepsACopy(t *testing.T) {
	dir := t.TempDir()
	must(t, upgrade(t, dir, versions(1), func(d *bun.DB) { exec1(t, d, "INSERT INTO t1 VALUES (7)") }))
	if list, err := db.Copies(dir); err != nil || len(list) != 0 {
		t.Fatalf("a first start: copies %v, %v", list, err)
	}
	must(t, upgrade(t, dir, versions(1), nil))
	if list, err := db.Copies(dir); err != nil || len(list) != 0 {
		t.Fatalf("nothing to do: copies %v, %v", list, err)
	}
	must(t, upgrade(t, dir, versions(3), nil))
	list, err := db.Copies(dir)
	if err != nil || len(list) != 1 || list[0].Migrations != 1 || list[0].Size == 0 {
		t.Fatalf("copies %v, %v", list, err)
	}
	if info, err := os.Stat(list[0].Path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the copy holds secrets: %v, %v", info.Mode(), err)
	}
	// However often it is upgraded, a few copies stay, the newest.
	for n := 4; n < 9; n++ {
		must(t, upgrade(t, dir, versions(n), nil))
	}
	list, err = db.Copies(dir)
	must(t, err)
	var have []int
	for _, c := range list {
		have = append(have, c.Migrations)
	}
	if !slices.Equal(have, []int{7, 6, 5}) {
		t.Errorf("copies with %v migrations stay", have)
	}
}

func TestFailedUpgradeChangesNothing(t *testing.T) {
	dir := t.TempDir()
	must(t, upgrade(t, dir, versions(1), func(d *bun.DB) { exec1(t, d, "INSERT INTO t1 VALUES (7)") }))
	// Two migrations are to come; the second fails. Tried again and again, it
	// leaves one copy.
	for range 5 {
		err := upgrade(t, dir, failing(2), nil)
		if !fault.Is(err, fault.Unsupported) {
			t.Fatalf("kind of %v", err)
		}
		for _, words := range []string{"00003_x_bad.sql failed", "already exists", "Nothing was changed", "copies/state-001.db"} {
			if err == nil || !strings.Contains(err.Error(), words) {
				t.Fatalf("error %v, want %q", err, words)
			}
		}
	}
	if list, err := db.Copies(dir); err != nil || len(list) != 1 {
		t.Errorf("copies %v, %v", list, err)
	}
	must(t, upgrade(t, dir, versions(1), func(d *bun.DB) { // the version before
		if n := value(t, d, "SELECT sum(n) FROM t1"); n != 8 {
			t.Errorf("sum %d, want 8", n)
		}
		if n := value(t, d, "SELECT count(*) FROM sqlite_master WHERE name = 't2'"); n != 0 {
			t.Error("a migration before the one that failed stays")
		}
	}))
	// Nothing was changed, so there is nothing to go back to.
	if _, err := db.Rollback(t.Context(), dir, versions(1)); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "no copy") {
		t.Errorf("rollback: %v", err)
	}
}

func TestNoUpgradeWithoutACopy(t *testing.T) {
	dir := t.TempDir()
	must(t, upgrade(t, dir, versions(1), nil))
	must(t, os.WriteFile(filepath.Join(dir, "copies"), nil, 0o600)) // is in the way
	if err := upgrade(t, dir, versions(2), nil); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "no copy of it could be made first") {
		t.Errorf("error %v", err)
	}
	must(t, upgrade(t, dir, versions(1), nil))
}

func TestRollback(t *testing.T) {
	dir := t.TempDir()
	must(t, upgrade(t, dir, versions(1), func(d *bun.DB) { exec1(t, d, "INSERT INTO t1 VALUES (7)") }))
	must(t, upgrade(t, dir, versions(2), func(d *bun.DB) { exec1(t, d, "DELETE FROM t1") }))
	if err := upgrade(t, dir, versions(1), nil); !fault.Is(err, fault.Unsupported) || !strings.Contains(err.Error(), "migrate --rollback") {
		t.Fatalf("a newer state: %v", err)
	}
	s, err := db.Look(t.Context(), dir, versions(3))
	if err != nil || s.Applied != 2 || !slices.Equal(s.Pending, []string{"00003_x_step.sql"}) || len(s.Copies) != 1 {
		t.Errorf("status %+v, %v", s, err)
	}
	if s, err := db.Look(t.Context(), dir, versions(1)); !fault.Is(err, fault.Unsupported) || len(s.Copies) != 1 {
		t.Errorf("status for the version before: %+v, %v", s, err)
	}
	c, err := db.Rollback(t.Context(), dir, versions(1))
	if err != nil || c.Migrations != 1 {
		t.Fatalf("copy %+v, %v", c, err)
	}
	must(t, upgrade(t, dir, versions(1), func(d *bun.DB) {
		if n := value(t, d, "SELECT sum(n) FROM t1"); n != 8 {
			t.Errorf("sum %d, want 8", n)
		}
	}))
	if _, err := os.Stat(filepath.Join(dir, "copies", "undone.db")); err != nil {
		t.Error("what was undone is lost:", err)
	}
	// The way forward is open again.
	must(t, upgrade(t, dir, versions(2), nil))
}

func TestRollbackRefusesADamagedCopy(t *testing.T) {
	dir := t.TempDir()
	must(t, upgrade(t, dir, versions(1), nil))
	must(t, upgrade(t, dir, versions(2), nil))
	list, err := db.Copies(dir)
	must(t, err)
	text, err := os.ReadFile(list[0].Path)
	must(t, err)
	for i := range text[100:4096] {
		text[100+i] ^= 0x5a
	}
	must(t, os.WriteFile(list[0].Path, text, 0o600))
	if _, err := db.Rollback(t.Context(), dir, versions(1)); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), list[0].Path) {
		t.Errorf("error %v", err)
	}
	must(t, upgrade(t, dir, versions(2), nil)) // is as it was
}

// TestRollbackThatWasCutOff takes every moment between two steps of it.
func TestRollbackThatWasCutOff(t *testing.T) {
	for _, c := range []struct {
		name string
		cut  func(t *testing.T, dir string)
	}{
		{"begun", func(*testing.T, string) {}},
		{"state_away", func(t *testing.T, dir string) {
			must(t, os.Rename(filepath.Join(dir, db.File), filepath.Join(dir, "copies", "undone.db")))
		}},
		{"copy_in_place", func(t *testing.T, dir string) {
			must(t, os.Rename(filepath.Join(dir, "copies", "state-001.db"), filepath.Join(dir, db.File)))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			must(t, upgrade(t, dir, versions(1), func(d *bun.DB) { exec1(t, d, "INSERT INTO t1 VALUES (7)") }))
			must(t, upgrade(t, dir, versions(2), nil))
			must(t, os.WriteFile(filepath.Join(dir, "rollback"), []byte("state-001.db"), 0o600))
			c.cut(t, dir)
			if _, err := db.Open(dir); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "did not end") {
				t.Fatalf("it opens: %v", err)
			}
			if _, err := db.Rollback(t.Context(), dir, versions(1)); err != nil {
				t.Fatal(err)
			}
			must(t, upgrade(t, dir, versions(1), func(d *bun.DB) {
				if n := value(t, d, "SELECT sum(n) FROM t1"); n != 8 {
					t.Errorf("sum %d, want 8", n)
				}
			}))
		})
	}
}

// killedDir tells a second run of this test program which state to upgrade.
const killedDir = "KOMAINU_TEST_UPGRADE"

// endless is a migration that changes what is there and then never ends.
func endless() fstest.MapFS {
	m := versions(2)
	m["migrations/00003_x_endless.sql"] = &fstest.MapFile{Data: []byte(`-- +goose Up
DELETE FROM t1;
CREATE TABLE big (b BLOB);
INSERT INTO big WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 1000000000) SELECT randomblob(1000) FROM c;
`)}
	return m
}

func TestMain(m *testing.M) {
	if dir := os.Getenv(killedDir); dir != "" {
		d, err := db.Open(dir)
		if err == nil {
			_, err = db.Upgrade(context.Background(), d, dir, endless())
		}
		fmt.Fprintln(os.Stderr, "the upgrade has ended:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// TestUpgradeThatIsKilled kills an upgrade when parts of it are on disk.
func TestUpgradeThatIsKilled(t *testing.T) {
	dir := t.TempDir()
	must(t, upgrade(t, dir, versions(1), func(d *bun.DB) { exec1(t, d, "INSERT INTO t1 VALUES (7)") }))
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), killedDir+"="+dir)
	cmd.Stderr = os.Stderr
	must(t, cmd.Start())
	wal := filepath.Join(dir, db.File+"-wal")
	grown := false
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(30 * time.Second); !grown && time.Now().Before(deadline); {
		<-poll.C
		info, err := os.Stat(wal)
		grown = err == nil && info.Size() > 4<<20
	}
	must(t, cmd.Process.Kill())
	_ = cmd.Wait() // it was killed
	if !grown {
		t.Fatal("the migration has written nothing in 30 s")
	}
	list, err := db.Copies(dir)
	if err != nil || len(list) != 1 || list[0].Migrations != 1 {
		t.Fatalf("copies %v, %v", list, err)
	}
	must(t, upgrade(t, dir, versions(1), func(d *bun.DB) { // the version before goes on
		if n := value(t, d, "SELECT sum(n) FROM t1"); n != 8 {
			t.Errorf("sum %d, want 8", n)
		}
	}))
	must(t, upgrade(t, dir, versions(4), func(d *bun.DB) { // and so does a better one
		if n := value(t, d, "SELECT sum(n) FROM t1") + value(t, d, "SELECT n FROM t4"); n != 12 {
			t.Errorf("sum %d, want 12", n)
		}
	}))
}
