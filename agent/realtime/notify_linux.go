package realtime

import (
	"net"
	"os"
	"strconv"
	"time"
)

// notifier speaks the protocol of sd_notify(3). Without a supervisor that
// listens it says nothing.
type notifier struct {
	conn  net.Conn
	told  bool  // that the agent is ready
	every int64 // nanoseconds between signs of life, 0 for none
	last  int64
}

func newNotifier() *notifier {
	n := &notifier{}
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return n
	}
	conn, err := net.Dial("unixgram", path)
	if err != nil {
		return n
	}
	n.conn = conn
	if us, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64); err == nil {
		n.every = us * 1000 / 3
	}
	return n
}

// ready tells once that the agent protects.
func (n *notifier) ready() {
	if n.conn != nil && !n.told {
		n.told = n.send("READY=1")
	}
}

// alive tells from time to time that the agent lives.
func (n *notifier) alive(now int64) {
	if n.every > 0 && now-n.last > n.every && n.send("WATCHDOG=1") {
		n.last = now
	}
}

func (n *notifier) send(state string) bool {
	// A supervisor that does not read must not hold the watch.
	if err := n.conn.SetWriteDeadline(time.Now().Add(time.Millisecond)); err != nil {
		return false
	}
	_, err := n.conn.Write([]byte(state))
	return err == nil
}

func (n *notifier) close() {
	if n.conn != nil {
		n.conn.Close()
	}
}
