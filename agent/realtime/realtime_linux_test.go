package realtime_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"komainu/agent/realtime"
	"komainu/policy"
)

// longestWait is what an opener may wait at most, by the contracts.
const longestWait = 500 * time.Millisecond

func TestBlock(t *testing.T) {
	s, inside := inStage(t)
	if !inside {
		return
	}
	s.play(policy.Block)
	if !s.denied("bad") {
		t.Error("the bad file was read")
	}
	if s.denied("clean") {
		t.Error("the clean file was denied")
	}
	if err := exec.Command(s.path("bad")).Run(); !errors.Is(err, syscall.EPERM) {
		t.Errorf("the bad file was executed: %v", err)
	}
	// What is known to be bad is denied again, and whoever counts hears of it.
	s.eventually("the judge hears of a known bad file", func() bool { return s.judged("1 bad 2") > 0 })
	// What the kernel knows to be clean asks nobody.
	if s.stats().Cached == 0 {
		t.Fatal("the clean file is not cached")
	}
	before := s.stats().Events
	for range 20 {
		s.denied("clean")
	}
	if n := s.stats().Events - before; n != 0 {
		t.Errorf("a cached file made %d events", n)
	}
	// A change makes it unknown again.
	s.write("clean", badMark)
	if !s.denied("clean") {
		t.Error("a changed file was served from the cache")
	}
	s.eventually("the judge hears of the close", func() bool { return s.judged("2 clean") > 0 })
	sums(t, s.stats(), 0)
}

// sums checks that each event has exactly one outcome. A process that is
// killed between two additions may leave them apart by one.
func sums(t *testing.T, s realtime.Stats, slack uint64) {
	t.Helper()
	outcomes := s.Allowed + s.Denied + s.Own + s.Expired + s.PassedBy + s.Busy + s.Drained
	if max(s.Events, outcomes)-min(s.Events, outcomes) > slack {
		t.Errorf("%d events, %d outcomes: %+v", s.Events, outcomes, s)
	}
}

// TestForgetWhileJudging changes what is judged by in the middle of a
// judgement: what comes of it answers that opener and nobody else.
func TestForgetWhileJudging(t *testing.T) {
	s, inside := inStage(t)
	if !inside {
		return
	}
	s.play(policy.Block)
	s.write("half", "nothing to see")
	s.eventually("the judge has seen what was written", func() bool { return s.judged("2 half") > 0 })
	for range 20 {
		let := s.stats(invalidate).Unscanned()
		before := s.judged("1 half")
		opened := make(chan time.Time, 1)
		go func() {
			_ = exec.Command("cat", s.path("half")).Run()
			opened <- time.Now()
		}()
		s.eventually("it is being judged, or was let through", func() bool { return s.judged("1 half") > before || len(opened) > 0 })
		s.stats(invalidate)
		forgotten := time.Now()
		if (<-opened).Before(forgotten) {
			continue // the host was too slow
		}
		s.denied("half")
		n := s.judged("1 half") - before
		if s.stats().Unscanned() != let {
			continue // the host was too slow to judge at all
		}
		if n != 2 {
			t.Errorf("judged %d times by two openers", n)
		}
		return
	}
	t.Error("nothing was ever forgotten within a judgement")
}

// TestSameTick rewrites a file faster than the clock of files ticks, so that
// its stamp may stay the same: the verdict must not. It also opens the file at
// the very moment in which the broker takes the kernel's mark back.
func TestSameTick(t *testing.T) {
	s, inside := inStage(t)
	if !inside {
		return
	}
	s.play(policy.Block)
	good := fmt.Sprintf("%-*s", len(badMark), "fine")
	for i := range 1000 {
		name := fmt.Sprintf("tick%d", i)
		for _, content := range []string{good, badMark} {
			must(t, os.WriteFile(s.path(name), []byte(content), 0o600))
			got, err := os.ReadFile(s.path(name))
			if denied := errors.Is(err, syscall.EPERM); denied != (content == badMark) {
				t.Fatalf("round %d: content %q, read %q, %v: %+v", i, content, got, err, s.stats())
			}
		}
	}
}

// TestSharedMapping changes a cached file through a mapping, which sends no
// event and leaves the kernel's mark in place.
func TestSharedMapping(t *testing.T) {
	s, inside := inStage(t)
	if !inside {
		return
	}
	s.play(policy.Block)
	s.eventually("the file is cached", func() bool {
		s.denied("clean")
		return s.stats().Cached > 0
	})
	f, err := os.OpenFile(s.path("clean"), os.O_RDWR, 0)
	must(t, err)
	m, err := unix.Mmap(int(f.Fd()), 0, len("nothing to see"), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	must(t, f.Close())
	copy(m, badMark)
	must(t, unix.Munmap(m))
	s.eventually("the change is noticed", func() bool { return s.denied("clean") })
}

// TestMappedWhileOpened has a writer hold the mapping: what the worker
// remembers must not be believed, and the kernel must not be told.
func TestMappedWhileOpened(t *testing.T) {
	s, inside := inStage(t)
	if !inside {
		return
	}
	f, err := os.OpenFile(s.path("clean"), os.O_RDWR, 0)
	must(t, err)
	m, err := unix.Mmap(int(f.Fd()), 0, len("nothing to see"), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	must(t, f.Close())
	m[0] = 'n'
	s.play(policy.Block)
	for range 3 {
		if s.denied("clean") {
			t.Error("the clean file was denied")
		}
	}
	copy(m, badMark)
	if !s.denied("clean") {
		t.Error("a file that changes under a mapping was believed")
	}
	must(t, unix.Munmap(m))
}

func TestWatchOnlyWatches(t *testing.T) {
	s, inside := inStage(t)
	if !inside {
		return
	}
	s.play(policy.Watch)
	if s.denied("bad") {
		t.Error("an open was denied on a filesystem that is only watched")
	}
	s.write("more", badMark)
	s.eventually("the written file is judged", func() bool { return s.judged("2 more") > 0 })
	run(t, s.path("script"))
	s.eventually("the execution is judged", func() bool { return s.judged("3 script") > 0 })
	if n := s.stats().Events; n != 0 {
		t.Errorf("%d permission events on a filesystem that is only watched", n)
	}
}

// TestMarksFollowPolicy changes the mode while the agent runs.
func TestMarksFollowPolicy(t *testing.T) {
	s, inside := inStage(t)
	if !inside {
		return
	}
	s.play(policy.Block)
	for _, mode := range []policy.Mode{policy.Watch, policy.Block, policy.Ignore, policy.Block} {
		s.stats(mode)
		if s.denied("bad") != (mode == policy.Block) {
			t.Errorf("mode %s is not in force", mode)
		}
		before := s.judged("2 ")
		s.write("clean", "written")
		if mode == policy.Ignore {
			s.write("bad", badMark) // by a process of its own choice, nobody hears of it
			if s.judged("2 ") != before {
				t.Error("a filesystem that is ignored was looked at")
			}
			continue
		}
		s.eventually("the close is judged", func() bool { return s.judged("2 ") > before })
	}
	// Marks that stay are never absent.
	stop := make(chan struct{})
	var leaks int
	var reader sync.WaitGroup
	reader.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if f, err := os.Open(s.path("bad")); err == nil {
				leaks++
				_ = f.Close()
			}
		}
	})
	for range 20 {
		s.stats(policy.Block)
	}
	close(stop)
	reader.Wait()
	if leaks != 0 {
		t.Errorf("the bad file was opened %d times while the same marks were set again", leaks)
	}
}

// TestSpecialFiles opens what is no regular file: the kernel opens it once more
// for the broker, which must not wait there.
func TestSpecialFiles(t *testing.T) {
	s, inside := inStage(t)
	if !inside {
		return
	}
	s.play(policy.Block)
	must(t, unix.Mkfifo(s.path("fifo"), 0o600))
	got := make(chan string, 1)
	go func() {
		text, err := os.ReadFile(s.path("fifo"))
		got <- fmt.Sprint(string(text), err)
	}()
	for range 5 {
		if took := openFor(s.path("clean")); took > longestWait {
			t.Errorf("an open beside the FIFO took %s", took)
		}
	}
	must(t, os.WriteFile(s.path("fifo"), []byte("through"), 0))
	if text := <-got; text != "through<nil>" {
		t.Errorf("read %q from the FIFO", text)
	}
	must(t, unix.Mknod(s.path("null"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
	if _, err := os.ReadFile(s.path("null")); err != nil {
		t.Error(err)
	}
	stats := s.stats()
	if stats.BrokerStale != 0 || stats.BrokerRuns != 1 || stats.Unscanned() != 0 {
		t.Errorf("the broker was held: %+v", stats)
	}
	sums(t, stats, 0)
}

// openFor measures how long one open takes.
func openFor(name string) time.Duration {
	start := time.Now()
	if f, err := os.Open(name); err == nil {
		_ = f.Close()
	}
	return time.Since(start)
}

// TestSlowJudge lets an open go at the deadline, tells so, and remembers what
// the judge finds after it.
func TestSlowJudge(t *testing.T) {
	s, inside := inStage(t)
	if !inside {
		return
	}
	s.play(policy.Block)
	if took := openFor(s.path("slow")); took < realtime.Deadline || took > longestWait {
		t.Errorf("the open took %s", took)
	}
	s.eventually("the judge hears of the missed open", func() bool { return s.judged("4 slow") > 0 })
	s.eventually("the verdict counts after all", func() bool { return s.denied("slow") })
	if stats := s.stats(); stats.Expired == 0 {
		t.Errorf("nothing expired: %+v", stats)
	}
}

// TestJudgeThatHangs opens more files than there are judges. After a while
// nobody waits any more, but for one opener a second.
func TestJudgeThatHangs(t *testing.T) {
	s, inside := inStage(t)
	if !inside {
		return
	}
	s.play(policy.Block)
	var took []time.Duration
	for i := range 40 {
		name := fmt.Sprintf("hang%d", i)
		s.write(name, "x")
		took = append(took, openFor(s.path(name)))
	}
	if longest := slices.Max(took); longest > longestWait {
		t.Errorf("an open took %s", longest)
	}
	slices.Sort(took)
	if fast := took[15]; fast > realtime.Deadline/2 {
		t.Errorf("openers wait in turn for judges that hang: %v", took)
	}
	stats := s.stats()
	if stats.Unscanned() < 40 {
		t.Errorf("unscanned opens are not counted: %+v", stats)
	}
	sums(t, stats, 0)
}

// TestFlood has many threads open many files at once.
func TestFlood(t *testing.T) {
	s, inside := inStage(t)
	if !inside {
		return
	}
	const threads, files = 40, 500
	for i := range threads * files {
		must(t, os.WriteFile(s.path(fmt.Sprintf("f%d", i)), nil, 0o600))
	}
	s.play(policy.Block)
	opened := make(chan int, threads)
	for thread := range threads {
		go func() {
			n := 0
			for i := range files {
				if f, err := os.Open(s.path(fmt.Sprintf("f%d", thread*files+i))); err == nil {
					n++
					_ = f.Close()
				}
			}
			opened <- n
		}()
	}
	sum := 0
	for range threads {
		select {
		case n := <-opened:
			sum += n
		case <-time.After(30 * time.Second):
			t.Fatalf("openers still wait: %+v", s.stats())
		}
	}
	if sum != threads*files {
		t.Errorf("%d of %d opens went through", sum, threads*files)
	}
	stats := s.stats()
	if stats.Events < threads*files {
		t.Errorf("%d events of %d opens", stats.Events, threads*files)
	}
	sums(t, stats, 0)
}

func TestWithoutGuardian(t *testing.T) {
	if _, err := realtime.Attach(testLog()); err == nil {
		t.Error("a worker without a guardian was attached")
	}
	if err := realtime.RunBroker(t.Context(), testLog()); err == nil {
		t.Error("a broker without a guardian ran")
	}
}
