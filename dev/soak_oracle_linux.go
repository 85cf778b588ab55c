package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// What the oracle holds the agent to.
const (
	// openLimit is how long an open may take, whatever is broken.
	openLimit = 500 * time.Millisecond
	// claimGrace is how long after a blow health may still say what was true
	// before it.
	claimGrace = 1500 * time.Millisecond
	cleanFiles = 100
)

// oracle does what users of the machine do, all the time, and notes what they
// would see. It asks the agent for nothing but its own claim to be healthy.
type oracle struct {
	stack   *Stack
	outside string // a folder that nobody protects, to compare with
	cancel  context.CancelFunc
	workers sync.WaitGroup

	mu         sync.Mutex
	broken     time.Time // when the present fault struck, zero in quiet times
	violations []string
	opens      int
	starved    int // slow opens while the machine itself stood still
	worst      time.Duration
	claims     int             // times that the agent was taken at its word
	malware    map[string]bool // every file that was written with malware
	markers    map[string]bool // programs that ran: true when in quiet times
	fresh      []ran           // programs that ran lately
	stalls     []stall
}

// ran is a program that has run.
type ran struct {
	marker string
	at     time.Time
}

// settled is how long before a blow a program must have run for it to count
// as quiet times: what the kernel holds for an agent that is killed in this
// moment goes with it.
const settled = time.Second

// stall is a time in which the machine did not even run a sleeping thread.
type stall struct{ from, to time.Time }

func newOracle(s *Stack, outside string) (*oracle, error) {
	o := &oracle{stack: s, outside: outside, malware: map[string]bool{}, markers: map[string]bool{}}
	if err := os.MkdirAll(outside, 0o755); err != nil {
		return nil, err
	}
	for i := range cleanFiles {
		if err := o.rewrite(i); err != nil {
			return nil, err
		}
	}
	return o, nil
}

func (o *oracle) clean(i int) string {
	return filepath.Join(o.stack.Demo(), fmt.Sprintf("clean-%d", i))
}

// rewrite gives a clean file content that nobody has seen.
func (o *oracle) rewrite(i int) error {
	text := make([]byte, 1+rand.IntN(64<<10))
	for j := range text {
		text[j] = byte('a' + rand.IntN(26))
	}
	return os.WriteFile(o.clean(i), text, 0o644)
}

// run starts the users.
func (o *oracle) run(ctx context.Context) {
	ctx, o.cancel = context.WithCancel(ctx)
	o.workers.Go(func() { o.meter(ctx) })
	for range 3 {
		o.workers.Go(func() { o.openFiles(ctx) })
	}
	o.workers.Go(func() { o.runPrograms(ctx) })
	o.workers.Go(func() { o.checkClaims(ctx) })
}

func (o *oracle) stop() {
	o.cancel()
	o.workers.Wait()
}

func (o *oracle) breaking() { o.setBroken(time.Now()) }
func (o *oracle) mended()   { o.setBroken(time.Time{}) }

func (o *oracle) setBroken(t time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.broken = t
	for _, r := range o.fresh {
		if !t.IsZero() && t.Sub(r.at) < settled {
			o.markers[r.marker] = false
		}
	}
	o.fresh = nil
}

func (o *oracle) brokenSince() time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.broken
}

func (o *oracle) violation(format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.violations) < 20 {
		o.violations = append(o.violations, fmt.Sprintf(format, args...))
	}
}

// verdict returns what went wrong until now.
func (o *oracle) verdict() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.violations == nil {
		return nil
	}
	return errors.New(strings.Join(o.violations, "\n"))
}

// meter notes when the machine stands still: a thread that only wants to
// sleep for two milliseconds and to read a file that nobody protects.
func (o *oracle) meter(ctx context.Context) {
	probe := filepath.Join(o.outside, "probe")
	if err := os.WriteFile(probe, []byte("probe"), 0o644); err != nil {
		o.violation("write outside: %v", err)
		return
	}
	for ctx.Err() == nil {
		began := time.Now()
		wait(ctx, 2*time.Millisecond)
		_, _ = os.ReadFile(probe)
		if took := time.Since(began); took > 50*time.Millisecond {
			o.mu.Lock()
			o.stalls = append(o.stalls, stall{began, time.Now()})
			o.mu.Unlock()
		}
	}
}

// stood returns how much of a time the machine stood still.
func (o *oracle) stood(from, to time.Time) time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	var sum time.Duration
	for _, s := range o.stalls {
		a, b := s.from, s.to
		if a.Before(from) {
			a = from
		}
		if b.After(to) {
			b = to
		}
		if b.After(a) {
			sum += b.Sub(a)
		}
	}
	return sum
}

// openFiles reads files that are clean, and now and then changes one.
func (o *oracle) openFiles(ctx context.Context) {
	for ctx.Err() == nil {
		i := rand.IntN(cleanFiles)
		if rand.IntN(10) == 0 {
			if err := o.rewrite(i); err != nil {
				o.violation("a clean file cannot be written: %v", err)
				return
			}
		}
		began := time.Now()
		_, err := os.ReadFile(o.clean(i))
		ended := time.Now()
		if err != nil {
			o.violation("a clean file cannot be read: %v", err)
			return
		}
		took := ended.Sub(began)
		stood := time.Duration(0)
		if took > openLimit {
			// The meter has to come to its own end first.
			wait(ctx, 20*time.Millisecond)
			stood = o.stood(began, ended)
		}
		o.mu.Lock()
		o.opens++
		o.worst = max(o.worst, took-stood)
		if stood > 0 {
			o.starved++
		}
		o.mu.Unlock()
		if took-stood > openLimit {
			o.violation("an open took %s, of which the machine stood still for %s", took, stood)
		}
		wait(ctx, time.Duration(rand.IntN(5))*time.Millisecond)
	}
}

// runPrograms runs a program with an argument of its own, again and again.
func (o *oracle) runPrograms(ctx context.Context) {
	for i := 0; ctx.Err() == nil; i++ {
		marker := fmt.Sprintf("--komainu-soak-%d", i)
		quiet := o.brokenSince().IsZero()
		if err := runMarker(ctx, marker); err == nil {
			o.mu.Lock()
			o.markers[marker] = quiet && o.broken.IsZero()
			o.fresh = append(o.fresh, ran{marker, time.Now()})
			o.mu.Unlock()
		}
		wait(ctx, 40*time.Millisecond)
	}
}

// runMarker runs a program that does nothing but carry its argument.
func runMarker(ctx context.Context, marker string) error {
	return exec.CommandContext(ctx, "/bin/true", marker).Run()
}

// write puts malware into a new file of the protected folder.
func (o *oracle) write() (string, error) {
	o.mu.Lock()
	name := filepath.Join(o.stack.Demo(), fmt.Sprintf("eicar-%d.com", len(o.malware)+1))
	o.malware[name] = true
	o.mu.Unlock()
	return name, os.WriteFile(name, eicar, 0o644)
}

func (o *oracle) written() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	names := make([]string, 0, len(o.malware))
	for name := range o.malware {
		names = append(names, name)
	}
	return names
}

// readable reports whether somebody gets to see malware.
func readable(name string) (bool, error) {
	text, err := os.ReadFile(name)
	switch {
	case err == nil:
		return bytes.Contains(text, eicar), nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		return false, nil
	default:
		return false, err
	}
}

// healthy returns what the agent says of itself.
func (o *oracle) healthy(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	out, err := o.stack.CLI(ctx, "health", "--field", "healthy")
	return err == nil && strings.TrimSpace(out) == "true"
}

// checkClaims takes the agent at its word while things are broken: when it
// says before and after that it is healthy, nobody may read malware between.
func (o *oracle) checkClaims(ctx context.Context) {
	for ctx.Err() == nil {
		wait(ctx, 300*time.Millisecond)
		if since := o.brokenSince(); since.IsZero() || time.Since(since) < claimGrace {
			continue
		}
		if err := o.claim(ctx); err != nil && ctx.Err() == nil {
			o.violation("%v", err)
		}
	}
}

// quietly checks the claim in quiet times, a few times.
func (o *oracle) quietly(ctx context.Context) error {
	for range 3 {
		if err := o.claim(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (o *oracle) claim(ctx context.Context) error {
	fault := o.brokenSince()
	if !o.healthy(ctx) {
		return nil
	}
	name, err := o.write()
	if err != nil {
		return err
	}
	o.mu.Lock()
	o.claims++
	o.mu.Unlock()
	read, err := readable(name)
	if err != nil || !read {
		return err
	}
	if !o.healthy(ctx) || !o.brokenSince().Equal(fault) {
		return nil
	}
	return fmt.Errorf("health said that all was well, and %s could be read", name)
}
