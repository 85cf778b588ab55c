package sensitive

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"komainu/agent/sensor/procfs"
	"komainu/event"
)

const (
	// maxFiles and maxFolders bound the marks, each of which keeps an inode in
	// the kernel's memory.
	maxFiles   = 8192
	maxFolders = 2048
	// again is the least time between two searches that a full queue asks for.
	again = time.Minute
	// deafAgain is the time between searches where a filesystem does not tell
	// of new names.
	deafAgain = 10 * time.Minute
	// undecided is how long an open waits for what follows it.
	undecided    = 200 * time.Millisecond
	maxUndecided = 1024
	// written is how fresh a change must be to be that of the write that ended.
	written = 2 * time.Second
	// reads are the events of a mark.
	reads = unix.FAN_OPEN | unix.FAN_ACCESS | unix.FAN_CLOSE_WRITE
	// pace is how long new names wait while they keep coming: a build makes
	// thousands of files a second, and each would wake this process.
	pace = 10 * time.Millisecond
	// repeat is how long further opens of one file by one process are counted
	// only.
	repeat = time.Second
)

// Config says what to watch.
type Config struct {
	Filesystems []string // mount points
	Users       *procfs.Users
	Roots       []string // folders to search, beside the homes
	Log         *slog.Logger
}

// Open is an open of a sensitive file.
type Open struct {
	PID  event.PID // 0 for a process outside of the agent's pid namespace
	Time time.Time
	File *event.File
}

// Watch holds the marks. Make one with New.
type Watch struct {
	cfg   Config
	files int // group of marks on files and folders
	names int // group of marks on filesystems, -1 without
	wake  int

	mu          sync.Mutex
	filesystems []string
	changed     bool // filesystems are new
	state       State

	// Only Run uses these.
	marked    map[inode]string // path by which it was marked
	folders   map[inode]bool
	mounts    map[[fsidSize]byte]string
	devices   map[uint64]bool
	recent    map[opening]time.Time
	undecided map[opening]Open
	lost      uint64
	missed    bool      // something may have appeared unseen since
	deaf      bool      // a filesystem does not tell of new names
	looked    time.Time // the last search

	repeated atomic.Uint64
}

// State is what a watch covers.
type State struct {
	Files, Folders int
	Filesystems    []string // where new names are noticed
	Searched       bool     // the first search is done
	Reason         string
	Limits         string // filesystems that do not tell of new names on this kernel
}

type inode struct{ dev, ino uint64 }

type opening struct {
	inode
	pid int32
}

// New opens the fanotify groups.
func New(cfg Config) (*Watch, error) {
	files, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK,
		unix.O_RDONLY|unix.O_LARGEFILE|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOATIME)
	if err != nil {
		return nil, fmt.Errorf("open a fanotify group: %w", err)
	}
	w := &Watch{cfg: cfg, files: files, names: -1, wake: -1, filesystems: cfg.Filesystems, changed: true}
	w.names, err = unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_REPORT_DFID_NAME|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK, 0)
	if err != nil {
		w.names = -1
	}
	w.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		w.Close()
		return nil, fmt.Errorf("make an eventfd: %w", err)
	}
	return w, nil
}

// Close removes all marks. Run must have ended.
func (w *Watch) Close() error {
	w.mu.Lock() // interrupt must not write to what another file has become
	defer w.mu.Unlock()
	var errs []error
	for _, fd := range []*int{&w.files, &w.names, &w.wake} {
		if *fd >= 0 {
			errs = append(errs, unix.Close(*fd))
			*fd = -1
		}
	}
	return errors.Join(errs...)
}

// SetFilesystems replaces the mount points and searches again.
func (w *Watch) SetFilesystems(mounts []string) {
	w.mu.Lock()
	w.filesystems, w.changed = slices.Clone(mounts), true
	w.mu.Unlock()
	w.interrupt()
}

// State returns what is covered now.
func (w *Watch) State() State {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state
}

// Repeated counts opens that were left out because the same process had the
// same file open within the last second.
func (w *Watch) Repeated() uint64 { return w.repeated.Load() }

func (w *Watch) interrupt() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.wake < 0 {
		return
	}
	_, _ = unix.Write(w.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // a full eventfd wakes as well
}

// Run watches until ctx ends. It calls opened for opens of sensitive files and
// overflow with the number of times that the kernel's queue was full.
func (w *Watch) Run(ctx context.Context, opened func(Open), overflow func(times uint64)) error {
	stop := context.AfterFunc(ctx, w.interrupt)
	defer stop()
	buffer := make([]byte, 64<<10)
	var named time.Time // when new names were last read
	for ctx.Err() == nil {
		wait := w.refresh()
		sooner := func(ms int) {
			if ms >= 0 && (wait < 0 || ms < wait) {
				wait = ms
			}
		}
		sooner(w.overdue(opened))
		names := w.names
		if rest := pace - time.Since(named); rest > 0 {
			names = -1 // which poll(2) leaves out
			sooner(int(rest.Milliseconds()) + 1)
		}
		fds := []unix.PollFd{{Fd: int32(w.wake), Events: unix.POLLIN}, {Fd: int32(w.files), Events: unix.POLLIN}, {Fd: int32(names), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, wait); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for opens: %w", err)
		}
		_, _ = unix.Read(w.wake, buffer[:8]) // empty it; EAGAIN means that it is
		if time.Since(named) >= pace {
			if err := w.drain(w.names, buffer, func(n notice) { named = time.Now(); w.appeared(n) }); err != nil {
				return err
			}
		}
		if err := w.drain(w.files, buffer, func(n notice) { w.opened(n, opened) }); err != nil {
			return err
		}
		if w.lost != 0 {
			overflow(w.lost)
			w.lost, w.missed = 0, true
		}
	}
	return nil
}

// drain reads a group until it is empty.
func (w *Watch) drain(group int, buffer []byte, f func(notice)) error {
	for group >= 0 {
		n, err := unix.Read(group, buffer)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EBADF), errors.Is(err, unix.EFAULT):
			return fmt.Errorf("read opens: %w", err)
		case err != nil: // the file of one event could not be opened, the event is gone
			w.lost++
			continue
		}
		if err := parse(buffer[:n], f); err != nil {
			return err
		}
	}
	return nil
}

// opened handles an event of the group of files. Its file descriptor is ours
// to close.
//
// The kernel tells of opens, reads and ends of writing, but not what an open is
// for. A read settles it. An open without one waits a moment: for the end of a
// write, which with a change of the file means that a secret was written, not
// looked for. What maps the file into memory reads without telling, so that an
// open that nothing follows counts as a read.
func (w *Watch) opened(n notice, report func(Open)) {
	if n.overflow {
		w.lost++
		return
	}
	if n.fd < 0 {
		return
	}
	defer unix.Close(int(n.fd))
	var st unix.Stat_t
	if err := unix.Fstat(int(n.fd), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return
	}
	now := time.Now()
	key := opening{inode{st.Dev, st.Ino}, n.pid}
	if last, ok := w.recent[key]; ok && now.Sub(last) < repeat {
		if n.mask&unix.FAN_OPEN != 0 {
			w.repeated.Add(1)
		}
		return
	}
	before, waits := w.undecided[key]
	if n.mask&unix.FAN_ACCESS == 0 && n.mask&unix.FAN_CLOSE_WRITE != 0 {
		if changed := time.Unix(st.Mtim.Unix()); now.Sub(changed) < written {
			delete(w.undecided, key)
			return
		}
	}
	o, ok := before, waits
	if !waits {
		o, ok = w.describe(n, &st, key.inode, now)
	}
	switch {
	case !ok:
	case n.mask&(unix.FAN_ACCESS|unix.FAN_CLOSE_WRITE) == 0 && len(w.undecided) < maxUndecided:
		if !waits {
			w.undecided[key] = o
		}
	default:
		w.decide(key, o, report)
	}
}

// decide reports an open as a read.
func (w *Watch) decide(key opening, o Open, report func(Open)) {
	delete(w.undecided, key)
	if len(w.recent) >= 4096 {
		clear(w.recent)
	}
	w.recent[key] = o.Time
	report(o)
}

// overdue reports the opens that nothing followed in time. It returns the
// milliseconds until the next one is due, -1 if none waits.
func (w *Watch) overdue(report func(Open)) int {
	next := -1
	for key, o := range w.undecided {
		if left := undecided - time.Since(o.Time); left <= 0 {
			w.decide(key, o, report)
		} else if ms := int(left.Milliseconds()) + 1; next < 0 || ms < next {
			next = ms
		}
	}
	return next
}

// describe says which file an event is about, and false if it is no secret.
func (w *Watch) describe(n notice, st *unix.Stat_t, key inode, now time.Time) (Open, bool) {
	path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(int(n.fd)))
	if err != nil {
		return Open{}, false
	}
	class, byContent := Classify(path)
	if class == event.NotSensitive { // it has another name by now, or a link was opened
		if path, ok := w.marked[key]; ok {
			class, byContent = Classify(path)
		}
	}
	if byContent {
		content := make([]byte, sample)
		size, _ := unix.Pread(int(n.fd), content, 0)
		if !HoldsKey(content[:max(size, 0)]) {
			if size > 0 {
				w.unmark(int(n.fd), key)
			}
			return Open{}, false
		}
	}
	if class == event.NotSensitive {
		return Open{}, false
	}
	file := procfs.FileOf(path, st)
	file.Sensitive = class
	return Open{PID: event.PID(max(n.pid, 0)), Time: now.UTC(), File: file}, true
}

// unmark forgets a file that turned out to hold no key.
func (w *Watch) unmark(fd int, key inode) {
	if _, ok := w.marked[key]; ok {
		_ = unix.FanotifyMark(w.files, unix.FAN_MARK_REMOVE, reads, fd, "") // gone is as good
		delete(w.marked, key)
		w.publish()
	}
}
