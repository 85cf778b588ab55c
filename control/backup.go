package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/uptrace/bun"
	"go.yaml.in/yaml/v3"

	"komainu/control/audit"
	"komainu/control/backup"
	"komainu/control/db"
	"komainu/control/enrol"
	"komainu/control/rest"
	"komainu/fault"
	"komainu/internal/atomicfile"
)

// Names in a backup, and in the state folder.
const (
	keysFolder   = "keys"
	eventsFolder = "events"
	queueFolder  = "queue"

	repositoryFolder = "repository"
	contentKeys      = "content" // below the keys: those of the repository
	queueDump        = "queue.messages"
	configEntry      = "config.yaml"
	snapshotGlob     = "snapshot-*.db"
	backupPattern    = "snapshot-%d.db"
)

// whole is everything that a backup holds.
type whole struct {
	cfg     Config
	version string
	state   *bun.DB
	ids     *enrol.Authority
	events  *events
	depot   *depot
	log     *slog.Logger

	one sync.Mutex // backup at a time
}

// save writes a backup while everything goes on.
//
// The order makes it whole. What is in the queue comes first: a batch that was
// acknowledged before is either in it, or its consumers were done with it and
// it is in the stores, which come later. A batch that is in both is taken
// twice, and every consumer drops what it knows. The state comes after the
// events, so that it knows every device they name, and the keys last, so that
// they fit the certificates in the state.
func (w *whole) save(ctx context.Context, out io.Writer) error {
	if !w.one.TryLock() {
		return fault.New(fault.Conflict, "another backup is being made; wait for it")
	}
	defer w.one.Unlock()
	now := time.Now().UTC()
	b, err := backup.NewWriter(out, now)
	if err != nil {
		return err
	}
	m := backup.Manifest{Version: w.version, CreatedAt: now, CA: w.ids.Pin(), Counts: map[string]int64{}}
	m.Host, _ = os.Hostname() // is for people
	text, err := yaml.Marshal(w.cfg)
	if err != nil {
		return err
	}
	if err := b.File(configEntry, writes(text)); err != nil {
		return err
	}
	err = b.File(queueDump, func(out io.Writer) error {
		n, err := w.events.queue.Dump(ctx, out)
		m.Counts["waiting batches"] = n
		return err
	})
	if err != nil {
		return err
	}
	if m.Counts["events"], err = w.events.store.Count(ctx); err != nil {
		return err
	}
	err = w.events.store.Backup(ctx, func(name string, fill func(io.Writer) error) error { return b.File(eventsFolder+"/"+name, fill) })
	if err != nil {
		return err
	}
	if err := w.saveState(ctx, b, m.Counts); err != nil {
		return err
	}
	// The keys of the repository belong to its metadata and are read with it.
	below := func(folder string) func(string, func(io.Writer) error) error {
		return func(name string, fill func(io.Writer) error) error { return b.File(folder+"/"+name, fill) }
	}
	if err := w.depot.content.Save(below(repositoryFolder), below(keysFolder+"/"+contentKeys)); err != nil {
		return err
	}
	m.Counts["packages"] = int64(len(w.depot.content.List()))
	err = w.ids.Keys(func(name string, content []byte) error {
		name = filepath.ToSlash(name)
		if strings.HasPrefix(name, contentKeys+"/") {
			return nil
		}
		return b.File(keysFolder+"/"+name, writes(content))
	})
	if err != nil {
		return err
	}
	return b.Close(m)
}

func writes(content []byte) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := w.Write(content)
		return err
	}
}

// counted are tables whose rows mean something to people.
var counted = []string{"users", "environments", "devices", "alerts", "incidents"}

// saveState saves the database as it is at one moment.
func (w *whole) saveState(ctx context.Context, b *backup.Writer, counts map[string]int64) (err error) {
	name := filepath.Join(w.cfg.State, fmt.Sprintf(backupPattern, os.Getpid()))
	if err := os.RemoveAll(name); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(name)) }()
	if _, err := w.state.ExecContext(ctx, "VACUUM INTO ?", name); err != nil {
		return db.Explain(fmt.Errorf("save the state: %w", err))
	}
	for _, table := range counted {
		var there bool
		if err := w.state.NewRaw("SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?)", table).Scan(ctx, &there); err != nil {
			return err
		}
		if there {
			var n int64
			if err := w.state.NewSelect().Table(table).ColumnExpr("count(*)").Scan(ctx, &n); err != nil {
				return err
			}
			counts[table] = n
		}
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return b.File(db.File, func(out io.Writer) error {
		_, err := io.Copy(out, f)
		return err
	})
}

// sweepSnapshots removes what a backup left that was cut off.
func sweepSnapshots(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, snapshotGlob))
	if err != nil {
		return err
	}
	for _, name := range left {
		if err := os.Remove(name); err != nil {
			return err
		}
	}
	return nil
}

// serveBackup streams a backup. One that fails midway is cut off; it then has
// no manifest, and is refused by whoever reads it.
func (w *whole) serveBackup(rw http.ResponseWriter, r *http.Request) {
	out := &slowWriter{ResponseController: http.NewResponseController(rw), out: rw}
	err := w.save(r.Context(), out)
	if err == nil {
		return
	}
	w.log.Warn("a backup was not made", "error", err)
	if !out.written {
		rest.Write(rw, w.log, err)
		return
	}
	panic(http.ErrAbortHandler)
}

// slowLimit is how long the reader of a backup may take for one write: while
// it does not read, events may be waiting.
const slowLimit = time.Minute

type slowWriter struct {
	*http.ResponseController
	out     http.ResponseWriter
	written bool
}

// Write implements io.Writer.
func (w *slowWriter) Write(b []byte) (int, error) {
	w.written = true
	if err := w.SetWriteDeadline(time.Now().Add(slowLimit)); err != nil {
		return 0, err
	}
	return w.out.Write(b)
}

// makeBackup is the command: it asks the control plane that runs, or does it
// itself when none does.
func makeBackup(ctx context.Context, cfg Config, env Env, file string, lock backup.Lock) (err error) {
	if file == "" {
		return fault.New(fault.Invalid, "name the file with --to")
	}
	if _, err := os.Stat(filepath.Join(cfg.State, db.File)); err != nil {
		return fault.Wrap(fault.NotFound, err, "there is no state in %s; name the folder with --state", cfg.State)
	}
	temporary, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".*") // mode 0600
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "write the backup")
	}
	defer func() {
		temporary.Close()
		if err != nil {
			err = errors.Join(err, os.Remove(temporary.Name()))
		}
	}()
	closed, err := lock.Encrypt(temporary)
	if err != nil {
		return err
	}
	// What is written is read at the same time: a backup that cannot be read
	// is found now, not when it is needed.
	through, check := io.Pipe()
	var m backup.Manifest
	read := make(chan error, 1)
	go func() {
		var err error
		m, err = backup.Read(through, func(string) (io.WriteCloser, error) { return nothing{}, nil })
		through.CloseWithError(err)
		read <- err
	}()
	err = backupTo(ctx, cfg, env, io.MultiWriter(closed, check))
	check.CloseWithError(err)
	if bad := <-read; err == nil {
		err = bad
	}
	if err == nil {
		err = errors.Join(closed.Close(), temporary.Sync())
	}
	if err != nil {
		return fmt.Errorf("no backup was made: %w", err)
	}
	if err := os.Rename(temporary.Name(), file); err != nil {
		return err
	}
	atomicfile.SyncDir(filepath.Dir(file))
	fmt.Fprintf(env.Stdout, "backup written to %s, read back and found whole\n", file)
	describe(env.Stdout, m)
	return nil
}

type nothing struct{}

func (nothing) Write(b []byte) (int, error) { return len(b), nil }
func (nothing) Close() error                { return nil }

// backupTo writes a backup of the control plane that runs, or of what one has
// left.
func backupTo(ctx context.Context, cfg Config, env Env, out io.Writer) error {
	body, err := askHost(ctx, cfg.State, http.MethodGet, "/backup", nil, nil)
	switch {
	case err == nil:
		defer body.Close()
		if _, err := io.Copy(out, body); err != nil {
			return fault.Wrap(fault.Unavailable, err, "the control plane has ended before the backup; its log says why")
		}
		return nil
	case !errors.Is(err, errNotRunning):
		return err
	}
	return withStopped(ctx, cfg, env, func(w *whole) error { return w.save(ctx, out) })
}

// withStopped opens the parts of a control plane that does not run.
func withStopped(ctx context.Context, cfg Config, env Env, f func(*whole) error) (err error) {
	log := cfg.Log.logger(env.Stderr)
	lock, err := lockState(cfg.State)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := interrupted(cfg.State); err != nil {
		return err
	}
	state, err := db.Open(cfg.State)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, state.Close()) }()
	ids, err := enrol.Open(enrol.Config{DB: state, Dir: filepath.Join(cfg.State, keysFolder), Log: part(log, "enrol")})
	if err != nil {
		return err
	}
	events, err := openEvents(ctx, cfg, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, events.Close()) }()
	repository, err := openRepository(cfg, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, repository.Close()) }()
	return f(&whole{cfg: cfg, version: env.Version, state: state, ids: ids, events: events, depot: &depot{content: repository, record: audit.New(state, time.Now).Record, state: state}, log: log})
}
