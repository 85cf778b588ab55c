package quarantine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"komainu/fault"
)

// original is the file to remove: a handle of its folder and its name there.
type original struct {
	folder int
	name   string
	path   string
	dev    uint64
	ino    uint64
}

// findOriginal opens the folder of a path and checks that the name in it is
// the file. Links on the way are followed as the opener did; the last name is
// not a link, because the kernel told the path of the file itself.
func findOriginal(path string, info fs.FileInfo) (*original, error) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil, fault.New(fault.Unsupported, "this filesystem does not tell files apart")
	}
	folder, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fault.Wrap(fault.Conflict, err, "the folder of %s", path)
	}
	o := &original{folder: folder, name: filepath.Base(path), path: path, dev: st.Dev, ino: st.Ino}
	if err := o.same(); err != nil {
		o.close()
		return nil, err
	}
	return o, nil
}

func (o *original) same() error {
	var st unix.Stat_t
	if err := unix.Fstatat(o.folder, o.name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fault.Wrap(fault.Conflict, err, "%s is not there any more", o.path)
	}
	if st.Dev != o.dev || st.Ino != o.ino {
		return fault.New(fault.Conflict, "%s is another file by now", o.path)
	}
	return nil
}

// remove unlinks the name if it still means the file. Between the look and
// the unlink the name can be given to another file, but only by somebody who
// may remove that file himself: it takes the right to write to both folders,
// and where the sticky bit is set, to be its owner.
func (o *original) remove() error {
	if err := o.same(); err != nil {
		return err
	}
	if err := unix.Unlinkat(o.folder, o.name, 0); err != nil {
		return fmt.Errorf("remove %s: %w", o.path, err)
	}
	return nil
}

// realFolder returns the path of the folder without symbolic links, "" when
// the kernel does not tell.
func (o *original) realFolder() string {
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", o.folder))
	if err != nil || !filepath.IsAbs(path) {
		return ""
	}
	return path
}

func (o *original) close() { _ = unix.Close(o.folder) }

// ownerOf returns who owns a file, by number and by name.
func ownerOf(info fs.FileInfo) (uid, gid int, name string) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return -1, -1, ""
	}
	uid, gid = int(st.Uid), int(st.Gid)
	userName, groupName := strconv.Itoa(uid), strconv.Itoa(gid)
	if u, err := user.LookupId(userName); err == nil {
		userName = u.Username
	}
	if g, err := user.LookupGroupId(groupName); err == nil {
		groupName = g.Name
	}
	return uid, gid, userName + ":" + groupName
}

// giveBack restores owner, mode and time. Set-user-id bits are not among the
// mode: a restored file starts without them.
func giveBack(f *os.File, o Object) error {
	if o.UID >= 0 {
		if err := f.Chown(o.UID, o.GID); err != nil && !errors.Is(err, fs.ErrPermission) {
			return err
		}
	}
	if err := f.Chmod(fs.FileMode(o.Mode)); err != nil {
		return err
	}
	return unix.Futimes(int(f.Fd()), []unix.Timeval{unix.NsecToTimeval(o.ModTime.UnixNano()), unix.NsecToTimeval(o.ModTime.UnixNano())})
}

// enoughSpace keeps the quarantine from filling the disk.
func enoughSpace(dir string, size int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return err
	}
	free := int64(st.Bavail) * st.Bsize
	if free < size+reserve {
		return fault.New(fault.Exhausted, "no space to seal %d bytes: %d are free on the disk of the agent's state folder", size, free)
	}
	return nil
}
