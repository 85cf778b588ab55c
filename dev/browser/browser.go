// Package browser drives a headless Chromium from Go, through Playwright in a
// small Node program. It is for tests that have to see what a person sees.
//
// A Browser is one page with its own empty profile. Its methods wait for the
// element that they name, up to 15 seconds, and are not safe for concurrent
// use.
package browser

import (
	"bufio"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

//go:embed driver.mjs
var driver []byte

// Options say how the page looks.
type Options struct {
	Portal   string // folder whose node_modules has playwright-core
	Dir      string // folder for the profile; must exist
	Language string // "en" or "ja"
	Dark     bool
}

// Browser is a running Chromium with one page.
type Browser struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	answers *bufio.Reader
}

// What names an element: by test id, optionally holding Text and inside of
// Within (a test id), or by ARIA role and name. Nth chooses among several.
type What struct {
	TestID string `json:"testid,omitempty"`
	Text   string `json:"text,omitempty"`
	Within string `json:"within,omitempty"`
	Role   string `json:"role,omitempty"`
	Name   string `json:"name,omitempty"`
	Exact  bool   `json:"exact,omitempty"`
	Nth    int    `json:"nth,omitempty"`
}

// ID names an element by its test id.
func ID(testid string) What { return What{TestID: testid} }

// Holding names the element with this test id that holds a text.
func Holding(testid, text string) What { return What{TestID: testid, Text: text} }

// Open starts Chromium. Close ends it; so does the end of ctx.
func Open(ctx context.Context, o Options) (*Browser, error) {
	script := filepath.Join(o.Dir, "driver.mjs")
	if err := os.WriteFile(script, driver, 0o644); err != nil {
		return nil, err
	}
	scheme := "light"
	if o.Dark {
		scheme = "dark"
	}
	cmd := exec.CommandContext(ctx, "node", script, o.Portal, filepath.Join(o.Dir, "profile"), o.Language, scheme)
	cmd.Stderr = os.Stderr
	cmd.WaitDelay = 10 * time.Second
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start node: %w", err)
	}
	return &Browser{cmd: cmd, in: in, answers: bufio.NewReader(out)}, nil
}

// closeLimit is how long Chromium may take to end by itself.
const closeLimit = 20 * time.Second

// Close ends Chromium and waits for it.
func (b *Browser) Close() error {
	kill := time.AfterFunc(closeLimit, func() { _ = b.cmd.Process.Kill() })
	defer kill.Stop()
	return errors.Join(b.in.Close(), b.cmd.Wait())
}

type request struct {
	Op      string `json:"op"`
	URL     string `json:"url,omitempty"`
	Path    string `json:"path,omitempty"`
	Value   string `json:"value,omitempty"`
	State   string `json:"state,omitempty"`
	Timeout int64  `json:"timeout,omitempty"` // milliseconds
	What    *What  `json:"what,omitempty"`
}

func (b *Browser) call(r request, value any) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if _, err := b.in.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("browser is gone: %w", err)
	}
	reply, err := b.answers.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("browser is gone: %w", err)
	}
	var answer struct {
		Value json.RawMessage `json:"value"`
		Error string          `json:"error"`
	}
	if err := json.Unmarshal(reply, &answer); err != nil {
		return fmt.Errorf("browser said %q: %w", reply, err)
	}
	if answer.Error != "" {
		return fmt.Errorf("%s %s%+v: %s", r.Op, r.URL, deref(r.What), answer.Error)
	}
	if value == nil {
		return nil
	}
	return json.Unmarshal(answer.Value, value)
}

func deref(w *What) What {
	if w == nil {
		return What{}
	}
	return *w
}

// Goto opens a page and waits until it has loaded.
func (b *Browser) Goto(url string) error { return b.call(request{Op: "goto", URL: url}, nil) }

// Reload loads the page again.
func (b *Browser) Reload() error { return b.call(request{Op: "reload"}, nil) }

// URL returns the address of the page.
func (b *Browser) URL() (url string, err error) {
	err = b.call(request{Op: "url"}, &url)
	return url, err
}

// Click clicks on an element.
func (b *Browser) Click(w What) error { return b.call(request{Op: "click", What: &w}, nil) }

// Fill puts a value into a field.
func (b *Browser) Fill(w What, value string) error {
	return b.call(request{Op: "fill", What: &w, Value: value}, nil)
}

// Wait waits until the element is visible.
func (b *Browser) Wait(w What, timeout time.Duration) error {
	return b.call(request{Op: "wait", What: &w, Timeout: timeout.Milliseconds()}, nil)
}

// WaitGone waits until the element is not visible any more.
func (b *Browser) WaitGone(w What, timeout time.Duration) error {
	return b.call(request{Op: "wait", What: &w, State: "hidden", Timeout: timeout.Milliseconds()}, nil)
}

// Text returns what a person reads in the element.
func (b *Browser) Text(w What) (text string, err error) {
	err = b.call(request{Op: "text", What: &w}, &text)
	return text, err
}

// Visible reports whether the element can be seen now.
func (b *Browser) Visible(w What) (ok bool, err error) {
	err = b.call(request{Op: "visible", What: &w}, &ok)
	return ok, err
}

// Disabled reports whether the control cannot be used.
func (b *Browser) Disabled(w What) (ok bool, err error) {
	err = b.call(request{Op: "disabled", What: &w}, &ok)
	return ok, err
}

// Checked reports whether a switch or a box is on.
func (b *Browser) Checked(w What) (ok bool, err error) {
	err = b.call(request{Op: "checked", What: &w}, &ok)
	return ok, err
}

// Screenshot writes what is visible to a PNG file.
func (b *Browser) Screenshot(path string) error {
	return b.call(request{Op: "screenshot", Path: path}, nil)
}

// Evaluate runs a JavaScript expression in the page and decodes what it, or
// the promise that it is, comes to.
func (b *Browser) Evaluate(script string, value any) error {
	return b.call(request{Op: "evaluate", Value: script}, value)
}

// Complaints returns the uncaught errors of the page since the last call.
func (b *Browser) Complaints() (messages []string, err error) {
	err = b.call(request{Op: "complaints"}, &messages)
	return messages, err
}
