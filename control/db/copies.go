package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/uptrace/bun"

	"komainu/fault"
	"komainu/internal/atomicfile"
)

const (
	// copies is the folder, within that of the state, with the copies that
	// upgrades have made.
	copies = "copies"
	// keep is how many of them stay.
	keep = 3
	// copyPattern names a copy by the number of migrations that it has: an
	// upgrade that is tried again replaces its copy.
	copyPattern = "state-%03d.db"
	copyGlob    = "state-*.db"
	// unfinished is a copy while it is written.
	unfinished = "unfinished.db"
	// undone is the state that the last Rollback has put away.
	undone = "undone.db"
	// rollbackMark is in the folder of the state while files change places,
	// and names the copy that takes the place of the state.
	rollbackMark = "rollback"
)

// Copy is the state as it was before an upgrade.
type Copy struct {
	Path       string
	Migrations int // that it has
	Made       time.Time
	Size       int64
}

// Upgrade brings a database in a folder up to date, and keeps a copy of what
// was there before it changes anything. It returns the names of what it has
// applied. The caller holds the lock of the folder.
func Upgrade(ctx context.Context, b *bun.DB, dir string, slicesOf ...fs.FS) ([]string, error) {
	all, err := read(slicesOf)
	if err != nil {
		return nil, err
	}
	done, err := migrate(ctx, b, all, func(ctx context.Context, before int) (string, error) { return save(ctx, b, dir, before) })
	return names(done), err
}

func names(list []migration) (all []string) {
	for _, m := range list {
		all = append(all, m.name)
	}
	return all
}

// save copies the database as it was before the transaction that the caller
// has begun.
func save(ctx context.Context, b *bun.DB, dir string, before int) (string, error) {
	failed := func(err error) (string, error) {
		return "", fault.Wrap(fault.Unavailable, Explain(err), "the state was not brought up to this version, because no copy of it could be made first; nothing was changed: make room in %s, or make that folder writable, and start again", dir)
	}
	folder := filepath.Join(dir, copies)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return failed(err)
	}
	name := filepath.Join(folder, unfinished)
	if err := os.RemoveAll(name); err != nil { // of an upgrade that was cut off
		return failed(err)
	}
	if err := os.WriteFile(name, nil, 0o600); err != nil { // it holds secrets: its mode comes first
		return failed(err)
	}
	if _, err := b.DB.ExecContext(ctx, "VACUUM INTO ?", name); err != nil {
		return failed(errors.Join(err, os.Remove(name)))
	}
	if err := sameOwner(dir, folder, name); err != nil {
		return failed(err)
	}
	if err := sync(name); err != nil {
		return failed(err)
	}
	final := filepath.Join(folder, fmt.Sprintf(copyPattern, before))
	if err := os.Rename(name, final); err != nil {
		return failed(err)
	}
	atomicfile.SyncDir(folder)
	list, err := Copies(dir)
	if err != nil {
		return failed(err)
	}
	for _, old := range list[min(keep, len(list)):] {
		if err := os.Remove(old.Path); err != nil {
			return failed(err)
		}
	}
	return final, nil
}

// sameOwner gives files to the owner of a folder: root may upgrade what the
// user of the service has to read.
func sameOwner(dir string, files ...string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 {
		return nil
	}
	for _, name := range files {
		if err := os.Lchown(name, int(owner.Uid), int(owner.Gid)); err != nil {
			return err
		}
	}
	return nil
}

func sync(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Copies lists the copies in the folder of a state, the newest first.
func Copies(dir string) ([]Copy, error) {
	files, err := filepath.Glob(filepath.Join(dir, copies, copyGlob))
	if err != nil {
		return nil, err
	}
	var list []Copy
	for _, name := range files {
		c := Copy{Path: name}
		if _, err := fmt.Sscanf(filepath.Base(name), copyPattern, &c.Migrations); err != nil {
			continue // not ours
		}
		info, err := os.Stat(name)
		if err != nil {
			return nil, err
		}
		c.Made, c.Size = info.ModTime(), info.Size()
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b Copy) int { return b.Made.Compare(a.Made) })
	return list, nil
}

// Status is how a state stands to this version.
type Status struct {
	Applied int
	Pending []string // names of migrations that a start would apply
	Copies  []Copy
}

// Look reads the Status of the state in a folder and changes nothing. A state
// of a newer version is an error, beside the copies that there are.
func Look(ctx context.Context, dir string, slicesOf ...fs.FS) (s Status, err error) {
	if s.Copies, err = Copies(dir); err != nil {
		return s, err
	}
	all, err := read(slicesOf)
	if err != nil {
		return s, err
	}
	b, err := readOnly(filepath.Join(dir, File))
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	missing, applied, err := compare(ctx, b, all)
	s.Applied, s.Pending = applied, names(missing)
	return s, err
}

// Rollback puts the newest copy that is older than the state, and that this
// version knows, in the place of the state, and the state into the folder of
// the copies. What was changed since the copy was made is gone from the
// state. Cut off at any moment, it is ended by the next Rollback; until then
// Open refuses. The caller holds the lock of the folder.
func Rollback(ctx context.Context, dir string, slicesOf ...fs.FS) (Copy, error) {
	mark := filepath.Join(dir, rollbackMark)
	var c Copy
	switch name, err := os.ReadFile(mark); {
	case err == nil:
		c.Path = filepath.Join(dir, copies, filepath.Base(string(name)))
	case !errors.Is(err, fs.ErrNotExist):
		return c, fault.Wrap(fault.Unavailable, err, "look into the state folder")
	default:
		if c, err = choose(ctx, dir, slicesOf); err != nil {
			return c, err
		}
		for _, end := range []string{"", "-wal"} {
			if err := os.RemoveAll(filepath.Join(dir, copies, undone+end)); err != nil {
				return c, err
			}
		}
		if err := atomicfile.Write(mark, []byte(filepath.Base(c.Path)), 0o600); err != nil {
			return c, fault.Wrap(fault.Unavailable, err, "begin the rollback; nothing was changed")
		}
	}
	return c, exchange(dir, c.Path)
}

// exchange is the part of Rollback that moves files. While the copy is in its
// folder, what has the names of the state is the state that goes.
func exchange(dir, from string) error {
	if info, err := os.Stat(from); err == nil {
		for _, end := range []string{"", "-wal"} {
			err := os.Rename(filepath.Join(dir, File+end), filepath.Join(dir, copies, undone+end))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fault.Wrap(fault.Unavailable, err, "put the state away; run komainu-control migrate --rollback again")
			}
		}
		if err := os.RemoveAll(filepath.Join(dir, File+"-shm")); err != nil {
			return err
		}
		atomicfile.SyncDir(filepath.Join(dir, copies))
		atomicfile.SyncDir(dir)
		if err := os.Rename(from, filepath.Join(dir, File)); err != nil {
			return fault.Wrap(fault.Unavailable, err, "put the copy %s in the place of the state; run komainu-control migrate --rollback again", info.Name())
		}
	}
	atomicfile.SyncDir(dir)
	err := os.Remove(filepath.Join(dir, rollbackMark))
	atomicfile.SyncDir(dir)
	return err
}

// choose finds the copy to go back to.
func choose(ctx context.Context, dir string, slicesOf []fs.FS) (Copy, error) {
	all, err := read(slicesOf)
	if err != nil {
		return Copy{}, err
	}
	// A state that cannot be read is newer than every copy.
	now := len(all) + 1
	if n, err := count(ctx, filepath.Join(dir, File)); err == nil {
		now = n
	}
	list, err := Copies(dir)
	if err != nil {
		return Copy{}, err
	}
	var errs []error
	for _, c := range list {
		if c.Migrations >= now {
			continue
		}
		if err := sound(ctx, c.Path, all); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c.Path, err))
			continue
		}
		return c, nil
	}
	return Copy{}, fault.New(fault.Conflict, "there is no copy from before the state's last upgrade that this version can use; restore a backup: %w", errors.Join(append(errs, fmt.Errorf("of %d copies, those with fewer than %d migrations were looked at", len(list), now))...))
}

// count returns how many migrations a database file has, known or not.
func count(ctx context.Context, name string) (n int, err error) {
	b, err := readOnly(name)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	list, err := applied(ctx, b)
	return len(list), err
}

// sound makes sure that a copy is whole and known to this version.
func sound(ctx context.Context, name string, all []migration) (err error) {
	b, err := readOnly(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	var damage string
	if err := b.QueryRowContext(ctx, "PRAGMA integrity_check(1)").Scan(&damage); err != nil {
		return Explain(err)
	}
	if damage != "ok" {
		return fault.New(fault.Unavailable, "it is damaged: %s", damage)
	}
	_, _, err = compare(ctx, b, all)
	return err
}

// readOnly opens a database that must be there.
func readOnly(name string) (*sql.DB, error) {
	if _, err := os.Stat(name); err != nil {
		return nil, fault.Wrap(fault.NotFound, err, "there is no state")
	}
	b, err := sql.Open("sqlite", "file:"+(&url.URL{Path: name}).EscapedPath()+"?mode=ro&_pragma=busy_timeout(5000)")
	if err != nil {
		return nil, err
	}
	b.SetMaxOpenConns(1)
	return b, nil
}

// whole refuses a folder in which a Rollback has not ended.
func whole(dir string) error {
	if _, err := os.Lstat(filepath.Join(dir, rollbackMark)); err == nil {
		return fault.New(fault.Conflict, "a rollback in %s did not end; run komainu-control migrate --rollback again", dir)
	}
	return nil
}
