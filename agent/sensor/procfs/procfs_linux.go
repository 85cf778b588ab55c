package procfs

import (
	"time"

	"golang.org/x/sys/unix"

	"komainu/event"
)

// SystemClock is the running kernel's clock.
func SystemClock() *Clock {
	return NewClock(func() (int64, int64) {
		var boot, wall unix.Timespec
		// Neither call fails: both clocks exist on every kernel that runs Go.
		_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot)
		_ = unix.ClockGettime(unix.CLOCK_REALTIME, &wall)
		return boot.Nano(), wall.Nano()
	})
}

// describeImage describes the file behind name, a link of /proc that follows
// to the executable even when its path leads elsewhere by now.
func describeImage(name, shown string) *event.File {
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		return nil
	}
	return FileOf(shown, &st)
}

// FileOf describes a file by its stat.
func FileOf(path string, st *unix.Stat_t) *event.File {
	return &event.File{
		Path: path, Size: st.Size, Mode: st.Mode,
		Owner:  event.User{UID: st.Uid, EUID: st.Uid, GID: st.Gid, EGID: st.Gid},
		Device: uint64(unix.Major(st.Dev))<<20 | uint64(unix.Minor(st.Dev)), Inode: st.Ino,
		ModTime: time.Unix(st.Mtim.Unix()).UTC(), ChangeTime: time.Unix(st.Ctim.Unix()).UTC(),
	}
}
