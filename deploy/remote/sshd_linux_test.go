package remote_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"komainu/deploy"
	"komainu/deploy/remote"
	"komainu/internal/need"
)

// The password of the users that sudo asks for one, and what crypt(3) makes
// of it.
const (
	password = "hunter2"
	hash     = "$6$komainu$SUBFGrkxOIPyDlLroIq8QVcaFY94Pj8KqSaW6kulMmGRKgTNzG..AcbiFaeHQ77XKgR4F.cZa4cs8Pq5GszMN1"
)

// shells are login shells that the users are named after.
var shells = []struct{ user, path string }{
	{"bash", "/bin/bash"}, {"dash", "/bin/dash"}, {"zsh", "/bin/zsh"}, {"fish", "/usr/bin/fish"}, {"tcsh", "/bin/tcsh"}, {"mksh", "/bin/mksh"}, {"rbash", "/bin/rbash"},
}

// users are what the machine's passwd gets in the mount namespace of a server.
// All but those that are named so may use sudo without a password.
var users = []struct{ name, shell, profile string }{
	{"asked", "/bin/sh", ""},    // sudo wants the password
	{"unlisted", "/bin/sh", ""}, // may not use sudo
	{"nologin", "/usr/sbin/nologin", ""},
	{"forced", "/bin/sh", ""}, // sshd runs another command
	{"noisy", "/bin/bash", `echo "komainu:done welcome"; echo "Be careful! It's \"production\""; printf "no line break"`},
	{"hungry", "/bin/bash", "IFS= read -r first; echo \"the profile has read $first\""},
}

// server is an sshd with users of its own.
type server struct {
	address string
	key     ssh.Signer // logs in as everybody
	ca      ssh.Signer // of users
	stop    func()
}

// sshd starts the real thing. It and everything below it live in namespaces
// of their own, where /etc has our users; all ends with the test.
func sshd(t *testing.T, lines ...string) *server {
	t.Helper()
	need.Root(t)
	for _, program := range []string{"sshd", "sudo", "unshare", "zsh", "fish", "tcsh", "mksh"} {
		need.Program(t, program)
	}
	s := &server{key: newKey(t), ca: newKey(t)}
	for range 5 { // the port may be taken by somebody else in between
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s.address = l.Addr().String()
		l.Close()
		if s.run(t, lines) {
			return s
		}
	}
	t.Fatal("sshd does not start")
	return nil
}

func (s *server) run(t *testing.T, lines []string) bool {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	shadow := "root:*:19000:0:99999:7:::\n"
	sudoers := "Defaults !fqdn\n"
	add := func(name, shell string) {
		id := 20001 + strings.Count(shadow, "\n")
		passwd = fmt.Appendf(passwd, "k-%s:x:%d:%d::/run/komainu/home/%s:%s\n", name, id, id, name, shell)
		shadow += fmt.Sprintf("k-%s:%s:19000:0:99999:7:::\n", name, hash)
		switch name {
		case "unlisted":
		case "asked":
			sudoers += "k-asked ALL=(ALL) ALL\n"
		default:
			sudoers += "k-" + name + " ALL=(ALL) NOPASSWD: ALL\n"
		}
		if err := os.MkdirAll(filepath.Join(dir, "run/home", name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, x := range shells {
		add(x.user, x.path)
	}
	for _, u := range users {
		add(u.name, u.shell)
		if u.profile != "" {
			write("run/home/"+u.name+"/.bashrc", u.profile+"\n", 0o644)
		}
	}
	write("passwd", string(passwd), 0o644)
	write("shadow", shadow, 0o600)
	write("sudoers", sudoers, 0o440)
	hostKey(t, filepath.Join(dir, "host"))
	write("run/keys", string(ssh.MarshalAuthorizedKey(s.key.PublicKey())), 0o644)
	write("run/ca", string(ssh.MarshalAuthorizedKey(s.ca.PublicKey())), 0o644)
	host, port, _ := net.SplitHostPort(s.address)
	config := []string{
		"ListenAddress " + host, "Port " + port, "HostKey " + dir + "/host", "PidFile none", "UsePAM no", "StrictModes no", "PasswordAuthentication no",
		"AuthorizedKeysFile /run/komainu/keys", "TrustedUserCAKeys /run/komainu/ca", "PermitRootLogin prohibit-password", "MaxStartups 100",
	}
	config = append(config, lines...)
	config = append(config, "Match User k-forced", "ForceCommand echo only this", "")
	write("config", strings.Join(config, "\n"), 0o600)
	c := exec.Command("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-ec", `
		mount -t tmpfs none /run
		mkdir -m 755 /run/sshd
		cp -r "$1/run" /run/komainu
		chmod -R a+rX /run/komainu
		mount --bind "$1/passwd" /etc/passwd
		mount --bind "$1/shadow" /etc/shadow
		mount -t tmpfs -o mode=755 none /etc/sudoers.d
		install -m 440 "$1/sudoers" /etc/sudoers.d/komainu
		exec "$(command -v sshd)" -D -e -f "$1/config"`, "sh", dir)
	log, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	listens := make(chan bool, 1)
	said := make(chan string, 1)
	go func() {
		var all strings.Builder
		for lines := bufio.NewScanner(log); lines.Scan(); {
			all.WriteString(lines.Text() + "\n")
			if strings.HasPrefix(lines.Text(), "Server listening") {
				listens <- true
			}
		}
		listens <- false
		said <- all.String()
	}()
	s.stop = func() {
		if c.Process != nil {
			_ = c.Process.Kill() // and with it the namespace
			_ = c.Wait()
			c.Process = nil
			if text := <-said; t.Failed() {
				t.Logf("sshd said:\n%s", text)
			}
		}
	}
	t.Cleanup(func() { s.stop() })
	return <-listens
}

// hostKey writes a new host key.
func hostKey(t *testing.T, file string) {
	t.Helper()
	private := newPrivate(t)
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
}

// as is the way to a user of the server.
func (s *server) as(user string, sudo remote.Sudo) remote.Config {
	return remote.Config{Hop: remote.Hop{Address: s.address, User: user, Auth: auth(s.key)}, HostKeys: &pins{}, Sudo: sudo}
}

// awkward has everything in it that a login shell could misread.
const awkward = `# it's a "comment" with ! and \ and %s
say() { printf 'komainu:%s\n' "$*"; }
say "uid $(id -u)"
say "count $#"
for a; do say "argument <$a>"; done
say 'quoted \n $HOME !! ' "it's" "` + "`echo ticks`" + ` \\ \" \$"
case x in [a-z]) say case;; esac
cat <<'END'
komainu:here $document \\
END
IFS= read -r line
say "line $line"
say "sum $(sha256sum | cut -d' ' -f1)"
say ünïcode
`

func TestLoginShells(t *testing.T) {
	s := sshd(t)
	noLeaks(t)
	logins := []string{"root"}
	for _, x := range shells {
		logins = append(logins, "k-"+x.user)
	}
	content := make([]byte, 300_000)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(content)
	want := []string{
		"uid 0", "count 4", "argument <a b>", "argument <it's>", `argument <\ ! $x "q" *>`, "argument <>", `quoted \n $HOME !!  it's ticks \ " $`, "case",
		`here $document \\`, "line the first line", fmt.Sprintf("sum %x", sha256.Sum256(content)), "ünïcode",
	}
	for _, login := range logins {
		t.Run(login, func(t *testing.T) {
			h := dial(t, s.as(login, remote.Passwordless))
			for range 2 { // a connection serves more than once
				var got []string
				err := h.Run(t.Context(), awkward, []string{"a b", "it's", `\ ! $x "q" *`, ""},
					io.MultiReader(strings.NewReader("the first line\n"), bytes.NewReader(content)), func(line string) { got = append(got, line) })
				if err != nil || strings.Join(got, "\n") != strings.Join(want, "\n") {
					t.Fatalf("%v\n%s\nwant\n%s", err, strings.Join(got, "\n"), strings.Join(want, "\n"))
				}
			}
		})
	}
}

func TestLargeInputAndScript(t *testing.T) {
	s := sshd(t)
	h := dial(t, s.as("k-dash", remote.Passwordless))
	content := make([]byte, 15<<20)
	_, _ = rand.NewChaCha8([32]byte{2}).Read(content)
	var got string
	script := strings.Repeat("# a comment that is as long as many of them are in this script\n", 64<<10/64) + `echo "komainu:$(sha256sum)"`
	if err := h.Run(t.Context(), script, nil, bytes.NewReader(content), func(line string) { got = line }); err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("%x", sha256.Sum256(content)); !strings.HasPrefix(got, want) {
		t.Errorf("%s has come, not %s", got, want)
	}
}

func TestExit(t *testing.T) {
	s := sshd(t)
	h := dial(t, s.as("root", remote.NoSudo))
	for script, want := range map[string]deploy.Exit{
		"echo out; echo err >&2; exit 7": {Code: 7, Tail: "err"},
		"kill -9 $$":                     {Code: 128, Tail: "KILL"},
		"nosuchcommand --at-all":         {Code: 127, Tail: "nosuchcommand"},
		"if; then":                       {Code: 2, Tail: "yntax"},
	} {
		err := h.Run(t.Context(), script, nil, strings.NewReader("not read"), nil)
		exit, ok := errors.AsType[*deploy.Exit](err)
		if !ok || exit.Code != want.Code || !strings.Contains(exit.Tail, want.Tail) {
			t.Errorf("%s: %v", script, err)
		}
	}
	// What a script leaves running does not hold it.
	if err := h.Run(t.Context(), "sleep 1000 & exit 0", nil, nil, nil); err != nil {
		t.Error(err)
	}
	if err := h.Run(t.Context(), "true", nil, nil, nil); err != nil {
		t.Errorf("the connection does not serve afterwards: %v", err)
	}
}

func TestSudo(t *testing.T) {
	s := sshd(t)
	// The input goes to the script and to nobody else.
	const script = `echo "komainu:$(id -u) $(cat)"`
	run := func(user string, sudo remote.Sudo, password string) (string, error) {
		c := s.as(user, sudo)
		c.Password = password
		c.Limits = remote.Limits{Silence: 20 * time.Second}
		var got string
		err := dial(t, c).Run(t.Context(), script, nil, strings.NewReader("token"), func(line string) { got = line })
		return got, err
	}
	for _, c := range []struct {
		user     string
		sudo     remote.Sudo
		password string
		want     deploy.ReasonID
		detail   string
	}{
		{"k-asked", remote.WithPassword, password, "", ""},
		{"k-dash", remote.WithPassword, password, "", ""}, // sudo does not ask
		{"k-dash", remote.WithPassword, "", "", ""},
		{"root", remote.WithPassword, "", "", ""},
		{"k-noisy", remote.Passwordless, "", "", ""},
		{"k-asked", remote.WithPassword, "wrong", deploy.SudoPassword, ""},
		{"k-asked", remote.WithPassword, "", deploy.SudoPassword, ""},
		{"k-asked", remote.Passwordless, "", deploy.SudoPassword, "password is required"},
		{"k-unlisted", remote.WithPassword, password, deploy.SudoRefused, "not in the sudoers file"},
		{"k-nologin", remote.NoSudo, "", deploy.NoShell, "not available"},
		{"k-nologin", remote.Passwordless, "", deploy.NoShell, "not available"},
		{"k-forced", remote.NoSudo, "", deploy.NoShell, "only this"},
	} {
		t.Run(c.user+"_"+string(c.sudo), func(t *testing.T) {
			got, err := run(c.user, c.sudo, c.password)
			if c.want == "" && (err != nil || got != "0 token") {
				t.Errorf("%q %v", got, err)
			}
			if c.want != "" {
				wantReason(t, err, c.want, c.detail)
			}
			if err != nil && (strings.Contains(err.Error(), password) || strings.Contains(err.Error(), "token")) {
				t.Errorf("a secret is in %q", err)
			}
		})
	}
	// Without sudo one stays who one is: that is for the script to judge.
	if got, err := run("k-dash", remote.NoSudo, ""); err != nil || strings.HasPrefix(got, "0 ") {
		t.Errorf("%q %v", got, err)
	}
	if _, err := remote.Dial(t.Context(), s.as("k-nobody", remote.NoSudo)); err == nil {
		t.Error("a user that does not exist has logged in")
	} else {
		wantReason(t, err, deploy.LoginRefused)
	}
}

// A profile that reads its input gets nothing of ours.
func TestProfileThatReads(t *testing.T) {
	s := sshd(t)
	c := s.as("k-hungry", remote.Passwordless)
	c.Limits = remote.Limits{Silence: 2 * time.Second}
	err := dial(t, c).Run(t.Context(), "echo komainu:ran", nil, strings.NewReader("token"), func(line string) { t.Errorf("it ran: %s", line) })
	wantReason(t, err, deploy.ShellHangs)
}

func TestCertificate(t *testing.T) {
	s := sshd(t)
	try := func(user string, lasts time.Duration, now time.Time) error {
		key, err := remote.Issue(s.ca, remote.ToRun, "k-dash", lasts, now)
		if err != nil {
			t.Fatal(err)
		}
		h, err := remote.Dial(t.Context(), remote.Config{Hop: remote.Hop{Address: s.address, User: user, Auth: auth(key)}, HostKeys: &pins{}, Sudo: remote.Passwordless})
		if err != nil {
			return err
		}
		defer h.Close()
		return h.Run(t.Context(), "[ $(id -u) = 0 ]", nil, nil, nil)
	}
	if err := try("k-dash", 5*time.Minute, time.Now()); err != nil {
		t.Error(err)
	}
	wantReason(t, try("k-bash", 5*time.Minute, time.Now()), deploy.LoginRefused)                 // another's
	wantReason(t, try("k-dash", 5*time.Minute, time.Now().Add(-time.Hour)), deploy.LoginRefused) // over
	wantReason(t, try("k-dash", 5*time.Minute, time.Now().Add(time.Hour)), deploy.LoginRefused)  // not yet
	s.ca = newKey(t)
	wantReason(t, try("k-dash", 5*time.Minute, time.Now()), deploy.LoginRefused) // not from the authority that sshd trusts
}

func TestJump(t *testing.T) {
	noLeaks(t)
	bastion, inner, closed := sshd(t), sshd(t), sshd(t, "AllowTcpForwarding no")
	through := func(b *server, user string) remote.Config {
		c := inner.as("k-dash", remote.Passwordless)
		c.Jump = []remote.Hop{{Address: b.address, User: user, Auth: auth(b.key)}}
		return c
	}
	var got string
	err := dial(t, through(bastion, "k-bash")).Run(t.Context(), `echo "komainu:$(wc -c)"`, nil, strings.NewReader(strings.Repeat("x", 5_000_000)), func(line string) { got = line })
	if err != nil || got != "5000000" {
		t.Errorf("%q %v", got, err)
	}
	fails := func(c remote.Config, id deploy.ReasonID, words ...string) {
		t.Helper()
		_, err := remote.Dial(t.Context(), c)
		wantReason(t, err, id, words...)
	}
	fails(through(bastion, "k-nobody"), deploy.JumpRefused, bastion.address)
	fails(through(closed, "k-bash"), deploy.JumpRefused, closed.address)
	nothing := through(bastion, "k-bash")
	nothing.Address = "127.0.0.1:1"
	fails(nothing, deploy.ConnectionRefused, bastion.address)
	elsewhere := through(bastion, "k-bash")
	elsewhere.Address = "no-such-host.invalid:22"
	fails(elsewhere, deploy.NameNotFound, bastion.address)
	// The host itself refuses: that is no matter of the jump host.
	refused := through(bastion, "k-bash")
	refused.User = "k-nobody"
	fails(refused, deploy.LoginRefused)
	// The way breaks.
	h := dial(t, through(bastion, "k-bash"))
	err = h.Run(t.Context(), "echo komainu:here; sleep 1000", nil, nil, func(string) { bastion.stop() })
	wantReason(t, err, deploy.ConnectionLost)
}

// A certificate lets its bearer do one thing: pass through a jump host, or run
// commands.
func TestCertificatesThroughAJumpHost(t *testing.T) {
	noLeaks(t)
	bastion, inner := sshd(t), sshd(t)
	hop := func(s *server, user string, purpose remote.Purpose) remote.Hop {
		key, err := remote.Issue(s.ca, purpose, user, 5*time.Minute, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return remote.Hop{Address: s.address, User: user, Auth: auth(key)}
	}
	try := func(target remote.Hop, jump ...remote.Hop) error {
		h, err := remote.Dial(t.Context(), remote.Config{Hop: target, Jump: jump, HostKeys: &pins{}, Sudo: remote.Passwordless})
		if err != nil {
			return err
		}
		defer h.Close()
		return h.Run(t.Context(), "[ $(id -u) = 0 ]", nil, nil, nil)
	}
	target := hop(inner, "k-dash", remote.ToRun)
	if err := try(target, hop(bastion, "k-bash", remote.ToPass)); err != nil {
		t.Error(err)
	}
	wantReason(t, try(target, hop(bastion, "k-bash", remote.ToRun)), deploy.JumpRefused, bastion.address)
	wantReason(t, try(hop(bastion, "k-bash", remote.ToPass)), deploy.NoShell)
	stolen := hop(bastion, "k-bash", remote.ToPass)
	stolen.User = "k-dash" // the certificate names another one
	wantReason(t, try(target, stolen), deploy.JumpRefused, bastion.address)
}

func TestHostKeyChanges(t *testing.T) {
	s := sshd(t)
	c := s.as("root", remote.NoSudo)
	h := dial(t, c)
	if err := h.Run(t.Context(), "true", nil, nil, nil); err != nil {
		t.Fatal(err)
	}
	s.stop()
	if !s.run(t, nil) { // with a new key
		t.Skip("the port is taken")
	}
	_, err := remote.Dial(t.Context(), c)
	wantReason(t, err, deploy.HostKeyChanged, "SHA256:")
	wantReason(t, h.Run(t.Context(), "true", nil, nil, nil), deploy.ConnectionLost)
}

// Servers of the age of OpenSSH 7 are reached; those that know nothing better
// than SHA-1 are not.
func TestAlgorithms(t *testing.T) {
	for lines, ok := range map[string]bool{
		"KexAlgorithms curve25519-sha256@libssh.org\nCiphers aes128-ctr\nMACs hmac-sha2-256": true,
		"KexAlgorithms ecdh-sha2-nistp256\nCiphers chacha20-poly1305@openssh.com":            true,
		"KexAlgorithms diffie-hellman-group14-sha1":                                          false,
		"Ciphers aes128-ctr\nMACs hmac-sha1":                                                 false,
	} {
		s := sshd(t, strings.Split(lines, "\n")...)
		h, err := remote.Dial(t.Context(), s.as("root", remote.NoSudo))
		switch {
		case ok && err != nil:
			t.Errorf("%s: %v", lines, err)
		case !ok && err == nil:
			t.Errorf("%s is taken", lines)
		case !ok:
			wantReason(t, err, deploy.LoginRefused, "too old", "sha1")
		}
		if err == nil {
			h.Close()
		}
	}
}

func TestCancel(t *testing.T) {
	noLeaks(t)
	s := sshd(t)
	h := dial(t, s.as("root", remote.NoSudo))
	ctx, cancel := context.WithCancel(t.Context())
	err := h.Run(ctx, "echo komainu:here; sleep 1000", nil, endless{}, func(string) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// endless is input without an end.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// The script for hosts says over the wire what it says here.
func TestFactsOfAHost(t *testing.T) {
	s := sshd(t)
	f, err := deploy.Inspect(t.Context(), dial(t, s.as("k-fish", remote.Passwordless)), s.address)
	if err != nil || !f.Root || f.System != "Linux" || f.Kernel == "" || f.Clock.IsZero() || f.Manager == "" || f.Reach != "ok" {
		t.Errorf("%+v %v", f, err)
	}
	f, err = deploy.Inspect(t.Context(), dial(t, s.as("k-fish", remote.NoSudo)), "127.0.0.1:1")
	if err != nil || f.Root || f.Reach == "ok" {
		t.Errorf("%+v %v", f, err)
	}
}
