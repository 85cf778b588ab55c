package realtime

import (
	"encoding/binary"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// fakeKernel is the other end of a socket that stands for the fanotify group:
// a broker or a guardian reads events from it and writes answers to it. Marks
// do not work on a socket, which is as good as a kernel without them.
type fakeKernel struct {
	t     rapid.TB
	group int // the side of the reader
	end   int
	// waiting counts, by descriptor number, the events that nobody has answered.
	waiting map[int32]int
}

func newFakeKernel(t rapid.TB) *fakeKernel {
	fds := pair(t)
	return &fakeKernel{t: t, group: fds[0], end: fds[1], waiting: map[int32]int{}}
}

func pair(t rapid.TB) [2]int {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fds
}

func (k *fakeKernel) close() {
	unix.Close(k.group)
	unix.Close(k.end)
}

// event queues an event.
func (k *fakeKernel) event(mask uint64, fd, pid int32) {
	if mask&permMask != 0 {
		k.waiting[fd]++
	}
	if _, err := unix.Write(k.end, rawEvent(metaSize, unix.FANOTIFY_METADATA_VERSION, mask, fd, pid)); err != nil {
		k.t.Fatal(err)
	}
}

// verdict is an answer that the kernel got.
type answered struct {
	fd    int32
	allow bool
}

// answers takes the answers since the last call. Where nobody waits, the real
// kernel says ENOENT; a broker has no reason to provoke that.
func (k *fakeKernel) answers() (got []answered) {
	var b [16]byte
	for {
		n, err := unix.Read(k.end, b[:])
		if err != nil {
			return got
		}
		if n != 8 {
			k.t.Fatalf("an answer of %d bytes", n)
		}
		a := answered{int32(binary.NativeEndian.Uint32(b[:])), binary.NativeEndian.Uint32(b[4:]) == unix.FAN_ALLOW}
		k.waiting[a.fd]--
		got = append(got, a)
	}
}

func anyFile(t rapid.TB, dir string) func() int32 {
	name := filepath.Join(dir, "file")
	if err := os.WriteFile(name, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	return func() int32 {
		fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		return int32(fd)
	}
}

// TestBrokerAgainstModel drives a broker with events, judgements (right ones,
// late ones and wrong ones) and time, and checks that each event gets exactly
// one answer, that only a judgement of that very event denies, and that nobody
// waits beyond the deadline.
func TestBrokerAgainstModel(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		open := anyFile(t, dir)
		k := newFakeKernel(t)
		defer k.close()
		sock := pair(t)
		defer unix.Close(sock[0])
		defer unix.Close(sock[1])
		log := newAside(slog.New(slog.DiscardHandler))
		defer log.close()
		mem := &shared{}
		mem.workerPID.Store(77)
		b := &broker{log: log, mem: mem, group: k.group, sock: sock[0], in: newReceiver(sock[0], false), ignore: newIgnorer(k.group, -1), seq: 1 << 40}
		b.now = 1 << 50
		mem.workerBeat.Store(b.now)
		worker := newReceiver(sock[1], false)

		type waiter struct {
			m     message
			until int64
		}
		var asked []waiter  // that wait, as the worker has heard of them
		var done []message  // that have gone on
		var events, own int // counted by hand
		hear := func() {
			for {
				var m message
				if worker.next(&m) != nil {
					return
				}
				m.close()
				if m.op == opOpen {
					asked = append(asked, waiter{m, b.now + int64(Deadline)})
				}
			}
		}
		expect := func(t *rapid.T, fd int32, allow bool) {
			if got := k.answers(); len(got) != 1 || got[0] != (answered{fd, allow}) {
				t.Fatalf("answers %+v, want %d %v", got, fd, allow)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"open": func(t *rapid.T) {
				fd, pid := open(), rapid.SampledFrom([]int32{0, 1, 42, 77}).Draw(t, "pid")
				before := len(asked)
				k.event(permMask, fd, pid)
				b.read()
				events++
				hear()
				switch {
				case pid == 77:
					own++
					expect(t, fd, true)
				case stale(&mem.workerBeat, b.now, staleAfter):
					expect(t, fd, true)
				case len(asked) == before: // judgements hang
					expect(t, fd, true)
					if b.expired < patience {
						t.Fatal("an open was passed by although the worker answers")
					}
				}
			},
			"judge": func(t *rapid.T) {
				if len(asked) == 0 {
					t.Skip("nobody waits")
				}
				i := rapid.IntRange(0, len(asked)-1).Draw(t, "which")
				w, deny := asked[i], rapid.Bool().Draw(t, "deny")
				asked = slices.Delete(asked, i, i+1)
				done = append(done, w.m)
				w.m.op, w.m.file, w.m.arg = opAnswer, -1, answerJudged
				if deny {
					w.m.arg |= answerDeny
				}
				if err := send(sock[1], &w.m); err != nil {
					t.Fatal(err)
				}
				if err := b.hear(); err != nil {
					t.Fatal(err)
				}
				expect(t, w.m.fd, !deny)
			},
			"judge_too_late": func(t *rapid.T) {
				if len(done) == 0 {
					t.Skip("nobody has gone on")
				}
				m := rapid.SampledFrom(done).Draw(t, "which")
				m.op, m.file, m.arg = opAnswer, -1, answerDeny
				if err := send(sock[1], &m); err != nil {
					t.Fatal(err)
				}
				if err := b.hear(); err != nil {
					t.Fatal(err)
				}
			},
			"nonsense": func(t *rapid.T) {
				m := message{op: rapid.Uint32Range(0, 30).Draw(t, "op"), seq: rapid.Uint64Range(0, 9).Draw(t, "seq"), fd: rapid.Int32().Draw(t, "fd"), arg: answerDeny, file: -1}
				if err := send(sock[1], &m); err != nil {
					t.Fatal(err)
				}
				if err := b.hear(); err != nil {
					t.Fatal(err)
				}
			},
			"time": func(t *rapid.T) {
				b.now += rapid.Int64Range(0, int64(Deadline)).Draw(t, "ns")
				if rapid.Bool().Draw(t, "worker_lives") {
					mem.workerBeat.Store(b.now)
				}
				b.expire(b.now)
				var gone []int32
				asked = slices.DeleteFunc(asked, func(w waiter) bool {
					if w.until > b.now {
						return false
					}
					gone = append(gone, w.m.fd)
					done = append(done, w.m)
					return true
				})
				for _, a := range k.answers() {
					i := slices.Index(gone, a.fd)
					if !a.allow || i < 0 {
						t.Fatalf("answer %+v at the deadline of %v", a, gone)
					}
					gone = slices.Delete(gone, i, i+1)
				}
				if len(gone) != 0 {
					t.Fatalf("%v wait beyond the deadline", gone)
				}
				hear()
			},
			"": func(t *rapid.T) {
				if got := k.answers(); len(got) != 0 {
					t.Fatalf("answers that nobody asked for: %+v", got)
				}
				if b.waiting != len(asked) {
					t.Fatalf("%d wait, the model says %d", b.waiting, len(asked))
				}
				for _, w := range asked {
					if k.waiting[w.m.fd] != 1 || mem.deadline[w.m.fd].Load() != w.until {
						t.Fatalf("the table is wrong about %+v", w)
					}
				}
				s := mem.stats()
				if s.Events != uint64(events) || s.Own != uint64(own) || s.Events != s.Allowed+s.Denied+s.Own+s.Expired+s.PassedBy+s.Busy+uint64(len(asked)) {
					t.Fatalf("counters %+v", s)
				}
			},
		})
		b.now += int64(Deadline)
		b.expire(b.now)
		k.answers()
		for fd, n := range k.waiting {
			if n != 0 {
				t.Fatalf("%d events of descriptor %d have no answer", n, fd)
			}
		}
	})
}

// TestGuardianStandsIn lets a broker stop at each point of its work, and checks
// that the guardian lets everybody go on.
func TestGuardianStandsIn(t *testing.T) {
	for _, c := range []struct {
		name    string
		read    bool // read(2) has returned
		handled int  // events of the batch that were handed to the worker
	}{
		{"before_read", false, 0}, {"after_read", true, 0}, {"within_batch", true, 2}, {"after_batch", true, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			open := anyFile(t, t.TempDir())
			k := newFakeKernel(t)
			defer k.close()
			sock := pair(t)
			defer unix.Close(sock[0])
			defer unix.Close(sock[1])
			log := newAside(slog.New(slog.DiscardHandler))
			defer log.close()
			mem := &shared{}
			mem.workerBeat.Store(mono())
			b := &broker{log: log, mem: mem, group: k.group, sock: sock[0], now: mono(), seq: 1}
			var batch []byte
			for range 3 {
				fd := open()
				if c.read {
					k.waiting[fd]++
					batch = append(batch, rawEvent(metaSize, unix.FANOTIFY_METADATA_VERSION, permMask, fd, 5)...)
				} else {
					k.event(permMask, fd, 5)
				}
			}
			copy(mem.buf[:], batch)
			rest := batch
			for range c.handled {
				var e fanEvent
				e, rest, _ = nextEvent(rest)
				b.take(e)
			}
			k.event(permMask, open(), 6) // comes when the broker has stopped already

			g := &guardian{log: log, mem: mem, group: k.group, sock: sock[0], wake: -1, ignore: newIgnorer(k.group, -1), broker: &child{}, worker: &child{}}
			g.standIn(mono(), make([]byte, bufSize))
			for _, a := range k.answers() {
				if !a.allow {
					t.Errorf("the guardian denied %d", a.fd)
				}
			}
			for fd, n := range k.waiting {
				// The fake kernel does not refuse a second answer, so n may be negative.
				if n > 0 {
					t.Errorf("descriptor %d still waits", fd)
				}
			}
			for fd := range mem.deadline {
				if mem.deadline[fd].Load() != 0 {
					t.Errorf("descriptor %d is left in the table", fd)
				}
			}
		})
	}
}

// TestGuardianAnswersUntilTheBrokerHasEnded: the kernel has written the number
// of an event and does not take an answer for it yet, because the broker is
// still within read(2). The guardian answers again until that broker is gone.
func TestGuardianAnswersUntilTheBrokerHasEnded(t *testing.T) {
	open := anyFile(t, t.TempDir())
	k := newFakeKernel(t)
	defer k.close()
	log := newAside(slog.New(slog.DiscardHandler))
	defer log.close()
	former := exec.Command("sleep", "60")
	if err := former.Start(); err != nil {
		t.Fatal(err)
	}
	mem := &shared{}
	g := &guardian{log: log, mem: mem, group: k.group, wake: -1, ignore: newIgnorer(k.group, -1), broker: &child{process: former.Process, since: mono()}, worker: &child{}}
	fd := open()
	copy(mem.buf[:], rawEvent(metaSize, unix.FANOTIFY_METADATA_VERSION, permMask, fd, 5))
	mem.deadline[fd+1].Store(1)
	g.takeOver()
	g.standIn(mono(), make([]byte, bufSize))
	k.answers() // too early: the kernel knows nothing of it yet
	k.waiting[fd] = 1
	g.standIn(mono(), make([]byte, bufSize))
	k.answers()
	if n := k.waiting[fd]; n > 0 {
		t.Error("the opener waits for ever")
	}
	if err := former.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = former.Wait() // by the signal
	g.broker.process = nil
	g.standIn(mono(), make([]byte, bufSize))
	if _, _, left := nextEvent(mem.buf[:]); left || mem.deadline[fd+1].Load() != 0 {
		t.Error("what the broker had read is not forgotten after its end")
	}
}

func TestOwnPID(t *testing.T) {
	mem := &shared{}
	if mem.ownPID(0) {
		t.Error("a process that cannot be seen counts as the agent's own")
	}
	mem.workerPID.Store(5)
	mem.others[3].Store(6)
	if !mem.ownPID(5) || !mem.ownPID(6) || mem.ownPID(7) {
		t.Error("own processes are not told apart")
	}
	mem.forgetWorker()
	if mem.ownPID(5) || mem.ownPID(6) {
		t.Error("processes that have ended count as the agent's own")
	}
}

// TestPulse excuses others for a while after a pause of the whole machine, but
// not for ever.
func TestPulse(t *testing.T) {
	p := newPulse(beatEvery)
	now := p.last
	if p.away(now + int64(beatEvery)) {
		t.Error("a round in time counts as a pause")
	}
	now = p.last
	excused := 0
	for range 8 {
		now += int64(beatEvery) * 10
		if p.away(now) {
			excused++
		}
	}
	if excused != 6 {
		t.Errorf("%d of 8 late rounds were excused", excused)
	}
}
