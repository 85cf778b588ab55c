// Package db opens the relational state of the control plane and brings its
// schema up to date.
//
// Every slice owns its tables and embeds its migrations as numbered SQL files
// (NNNNN_slice_what.sql, append only); Upgrade keeps a copy of what is there
// and then applies the files of all slices that are missing, in the order of
// their numbers and in one transaction: an upgrade that fails, or that is cut
// off, has changed nothing. A database that a newer version has migrated is
// refused; Rollback brings back the copy from before.
package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/sqlitedialect"
	"modernc.org/sqlite"

	"komainu/fault"
)

// File is the name of the database in the state folder.
const File = "state.db"

// Open opens or creates the database in a folder. Writers wait for each
// other up to five seconds. A commit is on disk when it returns: WAL with
// synchronous=FULL, because enrolments and revocations must not come undone. A
// folder in which a Rollback has not ended is refused.
func Open(dir string) (*bun.DB, error) {
	if err := whole(dir); err != nil {
		return nil, err
	}
	return open("file:" + (&url.URL{Path: filepath.Join(dir, File)}).EscapedPath() + "?" + pragmas("journal_mode(WAL)", "synchronous(FULL)"))
}

// OpenMemory opens a database that lives as long as the handle, for tests.
func OpenMemory() (*bun.DB, error) {
	b, err := open("file::memory:?" + pragmas())
	if err == nil {
		b.SetMaxOpenConns(1) // each connection would be a database of its own
	}
	return b, err
}

func pragmas(more ...string) string {
	v := url.Values{"_txlock": {"immediate"}}
	for _, p := range append([]string{"foreign_keys(1)", "busy_timeout(5000)"}, more...) {
		v.Add("_pragma", p)
	}
	return v.Encode()
}

func open(dsn string) (*bun.DB, error) {
	s, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, fmt.Errorf("open state: %w", err)
	}
	// SQLite has one writer; a few readers more are enough for one process.
	s.SetMaxOpenConns(4)
	if err := s.Ping(); err != nil {
		return nil, errors.Join(Explain(fmt.Errorf("open the state: %w", err)), s.Close())
	}
	return bun.NewDB(s, sqlitedialect.New()), nil
}

// Page runs a query for one page of its rows and returns how many rows there
// are in all.
func Page(ctx context.Context, q *bun.SelectQuery, limit, offset int) (total int, err error) {
	n, err := q.Limit(int64(limit)).Offset(int64(offset)).ScanAndCount(ctx)
	return int(n), err
}

// NotFound turns the database's "no rows" into a fault that names what is
// missing, and passes other errors on.
func NotFound(err error, what string, id any) error {
	if errors.Is(err, sql.ErrNoRows) {
		return fault.New(fault.NotFound, "there is no %s %v", what, id)
	}
	return err
}

// SQLite's primary result codes that an administrator can do something about.
const (
	codeBusy     = 5
	codeIO       = 10
	codeCorrupt  = 11
	codeFull     = 13
	codeCantOpen = 14
	codeNotDB    = 26
)

// Explain gives errors of the database that an administrator can act on a kind
// and a message; every other error passes unchanged.
func Explain(err error) error {
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return err
	}
	switch e.Code() & 0xff {
	case codeFull:
		return fault.Wrap(fault.Exhausted, err, "the disk that holds the state is full; free some space and try again, nothing was changed")
	case codeBusy:
		return fault.Wrap(fault.Unavailable, err, "the state is busy; try again")
	case codeIO:
		return fault.Wrap(fault.Unavailable, err, "the disk that holds the state fails; look at the kernel's log")
	case codeCorrupt, codeNotDB:
		return fault.Wrap(fault.Unavailable, err, "the state is damaged; restore a backup")
	case codeCantOpen:
		return fault.Wrap(fault.Unavailable, err, "the state cannot be opened; check that the state folder exists and that this user may write to it")
	}
	return err
}
