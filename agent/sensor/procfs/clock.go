package procfs

import (
	"sync/atomic"
	"time"
)

// Clock converts the kernel's nanoseconds since boot, which never jump, to the
// wall clock, which can be set. Events of one burst keep their order because
// the difference is read only when Sync is called.
type Clock struct {
	boot atomic.Int64 // Unix nanoseconds of boot
	read func() (sinceBoot, unix int64)
}

// NewClock returns a clock that asks read for both times at once.
func NewClock(read func() (sinceBoot, unix int64)) *Clock {
	c := &Clock{read: read}
	c.Sync()
	return c
}

// Sync takes over a wall clock that was set.
func (c *Clock) Sync() {
	sinceBoot, unix := c.read()
	boot := unix - sinceBoot
	if drift := boot - c.boot.Load(); drift > int64(time.Millisecond) || drift < -int64(time.Millisecond) {
		c.boot.Store(boot)
	}
}

// Wall returns the wall clock's time of a moment since boot, in UTC.
func (c *Clock) Wall(sinceBoot uint64) time.Time {
	return time.Unix(0, c.boot.Load()+int64(sinceBoot)).UTC()
}

// Since returns the time since boot now.
func (c *Clock) Since() uint64 {
	sinceBoot, _ := c.read()
	return uint64(sinceBoot)
}
