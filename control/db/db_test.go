package db_test

import (
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"komainu/control/db"
	"komainu/fault"
)

func migrations(files map[string]string) fstest.MapFS {
	m := fstest.MapFS{}
	for name, text := range files {
		m["migrations/"+name] = &fstest.MapFile{Data: []byte("-- +goose Up\n" + text)}
	}
	return m
}

func TestMigrateAppliesSlicesInOrderOfNumbers(t *testing.T) {
	dir := t.TempDir()
	a := migrations(map[string]string{"00002_a_second.sql": "INSERT INTO t VALUES (2);"})
	b := migrations(map[string]string{"00001_b_first.sql": "CREATE TABLE t (n INTEGER);"})
	d, err := db.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Migrate(t.Context(), d, a, b); err != nil {
		t.Fatal(err)
	}
	if err := db.Migrate(t.Context(), d, a, b); err != nil {
		t.Fatalf("a second time: %v", err)
	}
	// What a newer version has done is not touched.
	more := migrations(map[string]string{"00003_a_third.sql": "ALTER TABLE t ADD COLUMN m INTEGER;"})
	if err := db.Migrate(t.Context(), d, a, b, more); err != nil {
		t.Fatal(err)
	}
	if err := db.Migrate(t.Context(), d, a, b); !fault.Is(err, fault.Unsupported) || !strings.Contains(err.Error(), "newer version") {
		t.Errorf("an older version on newer state: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if names, _ := filepath.Glob(filepath.Join(dir, db.File)); len(names) != 1 {
		t.Error("no database file")
	}
}

func TestFailedMigrationLeavesNothingHalfDone(t *testing.T) {
	d, err := db.OpenMemory()
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	bad := migrations(map[string]string{"00001_x_bad.sql": "CREATE TABLE half (n INTEGER);\nCREATE TABLE half (n INTEGER);"})
	if err := db.Migrate(t.Context(), d, bad); err == nil {
		t.Fatal("no error")
	}
	if _, err := d.ExecContext(t.Context(), "SELECT * FROM half"); err == nil {
		t.Error("half of a failed migration stays")
	}
}

func TestTwoSlicesCannotShareANumber(t *testing.T) {
	d, err := db.OpenMemory()
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	a := migrations(map[string]string{"00001_a_x.sql": "SELECT 1;"})
	b := migrations(map[string]string{"00001_b_x.sql": "SELECT 1;"})
	if err := db.Migrate(t.Context(), d, a, b); err == nil || !strings.Contains(err.Error(), "same number") {
		t.Errorf("error %v", err)
	}
}

func TestANewFileMayComeBeforeAnAppliedOne(t *testing.T) {
	d, err := db.OpenMemory()
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	early := migrations(map[string]string{"10001_a_x.sql": "CREATE TABLE a (n INTEGER);", "10002_a_y.sql": "CREATE TABLE y (n INTEGER);"})
	late := migrations(map[string]string{"20001_b_x.sql": "CREATE TABLE b (n INTEGER);"})
	old := migrations(map[string]string{"10001_a_x.sql": "CREATE TABLE a (n INTEGER);"})
	if err := db.Migrate(t.Context(), d, old, late); err != nil {
		t.Fatal(err)
	}
	if err := db.Migrate(t.Context(), d, early, late); err != nil {
		t.Fatal(err)
	}
	if _, err := d.ExecContext(t.Context(), "INSERT INTO y VALUES (1)"); err != nil {
		t.Error(err)
	}
}

func TestExplain(t *testing.T) {
	d, err := db.OpenMemory()
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, q := range []string{"CREATE TABLE t (b BLOB)", "PRAGMA max_page_count = 4"} {
		if _, err := d.ExecContext(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	_, err = d.ExecContext(t.Context(), "INSERT INTO t VALUES (zeroblob(1000000))")
	if err = db.Explain(err); !fault.Is(err, fault.Exhausted) || !strings.Contains(err.Error(), "free some space") {
		t.Errorf("a full disk: %v", err)
	}
	if _, err := db.Open(t.TempDir() + "/nowhere"); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "state folder") {
		t.Errorf("no folder: %v", err)
	}
}
