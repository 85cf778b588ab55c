package realtime

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// unwatched are filesystem types that hold no files of their own, or whose
// files somebody else serves: holding an open there would make this host wait
// for that one.
var unwatched = []string{
	"autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "devtmpfs", "efivarfs", "fusectl",
	"hugetlbfs", "mqueue", "nsfs", "proc", "pstore", "rpc_pipefs", "securityfs", "selinuxfs", "sysfs", "tracefs",
	"9p", "afs", "beegfs", "ceph", "cifs", "coda", "fuse", "fuseblk", "gfs2", "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "ocfs2",
	"orangefs", "smb3", "vboxsf", "virtiofs", "vmhgfs",
}

// Mounts lists the local filesystems, one path for each superblock: marks
// reach the whole superblock, wherever it is mounted.
func Mounts() ([]Mount, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	return parseMounts(string(text)), nil
}

// parseMounts reads the format of proc_pid_mountinfo(5). A line that is not
// understood is left out.
func parseMounts(text string) []Mount {
	var mounts []Mount
	seen := map[string]bool{}
	for line := range strings.Lines(text) {
		before, after, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		fields, tail := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 6 || len(tail) < 2 {
			continue
		}
		m := Mount{Path: unescape(fields[4]), Type: tail[0], Source: unescape(tail[1]), Device: fields[2]}
		name, _, _ := strings.Cut(m.Type, ".") // fuse.sshfs
		if slices.Contains(unwatched, name) || seen[m.Device] || !strings.HasPrefix(m.Path, "/") {
			continue
		}
		seen[m.Device] = true
		mounts = append(mounts, m)
	}
	return mounts
}

// unescape undoes \ooo, which stands for space, tab, newline and backslash.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && octal(s[i+1]) && octal(s[i+2]) && octal(s[i+3]) {
			b.WriteByte((s[i+1]-'0')<<6 | (s[i+2]-'0')<<3 | (s[i+3] - '0'))
			i += 3
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func octal(c byte) bool { return c >= '0' && c <= '7' }
