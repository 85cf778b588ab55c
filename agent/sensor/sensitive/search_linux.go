package sensitive

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"komainu/event"
)

// appeared handles an event of the group of names.
func (w *Watch) appeared(n notice) {
	if n.overflow {
		w.lost++
		return
	}
	if !maybe(n.name) {
		return
	}
	mount, ok := w.mounts[n.fsid]
	if !ok {
		return
	}
	folder, err := folderOf(mount, n.handleType, n.handle)
	if err != nil { // it is gone again
		return
	}
	path := filepath.Join(folder, n.name)
	if n.mask&unix.FAN_ONDIR != 0 {
		if IsFolder(path) {
			w.search(path, 2, 1000)
			w.publish()
		}
		return
	}
	if w.consider(path) {
		w.publish()
	}
}

// folderOf finds the path of a folder by its handle. The mount point is opened
// for a moment only, because an open folder would keep it from being
// unmounted.
func folderOf(mount string, handleType int32, handle []byte) (string, error) {
	at, err := unix.Open(mount, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(at)
	fd, err := unix.OpenByHandleAt(at, unix.NewFileHandle(handleType, handle), unix.O_PATH|unix.O_CLOEXEC)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	return os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
}

// refresh marks filesystems that are new, and searches when they are or when
// something was missed. It returns the milliseconds until it wants to be called
// again, -1 for never.
func (w *Watch) refresh() int {
	w.mu.Lock()
	changed, mounts := w.changed, w.filesystems
	w.changed = false
	w.mu.Unlock()
	switch {
	case changed:
		w.remark(mounts)
	case !w.missed && !w.deaf:
		return -1
	case time.Since(w.looked) < w.pause():
		return int((w.pause() - time.Since(w.looked)).Milliseconds()) + 1
	}
	w.missed, w.looked = false, time.Now()
	for _, account := range w.cfg.Users.Accounts() {
		if filepath.IsAbs(account.Home) && !slices.Contains(notHomes, filepath.Clean(account.Home)) {
			w.search(account.Home, 6, 20_000)
		}
	}
	for _, root := range w.cfg.Roots {
		w.search(root, 6, 30_000)
	}
	w.mu.Lock()
	w.state.Searched = true
	w.mu.Unlock()
	w.publish()
	if w.deaf {
		return int(deafAgain.Milliseconds())
	}
	return -1
}

// pause is the time between two searches.
func (w *Watch) pause() time.Duration {
	if w.missed {
		return again
	}
	return deafAgain
}

// notHomes are homes of system accounts that hold no secrets of theirs.
var notHomes = []string{"/", "/bin", "/dev", "/nonexistent", "/proc", "/sbin", "/usr/bin", "/usr/sbin", "/var/run", "/run"}

// remark drops all marks and marks the filesystems.
func (w *Watch) remark(mounts []string) {
	_ = unix.FanotifyMark(w.files, unix.FAN_MARK_FLUSH, 0, unix.AT_FDCWD, "/") // there is nothing to fail
	if w.names >= 0 {
		_ = unix.FanotifyMark(w.names, unix.FAN_MARK_FLUSH|unix.FAN_MARK_FILESYSTEM, 0, unix.AT_FDCWD, "/")
	}
	w.marked, w.folders = map[inode]string{}, map[inode]bool{}
	w.mounts, w.devices = map[[fsidSize]byte]string{}, map[uint64]bool{}
	w.recent, w.undecided = map[opening]time.Time{}, map[opening]Open{}
	var errs []error
	var heard, deaf []string
	for _, mount := range mounts {
		switch err := w.cover(mount); {
		case err == nil:
			heard = append(heard, mount)
		case errors.Is(err, errDeaf):
			deaf = append(deaf, mount)
		default:
			errs = append(errs, err)
		}
	}
	w.deaf = deaf != nil
	if len(mounts) == 0 {
		errs = append(errs, errors.New("no filesystem is given to watch"))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state.Filesystems, w.state.Reason, w.state.Limits = heard, "", ""
	if w.deaf {
		slices.Sort(deaf)
		w.state.Limits = fmt.Sprintf("new names are looked for every %.0f minutes on %s", deafAgain.Minutes(), strings.Join(slices.Compact(deaf), ", "))
	}
	if err := errors.Join(errs...); err != nil {
		w.state.Reason = err.Error()
	}
}

// errDeaf is the answer of a filesystem that does not tell of new names.
var errDeaf = errors.New("new names are not told")

// cover lets files of a filesystem be marked, and new names be heard of.
func (w *Watch) cover(mount string) error {
	var st unix.Stat_t
	if err := unix.Stat(mount, &st); err != nil {
		return fmt.Errorf("watch %s: %w", mount, err)
	}
	w.devices[st.Dev] = true
	if w.names < 0 {
		return fmt.Errorf("watch new names on %s: needs Linux 5.9", mount)
	}
	var vfs unix.Statfs_t
	if err := unix.Statfs(mount, &vfs); err != nil {
		return fmt.Errorf("watch %s: %w", mount, err)
	}
	err := unix.FanotifyMark(w.names, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM,
		unix.FAN_CREATE|unix.FAN_MOVED_TO|unix.FAN_ONDIR, unix.AT_FDCWD, mount)
	switch {
	// No id of the filesystem (tmpfs before 5.13), an id that its parts do not
	// share, no handles of files: fanotify_mark(2).
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.EXDEV), errors.Is(err, unix.EOPNOTSUPP):
		return errDeaf
	case err != nil:
		return fmt.Errorf("watch new names on %s: %w", mount, err)
	}
	w.mounts[fsid(vfs.Fsid)] = mount
	return nil
}

func fsid(f unix.Fsid) (id [fsidSize]byte) {
	binary.NativeEndian.PutUint32(id[:], uint32(f.Val[0]))
	binary.NativeEndian.PutUint32(id[4:], uint32(f.Val[1]))
	return id
}

// search looks for sensitive files below a folder, as deep and for as many
// names as given.
func (w *Watch) search(root string, depth, budget int) {
	root = filepath.Clean(root)
	level := []string{root}
	for ; depth > 0 && len(level) != 0; depth-- {
		var next []string
		for _, folder := range level {
			entries, err := os.ReadDir(folder)
			if err != nil {
				continue // not there, or not ours to read
			}
			if IsFolder(folder) {
				w.markFolder(folder)
			}
			for _, e := range entries {
				if budget--; budget < 0 {
					w.cfg.Log.Info("search for sensitive files ends early", "folder", root)
					return
				}
				path := filepath.Join(folder, e.Name())
				switch {
				case e.Type().IsRegular() && maybe(e.Name()):
					w.consider(path)
				case e.IsDir() && e.Name() != "node_modules" && e.Name() != ".git" && e.Name() != ".cache":
					next = append(next, path)
				}
			}
		}
		level = next
	}
}

// consider marks a file if it is sensitive. It reports whether it did.
func (w *Watch) consider(path string) bool {
	class, byContent := Classify(path)
	if class == event.NotSensitive || !w.room() {
		return false
	}
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || !w.devices[st.Dev] {
		return false
	}
	key, name := inode{st.Dev, st.Ino}, "/proc/self/fd/"+strconv.Itoa(fd)
	if byContent && st.Size > 0 && !keyIn(name) {
		return false
	}
	if err := unix.FanotifyMark(w.files, unix.FAN_MARK_ADD, reads, unix.AT_FDCWD, name); err != nil {
		w.cfg.Log.Debug("mark a sensitive file", "path", path, "error", err)
		return false
	}
	w.marked[key] = path
	return true
}

func (w *Watch) markFolder(path string) {
	var st unix.Stat_t
	if len(w.folders) >= maxFolders || unix.Lstat(path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR || !w.devices[st.Dev] {
		return
	}
	if err := unix.FanotifyMark(w.files, unix.FAN_MARK_ADD|unix.FAN_MARK_DONT_FOLLOW|unix.FAN_MARK_ONLYDIR,
		reads|unix.FAN_EVENT_ON_CHILD, unix.AT_FDCWD, path); err == nil {
		w.folders[inode{st.Dev, st.Ino}] = true
	}
}

// room makes room for another mark by forgetting files that are no longer
// where they were marked.
func (w *Watch) room() bool {
	if len(w.marked) < maxFiles {
		return true
	}
	for key, path := range w.marked {
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil && errors.Is(err, fs.ErrNotExist) || st.Ino != key.ino {
			delete(w.marked, key)
		}
	}
	if len(w.marked) < maxFiles*9/10 {
		return true
	}
	w.mu.Lock()
	w.state.Reason = fmt.Sprintf("more than %d sensitive files; further ones are not watched", maxFiles)
	w.mu.Unlock()
	return false
}

func (w *Watch) publish() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state.Files, w.state.Folders = len(w.marked), len(w.folders)
}

func keyIn(name string) bool {
	file, err := os.Open(name)
	if err != nil {
		return false
	}
	defer file.Close()
	content := make([]byte, sample)
	n, _ := file.ReadAt(content, 0) // a short file ends with EOF
	return HoldsKey(content[:n])
}
