package ingest_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"komainu/control/eventstore"
	"komainu/control/eventstore/duckdb"
	"komainu/control/ingest"
	"komainu/control/queue"
	"komainu/event"
	"komainu/finding"
	"komainu/wire"
)

// line is queue, ingest and store joined as the control plane joins them.
type line struct {
	queue *queue.Queue
	store eventstore.Store

	hold  chan struct{} // Append waits for it
	mu    sync.Mutex
	found map[finding.ID]time.Time
}

func joined(t *testing.T, hold chan struct{}) *line {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	l := &line{hold: hold, found: map[finding.ID]time.Time{}}
	q, err := queue.Open(t.Context(), queue.Config{
		Dir: t.TempDir(), Consumers: []string{ingest.EventsConsumer, ingest.FindingsConsumer}, MinFree: -1, Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	s, err := duckdb.Open(t.Context(), duckdb.Config{
		Dir: t.TempDir(), Threads: 1, MinFree: -1, Log: log,
		Decode: func(device event.DeviceID, record []byte) (*event.Event, error) {
			r, err := wire.DecodeRecord(device, record)
			return r.Event, err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	l.queue, l.store = q, s
	in := ingest.New(ingest.Config{
		Organization: func(context.Context, event.DeviceID) (string, error) { return "org", nil },
		Append: func(ctx context.Context, entries []ingest.Entry) error {
			select {
			case <-l.hold:
			case <-ctx.Done():
				return ctx.Err()
			}
			stored := make([]eventstore.Entry, len(entries))
			for i, e := range entries {
				stored[i] = eventstore.Entry(e)
			}
			_, err := s.Append(ctx, stored)
			return err
		},
		Findings: func(_ context.Context, _ event.DeviceID, found []finding.Finding) error {
			l.mu.Lock()
			defer l.mu.Unlock()
			for _, f := range found {
				l.found[f.ID] = time.Now()
			}
			return nil
		},
		Bury: func(ctx context.Context, m ingest.Message, reason error) error {
			return q.Bury(ctx, queue.Message(m), reason)
		},
		Log: log,
	})
	handler := func(handle func(context.Context, []ingest.Message) error) queue.Handler {
		return func(ctx context.Context, messages []queue.Message) error {
			batch := make([]ingest.Message, len(messages))
			for i, m := range messages {
				batch[i] = ingest.Message(m)
			}
			return handle(ctx, batch)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = q.Consume(ctx, ingest.EventsConsumer, handler(in.Events)) })
	wg.Go(func() { _ = q.Consume(ctx, ingest.FindingsConsumer, handler(in.Findings)) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		if err := q.Close(); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func (l *line) publish(t *testing.T, n uint64, records ...[]byte) {
	t.Helper()
	payload, err := wire.Encode(&wire.Batch{Epoch: 3, ID: n, Records: records})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.queue.Publish(t.Context(), "d", fmt.Sprintf("3/%d", n), payload); err != nil {
		t.Fatal(err)
	}
}

func (l *line) has(id finding.ID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.found[id].IsZero()
}

func (l *line) stored(t *testing.T) uint64 {
	t.Helper()
	cover, err := l.store.Coverage(t.Context(), "org", "d")
	if err != nil {
		t.Fatal(err)
	}
	if len(cover) == 0 {
		return 0
	}
	return cover[0].Stored
}

func within(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(limit)
	for tick := time.Tick(2 * time.Millisecond); !ok(); {
		select {
		case <-deadline:
			t.Fatalf("not within %v: %s", limit, what)
		case <-tick:
		}
	}
}

// TestASlowStoreDoesNotDelayAnAlert holds the store up and sends findings.
func TestASlowStoreDoesNotDelayAnAlert(t *testing.T) {
	hold := make(chan struct{})
	l := joined(t, hold)
	for n := range uint64(5) {
		id := finding.ID(fmt.Sprint("f", n))
		l.publish(t, n+1, eventRecord(t, n+1), findingRecord(t, id))
		within(t, time.Second, "the finding arrives while the store stands still", func() bool { return l.has(id) })
	}
	if n := l.stored(t); n != 0 {
		t.Fatalf("%d events are stored, the store was held", n)
	}
	close(hold)
	within(t, 30*time.Second, "the events are stored", func() bool { return l.stored(t) == 5 })
}

// TestWhatAnAgentSendsAgainIsStoredOnce sends overlapping batches, as an agent
// does that lost its connection before the acknowledgement.
func TestWhatAnAgentSendsAgainIsStoredOnce(t *testing.T) {
	hold := make(chan struct{})
	close(hold)
	l := joined(t, hold)
	for n := range uint64(20) {
		var records [][]byte
		for seq := n*3 + 1; seq <= n*3+6; seq++ { // the second half comes again in the next one
			records = append(records, eventRecord(t, seq))
		}
		l.publish(t, n+1, records...)
		l.publish(t, n+1, records...)
	}
	l.publish(t, 1000, findingRecord(t, "end"))
	within(t, 30*time.Second, "everything is stored", func() bool { return l.stored(t) == 63 && l.has("end") })
	page, err := l.store.Timeline(t.Context(), eventstore.Query{Organization: "org", Device: "d", Limit: 100})
	if err != nil || len(page.Events) != 63 {
		t.Errorf("the timeline has %d events, %v", len(page.Events), err)
	}
	st, err := l.queue.Status(t.Context())
	if err != nil || st.Dead != 0 {
		t.Errorf("status %+v, %v", st, err)
	}
}
