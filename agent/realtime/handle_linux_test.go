package realtime

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// judgeFunc is a Judge.
type judgeFunc func(ctx context.Context, o Open) Decision

func (f judgeFunc) Judge(ctx context.Context, o Open) Decision { return f(ctx, o) }

// fakeBroker is the other end of a handle that runs.
type fakeBroker struct {
	t    *testing.T
	h    *Handle
	sock int
	in   *receiver
	file func() int32
	seq  uint64
}

func newFakeBroker(t *testing.T, j Judge) *fakeBroker {
	fds := pair(t)
	// A stream of answers may be read at leisure here, and is waited for.
	for _, fd := range fds {
		if err := unix.SetNonblock(fd, false); err != nil {
			t.Fatal(err)
		}
	}
	tv := unix.NsecToTimeval(int64(5 * time.Second))
	if err := unix.SetsockoptTimeval(fds[0], unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		t.Fatal(err)
	}
	mem := &shared{}
	mem.guardianBeat.Store(mono() + int64(time.Hour))
	b := &fakeBroker{t: t, sock: fds[0], in: newReceiver(fds[0], true), file: anyFile(t, t.TempDir()), h: newHandle(slog.New(slog.DiscardHandler), mem, fds[1])}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.h.Run(ctx, j) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
		if mem.workerBeat.Load() != never {
			t.Error("a worker that has ended seems to live")
		}
		unix.Close(fds[0])
		unix.Close(fds[1])
	})
	return b
}

// open sends an open and returns its number.
func (b *fakeBroker) open() uint64 {
	fd := b.file()
	defer unix.Close(int(fd))
	b.seq++
	for {
		err := send(b.sock, &message{op: opOpen, seq: b.seq, pid: 5, fd: fd, file: int(fd)})
		if err == nil {
			return b.seq
		}
		if !errors.Is(err, unix.EAGAIN) {
			b.t.Fatal(err)
		}
		if _, err := unix.Poll([]unix.PollFd{{Fd: int32(b.sock), Events: unix.POLLOUT}}, 5000); err != nil && !errors.Is(err, unix.EINTR) {
			b.t.Fatal(err)
		}
	}
}

func (b *fakeBroker) answer() message {
	b.t.Helper()
	for {
		var m message
		err := b.in.next(&m)
		if err == nil {
			return m
		}
		b.t.Fatalf("no answer: %v", err)
	}
}

// TestJudgesThatHang has every judge hang and fills the queue behind them. The
// rest is answered at once, what is known is answered still, and the beat goes
// on.
func TestJudgesThatHang(t *testing.T) {
	begun := make(chan struct{}, openJudges+1)
	b := newFakeBroker(t, judgeFunc(func(ctx context.Context, _ Open) Decision {
		select {
		case begun <- struct{}{}:
		case <-ctx.Done():
		}
		<-ctx.Done()
		return Decision{}
	}))
	// One listens, all others hang.
	for range openJudges {
		b.open()
		<-begun
	}
	for range openQueue {
		b.open()
	}
	seq := b.open()
	if m := b.answer(); m.seq != seq || m.arg != answerBusy {
		t.Errorf("answer %+v, want busy for %d", m, seq)
	}
	before := b.h.mem.workerBeat.Load()
	limit := time.After(5 * time.Second)
	for b.h.mem.workerBeat.Load() == before {
		select {
		case <-limit:
			t.Fatal("the beat has stopped")
		default:
			_, _ = unix.Poll(nil, 1)
		}
	}
}

// TestAnswers judges, remembers, forgets and denies.
func TestAnswers(t *testing.T) {
	var bad, judged atomic.Bool
	b := newFakeBroker(t, judgeFunc(func(_ context.Context, o Open) Decision {
		judged.Store(true)
		return Decision{Deny: bad.Load(), Cache: true}
	}))
	expect := func(what string, arg uint32, by bool) {
		t.Helper()
		judged.Store(false)
		seq := b.open()
		if m := b.answer(); m.op != opAnswer || m.seq != seq || m.arg != arg || judged.Load() != by {
			t.Errorf("%s: answer %+v judged %v, want %d for %d, judged %v", what, m, judged.Load(), arg, seq, by)
		}
	}
	expect("unknown", answerJudged|answerCache, true)
	expect("known to be clean", answerCache, false)
	b.h.known.forget()
	bad.Store(true)
	expect("unknown again", answerJudged|answerDeny, true)
	expect("known to be bad", answerJudged|answerDeny, true)
	b.h.mem.unheard.Add(1)
	bad.Store(false)
	expect("after a close that was lost", answerJudged|answerCache, true)
}
