package realtime

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"komainu/fault"
)

// metaSize is sizeof(struct fanotify_event_metadata).
const metaSize = 24

const permMask = unix.FAN_OPEN_PERM

// Masks of a filesystem's mark by mode.
const (
	blockMask = unix.FAN_OPEN_PERM | unix.FAN_CLOSE_WRITE
	watchMask = unix.FAN_CLOSE_WRITE | unix.FAN_OPEN_EXEC
)

// fanEvent is one event of the group.
type fanEvent struct {
	mask uint64
	fd   int32
	pid  int32
}

// nextEvent takes one event off a buffer that read(2) has filled, or that it
// has not: a zero length ends it. It never panics on damaged bytes.
func nextEvent(b []byte) (e fanEvent, rest []byte, ok bool) {
	if len(b) < metaSize {
		return e, nil, false
	}
	n := binary.NativeEndian.Uint32(b)
	if n < metaSize || int(n) > len(b) || b[4] != unix.FANOTIFY_METADATA_VERSION {
		return e, nil, false
	}
	e.mask = binary.NativeEndian.Uint64(b[8:])
	e.fd = int32(binary.NativeEndian.Uint32(b[16:]))
	e.pid = int32(binary.NativeEndian.Uint32(b[20:]))
	return e, b[n:], true
}

func createGroup() (*os.File, error) {
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_CONTENT|unix.FAN_CLOEXEC|unix.FAN_UNLIMITED_QUEUE|unix.FAN_UNLIMITED_MARKS|unix.FAN_NONBLOCK,
		unix.O_RDONLY|unix.O_LARGEFILE|unix.O_CLOEXEC|unix.O_NOATIME)
	switch {
	case errors.Is(err, unix.EPERM):
		return nil, fault.Wrap(fault.NeedsRoot, err, "real-time protection needs root (CAP_SYS_ADMIN)")
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL):
		return nil, fault.Wrap(fault.Unsupported, err, "this kernel has no fanotify permission events (CONFIG_FANOTIFY_ACCESS_PERMISSIONS)")
	case err != nil:
		return nil, fmt.Errorf("create the fanotify group: %w", err)
	}
	return os.NewFile(uintptr(fd), "fanotify"), nil
}

// answer tells the kernel. An event that was answered already is no error.
func answer(group int, fd int32, allow bool) error {
	var b [8]byte
	binary.NativeEndian.PutUint32(b[:], uint32(fd))
	response := uint32(unix.FAN_DENY)
	if allow {
		response = unix.FAN_ALLOW
	}
	binary.NativeEndian.PutUint32(b[4:], response)
	for {
		_, err := unix.Write(group, b[:])
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.ENOENT):
			return nil
		default:
			return err
		}
	}
}

// mark changes marks of the group on the object that fd refers to.
func mark(group int, flags uint, mask uint64, fd int) error {
	// The path is NULL, which x/sys cannot say.
	_, _, errno := unix.Syscall6(unix.SYS_FANOTIFY_MARK, uintptr(group), uintptr(flags), uintptr(mask), uintptr(fd), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// cacheMark lets the kernel forget the mark when it needs the memory.
const cacheMark = unix.FAN_MARK_IGNORE | unix.FAN_MARK_EVICTABLE

func addIgnore(group int, fd int32) error {
	return mark(group, unix.FAN_MARK_ADD|cacheMark, permMask, int(fd))
}

func removeIgnore(group int, fd int32) error {
	return mark(group, unix.FAN_MARK_REMOVE|unix.FAN_MARK_IGNORE, permMask, int(fd))
}

// message is what broker and worker say to each other: 24 bytes, native
// byte order, with a descriptor beside it where one is named.
type message struct {
	op   uint32
	seq  uint64 // of the event; chosen by the broker
	pid  int32
	arg  uint32
	fd   int32 // number in the broker
	file int   // received or sent beside it, -1 for none
}

// Operations. From broker to worker: opOpen, opClosed, opExec, opMarked. From
// worker to broker: opAnswer, opMark, opFlush.
const (
	opOpen   = 1 + iota // judge and answer; with file
	opClosed            // a writer has closed it; with file
	opExec              // it was executed; with file
	opAnswer            // arg: answerDeny, answerCache
	opMark              // arg: modes below; with file
	opFlush             // drop all marks on inodes
	opClear             // drop all marks on filesystems
	opMarked            // arg: errno of opMark or opClear
)

const (
	answerDeny  = 1
	answerCache = 2

	markBlock = 1
	markWatch = 2
)

const messageSize = 24

func (m *message) encode(b *[messageSize]byte) {
	binary.NativeEndian.PutUint32(b[0:], m.op)
	binary.NativeEndian.PutUint32(b[4:], uint32(m.pid))
	binary.NativeEndian.PutUint64(b[8:], m.seq)
	binary.NativeEndian.PutUint32(b[16:], m.arg)
	binary.NativeEndian.PutUint32(b[20:], uint32(m.fd))
}

func (m *message) decode(b []byte) bool {
	if len(b) != messageSize {
		return false
	}
	m.op = binary.NativeEndian.Uint32(b[0:])
	m.pid = int32(binary.NativeEndian.Uint32(b[4:]))
	m.seq = binary.NativeEndian.Uint64(b[8:])
	m.arg = binary.NativeEndian.Uint32(b[16:])
	m.fd = int32(binary.NativeEndian.Uint32(b[20:]))
	return true
}

// send sends a message without waiting: EAGAIN when the other side is behind.
func send(sock int, m *message) error {
	var b [messageSize]byte
	m.encode(&b)
	var rights []byte
	if m.file >= 0 {
		rights = unix.UnixRights(m.file)
	}
	for {
		err := unix.Sendmsg(sock, b[:], rights, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// receive takes a message without waiting.
func receive(sock int, m *message) error {
	var b [messageSize + 1]byte
	oob := make([]byte, unix.CmsgSpace(int(unsafe.Sizeof(int32(0)))))
	for {
		n, on, _, _, err := unix.Recvmsg(sock, b[:], oob, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		m.file = -1
		if on > 0 {
			if messages, err := unix.ParseSocketControlMessage(oob[:on]); err == nil && len(messages) == 1 {
				if fds, err := unix.ParseUnixRights(&messages[0]); err == nil && len(fds) == 1 {
					m.file = fds[0]
				}
			}
		}
		if n == 0 {
			return unix.ECONNRESET
		}
		if !m.decode(b[:n]) {
			if m.file >= 0 {
				unix.Close(m.file)
			}
			return fmt.Errorf("message of %d bytes", n)
		}
		return nil
	}
}
