package duckdb

import (
	sqldriver "database/sql/driver"
	"strings"
	"time"

	"komainu/control/eventstore"
)

// EventsTable is the statement that makes the events table.
func EventsTable() string {
	_, rest, _ := strings.Cut(schema(), "CREATE TABLE "+eventsTable)
	statement, _, _ := strings.Cut(rest, ";\n")
	return "CREATE TABLE " + eventsTable + statement
}

// Values returns the columns of an entry as a driver takes them.
func Values(e *eventstore.Entry) []sqldriver.Value {
	p := prepared{entry: e, row: eventstore.RowOf(e.Event), nanos: eventstore.Nanos(e.Event.Time), received: eventstore.Nanos(e.Received)}
	values := make([]sqldriver.Value, len(columns))
	for i, c := range columns {
		switch {
		case c.blob != nil:
			values[i] = c.blob(&p)
		case c.text != nil:
			if s := c.text(&p); s != "" {
				values[i] = s
			}
		case c.kind == kindTime:
			values[i] = time.Unix(0, int64(c.num(&p)))
		default:
			if n := c.num(&p); n != 0 || c.always {
				values[i] = n
			}
		}
	}
	return values
}

// MergeOften makes stores that are opened from now on merge their log at
// nearly every Append.
func MergeOften() { walSize = "64KB" }
