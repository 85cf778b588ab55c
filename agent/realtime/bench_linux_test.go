package realtime_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"komainu/policy"
)

// BenchmarkOpen compares open and close of small files without protection, for
// the first time under it (the broker asks the worker, whose judge reads a few
// bytes), and once the kernel knows them. It reports medians; run it with
// KOMAINU_NEED=root.
func BenchmarkOpen(b *testing.B) {
	s, inside := inStage(b)
	if !inside {
		return
	}
	const files = 4000
	names := make([]string, files)
	for i := range names {
		names[i] = s.path(fmt.Sprintf("f%d", i))
		must(b, os.WriteFile(names[i], []byte("content"), 0o600))
	}
	off := median(names)
	off = min(off, median(names))
	s.play(policy.Block)
	cold := median(names)
	var warm []time.Duration
	for range 5 {
		warm = append(warm, median(names))
	}
	for b.Loop() {
		median(names)
	}
	b.ReportMetric(float64(off.Nanoseconds()), "off-ns")
	b.ReportMetric(float64(cold.Nanoseconds()), "cold-ns")
	b.ReportMetric(float64(slices.Min(warm).Nanoseconds()), "warm-ns")
	b.ReportMetric(float64(cold)/float64(off), "cold-ratio")
	b.ReportMetric(float64(slices.Min(warm))/float64(off), "warm-ratio")
}

// median returns the median time to open and close one of the files.
func median(names []string) time.Duration {
	took := make([]time.Duration, len(names))
	for i, name := range names {
		start := time.Now()
		// Without the runtime's poller around it: what is measured is the kernel.
		if fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
			_ = unix.Close(fd)
		}
		took[i] = time.Since(start)
	}
	slices.Sort(took)
	return took[len(took)/2]
}

// BenchmarkReact measures from the close of a written file to its judgement.
func BenchmarkReact(b *testing.B) {
	s, inside := inStage(b)
	if !inside {
		return
	}
	s.play(policy.Block)
	var took []time.Duration
	for b.Loop() {
		for i := range 50 {
			name := fmt.Sprintf("react%d", i)
			s.write(name, badMark)
			closed := time.Now()
			s.eventually("the close is judged", func() bool { return s.judged("2 "+name+" ") > 0 })
			line := strings.Fields(s.judgements("2 " + name + " ")[0])
			at, err := strconv.ParseInt(line[len(line)-1], 10, 64)
			must(b, err)
			took = append(took, time.Unix(0, at).Sub(closed))
			must(b, os.Truncate(filepath.Join(filepath.Dir(s.mount), "judged"), 0))
		}
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)*95/100].Microseconds()), "p95-us")
}
