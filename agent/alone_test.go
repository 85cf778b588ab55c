//go:build unix

package agent

import (
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"
)

func TestSystemdHearsOfAnAgentAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "30000")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	if err := tellAlone(ctx); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"READY=1", "WATCHDOG=1", "WATCHDOG=1"} {
		if err := socket.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		line := make([]byte, 64)
		n, err := socket.Read(line)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(line[:n]); got != want {
			t.Errorf("systemd hears %q, want %q", got, want)
		}
	}
}
