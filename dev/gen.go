package main

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"komainu/fault"
)

// generated lists the packages with a go:generate line and the patterns of
// the files that it writes. The programs come from Debian 12 (clang-14,
// protoc), so that the bytes are the same everywhere.
var generated = []struct{ pkg, files string }{
	{"wire", "*.pb.go"},
	{"agent/sensor/ebpf", "*.o"},
}

func gen(ctx context.Context, h *House, args []string) error {
	if len(args) != 0 {
		return fault.New(fault.Invalid, "gen takes no arguments")
	}
	if err := h.Install(ctx, genTools...); err != nil {
		return err
	}
	for _, g := range generated {
		h.Say("generate %s", g.pkg)
		if err := h.Run(ctx, ".", "go", "generate", "./"+g.pkg); err != nil {
			return err
		}
	}
	return nil
}

// checkGenerated rebuilds every generated file, puts the committed bytes back
// and names the files that differed.
func checkGenerated(ctx context.Context, h *House) error {
	if err := h.Install(ctx, genTools...); err != nil {
		return err
	}
	before, err := h.readGenerated()
	if err != nil {
		return err
	}
	if len(before) == 0 {
		return fault.New(fault.Internal, "no generated file found; the table in dev/gen.go is wrong")
	}
	genErr := gen(ctx, &House{Root: h.Root, Out: new(bytes.Buffer)}, nil)
	after, err := h.readGenerated()
	if err != nil {
		return err
	}
	var stale []string
	for name, content := range after {
		if !bytes.Equal(before[name], content) {
			stale = append(stale, name)
			if old, ok := before[name]; ok {
				if err := os.WriteFile(h.Path(name), old, 0o644); err != nil {
					return err
				}
			}
		}
	}
	if genErr != nil {
		return genErr
	}
	if stale != nil {
		slices.Sort(stale)
		return fmt.Errorf("stale generated files; run go run ./dev gen and commit: %s", strings.Join(stale, ", "))
	}
	return nil
}

func (h *House) readGenerated() (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, g := range generated {
		err := filepath.WalkDir(h.Path(g.pkg), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			if ok, err := filepath.Match(g.files, d.Name()); !ok {
				return err
			}
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			name, err := filepath.Rel(h.Root, path)
			files[name] = content
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return files, nil
}
