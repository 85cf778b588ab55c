package realtime

import (
	"log/slog"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"komainu/internal/privilege"
)

// IgnoreAges is how many ways there are to leave a mark in the kernel.
const IgnoreAges = len(ignoreFlags)

// IgnoreGroup is a fanotify group that leaves marks as on a kernel of an age.
type IgnoreGroup struct {
	group  *os.File
	ignore *ignorer
}

// NewIgnoreGroup marks the filesystem that holds dir.
func NewIgnoreGroup(dir string, age int) (*IgnoreGroup, error) {
	group, err := createGroup()
	if err != nil {
		return nil, err
	}
	fd, _, err := openMount(dir)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	g := &IgnoreGroup{group: group, ignore: newIgnorer(int(group.Fd()), -1)}
	g.ignore.age = age
	return g, markFilesystem(int(group.Fd()), blockMask, fd)
}

// Serve allows opens and leaves marks until the channel is closed. It returns
// how many opens there were.
func (g *IgnoreGroup) Serve(until <-chan struct{}) (opens int) {
	fd := int(g.group.Fd())
	buf := make([]byte, bufSize)
	for {
		select {
		case <-until:
			return opens
		default:
		}
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int((5 * time.Millisecond).Milliseconds()))
		n, err := unix.Read(fd, buf)
		if err != nil {
			continue
		}
		for rest := buf[:n]; ; {
			e, next, ok := nextEvent(rest)
			if !ok {
				break
			}
			if e.mask&permMask != 0 {
				opens++
				_ = g.ignore.add(int(e.fd))
				_, _ = answer(fd, e.fd, true)
			}
			unix.Close(int(e.fd))
			rest = next
		}
	}
}

// Remove takes the mark of a file back.
func (g *IgnoreGroup) Remove(f *os.File) { g.ignore.remove(int(f.Fd())) }

// FillUp makes the next mark one too many for a kernel that cannot evict.
func (g *IgnoreGroup) FillUp() { g.ignore.kept = maxKept - 1 }

// Age returns which way is in use.
func (g *IgnoreGroup) Age() int { return g.ignore.age }

// Close closes the group.
func (g *IgnoreGroup) Close() error { return g.group.Close() }

// Restrict puts restrictions of the broker on this process: "landlock",
// "seccomp", "both" or none.
func Restrict(how string) error {
	if how == "" {
		return nil
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	switch how {
	case "landlock":
		return restrictFiles()
	case "seccomp":
		return privilege.AllowOnly(brokerCalls...)
	default:
		confine(slog.New(slog.NewTextHandler(os.Stderr, nil)))
		return nil
	}
}
