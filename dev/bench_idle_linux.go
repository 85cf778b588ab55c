package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// idleSpan is a stretch of time: what the agent took, and what else went on.
// An agent whose user does nothing is not idle on a machine where others start
// programs, so both belong together.
type idleSpan struct {
	took  time.Duration
	cpu   map[string]time.Duration // of the agent's processes, by role
	wakes map[string]int           // times that they went to sleep by themselves
	forks int                      // of the whole machine: processes and threads
	tcp   int                      // connections, of the whole machine
	busy  time.Duration            // of all processors
}

// idleAgent measures the agent second by second. It returns all of them, and
// the quarter in which the rest of the machine did least.
func idleAgent(ctx context.Context, s *Stack) (all, quiet idleSpan) {
	var seconds []idleSpan
	before := lookAt(s.agent.PID())
	for len(seconds) < agentIdle && ctx.Err() == nil {
		began := time.Now()
		wait(ctx, time.Second)
		now := lookAt(s.agent.PID())
		one := now.less(before)
		one.took = time.Since(began)
		seconds, before = append(seconds, one), now
	}
	for _, one := range seconds {
		all = all.plus(one)
	}
	slices.SortFunc(seconds, func(a, b idleSpan) int { return cmp.Compare(a.others(), b.others()) })
	for _, one := range seconds[:len(seconds)/4] {
		quiet = quiet.plus(one)
	}
	return all, quiet
}

// others is the processor time that was not the agent's.
func (i idleSpan) others() time.Duration {
	own := time.Duration(0)
	for _, d := range i.cpu {
		own += d
	}
	return i.busy - own
}

func (i idleSpan) percent() float64 { return 100 * (i.busy - i.others()).Seconds() / i.took.Seconds() }

func (i idleSpan) plus(j idleSpan) idleSpan {
	sum := idleSpan{i.took + j.took, map[string]time.Duration{}, map[string]int{}, i.forks + j.forks, i.tcp + j.tcp, i.busy + j.busy}
	for _, part := range []idleSpan{i, j} {
		for role := range part.cpu {
			sum.cpu[role] += part.cpu[role]
			sum.wakes[role] += part.wakes[role]
		}
	}
	return sum
}

func (i idleSpan) less(j idleSpan) idleSpan {
	rest := idleSpan{0, map[string]time.Duration{}, map[string]int{}, i.forks - j.forks, i.tcp - j.tcp, i.busy - j.busy}
	for role := range i.cpu {
		// A thread that has ended takes its figures along.
		rest.cpu[role] = max(0, i.cpu[role]-j.cpu[role])
		rest.wakes[role] = max(0, i.wakes[role]-j.wakes[role])
	}
	return rest
}

func (i idleSpan) String() string {
	var b strings.Builder
	seconds := i.took.Seconds()
	fmt.Fprintf(&b, "the machine started %.0f threads and %.0f connections a second and was %.0f %% of a processor busy without the agent; the agent took, in percent of one,",
		float64(i.forks)/seconds, float64(i.tcp)/seconds, 100*i.others().Seconds()/seconds)
	for _, role := range slices.Sorted(maps.Keys(i.cpu)) {
		fmt.Fprintf(&b, " %s %.2f (%.0f wake-ups/s)", role, 100*i.cpu[role].Seconds()/seconds, float64(i.wakes[role])/seconds)
	}
	return b.String()
}

// lookAt reads the counters of an agent and of the machine.
func lookAt(pid int) idleSpan {
	now := idleSpan{cpu: map[string]time.Duration{}, wakes: map[string]int{}}
	for _, id := range family(pid) {
		command, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", id)) // gone: no name
		role := strings.Split(string(command), "\x00")[min(1, strings.Count(string(command), "\x00"))]
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", id))
		for _, thread := range threads {
			ns, _ := strconv.ParseInt(field(filepath.Join(thread, "schedstat"), "", 0), 10, 64)
			now.cpu[role] += time.Duration(ns)
			now.wakes[role] += number(field(filepath.Join(thread, "status"), "voluntary_ctxt_switches:", 1))
		}
	}
	now.forks = number(field("/proc/stat", "processes ", 1))
	for _, i := range []int{5, 6} { // ActiveOpens, PassiveOpens
		now.tcp += number(lastField("/proc/net/snmp", "Tcp:", i))
	}
	for _, i := range []int{1, 2, 3, 6, 7} { // user, nice, system, irq, softirq
		now.busy += time.Duration(number(field("/proc/stat", "cpu ", i))) * time.Second / clockTick
	}
	return now
}

const clockTick = 100 // USER_HZ: what proc_stat(5) counts in

func number(text string) int {
	n, _ := strconv.Atoi(text) // what is not there is 0
	return n
}

// field returns a word of the first line that begins so, "" if there is none.
func field(file, prefix string, i int) string { return words(file, prefix, i, false) }

// lastField returns a word of the last line that begins so.
func lastField(file, prefix string, i int) string { return words(file, prefix, i, true) }

func words(file, prefix string, i int, last bool) (found string) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "" // it has ended
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); strings.HasPrefix(line, prefix) && len(f) > i {
			if found = f[i]; !last {
				break
			}
		}
	}
	return found
}
