package e2e

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"komainu/deploy"
)

// shimmed are the programs that the ways to install call: at each of these
// calls they can be ended.
var shimmed = []string{
	"cat", "chown", "cp", "dpkg", "dpkg-deb", "dpkg-split", "mkdir", "mktemp", "mv", "rm", "rmdir", "rpm", "sha256sum", "sort", "sync", "systemctl", "systemd-sysusers", "tar", "wc",
}

// shim counts the calls of a program and, at one of them, ends who has called:
// all of the group before or after the program has run, or the package manager
// alone, as the kernel does when memory runs out.
const shim = `#!/bin/sh
here=/run/kill
[ -n "$KOMAINU_KILL" ] || exec REAL "$@"
n=$(($(/bin/cat $here/count) + 1))
echo $n >$here/count
echo "$n NAME $*" >>$here/log
case "$(/bin/cat $here/at)" in
"before $n") kill -KILL 0 ;;
"after $n")
    REAL "$@"
    kill -KILL 0
    ;;
"manager $n")
    p=$PPID
    while [ "$p" -gt 1 ]; do
        case "$(/bin/cat /proc/$p/comm)" in dpkg | rpm) kill -KILL $p; break ;; esac
        p=$(/usr/bin/sed -n 's/^PPid:[[:space:]]*//p' /proc/$p/status)
    done
    ;;
esac
exec REAL "$@"
`

// point is where something is ended: "before 7", "after 7" and "manager 7" are
// calls, "time 0.41" a part of the time that the whole takes, "power 0.41" the
// same with the whole machine.
type point string

func (p point) word() string { word, _, _ := strings.Cut(string(p), " "); return word }

func (p point) number() float64 {
	_, text, _ := strings.Cut(string(p), " ")
	n, _ := strconv.ParseFloat(text, 64) // 0 for "", the undisturbed run
	return n
}

// layShims puts the shims in front of the programs.
func (m *machine) layShims() {
	m.t.Helper()
	for _, name := range shimmed {
		at := filepath.Join(m.root, "usr/local/sbin", name)
		real := ""
		for _, dir := range []string{"/usr/bin/", "/usr/sbin/"} {
			if _, err := os.Lstat(filepath.Join(m.root, dir+name)); err == nil {
				real = dir + name
			}
		}
		if real == "" { // taken away, for a host that has none
			if err := os.Remove(at); err != nil && !os.IsNotExist(err) {
				m.t.Fatal(err)
			}
			continue
		}
		text := strings.NewReplacer("REAL", real, "NAME", name).Replace(shim)
		m.must(os.WriteFile(at, []byte(text), 0o755))
	}
}

// act runs a command line in a session of its own and ends it at a point. It
// returns what was said, how many programs were called, and whether it was
// ended.
func (m *machine) act(line string, at point, took float64) (out string, calls int, ended bool) {
	m.t.Helper()
	m.must(os.WriteFile(filepath.Join(m.root, "var/cache/line.sh"), []byte(line), 0o755))
	m.run("sh", "-c", "mkdir -p /run/kill && echo 0 >/run/kill/count && : >/run/kill/log && echo '"+string(at)+"' >/run/kill/at && rm -f /run/kill/out")
	// A session of its own is a process group of its own, which is what is
	// ended; the shell that waits for it is outside.
	run := `setsid --wait sh -c 'echo $$ >/run/kill/group; export KOMAINU_KILL=1 PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin; . /var/cache/line.sh' >/run/kill/out 2>&1 </dev/null`
	switch at.word() {
	case "time":
		run += fmt.Sprintf(" & sleep %.3f; kill -KILL -- -$(cat /run/kill/group); wait $!", at.number()*took)
	case "power":
		run += fmt.Sprintf(" & sleep %.3f", at.number()*took)
	}
	_, err := m.try("sh", "-c", run)
	if at.word() == "power" {
		m.crash()
		return "", 0, true
	}
	text, _ := m.try("cat", "/run/kill/count")
	calls, _ = strconv.Atoi(strings.TrimSpace(text))
	said, _ := m.try("cat", "/run/kill/out")
	return said, calls, err != nil
}

// crash ends the machine as a power failure does, as far as a container can:
// everything in it stops at once, but what was written stays written.
func (m *machine) crash() {
	m.t.Helper()
	m.must(unix.Kill(m.init, unix.SIGKILL))
	_ = m.cmd.Wait() // its exit code says that it was ended
	m.start()
}

// way is a way to install and remove: the lines that are typed, and the form
// of the package.
type way struct {
	name            string
	form            string
	install, remove func(version string) string
}

// hostScript is how the engine and komainuctl deploy call the script.
func (m *machine) hostScript(form string) way {
	file := onShelf(form)
	m.must(os.WriteFile(filepath.Join(m.root, "var/cache/host.sh"), []byte(deploy.Script), 0o644))
	return way{
		name: "host.sh with " + form, form: form,
		install: func(version string) string {
			text, err := os.ReadFile(filepath.Join(m.root, file(version)))
			m.must(err)
			return fmt.Sprintf("exec sh /var/cache/host.sh install format=%s sha256=%x size=%d enrol=no <%s", form, sha256.Sum256(text), len(text), file(version))
		},
		remove: func(string) string { return "exec sh /var/cache/host.sh remove" },
	}
}

// plainDpkg is what somebody types.
func plainDpkg() way {
	file := onShelf("deb")
	return way{
		name: "dpkg", form: "deb",
		install: func(version string) string { return "exec dpkg --install " + file(version) },
		remove:  func(string) string { return "exec dpkg --purge komainu-agent" },
	}
}

// onShelf is where the packages of a form are in the machine.
func onShelf(form string) func(version string) string {
	return func(version string) string {
		if form == "rpm" {
			return "/var/cache/komainu-agent-" + version + "-1.x86_64.rpm"
		}
		return "/var/cache/komainu-agent_" + version + "_amd64." + map[string]string{"deb": "deb", "tar": "tar.gz"}[form]
	}
}

// stock brings the agent's packages of both versions into the machine.
func (m *machine) stock() {
	m.t.Helper()
	for _, form := range []string{"deb", "rpm", "tar"} {
		for _, version := range []string{thisVersion, nextVersion} {
			m.bring(filepath.Join(os.Getenv(envPackages), filepath.Base(onShelf(form)(version))))
		}
	}
}

// passing are places whose files come and go without an installation.
var passing = []string{
	"/proc", "/sys", "/dev", "/run", "/tmp", "/var/cache", "/var/log", "/var/lib/systemd", "/var/lib/dpkg", "/var/lib/rpm", "/root/.rpmdb", privateFolders, "/etc/machine-id", "/usr/local/sbin",
	// What stays on purpose: the group komainu, so that its number is nobody
	// else's, and the copies that its making leaves.
	"/etc/group", "/etc/gshadow", "/etc/.pwd.lock", "/etc/group-", "/etc/gshadow-", "/etc/.updated", "/var/.updated",
}

// privateFolders begin the names of folders that systemd makes for services,
// anew at every boot.
const privateFolders = "/var/tmp/systemd-private"

// files lists what is on the machine, with kind, mode and size.
func (m *machine) files() map[string]string {
	m.t.Helper()
	list := map[string]string{}
	m.must(filepath.WalkDir(m.root, func(path string, d fs.DirEntry, err error) error {
		inside := strings.TrimPrefix(path, m.root)
		for _, p := range passing {
			if inside == p || p == privateFolders && strings.HasPrefix(inside, p) {
				if d != nil && d.IsDir() {
					return fs.SkipDir
				}
				return nil
			}
		}
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		text := info.Mode().String()
		if !d.IsDir() {
			text += " " + strconv.FormatInt(info.Size(), 10)
		}
		list[inside] = text
		return nil
	}))
	return list
}

// difference names what is on one list and not the same on the other.
func difference(before, after map[string]string) (list []string) {
	for name, was := range before {
		if is := after[name]; is != was {
			list = append(list, fmt.Sprintf("%s was %s, is %q", name, was, is))
		}
	}
	for name, is := range after {
		if _, ok := before[name]; !ok {
			list = append(list, fmt.Sprintf("%s is new: %s", name, is))
		}
	}
	return list
}
