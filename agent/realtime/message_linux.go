package realtime

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// message is what broker and worker say to each other: 24 bytes in native
// byte order, with a descriptor beside it where one is named.
type message struct {
	op   uint32
	pid  int32
	seq  uint64 // of the event or the request; chosen by who begins
	arg  uint32
	fd   int32 // number in the broker
	file int   // received or sent beside it, -1 for none
}

// Operations from broker to worker.
const (
	opOpen   = 1 + iota // judge and answer; with file
	opClosed            // a writer has closed it; with file
	opExec              // it was executed; with file
	opMissed            // it was allowed unseen, arg: reasons; with file
	opDone              // arg: errno of opMark
)

// Operations from worker to broker.
const (
	opAnswer = 16 + iota // arg: answers
	opMark               // arg: mask of the filesystem; with file
	opFlush              // drop all marks on inodes
)

// Answers to an opOpen.
const (
	answerDeny   = 1
	answerCache  = 2
	answerJudged = 4 // by a Judge, not from memory: judgements do not hang
	answerBusy   = 8 // by nobody: there was too much to do
)

// Reasons of an opMissed.
const (
	reasonDeadline = iota
	reasonWorker
	reasonBroker
)

var reasons = [...]string{reasonDeadline: "deadline", reasonWorker: "worker", reasonBroker: "broker"}

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

// socketPair returns the ends of broker and worker. The guardian keeps both,
// so that a restart of either needs no new pair, and messages wait.
func socketPair() (broker, worker *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("create socket pair: %w", err)
	}
	for _, fd := range fds {
		// Room for a burst of some thousand opens; root may exceed the limit.
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 4<<20)
	}
	return os.NewFile(uintptr(fds[0]), "broker"), os.NewFile(uintptr(fds[1]), "worker"), nil
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

// receiver takes messages off a socket. It is for one goroutine at a time.
type receiver struct {
	sock  int
	flags int
	wait  bool // as long as the socket's SO_RCVTIMEO says
	oob   []byte
}

func newReceiver(sock int, wait bool) *receiver {
	r := &receiver{sock: sock, wait: wait, flags: unix.MSG_CMSG_CLOEXEC, oob: make([]byte, unix.CmsgSpace(4))}
	if !wait {
		r.flags |= unix.MSG_DONTWAIT
	}
	return r
}

// next takes a message, EAGAIN if there is none. Whatever comes beside a
// message that is not understood is closed.
func (r *receiver) next(m *message) error {
	var b [messageSize + 1]byte
	for {
		n, on, _, _, err := unix.Recvmsg(r.sock, b[:], r.oob, r.flags)
		if errors.Is(err, unix.EINTR) {
			if r.wait {
				return unix.EAGAIN
			}
			continue
		}
		if err != nil {
			return err
		}
		m.file = rightsOf(r.oob[:on])
		if n == 0 {
			return unix.ECONNRESET
		}
		if !m.decode(b[:n]) {
			m.close()
			return fmt.Errorf("message of %d bytes", n)
		}
		return nil
	}
}

// rightsOf returns the descriptor in a control message, -1 if there is none:
// the receiver may have had no room for one.
func rightsOf(oob []byte) int {
	if len(oob) == 0 {
		return -1
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(messages) != 1 {
		return -1
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return -1
	}
	return fds[0]
}

func (m *message) close() {
	if m.file >= 0 {
		unix.Close(m.file)
		m.file = -1
	}
}

// stampOf identifies a file and its content, and says whether it is a
// regular one.
func stampOf(fd int) (Stamp, bool) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return Stamp{}, false
	}
	return Stamp{Device: st.Dev, Inode: st.Ino, Size: st.Size, ModTime: st.Mtim.Nano(), ChangeTime: st.Ctim.Nano()},
		st.Mode&unix.S_IFMT == unix.S_IFREG
}
