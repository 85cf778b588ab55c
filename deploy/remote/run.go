package remote

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	"golang.org/x/crypto/ssh"

	"komainu/deploy"
)

const (
	tailBytes = 4 << 10 // of what a script prints that is kept
	lineBytes = 4 << 10 // of a line that is looked at
	// parting is how long a host may take from the end of a script to the end
	// of its output: something that the script has started may hold it.
	parting = 2 * time.Second
)

// errHeld ends a connection whose session was not closed after its script had
// ended. The run is none the worse for it.
var errHeld = deploy.Fail(deploy.ConnectionLost, "the machine did not close the session of the script before")

// Run implements deploy.Host. A run that is cut off, by ctx or by a limit,
// ends the connection with it. stdin is read until the script ends; a reader
// that blocks has to end with ctx. line is called by one goroutine at a time.
func (h *Host) Run(ctx context.Context, script string, args []string, stdin io.Reader, line func(string)) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	text, err := program(script, args)
	if err != nil {
		return err
	}
	h.running.Lock()
	defer h.running.Unlock()
	if cause := h.why(); cause != nil {
		return cause
	}
	if stdin == nil {
		stdin = strings.NewReader("")
	}
	if line == nil {
		line = func(string) {}
	}
	limits := h.cfg.Limits
	for _, w := range h.wires {
		// Small writes of a script cost a multiple of their size on the way.
		w.allow(8*limits.Output + 1<<20)
	}
	r := &run{
		host: h, begin: "komainu-begin-" + rand.Text(), end: "komainu-end-" + rand.Text(), prompt: "[komainu-" + rand.Text() + "]",
		line: line, left: limits.Output, asked: make(chan struct{}, 8), ready: make(chan struct{}), exited: make(chan struct{}), closed: make(chan struct{}),
	}
	r.silence = time.AfterFunc(limits.Silence, r.hangs)
	defer r.silence.Stop()
	total := time.AfterFunc(limits.Total, r.tooLong)
	defer total.Stop()
	stop := context.AfterFunc(ctx, func() { h.end(context.Cause(ctx)) })
	defer stop()
	return r.run(text, stdin)
}

// run is one script on its way.
type run struct {
	host               *Host
	channel            ssh.Channel
	begin, end, prompt string // words that nobody else can know
	line               func(string)
	silence            *time.Timer
	heard              atomic.Int64 // when output came last, in ns

	asked  chan struct{} // sudo wants the password
	ready  chan struct{} // closed when sh is there
	exited chan struct{} // closed when the exit status is known
	closed chan struct{} // closed when the host has closed the channel

	mu      sync.Mutex
	begun   bool // ready is closed
	left    int64
	tail    []byte
	said    []byte // by stderr until ready, to find the prompt in
	feeding bool
	status  *status // how the script ended
}

// status is an exit status, or the signal that ended the script.
type status struct {
	code   int
	signal string
}

func (r *run) run(text string, stdin io.Reader) error {
	channel, requests, err := r.host.client.OpenChannel("session", nil)
	if err != nil {
		return r.notOpened(err)
	}
	r.channel = channel
	var readers sync.WaitGroup
	readers.Go(func() { r.watch(requests) })
	granted, err := channel.SendRequest("exec", true, ssh.Marshal(struct{ Command string }{r.command()}))
	if err == nil && granted {
		var split splitter
		readers.Go(func() { r.read(channel, func(p []byte) { split.write(p, r.stdout) }, func() { split.flush(r.stdout) }) })
		readers.Go(func() { r.read(channel.Stderr(), r.stderr, func() {}) })
	}
	switch {
	case err != nil:
		r.host.end(lost(err))
	case !granted:
		r.host.end(deploy.Fail(deploy.NoShell, "sshd does not run commands for this user"))
	}
	fed := make(chan struct{})
	go func() {
		defer close(fed)
		r.feed(text, stdin)
	}()
	go func() {
		readers.Wait()
		close(r.closed)
	}()
	r.wait()
	<-r.closed
	select {
	case <-fed:
	case <-time.After(parting): // it waits for stdin, which is not ours to end
	}
	return r.outcome()
}

// notOpened is the failure for a session that the host does not open.
func (r *run) notOpened(err error) error {
	if cause := r.host.why(); cause != nil {
		return cause
	}
	if refused, ok := errors.AsType[*ssh.OpenChannelError](err); ok {
		return deploy.Failf(deploy.NoShell, "sshd opens no session: %s", plain(refused.Message))
	}
	return lost(err)
}

// wait returns when the script has ended and its output has come, or the
// connection has.
func (r *run) wait() {
	select {
	case <-r.closed:
		return
	case <-r.exited:
	}
	for quiet := time.Duration(0); quiet < parting; quiet = time.Since(time.Unix(0, r.heard.Load())) {
		select {
		case <-r.closed:
			return
		case <-time.After(parting - quiet):
		}
	}
	_ = r.channel.Close() // when it fails, the connection is gone
	select {
	case <-r.closed:
	case <-time.After(parting):
		r.host.end(errHeld)
	}
}

// watch takes what the host says of the script.
func (r *run) watch(requests <-chan *ssh.Request) {
	for q := range requests {
		if s := readStatus(q); s != nil {
			r.mu.Lock()
			if r.status == nil {
				r.status = s
				close(r.exited)
			}
			r.mu.Unlock()
		}
		if q.WantReply {
			_ = q.Reply(false, nil) // when it fails, the connection is gone
		}
	}
}

func readStatus(q *ssh.Request) *status {
	switch q.Type {
	case "exit-status":
		var m struct{ Code uint32 }
		if ssh.Unmarshal(q.Payload, &m) == nil {
			return &status{code: int(m.Code & 0xff)}
		}
	case "exit-signal":
		var m struct {
			Signal string
			Core   bool
			Error  string
			Lang   string
		}
		if ssh.Unmarshal(q.Payload, &m) == nil {
			return &status{code: 128, signal: plain(m.Signal)}
		}
	}
	return nil
}

// read gives what comes to take, until it ends or was too much.
func (r *run) read(from io.Reader, take func([]byte), done func()) {
	buffer := make([]byte, 16<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			r.heard.Store(time.Now().UnixNano())
			r.live()
			if !r.within(int64(n)) {
				r.host.end(deploy.Failf(deploy.OutputFlood, "more than %d bytes", r.host.cfg.Limits.Output))
				return
			}
			take(buffer[:n])
		}
		if err != nil {
			done()
			return
		}
	}
}

// within counts output, and reports whether it is still within the limit.
func (r *run) within(n int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.left -= n
	return r.left >= 0
}

// live notes a sign of life.
func (r *run) live() { r.silence.Reset(r.host.cfg.Limits.Silence) }

// tooLong ends a connection whose script takes longer than any does.
func (r *run) tooLong() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.status == nil { // otherwise wait does the rest
		r.host.end(deploy.Failf(deploy.TimedOut, "the script did not end within %v", r.host.cfg.Limits.Total))
	}
}

// hangs ends a connection that there was no sign of life from.
func (r *run) hangs() {
	r.mu.Lock()
	defer r.mu.Unlock()
	detail := "after the script was sent"
	switch {
	case r.status != nil:
		return
	case !r.begun:
		detail = "before it ran anything"
	case r.feeding:
		detail = "it does not read its input"
	}
	r.host.end(deploy.Failf(deploy.ShellHangs, "%v of silence, %s", r.host.cfg.Limits.Silence, detail))
}

// stdout takes a line. Until sh is there it is something of the login.
func (r *run) stdout(line []byte, whole bool) {
	r.mu.Lock()
	begun := r.begun
	if !begun && bytes.HasSuffix(line, []byte(r.begin)) {
		r.begun, r.tail, r.said = true, nil, nil
		close(r.ready)
		r.mu.Unlock()
		return
	}
	r.mu.Unlock()
	message, ours := bytes.CutPrefix(line, []byte(deploy.Prefix))
	if !begun || !ours {
		r.keep(line, []byte("\n"))
		return
	}
	if !whole || bytes.ContainsFunc(message, unicode.IsControl) {
		r.host.end(deploy.Failf(deploy.OutputGarbled, "a line like %q", message[:min(len(message), 40)]))
		return
	}
	if r.host.why() == nil {
		// Kernels shorten names, and our script words, in the middle of a letter.
		r.line(r.conceal(strings.ToValidUTF8(string(message), "?")))
	}
}

// stderr looks for sudo asking for the password.
func (r *run) stderr(p []byte) {
	r.keep(p)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.begun {
		return
	}
	r.said = append(r.said, p...)
	for {
		i := bytes.Index(r.said, []byte(r.prompt))
		if i < 0 {
			break
		}
		r.said = r.said[i+len(r.prompt):]
		select {
		case r.asked <- struct{}{}:
		default: // that often is an answer in itself
		}
	}
	r.said = bytes.Clone(r.said[max(0, len(r.said)-len(r.prompt)):])
}

// keep adds to the tail.
func (r *run) keep(parts ...[]byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range parts {
		r.tail = append(r.tail, p...)
	}
	if len(r.tail) > 4*tailBytes {
		r.tail = append([]byte(nil), r.tail[len(r.tail)-tailBytes:]...)
	}
}

// feed answers sudo, and sends the script and its input when sh is there.
func (r *run) feed(text string, stdin io.Reader) {
	for asked := 0; ; {
		select {
		case <-r.closed:
			return
		case <-r.asked:
			asked++
			password := r.host.cfg.Password
			if asked > 1 || password == "" {
				detail := "no password is stored"
				if password != "" {
					detail = "sudo does not take the password"
				}
				r.host.end(deploy.Fail(deploy.SudoPassword, detail))
				return
			}
			if r.write([]byte(password+"\n")) != nil {
				return
			}
			continue
		case <-r.ready:
		}
		break
	}
	r.mu.Lock()
	r.feeding = true
	r.mu.Unlock()
	if r.write([]byte(text+r.end+"\n")) == nil && r.pass(stdin) {
		_ = r.channel.CloseWrite() // when it fails, the connection is gone
	}
	r.mu.Lock()
	r.feeding = false
	r.mu.Unlock()
}

// pass sends the input of the script. When it cannot be read, the script must
// not take what has come for the whole.
func (r *run) pass(stdin io.Reader) bool {
	buffer := make([]byte, 32<<10)
	for {
		n, err := stdin.Read(buffer)
		if n > 0 && r.write(buffer[:n]) != nil {
			return false
		}
		if errors.Is(err, io.EOF) {
			return true
		}
		if err != nil {
			r.host.end(deploy.Failf(deploy.TransferFailed, "what is to be sent cannot be read: %v", err))
			return false
		}
	}
}

func (r *run) write(p []byte) error {
	_, err := r.channel.Write(p)
	if err == nil {
		r.live()
		for _, w := range r.host.wires {
			w.more(int64(len(p)) / 16) // what the host acknowledges it with
		}
	}
	return err
}

// outcome is what the run came to.
func (r *run) outcome() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if cause := r.host.why(); cause != nil && cause != errHeld {
		return cause
	}
	switch {
	case !r.begun:
		return r.notBegun()
	case r.status == nil:
		return deploy.Fail(deploy.ConnectionLost, "the script was cut off")
	case r.status.signal != "":
		return &deploy.Exit{Code: r.status.code, Tail: strings.TrimSpace("ended by the signal " + r.status.signal + "\n" + r.words())}
	case r.status.code != 0:
		return &deploy.Exit{Code: r.status.code, Tail: r.words()}
	}
	return nil
}

// conceal takes the password of sudo out of what a host says: one that says it
// aloud, by a trace of its shell or to do harm, must not bring it into lists
// and logs.
func (r *run) conceal(text string) string {
	if password := r.host.cfg.Password; password != "" {
		return strings.ReplaceAll(text, password, "•••")
	}
	return text
}

// words returns the end of what was printed, fit to be shown.
func (r *run) words() string {
	text := strings.ReplaceAll(r.conceal(string(r.tail)), r.prompt, "")
	text = strings.Map(func(c rune) rune {
		switch {
		case c == '\n' || c == '\t':
			return c
		case c == '\r':
			return -1
		case unicode.IsControl(c):
			return '·'
		}
		return c
	}, strings.ToValidUTF8(text, "?"))
	if len(text) > tailBytes {
		text = strings.ToValidUTF8(text[len(text)-tailBytes:], "")
	}
	return strings.TrimSpace(text)
}

// splitter makes lines of a stream. What a line has beyond lineBytes is left
// out, and the line is not whole.
type splitter struct {
	line []byte
	cut  bool
}

func (s *splitter) write(p []byte, take func(line []byte, whole bool)) {
	for len(p) > 0 {
		part, rest, ended := bytes.Cut(p, []byte("\n"))
		room := lineBytes - len(s.line)
		if len(part) > room {
			part, s.cut = part[:room], true
		}
		s.line = append(s.line, part...)
		if ended {
			s.flush(take)
		}
		p = rest
	}
}

// flush gives what there is of a line.
func (s *splitter) flush(take func(line []byte, whole bool)) {
	if len(s.line) > 0 {
		take(bytes.TrimSuffix(s.line, []byte("\r")), !s.cut)
	}
	s.line, s.cut = s.line[:0], false
}

// program is what is sent before the input: the arguments and the script, as
// text for sh.
func program(script string, args []string) (string, error) {
	var b strings.Builder
	b.WriteString("set --")
	for _, a := range args {
		b.WriteString(" '" + strings.ReplaceAll(a, "'", `'\''`) + "'")
	}
	b.WriteString("\n" + script + "\n")
	if strings.ContainsRune(b.String(), 0) {
		return "", fmt.Errorf("a script and its arguments hold no NUL")
	}
	return b.String(), nil
}
