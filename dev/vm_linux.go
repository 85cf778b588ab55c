package main

import (
	"bufio"
	"context"
	_ "embed"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"komainu/fault"
)

// The virtual machine is for kernels that this machine does not run, and for
// what nobody does to a machine that others use: moving its clock. It is
// emulated unless told otherwise, so that figures from it mean nothing.
// Nothing that happens in it stays.

//go:embed vm_init.sh
var vmInit []byte

// vmKernels are the kernels of Debian's releases: the oldest that the agent
// supports, and the newer ones that servers run.
var vmKernels = []struct{ version, release string }{{"5.10", "bullseye"}, {"6.1", "bookworm"}, {"6.12", "trixie"}}

var vmTools = []tool{{"qemu-system-x86_64", "qemu-system-x86"}, {"debootstrap", "debootstrap"}, {"mkfs.ext4", "e2fsprogs"}}

// vmPackages are in the machine beside a minimal Debian: what dev needs of its
// host, and what the control plane links.
var vmPackages = []string{"ca-certificates", "curl", "e2fsprogs", "iproute2", "kmod", "libstdc++6", "procps", "python3-minimal", "unzip", "util-linux"}

func vm(ctx context.Context, h *House, args []string) error {
	flags := flag.NewFlagSet("vm", flag.ContinueOnError)
	kernel := flags.String("kernel", "6.1", "which: 5.10, 6.1 or 6.12")
	limit := flags.Duration("limit", 20*time.Minute, "how long the machine may run")
	accel := flags.String("accel", "tcg,thread=multi", "what QEMU runs it on; kvm where that works")
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "usage: go run ./dev vm [flags] resilience|hostile|soak [flags]\n       go run ./dev vm [flags] test PACKAGE...")
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return fault.New(fault.Invalid, "%w", err)
	}
	if flags.NArg() == 0 {
		flags.Usage()
		return fault.New(fault.Invalid, "say what to run in the machine")
	}
	if os.Geteuid() != 0 {
		return fault.New(fault.NeedsRoot, "the machine's disk is made as root")
	}
	if err := h.Install(ctx, vmTools...); err != nil {
		return err
	}
	base, err := h.vmBase(ctx)
	if err != nil {
		return err
	}
	disk, err := os.MkdirTemp("", "komainu-vm-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(disk)
	if err := h.vmPayload(ctx, filepath.Join(disk, "payload"), flags.Args()); err != nil {
		return err
	}
	image := filepath.Join(disk, "payload.img")
	if err := makeImage(ctx, h, image, filepath.Join(disk, "payload"), 1<<30); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, *limit)
	defer cancel()
	return h.vmRun(ctx, base, *kernel, *accel, image)
}

// vmBase makes the machine's system once, and returns its folder.
func (h *House) vmBase(ctx context.Context) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	base := filepath.Join(cache, "komainu", "vm-1") // the number rises when what is in it changes
	if _, err := os.Stat(base); err == nil {
		return base, nil
	}
	h.Say("making a Debian for the virtual machine (some minutes, once)")
	if err := os.MkdirAll(filepath.Dir(base), 0o755); err != nil {
		return "", err
	}
	part, err := os.MkdirTemp(filepath.Dir(base), "part-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(part)
	root := filepath.Join(part, "root")
	if _, err := h.Output(ctx, ".", "debootstrap", "--variant=minbase", "--include="+strings.Join(vmPackages, ","), "bookworm", root); err != nil {
		return "", fault.Wrap(fault.Unavailable, err, "make the machine's system")
	}
	if err := h.vmKernelPackages(ctx, root); err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Join(root, "komainu"), 0o755); err != nil {
		return "", err
	}
	boot := filepath.Join(part, "boot")
	if err := os.Rename(filepath.Join(root, "boot"), boot); err != nil {
		return "", err
	}
	if err := makeImage(ctx, h, filepath.Join(part, "root.img"), root, 3<<30); err != nil {
		return "", err
	}
	if err := os.RemoveAll(root); err != nil {
		return "", err
	}
	return base, os.Rename(part, base)
}

// vmKernelPackages installs the newest package of every kernel.
func (h *House) vmKernelPackages(ctx context.Context, root string) error {
	mirror, err := os.ReadFile(filepath.Join(root, "etc/apt/sources.list"))
	if err != nil {
		return err
	}
	fields := strings.Fields(string(mirror)) // deb URL release main
	if len(fields) < 4 {
		return fault.New(fault.Internal, "debootstrap left no source of packages")
	}
	var sources, pins strings.Builder
	for _, k := range vmKernels {
		if k.release == fields[2] {
			continue
		}
		fmt.Fprintf(&sources, "deb %s %s main\n", fields[1], k.release)
		fmt.Fprintf(&pins, "Package: *\nPin: release n=%s\nPin-Priority: 50\n\n", k.release)
	}
	for name, text := range map[string]string{"sources.list.d/kernels.list": sources.String(), "preferences.d/kernels": pins.String()} {
		if err := os.WriteFile(filepath.Join(root, "etc/apt", name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	if _, err := h.Output(ctx, ".", "chroot", root, "apt-get", "update", "-q"); err != nil {
		return fault.Wrap(fault.Unavailable, err, "look for kernels")
	}
	install := []string{root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-q", "-y", "--no-install-recommends", "initramfs-tools"}
	for _, k := range vmKernels {
		found, err := h.Output(ctx, ".", "chroot", root, "apt-cache", "search", "--names-only", `^linux-image-`+strings.ReplaceAll(k.version, ".", `\.`)+`\.[^ ]*-cloud-amd64$`)
		names := strings.Fields(found)
		names = slices.DeleteFunc(names, func(s string) bool { return !strings.HasPrefix(s, "linux-image-") })
		if err != nil || len(names) == 0 {
			return fault.New(fault.Unavailable, "Debian %s has no kernel %s here (%v)", k.release, k.version, err)
		}
		slices.Sort(names)
		install = append(install, names[len(names)-1])
	}
	if _, err := h.Output(ctx, ".", "chroot", install...); err != nil {
		return fault.Wrap(fault.Unavailable, err, "install kernels")
	}
	return nil
}

// makeImage makes an ext4 image of a folder, with room to the given size.
func makeImage(ctx context.Context, h *House, image, from string, size int64) error {
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		return err
	}
	if err := os.Truncate(image, size); err != nil {
		return err
	}
	_, err := h.Output(ctx, ".", "mkfs.ext4", "-q", "-F", "-d", from, image)
	return err
}

// vmPayload puts what is to run into a folder: the binaries, dev, and the
// tests of packages.
func (h *House) vmPayload(ctx context.Context, dir string, args []string) error {
	if err := os.MkdirAll(filepath.Join(dir, "test"), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "init"), vmInit, 0o755); err != nil {
		return err
	}
	var run strings.Builder
	run.WriteString("export KOMAINU_NEED=root\n")
	if args[0] == "test" {
		if len(args) == 1 {
			return fault.New(fault.Invalid, "name the packages to test, like ./agent/realtime")
		}
		run.WriteString("code=0\n")
		for i, pkg := range args[1:] {
			name := strconv.Itoa(i)
			cmd := h.Command(ctx, ".", "go", "test", "-c", "-o", filepath.Join(dir, "test", name), pkg)
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("build the tests of %s: %w\n%s", pkg, err, tail(string(out), 4000))
			}
			run.WriteString(fmt.Sprintf("echo '== %s'\n./test/%s -test.timeout 15m || code=1\n", pkg, name))
		}
		run.WriteString("(exit $code)\n")
	} else {
		bin, err := h.Build(ctx)
		if err != nil {
			return err
		}
		if err := os.CopyFS(filepath.Join(dir, "bin"), os.DirFS(bin)); err != nil {
			return err
		}
		cmd := h.Command(ctx, ".", "go", "build", "-o", filepath.Join(dir, "dev"), "./dev")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build dev: %w\n%s", err, tail(string(out), 4000))
		}
		module, err := os.ReadFile(h.Path("go.mod"))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "go.mod"), module, 0o644); err != nil {
			return err
		}
		run.WriteString("export " + prebuilt + "=/komainu/bin\n./dev")
		for _, a := range args {
			run.WriteString(" '" + strings.ReplaceAll(a, "'", `'\''`) + "'")
		}
		run.WriteString("\n")
	}
	return os.WriteFile(filepath.Join(dir, "run"), []byte(run.String()), 0o644)
}

// vmRun boots the machine and shows what it prints between its beginning and
// its end. The error carries what the program in it ended with.
func (h *House) vmRun(ctx context.Context, base, kernel, accel, image string) error {
	linux, err := filepath.Glob(filepath.Join(base, "boot", "vmlinuz-"+kernel+".*"))
	if err != nil || len(linux) != 1 {
		return fault.New(fault.Invalid, "no kernel %s; there are 5.10, 6.1 and 6.12", kernel)
	}
	initrd := filepath.Join(base, "boot", "initrd.img-"+strings.TrimPrefix(filepath.Base(linux[0]), "vmlinuz-"))
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", "-machine", "q35", "-accel", accel, "-cpu", "max", "-smp", "2", "-m", "3G",
		"-display", "none", "-monitor", "none", "-serial", "stdio", "-no-reboot", "-snapshot", "-nic", "none",
		"-kernel", linux[0], "-initrd", initrd, "-append", "root=/dev/vda rw console=ttyS0 panic=-1 quiet init=/bin/sh -- -c \"mount -n /dev/vdb /komainu; exec /komainu/init\"",
		"-drive", "file="+filepath.Join(base, "root.img")+",if=virtio,format=raw", "-drive", "file="+image+",if=virtio,format=raw")
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	var complaints strings.Builder
	cmd.Stderr = &complaints
	if err := cmd.Start(); err != nil {
		return err
	}
	code, began, boot := -1, false, ""
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		line := strings.TrimRight(lines.Text(), "\r")
		switch {
		case strings.HasPrefix(line, "vm begins"):
			began = true
			h.Say("%s", line)
		case strings.HasPrefix(line, "vm ends "):
			if code, err = strconv.Atoi(strings.TrimPrefix(line, "vm ends ")); err != nil {
				code = -1
			}
			began = false
		case began:
			h.Say("%s", line)
		default:
			boot = tail(boot+line+"\n", 4000)
		}
	}
	_, _ = io.Copy(io.Discard, out) // a line that is too long ends the scan
	err = cmd.Wait()
	switch {
	case ctx.Err() != nil:
		return fault.New(fault.Unavailable, "the virtual machine did not end in time")
	case code == 0:
		return nil
	case code > 0:
		return fault.New(fault.Internal, "in the virtual machine it ended with %d", code)
	}
	return fault.New(fault.Internal, "the virtual machine ended early: %v\n%s%s", err, complaints.String(), boot)
}
