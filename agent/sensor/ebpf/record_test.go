package ebpf

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"

	"komainu/agent/sensor/procfs"
	"komainu/event"
)

func testDecoder() *decoder {
	return &decoder{boot: "b", clock: procfs.NewClock(func() (int64, int64) { return 0, int64(1000 * time.Second) })}
}

func head(kind uint32, size int) []byte {
	b := make([]byte, size)
	le := binary.LittleEndian
	le.PutUint64(b, uint64(5*time.Second))
	le.PutUint32(b[8:], kind)
	le.PutUint32(b[12:], uint32(size))
	return b
}

func who(b []byte) {
	le := binary.LittleEndian
	le.PutUint64(b[16:], uint64(4*time.Second)) // start
	le.PutUint64(b[24:], uint64(3*time.Second)) // of the parent
	le.PutUint32(b[40:], 42)
	le.PutUint32(b[44:], 41)
	le.PutUint32(b[48:], 1000)
	copy(b[80:], "comm\x00rest")
}

func execRecord(path, cwd, args string) []byte {
	b := head(kindExec, execSize+len(path)+len(cwd)+len(args))
	who(b)
	le := binary.LittleEndian
	image := b[processSize:]
	le.PutUint64(image, 77)
	le.PutUint32(image[24:], 0x80000005) // with the kernel's mark
	le.PutUint32(image[32:], 0o100755)
	le.PutUint32(image[44:], 1)
	copy(image[48:], "pts3")
	image[64] = 3
	le.PutUint16(image[66:], uint16(len(path)))
	le.PutUint16(image[68:], uint16(len(cwd)))
	le.PutUint16(image[70:], uint16(len(args)))
	copy(b[execSize:], path+cwd+args)
	return b
}

func TestDecodeExec(t *testing.T) {
	ev, _, err := testDecoder().decode(execRecord("cat\x00bin\x00usr\x00", "alice\x00home\x00", "cat\x00\x00a b\x00"))
	if err != nil {
		t.Fatal(err)
	}
	p := ev.Process
	if p.Path != "/usr/bin/cat" || p.Name != "cat" || p.Cwd != "/home/alice" || !slices.Equal(p.Args, []string{"cat", "", "a b"}) || p.TTY != "pts/3" {
		t.Errorf("%+v", p)
	}
	if p.Key != (event.ProcessKey{Boot: "b", PID: 42, Start: uint64(4 * time.Second)}) || p.Parent.PID != 41 || ev.Initiator.Key != p.Parent {
		t.Errorf("keys %v %v", p.Key, p.Parent)
	}
	if !ev.Time.Equal(time.Unix(1005, 0)) || !p.Started.Equal(time.Unix(1004, 0)) {
		t.Errorf("times %v %v", ev.Time, p.Started)
	}
	if p.Image.Inode != 77 || p.Image.ChangeTime.Nanosecond() != 5 || p.User.UID != 1000 || ev.Fields["stdin"] != "inet_socket" || len(ev.Fields) != 1 {
		t.Errorf("%+v %+v %v", p.Image, p.User, ev.Fields)
	}
}

func TestDecodeEndOfThreads(t *testing.T) {
	d := testDecoder()
	exit := func(flags, status uint32) []byte {
		b := head(kindExit, exitSize)
		who(b)
		binary.LittleEndian.PutUint32(b[headSize+60:], flags)
		binary.LittleEndian.PutUint32(b[processSize:], status)
		return b
	}
	ev, _, err := d.decode(exit(threaded, 3<<8))
	if err != nil || *ev.Process.ExitCode != 3 || ev.Process.Signal != 0 {
		t.Fatalf("%+v %v", ev, err)
	}
	if ev, _, err := d.decode(exit(0, 3<<8)); ev != nil || err != nil {
		t.Errorf("the second record of one end: %+v %v", ev, err)
	}
	d = testDecoder()
	if ev, _, _ := d.decode(exit(0, 9|0x80)); ev.Process.Signal != 9 || ev.Process.ExitCode != nil {
		t.Errorf("killed: %+v", ev.Process)
	}
}

func TestDecodeConnection(t *testing.T) {
	b := head(kindConnectFailed, netSize)
	le := binary.LittleEndian
	le.PutUint32(b[24:], 42)
	le.PutUint16(b[32:], 10)
	le.PutUint16(b[36:], 443)
	le.PutUint16(b[38:], 111)
	copy(b[64:], netip.MustParseAddr("::ffff:192.0.2.1").AsSlice())
	ev, _, err := testDecoder().decode(b)
	if err != nil || ev.Action != event.ConnectionFailed || ev.Network.RemoteIP != netip.MustParseAddr("192.0.2.1") ||
		ev.Network.RemotePort != 443 || ev.Network.Failure != "ECONNREFUSED" || ev.Initiator.Key.PID != 42 {
		t.Errorf("%+v %+v %v", ev, ev.Network, err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(execRecord("cat\x00", "tmp\x00", "cat\x00x\x00"))
	f.Add(head(kindExit, exitSize))
	f.Add(head(kindAccept, netSize))
	f.Add(head(kindFork, processSize))
	f.Add(head(99, 16))
	d := testDecoder()
	f.Fuzz(func(t *testing.T, b []byte) {
		ev, _, err := d.decode(b)
		if err != nil && ev != nil {
			t.Error("an event and an error")
		}
		if ev != nil && ev.Process == nil && ev.Network == nil {
			t.Errorf("an event about nothing: %+v", ev)
		}
	})
}

func BenchmarkDecodeExec(b *testing.B) {
	d, record := testDecoder(), execRecord("cat\x00bin\x00usr\x00", "alice\x00home\x00", "cat\x00file\x00")
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := d.decode(record); err != nil {
			b.Fatal(err)
		}
	}
}
