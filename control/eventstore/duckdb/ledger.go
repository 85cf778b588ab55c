package duckdb

import (
	"cmp"
	"slices"

	"komainu/control/eventstore"
	"komainu/event"
)

// sequenceKey names what de-duplication is kept for.
type sequenceKey struct {
	device event.DeviceID
	epoch  event.Epoch
	source event.Source
}

// sequence is what is known of one.
type sequence struct {
	eventstore.Sequence
	organization string
}

// ledger is the memory of what has come. On disk it is the table of ranges,
// one row for each run of numbers that one Append added, so that writing it
// costs nothing beside the events; compaction replaces those rows by few.
type ledger struct {
	sequences map[sequenceKey]*sequence
	devices   map[event.DeviceID][]sequenceKey
	rows      int // in the table
}

func newLedger() *ledger {
	return &ledger{sequences: map[sequenceKey]*sequence{}, devices: map[event.DeviceID][]sequenceKey{}}
}

// run is a row of the table of ranges.
type run struct {
	organization string
	key          sequenceKey
	eventstore.Range
	stored             uint64
	from, to, received int64
}

// add notes a run that is in the table.
func (l *ledger) add(r run) {
	s := l.sequences[r.key]
	if s == nil {
		s = &sequence{organization: r.organization}
		l.sequences[r.key] = s
		l.devices[r.key.device] = append(l.devices[r.key.device], r.key)
	}
	s.Add(r.Range, r.stored)
	s.Saw(r.from, r.to, r.received)
	l.rows++
}

// live is how many rows the table would have without history.
func (l *ledger) live() (n int) {
	for _, s := range l.sequences {
		n += len(s.Ranges())
	}
	return n
}

// compacted returns the rows that say what the table says, in order.
func (l *ledger) compacted() []run {
	runs := make([]run, 0, len(l.sequences))
	for key, s := range l.sequences {
		ranges := s.Ranges()
		held := uint64(0) // by the ranges after the first
		for _, r := range ranges[1:] {
			held += r.Last - r.First + 1
		}
		for i, r := range ranges {
			stored := r.Last - r.First + 1
			if i == 0 {
				stored = s.Stored - held
			}
			runs = append(runs, run{s.organization, key, r, stored, s.From, s.To, s.Received})
		}
	}
	slices.SortFunc(runs, func(a, b run) int {
		return cmp.Or(
			cmp.Compare(a.key.device, b.key.device),
			cmp.Compare(a.key.epoch, b.key.epoch),
			cmp.Compare(a.key.source, b.key.source),
			cmp.Compare(a.First, b.First),
		)
	})
	return runs
}

// forget drops what is known of agents' runs that sent nothing since before.
// A sequence that is merely quiet stays: its numbers go on.
func (l *ledger) forget(before int64) (dropped int) {
	for device, keys := range l.devices {
		last := map[event.Epoch]int64{} // arrivals are after 1970
		for _, key := range keys {
			last[key.epoch] = max(last[key.epoch], l.sequences[key].Received)
		}
		keys = slices.DeleteFunc(keys, func(key sequenceKey) bool {
			if last[key.epoch] >= before {
				return false
			}
			delete(l.sequences, key)
			dropped++
			return true
		})
		l.devices[device] = keys
		if len(keys) == 0 {
			delete(l.devices, device)
		}
	}
	return dropped
}

// sift returns the entries that are new, as the runs that they add, without
// changing the ledger.
func (l *ledger) sift(entries []eventstore.Entry) (fresh []*eventstore.Entry, runs []run) {
	groups := map[sequenceKey][]*eventstore.Entry{}
	var order []sequenceKey // of arrival, so that rows lie as they came
	for i := range entries {
		e := &entries[i]
		key := sequenceKey{e.Event.ID.Device, e.Event.ID.Epoch, e.Event.ID.Source}
		if s := l.sequences[key]; s != nil && s.Has(e.Event.ID.Seq) {
			continue
		}
		if groups[key] == nil {
			order = append(order, key)
		}
		groups[key] = append(groups[key], e)
	}
	for _, key := range order {
		group := groups[key]
		byNumber := func(a, b *eventstore.Entry) int { return cmp.Compare(a.Event.ID.Seq, b.Event.ID.Seq) }
		if !slices.IsSortedFunc(group, byNumber) {
			slices.SortStableFunc(group, byNumber)
		}
		group = slices.CompactFunc(group, func(a, b *eventstore.Entry) bool { return a.Event.ID.Seq == b.Event.ID.Seq })
		fresh = append(fresh, group...)
		runs = appendRuns(runs, key, group)
	}
	return fresh, runs
}

// appendRuns adds the runs of numbers in a sorted group without duplicates.
func appendRuns(runs []run, key sequenceKey, group []*eventstore.Entry) []run {
	for i, e := range group {
		n, at, received := e.Event.ID.Seq, eventstore.Nanos(e.Event.Time), eventstore.Nanos(e.Received)
		if i > 0 && group[i-1].Event.ID.Seq == n-1 {
			r := &runs[len(runs)-1]
			r.Last, r.stored = n, r.stored+1
			r.from, r.to, r.received = min(r.from, at), max(r.to, at), max(r.received, received)
			continue
		}
		runs = append(runs, run{e.Organization, key, eventstore.Range{First: n, Last: n}, 1, at, at, received})
	}
	return runs
}
