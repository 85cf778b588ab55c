package queue_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"komainu/control/queue"
	"komainu/event"
	"komainu/fault"
	"komainu/internal/need"
)

// The variables make the test binary a publisher that is going to be killed,
// and a test that runs in a mount namespace of its own.
const (
	crashDir  = "KOMAINU_QUEUE_CRASH_DIR"
	ownMounts = "KOMAINU_QUEUE_OWN_MOUNTS"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		publishUntilKilled(dir)
	}
	os.Exit(m.Run())
}

func config(t testing.TB, dir string) queue.Config {
	return queue.Config{
		Dir: dir, Consumers: []string{"one", "two"}, MaxBytes: 64 << 20, MinFree: -1,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
}

func open(t testing.TB, cfg queue.Config) *queue.Queue {
	t.Helper()
	q, err := queue.Open(t.Context(), cfg)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() {
		if err := q.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return q
}

func publish(t testing.TB, q *queue.Queue, batch string) {
	t.Helper()
	if err := q.Publish(t.Context(), "device-1", batch, []byte("payload of "+batch)); err != nil {
		t.Fatalf("publish %s: %v", batch, err)
	}
}

// inbox is a consumer that collects the batches it got.
type inbox struct {
	mu  sync.Mutex
	got []string
}

func (in *inbox) take(messages []queue.Message) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, m := range messages {
		in.got = append(in.got, m.Batch)
	}
}

func (in *inbox) all() []string {
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.Clone(in.got)
}

// consume runs a consumer until the test, or the returned function, ends it.
func consume(t testing.TB, q *queue.Queue, name string, handle queue.Handler) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- q.Consume(ctx, name, handle) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("consume %s: %v", name, err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// eventually waits until ok is true.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for tick := time.Tick(5 * time.Millisecond); !ok(); {
		select {
		case <-deadline:
			t.Fatalf("not within 30 s: %s", what)
		case <-tick:
		}
	}
}

func status(t testing.TB, q *queue.Queue) queue.Status {
	t.Helper()
	st, err := q.Status(t.Context())
	if err != nil {
		t.Fatalf("status: %v", err)
	}
	return st
}

func TestEveryConsumerGetsEverythingInOrder(t *testing.T) {
	q := open(t, config(t, t.TempDir()))
	var want []string
	for i := range 200 {
		want = append(want, fmt.Sprint(i))
		publish(t, q, fmt.Sprint(i))
	}
	if st := status(t, q); st.Waiting != 200 || st.Consumers["one"] != 200 || st.Consumers["two"] != 200 {
		t.Errorf("status before: %+v", st)
	}
	var one, two inbox
	consume(t, q, "one", func(_ context.Context, ms []queue.Message) error {
		for _, m := range ms {
			if m.Device != "device-1" || string(m.Payload) != "payload of "+m.Batch || time.Since(m.Received).Abs() > time.Minute {
				t.Errorf("message %+v", m)
			}
		}
		one.take(ms)
		return nil
	})
	eventually(t, "consumer one has everything", func() bool { return len(one.all()) == 200 })
	if st := status(t, q); st.Waiting != 200 {
		t.Errorf("%d messages wait while consumer two has none, want 200", st.Waiting)
	}
	consume(t, q, "two", func(_ context.Context, ms []queue.Message) error { two.take(ms); return nil })
	eventually(t, "nothing waits", func() bool { return status(t, q).Waiting == 0 })
	if !slices.Equal(one.all(), want) || !slices.Equal(two.all(), want) {
		t.Errorf("order is lost: %v and %v", one.all(), two.all())
	}
}

func TestTheSameBatchIsKeptOnce(t *testing.T) {
	q := open(t, config(t, t.TempDir()))
	publish(t, q, "1")
	publish(t, q, "1")
	// The same id with more in it is not the same batch.
	if err := q.Publish(t.Context(), "device-1", "1", []byte("more")); err != nil {
		t.Fatal(err)
	}
	if err := q.Publish(t.Context(), "device-2", "1", []byte("more")); err != nil {
		t.Fatal(err)
	}
	if n := status(t, q).Waiting; n != 3 {
		t.Errorf("%d messages wait, want 3", n)
	}
}

func TestAFailedHandlerIsTriedAgain(t *testing.T) {
	q := open(t, config(t, t.TempDir()))
	var calls atomic.Int32
	var in inbox
	consume(t, q, "one", func(_ context.Context, ms []queue.Message) error {
		if calls.Add(1) < 4 {
			return errors.New("the database is down")
		}
		in.take(ms)
		return nil
	})
	publish(t, q, "1")
	eventually(t, "the message is handled", func() bool { return len(in.all()) == 1 })
	if n := calls.Load(); n != 4 {
		t.Errorf("%d calls, want 4", n)
	}
}

func TestPoisonDoesNotBlockTheRest(t *testing.T) {
	q := open(t, config(t, t.TempDir()))
	for i := range 20 {
		publish(t, q, fmt.Sprint(i))
	}
	var in inbox
	consume(t, q, "one", func(_ context.Context, ms []queue.Message) error {
		for _, m := range ms {
			switch m.Batch {
			case "3":
				return fault.New(fault.Invalid, "batch %s is nonsense", m.Batch)
			case "7":
				panic("a bug that batch 7 hits")
			}
		}
		in.take(ms)
		return nil
	})
	eventually(t, "the other messages are handled", func() bool { return len(in.all()) == 18 })
	eventually(t, "consumer one is done", func() bool { return status(t, q).Consumers["one"] == 0 })
	if st := status(t, q); st.Dead != 2 {
		t.Errorf("%d dead letters, want 2", st.Dead)
	}
	if err := q.Bury(t.Context(), queue.Message{Device: "d", Batch: "x", Payload: []byte("half of it")}, errors.New("line\nbreak")); err != nil {
		t.Fatal(err)
	}
	if st := status(t, q); st.Dead != 3 {
		t.Errorf("%d dead letters, want 3", st.Dead)
	}
}

func TestASlowConsumerKeepsItsMessages(t *testing.T) {
	q := open(t, config(t, t.TempDir()))
	publish(t, q, "1")
	var in inbox
	block, began := make(chan struct{}), make(chan struct{}, 10)
	consume(t, q, "one", func(ctx context.Context, ms []queue.Message) error {
		began <- struct{}{}
		select {
		case <-block:
		case <-ctx.Done():
			return ctx.Err()
		}
		in.take(ms)
		return nil
	})
	<-began
	// Longer than a message may stay without a sign of work.
	select {
	case <-began:
		t.Error("the message came again while its handler works on it")
	case <-time.After(queue.AckWait + 2*time.Second):
	}
	close(block)
	eventually(t, "the message is done", func() bool { return status(t, q).Consumers["one"] == 0 })
	if got := in.all(); len(got) != 1 {
		t.Errorf("handled %v", got)
	}
}

func TestAFullQueueRefusesAndRecovers(t *testing.T) {
	cfg := config(t, t.TempDir())
	cfg.MaxBytes = 1 << 20
	q := open(t, cfg)
	payload := make([]byte, 100<<10)
	kept := 0
	for i := range 20 {
		err := q.Publish(t.Context(), "d", fmt.Sprint(i), payload)
		if fault.Is(err, fault.Exhausted) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		kept++
	}
	if kept == 20 || kept < 8 {
		t.Fatalf("%d messages of 100 KiB fit into 1 MiB", kept)
	}
	if st := status(t, q); st.Refused != 1 || st.Waiting != uint64(kept) {
		t.Errorf("status %+v", st)
	}
	var one, two inbox
	consume(t, q, "one", func(_ context.Context, ms []queue.Message) error { one.take(ms); return nil })
	consume(t, q, "two", func(_ context.Context, ms []queue.Message) error { two.take(ms); return nil })
	eventually(t, "there is room again", func() bool { return q.Publish(t.Context(), "d", "after", payload) == nil })
	eventually(t, "everything is handled", func() bool { return len(one.all()) == kept+1 && len(two.all()) == kept+1 })
}

func TestANearlyFullDiskRefuses(t *testing.T) {
	cfg := config(t, t.TempDir())
	cfg.MinFree = 1 << 60
	q := open(t, cfg)
	err := q.Publish(t.Context(), "d", "1", []byte("x"))
	if !fault.Is(err, fault.Exhausted) || !strings.Contains(err.Error(), "nearly full") {
		t.Errorf("publish: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	dir := t.TempDir()
	cfg := config(t, dir)
	q := open(t, cfg)
	wantKind := func(what string, err error, kind fault.Kind) {
		t.Helper()
		if err == nil || !fault.Is(err, kind) {
			t.Errorf("%s: %v, want kind %v", what, err, kind)
		}
	}
	for _, device := range []event.DeviceID{"", "a.b", "a b", "*", ">", "é"} {
		wantKind("device "+string(device), q.Publish(t.Context(), device, "1", nil), fault.Invalid)
	}
	wantKind("too large", q.Publish(t.Context(), "d", "1", make([]byte, queue.MaxPayload+1)), fault.Exhausted)
	wantKind("unknown consumer", q.Consume(t.Context(), "three", nil), fault.Invalid)
	_, err := queue.Open(t.Context(), cfg)
	wantKind("opened twice", err, fault.Conflict)
	_, err = queue.Open(t.Context(), queue.Config{Dir: t.TempDir(), Log: cfg.Log})
	wantKind("no consumers", err, fault.Invalid)

	newer := config(t, t.TempDir())
	if err := os.WriteFile(filepath.Join(newer.Dir, "format"), []byte("99\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = queue.Open(t.Context(), newer)
	wantKind("newer format", err, fault.Unsupported)

	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	wantKind("after close", q.Publish(t.Context(), "d", "1", nil), fault.Unavailable)
}

func TestAConsumerThatIsGoneHoldsNothing(t *testing.T) {
	dir := t.TempDir()
	q := open(t, config(t, dir))
	publish(t, q, "1")
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	cfg := config(t, dir)
	cfg.Consumers = []string{"one"}
	q = open(t, cfg)
	var one inbox
	consume(t, q, "one", func(_ context.Context, ms []queue.Message) error { one.take(ms); return nil })
	eventually(t, "nothing waits", func() bool { return len(one.all()) == 1 && status(t, q).Waiting == 0 })
}

// TestACluster runs the same code against a server that is reached by URL.
func TestACluster(t *testing.T) {
	srv, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true, MaxPayload: 2 << 20})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	defer func() { srv.Shutdown(); srv.WaitForShutdown() }()
	if !srv.ReadyForConnections(30 * time.Second) {
		t.Fatal("the server does not start")
	}
	cfg := config(t, "")
	cfg.URL = srv.ClientURL()
	q := open(t, cfg)
	publish(t, q, "1")
	var in inbox
	consume(t, q, "one", func(_ context.Context, ms []queue.Message) error { in.take(ms); return nil })
	eventually(t, "the message arrives", func() bool { return slices.Equal(in.all(), []string{"1"}) })
}

// publishUntilKilled publishes numbered batches and says which are accepted.
func publishUntilKilled(dir string) {
	q, err := queue.Open(context.Background(), queue.Config{Dir: dir, Consumers: []string{"one"}, MinFree: -1, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := w; ; i += 4 {
				id := strconv.Itoa(i)
				if q.Publish(context.Background(), "d", id, []byte(strings.Repeat(id+" ", 200))) == nil {
					fmt.Println(id) // one write: a line is whole or not there
				}
			}
		})
	}
	wg.Wait()
}

// TestNothingAcknowledgedIsLostByAKill kills a publishing process, again and
// again on the same files, and looks for every batch that it saw accepted.
func TestNothingAcknowledgedIsLostByAKill(t *testing.T) {
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	accepted := map[string]bool{}
	for round := range 3 {
		cmd := exec.CommandContext(t.Context(), self)
		cmd.Env = append(os.Environ(), crashDir+"="+dir)
		cmd.Stderr = t.Output()
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			accepted[lines.Text()] = true
			if n == 100+50*round { // in the middle of its work
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := cmd.Wait(); err == nil {
			t.Fatal("the publisher ended by itself")
		}
	}
	if len(accepted) < 100 {
		t.Fatalf("only %d batches were accepted", len(accepted))
	}
	cfg := config(t, dir)
	cfg.Consumers = []string{"one"}
	q := open(t, cfg)
	var in inbox
	consume(t, q, "one", func(_ context.Context, ms []queue.Message) error { in.take(ms); return nil })
	eventually(t, "everything is consumed", func() bool { return status(t, q).Waiting == 0 })
	got := map[string]bool{}
	for _, id := range in.all() {
		got[id] = true
	}
	for id := range accepted {
		if !got[id] {
			t.Errorf("batch %s was accepted and is lost", id)
		}
	}
}

// TestAFullDisk fills a small filesystem under the queue and makes room again.
func TestAFullDisk(t *testing.T) {
	need.Root(t)
	if os.Getenv(ownMounts) == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestAFullDisk$", "-test.v")
		cmd.Env = append(os.Environ(), ownMounts+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS: TestAFullDisk") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	dir := t.TempDir()
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=24m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	other := filepath.Join(dir, "other") // something else takes most of the disk
	if err := os.WriteFile(other, make([]byte, 18<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := config(t, filepath.Join(dir, "queue"))
	cfg.Consumers = []string{"one"}
	q := open(t, cfg)
	payload := make([]byte, 200<<10)
	var accepted []string
	var full error
	for i := range 100 {
		if full = q.Publish(t.Context(), "d", fmt.Sprint(i), payload); full != nil {
			break
		}
		accepted = append(accepted, fmt.Sprint(i))
	}
	if !fault.Is(full, fault.Unavailable) || len(accepted) == 0 {
		t.Fatalf("after %d batches: %v", len(accepted), full)
	}
	t.Logf("full after %d batches: %v", len(accepted), full)
	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	var in inbox
	consume(t, q, "one", func(_ context.Context, ms []queue.Message) error { in.take(ms); return nil })
	eventually(t, "it takes batches again", func() bool { return q.Publish(t.Context(), "d", "after", payload) == nil })
	accepted = append(accepted, "after")
	eventually(t, "what was accepted is consumed", func() bool {
		got := in.all()
		return !slices.ContainsFunc(accepted, func(id string) bool { return !slices.Contains(got, id) })
	})
}

// BenchmarkPublish measures batches of the size that agents send, each safe on
// disk, from several connections at once.
func BenchmarkPublish(b *testing.B) {
	for _, size := range []int{1 << 10, 64 << 10, 256 << 10} {
		b.Run(fmt.Sprintf("%dk", size>>10), func(b *testing.B) {
			q := open(b, queue.Config{Dir: b.TempDir(), Consumers: []string{"one"}, MinFree: -1, Log: slog.New(slog.DiscardHandler)})
			consume(b, q, "one", func(context.Context, []queue.Message) error { return nil })
			payload := make([]byte, size)
			b.SetBytes(int64(size))
			b.SetParallelism(8)
			var n atomic.Int64
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := q.Publish(b.Context(), "d", fmt.Sprint(n.Add(1)), payload); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}
