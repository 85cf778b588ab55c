package queue

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"komainu/event"
	"komainu/fault"
)

const (
	maxBatch = 64               // messages that a handler gets at once
	pullWait = 10 * time.Second // of one request for messages
	minPause = 50 * time.Millisecond
	maxPause = 10 * time.Second
)

// Consume hands messages to handle until ctx ends; it then returns nil. One
// call per consumer runs at a time.
func (q *Queue) Consume(ctx context.Context, consumer string, handle Handler) error {
	if !slices.Contains(q.cfg.Consumers, consumer) {
		return fault.New(fault.Invalid, "consumer %q is not one that the queue was opened with", consumer)
	}
	for wait := minPause; ctx.Err() == nil; wait = min(2*wait, maxPause) {
		worked, err := q.consume(ctx, consumer, handle)
		if worked {
			wait = minPause
		}
		if ctx.Err() == nil && err != nil {
			q.log.Warn("consuming is interrupted", "consumer", consumer, "error", err, "retry_in", wait)
			pause(ctx, wait)
		}
	}
	return nil
}

// consume works on one session until it fails, and reports whether any
// message came.
func (q *Queue) consume(ctx context.Context, consumer string, handle Handler) (worked bool, err error) {
	s, err := q.session()
	if err != nil {
		return false, err
	}
	pull, err := s.js.Consumer(ctx, eventsStream, consumer)
	if err != nil {
		return false, fmt.Errorf("open consumer: %w", err)
	}
	for {
		msgs, err := fetch(ctx, pull)
		if err != nil || ctx.Err() != nil {
			return worked, err
		}
		if len(msgs) == 0 {
			continue
		}
		worked = true
		d := delivery{q: q, consumer: consumer, handle: handle, msgs: msgs}
		d.run(ctx)
	}
}

// fetch returns what is there, or waits for the first message.
func fetch(ctx context.Context, pull jetstream.Consumer) ([]jetstream.Msg, error) {
	batch, err := pull.FetchNoWait(maxBatch)
	if err != nil {
		return nil, fmt.Errorf("fetch: %w", err)
	}
	msgs, err := collect(ctx, batch)
	if err != nil || len(msgs) > 0 {
		return msgs, err
	}
	if batch, err = pull.Fetch(1, jetstream.FetchMaxWait(pullWait)); err != nil {
		return nil, fmt.Errorf("fetch: %w", err)
	}
	return collect(ctx, batch)
}

func collect(ctx context.Context, batch jetstream.MessageBatch) (msgs []jetstream.Msg, err error) {
	for {
		select {
		case <-ctx.Done():
			return msgs, nil
		case msg, ok := <-batch.Messages():
			if ok {
				msgs = append(msgs, msg)
				continue
			}
			if err := batch.Error(); err != nil && len(msgs) == 0 && !errors.Is(err, nats.ErrTimeout) {
				return nil, fmt.Errorf("fetch: %w", err)
			}
			return msgs, nil
		}
	}
}

// delivery is a batch of messages on its way through a handler.
type delivery struct {
	q        *Queue
	consumer string
	handle   Handler
	msgs     []jetstream.Msg
}

// run works on the messages until each is done, or ctx ends. Meanwhile it
// tells the server that they are being worked on.
func (d *delivery) run(ctx context.Context) {
	alive, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for tick := time.Tick(ackWait / 3); ; {
			select {
			case <-alive.Done():
				return
			case <-tick:
				for _, m := range d.msgs {
					_ = m.InProgress() // done already, or the session is gone
				}
			}
		}
	}()
	d.attempt(ctx, d.msgs)
	stop()
	<-done
}

// attempt gives messages to the handler until it takes them. Handling is tried
// again here and not by the server, so that the order stays.
func (d *delivery) attempt(ctx context.Context, msgs []jetstream.Msg) {
	batch := make([]Message, len(msgs))
	for i, m := range msgs {
		batch[i] = toMessage(m)
	}
	for wait := minPause; ; wait = min(2*wait, maxPause) {
		err := d.guarded(ctx, batch)
		switch {
		case err == nil:
			for _, m := range msgs {
				_ = m.Ack() // if that is lost, the message comes again
			}
			return
		case ctx.Err() != nil:
			for _, m := range msgs {
				_ = m.Nak() // soon again for whoever comes next
			}
			return
		case fault.Is(err, fault.Invalid) && len(msgs) > 1:
			for _, m := range msgs {
				d.attempt(ctx, []jetstream.Msg{m})
			}
			return
		case fault.Is(err, fault.Invalid):
			if err = d.q.bury(ctx, d.consumer, batch[0], err); err == nil {
				_ = msgs[0].Ack()
				return
			}
		}
		d.q.log.Warn("messages are tried again", "consumer", d.consumer, "messages", len(msgs), "error", err, "retry_in", wait)
		pause(ctx, wait)
	}
}

// guarded calls the handler. A panic counts as an error that the messages
// cause, so that one message cannot stop all others for ever.
func (d *delivery) guarded(ctx context.Context, batch []Message) (err error) {
	defer func() {
		if v := recover(); v != nil {
			d.q.log.Error("a consumer panicked", "consumer", d.consumer, "panic", v, "stack", string(debug.Stack()))
			err = fault.New(fault.Invalid, "panic: %v", v)
		}
	}()
	return d.handle(ctx, batch)
}

// Bury puts a message with the dead letters, for a handler that can use a part
// of it. The same message is kept once.
func (q *Queue) Bury(ctx context.Context, m Message, reason error) error {
	return q.bury(ctx, "", m, reason)
}

func (q *Queue) bury(ctx context.Context, consumer string, m Message, reason error) error {
	msg, err := message(deadPrefix, m.Device, m.Batch, m.Payload)
	if err != nil {
		return err
	}
	msg.Header.Set(headerReason, strings.ToValidUTF8(strings.Join(strings.Fields(reason.Error()), " "), "?"))
	msg.Header.Set(headerConsumer, consumer)
	q.log.Error("a message is put aside as a dead letter", "consumer", consumer, "device", m.Device, "batch", m.Batch, "bytes", len(m.Payload), "reason", reason)
	return q.publish(ctx, msg)
}

func toMessage(m jetstream.Msg) Message {
	out := Message{
		Device:  event.DeviceID(strings.TrimPrefix(m.Subject(), eventsPrefix)),
		Batch:   m.Headers().Get(headerBatch),
		Payload: m.Data(),
	}
	if meta, err := m.Metadata(); err == nil { // it has some unless the server is broken
		out.Received = meta.Timestamp.UTC()
	}
	if text := m.Headers().Get(headerReceived); text != "" {
		if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
			out.Received = t
		}
	}
	return out
}

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
