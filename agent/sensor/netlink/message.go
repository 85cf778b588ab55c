// Package netlink is the sensor's second choice on Linux: the kernel's process
// connector, which tells that a pid forked, executed or ended. What the
// process is has to be read from /proc afterwards, so that one that lives only
// for a moment is known by its pid alone, start times are rounded to the clock
// tick, and connections are not seen.
package netlink

import (
	"encoding/binary"
	"fmt"

	"komainu/event"
)

// Sizes of the headers of a message: nlmsghdr, cn_msg, and proc_event up to
// its union.
const (
	netlinkHeader   = 16
	connectorHeader = 20
	procHeader      = 16
)

// Kinds of proc_event.
const (
	procFork = 0x1
	procExec = 0x2
	procExit = 0x80000000
)

// The connector's address of the process events.
const (
	connectorProc = 1 // CN_IDX_PROC, group and index
	connectorVal  = 1 // CN_VAL_PROC
	listenOp      = 1 // PROC_CN_MCAST_LISTEN
	messageDone   = 3 // NLMSG_DONE
)

// change is one message of the process connector.
type change struct {
	kind       uint32
	cpu        uint32
	seq        uint32 // counts the messages of this cpu
	time       uint64 // nanoseconds of the monotonic clock
	pid, tgid  event.PID
	parentTGID event.PID // of a fork
	status     uint32    // of an exit, as wait(2) reports it
}

// leader reports whether the message is about a process, not about one of its
// further threads.
func (c change) leader() bool { return c.pid == c.tgid }

// parse reads the messages of one datagram and calls f for every one about
// processes. An error means that the rest could not be read.
func parse(b []byte, f func(change)) error {
	le := binary.LittleEndian
	for len(b) >= netlinkHeader {
		size := int(le.Uint32(b))
		if size < netlinkHeader || size > len(b) {
			return fmt.Errorf("netlink message of %d bytes in %d", size, len(b))
		}
		if c, ok := parseConnector(b[netlinkHeader:size]); ok {
			f(c)
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return nil
}

func parseConnector(b []byte) (change, bool) {
	le := binary.LittleEndian
	if len(b) < connectorHeader+procHeader || le.Uint32(b) != connectorProc || le.Uint32(b[4:]) != connectorVal {
		return change{}, false
	}
	seq := le.Uint32(b[8:])
	if size := int(le.Uint16(b[16:])); size < procHeader || size > len(b)-connectorHeader {
		return change{}, false
	}
	b = b[connectorHeader:]
	c := change{kind: le.Uint32(b), cpu: le.Uint32(b[4:]), time: le.Uint64(b[8:]), seq: seq}
	union := b[procHeader:]
	want := map[uint32]int{procFork: 16, procExec: 8, procExit: 16}[c.kind]
	if want == 0 || len(union) < want {
		return change{}, false
	}
	c.pid, c.tgid = event.PID(le.Uint32(union)), event.PID(le.Uint32(union[4:]))
	switch c.kind {
	case procFork:
		c.parentTGID = c.tgid
		c.pid, c.tgid = event.PID(le.Uint32(union[8:])), event.PID(le.Uint32(union[12:]))
	case procExit:
		c.status = le.Uint32(union[8:])
	}
	return c, true
}

// subscription is the message that asks the connector for process events.
func subscription() []byte {
	b := make([]byte, netlinkHeader+connectorHeader+4)
	le := binary.LittleEndian
	le.PutUint32(b, uint32(len(b)))
	le.PutUint16(b[4:], messageDone)
	le.PutUint32(b[netlinkHeader:], connectorProc)
	le.PutUint32(b[netlinkHeader+4:], connectorVal)
	le.PutUint16(b[netlinkHeader+16:], 4)
	le.PutUint32(b[netlinkHeader+connectorHeader:], listenOp)
	return b
}

// gaps finds lost messages by the numbers that each cpu gives its own.
type gaps map[uint32]uint32

// next returns how many messages of the cpu are missing before this one.
func (g gaps) next(cpu, seq uint32) uint64 {
	last, known := g[cpu]
	if len(g) < 1<<16 {
		g[cpu] = seq
	}
	if !known || seq-last == 0 || seq-last > 1<<31 { // the first, or out of order
		return 0
	}
	return uint64(seq - last - 1)
}
