package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"komainu/fault"
)

const (
	agentIdle   = 30               // seconds over which idle CPU is measured
	agentFlood  = 10 * time.Second // of programs and file opens
	floodOpens  = 200              // files that the flood reads over and over
	floodSpeaks = "recorded peers, MB: LimaCharlie 2, Velociraptor 30-50, Elastic 200-300, ClamAV 1000 and more"
)

// benchAgent measures what the agent costs while nothing happens, and its
// memory while programs start and files are opened as fast as they can be:
// all its processes together, from outside.
func benchAgent(ctx context.Context, h *House) error {
	s, done, err := benchStack(ctx, h, 29443)
	if err != nil {
		return err
	}
	defer done()
	wait(ctx, 5*time.Second) // the start is not idle
	all, quiet := idleAgent(ctx, s)
	h.Say("all %d seconds: %s", agentIdle, all)
	h.Say("the %d quietest: %s", agentIdle/4, quiet)
	idle, err := pssOf(s.agent.PID())
	if err != nil {
		return err
	}
	most, programs, err := floodAgent(ctx, s)
	if err != nil {
		return err
	}
	info, err := os.Stat(filepath.Join(s.bin, "komainud"))
	if err != nil {
		return err
	}
	h.Say("the flood: %d programs in %s, files opened all the time; %s", programs, agentFlood, floodSpeaks)
	h.Say("agent pss_mb=%.1f flood_pss_mb=%.1f cpu_pct=%.2f quiet_cpu_pct=%.2f size_mb=%.1f", idle, most, all.percent(), quiet.percent(), float64(info.Size())/(1<<20))
	return ctx.Err()
}

// floodAgent starts programs and opens files, and returns the most memory
// that was seen meanwhile.
func floodAgent(ctx context.Context, s *Stack) (most float64, programs int, err error) {
	for i := range floodOpens {
		if err := os.WriteFile(filepath.Join(s.Demo(), fmt.Sprintf("flood-%d", i)), []byte(strings.Repeat(strconv.Itoa(i), 2000)), 0o644); err != nil {
			return 0, 0, err
		}
	}
	flood, cancel := context.WithTimeout(ctx, agentFlood)
	defer cancel()
	go func() {
		for i := 0; flood.Err() == nil; i++ {
			_, _ = os.ReadFile(filepath.Join(s.Demo(), fmt.Sprintf("flood-%d", i%floodOpens)))
		}
	}()
	looked := time.Now()
	for flood.Err() == nil {
		if exec.Command("/bin/true").Run() == nil {
			programs++
		}
		if time.Since(looked) < 200*time.Millisecond {
			continue
		}
		looked = time.Now()
		now, err := pssOf(s.agent.PID())
		if err != nil {
			return 0, 0, err
		}
		most = max(most, now)
	}
	return most, programs, nil
}

// family returns a process and all that descend from it.
func family(pid int) []int {
	names, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil
	}
	children := map[int][]int{}
	for _, name := range names {
		if id, err := strconv.Atoi(filepath.Base(name)); err == nil {
			parent := parentOf(id)
			children[parent] = append(children[parent], id)
		}
	}
	all := []int{pid}
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return slices.Compact(all)
}

// pssOf adds up the proportional set sizes of a family, in MB.
func pssOf(pid int) (float64, error) {
	sum := 0
	for _, id := range family(pid) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", id))
		if err != nil {
			continue // it has ended
		}
		for line := range strings.Lines(string(text)) {
			if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
				kb, err := strconv.Atoi(strings.Fields(rest)[0])
				if err != nil {
					return 0, err
				}
				sum += kb
			}
		}
	}
	if sum == 0 {
		return 0, fault.New(fault.Unavailable, "the agent has no memory: does it run?")
	}
	return float64(sum) / 1024, nil
}
