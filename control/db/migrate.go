package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/uptrace/bun"

	"komainu/fault"
)

// ledger is the table of what was applied. Its name and form are older than
// this code and are kept.
const ledger = `CREATE TABLE IF NOT EXISTS goose_db_version (
		id INTEGER PRIMARY KEY AUTOINCREMENT,
		version_id INTEGER NOT NULL,
		is_applied INTEGER NOT NULL,
		tstamp TIMESTAMP DEFAULT (datetime('now'))
	)`

// migration is one file of a slice.
type migration struct {
	version int64
	name    string
	up      string
}

// Migrate applies what is missing of the migrations of all slices: all of
// them in one transaction, or none. It keeps no copy; Upgrade does.
func Migrate(ctx context.Context, b *bun.DB, slicesOf ...fs.FS) error {
	all, err := read(slicesOf)
	if err != nil {
		return err
	}
	_, err = migrate(ctx, b, all, nil)
	return err
}

// migrate returns the migrations that it has applied. Before the first one,
// save is called with how many there were before, while nobody else can
// write; it is not called for an empty database.
func migrate(ctx context.Context, b *bun.DB, all []migration, save func(ctx context.Context, before int) (string, error)) ([]migration, error) {
	if missing, _, err := compare(ctx, b.DB, all); err != nil || missing == nil {
		return nil, err
	}
	tx, err := b.BeginTx(ctx, nil) // immediate: it is the one writer from here on
	if err != nil {
		return nil, Explain(fmt.Errorf("migrate the state: %w", err))
	}
	defer func() { _ = tx.Rollback() }() // after a commit it does nothing
	missing, before, err := compare(ctx, tx.Tx, all)
	if err != nil || missing == nil {
		return nil, err
	}
	kept := ""
	if save != nil && before > 0 {
		if kept, err = save(ctx, before); err != nil {
			return nil, err
		}
	}
	if _, err := tx.Tx.ExecContext(ctx, ledger); err != nil {
		return nil, unchanged(err, "the list of migrations", kept)
	}
	for _, m := range missing {
		if _, err := tx.Tx.ExecContext(ctx, m.up); err != nil {
			return nil, unchanged(err, m.name, kept)
		}
		if _, err := tx.Tx.ExecContext(ctx, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (?, 1)", m.version); err != nil {
			return nil, unchanged(err, m.name, kept)
		}
	}
	if err := tx.Commit(); err != nil {
		return nil, unchanged(err, "the commit", kept)
	}
	return missing, nil
}

// unchanged says that an upgrade has failed, what that means, and what to do.
// Its kind is that of the database's refusal, so that whoever starts again by
// itself knows whether it helps; a migration that cannot do its work is
// Unsupported.
func unchanged(err error, what, kept string) error {
	kind := fault.Unsupported
	if known := Explain(err); fault.KindOf(known) != fault.Internal {
		err, kind = known, fault.KindOf(known)
	}
	copied := ""
	if kept != "" {
		copied = "; a copy is in " + kept
	}
	return fault.New(kind, "the state was not brought up to this version, %s failed: %w. Nothing was changed: the version that ran before can be installed and started again%s", what, err, copied)
}

// querier is a database or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// compare returns what a database lacks and how many migrations it has. One
// with a migration that this version does not have is refused.
func compare(ctx context.Context, q querier, all []migration) (missing []migration, before int, err error) {
	applied, err := applied(ctx, q)
	if err != nil {
		return nil, 0, err
	}
	for _, v := range applied {
		if !slices.ContainsFunc(all, func(m migration) bool { return m.version == v }) {
			return nil, 0, fault.New(fault.Unsupported, "the state was written by a newer version (migration %05d is not known here); run that version, or go back to what was before it: restore a backup, or komainu-control migrate --rollback", v)
		}
	}
	for _, m := range all {
		if !slices.Contains(applied, m.version) {
			missing = append(missing, m)
		}
	}
	return missing, len(applied), nil
}

// applied lists the migrations of a database.
func applied(ctx context.Context, q querier) ([]int64, error) {
	tables, err := numbers(ctx, q, "SELECT count(*) FROM sqlite_master WHERE name = 'goose_db_version'")
	if err == nil && tables[0] != 0 {
		return numbers(ctx, q, "SELECT DISTINCT version_id FROM goose_db_version WHERE is_applied AND version_id > 0 ORDER BY version_id")
	}
	return nil, err
}

func numbers(ctx context.Context, q querier, query string) (list []int64, err error) {
	rows, err := q.QueryContext(ctx, query)
	if err != nil {
		return nil, Explain(fmt.Errorf("read the version of the state: %w", err))
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var n int64
		if err := rows.Scan(&n); err != nil {
			return nil, err
		}
		list = append(list, n)
	}
	if err := rows.Err(); err != nil {
		return nil, Explain(fmt.Errorf("read the version of the state: %w", err))
	}
	return list, nil
}

// read returns the migrations of all slices in the order of their numbers; a
// number that two of them use is a mistake of ours. Slices number their files
// in ranges of their own, so a new file of one slice may come before an
// applied one of another.
func read(list []fs.FS) ([]migration, error) {
	var all []migration
	for _, f := range list {
		names, err := fs.Glob(f, "migrations/*.sql")
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			text, err := fs.ReadFile(f, name)
			if err != nil {
				return nil, err
			}
			m := migration{name: path.Base(name)}
			number, _, _ := strings.Cut(m.name, "_")
			if m.version, err = strconv.ParseInt(number, 10, 64); err != nil || m.version <= 0 {
				return nil, fmt.Errorf("migration %s does not begin with a number", m.name)
			}
			if m.up, err = section(string(text)); err != nil {
				return nil, fmt.Errorf("migration %s: %w", m.name, err)
			}
			if i := slices.IndexFunc(all, func(o migration) bool { return o.version == m.version }); i >= 0 {
				return nil, fmt.Errorf("migrations %s and %s have the same number", all[i].name, m.name)
			}
			all = append(all, m)
		}
	}
	slices.SortFunc(all, func(a, b migration) int { return int(a.version - b.version) })
	return all, nil
}

// section returns the part of a file that goes up: from the line that says so
// to the end, or to the part that goes down.
func section(text string) (string, error) {
	_, up, ok := strings.Cut(text, "-- +goose Up\n")
	if !ok {
		return "", errors.New(`it has no line "-- +goose Up"`)
	}
	up, _, _ = strings.Cut(up, "-- +goose Down\n")
	if strings.Contains(text, "-- +goose NO TRANSACTION") {
		return "", errors.New("it wants to run outside of a transaction, which none may")
	}
	return up, nil
}
