package remote_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"komainu/deploy"
	"komainu/deploy/remote"
)

// listen serves every connection with a function until the test ends.
func listen(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, conn)
			mu.Unlock()
			all.Go(func() {
				defer conn.Close()
				serve(conn)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range open {
			c.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	return l.Addr().String()
}

// shell is what a server does with a session whose command it has accepted.
type shell func(conn ssh.Conn, channel ssh.Channel, command string)

// sshServer is an SSH server that lets everybody in; change changes that.
func sshServer(t *testing.T, run shell, change func(*ssh.ServerConfig)) string {
	t.Helper()
	config := &ssh.ServerConfig{PublicKeyCallback: func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) { return nil, nil }}
	config.AddHostKey(newKey(t))
	if change != nil {
		change(config)
	}
	return listen(t, func(raw net.Conn) {
		conn, channels, requests, err := ssh.NewServerConn(raw, config)
		if err != nil {
			return
		}
		defer conn.Close()
		go ssh.DiscardRequests(requests)
		for c := range channels {
			channel, requests, err := c.Accept()
			if err != nil {
				return
			}
			go func() {
				for r := range requests {
					if r.Type == "exec" {
						_ = r.Reply(true, nil)
						run(conn, channel, string(r.Payload[4:]))
					}
				}
			}()
		}
	})
}

// mark is the line that says that sh is there, out of a command.
func mark(command string) string {
	_, after, _ := strings.Cut(command, "echo komainu-begin-")
	word, _, _ := strings.Cut(after, ";")
	return "komainu-begin-" + word + "\n"
}

// real runs the command with the sh of this machine.
func real(_ ssh.Conn, channel ssh.Channel, command string) {
	c := exec.Command("sh", "-c", command)
	c.Stdout, c.Stderr = channel, channel.Stderr()
	in, err := c.StdinPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		return
	}
	go func() {
		_, _ = io.Copy(in, channel)
		in.Close()
	}()
	_ = c.Wait()
	exit(channel, uint32(c.ProcessState.ExitCode()))
	channel.Close()
}

func exit(channel ssh.Channel, code uint32) {
	_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Code uint32 }{code}))
}

// tight are limits that a test can wait for.
var tight = remote.Limits{Connect: 500 * time.Millisecond, Silence: 500 * time.Millisecond, Total: 2 * time.Second, Output: 1 << 20}

func to(t *testing.T, address string) remote.Config {
	return remote.Config{Hop: remote.Hop{Address: address, User: "root", Auth: auth(newKey(t))}, HostKeys: &pins{}, Limits: tight}
}

// soon fails the test when f takes longer than any limit explains.
func soon(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		stacks := make([]byte, 1<<20)
		t.Fatalf("it hangs:\n%s", stacks[:runtime.Stack(stacks, true)])
	}
}

var noise = bytes.Repeat([]byte("\x00\xff\x1b[31mkomainu:\xfe garbage without an end "), 800)

// flood writes until the other side has enough of it.
func flood(w io.Writer) {
	for {
		if _, err := w.Write(noise); err != nil {
			return
		}
	}
}

// flow writes lines until the other side has enough of them.
func flow(w io.Writer, line string) {
	text := []byte(strings.Repeat(line, 1+16<<10/len(line)))
	for {
		if _, err := w.Write(text); err != nil {
			return
		}
	}
}

func hang(c io.Reader) { _, _ = io.Copy(io.Discard, c) }

func TestHostileBeforeLogin(t *testing.T) {
	noLeaks(t)
	refuse := func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) { return nil, errors.New("no") }
	for name, c := range map[string]struct {
		address string
		want    []deploy.ReasonID
	}{
		"says_nothing":    {listen(t, func(c net.Conn) { hang(c) }), []deploy.ReasonID{deploy.TimedOut}},
		"closes_at_once":  {listen(t, func(c net.Conn) {}), []deploy.ReasonID{deploy.ConnectionLost}},
		"another_service": {listen(t, func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n"); hang(c) }), []deploy.ReasonID{deploy.TimedOut, deploy.OutputGarbled}},
		"endless_version": {listen(t, func(c net.Conn) { _, _ = io.WriteString(c, "SSH-2.0-"); flood(c) }), []deploy.ReasonID{deploy.OutputGarbled}},
		"endless_preface": {listen(t, func(c net.Conn) { flow(c, "welcome\r\n") }), []deploy.ReasonID{deploy.OutputGarbled, deploy.OutputFlood}},
		"garbage_after_version": {listen(t, func(c net.Conn) { _, _ = io.WriteString(c, "SSH-2.0-x\r\n"); flood(c) }),
			[]deploy.ReasonID{deploy.OutputGarbled}},
		"silence_after_version": {listen(t, func(c net.Conn) { _, _ = io.WriteString(c, "SSH-2.0-x\r\n"); hang(c) }), []deploy.ReasonID{deploy.TimedOut}},
		"never_reads":           {listen(t, func(c net.Conn) { _, _ = io.WriteString(c, "SSH-2.0-x\r\n"); <-t.Context().Done() }), []deploy.ReasonID{deploy.TimedOut}},
		"refuses":               {sshServer(t, real, func(s *ssh.ServerConfig) { s.PublicKeyCallback = refuse }), []deploy.ReasonID{deploy.LoginRefused}},
		"endless_banner":        {listen(t, bannerServer(t)), []deploy.ReasonID{deploy.OutputFlood}},
		"long_banner": {sshServer(t, real, func(s *ssh.ServerConfig) {
			s.PublicKeyCallback = refuse
			s.BannerCallback = func(ssh.ConnMetadata) string { return strings.Repeat("\x1b[2Jwelcome ", 10_000) }
		}), []deploy.ReasonID{deploy.LoginRefused}},
		"no_answer_to_login": {sshServer(t, real, func(s *ssh.ServerConfig) {
			s.PublicKeyCallback = func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) {
				<-t.Context().Done()
				return nil, errors.New("late")
			}
		}), []deploy.ReasonID{deploy.TimedOut}},
		"nothing_there": {"127.0.0.1:1", []deploy.ReasonID{deploy.ConnectionRefused}},
		"no_address":    {"127.0.0.1", []deploy.ReasonID{deploy.NameNotFound}},
	} {
		t.Run(name, func(t *testing.T) {
			soon(t, func() {
				h, err := remote.Dial(t.Context(), to(t, c.address))
				if err == nil {
					h.Close()
				}
				for _, id := range c.want[1:] {
					if f, ok := errors.AsType[*deploy.Failure](err); ok && f.Reason.ID == id {
						return
					}
				}
				wantReason(t, err, c.want[0])
			})
		})
	}
}

// bannerServer speaks SSH until the login, and then sends banners without end.
func bannerServer(t *testing.T) func(net.Conn) {
	key := newKey(t)
	return func(raw net.Conn) {
		config := &ssh.ServerConfig{}
		config.AddHostKey(key)
		config.PublicKeyCallback = func(c ssh.ConnMetadata, _ ssh.PublicKey) (*ssh.Permissions, error) {
			pre := c.(ssh.ServerPreAuthConn)
			for {
				if err := pre.SendAuthBanner(strings.Repeat("welcome ", 4000)); err != nil {
					return nil, err
				}
			}
		}
		if conn, _, _, err := ssh.NewServerConn(raw, config); err == nil {
			conn.Close()
		}
	}
}

func TestHostileSession(t *testing.T) {
	noLeaks(t)
	begin := func(c ssh.Channel, command string) { _, _ = io.WriteString(c, mark(command)) }
	for name, c := range map[string]struct {
		run  shell
		want deploy.ReasonID // "" for a run that is fine
	}{
		"never_begins":     {func(_ ssh.Conn, c ssh.Channel, _ string) { hang(c) }, deploy.ShellHangs},
		"begins_and_hangs": {func(_ ssh.Conn, c ssh.Channel, s string) { begin(c, s); hang(c) }, deploy.ShellHangs},
		"does_not_read":    {func(_ ssh.Conn, c ssh.Channel, s string) { begin(c, s); <-t.Context().Done() }, deploy.ShellHangs},
		"drips": {func(_ ssh.Conn, c ssh.Channel, s string) {
			begin(c, s)
			for tick := time.NewTicker(50 * time.Millisecond); ; <-tick.C {
				if _, err := io.WriteString(c, "."); err != nil {
					return
				}
			}
		}, deploy.TimedOut},
		"floods_before_it_begins": {func(_ ssh.Conn, c ssh.Channel, _ string) { flood(c) }, deploy.OutputFlood},
		"floods":                  {func(_ ssh.Conn, c ssh.Channel, s string) { begin(c, s); flow(c, "a line\n") }, deploy.OutputFlood},
		"floods_with_garbage":     {func(_ ssh.Conn, c ssh.Channel, s string) { begin(c, s); flood(c) }, deploy.OutputFlood},
		"floods_stderr":           {func(_ ssh.Conn, c ssh.Channel, _ string) { flood(c.Stderr()) }, deploy.OutputFlood},
		"floods_with_ours":        {func(_ ssh.Conn, c ssh.Channel, s string) { begin(c, s); flow(c, "komainu:wait\n") }, deploy.OutputFlood},
		"our_lines_are_garbage": {func(_ ssh.Conn, c ssh.Channel, s string) {
			begin(c, s)
			_, _ = io.WriteString(c, "komainu:fact os \xff\x00\n")
			hang(c)
		}, deploy.OutputGarbled},
		"our_line_is_long": {func(_ ssh.Conn, c ssh.Channel, s string) {
			begin(c, s)
			_, _ = io.WriteString(c, "komainu:"+strings.Repeat("x", 100_000)+"\n")
			hang(c)
		}, deploy.OutputGarbled},
		"floods_with_requests": {func(conn ssh.Conn, _ ssh.Channel, _ string) {
			for {
				if _, _, err := conn.SendRequest("x", false, noise); err != nil {
					return
				}
			}
		}, deploy.OutputFlood},
		"floods_with_channels": {func(conn ssh.Conn, _ ssh.Channel, _ string) {
			for {
				if _, _, err := conn.OpenChannel("session", noise); err != nil {
					if _, refused := errors.AsType[*ssh.OpenChannelError](err); !refused {
						return
					}
				}
			}
		}, deploy.OutputFlood},
		"floods_with_session_requests": {func(_ ssh.Conn, c ssh.Channel, _ string) {
			for {
				if _, err := c.SendRequest("x", false, noise); err != nil {
					return
				}
			}
		}, deploy.OutputFlood},
		"closes_without_a_word":   {func(_ ssh.Conn, c ssh.Channel, _ string) { c.Close() }, deploy.ConnectionLost},
		"closes_without_a_status": {func(_ ssh.Conn, c ssh.Channel, s string) { begin(c, s); c.Close() }, deploy.ConnectionLost},
		"breaks":                  {func(conn ssh.Conn, c ssh.Channel, s string) { begin(c, s); conn.Close() }, deploy.ConnectionLost},
		"never_closes":            {func(_ ssh.Conn, c ssh.Channel, s string) { begin(c, s); exit(c, 0); <-t.Context().Done() }, ""},
		"ends_and_talks_on":       {func(_ ssh.Conn, c ssh.Channel, s string) { begin(c, s); exit(c, 0); flood(c) }, deploy.OutputFlood},
		"many_statuses": {func(_ ssh.Conn, c ssh.Channel, s string) {
			begin(c, s)
			for range 100 {
				exit(c, 0)
			}
			c.Close()
		}, ""},
		"is_another_program": {func(_ ssh.Conn, c ssh.Channel, _ string) {
			_, _ = io.WriteString(c, "Interactive SSH access is disabled.\x1b]0;x\a\r\n")
			exit(c, 0)
			c.Close()
		}, deploy.NoShell},
		"asks_for_a_password_again": {func(_ ssh.Conn, c ssh.Channel, s string) {
			_, after, _ := strings.Cut(s, "[komainu-")
			word, _, _ := strings.Cut(after, "]")
			_, _ = io.WriteString(c.Stderr(), strings.Repeat("[komainu-"+word+"]", 3))
			hang(c)
		}, deploy.SudoPassword},
	} {
		t.Run(name, func(t *testing.T) {
			soon(t, func() {
				config := to(t, sshServer(t, c.run, nil))
				if c.want == deploy.SudoPassword {
					config.User, config.Sudo, config.Password = "user", remote.WithPassword, password
				}
				h := dial(t, config)
				err := h.Run(t.Context(), "echo komainu:x", nil, io.LimitReader(endless{}, 15<<20), func(string) {})
				if c.want == "" && err != nil {
					t.Error(err)
				}
				if c.want != "" {
					wantReason(t, err, c.want)
				}
				h.Close()
			})
		})
	}
}

// serveRaw is an SSH server whose channels and requests are for serve.
func serveRaw(t *testing.T, serve func(ssh.NewChannel)) string {
	config := &ssh.ServerConfig{NoClientAuth: true}
	config.AddHostKey(newKey(t))
	return listen(t, func(raw net.Conn) {
		conn, channels, requests, err := ssh.NewServerConn(raw, config)
		if err != nil {
			return
		}
		defer conn.Close()
		go ssh.DiscardRequests(requests)
		for c := range channels {
			serve(c)
		}
	})
}

func TestHostileSessionRequests(t *testing.T) {
	noLeaks(t)
	for name, c := range map[string]struct {
		serve func(ssh.NewChannel)
		want  deploy.ReasonID
	}{
		"opens_nothing":       {func(ssh.NewChannel) {}, deploy.ShellHangs},
		"refuses_sessions":    {func(c ssh.NewChannel) { _ = c.Reject(ssh.Prohibited, "no\x1b[0m sessions") }, deploy.NoShell},
		"answers_no_request":  {func(c ssh.NewChannel) { _, _, _ = c.Accept() }, deploy.ShellHangs},
		"refuses_the_command": {func(c ssh.NewChannel) { _, requests, _ := c.Accept(); go ssh.DiscardRequests(requests) }, deploy.NoShell},
	} {
		t.Run(name, func(t *testing.T) {
			soon(t, func() {
				h := dial(t, to(t, serveRaw(t, c.serve)))
				wantReason(t, h.Run(t.Context(), "true", nil, nil, nil), c.want)
			})
		})
	}
}

// A jump host that stops to read and to write in the middle.
func TestHostileJump(t *testing.T) {
	noLeaks(t)
	inner := sshServer(t, func(_ ssh.Conn, c ssh.Channel, s string) {
		_, _ = io.WriteString(c, mark(s))
		hang(c)
	}, nil)
	var mu sync.Mutex
	var wires []net.Conn
	stopped := make(chan struct{})
	config := &ssh.ServerConfig{NoClientAuth: true}
	config.AddHostKey(newKey(t))
	jump := listen(t, func(raw net.Conn) {
		slow := &stopping{Conn: raw, stopped: stopped}
		conn, channels, requests, err := ssh.NewServerConn(slow, config)
		if err != nil {
			return
		}
		defer conn.Close()
		go ssh.DiscardRequests(requests)
		for c := range channels {
			to, err := net.Dial("tcp", inner)
			if err != nil {
				return
			}
			mu.Lock()
			wires = append(wires, to)
			mu.Unlock()
			channel, requests, _ := c.Accept()
			go ssh.DiscardRequests(requests)
			go func() { _, _ = io.Copy(to, channel) }()
			go func() { _, _ = io.Copy(channel, to) }()
		}
	})
	t.Cleanup(func() {
		mu.Lock()
		defer mu.Unlock()
		for _, w := range wires {
			w.Close()
		}
	})
	soon(t, func() {
		c := to(t, inner)
		c.Jump = []remote.Hop{{Address: jump, User: "x"}}
		h := dial(t, c)
		close(stopped)
		wantReason(t, h.Run(t.Context(), "true", nil, endless{}, nil), deploy.ShellHangs)
	})
}

// stopping is a connection that nothing is read from any more at some time.
type stopping struct {
	net.Conn
	stopped chan struct{}
}

func (s *stopping) Read(p []byte) (int, error) {
	select {
	case <-s.stopped:
		var one [1]byte
		for { // until it is closed
			if _, err := s.Conn.Write(one[:0]); err != nil {
				return 0, err
			}
			<-time.After(50 * time.Millisecond)
		}
	default:
		return s.Conn.Read(p)
	}
}

// The host key changes between connections.
func TestHostileSwapsItsKey(t *testing.T) {
	noLeaks(t)
	keys := []ssh.Signer{newKey(t), newKey(t)}
	var mu sync.Mutex
	address := listen(t, func(raw net.Conn) {
		mu.Lock()
		key := keys[0]
		keys = keys[1:]
		mu.Unlock()
		config := &ssh.ServerConfig{NoClientAuth: true}
		config.AddHostKey(key)
		if conn, _, _, err := ssh.NewServerConn(raw, config); err == nil {
			_ = conn.Wait()
		}
	})
	c := to(t, address)
	dial(t, c).Close()
	_, err := remote.Dial(t.Context(), c)
	wantReason(t, err, deploy.HostKeyChanged, "SHA256:")
}

// Half of a script is not run.
func TestScriptThatIsCutOff(t *testing.T) {
	noLeaks(t)
	dir := t.TempDir()
	ran := make(chan error, 1)
	h := dial(t, to(t, sshServer(t, func(conn ssh.Conn, channel ssh.Channel, command string) {
		c := exec.Command("sh", "-c", command)
		c.Dir = dir
		c.Stdout = channel
		c.Stdin = io.LimitReader(channel, 200)
		ran <- c.Run()
		conn.Close()
	}, nil)))
	err := h.Run(t.Context(), ": > here\n"+strings.Repeat(": # a line that comes after it\n", 100), nil, nil, nil)
	wantReason(t, err, deploy.ConnectionLost)
	if exit, ok := errors.AsType[*exec.ExitError](<-ran); !ok || exit.ExitCode() != 97 {
		t.Errorf("sh ended with %v", exit)
	}
	if out, err := exec.Command("ls", dir).Output(); err != nil || len(out) > 0 {
		t.Errorf("a part of the script ran: %s %v", out, err)
	}
}

// What is to be sent cannot be read: the script must not take it for the end.
func TestInputFails(t *testing.T) {
	noLeaks(t)
	h := dial(t, to(t, sshServer(t, real, nil)))
	broken := io.MultiReader(strings.NewReader("half"), failing{})
	err := h.Run(t.Context(), "cat >/dev/null && echo komainu:whole", nil, broken, func(line string) { t.Error(line) })
	wantReason(t, err, deploy.TransferFailed, "the disk")
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("the disk fails") }

// Whoever gives up does so at once, wherever the other side hangs.
func TestCancelEverywhere(t *testing.T) {
	noLeaks(t)
	silent := listen(t, func(c net.Conn) { hang(c) })
	mute := sshServer(t, func(_ ssh.Conn, c ssh.Channel, _ string) { hang(c) }, nil)
	deaf := sshServer(t, func(_ ssh.Conn, c ssh.Channel, s string) { _, _ = io.WriteString(c, mark(s)); <-t.Context().Done() }, nil)
	patient := remote.Limits{Connect: time.Hour, Silence: time.Hour, Total: time.Hour}
	for _, address := range []string{silent, mute, deaf} {
		soon(t, func() {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			c := to(t, address)
			c.Limits = patient
			h, err := remote.Dial(ctx, c)
			if err == nil {
				err = h.Run(ctx, "true", nil, endless{}, nil)
				h.Close()
			}
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		})
	}
}

// Twenty hosts that flood cost little memory.
func TestMemoryIsBounded(t *testing.T) {
	noLeaks(t)
	const hosts = 20
	address := sshServer(t, func(_ ssh.Conn, c ssh.Channel, s string) {
		_, _ = io.WriteString(c, mark(s))
		go flood(c.Stderr())
		flood(c)
	}, nil)
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	runtime.GC()
	before, most := heap(), uint64(0)
	var all sync.WaitGroup
	done := make(chan struct{})
	for range hosts {
		c := to(t, address)
		c.Limits = remote.Limits{Output: 64 << 20}
		h := dial(t, c)
		all.Go(func() { wantReason(t, h.Run(t.Context(), "true", nil, nil, nil), deploy.OutputFlood) })
	}
	go func() {
		all.Wait()
		close(done)
	}()
	for tick := time.NewTicker(10 * time.Millisecond); ; {
		select {
		case <-done:
			// 1.3 GB have come. The server is in the same process, and garbage
			// counts until it is collected.
			if limit := uint64(hosts * (4 << 20)); most > before+limit {
				t.Errorf("%d MB for %d hosts", (most-before)>>20, hosts)
			}
			t.Logf("%d MB for %d hosts", (most-before)>>20, hosts)
			return
		case <-tick.C:
			most = max(most, heap())
		}
	}
}

// TestWordsThatAreCutInALetter has a host give a reason that the script shortens
// in the middle of a letter, and the name of a program that the kernel has
// shortened so.
func TestWordsThatAreCutInALetter(t *testing.T) {
	functions, _, _ := strings.Cut(deploy.Script, "\naction=")
	said := strings.Repeat("a", 599) + "é and more"
	h := dial(t, to(t, sshServer(t, real, nil)))
	var lines []string
	script := functions + "\nholder() { printf 'резервная\\320\\n'; }\nsleep() { :; }\n(settled 1)\nfail install_failed \"$1\"\n"
	err := h.Run(t.Context(), script, []string{said}, nil, func(line string) { lines = append(lines, line) })
	if exit, ok := errors.AsType[*deploy.Exit](err); !ok || exit.Code != 90 {
		t.Errorf("the script has failed, and said why: %v", err)
	}
	want := []string{"wait резервная?", "fail package_manager_busy резервная?", "fail install_failed " + strings.Repeat("a", 599) + "?"}
	if !slices.Equal(lines, want) {
		t.Errorf("%q, want %q", lines, want)
	}
	h.Close()
}
