package control

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"
)

// supervisor speaks to systemd in the protocol of sd_notify(3). Where nobody
// listens it says nothing.
type supervisor struct {
	conn  net.Conn
	every time.Duration // between signs of life; 0 for none
}

// tellLimit is how long systemd may take to read a line.
const tellLimit = time.Second

// newSupervisor reads the environment that systemd makes. A socket that is
// named there and cannot be reached is an error: without a word systemd would
// end the control plane later.
func newSupervisor() (*supervisor, error) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return &supervisor{}, nil
	}
	conn, err := net.Dial("unixgram", path)
	if err != nil {
		return nil, fmt.Errorf("tell systemd: %w", err)
	}
	s := &supervisor{conn: conn}
	if us, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64); err == nil && us > 0 {
		s.every = time.Duration(us) * time.Microsecond / 3
	}
	return s, nil
}

// tell sends one state, "READY=1" for example. What is not heard is not worth
// an end.
func (s *supervisor) tell(state string) {
	if s.conn == nil {
		return
	}
	_ = s.conn.SetWriteDeadline(time.Now().Add(tellLimit))
	_, _ = s.conn.Write([]byte(state))
}

// run gives signs of life until ctx ends, each one after alive has found that
// the control plane answers.
func (s *supervisor) run(ctx context.Context, alive func(context.Context) error) error {
	if s.conn == nil || s.every == 0 {
		return nil
	}
	tick := time.NewTicker(s.every)
	defer tick.Stop()
	for {
		asking, cancel := context.WithTimeout(ctx, s.every)
		err := alive(asking)
		cancel()
		if err == nil {
			s.tell("WATCHDOG=1")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (s *supervisor) close() {
	if s.conn != nil {
		s.conn.Close()
	}
}
