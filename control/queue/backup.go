package queue

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"komainu/fault"
)

// headerReceived is when the queue got a message for the first time, of one
// that a backup has brought back.
const headerReceived = "Komainu-Received"

// maxSaved bounds one message in a dump: payload as base64, and headers.
const maxSaved = 2 * MaxPayload

// saved is a message in a dump.
type saved struct {
	Subject  string      `json:"subject"`
	Header   nats.Header `json:"header"`
	Payload  []byte      `json:"payload"`
	Received time.Time   `json:"received"`
}

// Dump writes every message that is here when it is called and that some
// consumer has not done, and the dead letters. Publishing and consuming go on;
// a message that is done meanwhile may be in the dump or not, so whatever the
// consumers write to has to be saved after the dump, not before.
func (q *Queue) Dump(ctx context.Context, w io.Writer) (messages int64, err error) {
	out := bufio.NewWriterSize(w, 1<<20)
	for _, name := range []string{eventsStream, deadStream} {
		n, err := q.dump(ctx, name, out)
		messages += n
		if err != nil {
			return messages, fmt.Errorf("save stream %s: %w", name, err)
		}
	}
	return messages, out.Flush()
}

func (q *Queue) dump(ctx context.Context, name string, out io.Writer) (messages int64, err error) {
	s, err := q.session()
	if err != nil {
		return 0, err
	}
	stream, err := s.js.Stream(ctx, name)
	if err != nil {
		return 0, fault.Wrap(fault.Unavailable, err, "ask for the stream")
	}
	state := stream.CachedInfo().State
	for next := max(state.FirstSeq, 1); next <= state.LastSeq; messages++ {
		m, err := stream.GetMsg(ctx, next, jetstream.WithGetMsgSubject(">"))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			break
		}
		if err != nil {
			return messages, fault.Wrap(fault.Unavailable, err, "read message %d", next)
		}
		if m.Sequence > state.LastSeq {
			break
		}
		next = m.Sequence + 1
		received := m.Time.UTC()
		if t, err := time.Parse(time.RFC3339Nano, m.Header.Get(headerReceived)); err == nil {
			received = t // it has come out of a backup before
		}
		text, err := json.Marshal(saved{m.Subject, m.Header, m.Data, received})
		if err != nil {
			return messages, err
		}
		if _, err := out.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(text))), text...)); err != nil {
			return messages, err
		}
	}
	return messages, nil
}

// Load publishes what Dump has written. Consumers get it like anything else.
func (q *Queue) Load(ctx context.Context, r io.Reader) (messages int64, err error) {
	in := bufio.NewReaderSize(r, 1<<20)
	for {
		var size uint32
		switch err := binary.Read(in, binary.BigEndian, &size); {
		case err == io.EOF:
			return messages, nil
		case err != nil:
			return messages, fmt.Errorf("read a saved message: %w", err)
		case size > maxSaved:
			return messages, fault.New(fault.Invalid, "a saved message of %d bytes, the limit is %d", size, maxSaved)
		}
		text := make([]byte, size)
		if _, err := io.ReadFull(in, text); err != nil {
			return messages, fmt.Errorf("read a saved message: %w", err)
		}
		var m saved
		if err := json.Unmarshal(text, &m); err != nil {
			return messages, fault.New(fault.Invalid, "a saved message: %w", err)
		}
		if !strings.HasPrefix(m.Subject, eventsPrefix) && !strings.HasPrefix(m.Subject, deadPrefix) {
			return messages, fault.New(fault.Invalid, "a saved message belongs to %q, which is nothing of the queue", m.Subject)
		}
		msg := nats.NewMsg(m.Subject)
		msg.Data = m.Payload
		maps.Copy(msg.Header, m.Header)
		msg.Header.Set(headerReceived, m.Received.Format(time.RFC3339Nano))
		if err := q.publish(ctx, msg); err != nil {
			return messages, err
		}
		messages++
	}
}
