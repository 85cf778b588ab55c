package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"komainu/dev/browser"
	"komainu/fault"
)

// walkthrough does what a server owner does on the first day, from outside:
// with the real binaries, a real browser and real downloads. The first part is
// one machine that is enrolled by hand, the second bare servers that come
// under protection by themselves.
func walkthrough(ctx context.Context, h *House, args []string) error {
	parts := map[string]func(context.Context, *House) (tally, error){"machine": walkthroughPhase, "servers": serversPhase}
	names := []string{"machine", "servers"}
	if len(args) == 1 && parts[args[0]] != nil {
		names = args
	} else if len(args) != 0 {
		return fault.New(fault.Invalid, "walkthrough takes machine, servers, or nothing for both")
	}
	for _, name := range names {
		t, err := parts[name](ctx, h)
		if err == nil && t.failed != 0 {
			err = fault.New(fault.Internal, "%d steps failed", t.failed)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// walkthroughPhase is the walk-through as a part of the tests: every step
// counts as a test.
func walkthroughPhase(ctx context.Context, h *House) (tally, error) {
	if os.Geteuid() != 0 {
		h.Say("skip the walk-through: real-time protection needs root")
		return tally{skipped: 1}, nil
	}
	if err := h.Install(ctx, append(browserTools, hostTools...)...); err != nil {
		return tally{failed: 1}, err
	}
	bin, err := h.Build(ctx)
	if err != nil {
		return tally{failed: 1}, err
	}
	dir, err := os.MkdirTemp("", "komainu-walk-")
	if err != nil {
		return tally{failed: 1}, err
	}
	shots := h.State("walkthrough")
	if err := os.RemoveAll(shots); err != nil {
		return tally{failed: 1}, err
	}
	if err := os.MkdirAll(shots, 0o755); err != nil {
		return tally{failed: 1}, err
	}
	ctx, cancel := context.WithTimeout(ctx, 8*time.Minute)
	defer cancel()
	w := &walk{h: h, stack: NewStack(h, bin, dir), shots: shots}
	steps := w.steps()
	t := w.run(ctx, steps)
	h.Say("walkthrough steps=%d passed=%d react_ms=%d alert_ms=%d", len(steps), t.passed, w.reactMS, w.alertMS)
	err = w.close()
	if err == nil {
		err = os.RemoveAll(dir)
	} else {
		h.Say("kept for a look: %s", dir)
	}
	return t, err
}

// walk is one walk-through.
type walk struct {
	h     *House
	stack *Stack
	shots string
	page  *browser.Browser

	ready   time.Time // when the last start of a thing to time was
	reactMS int64
	alertMS int64
	alert   string // id of the alert of the EDR test
	token   string // join token
	hook    *hook
}

// step is one thing that a person does, and what they must see.
type step struct {
	name string
	do   func(context.Context) error
}

func (w *walk) run(ctx context.Context, steps []step) tally {
	var t tally
	for i, s := range steps {
		started := time.Now()
		err := s.do(ctx)
		took := time.Since(started).Round(time.Millisecond)
		shot := w.shoot(i+1, s.name)
		if err != nil {
			t.failed++
			w.h.Say("FAIL %2d %-58s %8s %s\n%v", i+1, s.name, took, shot, err)
			w.h.Say("%s", w.shown())
			// The later steps stand on this one.
			t.skipped += len(steps) - i - 1
			w.stack.PrintLogs()
			break
		}
		t.passed++
		w.h.Say("ok   %2d %-58s %8s %s", i+1, s.name, took, shot)
	}
	return t
}

// shoot takes a screenshot once there is a page, and returns its path.
func (w *walk) shoot(n int, name string) string {
	if w.page == nil {
		return ""
	}
	file := filepath.Join(w.shots, fmt.Sprintf("%02d-%s.png", n, slug(name)))
	if err := w.page.Screenshot(file); err != nil {
		return "no screenshot: " + err.Error()
	}
	if rel, err := filepath.Rel(w.h.Root, file); err == nil {
		return rel
	}
	return file
}

// shown is what a person reads on the page: where only the log of a run is
// kept, it stands in for the screenshot.
func (w *walk) shown() string {
	if w.page == nil {
		return "no page is open"
	}
	var text string
	err := w.page.Evaluate(`location.href + '\n' + document.body.innerText.slice(0, 4000)`, &text)
	if err != nil {
		return "the page does not answer: " + err.Error()
	}
	return "--- the page\n" + strings.ReplaceAll(text, "\n\n", "\n")
}

// slug makes a file name of a step's name.
func slug(s string) string {
	return strings.Trim(strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		default:
			return '-'
		}
	}, s), "-")
}

func (w *walk) close() error {
	if w.page != nil {
		if err := w.page.Close(); err != nil {
			w.h.Say("browser: %v", err)
		}
	}
	if w.hook != nil {
		if err := w.hook.server.Close(); err != nil {
			w.h.Say("webhook: %v", err)
		}
	}
	return w.stack.Close()
}

// resilience is the phase of the same name, by itself.
func resilience(ctx context.Context, h *House, args []string) error {
	if len(args) != 0 {
		return fault.New(fault.Invalid, "resilience takes no arguments")
	}
	_, err := resiliencePhase(ctx, h)
	return err
}
