package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"komainu/deploy"
)

// hello is said by a script before anything else: without it, whatever
// answered was no shell of ours.
const hello = "hello"

// Run is deploy.Host.Run. The script goes over standard input, so that the
// login shell, whichever it is, only sees one plain command; a shell reads
// exactly the script from it and leaves the rest to it.
func (h *Host) Run(ctx context.Context, script string, args []string, stdin io.Reader, line func(string)) error {
	script = "echo " + deploy.Prefix + hello + "\n" + script
	command, err := h.command(len(script), args)
	if err != nil {
		return err
	}
	input := []io.Reader{strings.NewReader(script)}
	if h.cfg.Sudo == WithPassword {
		input = append([]io.Reader{strings.NewReader(h.cfg.Password + "\n")}, input...)
	}
	if stdin != nil {
		input = append(input, stdin)
	}
	w := &watch{host: h, limit: h.cfg.Limits.Silence}
	in := &source{r: io.MultiReader(input...), progress: w.progress}
	out := &lines{line: line, limit: h.cfg.Limits.Output, watch: w}
	stop := context.AfterFunc(ctx, func() { w.end(context.Cause(ctx)) })
	defer stop()
	w.begin()
	defer w.done()

	session, err := h.clients[len(h.clients)-1].NewSession()
	if err != nil {
		return w.or(deploy.Fail(deploy.ConnectionLost, text(err.Error())))
	}
	defer session.Close()
	session.Stdin, session.Stdout, session.Stderr = in, out, &tail{of: out}
	err = session.Run(command)
	return w.or(out.outcome(err, in.failed(), h.cfg.Sudo))
}

// command is what the login shell is given: no quotes within quotes, no
// backslash, no exclamation mark, so that sh, csh and fish read it alike.
func (h *Host) command(size int, args []string) (string, error) {
	var b strings.Builder
	switch h.cfg.Sudo {
	case Passwordless:
		b.WriteString("sudo -n ")
	case WithPassword:
		b.WriteString("sudo -k -S -p '' ")
	}
	fmt.Fprintf(&b, `/bin/sh -c 's=$(dd bs=1 count=%d 2>/dev/null); eval "$s"' komainu`, size)
	for _, a := range args {
		if strings.ContainsFunc(a, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`'"\!`+"`$", r) }) {
			return "", fmt.Errorf("argument %q of a script cannot be given to every shell", a)
		}
		b.WriteString(" '" + a + "'")
	}
	return b.String(), nil
}

// watch ends a connection on which nothing moves, or too much.
type watch struct {
	host  *Host
	limit time.Duration

	mu    sync.Mutex
	timer *time.Timer
	cause error
}

func (w *watch) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(w.limit, func() {
		w.end(deploy.Failf(deploy.ShellHangs, "nothing for %s", w.limit))
	})
}

func (w *watch) progress() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cause == nil {
		w.timer.Reset(w.limit)
	}
}

func (w *watch) done() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer.Stop()
}

// end closes the connection: whoever waits for it returns.
func (w *watch) end(cause error) {
	w.mu.Lock()
	first := w.cause == nil
	if first {
		w.cause = cause
	}
	w.mu.Unlock()
	if first {
		w.host.Close()
	}
}

// or returns why the connection was ended, or else err.
func (w *watch) or(err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cause != nil {
		return w.cause
	}
	return err
}

// source is what the script reads.
type source struct {
	r        io.Reader
	progress func()

	mu  sync.Mutex
	err error
}

func (s *source) Read(p []byte) (int, error) {
	s.progress()
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.mu.Lock()
		s.err = err
		s.mu.Unlock()
	}
	return n, err
}

func (s *source) failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

const (
	maxLine = 16 << 10
	maxTail = 4 << 10
)

// lines takes the standard output of a script apart.
type lines struct {
	line  func(string)
	limit int64
	watch *watch

	mu      sync.Mutex
	size    int64
	partial []byte
	rest    []byte // the end of everything that is not for us
	greeted bool
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.count(len(p)); err != nil {
		return 0, err
	}
	for part := range bytes.Lines(p) {
		l.partial = append(l.partial, part...)
		if part[len(part)-1] != '\n' {
			if len(l.partial) > maxLine {
				err := deploy.Failf(deploy.OutputGarbled, "a line of more than %d bytes", maxLine)
				l.watch.end(err)
				return 0, err
			}
			break
		}
		l.take(string(bytes.TrimRight(l.partial, "\r\n")))
		l.partial = l.partial[:0]
	}
	return len(p), nil
}

// take hands on one line. The greeting is ours.
func (l *lines) take(line string) {
	ours, ok := strings.CutPrefix(line, deploy.Prefix)
	switch {
	case !ok:
		l.keep([]byte(line + "\n"))
	case ours == hello:
		l.greeted = true
	case l.greeted && l.line != nil:
		l.line(ours)
	}
}

// count bounds what a script prints, on both streams together.
func (l *lines) count(n int) error {
	l.watch.progress()
	if l.size += int64(n); l.size > l.limit {
		err := deploy.Failf(deploy.OutputFlood, "more than %d bytes", l.limit)
		l.watch.end(err)
		return err
	}
	return nil
}

func (l *lines) keep(p []byte) {
	l.rest = append(l.rest, p...)
	if over := len(l.rest) - maxTail; over > 0 {
		l.rest = append(l.rest[:0], l.rest[over:]...)
	}
}

// tail keeps the end of what a script says on standard error.
type tail struct{ of *lines }

func (t *tail) Write(p []byte) (int, error) {
	t.of.mu.Lock()
	defer t.of.mu.Unlock()
	if err := t.of.count(len(p)); err != nil {
		return 0, err
	}
	t.of.keep(p)
	return len(p), nil
}

// outcome says what the end of a session means.
func (l *lines) outcome(err, input error, sudo Sudo) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	said := text(string(l.rest))
	exit, exited := errors.AsType[*ssh.ExitError](err)
	_, missing := errors.AsType[*ssh.ExitMissingError](err)
	switch {
	case input != nil:
		return fmt.Errorf("read what goes to the host: %w", input)
	case missing, err != nil && !exited && !errors.Is(err, io.EOF):
		return deploy.Fail(deploy.ConnectionLost, said)
	case !l.greeted:
		return notGreeted(said, sudo)
	case exited && exit.Signal() != "":
		return &deploy.Exit{Code: 128, Tail: "signal " + text(exit.Signal()) + " " + said}
	case exited:
		return &deploy.Exit{Code: exit.ExitStatus(), Tail: said}
	}
	return nil // also when it did not read all of its input
}

// notGreeted says why no script was run.
func notGreeted(said string, sudo Sudo) error {
	lower := strings.ToLower(said)
	contains := func(parts ...string) bool {
		for _, p := range parts {
			if strings.Contains(lower, p) {
				return true
			}
		}
		return false
	}
	switch {
	case sudo == NoSudo || sudo == "":
		return deploy.Fail(deploy.NoShell, said)
	case contains("password is required", "a terminal is required", "sorry, try again", "incorrect password", "no password was provided"):
		return deploy.Fail(deploy.SudoPassword, said)
	case contains("sudo", "sudoers", "not allowed"):
		return deploy.Fail(deploy.SudoRefused, said)
	}
	return deploy.Fail(deploy.NoShell, said)
}
