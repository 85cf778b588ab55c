package eventstoretest

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"komainu/control/eventstore"
	"komainu/event"
)

// model is a store that looks at everything every time.
type model struct {
	stored map[event.ID]eventstore.Entry
	known  map[event.ID]eventstore.Entry // also what was purged, while its epoch is remembered
	losses []eventstore.Entry
}

func newModel() *model {
	return &model{stored: map[event.ID]eventstore.Entry{}, known: map[event.ID]eventstore.Entry{}}
}

func (m *model) append(entries []eventstore.Entry) (done eventstore.Appended) {
	for _, e := range entries {
		if _, ok := m.known[e.Event.ID]; ok {
			done.Duplicates++
			continue
		}
		done.Stored++
		m.known[e.Event.ID], m.stored[e.Event.ID] = e, e
		if e.Event.Action == event.EventsLost && e.Event.Loss != nil {
			m.losses = append(m.losses, e)
		}
	}
	return done
}

func (m *model) timeline(q eventstore.Query) (events []event.Event) {
	for id, e := range m.stored {
		at := e.Event.Time
		if e.Organization != q.Organization || id.Device != q.Device ||
			!q.From.IsZero() && at.Before(q.From) || !q.To.IsZero() && !at.Before(q.To) ||
			len(q.Actions) > 0 && !slices.Contains(q.Actions, e.Event.Action) {
			continue
		}
		row := eventstore.RowOf(e.Event)
		if q.Text != "" && !slices.ContainsFunc(row.Texts(), func(s string) bool {
			return strings.Contains(strings.ToLower(s), strings.ToLower(q.Text))
		}) {
			continue
		}
		events = append(events, *e.Event)
	}
	slices.SortFunc(events, func(a, b event.Event) int {
		return eventstore.PositionOf(&b).Compare(eventstore.PositionOf(&a))
	})
	return events
}

func (m *model) coverage(organization string, device event.DeviceID) (list []eventstore.Coverage) {
	type key struct {
		epoch  event.Epoch
		source event.Source
	}
	numbers := map[key][]eventstore.Entry{}
	lost := map[key]map[string]uint64{}
	for id, e := range m.known {
		if e.Organization == organization && id.Device == device {
			k := key{id.Epoch, id.Source}
			numbers[k] = append(numbers[k], e)
		}
	}
	for _, e := range m.losses {
		if e.Organization != organization || e.Event.ID.Device != device {
			continue
		}
		k := key{e.Event.ID.Epoch, e.Event.Loss.Source}
		if lost[k] == nil {
			lost[k] = map[string]uint64{}
		}
		lost[k][e.Event.Loss.Where] += e.Event.Loss.Count
	}
	keys := maps.Clone(lost)
	for k := range numbers {
		keys[k] = nil
	}
	for k := range keys {
		c := eventstore.Coverage{Epoch: k.epoch, Source: k.source, Lost: lost[k], Stored: uint64(len(numbers[k]))}
		entries := numbers[k]
		slices.SortFunc(entries, func(a, b eventstore.Entry) int { return cmp.Compare(a.Event.ID.Seq, b.Event.ID.Seq) })
		for i, e := range entries {
			seq, at := e.Event.ID.Seq, e.Event.Time
			if i == 0 {
				c.First, c.From, c.To = seq, at, at
			}
			if seq > c.Last+1 {
				c.Gaps = append(c.Gaps, eventstore.Range{First: c.Last + 1, Last: seq - 1})
				c.Missing += seq - c.Last - 1
			}
			c.Last = seq
			if at.Before(c.From) {
				c.From = at
			}
			if at.After(c.To) {
				c.To = at
			}
		}
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b eventstore.Coverage) int {
		return cmp.Or(cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Source, b.Source))
	})
	return list
}

func (m *model) purge(before time.Time) (n int) {
	type run struct {
		device event.DeviceID
		epoch  event.Epoch
	}
	last := map[run]time.Time{}
	for id, e := range m.known {
		if k := (run{id.Device, id.Epoch}); e.Received.After(last[k]) {
			last[k] = e.Received
		}
	}
	maps.DeleteFunc(m.known, func(id event.ID, _ eventstore.Entry) bool { return last[run{id.Device, id.Epoch}].Before(before) })
	maps.DeleteFunc(m.stored, func(_ event.ID, e eventstore.Entry) bool {
		old := e.Received.Before(before)
		if old {
			n++
		}
		return old
	})
	m.losses = slices.DeleteFunc(m.losses, func(e eventstore.Entry) bool { return e.Received.Before(before) })
	return n
}

var actions = []event.Action{event.ProcessCreated, event.FileCreated, event.LogonFailed, event.EventsLost}

// drawEntry makes an entry of a small world, so that much of it collides.
func drawEntry(t *rapid.T) eventstore.Entry {
	device := rapid.SampledFrom([]string{"d1", "d2"}).Draw(t, "device")
	action := rapid.SampledFrom(actions).Draw(t, "action")
	e := created(device, event.Epoch(rapid.Uint64Range(1, 2).Draw(t, "epoch")), rapid.Uint64Range(1, 30).Draw(t, "seq"))
	e.ID.Source, e.Action = action.Source(), action
	// What an event says depends on its identity alone, as with real ones.
	e.Time = day.Add(time.Duration(e.ID.Seq*7919%11) * time.Microsecond)
	e.Process.Name = []string{"Bash", "sshd", "Ärger"}[e.ID.Seq%3]
	if action == event.EventsLost {
		e.Loss = &event.Loss{Where: "kernel_ring", Source: event.FromFile, Count: e.ID.Seq}
	}
	organization := map[string]string{"d1": "one", "d2": "two"}[device]
	return Entry(organization, e, day.Add(time.Duration(rapid.IntRange(0, 5).Draw(t, "received"))*time.Hour))
}

func drawQuery(t *rapid.T) eventstore.Query {
	q := eventstore.Query{
		Organization: rapid.SampledFrom([]string{"one", "two"}).Draw(t, "organization"),
		Device:       event.DeviceID(rapid.SampledFrom([]string{"d1", "d2"}).Draw(t, "device")),
		Limit:        rapid.IntRange(1, 9).Draw(t, "limit"),
		Text:         rapid.SampledFrom([]string{"", "", "bash", "SSH", "Number=1", "är"}).Draw(t, "text"),
	}
	if rapid.Bool().Draw(t, "from?") {
		q.From = day.Add(time.Duration(rapid.IntRange(0, 10).Draw(t, "from")) * time.Microsecond)
	}
	if rapid.Bool().Draw(t, "to?") {
		q.To = day.Add(time.Duration(rapid.IntRange(0, 11).Draw(t, "to")) * time.Microsecond)
	}
	if rapid.Bool().Draw(t, "actions?") {
		q.Actions = rapid.SliceOfNDistinct(rapid.SampledFrom(actions), 1, 2, rapid.ID).Draw(t, "actions")
	}
	return q
}

// testModel does the same to the engine and to the model: appends with
// duplicates, overlap and reordering, queries, purges and restarts.
func testModel(t *testing.T, open Open) {
	rapid.Check(t, func(rt *rapid.T) {
		dir := t.TempDir()
		s, m := open(t, dir, Decode), newModel()
		defer func() { s.Close() }()
		rt.Repeat(map[string]func(*rapid.T){
			"append": func(rt *rapid.T) {
				entries := rapid.SliceOfN(rapid.Custom(drawEntry), 1, 12).Draw(rt, "entries")
				got, err := s.Append(t.Context(), entries)
				if want := m.append(entries); err != nil || got != want {
					rt.Fatalf("append: %+v, %v, want %+v", got, err, want)
				}
			},
			"timeline": func(rt *rapid.T) {
				q := drawQuery(rt)
				if diff := gocmp.Diff(m.timeline(q), timeline(t, s, q), Equal); diff != "" {
					rt.Fatalf("timeline %+v (-want +got):\n%s", q, diff)
				}
			},
			"coverage": func(rt *rapid.T) {
				q := drawQuery(rt)
				got, err := s.Coverage(t.Context(), q.Organization, q.Device)
				if err != nil {
					rt.Fatal(err)
				}
				want := m.coverage(q.Organization, q.Device)
				for i := range got { // times of a sequence that has only losses do not count
					if got[i].Stored == 0 {
						got[i].From, got[i].To = time.Time{}, time.Time{}
					}
				}
				if len(got) == 0 && len(want) == 0 {
					return
				}
				if diff := gocmp.Diff(want, got); diff != "" {
					rt.Fatalf("coverage of %s (-want +got):\n%s", q.Device, diff)
				}
			},
			"purge": func(rt *rapid.T) {
				if rapid.IntRange(0, 3).Draw(rt, "rarely") != 0 {
					rt.Skip()
				}
				before := day.Add(time.Duration(rapid.IntRange(0, 6).Draw(rt, "before")) * time.Hour)
				got, err := s.Purge(t.Context(), before)
				if want := m.purge(before); err != nil || got != want {
					rt.Fatalf("purge: %d, %v, want %d", got, err, want)
				}
			},
			"restart": func(rt *rapid.T) {
				if err := s.Close(); err != nil {
					rt.Fatal(err)
				}
				s = open(t, dir, Decode)
			},
		})
	})
}
