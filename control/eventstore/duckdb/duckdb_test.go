package duckdb_test

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"komainu/control/eventstore"
	"komainu/control/eventstore/duckdb"
	"komainu/control/eventstore/eventstoretest"
	"komainu/event"
	"komainu/fault"
	"komainu/internal/need"
)

// The variables make the test binary a writer that is going to be killed, and
// a test that runs in a mount namespace of its own.
const (
	crashDir  = "KOMAINU_STORE_CRASH_DIR"
	crashFrom = "KOMAINU_STORE_CRASH_FROM"
	ownMounts = "KOMAINU_STORE_OWN_MOUNTS"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		duckdb.MergeOften()
		appendUntilKilled(dir, os.Getenv(crashFrom))
	}
	flag.Parse()
	if flag.Lookup("test.bench").Value.String() == "" {
		duckdb.MergeOften()
	}
	if f := flag.Lookup("rapid.checks"); f.Value.String() == f.DefValue {
		_ = f.Value.Set("20") // each check opens files; more find no more
	}
	os.Exit(m.Run())
}

// open opens a store with little memory, so that tests notice what needs much.
func open(t testing.TB, dir string, decode eventstore.Decode) eventstore.Store {
	t.Helper()
	s, err := duckdb.Open(t.Context(), config(t, dir, decode))
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return s
}

func config(t testing.TB, dir string, decode eventstore.Decode) duckdb.Config {
	return duckdb.Config{
		Dir: dir, Decode: decode, Memory: 256 << 20, Threads: 1, MinFree: -1,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
}

func TestStore(t *testing.T) { eventstoretest.Run(t, open) }

// fileEvent is the n-th event of a device, a few hundred bytes of it unlike
// any other's.
func fileEvent(n uint64) *event.Event {
	return &event.Event{
		ID:   event.ID{Device: "d", Epoch: 1, Source: event.FromFile, Seq: n},
		Time: time.Unix(int64(n), 0).UTC(), Action: event.FileCreated,
		File: &event.File{Path: fmt.Sprintf("/srv/%x", n*0x9e3779b97f4a7c15), Hashes: event.Hashes{SHA256: fmt.Sprintf("%064x", n*n)}},
	}
}

func batch(first, n uint64) (entries []eventstore.Entry) {
	for seq := first; seq < first+n; seq++ {
		entries = append(entries, eventstoretest.Entry("org", fileEvent(seq), time.Unix(1_800_000_000, 0)))
	}
	return entries
}

// appendUntilKilled appends batches that overlap and says up to which number
// everything is stored.
func appendUntilKilled(dir, from string) {
	s, err := duckdb.Open(context.Background(), duckdb.Config{Dir: dir, Decode: eventstoretest.Decode, Threads: 1, MinFree: -1, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	first, err := strconv.ParseUint(from, 10, 64)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for ; ; first += 150 {
		if _, err := s.Append(context.Background(), batch(first, 200)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(first + 199)
	}
}

// TestAKillLosesNothingAndDoublesNothing kills a process that appends, again
// and again on the same file, and counts after every kill. Every round sends
// much again that an earlier one had stored.
func TestAKillLosesNothingAndDoublesNothing(t *testing.T) {
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var acked uint64
	for round := range 4 {
		cmd := exec.CommandContext(t.Context(), self)
		from := max(1, acked-min(acked, 500))
		cmd.Env = append(os.Environ(), crashDir+"="+dir, crashFrom+"="+fmt.Sprint(from))
		cmd.Stderr = t.Output()
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			last, err := strconv.ParseUint(lines.Text(), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			acked = max(acked, last)
			if n == 10+7*round { // in the middle of an Append, or of merging the log
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := cmd.Wait(); err == nil {
			t.Fatal("the writer ended by itself")
		}
		s := open(t, dir, eventstoretest.Decode)
		stored := exactly(t, s)
		if stored < acked {
			t.Fatalf("round %d: %d events were acknowledged, %d are stored", round, acked, stored)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// exactly checks that the numbers from 1 on are stored once each, by the rows
// themselves and by the coverage, and returns how many there are.
func exactly(t *testing.T, s eventstore.Store) uint64 {
	t.Helper()
	seen := map[uint64]int{}
	q := eventstore.Query{Organization: "org", Device: "d", Limit: eventstore.MaxLimit}
	for {
		page, err := s.Timeline(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Events {
			seen[e.ID.Seq]++
		}
		if q.Cursor = page.Next; q.Cursor == "" {
			break
		}
	}
	for n := range uint64(len(seen)) {
		if seen[n+1] != 1 {
			t.Fatalf("event %d is stored %d times", n+1, seen[n+1])
		}
	}
	cover, err := s.Coverage(t.Context(), "org", "d")
	if err != nil || len(cover) != 1 || cover[0].Stored != uint64(len(seen)) || cover[0].Missing != 0 {
		t.Fatalf("%d events are stored, coverage says %+v, %v", len(seen), cover, err)
	}
	return uint64(len(seen))
}

func TestOpenRefuses(t *testing.T) {
	refused := func(dir string, kind fault.Kind, words string) {
		t.Helper()
		s, err := duckdb.Open(t.Context(), config(t, dir, eventstoretest.Decode))
		if err == nil {
			t.Fatal(errors.Join(errors.New("it opens"), s.Close()))
		}
		if !fault.Is(err, kind) || !strings.Contains(err.Error(), words) {
			t.Errorf("%v, want kind %v and %q", err, kind, words)
		}
	}
	t.Run("newer_schema", func(t *testing.T) {
		dir := t.TempDir()
		if err := open(t, dir, eventstoretest.Decode).Close(); err != nil {
			t.Fatal(err)
		}
		edit(t, dir, "UPDATE meta SET format = 99")
		refused(dir, fault.Unsupported, "newer version")
	})
	t.Run("older_schema", func(t *testing.T) {
		dir := t.TempDir()
		if err := open(t, dir, eventstoretest.Decode).Close(); err != nil {
			t.Fatal(err)
		}
		edit(t, dir, "UPDATE meta SET format = 0")
		refused(dir, fault.Unsupported, "does not know how to bring up to date")
		edit(t, dir, "UPDATE meta SET format = 1") // it was left as it was
		if err := open(t, dir, eventstoretest.Decode).Close(); err != nil {
			t.Error(err)
		}
	})
	t.Run("foreign_file", func(t *testing.T) {
		dir := t.TempDir()
		edit(t, dir, "CREATE TABLE something (a INTEGER)")
		refused(dir, fault.Invalid, "not an event store")
	})
	t.Run("in_use", func(t *testing.T) {
		dir := t.TempDir()
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), self)
		cmd.Env = append(os.Environ(), crashDir+"="+dir, crashFrom+"=1")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if !bufio.NewScanner(out).Scan() {
			t.Fatal("the other process does not append")
		}
		refused(dir, fault.Conflict, "in use by another process")
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // it was killed
	})
	t.Run("odd_folder", func(t *testing.T) { refused(filepath.Join(t.TempDir(), "what?"), fault.Invalid, "must not contain") })
}

// edit runs a statement on the file of a store that is closed.
func edit(t *testing.T, dir, statement string) {
	t.Helper()
	db, err := sql.Open("duckdb", filepath.Join(dir, "events.duckdb"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), statement); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestANearlyFullDiskRefuses(t *testing.T) {
	cfg := config(t, t.TempDir(), eventstoretest.Decode)
	cfg.MinFree = 1 << 60
	s, err := duckdb.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(t.Context(), batch(1, 1)); !fault.Is(err, fault.Exhausted) {
		t.Errorf("append: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestAFullDisk fills a small filesystem under the store and makes room again.
func TestAFullDisk(t *testing.T) {
	need.Root(t)
	if os.Getenv(ownMounts) == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestAFullDisk$", "-test.v")
		cmd.Env = append(os.Environ(), ownMounts+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS: TestAFullDisk") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	dir := t.TempDir()
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=24m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	// Something else takes most of the disk.
	other := filepath.Join(dir, "other")
	if err := os.WriteFile(other, make([]byte, 18<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	store := filepath.Join(dir, "store")
	s := open(t, store, eventstoretest.Decode)
	var stored, first uint64 = 0, 1
	var full error
	for range 200 {
		done, err := s.Append(t.Context(), batch(first, 2000))
		if err != nil {
			full = err
			break
		}
		stored, first = stored+uint64(done.Stored), first+2000
	}
	if !fault.Is(full, fault.Unavailable) && !fault.Is(full, fault.Exhausted) {
		t.Fatalf("after %d events: %v", stored, full)
	}
	t.Logf("full after %d events: %v", stored, full)
	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	// The same again, as the queue does.
	if _, err := s.Append(t.Context(), batch(first, 2000)); err != nil {
		t.Fatalf("with room again: %v", err)
	}
	if n := exactly(t, s); n != stored+2000 {
		t.Errorf("%d events are stored, want %d", n, stored+2000)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
