package scan

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"komainu/finding"
)

// Socket is the descriptor that the child finds its connection at.
const Socket = 3

var (
	errDied = errors.New("the scanner died")
	errHung = errors.New("the scanner hung")
)

// child is one life of the scanner process.
type child struct {
	cmd    *exec.Cmd
	conn   *net.UnixConn
	stderr preface
	hello  Confinement

	beat   atomic.Int64 // when the last message came, since clockZero
	panics atomic.Uint64
	dead   chan struct{} // closed after the process was reaped and all requests are answered

	mu      sync.Mutex
	next    uint64
	pending map[uint64]*pending // nil once the child is given up
}

// pending is a request that the child has not answered.
type pending struct {
	answer  chan answer // takes one value
	release func()      // gives the places back, called once
	late    *time.Timer
}

type answer struct {
	verdict finding.Verdict
	err     error
}

// startChild starts a child and waits until it is confined and ready. It must
// be called on a locked thread that lives as long as the child: the kernel
// sends the death signal when that thread ends.
func startChild(ctx context.Context, cfg Config) (*child, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("scanner socket: %w", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "scanner")
	conn, err := connOf(os.NewFile(uintptr(fds[0]), "scanner"))
	if err != nil {
		return nil, errors.Join(err, theirs.Close())
	}
	c := &child{conn: conn, dead: make(chan struct{}), pending: map[uint64]*pending{}}
	c.cmd = cfg.Command()
	c.cmd.ExtraFiles = []*os.File{theirs}
	c.cmd.Dir = "/"
	c.cmd.Env = append(c.cmd.Env, fmt.Sprintf("%s=%d", niceVariable, cfg.Nice), "GOTRACEBACK=single")
	c.cmd.Stderr = &c.stderr
	c.cmd.WaitDelay = time.Second
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err = c.cmd.Start()
	// With a copy of its end here, the end of the child would go unnoticed.
	theirs.Close()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start scanner: %w", err), conn.Close())
	}
	ready := make(chan error, 1)
	go c.receive(ready)
	timeout := time.NewTimer(helloAfter)
	defer timeout.Stop()
	select {
	case err = <-ready:
	case <-timeout.C:
		err = fmt.Errorf("it was not ready after %s", helloAfter)
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		c.kill()
		<-c.dead
		return nil, fmt.Errorf("start scanner: %w%s", err, c.stderr.suffix())
	}
	return c, nil
}

// connOf wraps one end of the socket pair; file is closed.
func connOf(file *os.File) (*net.UnixConn, error) {
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, fmt.Errorf("scanner socket: %w", err)
	}
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(errors.New("scanner socket: not a Unix socket"), conn.Close())
	}
	return unixConn, nil
}

// receive takes messages until the child is gone, then reaps it and answers
// what is pending.
func (c *child) receive(ready chan<- error) {
	err := c.messages(ready)
	c.kill()
	waitErr := c.cmd.Wait()
	c.conn.Close()
	select {
	case ready <- fmt.Errorf("%w (%v)", err, waitErr):
	default:
	}
	c.mu.Lock()
	pending := c.pending
	c.pending = nil
	c.mu.Unlock()
	for _, p := range pending {
		p.settle(answer{err: errDied})
	}
	close(c.dead)
}

func (c *child) messages(ready chan<- error) error {
	buf := make([]byte, maxMessage)
	greeted := false
	for {
		n, err := c.conn.Read(buf)
		if err != nil {
			return err
		}
		if n == 0 {
			return errDied
		}
		r, err := decodeReply(buf[:n])
		if err != nil {
			return err
		}
		c.beat.Store(int64(time.Since(clockZero)))
		switch {
		case r.Hello != nil && !greeted:
			greeted, c.hello = true, *r.Hello
			ready <- nil
		case r.Beat != nil:
			c.panics.Store(r.Beat.Panics)
		case r.Verdict != nil:
			c.settle(r.ID, answer{verdict: *r.Verdict})
		}
	}
}

// settle answers a request, if it is still pending.
func (c *child) settle(id uint64, a answer) {
	c.mu.Lock()
	p := c.pending[id]
	delete(c.pending, id)
	c.mu.Unlock()
	if p != nil {
		p.settle(a)
	}
}

func (p *pending) settle(a answer) {
	p.late.Stop()
	p.answer <- a
	p.release()
}

// busy returns how many requests are pending.
func (c *child) busy() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.pending)
}

func (c *child) kill() { _ = c.cmd.Process.Kill() }

// scan hands the file to the child and waits. release is called once, when
// the child has answered or died, which may be after scan returned.
func (c *child) scan(ctx context.Context, file *os.File, o Options, release func()) (finding.Verdict, error) {
	p := &pending{answer: make(chan answer, 1), release: release}
	c.mu.Lock()
	if c.pending == nil {
		c.mu.Unlock()
		release()
		return finding.Verdict{}, errDied
	}
	c.next++
	id := c.next
	p.late = time.AfterFunc(o.Budget+overtime, func() {
		c.settle(id, answer{err: errHung})
		c.kill()
	})
	c.pending[id] = p
	c.mu.Unlock()

	err := c.send(request{ID: id, Budget: o.Budget, Closed: o.SkipArchives}, file)
	switch {
	case errors.Is(err, os.ErrClosed):
		c.settle(id, answer{err: err}) // the caller closed the file
	case err != nil:
		c.kill() // the socket is full or broken; whoever is pending is answered by receive
	}
	select {
	case a := <-p.answer:
		return a.verdict, a.err
	case <-ctx.Done():
		_ = c.send(request{ID: id, Cancel: true}, nil) // if this is lost, the budget ends it
		return finding.Verdict{}, ctx.Err()
	}
}

// send writes one message, with the descriptor of file when there is one.
func (c *child) send(r request, file *os.File) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := c.conn.SetWriteDeadline(time.Now().Add(overtime)); err != nil {
		return err
	}
	if file == nil {
		_, err = c.conn.Write(text)
		return err
	}
	// File.Fd would make the caller's file blocking; the raw connection
	// leaves it as it is.
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var sendErr error
	err = raw.Control(func(fd uintptr) {
		_, _, sendErr = c.conn.WriteMsgUnix(text, unix.UnixRights(int(fd)), nil)
	})
	return errors.Join(err, sendErr)
}

// preface keeps the beginning of what a crashing child wrote.
type preface struct {
	mu   sync.Mutex
	text []byte
}

const maxPreface = 4 << 10

func (t *preface) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if room := maxPreface - len(t.text); room > 0 {
		// The first lines of a crash tell what happened, the rest is stack.
		t.text = append(t.text, p[:min(room, len(p))]...)
	}
	return len(p), nil
}

// suffix is the text for the end of a message, "" when there is none.
func (t *preface) suffix() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	text := strings.TrimSpace(bounded(strings.ReplaceAll(string(t.text), "\n", " ")))
	if text == "" {
		return ""
	}
	return ": " + text
}

// clockZero is where signs of life are counted from: on the monotonic clock,
// so that nobody who sets the clock of the host makes a child look dead.
var clockZero = time.Now()

// silent returns how long ago the child gave its last sign of life.
func (c *child) silent() time.Duration {
	return time.Since(clockZero) - time.Duration(c.beat.Load())
}
