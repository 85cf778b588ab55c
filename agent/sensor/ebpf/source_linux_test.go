package ebpf

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"komainu/agent/sensor/procfs"
	"komainu/agent/sensor/sensortest"
	"komainu/event"
	"komainu/internal/need"
)

func open(t *testing.T) (*Source, *procfs.FS) {
	t.Helper()
	need.Root(t)
	clock := procfs.SystemClock()
	proc, err := procfs.Open("/proc", clock, procfs.NewUsers("/etc/passwd"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open("/proc", proc, clock, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, proc
}

func TestObjectFitsThisCode(t *testing.T) {
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
	if err != nil {
		t.Fatal(err)
	}
	if n := spec.Maps["counts"].MaxEntries; n != 2*kinds {
		t.Errorf("the object has %d counters, this package wants %d", n, 2*kinds)
	}
	if spec.ByteOrder != binary.LittleEndian {
		t.Errorf("the object is for %v", spec.ByteOrder)
	}
	for _, tier := range tiers {
		for _, name := range tier.programs {
			if p := spec.Programs[name]; p == nil || p.License != "Dual MIT/GPL" {
				t.Errorf("program %s: %+v", name, p)
			}
		}
	}
}

func TestProcesses(t *testing.T) {
	s, _ := open(t)
	sensortest.Processes(t, sensortest.Record(t, s))
}

// pidns is the number of this process's pid namespace.
func pidns(t *testing.T) uint32 {
	t.Helper()
	var ns syscall.Stat_t
	if err := syscall.Stat("/proc/self/ns/pid", &ns); err != nil {
		t.Fatal(err)
	}
	return uint32(ns.Ino)
}

// older says why a kernel does not load a tier: one before 5.11 has no storage
// in sockets for these programs.
func older(t *testing.T, tier tier) string {
	t.Helper()
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	var major, minor int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &major, &minor); err != nil {
		t.Fatal(err)
	}
	if (major < 5 || major == 5 && minor < 11) && slices.Contains(tier.programs, "on_state") {
		return fmt.Sprintf("%v needs Linux 5.11", tier.programs)
	}
	return ""
}

func TestEveryTierLoads(t *testing.T) {
	s, _ := open(t)
	for _, tier := range tiers {
		if why := older(t, tier); why != "" {
			t.Log(why)
			continue
		}
		if err := s.use(tier, pidns(t)); err != nil {
			t.Errorf("%v: %v", tier.programs, err)
		}
	}
}

func TestStartTimesOfRunningProcessesAreExact(t *testing.T) {
	s, proc := open(t)
	running := proc.Snapshot()
	s.Exact(running)
	self := event.PID(os.Getpid())
	for _, p := range running {
		if p.Key.PID == self {
			if p.Key.Inexact || p.Parent.Inexact || p.Parent.PID != event.PID(os.Getppid()) {
				t.Errorf("key %v, parent %v", p.Key, p.Parent)
			}
			return
		}
	}
	t.Error("this process is not in the snapshot")
}

func TestConnections(t *testing.T) {
	for _, tier := range tiers {
		if tier.network && older(t, tier) == "" {
			for _, ip := range []string{"127.0.0.1", "::1"} {
				t.Run(fmt.Sprintf("%d programs/%s", len(tier.programs), ip), func(t *testing.T) { connections(t, tier, ip) })
			}
		}
	}
}

func connections(t *testing.T, tier tier, ip string) {
	need.Program(t, "bash")
	old, err := net.Listen("tcp", net.JoinHostPort(ip, "0")) // older than the sensor
	if err != nil {
		t.Skip(err)
	}
	defer old.Close()
	s, _ := open(t)
	if err := s.use(tier, pidns(t)); err != nil || !s.Network() || s.Lacks() != tier.lacks {
		t.Fatalf("lacks %q, %v", s.Lacks(), err)
	}
	r := sensortest.Record(t, s)
	young, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		t.Fatal(err)
	}
	port := netip.MustParseAddrPort(young.Addr().String()).Port()
	self := event.PID(os.Getpid())
	r.Wait("listening", func(ev event.Event) bool {
		return ev.Action == event.ListeningConnectionCreated && ev.Initiator.Key.PID == self &&
			ev.Network.LocalPort == port && ev.Network.LocalIP == netip.MustParseAddr(ip) && ev.Network.Direction == event.Listening
	})
	for _, l := range []net.Listener{young, old} {
		at := netip.MustParseAddrPort(l.Addr().String())
		client, remote := connect(t, at, true)
		out := r.Wait("connected", func(ev event.Event) bool {
			return ev.Action == event.ConnectionSuccess && ev.Initiator.Key.PID == client && ev.Network.RemotePort == at.Port()
		})
		if out.Network.RemoteIP != at.Addr() || out.Network.LocalIP != at.Addr() || out.Network.LocalPort == 0 || out.Network.Protocol != "tcp" {
			t.Errorf("connected: %+v", out.Network)
		}
		if l == old && !tier.olds {
			continue // its owner is not known
		}
		in := r.Wait("accepted", func(ev event.Event) bool {
			return ev.Action == event.InboundConnectionAccepted && ev.Network.LocalPort == at.Port()
		})
		if in.Initiator.Key.PID != self || in.Network.RemotePort != out.Network.LocalPort || in.Network.RemoteIP != at.Addr() {
			t.Errorf("accepted by %v: %+v, client %v", in.Initiator.Key, in.Network, remote)
		}
	}
	young.Close()
	client, _ := connect(t, netip.AddrPortFrom(netip.MustParseAddr(ip), port), false)
	failed := r.Wait("refused", func(ev event.Event) bool {
		return ev.Action == event.ConnectionFailed && ev.Initiator.Key.PID == client
	})
	if failed.Network.Failure != "ECONNREFUSED" || failed.Network.RemotePort != port {
		t.Errorf("refused: %+v", failed.Network)
	}
}

// connect lets another process connect.
func connect(t *testing.T, to netip.AddrPort, works bool) (event.PID, netip.AddrPort) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash", "-c", fmt.Sprintf("exec 3<>/dev/tcp/%s/%d", to.Addr(), to.Port()))
	if err := cmd.Run(); (err == nil) != works {
		t.Fatalf("connect to %v: %v", to, err)
	}
	return event.PID(cmd.Process.Pid), to
}

// TestNothingIsLost counts a burst of processes by what the shell that starts
// them knows.
func TestNothingIsLost(t *testing.T) {
	s, _ := open(t)
	r := sensortest.Record(t, s)
	const burst = 2000
	cmd := exec.CommandContext(t.Context(), "sh", "-c", fmt.Sprintf("i=0; while [ $i -lt %d ]; do /bin/true; i=$((i+1)); done", burst))
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	parent := event.PID(cmd.Process.Pid)
	var forks, execs, ends int
	children := map[event.ProcessKey]bool{}
	for _, ev := range r.Events() {
		switch {
		case ev.Action == event.EventsLost:
			t.Errorf("lost %+v", ev.Loss)
		case ev.Process == nil || ev.Process.Parent.PID != parent && !children[ev.Process.Key]:
		case ev.Fields["via"] == "fork":
			children[ev.Process.Key] = true
			forks++
		case ev.Action == event.ProcessCreated:
			execs++
		case ev.Action == event.ProcessTerminated:
			ends++
		}
	}
	if forks != burst || execs != burst || ends != burst || len(children) != burst {
		t.Errorf("%d forks, %d execs, %d ends of %d different processes, want %d of each", forks, execs, ends, len(children), burst)
	}
	if s.Lost() != 0 || s.broken.Load() != 0 {
		t.Errorf("lost %d, broken %d", s.Lost(), s.broken.Load())
	}
}

// TestThreadsEndOnce runs a program whose threads end in any order.
func TestThreadsEndOnce(t *testing.T) {
	s, _ := open(t)
	r := sensortest.Record(t, s)
	for range 20 {
		cmd := exec.CommandContext(t.Context(), "go", "version") // many threads, exit_group from one
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
		ends := 0
		for _, ev := range r.Events() {
			if ev.Action == event.ProcessTerminated && ev.Process.Key.PID == event.PID(cmd.Process.Pid) {
				ends++
			}
		}
		if ends != 1 {
			t.Fatalf("process %d ended %d times", cmd.Process.Pid, ends)
		}
	}
}

func TestProcessInANewPidNamespaceHasThisHostsPid(t *testing.T) {
	s, _ := open(t)
	r := sensortest.Record(t, s)
	cmd := exec.CommandContext(t.Context(), "sh", "-c", "exit 9")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	if err := cmd.Run(); err == nil {
		t.Fatal("the program did not run")
	}
	r.Wait("its exec", func(ev event.Event) bool {
		return ev.Action == event.ProcessCreated && ev.Fields["via"] == "" && ev.Process.Key.PID == event.PID(cmd.Process.Pid)
	})
}

// TestNeighboursAreNotReported has the sensor stand in another pid namespace,
// as agents in containers beside each other do: what runs outside of it is
// another host's, what runs below it is this one's.
func TestNeighboursAreNotReported(t *testing.T) {
	s, _ := open(t)
	inside := exec.CommandContext(t.Context(), "sh", "-c", "read go; /bin/echo from-the-inside; read end")
	inside.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	orders, err := inside.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := inside.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = orders.Close(); _ = inside.Wait() }()
	var ns syscall.Stat_t
	if err := syscall.Stat(fmt.Sprintf("/proc/%d/ns/pid", inside.Process.Pid), &ns); err != nil {
		t.Fatal(err)
	}
	if err := s.use(tiers[0], uint32(ns.Ino)); err != nil {
		t.Skip(err)
	}
	r := sensortest.Record(t, s)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	for range 3 {
		if err := exec.CommandContext(t.Context(), "/bin/echo", "from-the-outside").Run(); err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	if _, err := orders.Write([]byte("go\n")); err != nil {
		t.Fatal(err)
	}
	ev := r.Wait("the program inside", func(ev event.Event) bool {
		return ev.Action == event.ProcessCreated && slices.Contains(ev.Process.Args, "from-the-inside")
	})
	if ev.Process.Key.PID != 2 && ev.Process.Key.PID != 3 {
		t.Errorf("it has the number %d there", ev.Process.Key.PID)
	}
	for _, ev := range r.Events() {
		if ev.Process != nil && slices.Contains(ev.Process.Args, "from-the-outside") || ev.Network != nil {
			t.Errorf("a neighbour's doing is reported: %s of %+v", ev.Action, ev.Process)
		}
	}
}
