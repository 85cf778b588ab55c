package duckdb

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"time"

	"komainu/fault"
)

// Used returns how many bytes of the file hold something. The file itself does
// not shrink: what is deleted leaves room in it that is used again.
func (s *Store) Used(ctx context.Context) (used int64, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.state == nil {
		return 0, fault.New(fault.Unavailable, "the event store is not open")
	}
	const q = "SELECT used_blocks * block_size FROM pragma_database_size() WHERE database_name = current_database()"
	if err := s.state.db.QueryRowContext(ctx, q).Scan(&used); err != nil {
		return 0, fmt.Errorf("ask for the size of the event store: %w", err)
	}
	return used, nil
}

const (
	// shrinkPart is the part of the events that one step deletes.
	shrinkPart = 0.1
	// shrinkSteps bounds the steps of one call.
	shrinkSteps = 20
	// shrinkIdle is after how many steps in a row that free nothing a call
	// gives up. Room is freed by groups of 122,880 rows (DuckDB's row groups):
	// a step may free none, but where several do not, deleting does not help.
	shrinkIdle = 4
)

// Shrink deletes the oldest events, a tenth of what is there at a time, until
// no more than max bytes are used. It returns how many it deleted. Between two
// steps events are taken as usual.
func (s *Store) Shrink(ctx context.Context, max int64) (deleted int, err error) {
	idle, last := 0, int64(math.MaxInt64)
	for range shrinkSteps {
		used, err := s.Used(ctx)
		if err != nil || used <= max {
			return deleted, err
		}
		if idle++; used < last {
			idle = 0
		}
		if idle == shrinkIdle {
			return deleted, fault.New(fault.Exhausted, "events take %d bytes, more than %d, and deleting the oldest frees nothing; raise the bound", used, max)
		}
		last = used
		cut, ok, err := s.oldest(ctx, shrinkPart)
		if err != nil || !ok {
			return deleted, err
		}
		n, err := s.Purge(ctx, cut)
		deleted += n
		if err != nil {
			return deleted, err
		}
	}
	return deleted, nil
}

// oldest returns a time before which the given part of the events was
// received, and at least one was.
func (s *Store) oldest(ctx context.Context, part float64) (cut time.Time, ok bool, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.state == nil {
		return time.Time{}, false, fault.New(fault.Unavailable, "the event store is not open")
	}
	var nanos sql.NullInt64
	if err := s.state.db.QueryRowContext(ctx, fmt.Sprintf("SELECT epoch_ns(quantile_disc(received, %g)) FROM %s", part, eventsTable)).Scan(&nanos); err != nil {
		return time.Time{}, false, fmt.Errorf("look for the oldest events: %w", err)
	}
	// Purge deletes what came before a time: the events of this very one, too.
	return time.Unix(0, nanos.Int64+1), nanos.Valid, nil
}
