// Package queue is the durable queue between the gateway, which acknowledges
// what agents send, and the consumers, which work on it at their own pace. It
// is NATS JetStream: a server within this process that listens nowhere, or a
// cluster elsewhere, by configuration; the code behind is the same.
//
// What Publish has accepted is on disk and stays there until every consumer
// has worked on it: no age and no limit throws it away. When the queue or the
// disk is full, Publish refuses instead, and agents keep what they have in
// their spools. DESIGN.md says why it is built this way.
package queue

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"komainu/event"
	"komainu/fault"
)

// Config says where the queue is and how much it may hold.
type Config struct {
	// Dir is where the embedded server keeps its files. Not used with URL.
	Dir string
	// URL names a NATS cluster to use in place of the embedded server.
	URL string
	// Replicas of the streams on a cluster, 1 when 0.
	Replicas int
	// Consumers names everyone that has to work on every message. A consumer
	// that an earlier run had and this one does not name is forgotten. A new
	// one starts with what is published from now on.
	Consumers []string
	// MaxBytes bounds what waits, DefaultMaxBytes when 0.
	MaxBytes int64
	// MinFree is how much of the disk under Dir stays free, DefaultMinFree
	// when 0; a negative value switches the check off.
	MinFree int64
	Log     *slog.Logger
}

// Defaults of Config, and the limit of a payload.
const (
	DefaultMaxBytes = 8 << 30
	DefaultMinFree  = 256 << 20
	MaxPayload      = 1 << 20
)

// Message is one published payload.
type Message struct {
	Device   event.DeviceID
	Batch    string // the id that the agent gave it
	Payload  []byte
	Received time.Time // when the queue got it
}

// Handler works on messages, in the order of their arrival, at least once
// each. It must not keep them. When it returns nil they are done for this
// consumer. An error of kind fault.Invalid says that messages are the cause:
// they are then tried one by one, and one that fails alone is put aside with
// the dead letters. After any other error the same messages are tried again,
// later and later.
type Handler func(ctx context.Context, messages []Message) error

// Status is the state of the queue.
type Status struct {
	Waiting  uint64 // messages that some consumer has not done
	Bytes    uint64 // what they take on disk
	MaxBytes uint64
	Dead     uint64 // dead letters that are kept
	Refused  uint64 // publishes refused since the start because of a full queue or disk
	// Consumers maps a consumer to the number of messages that wait for it.
	Consumers map[string]uint64
}

// Queue is an open queue. Its methods may be called concurrently.
type Queue struct {
	cfg   Config
	log   *slog.Logger
	lock  *os.File // held while the embedded server may run
	slots chan struct{}

	// mu guards what a restart of the embedded server replaces. It is nil
	// while there is no connection.
	mu   sync.RWMutex
	live *session

	refused atomic.Uint64
	broken  chan struct{} // a write of the embedded server failed; buffered by one
	cancel  context.CancelFunc
	mending sync.WaitGroup
	shut    func() error // close, once
}

// session is one connection and, when embedded, the server behind it.
type session struct {
	server *server.Server // nil on a cluster
	conn   *nats.Conn
	js     jetstream.JetStream
}

// inFlight bounds the publishes that wait for the disk, and so the memory
// that their payloads take.
const inFlight = 64

// Names of the two streams and the subjects below them.
const (
	eventsStream = "EVENTS"
	deadStream   = "DEAD"
	eventsPrefix = "events."
	deadPrefix   = "dead."
)

// The headers of a message.
const (
	headerBatch    = "Komainu-Batch"
	headerReason   = "Komainu-Reason"
	headerConsumer = "Komainu-Consumer"
)

// Open starts the embedded server, or connects to the cluster, and makes the
// streams and consumers what cfg says. The caller closes the queue.
func Open(ctx context.Context, cfg Config) (*Queue, error) {
	cfg.MaxBytes = cmp.Or(cfg.MaxBytes, DefaultMaxBytes)
	cfg.MinFree = cmp.Or(cfg.MinFree, DefaultMinFree)
	cfg.Replicas = cmp.Or(cfg.Replicas, 1)
	if len(cfg.Consumers) == 0 {
		// Without a consumer JetStream would throw away what is published.
		return nil, fault.New(fault.Invalid, "open queue: no consumers")
	}
	q := &Queue{
		cfg:    cfg,
		log:    cfg.Log.With("component", "queue"),
		slots:  make(chan struct{}, inFlight),
		broken: make(chan struct{}, 1),
	}
	if cfg.URL == "" {
		lock, err := claim(cfg.Dir)
		if err != nil {
			return nil, err
		}
		q.lock = lock
	}
	s, err := q.connect(ctx)
	if err != nil {
		return nil, errors.Join(err, release(q.lock))
	}
	q.live = s
	mend, cancel := context.WithCancel(context.WithoutCancel(ctx))
	q.cancel, q.shut = cancel, sync.OnceValue(q.close)
	if cfg.URL == "" {
		q.mending.Go(func() { q.mend(mend) })
	}
	return q, nil
}

// Close ends the connection and the embedded server. Publishes and consumers
// that still run fail. A second Close does nothing.
func (q *Queue) Close() error {
	return q.shut()
}

func (q *Queue) close() error {
	q.cancel()
	q.mending.Wait()
	q.swap(nil)
	return release(q.lock)
}

// session returns the live session, or a fault while there is none.
func (q *Queue) session() (*session, error) {
	q.mu.RLock()
	defer q.mu.RUnlock()
	if q.live == nil {
		return nil, fault.New(fault.Unavailable, "the queue is closed, or restarts after a failed write; try again")
	}
	return q.live, nil
}

// swap replaces the live session and ends the old one.
func (q *Queue) swap(s *session) {
	q.mu.Lock()
	old := q.live
	q.live = s
	q.mu.Unlock()
	if old != nil {
		old.close()
	}
}

// Publish puts a payload into the queue and returns nil when it is on disk.
// The same payload with the same batch id is kept once when it comes again
// within a few minutes. A full queue or disk is fault.Exhausted, a queue that
// is down fault.Unavailable; in both cases the caller tries again later.
func (q *Queue) Publish(ctx context.Context, device event.DeviceID, batch string, payload []byte) error {
	msg, err := message(eventsPrefix, device, batch, payload)
	if err != nil {
		return err
	}
	select {
	case q.slots <- struct{}{}:
		defer func() { <-q.slots }()
	case <-ctx.Done():
		return fault.Wrap(fault.Unavailable, ctx.Err(), "publish batch %s", batch)
	}
	if err := q.room(); err != nil {
		q.refused.Add(1)
		return err
	}
	return q.publish(ctx, msg)
}

// publish sends a message and waits until it is on disk.
func (q *Queue) publish(ctx context.Context, msg *nats.Msg) error {
	s, err := q.session()
	if err != nil {
		return err
	}
	_, err = s.js.PublishMsg(ctx, msg)
	api, answered := errors.AsType[*jetstream.APIError](err)
	switch {
	case err == nil:
		return nil
	case answered && (api.ErrorCode == codeStorageExceeded || strings.HasPrefix(api.Description, "maximum ")):
		q.refused.Add(1)
		return fault.New(fault.Exhausted, "the queue is full: its consumers are behind; try again later: %w", err)
	case answered && api.ErrorCode == codeStoreFailed:
		// The server takes no more writes for this stream until it is opened
		// anew, whatever the cause.
		select {
		case q.broken <- struct{}{}:
		default:
		}
		return fault.New(fault.Unavailable, "the queue cannot write and restarts; is the disk full? %w", err)
	default:
		return fault.Wrap(fault.Unavailable, err, "publish to the queue")
	}
}

// Error codes of the server that the client has no names for.
const (
	codeStorageExceeded jetstream.ErrorCode = 10047
	codeStoreFailed     jetstream.ErrorCode = 10077
)

// message makes a message. Its id for de-duplication has a hash of the payload
// in it: an agent that sends more under an id that it used before, because its
// spool has grown, must not be told that all of it is here already.
func message(prefix string, device event.DeviceID, batch string, payload []byte) (*nats.Msg, error) {
	if device == "" || strings.ContainsFunc(string(device), func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(".*>", r) }) {
		return nil, fault.New(fault.Invalid, "device id %q cannot be part of a subject", device)
	}
	if len(payload) > MaxPayload {
		return nil, fault.New(fault.Exhausted, "batch of %d bytes, the limit is %d", len(payload), MaxPayload)
	}
	sum := sha256.Sum256(payload)
	msg := nats.NewMsg(prefix + string(device))
	msg.Data = payload
	msg.Header.Set(headerBatch, batch)
	msg.Header.Set(jetstream.MsgIDHeader, fmt.Sprintf("%s/%s/%x", device, batch, sum[:12]))
	return msg, nil
}

// room refuses when the disk is nearly full. It leaves the embedded server,
// and whatever else lives on this disk, the space to work.
func (q *Queue) room() error {
	if q.cfg.URL != "" || q.cfg.MinFree < 0 {
		return nil
	}
	free, err := freeBytes(q.cfg.Dir)
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "look at the disk of the queue")
	}
	if free < uint64(q.cfg.MinFree) {
		return fault.New(fault.Exhausted, "the disk under %s is nearly full: %d MiB are free, %d MiB are kept free; make room", q.cfg.Dir, free>>20, q.cfg.MinFree>>20)
	}
	return nil
}

// Status returns the state of the queue.
func (q *Queue) Status(ctx context.Context) (Status, error) {
	st := Status{MaxBytes: uint64(q.cfg.MaxBytes), Refused: q.refused.Load(), Consumers: map[string]uint64{}}
	s, err := q.session()
	if err != nil {
		return st, err
	}
	for _, name := range []string{eventsStream, deadStream} {
		stream, err := s.js.Stream(ctx, name)
		if err != nil {
			return st, fault.Wrap(fault.Unavailable, err, "ask for the state of stream %s", name)
		}
		state := stream.CachedInfo().State
		if name == deadStream {
			st.Dead = state.Msgs
			continue
		}
		st.Waiting, st.Bytes = state.Msgs, state.Bytes
		for _, consumer := range q.cfg.Consumers {
			c, err := stream.Consumer(ctx, consumer)
			if err != nil {
				return st, fault.Wrap(fault.Unavailable, err, "ask for the state of consumer %s", consumer)
			}
			info := c.CachedInfo()
			st.Consumers[consumer] = info.NumPending + uint64(info.NumAckPending)
		}
	}
	return st, nil
}
