package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// licenceMarks tell a licence by a phrase that only its text has. The order
// matters: the Mozilla licence names the GNU ones, and a text that offers a
// choice is what we choose.
var licenceMarks = []struct{ name, phrase string }{
	{"BSD", "SPDX-License-Identifier: BSD-3-Clause OR "},
	{"MPL-2.0", "Mozilla Public License Version 2.0"},
	{"MPL-2.0", "Mozilla Public License, version 2.0"},
	{"AGPL", "GNU AFFERO GENERAL PUBLIC LICENSE"},
	{"LGPL", "GNU LESSER GENERAL PUBLIC LICENSE"},
	{"GPL", "GNU GENERAL PUBLIC LICENSE Version"},
	{"MPL-2.0", "Mozilla Public License"},
	{"Apache-2.0", "Apache License"},
	{"MIT", "Permission is hereby granted, free of charge"},
	{"BSD", "Redistribution and use in source and binary forms"},
	{"ISC", "Permission to use, copy, modify, and/or distribute this software for any purpose"},
	{"ISC", "Permission to use, copy, modify, and distribute this software for any purpose"},
	{"CC0", "CC0 1.0 Universal"},
	{"Unlicense", "This is free and unencumbered software released into the public domain"},
}

// goodLicences may be linked into a binary of ours.
var goodLicences = []string{"Apache-2.0", "MIT", "BSD", "MPL-2.0", "ISC", "CC0", "Unlicense"}

// goodPackages are the SPDX expressions that a package of the portal may have.
var goodPackages = []string{"MIT", "ISC", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "0BSD", "CC0-1.0", "Unlicense", "Zlib", "BlueOak-1.0.0", "MPL-2.0", "Python-2.0"}

// checkLicences reads the licence of every module that is linked into a
// binary, and of every package that is bundled into the portal.
func checkLicences(ctx context.Context, h *House) error {
	modules, err := h.linkedModules(ctx)
	if err != nil {
		return err
	}
	if len(modules) < 5 {
		return fmt.Errorf("only %d modules found; the check sees nothing", len(modules))
	}
	var errs []error
	for name, dir := range modules {
		if l := licenceOf(dir); !slices.Contains(goodLicences, l) {
			errs = append(errs, fmt.Errorf("module %s: licence %s", name, l))
		}
	}
	return errors.Join(append(errs, h.checkPortalLicences())...)
}

// linkedModules returns the folder of every module that a command links on
// any of our platforms.
func (h *House) linkedModules(ctx context.Context) (map[string]string, error) {
	modules := map[string]string{}
	for _, system := range []string{"linux", "windows"} {
		args := []string{"list", "-deps", "-f", "{{with .Module}}{{.Path}}\t{{.Dir}}{{end}}"}
		cmd := h.Command(ctx, ".", "go", append(args, platformCommands(system)...)...)
		cmd.Env = append(os.Environ(), "GOOS="+system)
		out, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("list what the commands link for %s: %w", system, err)
		}
		for line := range strings.Lines(string(out)) {
			name, dir, ok := strings.Cut(strings.TrimSpace(line), "\t")
			if ok && name != "komainu" {
				modules[name] = dir
			}
		}
	}
	return modules, nil
}

func platformCommands(system string) []string {
	commands := []string{"./cmd/komainud", "./cmd/komainu", "./cmd/komainuctl"}
	if system == "linux" {
		commands = append(commands, "./cmd/komainu-control")
	}
	return commands
}

// licenceOf reads the licence file of a module and names the licence.
func licenceOf(dir string) string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "unreadable: " + err.Error()
	}
	for _, e := range entries {
		upper := strings.ToUpper(e.Name())
		if e.IsDir() || !strings.HasPrefix(upper, "LICENSE") && !strings.HasPrefix(upper, "LICENCE") && !strings.HasPrefix(upper, "COPYING") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			continue
		}
		flat := strings.Join(strings.Fields(string(text)), " ")
		for _, m := range licenceMarks {
			if strings.Contains(strings.ToLower(flat), strings.ToLower(m.phrase)) {
				return m.name
			}
		}
	}
	return "unknown"
}

// checkPortalLicences reads the lock file: packages that are only needed to
// build (dev) are not shipped and not judged.
func (h *House) checkPortalLicences() error {
	text, err := os.ReadFile(h.Path("portal", "package-lock.json"))
	if err != nil {
		return err
	}
	var lock struct {
		Packages map[string]struct {
			License string `json:"license"`
			Dev     bool   `json:"dev"`
		} `json:"packages"`
	}
	if err := json.Unmarshal(text, &lock); err != nil {
		return fmt.Errorf("portal/package-lock.json: %w", err)
	}
	var errs []error
	for name, p := range lock.Packages {
		if name == "" || p.Dev || goodExpression(p.License) {
			continue
		}
		errs = append(errs, fmt.Errorf("portal package %s: licence %q", name, p.License))
	}
	return errors.Join(errs...)
}

// goodExpression accepts an SPDX expression when one side of each OR is good.
func goodExpression(expression string) bool {
	for part := range strings.SplitSeq(strings.Trim(expression, "()"), " OR ") {
		if slices.Contains(goodPackages, strings.TrimSpace(part)) {
			return true
		}
	}
	return false
}
