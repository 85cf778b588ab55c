package realtime

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"komainu/fault"
)

// Run judges until ctx ends. From then on opens are let through.
func (h *Handle) Run(ctx context.Context, j Judge) error {
	// A read of the socket ends in time for the next beat.
	tv := unix.NsecToTimeval(int64(beatEvery))
	if err := unix.SetsockoptTimeval(h.sock, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return fmt.Errorf("set the pace of the broker's socket: %w", err)
	}
	ctx, stop := context.WithCancel(ctx)
	var all sync.WaitGroup
	errs := make(chan error, openJudges+1)
	for range openJudges + 1 {
		all.Go(func() {
			if err := h.serve(ctx, j); err != nil {
				errs <- err
				stop()
			}
		})
	}
	h.turn <- struct{}{}
	all.Go(func() { h.relieve(ctx) })
	for range badJudges {
		all.Go(func() { h.judge(ctx, j, h.bads) })
	}
	for range closeJudges {
		all.Go(func() { h.judge(ctx, j, h.closes) })
	}
	<-ctx.Done()
	stop()
	all.Wait()
	h.mem.workerBeat.Store(never)
	close(errs)
	return <-errs
}

func (h *Handle) judge(ctx context.Context, judge Judge, jobs <-chan job) {
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			return
		case j := <-jobs:
			h.decide(ctx, judge, j)
		}
	}
}

// serve is one of several that take turns: one listens, the others are idle
// or judge. Whoever listens judges what it has heard itself, which spares the
// opener the time to wake another goroutine; when it takes long, or more is
// waiting, another one listens in its place. One always listens, however many
// judgements hang: when nobody is idle, opens are queued.
func (h *Handle) serve(ctx context.Context, judge Judge) error {
	for ctx.Err() == nil {
		h.idle.Add(1)
		select {
		case <-ctx.Done():
			return nil
		case j := <-h.opens:
			h.idle.Add(-1)
			h.decide(ctx, judge, j)
		case <-h.turn:
			h.idle.Add(-1)
			if err := h.listen(ctx, judge); err != nil {
				return err
			}
		}
	}
	return nil
}

// listen takes messages, sorts them, judges, and beats: whoever sees the beat
// knows that somebody listens. It returns when another one does.
func (h *Handle) listen(ctx context.Context, judge Judge) error {
	for ctx.Err() == nil {
		h.beat()
		var m message
		err := h.in.next(&m)
		switch {
		case errors.Is(err, unix.EAGAIN):
			continue
		case errors.Is(err, unix.ECONNRESET):
			return fault.New(fault.Unavailable, "the broker's socket is gone")
		case err != nil:
			h.log.Warn("the broker said something odd", "error", err)
			continue
		}
		j := h.sort(m)
		switch {
		case j == nil:
		case h.idle.Load() == 0 || len(h.opens) > 0:
			h.queue(h.opens, *j)
		case h.more():
			h.turn <- struct{}{}
			h.decide(ctx, judge, *j)
			return nil
		default:
			began := mono()
			h.since.Store(began)
			select {
			case h.stir <- struct{}{}:
			default:
			}
			h.decide(ctx, judge, *j)
			if !h.since.CompareAndSwap(began, 0) {
				return nil
			}
		}
	}
	return nil
}

// more reports whether another message waits already.
func (h *Handle) more() bool {
	n, _ := unix.Poll([]unix.PollFd{{Fd: int32(h.sock), Events: unix.POLLIN}}, 0)
	return n > 0
}

// longJudgement is how long others may have to wait for the one that listens.
const longJudgement = time.Millisecond

// relieve gives the turn to another one when a judgement takes long. It sleeps
// while nothing happens.
func (h *Handle) relieve(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.stir:
		}
		// While opens come in a row, each would wake this goroutine; it stays
		// awake instead and looks now and then.
		for seen := int64(0); ; {
			began := h.since.Load()
			if began == 0 && seen == 0 {
				break
			}
			if began != 0 && mono()-began > int64(longJudgement) && h.since.CompareAndSwap(began, 0) {
				h.turn <- struct{}{}
			}
			seen = began
			time.Sleep(longJudgement)
		}
	}
}

func (h *Handle) beat() {
	now := mono()
	h.mem.workerBeat.Store(now)
	if !h.pulse.away(now) && stale(&h.mem.guardianBeat, now, guardianLost) {
		h.log.Error("guardian and broker have stopped; ending them so that they are started again")
		h.mem.endGuardian()
	}
}

// sort answers what is known and queues the rest, but for an open that needs
// a judgement at once, which it returns.
func (h *Handle) sort(m message) *job {
	if m.op == opDone {
		select {
		case h.done <- m:
		default: // nobody waits for it any more
		}
		return nil
	}
	if m.file < 0 {
		// This process has no descriptor left.
		h.settle(&m, Decision{}, answerBusy)
		return nil
	}
	if n := h.mem.unheard.Load(); n != h.unheard {
		h.unheard = n
		h.known.forget()
	}
	stamp, regular := stampOf(m.file)
	if !regular {
		h.settle(&m, Decision{}, 0)
		m.close()
		return nil
	}
	j := job{message: m, stamp: stamp, at: time.Now()}
	switch m.op {
	case opOpen:
		j.kind = OpenPerm
		return h.sortOpen(j)
	case opClosed:
		j.kind = CloseWrite
		h.known.drop(stamp)
		h.queueClosed(j)
	case opExec:
		j.kind = Executed
		h.queue(h.closes, j)
	case opMissed:
		j.kind = Missed
		h.queue(h.closes, j)
	default:
		j.close()
	}
	return nil
}

func (h *Handle) sortOpen(j job) *job {
	switch h.look(j.file, j.stamp) {
	case KnownClean:
		h.settle(&j.message, Decision{Cache: true}, 0)
		j.close()
	case KnownBad:
		j.deny = h.denySoon(j.message)
		select {
		case h.bads <- j:
		default:
			h.settle(&j.message, Decision{Deny: true}, 0)
			j.close()
		}
	default:
		return &j
	}
	return nil
}

// queue hands a job to the judges; when they are behind, an opener is let
// through, and a notification is dropped.
func (h *Handle) queue(to chan<- job, j job) bool {
	select {
	case to <- j:
		return true
	default:
		if j.kind != OpenPerm {
			h.mem.dropped.Add(1)
		}
		h.settle(&j.message, Decision{}, answerBusy)
		j.close()
		return false
	}
}

// queueClosed queues a written file unless it is queued already: a log that
// is opened for each line is judged as often as there is time to.
func (h *Handle) queueClosed(j job) {
	i := j.stamp.inode()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.queued[i] {
		h.mem.merged.Add(1)
		j.close()
		return
	}
	if h.queue(h.closes, j) {
		h.queued[i] = true
	}
}
