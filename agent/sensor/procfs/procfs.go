// Package procfs reads what Linux tells of processes and accounts in text
// files: /proc and the passwd file. It describes processes that ran before a
// sensor did, and it is what is left where the kernel tells less.
//
// A process can end, and its pid can be given again, between two reads: what
// is returned was read under one start time, or is an error.
package procfs

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"komainu/event"
)

// ArgsMax is how much of a command line is read; more is marked as truncated.
const ArgsMax = 4095

// tick is the unit of start times in /proc, USER_HZ.
const tick = uint64(10 * time.Millisecond)

// NoLogin is the login uid of a process that belongs to no login.
const NoLogin = ^uint32(0)

// FS is a mounted /proc.
type FS struct {
	root  string
	boot  event.BootID
	clock *Clock
	users *Users
}

// Open reads the boot id of the proc filesystem at root.
func Open(root string, clock *Clock, users *Users) (*FS, error) {
	id, err := os.ReadFile(filepath.Join(root, "sys/kernel/random/boot_id"))
	if err != nil {
		return nil, fmt.Errorf("read boot id: %w", err)
	}
	return &FS{root: root, boot: event.BootID(strings.TrimSpace(string(id))), clock: clock, users: users}, nil
}

// Boot returns the id of this boot.
func (f *FS) Boot() event.BootID { return f.boot }

// Snapshot describes every process that runs. Those that end meanwhile are
// left out.
func (f *FS) Snapshot() []event.Process {
	entries, err := os.ReadDir(f.root)
	if err != nil {
		return nil
	}
	var all []event.Process
	for _, e := range entries {
		pid, err := strconv.ParseUint(e.Name(), 10, 32)
		if err != nil {
			continue
		}
		if p, err := f.Process(event.PID(pid)); err == nil {
			all = append(all, p)
		}
	}
	return all
}

// Process describes a process that runs. Start times are inexact.
func (f *FS) Process(pid event.PID) (event.Process, error) {
	before, err := f.stat(pid)
	if err != nil {
		return event.Process{}, err
	}
	p := event.Process{
		Key:      event.ProcessKey{Boot: f.boot, PID: pid, Start: before.start, Inexact: true},
		Name:     before.comm,
		Started:  f.clock.Wall(before.start),
		Session:  before.session,
		TTY:      ttyName(before.tty),
		LoginUID: NoLogin,
	}
	if before.ppid != 0 {
		p.Parent, _ = f.Key(before.ppid) // its end leaves the parent unknown
	}
	dir := filepath.Join(f.root, strconv.FormatUint(uint64(pid), 10))
	p.User, _ = f.User(pid) // gone: the second look at its start says so
	if b, err := readSome(filepath.Join(dir, "cmdline"), ArgsMax+1); err == nil {
		p.Truncated = len(b) > ArgsMax
		p.Args = SplitArgs(b[:min(len(b), ArgsMax)])
	}
	if exe, err := os.Readlink(filepath.Join(dir, "exe")); err == nil {
		p.Path = strings.TrimSuffix(exe, " (deleted)")
		p.Name = path.Base(p.Path)
		p.Image = describeImage(filepath.Join(dir, "exe"), p.Path)
	}
	p.Cwd, _ = os.Readlink(filepath.Join(dir, "cwd"))
	if b, err := readSome(filepath.Join(dir, "loginuid"), 32); err == nil {
		if id, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32); err == nil {
			p.LoginUID = uint32(id)
		}
	}
	p.CGroup, p.Container = f.CGroup(pid)
	after, err := f.stat(pid)
	if err != nil {
		return event.Process{}, err
	}
	if after.start != before.start {
		return event.Process{}, fmt.Errorf("process %d: %w while it was read", pid, fs.ErrNotExist)
	}
	return p, nil
}

// Key returns the key of the process that has the pid now, inexact.
func (f *FS) Key(pid event.PID) (event.ProcessKey, error) {
	s, err := f.stat(pid)
	if err != nil {
		return event.ProcessKey{}, err
	}
	return event.ProcessKey{Boot: f.boot, PID: pid, Start: s.start, Inexact: true}, nil
}

// User returns the ids that a process runs under.
func (f *FS) User(pid event.PID) (event.User, error) {
	b, err := readSome(filepath.Join(f.root, strconv.FormatUint(uint64(pid), 10), "status"), 8<<10)
	if err != nil {
		return event.User{}, err
	}
	s := parseStatus(b)
	return event.User{UID: s.uid, EUID: s.euid, GID: s.gid, EGID: s.egid, Name: f.users.Name(s.euid)}, nil
}

// CGroup returns the control group of a process and the id of the container
// that it belongs to, both "" when there is none.
func (f *FS) CGroup(pid event.PID) (cgroup, container string) {
	b, err := readSome(filepath.Join(f.root, strconv.FormatUint(uint64(pid), 10), "cgroup"), 16<<10)
	if err != nil {
		return "", ""
	}
	return parseCGroup(b)
}

func (f *FS) stat(pid event.PID) (stat, error) {
	b, err := readSome(filepath.Join(f.root, strconv.FormatUint(uint64(pid), 10), "stat"), 4<<10)
	if err != nil {
		return stat{}, err
	}
	return parseStat(b)
}

// readSome reads at most limit bytes of a file.
func readSome(name string, limit int64) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, limit))
}

// stat is what is used of /proc/PID/stat.
type stat struct {
	comm    string
	ppid    event.PID
	session uint32
	tty     uint32
	start   uint64 // nanoseconds since boot, a multiple of the tick
}

// parseStat reads a line of the form "pid (comm) state ppid …". The name can
// hold anything, so that the last parenthesis ends it.
func parseStat(b []byte) (stat, error) {
	open, shut := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || shut < open {
		return stat{}, fmt.Errorf("stat line %.80q: no name", b)
	}
	fields := strings.Fields(string(b[shut+1:]))
	if len(fields) < 20 {
		return stat{}, fmt.Errorf("stat line %.80q: %d fields", b, len(fields))
	}
	ppid, err1 := strconv.ParseUint(fields[1], 10, 32)
	session, err2 := strconv.ParseInt(fields[3], 10, 32)
	tty, err3 := strconv.ParseInt(fields[4], 10, 32)
	start, err4 := strconv.ParseUint(fields[19], 10, 64)
	if err := cmp.Or(err1, err2, err3, err4); err != nil {
		return stat{}, fmt.Errorf("stat line %.80q: %w", b, err)
	}
	if start > ^uint64(0)/tick {
		return stat{}, fmt.Errorf("stat line %.80q: start time out of range", b)
	}
	return stat{
		comm: string(b[open+1 : shut]), ppid: event.PID(ppid), session: uint32(max(session, 0)),
		tty: uint32(tty), start: start * tick,
	}, nil
}

// ids are the lines Uid and Gid of /proc/PID/status.
type ids struct{ uid, euid, gid, egid uint32 }

func parseStatus(b []byte) ids {
	var s ids
	for line := range bytes.Lines(b) {
		name, rest, _ := bytes.Cut(line, []byte(":"))
		var real, effective *uint32
		switch string(name) {
		case "Uid":
			real, effective = &s.uid, &s.euid
		case "Gid":
			real, effective = &s.gid, &s.egid
		default:
			continue
		}
		fields := strings.Fields(string(rest))
		for i, dst := range []*uint32{real, effective} {
			if i < len(fields) {
				if id, err := strconv.ParseUint(fields[i], 10, 32); err == nil {
					*dst = uint32(id)
				}
			}
		}
	}
	return s
}

// SplitArgs splits a command line as the kernel keeps it: each argument ends
// with a zero byte.
func SplitArgs(b []byte) []string {
	b = bytes.TrimRight(b, "\x00")
	if len(b) == 0 {
		return nil
	}
	return strings.Split(string(b), "\x00")
}

// ttyName names a terminal by its device number as /proc tells it.
func ttyName(device uint32) string {
	major, minor := device>>8&0xfff, device&0xff|device>>12&0xfff00
	switch {
	case device == 0:
		return ""
	case major >= 136 && major <= 143:
		return fmt.Sprintf("pts/%d", (major-136)<<8+minor)
	case major == 4 && minor < 64:
		return fmt.Sprintf("tty%d", minor)
	case major == 4:
		return fmt.Sprintf("ttyS%d", minor-64)
	default:
		return fmt.Sprintf("%d:%d", major, minor)
	}
}

// parseCGroup picks the unified hierarchy's path, else the deepest of the
// others, and the container id: 64 hexadecimal digits somewhere in a path.
func parseCGroup(b []byte) (cgroup, container string) {
	for line := range bytes.Lines(b) {
		parts := strings.SplitN(strings.TrimSuffix(string(line), "\n"), ":", 3)
		if len(parts) != 3 {
			continue
		}
		if parts[0] == "0" && len(parts[2]) > 1 {
			cgroup = parts[2]
		} else if cgroup == "" && len(parts[2]) > 1 && parts[1] == "name=systemd" {
			cgroup = parts[2]
		}
		if container == "" {
			container = containerID(parts[2])
		}
	}
	return cgroup, container
}

func containerID(cgroup string) string {
	for part := range strings.SplitSeq(cgroup, "/") {
		part = strings.TrimSuffix(part, ".scope")
		if i := strings.LastIndexAny(part, "-:"); i >= 0 {
			part = part[i+1:]
		}
		if len(part) == 64 && strings.Trim(part, "0123456789abcdef") == "" {
			return part
		}
	}
	return ""
}
