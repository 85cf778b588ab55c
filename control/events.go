package control

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"time"

	"komainu/control/device"
	"komainu/control/eventstore"
	"komainu/control/eventstore/duckdb"
	"komainu/control/incident"
	"komainu/control/ingest"
	"komainu/control/queue"
	"komainu/event"
	"komainu/fault"
	"komainu/finding"
	"komainu/wire"
)

// events is the way of an event through the control plane.
type events struct {
	queue *queue.Queue
	store *duckdb.Store

	retention retention
}

// retention is what deleting old events has done.
type retention struct {
	deleted atomic.Uint64 // events
	last    atomic.Int64  // Unix time of the last run that ended well
}

func openEvents(ctx context.Context, cfg Config, log *slog.Logger) (*events, error) {
	store, err := duckdb.Open(ctx, duckdb.Config{Dir: filepath.Join(cfg.State, "events"), Decode: decodeEvent, Log: log})
	if err != nil {
		return nil, err
	}
	q, err := queue.Open(ctx, queue.Config{
		Dir: filepath.Join(cfg.State, "queue"), URL: cfg.Queue.URL, Replicas: cfg.Queue.Replicas, MaxBytes: cfg.Queue.MaxBytes,
		Consumers: []string{ingest.EventsConsumer, ingest.FindingsConsumer}, Log: log,
	})
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return &events{queue: q, store: store}, nil
}

// Close closes the queue, which ends what flows, and then the store.
func (e *events) Close() error { return errors.Join(e.queue.Close(), e.store.Close()) }

// decodeEvent is the inverse of what agents put into a batch.
func decodeEvent(device event.DeviceID, record []byte) (*event.Event, error) {
	r, err := wire.DecodeRecord(device, record)
	if err != nil {
		return nil, err
	}
	if r.Event == nil {
		return nil, fault.New(fault.Invalid, "the record holds no event")
	}
	return r.Event, nil
}

// intake is the two consumers of the queue.
type intake struct{ events, findings func(context.Context) error }

func (e *events) ingest(devices *device.Registry, desk *incident.Desk, changes *hub, log *slog.Logger) intake {
	in := ingest.New(ingest.Config{
		Organization: func(_ context.Context, id event.DeviceID) (string, error) {
			organization, _, err := devices.Place(id)
			return organization, err
		},
		Append: func(ctx context.Context, list []ingest.Entry) error {
			entries := make([]eventstore.Entry, len(list))
			for i, entry := range list {
				entries[i] = eventstore.Entry(entry)
			}
			_, err := e.store.Append(ctx, entries)
			return err
		},
		Findings: func(ctx context.Context, id event.DeviceID, list []finding.Finding) error {
			organization, _, err := devices.Place(id)
			if err != nil {
				return err
			}
			_, err = desk.Take(ctx, organization, id, list)
			return err
		},
		Bury: func(ctx context.Context, m ingest.Message, reason error) error {
			return e.queue.Bury(ctx, queue.Message(m), reason)
		},
		Touched: func(ids []event.DeviceID) {
			for _, id := range ids {
				if organization, _, err := devices.Place(id); err == nil {
					changes.publish(organization, topicDevice, string(id))
				}
			}
		},
		Log: log,
	})
	consume := func(consumer string, work func(context.Context, []ingest.Message) error) func(context.Context) error {
		return func(ctx context.Context) error {
			return e.queue.Consume(ctx, consumer, func(ctx context.Context, messages []queue.Message) error {
				list := make([]ingest.Message, len(messages))
				for i, m := range messages {
					list[i] = ingest.Message(m)
				}
				return work(ctx, list)
			})
		}
	}
	return intake{events: consume(ingest.EventsConsumer, in.Events), findings: consume(ingest.FindingsConsumer, in.Findings)}
}

// How often events that are too old, or too many, are deleted. A flood fills a
// store within minutes, age does not.
const (
	retainEvery = time.Hour
	shrinkEvery = time.Minute
)

// retain deletes events that are older than an installation keeps them, and
// the oldest of those that take more room than they may.
func (e *events) retain(ctx context.Context, cfg EventConfig, log *slog.Logger) error {
	tick := time.NewTicker(shrinkEvery)
	defer tick.Stop()
	var purged time.Time
	for {
		var err error
		if time.Since(purged) >= retainEvery {
			var old int
			old, err = e.store.Purge(ctx, time.Now().AddDate(0, 0, -cfg.RetentionDays))
			e.retained(old, log, "older_than_days", cfg.RetentionDays)
			purged = time.Now()
		}
		if cfg.MaxBytes > 0 && err == nil {
			var surplus int
			surplus, err = e.store.Shrink(ctx, cfg.MaxBytes)
			e.retained(surplus, log, "to_fit_into_bytes", cfg.MaxBytes)
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			log.Warn("old events could not be deleted", "error", err)
			purged = time.Time{}
		default:
			e.retention.last.Store(time.Now().Unix())
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// retained counts what was deleted, and why.
func (e *events) retained(n int, log *slog.Logger, why string, limit any) {
	if n > 0 {
		e.retention.deleted.Add(uint64(n))
		log.Info("old events deleted", "events", n, why, limit)
	}
}
