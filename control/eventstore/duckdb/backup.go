package duckdb

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"komainu/fault"
)

// Files of the store.
const (
	dataFile = "events.duckdb"
	logFile  = dataFile + ".wal"
)

// Backup gives the files of the store to save, as they would be found after a
// crash at this moment: the engine opens such files by itself. Appending waits
// until it returns; reading goes on.
func (s *Store) Backup(ctx context.Context, save func(name string, fill func(io.Writer) error) error) error {
	s.write.Lock()
	defer s.write.Unlock()
	st, err := s.usable(ctx)
	if err != nil {
		return err
	}
	// With the log merged there is less to save. A reader can keep the engine
	// from that; then the log is saved as well.
	if err := st.writer.exec("CHECKPOINT"); err != nil {
		s.log.Debug("the log is saved as it is", "error", err)
	}
	for _, name := range []string{dataFile, logFile} {
		f, err := s.raw(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // an engine without a log
		}
		if err != nil {
			return fmt.Errorf("save the event store: %w", err)
		}
		info, err := f.Stat()
		if err != nil {
			return err
		}
		err = save(name, func(w io.Writer) error {
			_, err := io.Copy(w, io.NewSectionReader(f, 0, info.Size()))
			return err
		})
		if name == logFile {
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

// raw opens a file of the store for reading. The one that holds the data is
// opened once and stays open: closing any descriptor of it would give up the
// lock that the engine has on it. The caller holds write.
func (s *Store) raw(name string) (*os.File, error) {
	if name == dataFile && s.data != nil {
		return s.data, nil
	}
	f, err := os.Open(filepath.Join(s.cfg.Dir, name))
	if err == nil && name == dataFile {
		s.data = f
	}
	return f, err
}

// Size returns how many bytes the store takes on disk.
func (s *Store) Size() (int64, error) {
	var size int64
	for _, name := range []string{dataFile, logFile} {
		info, err := os.Stat(filepath.Join(s.cfg.Dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("look at the event store: %w", err)
		}
		size += info.Size()
	}
	return size, nil
}

// Count returns how many events there are.
func (s *Store) Count(ctx context.Context) (n int64, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.state == nil {
		return 0, fault.New(fault.Unavailable, "the event store is not open")
	}
	if err := s.state.db.QueryRowContext(ctx, "SELECT count(*) FROM "+eventsTable).Scan(&n); err != nil {
		return 0, fmt.Errorf("count the events: %w", err)
	}
	return n, nil
}

// Room fails with fault.Exhausted while the disk is too full to append.
func (s *Store) Room() error {
	if err := s.room(); err != nil {
		return fault.Wrap(fault.KindOf(err), err, "the event store")
	}
	return nil
}
