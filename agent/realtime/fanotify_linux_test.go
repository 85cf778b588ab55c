package realtime

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"
)

func rawEvent(length uint32, version byte, mask uint64, fd, pid int32) []byte {
	b := make([]byte, metaSize)
	binary.NativeEndian.PutUint32(b, length)
	b[4] = version
	binary.NativeEndian.PutUint64(b[8:], mask)
	binary.NativeEndian.PutUint32(b[16:], uint32(fd))
	binary.NativeEndian.PutUint32(b[20:], uint32(pid))
	return b
}

func TestNextEvent(t *testing.T) {
	b := append(rawEvent(metaSize, unix.FANOTIFY_METADATA_VERSION, unix.FAN_OPEN_PERM, 7, 42), make([]byte, metaSize)...)
	e, rest, ok := nextEvent(b)
	if !ok || e.fd != 7 || e.pid != 42 || e.mask != unix.FAN_OPEN_PERM {
		t.Fatalf("event %+v, %v", e, ok)
	}
	if _, _, ok := nextEvent(rest); ok {
		t.Error("zeroes are an event: the guardian would answer descriptor 0")
	}
}

func FuzzNextEvent(f *testing.F) {
	f.Add(rawEvent(metaSize, unix.FANOTIFY_METADATA_VERSION, unix.FAN_OPEN_PERM, 7, 42))
	f.Add(rawEvent(8, unix.FANOTIFY_METADATA_VERSION, 1, 1, 1))
	f.Add(rawEvent(1<<31, unix.FANOTIFY_METADATA_VERSION, 1, 1, 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		for n := 0; ; n++ {
			_, rest, ok := nextEvent(b)
			if !ok {
				return
			}
			if len(rest) >= len(b) || n > len(b) {
				t.Fatal("no progress")
			}
			b = rest
		}
	})
}

func FuzzMessage(f *testing.F) {
	f.Add(make([]byte, messageSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		var m message
		if !m.decode(b) {
			return
		}
		var again [messageSize]byte
		m.encode(&again)
		if string(again[:]) != string(b) {
			t.Error("a message changed on its way")
		}
	})
}
