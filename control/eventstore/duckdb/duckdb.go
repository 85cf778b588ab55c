// Package duckdb keeps events in one DuckDB file: the event store of an
// installation that one machine can carry.
//
// One connection writes, in transactions that hold the events together with
// the runs of sequence numbers that they are; any number of readers look at
// what was committed. The file belongs to one process. DESIGN.md in
// control/eventstore says why it is built this way and what was measured.
package duckdb

import (
	"cmp"
	"context"
	"database/sql"
	sqldriver "database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"

	driver "github.com/duckdb/duckdb-go/v2"

	"komainu/control/eventstore"
	"komainu/fault"
)

// Config says where the store is and what it may use.
type Config struct {
	Dir    string            // its folder; made if missing
	Decode eventstore.Decode // of the records that Append is given
	Memory int64             // bytes that the engine may use, DefaultMemory when 0
	// Threads that queries may use, half of the processors when 0.
	Threads int
	// MinFree is how much of the disk under Dir stays free, DefaultMinFree
	// when 0; a negative value switches the check off.
	MinFree int64
	Log     *slog.Logger
}

// Defaults of Config.
const (
	DefaultMemory  = 1 << 30
	DefaultMinFree = 256 << 20
)

// walSize is how large the write-ahead log grows before it is merged into the
// file: larger costs less in all and makes a start after a crash longer. A
// variable, so that tests merge often.
var walSize = "128MB"

// maxReaders bounds the connections, and so the queries that run at once.
const maxReaders = 4

// Store is an open event store.
type Store struct {
	cfg Config
	log *slog.Logger

	// state is replaced as a whole when the engine has to be opened anew
	// after a failed write. Readers hold mu for reading while they use it,
	// the writer holds write first and mu only to replace it.
	write sync.Mutex
	data  *os.File // of Backup; nil before the first. Guarded by write.
	mu    sync.RWMutex
	state *state // nil when closed or broken
	shut  bool
}

// state is one opening of the file.
type state struct {
	db     *sql.DB
	writer *writer
	events *chunk
	ranges *chunk
	losses *chunk
	input  []prepared // of the chunk that is being filled

	ledgerMu sync.RWMutex // Append changes the ledger while Coverage reads it
	ledger   *ledger
}

var _ eventstore.Store = (*Store)(nil)

// Open opens the store and makes it if it is not there. A file of a newer
// version is fault.Unsupported, one that another process has open
// fault.Conflict. The caller closes the store.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	cfg.Memory = cmp.Or(cfg.Memory, DefaultMemory)
	cfg.MinFree = cmp.Or(cfg.MinFree, DefaultMinFree)
	cfg.Threads = cmp.Or(cfg.Threads, max(1, runtime.NumCPU()/2))
	if strings.ContainsAny(cfg.Dir, "?%#") {
		return nil, fault.New(fault.Invalid, "the folder of the event store, %q, must not contain any of ?%%#", cfg.Dir)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of the event store: %w", err)
	}
	s := &Store{cfg: cfg, log: cfg.Log.With("component", "eventstore")}
	st, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	s.state = st
	return s, nil
}

// settings are what both ways into the engine must agree on. Nothing that a
// query says may reach beyond the file.
func (s *Store) settings() map[string]string {
	return map[string]string{
		"duckdb_api":                    "go",
		"storage_compatibility_version": "v1.5.0",
		"threads":                       strconv.Itoa(s.cfg.Threads),
		"memory_limit":                  fmt.Sprintf("%dMiB", max(s.cfg.Memory>>20, 64)),
		"checkpoint_threshold":          walSize,
		// Pages are found by the small columns first; only then are their
		// records unpacked.
		"late_materialization_max_rows": strconv.Itoa(eventstore.MaxLimit + 1),
		"enable_external_access":        "false",
		"autoinstall_known_extensions":  "false",
		"autoload_known_extensions":     "false",
		"allow_community_extensions":    "false",
	}
}

// open opens the file, checks or makes its schema and reads the ledger.
func (s *Store) open(ctx context.Context) (_ *state, err error) {
	path := filepath.Join(s.cfg.Dir, dataFile)
	options := url.Values{}
	for name, value := range s.settings() {
		if name != "duckdb_api" { // the driver sets it itself
			options.Set(name, value)
		}
	}
	connector, err := driver.NewConnector(path+"?"+options.Encode(), func(sqldriver.ExecerContext) error { return nil })
	if err != nil {
		return nil, explain(path, err)
	}
	st := &state{db: sql.OpenDB(connector), ledger: newLedger()}
	st.db.SetMaxOpenConns(maxReaders)
	defer func() {
		if err != nil {
			err = errors.Join(err, st.close())
		}
	}()
	if st.writer, err = openWriter(path, s.settings()); err != nil {
		return nil, explain(path, err)
	}
	if err = st.migrate(ctx, path); err != nil {
		return nil, err
	}
	if err = st.load(ctx); err != nil {
		return nil, fmt.Errorf("read the ranges of %s: %w", path, err)
	}
	return st, st.openChunks()
}

// explain gives the engine's refusals to open a file a kind.
func explain(path string, err error) error {
	text := err.Error()
	switch {
	case strings.Contains(text, "Could not set lock"):
		return fault.New(fault.Conflict, "the event store %s is in use by another process: %w", path, err)
	case strings.Contains(text, "version number"):
		return fault.New(fault.Unsupported, "the event store %s was written by a newer version: %w", path, err)
	default:
		return fmt.Errorf("open the event store %s: %w", path, err)
	}
}

// migrate makes the schema of an empty file, whole or not at all, and refuses
// one of another format.
func (st *state) migrate(ctx context.Context, path string) error {
	var tables int
	if err := st.db.QueryRowContext(ctx, "SELECT count(*) FROM duckdb_tables()").Scan(&tables); err != nil {
		return fmt.Errorf("look into %s: %w", path, err)
	}
	if tables == 0 {
		if err := st.transaction(func() error { return st.writer.exec(schema()) }); err != nil {
			return fmt.Errorf("make the tables of %s: %w", path, err)
		}
		return nil
	}
	var found int
	if err := st.db.QueryRowContext(ctx, "SELECT max(format) FROM meta").Scan(&found); err != nil {
		return fault.New(fault.Invalid, "%s is not an event store: %w", path, err)
	}
	if found < format {
		return fault.New(fault.Unsupported, "the event store %s has format %d, which this version does not know how to bring up to date; run the version that wrote it", path, found)
	}
	if found > format {
		return fault.New(fault.Unsupported, "the event store %s has format %d, written by a newer version; this one knows formats up to %d", path, found, format)
	}
	return nil
}

// openChunks readies the tables for appending.
func (st *state) openChunks() (err error) {
	st.closeChunks()
	if st.events, err = st.writer.openChunk(eventsTable, eventKinds); err != nil {
		return err
	}
	if st.ranges, err = st.writer.openChunk(rangesTable, rangeKinds); err != nil {
		return err
	}
	st.losses, err = st.writer.openChunk(lossesTable, lossKinds)
	return err
}

func (st *state) closeChunks() {
	for _, c := range []**chunk{&st.events, &st.ranges, &st.losses} {
		if *c != nil {
			(*c).close()
			*c = nil
		}
	}
}

// transaction runs f between BEGIN and COMMIT, or rolls back.
func (st *state) transaction(f func() error) error {
	if err := st.writer.exec("BEGIN TRANSACTION"); err != nil {
		return err
	}
	if err := f(); err != nil {
		return errors.Join(err, st.writer.exec("ROLLBACK"))
	}
	return st.writer.exec("COMMIT")
}

// close releases the file. The engine merges its log when the last
// connection goes.
func (st *state) close() error {
	st.closeChunks()
	if st.writer != nil {
		st.writer.close()
	}
	return st.db.Close()
}

// Close waits for readers and the writer and releases the file.
func (s *Store) Close() error {
	s.write.Lock()
	defer s.write.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.state
	s.state, s.shut = nil, true
	var err error
	if st != nil {
		err = st.close()
	}
	if s.data != nil { // after the engine: see raw
		err = errors.Join(err, s.data.Close())
		s.data = nil
	}
	if err != nil {
		return fmt.Errorf("close the event store: %w", err)
	}
	return nil
}

// room refuses when the disk is nearly full, before the engine finds out in
// the middle of a write.
func (s *Store) room() error {
	if s.cfg.MinFree < 0 {
		return nil
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(s.cfg.Dir, &st); err != nil {
		return fault.Wrap(fault.Unavailable, err, "look at the disk of the event store")
	}
	if free := st.Bavail * uint64(st.Bsize); free < uint64(s.cfg.MinFree) {
		return fault.New(fault.Exhausted, "the disk under %s is nearly full: %d MiB are free, %d MiB are kept free; make room", s.cfg.Dir, free>>20, s.cfg.MinFree>>20)
	}
	return nil
}
