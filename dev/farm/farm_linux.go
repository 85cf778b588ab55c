// Package farm makes pretend servers: Debian containers that systemd has
// booted, with a real sshd, in a network of their own.
//
// A farm lives in the network and mount namespace of its process, which the
// caller has made for it (see Enter): nothing of the machine's own network and
// mounts is touched, and when the process ends, however that comes about,
// everything is gone with it.
package farm

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// Gateway is the address at which servers reach programs of this process'
// network, the control plane for one.
const Gateway = "10.77.0.1"

// Inside is set for a process that Enter has started.
const Inside = "KOMAINU_FARM"

// Enter runs this program anew in namespaces of its own, in which a farm can
// be made, and returns how it ended. Inside of them it returns false.
func Enter(ctx context.Context, args ...string) (entered bool, err error) {
	if os.Getenv(Inside) != "" {
		return false, nil
	}
	self, err := os.Executable()
	if err != nil {
		return true, err
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Env = append(os.Environ(), Inside+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second
	return true, cmd.Run()
}

// Farm is a network with servers.
type Farm struct {
	dir   string // of overlays, on a tmpfs
	base  string // Debian that all of them begin with
	key   ssh.Signer
	pem   []byte
	mu    sync.Mutex
	hosts []*Host
}

// New makes an empty farm over a Debian (see Base). dir must exist and be
// empty.
func New(ctx context.Context, base, dir string) (*Farm, error) {
	if os.Getenv(Inside) == "" {
		return nil, errors.New("a farm needs namespaces of its own")
	}
	// A browser in here drops every request of HTTP/2 when an address comes or
	// goes, and with IPv6 each new link gets one, seconds later.
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, args := range [][]string{
		{"link", "set", "lo", "up"}, {"link", "add", "br0", "type", "bridge"}, {"address", "add", Gateway + "/16", "dev", "br0"}, {"link", "set", "br0", "up"},
	} {
		if err := run(ctx, "ip", args...); err != nil {
			return nil, err
		}
	}
	if err := unix.Mount("komainu-farm", dir, "tmpfs", 0, "mode=0755,size=16g"); err != nil {
		return nil, fmt.Errorf("mount the farm: %w", err)
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	block, err := ssh.MarshalPrivateKey(private, "farm")
	if err != nil {
		return nil, err
	}
	key, err := ssh.NewSignerFromKey(private)
	if err != nil {
		return nil, err
	}
	return &Farm{dir: dir, base: base, key: key, pem: pem.EncodeToMemory(block)}, nil
}

// PrivateKey is what logs in as root on every server, in OpenSSH form.
func (f *Farm) PrivateKey() string { return string(f.pem) }

// Close powers everything off.
func (f *Farm) Close() error {
	f.mu.Lock()
	hosts := f.hosts
	f.hosts = nil
	f.mu.Unlock()
	var all sync.WaitGroup
	for _, h := range hosts {
		all.Go(h.halt)
	}
	all.Wait()
	return unix.Unmount(f.dir, unix.MNT_DETACH)
}

// Host is a server.
type Host struct {
	Name    string
	Address string // of its sshd, host:port
	Root    string // its files, seen from here
	cmd     *exec.Cmd
	console *bytes.Buffer
	init    int
}

// bootLimit is how long a server may take until it can be logged in to.
const bootLimit = 3 * time.Minute

// Boot starts a server and waits until sshd answers.
func (f *Farm) Boot(ctx context.Context) (*Host, error) {
	f.mu.Lock()
	n := len(f.hosts) + 1
	h := &Host{Name: fmt.Sprintf("server%02d", n), Address: fmt.Sprintf("10.77.1.%d:22", n), console: new(bytes.Buffer)}
	f.hosts = append(f.hosts, h)
	f.mu.Unlock()
	if err := f.prepare(h); err != nil {
		return nil, fmt.Errorf("%s: %w", h.Name, err)
	}
	if err := f.start(ctx, h); err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", h.Name, err, h.console)
	}
	return h, nil
}

// prepare lays a filesystem of its own for the server over the base.
func (f *Farm) prepare(h *Host) error {
	dir := filepath.Join(f.dir, h.Name)
	for _, sub := range []string{"upper", "work", "root"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return err
		}
	}
	h.Root = filepath.Join(dir, "root")
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", f.base, filepath.Join(dir, "upper"), filepath.Join(dir, "work"))
	if err := unix.Mount("overlay", h.Root, "overlay", 0, options); err != nil {
		return fmt.Errorf("mount its files: %w", err)
	}
	var id [16]byte
	_, _ = rand.Read(id[:]) // ends the program when the system has no randomness
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	hostKey, err := ssh.MarshalPrivateKey(private, h.Name)
	if err != nil {
		return err
	}
	address, _, _ := strings.Cut(h.Address, ":")
	for name, file := range map[string]struct {
		text string
		mode fs.FileMode
	}{
		"etc/hostname":                    {h.Name + "\n", 0o644},
		"etc/hosts":                       {"127.0.0.1 localhost " + h.Name + "\n", 0o644},
		"etc/machine-id":                  {hex.EncodeToString(id[:]) + "\n", 0o444},
		"root/.ssh/authorized_keys":       {string(ssh.MarshalAuthorizedKey(f.key.PublicKey())), 0o600},
		"etc/ssh/ssh_host_ed25519_key":    {string(pem.EncodeToMemory(hostKey)), 0o600},
		"etc/systemd/system/farm.service": {strings.ReplaceAll(network, "ADDRESS", address), 0o644},
	} {
		to := filepath.Join(h.Root, name)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if err := os.RemoveAll(to); err != nil {
			return err
		}
		if err := os.WriteFile(to, []byte(file.text), file.mode); err != nil {
			return err
		}
	}
	wants := filepath.Join(h.Root, "etc/systemd/system/multi-user.target.wants/farm.service")
	if err := os.MkdirAll(filepath.Dir(wants), 0o755); err != nil {
		return err
	}
	return os.Symlink("../farm.service", wants)
}

// network brings a server into the farm's network.
const network = `[Unit]
Before=ssh.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/sbin/ip link set lo up
ExecStart=/sbin/ip address add ADDRESS/16 dev host0
ExecStart=/sbin/ip link set host0 up
`

// start boots a server. It gets a control group of its own: systemd of one
// server would otherwise take the services of another for its own.
func (f *Farm) start(ctx context.Context, h *Host) error {
	var groups []string
	for _, tree := range []string{"systemd", "unified", ""} {
		top := filepath.Join("/sys/fs/cgroup", tree)
		if _, err := os.Stat(filepath.Join(top, "cgroup.procs")); err != nil {
			continue
		}
		group := filepath.Join(top, fmt.Sprintf("komainu-farm-%d-%s", os.Getpid(), h.Name))
		if err := os.Mkdir(group, 0o755); err == nil {
			groups = append(groups, group)
		}
	}
	shell := `for g in $GROUPS_OF_IT; do echo $$ >"$g/cgroup.procs"; done; exec "$@"`
	// The context of a test ends before its cleanup: it must not kill what
	// takes the server down.
	h.cmd = exec.CommandContext(context.WithoutCancel(ctx), "sh", "-c", shell, "sh", "systemd-nspawn", "--directory="+h.Root, "--register=no", "--keep-unit", "--boot",
		fmt.Sprintf("--machine=km%d-%s", os.Getpid()%10000, h.Name[len("server"):]), "--console=read-only", "--network-bridge=br0", "--resolv-conf=off", "--timezone=off", "--link-journal=no",
		"--system-call-filter=fanotify_init fanotify_mark bpf perf_event_open open_by_handle_at name_to_handle_at", "--capability=all")
	h.cmd.Env = append(os.Environ(), "GROUPS_OF_IT="+strings.Join(groups, " "))
	h.cmd.Stdout, h.cmd.Stderr = h.console, h.console
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := h.cmd.Start(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, bootLimit)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for !h.booted(ctx) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("it has not booted: %w", ctx.Err())
		case <-tick.C:
		}
	}
	// What systemd-nspawn lends a container of this machine is taken away: an
	// agent in it must mark no file that belongs to anybody else.
	out, err := h.Try(ctx, "sh", "-c", `for m in $(grep " /run/host/" /proc/mounts | cut -d" " -f2 | tac); do umount -l "$m"; done; ! grep " /run/host/" /proc/mounts`)
	if err != nil {
		return fmt.Errorf("what it was lent cannot be taken away: %w: %s", err, out)
	}
	return nil
}

// booted looks for the first process of the server, and asks it. It looks anew
// every time: at first systemd-nspawn has a helper in its place.
func (h *Host) booted(ctx context.Context) bool {
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", h.cmd.Process.Pid, h.cmd.Process.Pid))
	if err != nil {
		return false
	}
	if h.init, err = strconv.Atoi(strings.TrimSpace(string(children))); err != nil {
		h.init = 0
		return false
	}
	state, _ := h.Try(ctx, "systemctl", "is-system-running") // it fails while it boots
	state = strings.TrimSpace(state)
	if state != "running" && state != "degraded" {
		return false
	}
	_, err = h.Try(ctx, "systemctl", "is-active", "--quiet", "ssh.service")
	return err == nil
}

// Try runs a program in the server.
func (h *Host) Try(ctx context.Context, args ...string) (string, error) {
	args = append([]string{"-t", strconv.Itoa(h.init), "-m", "-u", "-i", "-n", "-p", "--"}, args...)
	cmd := exec.CommandContext(ctx, "nsenter", args...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// halt ends a server.
func (h *Host) halt() {
	if h.cmd == nil || h.cmd.Process == nil {
		return
	}
	_ = h.cmd.Process.Signal(unix.SIGTERM) // it powers the server off
	limit := time.AfterFunc(15*time.Second, func() {
		if h.init != 0 {
			_ = unix.Kill(h.init, unix.SIGKILL) // all that is in it goes with it
		}
		_ = h.cmd.Process.Kill()
	})
	defer limit.Stop()
	_ = h.cmd.Wait() // its exit code says how the server ended
	_ = unix.Unmount(h.Root, unix.MNT_DETACH)
}

// Base returns a folder with a Debian that has systemd, sshd and, for packages
// of the other kind, rpm. It is made once, from Debian's mirror, and kept in
// dir.
func Base(ctx context.Context, dir string) (string, error) {
	base := filepath.Join(dir, "debian-12-server")
	if _, err := os.Stat(base); err == nil {
		return base, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	unfinished, err := os.MkdirTemp(dir, "debootstrap-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(unfinished)
	const packages = "--include=systemd,systemd-sysv,dbus,libstdc++6,curl,openssh-server,sudo,iproute2,rpm"
	if err := run(ctx, "debootstrap", "--variant=minbase", packages, "bookworm", unfinished); err != nil {
		return "", err
	}
	// A server that nobody looks at needs no terminal and no nightly jobs.
	for _, unit := range []string{"console-getty.service", "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "fstrim.timer", "systemd-networkd.service"} {
		if err := os.Symlink("/dev/null", filepath.Join(unfinished, "etc/systemd/system", unit)); err != nil && !errors.Is(err, fs.ErrExist) {
			return "", err
		}
	}
	if err := os.Chmod(unfinished, 0o755); err != nil {
		return "", err
	}
	return base, os.Rename(unfinished, base)
}

// With returns a folder with what is in base, a folder that Base has returned,
// and packages of Debian beside it. It is made once and kept beside base.
func With(ctx context.Context, base string, packages ...string) (string, error) {
	dir := base + "-" + strings.Join(packages, "-")
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	unfinished, err := os.MkdirTemp(filepath.Dir(base), "debian-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(unfinished)
	if err := run(ctx, "cp", "-a", base+"/.", unfinished); err != nil {
		return "", err
	}
	inside := []string{"--quiet", "--directory=" + unfinished, "--register=no", "--keep-unit", "--console=pipe", "--resolv-conf=replace-host", "--setenv=DEBIAN_FRONTEND=noninteractive"}
	for _, name := range []string{"http_proxy", "https_proxy", "no_proxy"} {
		if v := os.Getenv(name); v != "" {
			inside = append(inside, "--setenv="+name+"="+v)
		}
	}
	// A mirror may be one that stands still.
	inside = append(inside, "apt-get", "-qy", "-oAcquire::Check-Valid-Until=false", "-oAcquire::Check-Date=false")
	for _, args := range [][]string{{"update"}, append([]string{"install", "--no-install-recommends"}, packages...), {"clean"}} {
		if err := run(ctx, "systemd-nspawn", append(append([]string{}, inside...), args...)...); err != nil {
			return "", err
		}
	}
	return dir, os.Rename(unfinished, dir)
}

func run(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out[max(0, len(out)-2000):])
	}
	return nil
}
