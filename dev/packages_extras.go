package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// extras puts into a package what is made from the commands and the checkout:
// completions, man pages, and the licences of what is linked in.
func (p *packing) extras(ctx context.Context, c parcel, stage string) error {
	for _, name := range c.commands {
		if err := p.complete(ctx, name, stage); err != nil {
			return err
		}
		if err := p.manuals(name, stage); err != nil {
			return err
		}
	}
	text, err := p.notices(ctx, c)
	if err != nil {
		return err
	}
	text, err = packed(text)
	if err != nil {
		return err
	}
	return put(stage, "/usr/share/doc/"+c.name+"/third-party-licences.txt.gz", text)
}

// complete asks a command for its completions; one that has none says so. The
// command is built for this machine, whatever the package is for.
func (p *packing) complete(ctx context.Context, name, stage string) error {
	if name != "komainu" { // the others have none
		return nil
	}
	dir, err := os.MkdirTemp("", "komainu-package-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	here := filepath.Join(dir, name)
	if err := p.build(ctx, parcel{static: true}, name, runtime.GOARCH, here); err != nil {
		return err
	}
	for _, s := range completions {
		text, err := p.h.Output(ctx, ".", here, "completion", s.shell)
		if err != nil {
			return err
		}
		if err := put(stage, fmt.Sprintf(s.to, name), []byte(text)); err != nil {
			return err
		}
	}
	return nil
}

// manuals takes the man pages of a command and of its subcommands.
func (p *packing) manuals(name, stage string) error {
	pages, err := filepath.Glob(p.h.Path("docs", "man", name+".[0-9]"))
	if err != nil {
		return err
	}
	for _, page := range pages {
		base := filepath.Base(page)
		stem := strings.TrimSuffix(base, filepath.Ext(base))
		if stem != name && !strings.HasPrefix(stem, name+"-") || name == "komainu" && strings.HasPrefix(stem, "komainu-control") {
			continue // of another command whose name begins alike
		}
		text, err := os.ReadFile(page)
		if err != nil {
			return err
		}
		if text, err = packed(text); err != nil {
			return err
		}
		if err := put(stage, "/usr/share/man/man"+base[len(base)-1:]+"/"+base+".gz", text); err != nil {
			return err
		}
	}
	return nil
}

// packed compresses without a name and a time, so that equal texts stay equal.
func packed(text []byte) ([]byte, error) {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(text); err != nil {
		return nil, err
	}
	err = w.Close()
	return b.Bytes(), err
}

// notices collects the licences of the modules that the commands of a package
// link and, for the control plane, of the packages that the portal bundles:
// most of them want their text to go along.
func (p *packing) notices(ctx context.Context, c parcel) ([]byte, error) {
	args := []string{"list", "-deps", "-f", "{{with .Module}}{{.Path}} {{.Version}}\t{{.Dir}}{{end}}"}
	for _, name := range c.commands {
		args = append(args, "./cmd/"+name)
	}
	out, err := p.h.Output(ctx, ".", "go", args...)
	if err != nil {
		return nil, err
	}
	folders := map[string]string{}
	for line := range strings.Lines(out) {
		if name, dir, ok := strings.Cut(strings.TrimSpace(line), "\t"); ok && !strings.HasPrefix(name, "komainu ") {
			folders[name] = dir
		}
	}
	if !c.static {
		if err := p.bundled(folders); err != nil {
			return nil, err
		}
	}
	var b bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(folders)) {
		texts, err := licenceTexts(folders[name])
		if err != nil {
			return nil, fmt.Errorf("licences of %s: %w", name, err)
		}
		fmt.Fprintf(&b, "==== %s\n\n%s\n", name, texts)
	}
	return b.Bytes(), nil
}

// bundled adds the npm packages that are part of the portal.
func (p *packing) bundled(folders map[string]string) error {
	text, err := os.ReadFile(p.h.Path("portal", "package-lock.json"))
	if err != nil {
		return err
	}
	var lock struct {
		Packages map[string]struct {
			Version  string `json:"version"`
			Dev      bool   `json:"dev"`
			Optional bool   `json:"optional"`
		} `json:"packages"`
	}
	if err := json.Unmarshal(text, &lock); err != nil {
		return fmt.Errorf("portal/package-lock.json: %w", err)
	}
	for name, entry := range lock.Packages {
		if name != "" && !entry.Dev && !entry.Optional {
			folders["npm "+strings.TrimPrefix(name, "node_modules/")+" "+entry.Version] = p.h.Path("portal", name)
		}
	}
	return nil
}

// licenceTexts returns what a folder says of its licence; a package of npm
// that has no such file names it in its package.json.
func licenceTexts(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, e := range entries {
		upper := strings.ToUpper(e.Name())
		if e.IsDir() || !slices.ContainsFunc([]string{"LICENSE", "LICENCE", "COPYING", "NOTICE"}, func(s string) bool { return strings.HasPrefix(upper, s) }) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return "", err
		}
		b.Write(text)
		b.WriteString("\n")
	}
	if b.Len() > 0 {
		return b.String(), nil
	}
	var manifest struct {
		License string `json:"license"`
		Author  any    `json:"author"`
	}
	text, err := os.ReadFile(filepath.Join(dir, "package.json"))
	if err == nil {
		err = json.Unmarshal(text, &manifest)
	}
	if err != nil || manifest.License == "" {
		return "", fmt.Errorf("it has none (%w)", err)
	}
	return fmt.Sprintf("Licence: %s\nAuthor: %v\n", manifest.License, manifest.Author), nil
}
