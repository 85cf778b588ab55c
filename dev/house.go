package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"komainu/fault"
)

// House is the checkout: where things are, and how programs are run in it.
type House struct {
	Root string // the folder with go.mod
	Out  io.Writer
}

// OpenHouse finds the checkout from the working directory upwards.
func OpenHouse() (*House, error) {
	dir, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	for {
		text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && bytes.HasPrefix(text, []byte("module komainu\n")) {
			return &House{Root: dir, Out: os.Stdout}, nil
		}
		if parent := filepath.Dir(dir); parent != dir {
			dir = parent
			continue
		}
		return nil, fault.New(fault.Invalid, "this is no Komainu checkout; run it from the folder that holds go.mod")
	}
}

// Path joins names to the checkout.
func (h *House) Path(names ...string) string {
	return filepath.Join(append([]string{h.Root}, names...)...)
}

// State is the folder that everything made here is kept in.
func (h *House) State(names ...string) string {
	return h.Path(append([]string{".komainu"}, names...)...)
}

// Say prints a line for the person who watches.
func (h *House) Say(format string, args ...any) { fmt.Fprintf(h.Out, format+"\n", args...) }

// Run runs a program in a folder of the checkout with its output shown.
func (h *House) Run(ctx context.Context, dir string, name string, args ...string) error {
	cmd := h.Command(ctx, dir, name, args...)
	cmd.Stdout, cmd.Stderr = h.Out, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return nil
}

// Output runs a program and returns what it prints; its complaints are part
// of the error.
func (h *House) Output(ctx context.Context, dir string, name string, args ...string) (string, error) {
	cmd := h.Command(ctx, dir, name, args...)
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, tail(complaints.String(), 4000))
	}
	return string(out), nil
}

// Command prepares a program that ends with ctx: asked first, killed after
// ten seconds.
func (h *House) Command(ctx context.Context, dir string, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = h.Path(dir)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// tail returns at most the last n bytes of s.
func tail(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return "…" + s[len(s)-n:]
}
