package main

import (
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"komainu/deploy"
	"komainu/deploy/remote"
)

// person opens a terminal with somebody at it who types lines.
func person(t *testing.T, lines ...string) *os.File {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("there are no terminals: %v", err)
	}
	t.Cleanup(func() { keyboard.Close() })
	number, err := unix.IoctlGetInt(int(keyboard.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(keyboard.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	screen, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { screen.Close() })
	if _, err := io.WriteString(keyboard, strings.Join(lines, "\n")+"\n"); err != nil {
		t.Fatal(err)
	}
	return screen
}

func TestQuestionsAtATerminal(t *testing.T) {
	private, signer := newSigner(t)
	h := new(host).serve(t, "127.0.0.1:0", signer.PublicKey())
	known, err := remote.OpenKnownHosts(filepath.Join(t.TempDir(), "known_hosts"))
	if err != nil {
		t.Fatal(err)
	}
	connect := func(answers ...string) (string, error) {
		var asked strings.Builder
		d := &deployment{known: known, keys: ssh.PublicKeys(signer), refused: map[string]bool{}, terminal: &terminal{person(t, answers...), &asked}}
		a := &attempt{deployment: d, user: "root", outcome: outcome{Address: h.address}}
		var first error
		for range 2 { // nobody is asked a second time
			c, err := a.connect(t.Context())
			if err != nil {
				first = err
				continue
			}
			c.Close()
		}
		return asked.String(), first
	}
	said, err := connect("no")
	if f := reasonFor(t.Context(), err); err == nil || f.ID != deploy.HostKeyUnknown || strings.Count(said, "(yes/no)") != 1 || !strings.Contains(said, ssh.FingerprintSHA256(h.key.PublicKey())) {
		t.Errorf("%q %v", said, err)
	}
	if said, err = connect("yes"); err != nil || strings.Count(said, "(yes/no)") != 1 {
		t.Errorf("%q %v", said, err)
	}
	if said, err = connect(); err != nil || said != "" {
		t.Errorf("%q %v", said, err)
	}

	// A key that needs its passphrase.
	block, err := ssh.MarshalPrivateKeyWithPassphrase(private, "", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	for passphrase, ok := range map[string]bool{"secret": true, "wrong": false} {
		var asked strings.Builder
		d := &deployment{terminal: &terminal{person(t, passphrase), &asked}}
		if keys, err := d.identity(file); (err == nil) != ok || ok && len(keys) != 1 || !strings.Contains(asked.String(), file) {
			t.Errorf("%s: %v %q", passphrase, err, asked.String())
		}
	}
	if _, err := new(deployment).identity(file); err == nil || !strings.Contains(err.Error(), "ssh-add") {
		t.Error(err)
	}
}

func TestScreen(t *testing.T) {
	a := &app{out: person(t), format: "table"}
	p, ok := a.progress(nil, 2).(*asScreen)
	if !ok {
		t.Fatal("a terminal gets no screen")
	}
	var out strings.Builder
	p.out, p.width = &out, 40
	p.step("a", deploy.Install, "")
	p.done(outcome{Host: "a\x1b[2J", OK: true, Text: "install 1", Seconds: 2})
	p.done(outcome{Host: "b", Step: deploy.Connect, Reason: &deploy.Fail(deploy.Unreachable, "").Reason})
	p.end(1, 1, 0)
	for _, want := range []string{"0 of 2 done, install 1", "a·[2J", "1 ok, 1 failed\n", "failed", "connect: "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in %q", want, out.String())
		}
	}
}
