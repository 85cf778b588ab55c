package duckdb

import (
	"context"
	"errors"
	"fmt"

	"komainu/control/eventstore"
	"komainu/event"
	"komainu/fault"
)

// Append implements eventstore.Store.
func (s *Store) Append(ctx context.Context, entries []eventstore.Entry) (eventstore.Appended, error) {
	for _, e := range entries {
		if err := eventstore.CheckEntry(e); err != nil {
			return eventstore.Appended{}, err
		}
	}
	s.write.Lock()
	defer s.write.Unlock()
	if err := ctx.Err(); err != nil {
		return eventstore.Appended{}, fault.Wrap(fault.Unavailable, err, "append events")
	}
	if err := s.room(); err != nil {
		return eventstore.Appended{}, err
	}
	st, err := s.usable(ctx)
	if err != nil {
		return eventstore.Appended{}, err
	}
	fresh, runs := st.ledger.sift(entries)
	done := eventstore.Appended{Stored: len(fresh), Duplicates: len(entries) - len(fresh)}
	if len(fresh) == 0 {
		return done, nil
	}
	if err := st.transaction(func() error { return st.put(fresh, runs) }); err != nil {
		s.discard(st)
		return eventstore.Appended{}, fault.Wrap(fault.Unavailable, err, "append %d events", len(fresh))
	}
	st.ledgerMu.Lock()
	for _, r := range runs {
		st.ledger.add(r)
	}
	st.ledgerMu.Unlock()
	if err := st.compact(); err != nil {
		// What was asked for is on disk; the history only stays longer.
		s.log.Warn("compaction of the ranges failed", "error", err)
		s.discard(st)
	}
	return done, nil
}

// usable returns the state to write with, and opens the file anew when an
// earlier write failed: what the engine has committed then decides, not what
// this process remembers. The caller holds write.
func (s *Store) usable(ctx context.Context) (*state, error) {
	s.mu.RLock()
	st, shut := s.state, s.shut
	s.mu.RUnlock()
	if shut {
		return nil, fault.New(fault.Unavailable, "the event store is closed")
	}
	if st != nil {
		return st, nil
	}
	st, err := s.open(ctx)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "open the event store again after a failed write")
	}
	s.mu.Lock()
	s.state = st
	s.mu.Unlock()
	s.log.Info("the event store is open again")
	return st, nil
}

// discard gives up a state after a failed write. The caller holds write.
func (s *Store) discard(st *state) {
	s.mu.Lock() // waits for readers
	defer s.mu.Unlock()
	s.state = nil
	if err := st.close(); err != nil {
		s.log.Warn("closing the event store after a failed write", "error", err)
	}
}

// put writes events, their runs and their losses into the open transaction.
func (st *state) put(fresh []*eventstore.Entry, runs []run) error {
	if err := st.putEvents(fresh); err != nil {
		return fmt.Errorf("write events: %w", err)
	}
	if err := st.putRuns(runs); err != nil {
		return fmt.Errorf("write ranges: %w", err)
	}
	if err := st.putLosses(fresh); err != nil {
		return fmt.Errorf("write losses: %w", err)
	}
	return nil
}

func (st *state) putEvents(fresh []*eventstore.Entry) error {
	for len(fresh) > 0 {
		st.input = st.input[:0]
		size := 0
		for len(st.input) < min(chunkRows, len(fresh)) && size < maxArena {
			e := fresh[len(st.input)]
			size += len(e.Record)
			st.input = append(st.input, prepared{
				entry: e, row: eventstore.RowOf(e.Event),
				nanos: eventstore.Nanos(e.Event.Time), received: eventstore.Nanos(e.Received),
			})
		}
		for i := range columns {
			columns[i].fill(st.events, st.events.columns[i], st.input)
		}
		st.events.rows = len(st.input)
		if err := st.events.push(); err != nil {
			return err
		}
		fresh = fresh[len(st.input):]
	}
	clear(st.input[:cap(st.input)]) // it refers to the caller's events
	return st.events.flush()
}

// fill writes a column of a chunk.
func (col *column) fill(c *chunk, v vector, input []prepared) {
	switch {
	case col.text != nil:
		for i := range input {
			c.text(v, i, col.text(&input[i]))
		}
	case col.blob != nil:
		for i := range input {
			c.bytes(v, i, col.blob(&input[i]))
		}
	default:
		for i := range input {
			n := col.num(&input[i])
			if n == 0 && !col.always {
				v.null(i)
				continue
			}
			switch col.kind {
			case kindU16:
				set(v, i, uint16(n))
			case kindU32:
				set(v, i, uint32(n))
			default:
				set(v, i, n)
			}
		}
	}
}

func (st *state) putRuns(runs []run) error {
	c := st.ranges
	for _, r := range runs {
		row := c.rows
		c.text(c.columns[0], row, r.organization)
		c.text(c.columns[1], row, string(r.key.device))
		set(c.columns[2], row, uint64(r.key.epoch))
		c.text(c.columns[3], row, string(r.key.source))
		set(c.columns[4], row, r.First)
		set(c.columns[5], row, r.Last)
		set(c.columns[6], row, r.stored)
		set(c.columns[7], row, r.from)
		set(c.columns[8], row, r.to)
		set(c.columns[9], row, r.received)
		if err := c.next(); err != nil {
			return err
		}
	}
	return c.flush()
}

func (st *state) putLosses(fresh []*eventstore.Entry) error {
	c := st.losses
	for _, e := range fresh {
		loss := e.Event.Loss
		if loss == nil || e.Event.Action != event.EventsLost {
			continue
		}
		row := c.rows
		c.text(c.columns[0], row, e.Organization)
		c.text(c.columns[1], row, string(e.Event.ID.Device))
		set(c.columns[2], row, uint64(e.Event.ID.Epoch))
		c.text(c.columns[3], row, string(loss.Source))
		c.text(c.columns[4], row, loss.Where)
		set(c.columns[5], row, loss.Count)
		set(c.columns[6], row, eventstore.Nanos(e.Received))
		if err := c.next(); err != nil {
			return err
		}
	}
	return c.flush()
}

// next finishes a row.
func (c *chunk) next() error {
	c.rows++
	if c.rows == chunkRows || c.arena.used > maxArena {
		return c.push()
	}
	return nil
}

// compact replaces the history of the ranges when most of it is history.
func (st *state) compact() error {
	const few = 100_000
	if st.ledger.rows < few || st.ledger.rows < 4*st.ledger.live() {
		return nil
	}
	return st.rewrite()
}

// rewrite makes the table of ranges what the ledger says.
func (st *state) rewrite() error {
	runs := st.ledger.compacted()
	err := st.transaction(func() error {
		if err := st.writer.exec("DELETE FROM " + rangesTable); err != nil {
			return err
		}
		return st.putRuns(runs)
	})
	if err != nil {
		return errors.Join(errors.New("rewrite the ranges"), err)
	}
	st.ledger.rows = len(runs)
	return nil
}
