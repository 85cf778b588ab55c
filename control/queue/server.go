package queue

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"komainu/fault"
	"komainu/internal/atomicfile"
)

// format numbers the layout of Config.Dir: which streams there are and what
// their messages look like.
const format = 1

// Limits of the dead letters.
const (
	deadMaxBytes = 256 << 20
	deadMaxAge   = 30 * 24 * time.Hour
)

// ackWait is after what time a message that nobody has acknowledged or worked
// on is delivered again: soon after a restart that followed a crash.
const ackWait = 5 * time.Second

// dedupeWindow is how long the server knows the id of a message. It covers an
// agent that reconnects and sends again; the event store covers the rest.
const dedupeWindow = 5 * time.Minute

// claim makes the folder, keeps other processes away from it, and refuses one
// that a newer version has written.
func claim(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of the queue: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock of the queue: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		err = fault.New(fault.Conflict, "the queue in %s is in use by another process: %w", dir, err)
		return nil, errors.Join(err, lock.Close())
	}
	if err := checkFormat(dir); err != nil {
		return nil, errors.Join(err, release(lock))
	}
	return lock, nil
}

// release gives the folder back; a lock of nil is none.
func release(lock *os.File) error {
	if lock == nil {
		return nil
	}
	return lock.Close()
}

func checkFormat(dir string) error {
	name := filepath.Join(dir, "format")
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return atomicfile.Write(name, fmt.Appendf(nil, "%d\n", format), 0o600)
	}
	if err != nil {
		return fmt.Errorf("read the format of the queue: %w", err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return fault.New(fault.Invalid, "%s does not hold the number of a format: %w", name, err)
	}
	if n > format {
		return fault.New(fault.Unsupported, "the queue in %s has format %d, written by a newer version; this one knows formats up to %d", dir, n, format)
	}
	return nil
}

// connect returns a session whose streams and consumers are as configured.
func (q *Queue) connect(ctx context.Context) (_ *session, err error) {
	s := &session{}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	options := []nats.Option{nats.Name("komainu-control"), nats.MaxReconnects(-1)}
	if q.cfg.URL == "" {
		if s.server, err = q.serve(); err != nil {
			return nil, err
		}
		options = append(options, nats.InProcessServer(s.server))
	}
	if s.conn, err = nats.Connect(q.cfg.URL, options...); err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "connect to the queue")
	}
	if s.js, err = jetstream.New(s.conn); err != nil {
		return nil, fmt.Errorf("open the queue: %w", err)
	}
	return s, q.prepare(ctx, s.js)
}

// close ends the connection, then the server, and waits for it.
func (s *session) close() {
	if s.conn != nil {
		s.conn.Close()
	}
	if s.server != nil {
		s.server.Shutdown()
		s.server.WaitForShutdown()
	}
}

// startUp is how long the embedded server may take to read its files.
const startUp = 2 * time.Minute

// serve starts the embedded server.
func (q *Queue) serve() (*server.Server, error) {
	srv, err := server.NewServer(&server.Options{
		ServerName:             "komainu",
		DontListen:             true,
		NoSigs:                 true,
		JetStream:              true,
		StoreDir:               q.cfg.Dir,
		SyncAlways:             true,
		JetStreamMaxStore:      1 << 50, // the streams have limits of their own
		JetStreamMaxMemory:     64 << 20,
		MaxPayload:             MaxPayload + 64<<10, // with headers
		DisableJetStreamBanner: true,
	})
	if err != nil {
		return nil, fmt.Errorf("configure the embedded queue: %w", err)
	}
	srv.SetLoggerV2(serverLog{q.log}, false, false, false)
	srv.Start()
	if !srv.ReadyForConnections(startUp) || !srv.JetStreamEnabled() {
		srv.Shutdown()
		srv.WaitForShutdown()
		return nil, fault.New(fault.Unavailable, "the embedded queue in %s did not start; the log says why", q.cfg.Dir)
	}
	return srv, nil
}

// prepare makes the streams and consumers what the configuration says.
func (q *Queue) prepare(ctx context.Context, js jetstream.JetStream) error {
	events, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name:     eventsStream,
		Subjects: []string{eventsPrefix + "*"},
		// A message stays until every consumer has acknowledged it, and
		// nothing else removes it.
		Retention:  jetstream.InterestPolicy,
		Discard:    jetstream.DiscardNew,
		MaxBytes:   q.cfg.MaxBytes,
		Storage:    jetstream.FileStorage,
		Duplicates: dedupeWindow,
		Replicas:   q.cfg.Replicas,
	})
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "make stream %s", eventsStream)
	}
	_, err = js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name:       deadStream,
		Subjects:   []string{deadPrefix + "*"},
		Discard:    jetstream.DiscardOld,
		MaxBytes:   deadMaxBytes,
		MaxAge:     deadMaxAge,
		Storage:    jetstream.FileStorage,
		Duplicates: dedupeWindow,
		Replicas:   q.cfg.Replicas,
	})
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "make stream %s", deadStream)
	}
	for _, name := range q.cfg.Consumers {
		_, err := events.CreateOrUpdateConsumer(ctx, jetstream.ConsumerConfig{
			Durable:       name,
			AckPolicy:     jetstream.AckExplicitPolicy,
			AckWait:       ackWait,
			MaxAckPending: 4 * maxBatch,
			MaxDeliver:    -1,
		})
		if err != nil {
			return fault.Wrap(fault.Unavailable, err, "make consumer %s", name)
		}
	}
	return q.forget(ctx, events)
}

// forget removes consumers that nobody works for any more: the stream would
// keep every message for them.
func (q *Queue) forget(ctx context.Context, events jetstream.Stream) error {
	names := events.ConsumerNames(ctx)
	var old []string
	for name := range names.Name() {
		if !slices.Contains(q.cfg.Consumers, name) {
			old = append(old, name)
		}
	}
	if err := names.Err(); err != nil && !errors.Is(err, jetstream.ErrEndOfData) {
		return fault.Wrap(fault.Unavailable, err, "list the consumers")
	}
	for _, name := range old {
		q.log.Info("forgetting a consumer that is not configured", "consumer", name)
		if err := events.DeleteConsumer(ctx, name); err != nil {
			return fault.Wrap(fault.Unavailable, err, "forget consumer %s", name)
		}
	}
	return nil
}

// checkEvery is how often the embedded server is asked whether its writes
// succeed: a publish whose write failed is never answered.
const checkEvery = 500 * time.Millisecond

// mend restarts the embedded server after a failed write, once there is room
// again: until then its streams take nothing, even when the disk could.
func (q *Queue) mend(ctx context.Context) {
	for tick := time.Tick(checkEvery); ; {
		select {
		case <-ctx.Done():
			return
		case <-q.broken:
		case <-tick:
			if s, err := q.session(); err != nil || s.server.Healthz(nil).Status == "ok" {
				continue
			}
		}
		q.log.Error("a write of the queue failed; it restarts when the disk has room")
		q.swap(nil)
		if !q.restart(ctx) {
			return
		}
		q.log.Info("the queue works again")
		select {
		case <-q.broken: // of the session that is gone
		default:
		}
	}
}

// restart opens the embedded server until that succeeds, or ctx ends.
func (q *Queue) restart(ctx context.Context) bool {
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		pause(ctx, wait)
		if ctx.Err() != nil {
			return false
		}
		if q.room() != nil {
			continue
		}
		s, err := q.connect(ctx)
		if err != nil {
			q.log.Error("restart of the queue failed", "error", err)
			continue
		}
		q.swap(s)
		return true
	}
}

// serverLog hands the log lines of the embedded server on. What it calls
// fatal ends the server, not the process.
type serverLog struct{ log *slog.Logger }

func (l serverLog) line(level slog.Level, format string, v []any) {
	l.log.Log(context.Background(), level, "nats", "line", fmt.Sprintf(format, v...))
}

func (l serverLog) Noticef(format string, v ...any) { l.line(slog.LevelDebug, format, v) }
func (l serverLog) Warnf(format string, v ...any)   { l.line(slog.LevelWarn, format, v) }
func (l serverLog) Errorf(format string, v ...any)  { l.line(slog.LevelError, format, v) }
func (l serverLog) Fatalf(format string, v ...any)  { l.line(slog.LevelError, format, v) }
func (l serverLog) Debugf(format string, v ...any)  { l.line(slog.LevelDebug, format, v) }
func (l serverLog) Tracef(format string, v ...any)  { l.line(slog.LevelDebug, format, v) }
