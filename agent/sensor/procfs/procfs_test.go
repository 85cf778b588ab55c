package procfs

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"komainu/event"
)

func TestParseStat(t *testing.T) {
	line := "42 (a) b (c) S 41 42 40 34816 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 12345 1 2"
	s, err := parseStat([]byte(line))
	if err != nil || s.comm != "a) b (c" || s.ppid != 41 || s.session != 40 || s.start != 12345*tick || ttyName(s.tty) != "pts/0" {
		t.Errorf("%+v, %v", s, err)
	}
	for _, bad := range []string{"", "42", "42 (a", ")42(", "42 (a) S 1", "42 (a) S x 42 40 0 -1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 1"} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q has no error", bad)
		}
	}
}

func TestParseStatus(t *testing.T) {
	s := parseStatus([]byte("Name:\tx\nUid:\t1000\t0\t0\t0\nGid:\t5\t6\t7\t8\n"))
	if s != (ids{1000, 0, 5, 6}) {
		t.Errorf("%+v", s)
	}
}

func TestTTYName(t *testing.T) {
	for device, want := range map[uint32]string{0: "", 136 << 8: "pts/0", 137<<8 | 1: "pts/257", 4<<8 | 1: "tty1", 4<<8 | 64: "ttyS0", 5 << 8: "5:0"} {
		if got := ttyName(device); got != want {
			t.Errorf("ttyName(%#x) = %q, want %q", device, got, want)
		}
	}
}

func TestParseCGroup(t *testing.T) {
	const id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	for _, c := range []struct{ text, group, container string }{
		{"0::/system.slice/cron.service\n", "/system.slice/cron.service", ""},
		{"0::/system.slice/docker-" + id + ".scope\n", "/system.slice/docker-" + id + ".scope", id},
		{"12:memory:/docker/" + id + "\n1:name=systemd:/docker/" + id + "\n0::/\n", "/docker/" + id, id},
		{"0::/kubepods.slice/cri-containerd-" + id + ".scope", "/kubepods.slice/cri-containerd-" + id + ".scope", id},
		{"", "", ""},
		{"x\n0:a\n", "", ""},
	} {
		if group, container := parseCGroup([]byte(c.text)); group != c.group || container != c.container {
			t.Errorf("%q: %q, %q", c.text, group, container)
		}
	}
}

func TestUsers(t *testing.T) {
	file := filepath.Join(t.TempDir(), "passwd")
	if err := os.WriteFile(file, []byte("root:x:0:0:root:/root:/bin/sh\n# x\ntoor:x:0:0::/root:\nalice:x:1000:1000::/home/alice:\nbad:x:y:0::/:\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	u := NewUsers(file)
	if u.Name(0) != "root" || u.Name(1000) != "alice" || u.Name(5) != "" {
		t.Errorf("%q %q %q", u.Name(0), u.Name(1000), u.Name(5))
	}
	if all := u.Accounts(); len(all) != 3 || all[2].Home != "/home/alice" {
		t.Errorf("%+v", all)
	}
	if NewUsers(filepath.Join(t.TempDir(), "none")).Name(0) != "" {
		t.Error("a missing file names nobody")
	}
}

func TestClockFollowsOnlyRealChanges(t *testing.T) {
	var boot, wall int64 = 0, int64(time.Hour)
	c := NewClock(func() (int64, int64) { return boot, wall })
	first := c.Wall(5)
	boot, wall = boot+1000, wall+1500 // noise of two reads
	c.Sync()
	if !c.Wall(5).Equal(first) {
		t.Error("half a microsecond of noise moved the clock")
	}
	wall += int64(time.Minute)
	c.Sync()
	if d := c.Wall(5).Sub(first); d < time.Minute || d > time.Minute+time.Millisecond {
		t.Errorf("a clock that was set moved by %v", d)
	}
}

func TestThisProcess(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc")
	}
	f, err := Open("/proc", NewClock(func() (int64, int64) { return 0, 0 }), NewUsers("/etc/passwd"))
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(f.Snapshot(), func(p event.Process) bool { return int(p.Key.PID) == os.Getpid() })
	if i < 0 {
		t.Fatal("this process is not in the snapshot")
	}
	p := f.Snapshot()[i]
	exe, _ := os.Executable()
	if p.Path != exe || !slices.Equal(p.Args, os.Args) || p.User.UID != uint32(os.Getuid()) || int(p.Parent.PID) != os.Getppid() || !p.Key.Inexact || p.Image == nil {
		t.Errorf("%+v", p)
	}
	if _, err := f.Process(1 << 30); err == nil {
		t.Error("a pid that nobody has has no error")
	}
}

func FuzzStat(f *testing.F) {
	f.Add([]byte("42 (a) b (c) S 41 42 40 34816 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 12345 1 2"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := parseStat(b); err == nil && s.start%tick != 0 {
			t.Errorf("%+v", s)
		}
		parseStatus(b)
		parseCGroup(b)
		parseAccount(string(b))
	})
}
