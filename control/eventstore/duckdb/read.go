package duckdb

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"komainu/control/eventstore"
	"komainu/event"
	"komainu/fault"
)

// reading returns the state to read from and the function that ends reading.
func (s *Store) reading(ctx context.Context) (*state, func(), error) {
	s.mu.RLock()
	if s.state != nil {
		return s.state, s.mu.RUnlock, nil
	}
	s.mu.RUnlock()
	s.write.Lock()
	_, err := s.usable(ctx)
	s.write.Unlock()
	if err != nil {
		return nil, nil, err
	}
	s.mu.RLock()
	if s.state == nil {
		s.mu.RUnlock()
		return nil, nil, fault.New(fault.Unavailable, "the event store cannot write; try again")
	}
	return s.state, s.mu.RUnlock, nil
}

// condition collects the parts of a WHERE clause with their arguments.
type condition struct {
	parts []string
	args  []any
}

func (c *condition) and(part string, args ...any) {
	c.parts = append(c.parts, part)
	c.args = append(c.args, args...)
}

// of starts the condition of a tenant. Every query begins with it.
func of(organization string) *condition {
	c := &condition{}
	c.and("organization = ?", organization)
	return c
}

func (c *condition) String() string { return strings.Join(c.parts, " AND ") }

// Timeline implements eventstore.Store.
func (s *Store) Timeline(ctx context.Context, q eventstore.Query) (eventstore.Page, error) {
	q, after, err := q.Check()
	if err != nil {
		return eventstore.Page{}, err
	}
	where := of(q.Organization)
	where.and("device = ?", string(q.Device))
	if !q.From.IsZero() {
		where.and("ts >= make_timestamp_ns(?)", eventstore.Nanos(q.From))
	}
	if !q.To.IsZero() {
		where.and("ts < make_timestamp_ns(?)", eventstore.Nanos(q.To))
	}
	if len(q.Actions) > 0 {
		args := make([]any, len(q.Actions))
		for i, a := range q.Actions {
			args[i] = string(a)
		}
		where.and("action IN ("+marks(len(args))+")", args...)
	}
	if q.Text != "" {
		parts := make([]string, len(textColumns))
		args := make([]any, len(textColumns))
		for i, name := range textColumns {
			parts[i], args[i] = "contains(lower("+name+"), ?)", strings.ToLower(q.Text)
		}
		where.and("("+strings.Join(parts, " OR ")+")", args...)
	}
	if after != nil {
		// The first part lets the engine skip what is out of reach by its
		// statistics; the rest is the comparison of tuples, spelled out.
		epoch, seq := number(uint64(after.Epoch)), number(after.Seq)
		sign := "<"
		if q.Newer {
			sign = ">"
		}
		where.and("ts "+sign+"= make_timestamp_ns(?)", after.Nanos)
		where.and(strings.ReplaceAll(`(ts < make_timestamp_ns(?) OR epoch < ?::UBIGINT OR epoch = ?::UBIGINT AND (source < ? OR source = ? AND seq < ?::UBIGINT))`, "<", sign),
			after.Nanos, epoch, epoch, string(after.Source), string(after.Source), seq)
	}
	st, done, err := s.reading(ctx)
	if err != nil {
		return eventstore.Page{}, err
	}
	defer done()
	order := " ORDER BY ts DESC, epoch DESC, source DESC, seq DESC LIMIT ?"
	if q.Newer {
		order = " ORDER BY ts, epoch, source, seq LIMIT ?"
	}
	query := "SELECT device, record FROM " + eventsTable + " WHERE " + where.String() + order
	events, err := s.fetch(ctx, st, query, append(where.args, q.Limit+1)...)
	if err != nil {
		return eventstore.Page{}, fmt.Errorf("read the timeline of device %s: %w", q.Device, err)
	}
	return eventstore.PageOf(q, events), nil
}

// Get implements eventstore.Store.
func (s *Store) Get(ctx context.Context, organization string, ids []event.ID) ([]event.Event, error) {
	if err := eventstore.CheckIDs(organization, ids); err != nil || len(ids) == 0 {
		return nil, err
	}
	where := of(organization)
	rows := make([]string, len(ids))
	var args []any
	for i, id := range ids {
		rows[i] = "(?::VARCHAR, ?::UBIGINT, ?::VARCHAR, ?::UBIGINT)"
		args = append(args, string(id.Device), number(uint64(id.Epoch)), string(id.Source), number(id.Seq))
	}
	where.and("(device, epoch, source, seq) IN (VALUES "+strings.Join(rows, ", ")+")", args...)
	st, done, err := s.reading(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	found, err := s.fetch(ctx, st, "SELECT device, record FROM "+eventsTable+" WHERE "+where.String(), where.args...)
	if err != nil {
		return nil, fmt.Errorf("read %d events: %w", len(ids), err)
	}
	byID := make(map[event.ID]event.Event, len(found))
	for _, e := range found {
		byID[e.ID] = e
	}
	var events []event.Event
	for _, id := range ids {
		if e, ok := byID[id]; ok {
			events = append(events, e)
		}
	}
	return events, nil
}

// fetch runs a query for devices and records and decodes what it returns.
func (s *Store) fetch(ctx context.Context, st *state, query string, args ...any) ([]event.Event, error) {
	rows, err := st.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var events []event.Event
	for rows.Next() {
		var device string
		var record sql.RawBytes
		if err := rows.Scan(&device, &record); err != nil {
			return nil, err
		}
		e, err := s.cfg.Decode(event.DeviceID(device), record)
		if err != nil {
			return nil, fmt.Errorf("decode a stored record: %w", err)
		}
		events = append(events, *e)
	}
	return events, rows.Err()
}

// Coverage implements eventstore.Store.
func (s *Store) Coverage(ctx context.Context, organization string, device event.DeviceID) ([]eventstore.Coverage, error) {
	if err := eventstore.CheckOrganization(organization); err != nil {
		return nil, err
	}
	st, done, err := s.reading(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	type sequenceID struct {
		epoch  event.Epoch
		source event.Source
	}
	found := map[sequenceID]*eventstore.Coverage{}
	st.ledgerMu.RLock()
	for _, key := range st.ledger.devices[device] {
		q := st.ledger.sequences[key]
		if q.organization != organization {
			continue
		}
		found[sequenceID{key.epoch, key.source}] = &eventstore.Coverage{
			Epoch: key.epoch, Source: key.source, First: q.First(), Last: q.Last(), Stored: q.Stored,
			Missing: q.Missing(), Gaps: q.Gaps(eventstore.MaxGaps),
			From: time.Unix(0, q.From).UTC(), To: time.Unix(0, q.To).UTC(),
		}
	}
	st.ledgerMu.RUnlock()

	where := of(organization)
	where.and("device = ?", string(device))
	rows, err := st.db.QueryContext(ctx, "SELECT epoch, coalesce(source, ''), coalesce(place, ''), sum(lost)::UBIGINT FROM "+lossesTable+" WHERE "+where.String()+" GROUP BY ALL", where.args...)
	if err != nil {
		return nil, fmt.Errorf("read the losses of device %s: %w", device, err)
	}
	defer rows.Close()
	for rows.Next() {
		var epoch, lost uint64
		var source, place string
		if err := rows.Scan(&epoch, &source, &place, &lost); err != nil {
			return nil, fmt.Errorf("read the losses of device %s: %w", device, err)
		}
		id := sequenceID{event.Epoch(epoch), event.Source(source)}
		c := found[id]
		if c == nil { // all of it was lost
			c = &eventstore.Coverage{Epoch: id.epoch, Source: id.source}
			found[id] = c
		}
		if c.Lost == nil {
			c.Lost = map[string]uint64{}
		}
		c.Lost[place] += lost
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read the losses of device %s: %w", device, err)
	}
	list := make([]eventstore.Coverage, 0, len(found))
	for _, c := range found {
		list = append(list, *c)
	}
	slices.SortFunc(list, func(a, b eventstore.Coverage) int {
		return cmp.Or(cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Source, b.Source))
	})
	return list, nil
}

// Purge implements eventstore.Store.
func (s *Store) Purge(ctx context.Context, before time.Time) (int, error) {
	s.write.Lock()
	defer s.write.Unlock()
	st, err := s.usable(ctx)
	if err != nil {
		return 0, err
	}
	limit := eventstore.Nanos(before)
	var purged int
	if err := st.db.QueryRowContext(ctx, "SELECT count(*) FROM "+eventsTable+" WHERE received < make_timestamp_ns(?)", limit).Scan(&purged); err != nil {
		return 0, fmt.Errorf("count what is old: %w", err)
	}
	err = st.transaction(func() error {
		if err := st.writer.exec(fmt.Sprintf("DELETE FROM %s WHERE received < make_timestamp_ns(%d)", eventsTable, limit)); err != nil {
			return err
		}
		return st.writer.exec(fmt.Sprintf("DELETE FROM %s WHERE received_ns < %d", lossesTable, limit))
	})
	if err != nil {
		s.discard(st)
		return 0, fault.Wrap(fault.Unavailable, err, "purge old events")
	}
	// Sequences that are over are forgotten afterwards, never before: their
	// events could come again.
	st.ledgerMu.Lock()
	dropped := st.ledger.forget(limit)
	st.ledgerMu.Unlock()
	if dropped > 0 {
		err = st.rewrite()
	}
	if err == nil && purged > 0 {
		err = st.writer.exec("CHECKPOINT")
	}
	if err != nil {
		s.discard(st)
		return purged, fault.Wrap(fault.Unavailable, err, "purge old events")
	}
	return purged, nil
}

// load reads the ledger from the table of ranges.
func (st *state) load(ctx context.Context) error {
	rows, err := st.db.QueryContext(ctx, "SELECT organization, device, epoch, source, first_seq, last_seq, stored, from_ns, to_ns, received_ns FROM "+rangesTable+
		" ORDER BY device, epoch, source, first_seq")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var r run
		var epoch uint64
		err := rows.Scan(&r.organization, (*string)(&r.key.device), &epoch, (*string)(&r.key.source), &r.First, &r.Last, &r.stored, &r.from, &r.to, &r.received)
		if err != nil {
			return err
		}
		r.key.epoch = event.Epoch(epoch)
		st.ledger.add(r)
	}
	return rows.Err()
}

// marks returns n placeholders.
func marks(n int) string { return strings.TrimSuffix(strings.Repeat("?, ", n), ", ") }

// number makes an argument of a number, as text: database/sql refuses what
// does not fit into 63 bits.
func number(n uint64) string { return strconv.FormatUint(n, 10) }
