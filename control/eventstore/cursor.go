package eventstore

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"komainu/event"
	"komainu/fault"
)

// Nanos is the time as a store orders by it: Unix nanoseconds, with what no
// 64-bit count can hold moved to the nearest that it can. The smallest number
// is left to engines that give it a meaning of their own.
func Nanos(t time.Time) int64 {
	switch s := t.Unix(); {
	case s >= math.MaxInt64/1_000_000_000:
		return math.MaxInt64 / 1_000_000_000 * 1_000_000_000
	case s <= math.MinInt64/1_000_000_000:
		return math.MinInt64 / 1_000_000_000 * 1_000_000_000
	default:
		return t.UnixNano()
	}
}

// Position is the place of an event in the timeline of its device: by time,
// then by identity, so that the order is total and never changes.
type Position struct {
	Nanos  int64
	Epoch  event.Epoch
	Source event.Source
	Seq    uint64
}

// PositionOf returns the place of an event.
func PositionOf(e *event.Event) Position {
	return Position{Nanos: Nanos(e.Time), Epoch: e.ID.Epoch, Source: e.ID.Source, Seq: e.ID.Seq}
}

// Compare orders positions, oldest first.
func (p Position) Compare(o Position) int {
	return cmp.Or(
		cmp.Compare(p.Nanos, o.Nanos),
		cmp.Compare(p.Epoch, o.Epoch),
		cmp.Compare(p.Source, o.Source),
		cmp.Compare(p.Seq, o.Seq),
	)
}

// String is the cursor that continues after the position.
func (p Position) String() string {
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%d/%d/%s/%d", p.Nanos, p.Epoch, p.Source, p.Seq))
}

// ParsePosition is the inverse of Position.String.
func ParsePosition(cursor string) (Position, error) {
	refuse := func(err error) (Position, error) {
		return Position{}, fault.New(fault.Invalid, "cursor %.64q is not one of a timeline; use the value of next from the previous page: %w", cursor, err)
	}
	text, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil {
		return refuse(err)
	}
	parts := strings.Split(string(text), "/")
	if len(parts) != 4 {
		return refuse(fmt.Errorf("%d parts, want 4", len(parts)))
	}
	var p Position
	if p.Nanos, err = strconv.ParseInt(parts[0], 10, 64); err != nil {
		return refuse(err)
	}
	epoch, err := strconv.ParseUint(parts[1], 10, 64)
	if err != nil {
		return refuse(err)
	}
	p.Epoch, p.Source = event.Epoch(epoch), event.Source(parts[2])
	if p.Seq, err = strconv.ParseUint(parts[3], 10, 64); err != nil {
		return refuse(err)
	}
	return p, nil
}

// PageOf makes a page of what an engine found: up to one event more than the
// limit, in the direction of the query.
func PageOf(q Query, events []event.Event) Page {
	more := len(events) > q.Limit
	page := Page{Events: events[:min(len(events), q.Limit)]}
	if q.Newer {
		slices.Reverse(page.Events)
		// What the cursor stands on is older than all of them.
		more = q.Cursor != "" || len(page.Events) > 0
	}
	if len(page.Events) == 0 {
		if q.Newer {
			page.Newer = q.Cursor
		}
		return page
	}
	page.Newer = PositionOf(&page.Events[0]).String()
	if more {
		page.Next = PositionOf(&page.Events[len(page.Events)-1]).String()
	}
	return page
}
