package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"time"

	"go.yaml.in/yaml/v3"

	"komainu/control/backup"
	"komainu/control/enrol"
	"komainu/fault"
	"komainu/internal/atomicfile"
)

// restoreFolder is where a backup is unpacked and tried, within the state
// folder, so that what is good only has to be renamed.
const restoreFolder = ".restore"

// movingMark is in it while files are renamed into the state folder, which was
// empty before: they may be deleted when that did not end.
const movingMark = "moving"

// restoredConfig is the configuration of the backup, when another one is in
// use.
const restoredConfig = "config.from-backup.yaml"

// interrupted refuses a state folder that a restore has left half done.
func interrupted(dir string) error {
	if _, err := os.Lstat(filepath.Join(dir, restoreFolder)); err == nil {
		return fault.New(fault.Conflict, "a restore into %s did not end; run komainu-control restore again", dir)
	}
	return nil
}

// restoreBackup brings a backup back into an empty state folder. Nothing is
// there until all of it was read, checked and opened.
func restoreBackup(ctx context.Context, cfg Config, env Env, from, configFile string, key backup.Key) error {
	if from == "" {
		return fault.New(fault.Invalid, "name the backup with --from")
	}
	in, err := os.Open(from)
	if err != nil {
		return fault.Wrap(fault.NotFound, err, "open the backup")
	}
	defer in.Close()
	plain, err := key.Decrypt(in)
	if err != nil {
		return err
	}
	lock, err := lockState(cfg.State)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := empty(cfg.State); err != nil {
		return err
	}
	staging := filepath.Join(cfg.State, restoreFolder)
	if err := os.Mkdir(staging, 0o700); err != nil {
		return fault.Wrap(fault.Unavailable, err, "unpack the backup")
	}
	m, err := unpack(plain, staging)
	if err == nil {
		err = try(ctx, &cfg, env, staging, configFile, m)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(staging))
	}
	placed, err := keepConfig(cfg.State, staging, configFile)
	if err != nil {
		return errors.Join(err, os.RemoveAll(staging))
	}
	if err := move(cfg.State, staging); err != nil {
		return err
	}
	fmt.Fprintf(env.Stdout, "restored into %s from %s\n", cfg.State, from)
	describe(env.Stdout, m)
	fmt.Fprintf(env.Stdout, "its configuration is in %s\nStart the control plane; agents come back by themselves within a minute or two.\n", placed)
	return nil
}

// describe says what a backup brings back.
func describe(w io.Writer, m backup.Manifest) {
	fmt.Fprintf(w, "  made     %s on %s by version %s\n  CA       %s\n", m.CreatedAt.UTC().Format(time.RFC3339), m.Host, m.Version, m.CA)
	for _, what := range slices.Sorted(maps.Keys(m.Counts)) {
		fmt.Fprintf(w, "  %-16s %d\n", what, m.Counts[what])
	}
}

// empty makes sure that there is nothing in a state folder, and takes away
// what a restore has left that did not end.
func empty(dir string) error {
	staging := filepath.Join(dir, restoreFolder)
	_, moving := os.Lstat(filepath.Join(staging, movingMark))
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "look into the state folder")
	}
	for _, e := range entries {
		switch name := e.Name(); {
		case name == "lock" || name == hostSocket || name == restoreFolder:
		case moving == nil:
			if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
				return err
			}
		default:
			return fault.New(fault.Conflict, "the state folder %s is not empty (%s); a backup is restored into an empty one: move what is there away first", dir, name)
		}
	}
	return os.RemoveAll(staging)
}

// unpack writes the files of a backup below a folder. They are on disk when
// it returns.
func unpack(r io.Reader, dir string) (backup.Manifest, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return backup.Manifest{}, err
	}
	defer root.Close()
	return backup.Read(r, func(name string) (io.WriteCloser, error) {
		if err := root.MkdirAll(filepath.FromSlash(path.Dir(name)), 0o700); err != nil {
			return nil, err
		}
		f, err := root.OpenFile(filepath.FromSlash(name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		return synced{f}, err
	})
}

type synced struct{ *os.File }

// Close closes the file when it is on disk.
func (f synced) Close() error { return errors.Join(f.Sync(), f.File.Close()) }

// try opens everything that was unpacked, brings it up to date and puts what
// waited into a queue.
func try(ctx context.Context, cfg *Config, env Env, staging, configFile string, m backup.Manifest) (err error) {
	log := cfg.Log.logger(env.Stderr)
	if _, err := os.Stat(configFile); configFile == "" || err != nil {
		saved, err := LoadConfig(filepath.Join(staging, configEntry))
		if err != nil {
			return fmt.Errorf("the configuration in the backup: %w", err)
		}
		cfg.Queue = saved.Queue
	}
	var damage string
	state, err := openRestored(ctx, staging)
	if err != nil {
		return fmt.Errorf("the state in the backup: %w", err)
	}
	defer func() { err = errors.Join(err, state.Close()) }()
	if err := state.NewRaw("PRAGMA integrity_check(1)").Scan(ctx, &damage); err != nil || damage != "ok" {
		return fault.New(fault.Invalid, "the state in the backup is damaged: %s %w", damage, err)
	}
	ids, err := enrol.Open(enrol.Config{DB: state, Dir: filepath.Join(staging, keysFolder), Log: part(log, "enrol")})
	if err != nil {
		return fmt.Errorf("the keys in the backup: %w", err)
	}
	if ids.Pin() != m.CA {
		return fault.New(fault.Invalid, "the keys in the backup are of another CA than its manifest says")
	}
	trial := *cfg
	trial.State = staging
	events, err := openEvents(ctx, trial, log)
	if err != nil {
		return fmt.Errorf("the events in the backup: %w", err)
	}
	defer func() { err = errors.Join(err, events.Close()) }()
	if n, err := events.store.Count(ctx); err != nil || n < m.Counts["events"] {
		return errors.Join(err, fault.New(fault.Invalid, "the event store in the backup holds %d events, its manifest says %d", n, m.Counts["events"]))
	}
	repository, err := openRepository(trial, log)
	if err != nil {
		return fmt.Errorf("the repository in the backup: %w", err)
	}
	defer func() { err = errors.Join(err, repository.Close()) }()
	if n := len(repository.List()); int64(n) < m.Counts["packages"] {
		return fault.New(fault.Invalid, "the repository in the backup holds %d packages, its manifest says %d", n, m.Counts["packages"])
	}
	dump, err := os.Open(filepath.Join(staging, queueDump))
	if err != nil {
		return err
	}
	defer dump.Close()
	if n, err := events.queue.Load(ctx, dump); err != nil || n != m.Counts["waiting batches"] {
		return errors.Join(err, fault.New(fault.Invalid, "of %d batches that waited, %d are back", m.Counts["waiting batches"], n))
	}
	if err := os.Remove(dump.Name()); err != nil {
		return err
	}
	return enrol.Restored(ctx, state, m.CreatedAt, time.Now())
}

// keepConfig puts the configuration of the backup where the control plane
// reads it, unless somebody has written one there, and returns where it is.
func keepConfig(dir, staging, configFile string) (string, error) {
	saved := filepath.Join(staging, configEntry)
	c, err := LoadConfig(saved)
	if err != nil {
		return "", err
	}
	c.State = dir
	text, err := yaml.Marshal(c)
	if err != nil {
		return "", err
	}
	if err := os.Remove(saved); err != nil {
		return "", err
	}
	if configFile != "" {
		there, err := LoadConfig(configFile)
		if errors.Is(err, fs.ErrNotExist) || err == nil && reflect.DeepEqual(there, DefaultConfig()) {
			return configFile, atomicfile.Write(configFile, text, 0o644)
		}
	}
	return filepath.Join(dir, restoredConfig), atomicfile.Write(filepath.Join(staging, restoredConfig), text, 0o600)
}

// move renames what was tried into the state folder. The owner of the folder
// owns all of it then, whoever restores.
func move(dir, staging string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 {
		err := filepath.WalkDir(staging, func(name string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return os.Lchown(name, int(owner.Uid), int(owner.Gid))
		})
		if err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(staging, movingMark), nil, 0o600); err != nil {
		return err
	}
	atomicfile.SyncDir(staging)
	entries, err := os.ReadDir(staging)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == movingMark || strings.HasSuffix(e.Name(), "-wal") || strings.HasSuffix(e.Name(), "-shm") {
			continue // of a database that is closed
		}
		if err := os.Rename(filepath.Join(staging, e.Name()), filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	atomicfile.SyncDir(dir)
	return os.RemoveAll(staging)
}
