package netlink

import (
	"log/slog"
	"testing"

	"komainu/agent/sensor/procfs"
	"komainu/agent/sensor/sensortest"
	"komainu/internal/need"
)

func TestProcesses(t *testing.T) {
	need.Root(t)
	clock := procfs.SystemClock()
	proc, err := procfs.Open("/proc", clock, procfs.NewUsers("/etc/passwd"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(proc, clock, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	s.Know(proc.Snapshot())
	sensortest.Processes(t, sensortest.Record(t, s))
	if s.Lost() != 0 {
		t.Errorf("lost %d", s.Lost())
	}
}
