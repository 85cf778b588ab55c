package control

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"

	"go.yaml.in/yaml/v3"

	"komainu/control/connector/cloud"
	"komainu/fault"
)

// Config is what an installation decides. It is read at start; a change needs
// a restart. How devices are protected is not here: that is policy.
type Config struct {
	// State is the folder that holds everything the control plane keeps.
	State string `yaml:"state"`
	// Listen is the address of the one port, for browsers and agents.
	Listen string `yaml:"listen"`
	// Hostnames are the names and addresses that the port is reached under.
	// They go into the certificate; join tokens carry the first one.
	Hostnames []string `yaml:"hostnames"`
	// Organization names the organization that the first start creates.
	Organization string `yaml:"organization"`
	// Environment names the environment that the first start creates.
	Environment string        `yaml:"environment"`
	Log         LogConfig     `yaml:"log"`
	Queue       QueueConfig   `yaml:"queue"`
	Events      EventConfig   `yaml:"events"`
	Content     ContentConfig `yaml:"content"`
	// Clouds say how clouds are reached. What is here cannot be changed over
	// the API.
	Clouds cloud.Options `yaml:"clouds"`
}

// LogConfig says how loud the log is.
type LogConfig struct {
	Level  string `yaml:"level"`  // debug, info, warn, error
	Format string `yaml:"format"` // text, json
}

// QueueConfig says where the queue is.
type QueueConfig struct {
	// URL of a NATS cluster; empty: embedded in this process.
	URL      string `yaml:"url"`
	Replicas int    `yaml:"replicas"`
	// MaxBytes bounds what waits; agents keep the rest. 0: the default.
	MaxBytes int64 `yaml:"max_bytes"`
}

// EventConfig says how long events are kept.
type EventConfig struct {
	RetentionDays int `yaml:"retention_days"`
	// MaxBytes bounds what events take; the oldest are deleted first. 0: the
	// disk is the limit.
	MaxBytes int64 `yaml:"max_bytes"`
}

// ContentConfig says what the signed repository is filled from.
type ContentConfig struct {
	// Packages is a folder of packages of the agent; those that are not in the
	// repository yet are added at the start.
	Packages string `yaml:"packages"`
}

// minEventBytes is the least bound of the event store that makes sense.
const minEventBytes = 64 << 20

// DefaultConfig is what an installation gets that decides nothing.
func DefaultConfig() Config {
	return Config{
		State:        "/var/lib/komainu/control",
		Listen:       "127.0.0.1:8443",
		Organization: "My organization",
		Environment:  "On-premises",
		Log:          LogConfig{Level: "info", Format: "text"},
		Queue:        QueueConfig{Replicas: 1},
		Events:       EventConfig{RetentionDays: 30},
		Content:      ContentConfig{Packages: "/usr/share/komainu/packages"},
	}
}

// LoadConfig lays a YAML file over the defaults. A key that is not known is an
// error that names the line.
func LoadConfig(file string) (Config, error) {
	c := DefaultConfig()
	text, err := os.ReadFile(file)
	if err != nil {
		return c, fault.Wrap(fault.Invalid, err, "read the configuration")
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&c); err != nil && !errors.Is(err, io.EOF) {
		return c, fault.Wrap(fault.Invalid, err, "configuration %s", file)
	}
	return c, nil
}

// Validate returns every problem, joined, or nil.
func (c *Config) Validate() error {
	var errs []error
	problem := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.State == "" {
		problem("state: name a folder")
	}
	if _, port, err := net.SplitHostPort(c.Listen); err != nil || port == "" {
		problem("listen %q: want ADDRESS:PORT, like 0.0.0.0:8443", c.Listen)
	}
	for _, h := range c.Hostnames {
		if h == "" || strings.ContainsAny(h, " /:") && net.ParseIP(h) == nil {
			problem("hostnames: %q is no host name and no address", h)
		}
	}
	if strings.TrimSpace(c.Organization) == "" {
		problem("organization: name it")
	}
	if strings.TrimSpace(c.Environment) == "" {
		problem("environment: name it")
	}
	if _, err := c.Log.level(); err != nil {
		problem("log.level %q: want debug, info, warn or error", c.Log.Level)
	}
	if c.Log.Format != "text" && c.Log.Format != "json" {
		problem("log.format %q: want text or json", c.Log.Format)
	}
	if c.Queue.URL == "" && c.Queue.Replicas != 1 {
		problem("queue.replicas %d: the embedded queue has 1; set queue.url for more", c.Queue.Replicas)
	}
	if c.Queue.MaxBytes < 0 {
		problem("queue.max_bytes %d: want a number of bytes, or 0", c.Queue.MaxBytes)
	}
	if c.Events.RetentionDays < 1 || c.Events.RetentionDays > 3650 {
		problem("events.retention_days %d: want 1 to 3650", c.Events.RetentionDays)
	}
	if c.Events.MaxBytes < 0 || c.Events.MaxBytes > 0 && c.Events.MaxBytes < minEventBytes {
		problem("events.max_bytes %d: want at least %d, or 0 for no bound but the disk", c.Events.MaxBytes, int64(minEventBytes))
	}
	if err := c.Clouds.Validate(); err != nil {
		errs = append(errs, err)
	}
	if errs == nil {
		return nil
	}
	return fault.Wrap(fault.Invalid, errors.Join(errs...), "configuration")
}

func (l LogConfig) level() (slog.Level, error) {
	var level slog.Level
	err := level.UnmarshalText([]byte(l.Level))
	return level, err
}

// logger writes to w what the configuration asks for.
func (l LogConfig) logger(w io.Writer) *slog.Logger {
	log, _ := l.adjustable(w)
	return log
}

// adjustable is a logger whose level can change.
func (l LogConfig) adjustable(w io.Writer) (*slog.Logger, *slog.LevelVar) {
	adjust := &slog.LevelVar{}
	if level, err := l.level(); err == nil { // else Validate has refused it
		adjust.Set(level)
	}
	options := &slog.HandlerOptions{Level: adjust}
	if l.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options)), adjust
	}
	return slog.New(slog.NewTextHandler(w, options)), adjust
}
