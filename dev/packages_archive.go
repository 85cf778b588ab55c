package main

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// archive makes the package for hosts that have neither dpkg nor rpm: one
// folder with install.sh, the version and the files. WalkDir goes by name, and
// times and owners are not those of the machine, so that equal files are equal
// bytes.
func (p *packing) archive(c parcel, arch, stage, scripts string) (string, error) {
	top := fmt.Sprintf("%s_%s_%s", c.name, p.version, arch)
	name := filepath.Join(p.out, top+".tar.gz")
	out, err := os.Create(name)
	if err != nil {
		return "", err
	}
	defer out.Close()
	zip, err := gzip.NewWriterLevel(out, gzip.BestCompression)
	if err != nil {
		return "", err
	}
	t := &archiving{Writer: tar.NewWriter(zip), p: p}
	installer, err := os.ReadFile(filepath.Join(scripts, "install"))
	if err != nil {
		return "", err
	}
	err = errors.Join(
		t.folder(top),
		t.text(top+"/install.sh", 0o755, installer),
		t.text(top+"/VERSION", 0o644, []byte(p.version+"\n")),
	)
	if err != nil {
		return "", err
	}
	err = filepath.WalkDir(stage, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		inside := strings.TrimPrefix(path, stage)
		// Where zsh looks on distributions that are not Debian's.
		to := top + "/files" + strings.Replace(inside, debianZsh, otherZsh, 1)
		if d.IsDir() {
			if strings.HasPrefix(debianZsh, inside+"/") && strings.HasSuffix(inside, "/vendor-completions") {
				return t.folder(top + "/files" + strings.TrimSuffix(otherZsh, "/"))
			}
			return t.folder(to)
		}
		mode := fs.FileMode(0o644)
		if strings.HasPrefix(inside, "/usr/bin/") {
			mode = 0o755
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return t.text(to, mode, text)
	})
	return name, errors.Join(err, t.Close(), zip.Close(), out.Close())
}

// archiving writes entries that belong to root and have the time of the
// commit.
type archiving struct {
	*tar.Writer
	p *packing
}

func (t *archiving) folder(name string) error {
	return t.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755, ModTime: t.p.at, Format: tar.FormatUSTAR})
}

func (t *archiving) text(name string, mode fs.FileMode, text []byte) error {
	if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: int64(mode), Size: int64(len(text)), ModTime: t.p.at, Format: tar.FormatUSTAR}); err != nil {
		return err
	}
	_, err := t.Write(text)
	return err
}
