package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"komainu/fault"
)

// parcel is a package of ours for Linux distributions.
type parcel struct {
	name     string
	commands []string
	static   bool // needs nothing of its distribution, and cross-compiles
	any      bool // is the same for every architecture
	scripts  string
	files    []parcelFile
	links    []parcelLink
}

// parcelFile is a file of the checkout that a package installs.
type parcelFile struct{ from, to string }

// parcelLink is a symbolic link that a package installs.
type parcelLink struct{ target, at string }

var parcels = []parcel{
	{
		name: "komainu-control", commands: []string{"komainu-control", "komainuctl"}, scripts: "control",
		files: []parcelFile{
			{"packaging/systemd/komainu-control.service", "/usr/lib/systemd/system/komainu-control.service"},
			{"packaging/systemd/komainu-control.sysusers", "/usr/lib/sysusers.d/komainu-control.conf"},
			{"packaging/control.yaml", "/etc/komainu/control.yaml"},
			{"LICENSE", "/usr/share/doc/komainu-control/copyright"},
		},
	},
	{
		name: agentParcel, commands: []string{"komainud", "komainu"}, static: true, scripts: "agent",
		files: []parcelFile{
			{"packaging/systemd/komainu-agent.service", "/usr/lib/systemd/system/komainu-agent.service"},
			{"packaging/systemd/komainu-upgrade.path", "/usr/lib/systemd/system/komainu-upgrade.path"},
			{"packaging/systemd/komainu-upgrade.service", "/usr/lib/systemd/system/komainu-upgrade.service"},
			{"packaging/systemd/komainu-agent.sysusers", "/usr/lib/sysusers.d/komainu-agent.conf"},
			{"LICENSE", "/usr/share/doc/komainu-agent/copyright"},
		},
	},
	{
		name: "komainu-mdatp", static: true, any: true, scripts: "mdatp",
		files: []parcelFile{{"LICENSE", "/usr/share/doc/komainu-mdatp/copyright"}},
		links: []parcelLink{{"komainu", "/usr/bin/mdatp"}},
	},
}

// agentParcel also comes as an archive, for hosts without a package manager
// that we have packages for.
const agentParcel = "komainu-agent"

// completions are shells and where they look for what a command completes.
var completions = []struct{ shell, to string }{
	{"bash", "/usr/share/bash-completion/completions/%s"},
	{"zsh", debianZsh + "_%s"},
	{"fish", "/usr/share/fish/vendor_completions.d/%s.fish"},
}

// Where zsh looks depends on the distribution.
const (
	debianZsh = "/usr/share/zsh/vendor-completions/"
	otherZsh  = "/usr/share/zsh/site-functions/"
)

// packing is one run of the command packages.
type packing struct {
	h       *House
	out     string
	version string
	at      time.Time // of everything in the packages
	overlay string
	formats []string
	key     string // to sign with, in a file
}

// packages builds what people install: .deb and .rpm of the control plane for
// this architecture, of the agent for all that it runs on, and the agent as an
// archive. The same commit gives the same bytes.
func packages(ctx context.Context, h *House, args []string) error {
	flags := flag.NewFlagSet("packages", flag.ContinueOnError)
	out := flags.String("o", h.State("packages"), "folder for the packages")
	version := flags.String("version", "", "version; by default it is made from the number of commits")
	only := flags.String("only", "", "build this package alone: komainu-control, komainu-agent or komainu-mdatp")
	arch := flags.String("arch", "", "build for this architecture alone: amd64 or arm64")
	formats := flags.String("formats", "deb,rpm,tar", "formats, comma-separated; tar is of the agent alone")
	key := flags.String("sign-key", "", "sign with the OpenPGP key (RSA) in this file; KOMAINU_SIGN_PASSPHRASE opens one that is locked")
	overlay := flags.String("overlay", "", "hand this file to go build -overlay, to try a change that is not in the checkout")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 0 {
		return fault.New(fault.Invalid, "packages takes flags only, not %q", flags.Args())
	}
	if *only != "" && !slices.ContainsFunc(parcels, func(p parcel) bool { return p.name == *only }) {
		return fault.New(fault.Invalid, "there is no package %q", *only)
	}
	if err := RequirePrerequisites(); err != nil {
		return err
	}
	p := &packing{h: h, overlay: *overlay, formats: strings.Split(*formats, ",")}
	var err error
	if p.out, err = filepath.Abs(*out); err != nil {
		return err
	}
	if *key != "" {
		if p.key, err = filepath.Abs(*key); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(p.out, 0o755); err != nil {
		return err
	}
	if err := p.identify(ctx, *version); err != nil {
		return err
	}
	var made []string
	for _, c := range parcels {
		if *only != "" && c.name != *only {
			continue
		}
		arches := []string{runtime.GOARCH}
		switch {
		case c.any:
			arches = []string{anyArch}
		case c.static:
			arches = []string{"amd64", "arm64"}
		default:
			if err := h.BuildPortal(ctx); err != nil {
				return err
			}
		}
		for _, a := range arches {
			if *arch != "" && a != *arch && a != anyArch {
				continue
			}
			list, err := p.pack(ctx, c, a)
			if err != nil {
				return fmt.Errorf("%s for %s: %w", c.name, a, err)
			}
			made = append(made, list...)
		}
	}
	if made == nil {
		return fault.New(fault.Invalid, "nothing is built for %s here", *arch)
	}
	return p.sums(ctx, made)
}

// identify takes the version and the time from the commit; SOURCE_DATE_EPOCH
// says another time.
func (p *packing) identify(ctx context.Context, version string) error {
	text, err := os.Getenv("SOURCE_DATE_EPOCH"), error(nil)
	if text == "" {
		if text, err = p.h.Output(ctx, ".", "git", "log", "-1", "--format=%ct"); err != nil {
			return err
		}
	}
	seconds, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil {
		return err
	}
	p.at = time.Unix(seconds, 0).UTC()
	count, err := p.h.Output(ctx, ".", "git", "rev-list", "--count", "HEAD")
	p.version = cmp.Or(strings.TrimPrefix(version, "v"), "0.1.0-dev."+strings.TrimSpace(count))
	return err
}

// anyArch is what dpkg calls a package for every architecture; nfpm translates
// it for rpm.
const anyArch = "all"

// pack builds one package in all formats and returns their names.
func (p *packing) pack(ctx context.Context, c parcel, arch string) ([]string, error) {
	work, err := os.MkdirTemp("", "komainu-package-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)
	stage, scripts := filepath.Join(work, "files"), filepath.Join(work, "scripts")
	if err := p.stage(ctx, c, arch, stage); err != nil {
		return nil, err
	}
	if err := p.scripts(c, scripts); err != nil {
		return nil, err
	}
	contents, err := p.contents(stage)
	if err != nil {
		return nil, err
	}
	values := map[string]string{"ARCH": arch, "VERSION": p.version, "TIME": p.at.Format(time.RFC3339), "CONTENTS": contents, "SCRIPTS": scripts}
	if !c.static {
		if err := needs(filepath.Join(stage, "usr/bin", c.commands[0]), values); err != nil {
			return nil, err
		}
	}
	form, err := os.ReadFile(p.h.Path("packaging", c.name+".yaml"))
	if err != nil {
		return nil, err
	}
	config := filepath.Join(work, "nfpm.yaml")
	text := os.Expand(string(form), func(name string) string { return values[name] })
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return nil, err
	}
	var made []string
	for _, format := range p.formats {
		var name string
		switch {
		case format != "tar":
			name, err = p.nfpm(ctx, config, format)
		case c.name == agentParcel:
			name, err = p.archive(c, arch, stage, scripts)
		default:
			continue
		}
		if err != nil {
			return nil, err
		}
		made = append(made, name)
	}
	return made, nil
}

// stage puts the files of a package below a folder, each where it will be
// installed.
func (p *packing) stage(ctx context.Context, c parcel, arch, stage string) error {
	for _, name := range c.commands {
		if err := p.build(ctx, c, name, arch, filepath.Join(stage, "usr/bin", name)); err != nil {
			return err
		}
	}
	for _, f := range c.files {
		text, err := os.ReadFile(p.h.Path(f.from))
		if err != nil {
			return err
		}
		if err := put(stage, f.to, text); err != nil {
			return err
		}
	}
	for _, l := range c.links {
		at := filepath.Join(stage, l.at)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			return err
		}
		if err := os.Symlink(l.target, at); err != nil {
			return err
		}
	}
	if c.commands == nil {
		return nil
	}
	return p.extras(ctx, c, stage)
}

// scripts completes the scripts of a package: the line that reads the shared
// part becomes that part.
func (p *packing) scripts(c parcel, dir string) error {
	names, err := filepath.Glob(p.h.Path("packaging", "scripts", c.scripts+".*"))
	if err != nil {
		return err
	}
	shared := ". ./" + c.scripts + ".sh\n"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if strings.Contains(string(text), shared) {
			part, err := os.ReadFile(p.h.Path("packaging", "scripts", c.scripts+".sh"))
			if err != nil {
				return err
			}
			text = []byte(strings.Replace(string(text), shared, "\n"+string(part)+"\n", 1))
		}
		if err := os.WriteFile(filepath.Join(dir, strings.TrimPrefix(filepath.Ext(name), ".")), text, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// nfpm makes the package that a configuration describes.
func (p *packing) nfpm(ctx context.Context, config, format string) (string, error) {
	args := []string{"-config", config, "-format", format, "-o", p.out}
	if p.key != "" {
		args = append(args, "-key", p.key)
	}
	return p.packager(ctx, args...)
}

// packager runs dev/packager, which has its own modules.
func (p *packing) packager(ctx context.Context, args ...string) (string, error) {
	at := strconv.FormatInt(p.at.Unix(), 10)
	cmd := p.h.Command(ctx, ".", "go", append([]string{"run", "-modfile=dev/tools.mod", "-tags=packager", "./dev/packager", "-at", at}, args...)...)
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH="+at)
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	text, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("packager: %w\n%s", err, tail(complaints.String(), 4000))
	}
	return strings.TrimSpace(string(text)), nil
}

// build links a command as a release.
func (p *packing) build(ctx context.Context, c parcel, name, arch, out string) error {
	flags := "-s -w -buildid= -X main.version=" + p.version + " -X komainu/agent.Version=" + p.version
	args := []string{"build", "-trimpath", "-buildvcs=false", "-ldflags=" + flags, "-o", out}
	if p.overlay != "" {
		args = append(args, "-overlay", p.overlay)
	}
	cmd := p.h.Command(ctx, ".", "go", append(args, "./cmd/"+name)...)
	cgo := "1"
	if c.static || name == "komainuctl" {
		cgo = "0"
	}
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+arch, "CGO_ENABLED="+cgo)
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", name, err, tail(string(text), 4000))
	}
	return os.Chmod(out, 0o755)
}

// contents is the list of files for nfpm, in the order of their names, with
// the time of the commit.
func (p *packing) contents(stage string) (string, error) {
	type info struct {
		Mode  fs.FileMode `json:"mode"`
		MTime string      `json:"mtime"`
	}
	type entry struct {
		Src  string `json:"src"`
		Dst  string `json:"dst"`
		Type string `json:"type,omitempty"`
		Only string `json:"packager,omitempty"`
		Info info   `json:"file_info"`
	}
	var list []entry
	err := filepath.WalkDir(stage, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		e := entry{Src: path, Dst: strings.TrimPrefix(path, stage), Info: info{Mode: 0o644, MTime: p.at.Format(time.RFC3339)}}
		switch {
		case d.Type()&fs.ModeSymlink != 0:
			if e.Src, err = os.Readlink(path); err != nil {
				return err
			}
			e.Type = "symlink"
		case strings.HasPrefix(e.Dst, "/usr/bin/"):
			e.Info.Mode = 0o755
		case strings.HasPrefix(e.Dst, "/etc/"):
			e.Type = "config|noreplace"
		case strings.HasPrefix(e.Dst, debianZsh):
			other := e
			other.Dst, other.Only, e.Only = strings.Replace(e.Dst, debianZsh, otherZsh, 1), "rpm", "deb"
			list = append(list, other)
		}
		list = append(list, e)
		return nil
	})
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(list) // is YAML too
	return string(text), err
}

// put writes a file to where it will be installed, below a folder.
func put(stage, to string, text []byte) error {
	name := filepath.Join(stage, to)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return os.WriteFile(name, text, 0o644)
}

// gccOf says which GCC brought a version of its library for C++.
var gccOf = map[string]string{"3.4.28": "9", "3.4.29": "11", "3.4.30": "12", "3.4.31": "13", "3.4.32": "13.2", "3.4.33": "14", "3.4.34": "15"}

// needs reads from a binary which versions of the system's libraries it uses:
// it was linked on this machine, and runs where they are as new.
func needs(binary string, values map[string]string) error {
	f, err := elf.Open(binary)
	if err != nil {
		return err
	}
	defer f.Close()
	symbols, err := f.ImportedSymbols()
	if err != nil {
		return err
	}
	newest := map[string]string{}
	for _, s := range symbols {
		if name, version, ok := strings.Cut(s.Version, "_"); ok && later(version, newest[name]) {
			newest[name] = version
		}
	}
	values["GLIBC"], values["GLIBCXX"], values["GCC"] = newest["GLIBC"], newest["GLIBCXX"], gccOf[newest["GLIBCXX"]]
	if values["GLIBC"] == "" || values["GCC"] == "" {
		return fmt.Errorf("it is not known which distributions have GLIBC %s and GLIBCXX %s", newest["GLIBC"], newest["GLIBCXX"])
	}
	return nil
}

// later compares versions like 2.34.
func later(a, b string) bool {
	split := func(v string) (n []int) {
		for part := range strings.SplitSeq(v, ".") {
			i, err := strconv.Atoi(part)
			if err != nil {
				return nil // PRIVATE, for example: before everything
			}
			n = append(n, i)
		}
		return n
	}
	return slices.Compare(split(a), split(b)) > 0
}

// sums writes SHA256SUMS beside the packages and says what was made. What has
// no place for a signature inside gets one beside it.
func (p *packing) sums(ctx context.Context, made []string) error {
	var text strings.Builder
	slices.Sort(made)
	for _, name := range made {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		sum := sha256.New()
		size, err := io.Copy(sum, f)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		fmt.Fprintf(&text, "%x  %s\n", sum.Sum(nil), filepath.Base(name))
		p.h.Say("%s  %.1f MB", name, float64(size)/1e6)
	}
	list := filepath.Join(p.out, "SHA256SUMS")
	if err := os.WriteFile(list, []byte(text.String()), 0o644); err != nil || p.key == "" {
		return err
	}
	args := []string{"-key", p.key, list}
	for _, name := range made {
		if strings.HasSuffix(name, ".tar.gz") {
			args = append(args, name)
		}
	}
	_, err := p.packager(ctx, args...)
	return err
}
