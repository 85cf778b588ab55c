package ebpf

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"

	"komainu/agent/sensor/procfs"
	"komainu/event"
)

// The kinds of records, as in bpf/sensor.c.
const (
	kindFork = iota + 1
	kindExec
	kindExit
	kindConnect
	kindConnectFailed
	kindAccept
	kindListen
	kinds
)

// Sizes of the structures in bpf/sensor.c.
const (
	headSize    = 16
	whoSize     = 80
	processSize = headSize + whoSize
	exitSize    = processSize + 8
	imageSize   = 72
	execSize    = processSize + imageSize
	netSize     = headSize + 16 + 16 + 32
)

// Flags of a record.
const (
	argsTruncated = 1 << iota
	pathTruncated
	argsMissing
	cwdTruncated
	threaded
)

// Fields of events that have no column of their own.
const (
	fieldVia    = "via"
	fieldStdin  = "stdin"
	fieldStdout = "stdout"
)

// decoder turns records into events.
type decoder struct {
	boot  event.BootID
	clock *procfs.Clock
	// recent exits of processes with several threads, see exit.
	exits []event.ProcessKey
}

// subject is what a record says of a process beyond the event.
type subject struct {
	cgroup uint64
	pidns  uint32
	flags  uint32
}

// decode returns the event of a record, and nil without an error for a record
// that tells nothing new.
func (d *decoder) decode(raw []byte) (*event.Event, subject, error) {
	if len(raw) < headSize {
		return nil, subject{}, fmt.Errorf("record of %d bytes", len(raw))
	}
	le := binary.LittleEndian
	kind, size := le.Uint32(raw[8:]), le.Uint32(raw[12:])
	if uint64(size) > uint64(len(raw)) || size < headSize {
		return nil, subject{}, fmt.Errorf("record of kind %d claims %d of %d bytes", kind, size, len(raw))
	}
	raw = raw[:size]
	at := d.clock.Wall(le.Uint64(raw))
	var want int
	switch kind {
	case kindFork:
		want = processSize
	case kindExec:
		want = execSize
	case kindExit:
		want = exitSize
	case kindConnect, kindConnectFailed, kindAccept, kindListen:
		want = netSize
	default:
		return nil, subject{}, fmt.Errorf("record of unknown kind %d", kind)
	}
	if len(raw) < want {
		return nil, subject{}, fmt.Errorf("record of kind %d has %d bytes, want %d", kind, len(raw), want)
	}
	switch kind {
	case kindFork:
		p, s := d.process(raw[headSize:])
		return &event.Event{Time: at, Action: event.ProcessCreated, Process: p, Initiator: parent(p), Fields: map[string]string{fieldVia: "fork"}}, s, nil
	case kindExec:
		return d.exec(at, raw)
	case kindExit:
		return d.exit(at, raw)
	default:
		return d.network(at, kind, raw[headSize:]), subject{}, nil
	}
}

// process reads struct who.
func (d *decoder) process(b []byte) (*event.Process, subject) {
	le := binary.LittleEndian
	p := &event.Process{
		Key:      event.ProcessKey{Boot: d.boot, Start: le.Uint64(b), PID: event.PID(le.Uint32(b[24:]))},
		Name:     text(b[64:80]),
		User:     event.User{UID: le.Uint32(b[32:]), EUID: le.Uint32(b[36:]), GID: le.Uint32(b[40:]), EGID: le.Uint32(b[44:])},
		LoginUID: le.Uint32(b[48:]),
		Session:  le.Uint32(b[52:]),
	}
	p.Started = d.clock.Wall(p.Key.Start)
	if ppid := le.Uint32(b[28:]); ppid != 0 {
		p.Parent = event.ProcessKey{Boot: d.boot, Start: le.Uint64(b[8:]), PID: event.PID(ppid)}
	}
	return p, subject{cgroup: le.Uint64(b[16:]), pidns: le.Uint32(b[56:]), flags: le.Uint32(b[60:])}
}

// parent names who started p, for the process tree to complete.
func parent(p *event.Process) *event.Process {
	if p.Parent.IsZero() {
		return nil
	}
	return &event.Process{Key: p.Parent}
}

// exec reads struct exec.
func (d *decoder) exec(at time.Time, raw []byte) (*event.Event, subject, error) {
	le := binary.LittleEndian
	p, s := d.process(raw[headSize:])
	image, data := raw[processSize:execSize], raw[execSize:]
	pathLen, cwdLen, argsLen := int(le.Uint16(image[66:])), int(le.Uint16(image[68:])), int(le.Uint16(image[70:]))
	if pathLen+cwdLen+argsLen > len(data) {
		return nil, subject{}, fmt.Errorf("exec record: %d+%d+%d bytes of data in %d", pathLen, cwdLen, argsLen, len(data))
	}
	p.Path = joinReversed(data[:pathLen], s.flags&pathTruncated != 0)
	p.Cwd = joinReversed(data[pathLen:pathLen+cwdLen], s.flags&cwdTruncated != 0)
	p.Args = procfs.SplitArgs(data[pathLen+cwdLen : pathLen+cwdLen+argsLen])
	p.Truncated = s.flags&(argsTruncated|argsMissing) != 0
	if p.Path != "/" {
		p.Name = path.Base(p.Path)
	}
	p.TTY = ttyName(text(image[48:64]))
	p.Image = &event.File{
		Path: p.Path, Inode: le.Uint64(image), Size: int64(le.Uint64(image[8:])),
		// The highest bit of the nanoseconds is a mark of the kernel's own since 6.13.
		ChangeTime: time.Unix(int64(le.Uint64(image[16:])), int64(le.Uint32(image[24:])&0x7fffffff)).UTC(),
		Device:     uint64(le.Uint32(image[28:])), Mode: le.Uint32(image[32:]),
	}
	p.Image.Owner = event.User{UID: le.Uint32(image[36:]), EUID: le.Uint32(image[36:]), GID: le.Uint32(image[40:]), EGID: le.Uint32(image[40:])}
	ev := &event.Event{Time: at, Action: event.ProcessCreated, Process: p, Initiator: parent(p)}
	if le.Uint32(image[44:]) == 0 {
		ev.Fields = with(ev.Fields, "image_deleted", "true")
	}
	ev.Fields = with(ev.Fields, fieldStdin, stdio(image[64]))
	ev.Fields = with(ev.Fields, fieldStdout, stdio(image[65]))
	return ev, s, nil
}

func with(fields map[string]string, key, value string) map[string]string {
	if value == "" {
		return fields
	}
	if fields == nil {
		fields = map[string]string{}
	}
	fields[key] = value
	return fields
}

// stdio names what a standard stream is, "" for files and terminals.
func stdio(kind byte) string {
	switch kind {
	case 1:
		return "pipe"
	case 2:
		return "socket"
	case 3:
		return "inet_socket"
	default:
		return ""
	}
}

// exit reads struct exit. Two threads that end at once can both be the last:
// the second record of a process is dropped. It can lack the mark of threads,
// the first one then has it.
func (d *decoder) exit(at time.Time, raw []byte) (*event.Event, subject, error) {
	p, s := d.process(raw[headSize:])
	if slices.Contains(d.exits, p.Key) {
		return nil, s, nil
	}
	if s.flags&threaded != 0 {
		if len(d.exits) == 64 {
			d.exits = slices.Delete(d.exits, 0, 1)
		}
		d.exits = append(d.exits, p.Key)
	}
	status := binary.LittleEndian.Uint32(raw[processSize:])
	p.Signal = int32(status & 0x7f)
	if p.Signal == 0 {
		p.ExitCode = new(int32(status >> 8 & 0xff))
	}
	return &event.Event{Time: at, Action: event.ProcessTerminated, Process: p}, s, nil
}

// network reads struct net_record after its head.
func (d *decoder) network(at time.Time, kind uint32, b []byte) *event.Event {
	le := binary.LittleEndian
	family := le.Uint16(b[16:])
	n := &event.Network{
		Protocol:  "tcp",
		LocalPort: le.Uint16(b[18:]), RemotePort: le.Uint16(b[20:]),
		LocalIP: address(family, b[32:48]), RemoteIP: address(family, b[48:64]),
	}
	ev := &event.Event{Time: at, Network: n, Initiator: &event.Process{
		Key:  event.ProcessKey{Boot: d.boot, Start: le.Uint64(b), PID: event.PID(le.Uint32(b[8:]))},
		User: event.User{EUID: le.Uint32(b[12:])},
	}}
	switch kind {
	case kindConnect:
		ev.Action, n.Direction = event.ConnectionSuccess, event.Outbound
	case kindConnectFailed:
		ev.Action, n.Direction = event.ConnectionFailed, event.Outbound
		n.Failure = failure(le.Uint16(b[22:]))
	case kindAccept:
		ev.Action, n.Direction = event.InboundConnectionAccepted, event.Inbound
	case kindListen:
		ev.Action, n.Direction = event.ListeningConnectionCreated, event.Listening
		n.RemoteIP, n.RemotePort = netip.Addr{}, 0
	}
	return ev
}

// address reads an address of the kernel's family; one of IPv4 within IPv6 is
// given as what it is.
func address(family uint16, b []byte) netip.Addr {
	switch family {
	case 2: // AF_INET
		return netip.AddrFrom4([4]byte(b[:4]))
	case 10: // AF_INET6
		return netip.AddrFrom16([16]byte(b[:16])).Unmap()
	default:
		return netip.Addr{}
	}
}

// failure names the error of a connection. None means that the process gave
// it up before there was an answer.
func failure(errno uint16) string {
	switch errno {
	case 0:
		return "ECANCELED"
	case 101:
		return "ENETUNREACH"
	case 103:
		return "ECONNABORTED"
	case 104:
		return "ECONNRESET"
	case 110:
		return "ETIMEDOUT"
	case 111:
		return "ECONNREFUSED"
	case 113:
		return "EHOSTUNREACH"
	default:
		return fmt.Sprintf("errno %d", errno)
	}
}

// joinReversed makes a path of names that each end with a zero byte, the last
// one first. A path that had more names begins with "…".
func joinReversed(b []byte, more bool) string {
	names := procfs.SplitArgs(b)
	var s strings.Builder
	if more {
		s.WriteString("…")
	}
	for _, name := range slices.Backward(names) {
		s.WriteByte('/')
		s.WriteString(name)
	}
	if s.Len() == 0 {
		return "/"
	}
	return s.String()
}

// text reads a string that a zero byte ends.
func text(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}

// ttyName writes the kernel's name of a pseudo terminal as its path has it.
func ttyName(name string) string {
	if number, ok := strings.CutPrefix(name, "pts"); ok && number != "" {
		return "pts/" + number
	}
	return name
}
