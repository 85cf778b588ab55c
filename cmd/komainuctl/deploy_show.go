package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"komainu/deploy"
)

// progress shows how a deployment goes on. step is called from several
// goroutines.
type progress interface {
	step(host string, s deploy.Step, text string)
	done(outcome)
	end(ok, failed, passed int)
}

func (a *app) progress(c *cobra.Command, hosts int) progress {
	if a.format == "json" {
		return &asJSON{to: json.NewEncoder(a.out)}
	}
	if f, ok := a.out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		width, _, err := term.GetSize(int(f.Fd()))
		if err != nil {
			width = 80
		}
		return &asScreen{out: f, hosts: hosts, width: width, at: map[string]deploy.Step{}}
	}
	return &asLines{out: a.out}
}

// asJSON prints one object for each host when it is done.
type asJSON struct{ to *json.Encoder }

func (*asJSON) step(string, deploy.Step, string) {}
func (p *asJSON) done(o outcome)                 { _ = p.to.Encode(o) } // nobody is left to tell
func (*asJSON) end(int, int, int)                {}

// asLines prints a line for each step: host, step, text, with tabs between.
type asLines struct {
	mu  sync.Mutex
	out io.Writer
}

func (p *asLines) step(host string, s deploy.Step, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintln(p.out, cells(host, s, text))
}

func (p *asLines) done(o outcome) {
	p.mu.Lock()
	defer p.mu.Unlock()
	word, text := result(o)
	fmt.Fprintln(p.out, cells(o.Host, word, text))
}

func (p *asLines) end(int, int, int) {}

// result is what is said of a host in the end.
func result(o outcome) (word, text string) {
	if o.OK {
		return "ok", fmt.Sprintf("%s (%.1f s)", o.Text, o.Seconds)
	}
	text = o.Reason.Text
	if o.Reason.Detail != "" {
		text += " (" + o.Reason.Detail + ")"
	}
	if o.Reason.Remedy != "" {
		text += "; " + o.Reason.Remedy
	}
	switch {
	case o.Passed:
		return "passed", text
	case o.Step == "":
		return "failed", text // before anything was begun
	}
	return "failed", string(o.Step) + ": " + text
}

// asScreen prints a line for each host that is done, and below them one that
// says how many are at which step.
type asScreen struct {
	mu           sync.Mutex
	out          io.Writer
	hosts, width int
	ok, failed   int
	passed       int
	at           map[string]deploy.Step
}

func (p *asScreen) step(host string, s deploy.Step, _ string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at[host] = s
	p.status()
}

func (p *asScreen) done(o outcome) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.at, o.Host)
	colour := "\x1b[32m"
	switch {
	case o.OK:
		p.ok++
	case o.Passed:
		p.passed++
		colour = "\x1b[33m"
	default:
		p.failed++
		colour = "\x1b[31m"
	}
	word, text := result(o)
	fmt.Fprintf(p.out, "\r\x1b[K%s%-6s\x1b[0m  %s  %s\n", colour, word, cells(o.Host), cells(text))
	p.status()
}

// status writes the last line anew. The caller holds mu.
func (p *asScreen) status() {
	count := map[deploy.Step]int{}
	for _, s := range p.at {
		count[s]++
	}
	parts := []string{fmt.Sprintf("%d of %d done", p.ok+p.failed+p.passed, p.hosts)}
	for _, s := range deploy.Steps() {
		if count[s] > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", s, count[s]))
		}
	}
	fmt.Fprintf(p.out, "\r\x1b[K%.*s", max(p.width-1, 1), strings.Join(parts, ", "))
}

func (p *asScreen) end(ok, failed, passed int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	text := fmt.Sprintf("%d ok, %d failed", ok, failed)
	if passed > 0 {
		text += fmt.Sprintf(", %d passed over", passed)
	}
	fmt.Fprintf(p.out, "\r\x1b[K%s\n", text)
}
