package realtime

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

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
	everyMask = blockMask | watchMask
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
	if n < metaSize || uint64(n) > uint64(len(b)) || b[4] != unix.FANOTIFY_METADATA_VERSION {
		return e, nil, false
	}
	e.mask = binary.NativeEndian.Uint64(b[8:])
	e.fd = int32(binary.NativeEndian.Uint32(b[16:]))
	e.pid = int32(binary.NativeEndian.Uint32(b[20:]))
	return e, b[n:], true
}

// createGroup creates the fanotify group.
//
// The descriptors of events are non-blocking: the kernel opens the file anew
// inside of the reader's read(2), and a FIFO without a writer or a lease of
// somebody else would hold the reader there.
func createGroup() (*os.File, error) {
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_CONTENT|unix.FAN_CLOEXEC|unix.FAN_UNLIMITED_QUEUE|unix.FAN_UNLIMITED_MARKS,
		unix.O_RDONLY|unix.O_LARGEFILE|unix.O_CLOEXEC|unix.O_NOATIME|unix.O_NONBLOCK)
	switch {
	case errors.Is(err, unix.EPERM):
		return nil, fault.Wrap(fault.NeedsRoot, err, "real-time protection needs root (CAP_SYS_ADMIN)")
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL):
		return nil, fault.Wrap(fault.Unsupported, err, "this kernel has no fanotify permission events (CONFIG_FANOTIFY_ACCESS_PERMISSIONS)")
	case err != nil:
		return nil, fmt.Errorf("create the fanotify group: %w", err)
	}
	// Only now non-blocking: an os.File that begins so is made blocking when
	// its descriptor is asked for, and the flag is shared with the broker.
	f := os.NewFile(uintptr(fd), "fanotify")
	if err := unix.SetNonblock(fd, true); err != nil {
		f.Close()
		return nil, fmt.Errorf("make the fanotify group non-blocking: %w", err)
	}
	return f, nil
}

// answer tells the kernel. It reports whether an event was waiting for it.
func answer(group int, fd int32, allow bool) (bool, error) {
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
			return false, nil
		default:
			return err == nil, err
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

// markFilesystem makes the mark of a filesystem have exactly this mask. What
// is new is added first: there is no moment without protection.
func markFilesystem(group int, mask uint64, fd int) error {
	if mask != 0 {
		if err := mark(group, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, mask, fd); err != nil {
			return err
		}
	}
	if surplus := everyMask &^ mask; surplus != 0 {
		err := mark(group, unix.FAN_MARK_REMOVE|unix.FAN_MARK_FILESYSTEM, surplus, fd)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return nil
}

// ignorer sets the marks that make the kernel answer by itself. How it can
// depends on the kernel's age, which the first mark tells.
type ignorer struct {
	group int
	exe   int // the agent's own program, -1 if it could not be opened
	age   int // index of ignoreFlags
	kept  int // marks set that the kernel cannot evict
}

// ignoreFlags are tried from the newest kernel (6.0) over 5.19 to the oldest,
// whose marks keep their inodes in memory.
var ignoreFlags = [...]uint{
	unix.FAN_MARK_IGNORE | unix.FAN_MARK_EVICTABLE,
	unix.FAN_MARK_IGNORED_MASK | unix.FAN_MARK_EVICTABLE,
	unix.FAN_MARK_IGNORED_MASK,
}

// maxKept bounds the inodes that an old kernel is made to keep.
const maxKept = 1 << 14

// newIgnorer lets the kernel allow opens of the agent's own program from now
// on, and evict that never: a process of the agent must be able to start while
// nobody answers. Nobody can write to a program that runs.
func newIgnorer(group, exe int) *ignorer {
	g := &ignorer{group: group, exe: exe}
	g.pin()
	return g
}

func (g *ignorer) pin() {
	if g.exe < 0 {
		return
	}
	err := mark(g.group, unix.FAN_MARK_ADD|ignoreFlags[g.age]&^unix.FAN_MARK_EVICTABLE, permMask, g.exe)
	if errors.Is(err, unix.EINVAL) && g.age == 0 {
		g.age = 1
		_ = mark(g.group, unix.FAN_MARK_ADD|unix.FAN_MARK_IGNORED_MASK, permMask, g.exe)
	}
}

// add makes the kernel allow opens of a file until it is written to. Where a
// writer has it open, the kernel sets nothing.
//
// The mark also asks for what the filesystem's mark asks for anyway: so it
// stays when its ignore mask is taken back. While a mark is being destroyed,
// the kernel lets opens of that file pass without an event.
func (g *ignorer) add(fd int) error {
	for {
		flags := ignoreFlags[g.age]
		err := mark(g.group, unix.FAN_MARK_ADD|flags&unix.FAN_MARK_EVICTABLE, unix.FAN_CLOSE_WRITE, fd)
		if err == nil {
			err = mark(g.group, unix.FAN_MARK_ADD|flags, permMask, fd)
		}
		if errors.Is(err, unix.EINVAL) && g.age < len(ignoreFlags)-1 {
			g.age++
			continue
		}
		if err == nil && g.age == len(ignoreFlags)-1 {
			if g.kept++; g.kept >= maxKept {
				g.flush()
			}
		}
		return err
	}
}

// remove makes the kernel ask again for a file.
func (g *ignorer) remove(fd int) {
	_ = mark(g.group, unix.FAN_MARK_REMOVE|ignoreFlags[g.age]&^unix.FAN_MARK_EVICTABLE, permMask, fd)
}

// flush takes back all.
func (g *ignorer) flush() {
	g.kept = 0
	_ = mark(g.group, unix.FAN_MARK_FLUSH, 0, unix.AT_FDCWD)
	g.pin()
}
