package netlink

import (
	"encoding/binary"
	"testing"
)

// message builds one message of the connector.
func message(kind, cpu, seq uint32, union ...uint32) []byte {
	le := binary.LittleEndian
	b := make([]byte, netlinkHeader+connectorHeader+procHeader+4*len(union))
	le.PutUint32(b, uint32(len(b)))
	c := b[netlinkHeader:]
	le.PutUint32(c, connectorProc)
	le.PutUint32(c[4:], connectorVal)
	le.PutUint32(c[8:], seq)
	le.PutUint16(c[16:], uint16(procHeader+4*len(union)))
	p := c[connectorHeader:]
	le.PutUint32(p, kind)
	le.PutUint32(p[4:], cpu)
	for i, v := range union {
		le.PutUint32(p[procHeader+4*i:], v)
	}
	return b
}

func TestParse(t *testing.T) {
	var got []change
	datagram := append(message(procFork, 1, 7, 10, 10, 12, 12), message(procExit, 0, 9, 12, 12, 3<<8, 17, 10, 10)...)
	datagram = append(datagram, message(0, 0, 1, 0)...) // the answer to the subscription
	if err := parse(datagram, func(c change) { got = append(got, c) }); err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0].tgid != 12 || got[0].parentTGID != 10 || !got[0].leader() || got[1].status != 3<<8 || got[1].seq != 9 {
		t.Errorf("%+v", got)
	}
	if err := parse(datagram[:40], func(change) { t.Error("an event of half a message") }); err == nil {
		t.Error("half a message has no error")
	}
}

func TestGaps(t *testing.T) {
	g := gaps{}
	for _, c := range []struct {
		cpu, seq uint32
		lost     uint64
	}{{0, 5, 0}, {0, 6, 0}, {1, 100, 0}, {0, 10, 3}, {1, 101, 0}, {0, 10, 0}, {0, ^uint32(0), 0}, {0, 2, 2}} {
		if got := g.next(c.cpu, c.seq); got != c.lost {
			t.Errorf("cpu %d, number %d: lost %d, want %d", c.cpu, c.seq, got, c.lost)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(message(procFork, 1, 7, 10, 10, 12, 12))
	f.Add(message(procExec, 1, 7, 10, 10))
	f.Add(subscription())
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = parse(b, func(c change) {
			if c.kind != procFork && c.kind != procExec && c.kind != procExit {
				t.Errorf("%+v", c)
			}
		})
	})
}
