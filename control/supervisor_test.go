package control_test

import (
	"net"
	"path/filepath"
	"testing"
	"time"
)

// TestSystemdIsTold runs a control plane as systemd does.
func TestSystemdIsTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "150000")
	next := func() string {
		t.Helper()
		if err := socket.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		line := make([]byte, 256)
		n, err := socket.Read(line)
		if err != nil {
			t.Fatal(err)
		}
		return string(line[:n])
	}
	p := start(t, t.TempDir())
	if got := next(); got != "READY=1" {
		t.Errorf("first %q", got)
	}
	for range 3 {
		if got := next(); got != "WATCHDOG=1" {
			t.Errorf("then %q", got)
		}
	}
	if code := p.stop(); code != 0 {
		t.Fatal(code)
	}
	for got := next(); got != "STOPPING=1"; got = next() {
		if got != "WATCHDOG=1" {
			t.Fatalf("at the end %q", got)
		}
	}
}
