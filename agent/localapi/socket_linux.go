package localapi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"komainu/fault"
)

// maxSocketPath is what the kernel keeps of a socket's address.
const maxSocketPath = 107

// ownedListener is a listening socket with the lock that says that it is
// ours. Closing removes the socket; the lock file stays, because removing it
// would let two agents each hold a lock of their own.
type ownedListener struct {
	*net.UnixListener
	lock *os.File
}

// Close may be called more than once.
func (l *ownedListener) Close() error {
	err := l.UnixListener.Close()
	return errors.Join(err, l.lock.Close())
}

// listen takes the socket. The lock beside it goes with the process, however
// that ends, so a socket without a holder is stale; the question whether
// somebody answers covers a lock file that was deleted.
func listen(name string) (net.Listener, error) {
	if err := checkPath(name); err != nil {
		return nil, err
	}
	if err := makeFolder(filepath.Dir(name)); err != nil {
		return nil, permission(err, "make the folder of the socket %s", name)
	}
	lock, err := os.OpenFile(name+".lock", os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, permission(err, "lock the socket %s", name)
	}
	taken := false
	defer func() {
		if !taken {
			lock.Close()
		}
	}()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fault.New(fault.Conflict, "another agent holds %s; stop it first, or give this one its own --state", name)
	} else if err != nil {
		return nil, fmt.Errorf("lock the socket %s: %w", name, err)
	}
	if err := removeStale(name); err != nil {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
	if err != nil {
		return nil, permission(err, "listen on %s", name)
	}
	// Everybody may connect; who may do what is decided call by call.
	if err := os.Chmod(name, 0o666); err != nil {
		l.Close()
		return nil, fmt.Errorf("open the socket %s to callers: %w", name, err)
	}
	taken = true
	return &ownedListener{UnixListener: l, lock: lock}, nil
}

// makeFolder makes a missing folder that everybody may pass, whatever the
// umask; a folder that is there keeps its mode.
func makeFolder(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.Chmod(dir, 0o755)
}

func checkPath(name string) error {
	if len(name) > maxSocketPath {
		return fault.New(fault.Invalid, "the path of the socket is %d bytes long, the system takes %d: %s", len(name), maxSocketPath, name)
	}
	return nil
}

func removeStale(name string) error {
	fi, err := os.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return permission(err, "look at the socket %s", name)
	case fi.Mode().Type() != fs.ModeSocket:
		return fault.New(fault.Conflict, "%s is in the way and is not a socket; move it away", name)
	}
	if c, err := net.Dial("unix", name); err == nil {
		c.Close()
		return fault.New(fault.Conflict, "another agent answers on %s; stop it first, or give this one its own --state", name)
	}
	if err := os.Remove(name); err != nil {
		return permission(err, "remove the stale socket %s", name)
	}
	return nil
}

// permission wraps err with what was tried and, where that is the cause, with
// the kind that says who may.
func permission(err error, format string, args ...any) error {
	if errors.Is(err, fs.ErrPermission) {
		return fault.Wrap(fault.NeedsRoot, err, format, args...)
	}
	return fmt.Errorf(format+": %w", append(args, err)...)
}

// dial connects to the agent.
func dial(ctx context.Context, name string) (net.Conn, error) {
	if err := checkPath(name); err != nil {
		return nil, err
	}
	return (&net.Dialer{}).DialContext(ctx, "unix", name)
}

// callerOn asks the kernel who is at the other end.
func callerOn(c net.Conn) (Caller, error) {
	uc, ok := c.(*net.UnixConn)
	if !ok {
		return Caller{}, fmt.Errorf("caller of a %T is not known", c)
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return Caller{}, err
	}
	var cred *unix.Ucred
	var groups []uint32
	var errCred error
	if err := raw.Control(func(fd uintptr) {
		cred, errCred = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		groups = peerGroups(fd)
	}); err != nil {
		return Caller{}, err
	}
	if errCred != nil {
		return Caller{}, fmt.Errorf("ask for the caller: %w", errCred)
	}
	return Caller{UID: cred.Uid, PID: cred.Pid, Admin: admin(cred.Uid, append(groups, cred.Gid))}, nil
}

// peerGroups returns the supplementary groups of the peer as the kernel knows
// them, which no name service can change. A kernel without the question has
// none.
func peerGroups(fd uintptr) []uint32 {
	groups := make([]uint32, 64)
	for range 2 {
		size := uint32(len(groups) * 4)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch errno {
		case 0:
			return groups[:size/4]
		case unix.ERANGE:
			groups = make([]uint32, size/4)
		default:
			return nil
		}
	}
	return nil
}

// admin reports whether a user with these groups may do everything.
func admin(uid uint32, groups []uint32) bool {
	if uid == 0 || int(uid) == os.Geteuid() {
		return true
	}
	gid, ok := adminGroup()
	return ok && slices.Contains(groups, gid)
}

// adminGroup looks the group up once: it is made by the package before the
// agent first runs.
var adminGroup = sync.OnceValues(func() (uint32, bool) {
	g, err := user.LookupGroup(Group)
	if err != nil {
		return 0, false
	}
	gid, err := strconv.ParseUint(g.Gid, 10, 32)
	return uint32(gid), err == nil
})
