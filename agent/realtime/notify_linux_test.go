package realtime

import (
	"net"
	"path/filepath"
	"testing"
	"time"
)

func TestNotifier(t *testing.T) {
	newNotifier().ready() // without a supervisor there is nobody to tell
	path := filepath.Join(t.TempDir(), "notify")
	supervisor, err := net.ListenPacket("unixgram", path)
	if err != nil {
		t.Fatal(err)
	}
	defer supervisor.Close()
	if err := supervisor.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "3000000")
	n := newNotifier()
	defer n.close()
	n.ready()
	n.ready()
	const second = int64(time.Second)
	for _, now := range []int64{10 * second, 10*second + second/2, 12 * second} {
		n.alive(now)
	}
	for _, want := range []string{"READY=1", "WATCHDOG=1", "WATCHDOG=1"} {
		var b [64]byte
		k, _, err := supervisor.ReadFrom(b[:])
		if err != nil || string(b[:k]) != want {
			t.Errorf("the supervisor heard %q, %v; want %q", b[:k], err, want)
		}
	}
}
