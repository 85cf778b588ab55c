package agent

import (
	"context"
	"net"
	"os"
	"strconv"
	"time"
)

// tellAlone tells systemd, in the protocol of sd_notify(3), that an agent
// without a guardian is there, and then that it lives, until ctx ends: on a
// host where nothing can be guarded the worker is the main process. Where
// nobody listens it says nothing.
func tellAlone(ctx context.Context) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	conn, err := net.Dial("unixgram", path)
	if err != nil {
		return err
	}
	go func() {
		defer conn.Close()
		tell := func(state string) {
			_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
			_, _ = conn.Write([]byte(state)) // what is not heard is not worth an end
		}
		tell("READY=1")
		us, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
		if err != nil || us <= 0 {
			return
		}
		tick := time.NewTicker(time.Duration(us) * time.Microsecond / 3)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				tell("WATCHDOG=1")
			}
		}
	}()
	return nil
}
