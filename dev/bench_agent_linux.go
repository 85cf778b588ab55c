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
	agentIdle   = 30 * time.Second // over which idle CPU is measured
	agentFlood  = 10 * time.Second // of programs and file opens
	clockTick   = 100              // USER_HZ: what proc_pid_stat(5) counts in
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
	before, began := cpuOf(s.agent.PID()), time.Now()
	wait(ctx, agentIdle)
	pct, parts := 0.0, ""
	for role, cpu := range cpuOf(s.agent.PID()) {
		share := 100 * (cpu - before[role]).Seconds() / time.Since(began).Seconds()
		pct += share
		parts += fmt.Sprintf(" %s %.2f", role, share)
	}
	h.Say("idle CPU in percent of a core, by process:%s", parts)
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
	h.Say("agent pss_mb=%.1f flood_pss_mb=%.1f cpu_pct=%.2f size_mb=%.1f", idle, most, pct, float64(info.Size())/(1<<20))
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

// cpuOf returns the CPU time of each process of a family, by its role.
func cpuOf(pid int) map[string]time.Duration {
	cpu := map[string]time.Duration{}
	for _, id := range family(pid) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", id))
		if err != nil {
			continue
		}
		command, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", id)) // gone: no name
		role := strings.Split(string(command), "\x00")[min(1, strings.Count(string(command), "\x00"))]
		_, rest, _ := strings.Cut(string(text), ") ")
		fields := strings.Fields(rest)
		for _, i := range []int{11, 12} { // utime and stime
			if len(fields) > i {
				n, _ := strconv.Atoi(fields[i])
				cpu[role] += time.Duration(n) * time.Second / clockTick
			}
		}
	}
	return cpu
}
