// Package rules holds what people read of the behaviour rules that ship with
// the agent: one file for each, named by the rule's id. What a rule looks for
// is in agent/rules; samples of what it finds and what it leaves alone are in
// samples.
package rules

import (
	"bytes"
	"embed"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"go.yaml.in/yaml/v3"
)

//go:embed *.yaml
var files embed.FS

// Version is that of the pack: it rises when a rule changes what it finds.
const Version = "1"

// Meta describes a rule.
type Meta struct {
	ID          string   `yaml:"-"`
	Title       string   `yaml:"title"`
	Severity    string   `yaml:"severity"`
	Category    string   `yaml:"category"`
	Techniques  []string `yaml:"techniques"`
	Description string   `yaml:"description"`
	// Logic says what the rule looks for, exactly enough to see why something
	// matched.
	Logic          string   `yaml:"logic"`
	FalsePositives []string `yaml:"falsePositives"`
	// Recommended are actions for who investigates, in order.
	Recommended []string `yaml:"recommended"`
}

// All returns the rules by id.
func All() (map[string]Meta, error) {
	names, err := fs.Glob(files, "*.yaml")
	if err != nil {
		return nil, err
	}
	all := map[string]Meta{}
	for _, name := range names {
		text, err := files.ReadFile(name)
		if err != nil {
			return nil, err
		}
		meta := Meta{ID: strings.TrimSuffix(path.Base(name), ".yaml")}
		d := yaml.NewDecoder(bytes.NewReader(text))
		d.KnownFields(true)
		if err := d.Decode(&meta); err != nil {
			return nil, fmt.Errorf("rule %s: %w", meta.ID, err)
		}
		all[meta.ID] = meta
	}
	return all, nil
}
