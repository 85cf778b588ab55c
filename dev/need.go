package main

import (
	"context"
	"os"
	"os/exec"
	"slices"
	"strings"

	"komainu/fault"
)

// prerequisite is a program that people bring themselves.
type prerequisite struct{ program, what string }

// A newcomer needs these three; README names their versions.
var prerequisites = []prerequisite{
	{"go", "Go 1.26 or newer"},
	{"cc", "a C compiler (Debian: gcc), for DuckDB"},
	{"npm", "Node 20 or newer with npm 11, for the portal"},
}

// RequirePrerequisites names everything that is missing in one error.
func RequirePrerequisites() error {
	var missing []string
	for _, p := range prerequisites {
		if _, err := exec.LookPath(p.program); err != nil {
			missing = append(missing, p.what)
		}
	}
	if missing == nil {
		return nil
	}
	return fault.New(fault.Unsupported, "missing: %s; install and try again", strings.Join(missing, "; "))
}

// tool is a program that tests and generators use, and the Debian package
// that brings it.
type tool struct{ path, debian string }

var (
	browserTools = []tool{{"chromium-headless-shell", "chromium-headless-shell"}, {"/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc", "fonts-noto-cjk"}}
	genTools     = []tool{{"clang-14", "clang-14"}, {"llvm-strip-14", "llvm-14"}, {"/usr/include/bpf/bpf_helpers.h", "libbpf-dev"}, {"protoc", "protobuf-compiler"}}
	hostTools    = []tool{{"curl", "curl"}, {"unzip", "unzip"}, {"mkfs.ext4", "e2fsprogs"}, {"ip", "iproute2"}, {"python3", "python3"}, {"debootstrap", "debootstrap"}, {"systemd-nspawn", "systemd-container"}, {"rpm", "rpm"}, {"gpg", "gnupg"},
		{"sshd", "openssh-server"}, {"sudo", "sudo"}, {"zsh", "zsh"}, {"fish", "fish"}, {"tcsh", "tcsh"}, {"mksh", "mksh"}, {"rsyslogd", "rsyslog"}}
)

// Install brings the tools that are missing: as root through apt-get,
// otherwise it names them in one line.
func (h *House) Install(ctx context.Context, tools ...tool) error {
	var packages []string
	for _, t := range tools {
		if !present(t.path) && !slices.Contains(packages, t.debian) {
			packages = append(packages, t.debian)
		}
	}
	if packages == nil || os.Getenv(prebuilt) != "" { // the virtual machine was made with what it needs
		return nil
	}
	wanted := strings.Join(packages, " ")
	if _, err := exec.LookPath("apt-get"); err != nil || os.Geteuid() != 0 {
		return fault.New(fault.Unsupported, "missing tools; install them and try again, on Debian: sudo apt-get install %s", wanted)
	}
	h.Say("installing %s", wanted)
	if _, err := h.Output(ctx, ".", "apt-get", "update", "-q"); err != nil {
		return fault.Wrap(fault.Unavailable, err, "refresh the package lists")
	}
	args := append([]string{"install", "-q", "-y", "--no-install-recommends"}, packages...)
	if _, err := h.Output(ctx, ".", "apt-get", args...); err != nil {
		return fault.Wrap(fault.Unavailable, err, "install %s", wanted)
	}
	return nil
}

func present(path string) bool {
	if strings.HasPrefix(path, "/") {
		_, err := os.Stat(path)
		return err == nil
	}
	_, err := exec.LookPath(path)
	return err == nil
}
