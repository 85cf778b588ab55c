package upgrade

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"komainu/fault"
)

// Units of the agent and of the installer.
const (
	agentUnit = "komainu-agent.service"
	pathUnit  = "komainu-upgrade.path"
)

// Installed says by which form of package the agent was installed on this
// host, and refuses where it cannot upgrade itself.
func Installed(ctx context.Context) (format string, err error) {
	const remedy = "; install the new version as this one was installed"
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return "", fault.New(fault.Unsupported, "this host was not started by systemd, which makes upgrades here%s", remedy)
	}
	if out, err := say(ctx, "systemctl", "is-active", pathUnit); err != nil {
		return "", fault.New(fault.Unsupported, "%s does not run on this host (%s)%s", pathUnit, strings.TrimSpace(out), remedy)
	}
	if form := Form(ctx); form != "" {
		return form, nil
	}
	return "", fault.New(fault.Unsupported, "neither dpkg, rpm nor an archive has installed this agent%s", remedy)
}

// Form says by which form of package the agent was installed on this host, ""
// when by none.
func Form(ctx context.Context) string {
	if out, err := say(ctx, "dpkg-query", "-W", "-f", "${db:Status-Status}", "komainu-agent"); err == nil && out == "installed" {
		return "deb"
	}
	if _, err := say(ctx, "rpm", "-q", "komainu-agent"); err == nil {
		return "rpm"
	}
	if _, err := os.Stat("/usr/lib/komainu/install.sh"); err == nil {
		return "tar"
	}
	return ""
}

// say runs a program that only looks.
func say(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = environment()
	out, err := cmd.Output()
	return string(out), err
}

func environment() []string {
	return []string{"PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"}
}

// ManagerOf returns the package manager for a form.
func ManagerOf(format string) (Manager, error) {
	switch format {
	case "deb":
		return manager{
			locks: []string{"/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock"},
			install: func(file string) [][]string {
				return [][]string{{"dpkg", "--force-confold", "--force-confdef", "--install", file}}
			},
		}, nil
	case "rpm":
		return manager{
			locks: []string{"/var/lib/rpm/.rpm.lock", "/usr/lib/sysimage/rpm/.rpm.lock"},
			install: func(file string) [][]string {
				return [][]string{{"rpm", "--upgrade", "--oldpackage", "--replacepkgs", "--nosignature", file}}
			},
		}, nil
	case "tar":
		return archive{}, nil
	}
	return nil, fault.New(fault.Unsupported, "there is no package manager for %q", format)
}

// manager is dpkg or rpm. Signatures are verified before, by the repository's
// metadata.
type manager struct {
	locks   []string
	install func(file string) [][]string
}

// Busy asks the kernel who holds the locks.
func (m manager) Busy() bool {
	for _, name := range m.locks {
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			continue // no such lock here
		}
		lock := unix.Flock_t{Type: unix.F_WRLCK}
		err = unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock)
		_ = f.Close() // nothing was written
		if err == nil && lock.Type != unix.F_UNLCK {
			return true
		}
	}
	return false
}

func (m manager) Install(ctx context.Context, file string) error {
	for _, args := range m.install(file) {
		if err := do(ctx, "", args...); err != nil {
			return err
		}
	}
	return nil
}

// archive is the form for hosts without a package manager: a script in it
// installs.
type archive struct{}

func (archive) Busy() bool { return false }

func (archive) Install(ctx context.Context, file string) error {
	// An installation that was cut off has left one.
	dir := filepath.Join(filepath.Dir(file), archiveFolder)
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)); err != nil {
		return err
	}
	if err := do(ctx, dir, "tar", "-xzf", file, "--no-same-owner"); err != nil {
		return err
	}
	scripts, err := filepath.Glob(filepath.Join(dir, "*", "install.sh"))
	if err != nil || len(scripts) != 1 {
		return errors.Join(fmt.Errorf("the archive has %d scripts install.sh, want one", len(scripts)), err)
	}
	return do(ctx, filepath.Dir(scripts[0]), "/bin/sh", scripts[0], "install")
}

// noSpace is how dpkg, rpm and tar say that the disk is full.
var noSpace = regexp.MustCompile(`(?i)no space left on device|disk quota exceeded|needs \S+ (on|more space on) the \S+ filesystem`)

// do runs a program that changes something. What it says last is the error.
func do(ctx context.Context, dir string, args ...string) error {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir, cmd.Env = dir, environment()
	// Not with the installer: it is the package manager's to end in its order.
	cmd.WaitDelay = 10 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if err != nil {
		text := strings.TrimSpace(out.String())
		if noSpace.MatchString(text) {
			return fault.Wrap(fault.Exhausted, err, "%s: %s", filepath.Base(args[0]), text[max(0, len(text)-1000):])
		}
		return fmt.Errorf("%s: %w: %s", filepath.Base(args[0]), err, text[max(0, len(text)-1000):])
	}
	return nil
}

// ServiceNow asks systemd for the agent.
func ServiceNow(ctx context.Context) (Service, error) {
	out, err := say(ctx, "systemctl", "show", "--property=MainPID,NRestarts", agentUnit)
	if err != nil {
		return Service{}, fmt.Errorf("ask systemd for %s: %w", agentUnit, err)
	}
	var s Service
	for line := range strings.Lines(out) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		n, _ := strconv.Atoi(value)
		switch key {
		case "MainPID":
			s.PID = n
		case "NRestarts":
			s.Restarts = n
		}
	}
	return s, nil
}

// StartService has systemd start the agent, if it does not run.
func StartService(ctx context.Context) error {
	if err := do(ctx, "", "systemctl", "reset-failed", agentUnit); err != nil {
		return err
	}
	return do(ctx, "", "systemctl", "start", agentUnit)
}

// watchMain notes when the main process of the agent ends: one that is killed
// cannot say so itself.
func (in *Installer) watchMain(ctx context.Context) {
	for ctx.Err() == nil {
		s, err := in.cfg.Service(ctx)
		if err != nil || s.PID == 0 {
			_ = pause(ctx, 20*time.Millisecond)
			continue
		}
		fd, err := unix.PidfdOpen(s.PID, 0)
		if err != nil {
			_ = pause(ctx, 20*time.Millisecond)
			continue
		}
		for ctx.Err() == nil {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 200)
			if n > 0 {
				note(in.cfg.Dir, false, "installer")
				break
			}
			if err != nil && !errors.Is(err, unix.EINTR) {
				break
			}
		}
		unix.Close(fd)
	}
}

func boottime() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) // cannot fail for a clock that exists
	return time.Duration(ts.Nano())
}

func bootID() string {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(text))
}
