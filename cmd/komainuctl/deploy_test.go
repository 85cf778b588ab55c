package main

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"komainu/fault"
)

// host pretends to be a server. It speaks SSH and answers the script as a
// host does, but runs nothing of it, unless it is real.
type host struct {
	address string
	real    bool // runs the script with the sh of this machine
	// enrols is what its agent does with a token; it returns the device. Nil
	// for a host whose agent does nothing.
	enrols func(token string) string

	mu       sync.Mutex
	key      ssh.Signer
	agent    string // version that is installed
	device   string
	token    string
	force    bool
	installs int
}

func newSigner(t *testing.T) (ed25519.PrivateKey, ssh.Signer) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	return private, s
}

// serve starts the host at an address; it lets the key in.
func (h *host) serve(t *testing.T, at string, allowed ssh.PublicKey) *host {
	t.Helper()
	_, h.key = newSigner(t)
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	h.address = l.Addr().String()
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			go h.talk(raw, allowed)
		}
	}()
	return h
}

func (h *host) talk(raw net.Conn, allowed ssh.PublicKey) {
	defer raw.Close()
	c := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, k ssh.PublicKey) (*ssh.Permissions, error) {
		if !bytes.Equal(k.Marshal(), allowed.Marshal()) {
			return nil, errors.New("not this key")
		}
		return nil, nil
	}}
	h.mu.Lock()
	c.AddHostKey(h.key)
	h.mu.Unlock()
	_, channels, requests, err := ssh.NewServerConn(raw, c)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	for n := range channels {
		channel, requests, err := n.Accept()
		if err != nil {
			return
		}
		go func() {
			for r := range requests {
				if r.Type == "exec" {
					_ = r.Reply(true, nil)
					go h.run(channel, string(r.Payload[4:]))
				}
			}
		}()
	}
}

var markers = regexp.MustCompile(`echo (komainu-begin-\w+);.*= (komainu-end-\w+) `)

func (h *host) run(channel ssh.Channel, command string) {
	defer channel.Close()
	if h.real {
		c := exec.Command("sh", "-c", command)
		c.Stdout, c.Stderr = channel, channel.Stderr()
		in, err := c.StdinPipe()
		if err != nil || c.Start() != nil {
			return
		}
		go func() { _, _ = io.Copy(in, channel); in.Close() }()
		_ = c.Wait() // its exit code counts
		_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Code uint32 }{uint32(c.ProcessState.ExitCode())}))
		return
	}
	m := markers.FindStringSubmatch(command)
	if m == nil {
		return
	}
	fmt.Fprintln(channel, m[1])
	in := bufio.NewReader(channel)
	first, err := in.ReadString('\n')
	for line := ""; err == nil && line != m[2]+"\n"; {
		line, err = in.ReadString('\n')
	}
	if err != nil {
		return
	}
	code := h.answer(first, in, channel)
	_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Code uint32 }{code}))
}

// answer does what the script would say.
func (h *host) answer(arguments string, in *bufio.Reader, out io.Writer) uint32 {
	h.mu.Lock()
	defer h.mu.Unlock()
	say := func(format string, args ...any) { fmt.Fprintf(out, "komainu:"+format+"\n", args...) }
	argument := func(name string) string {
		_, after, _ := strings.Cut(arguments, "'"+name+"=")
		value, _, _ := strings.Cut(after, "'")
		return value
	}
	if strings.Contains(arguments, "'facts'") {
		for _, f := range []string{"uid 0", "os debian", "os_version 12", "os_name Debian GNU/Linux 12", "system Linux", "kernel 6.1.0", "arch x86_64", "init systemd", "manager deb", "reach ok"} {
			say("fact %s", f)
		}
		if h.agent != "" {
			say("fact agent %s", h.agent)
			say("fact service active")
			say("fact device %s", h.device)
		}
		say("done")
		return 0
	}
	h.installs++
	h.force = argument("enrol") == "force"
	if argument("token") == "-" {
		line, _ := in.ReadString('\n')
		h.token = strings.TrimSpace(line)
	}
	content, _ := io.ReadAll(in)
	if argument("format") != "" {
		say("step transfer")
		if sum := sha256.Sum256(content); hex.EncodeToString(sum[:]) != argument("sha256") {
			say("fail checksum %x", sum)
			return 90
		}
		say("step install")
		say("wait apt-get, process 7")
	}
	say("step enrol")
	h.agent = "1.2.3"
	if h.enrols == nil {
		h.device = "11111111-2222-4333-8444-555555555555"
	} else if h.token != "" {
		h.device = h.enrols(h.token)
	}
	say("done %s %s", h.agent, h.device)
	return 0
}

func TestDeploy(t *testing.T) {
	dir := t.TempDir()
	content := append([]byte("!<arch>\ndebian-binary   "), bytes.Repeat([]byte("a package "), 100_000)...)
	for _, name := range []string{"komainu-agent_1.2.3_amd64.deb", "komainu-agent_1.2.2_amd64.deb"} {
		if err := os.WriteFile(filepath.Join(dir, name), append(content, name...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	server, ca, password := plane(t, "--packages", dir)
	private, signer := newSigner(t)
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	key, known, profile := filepath.Join(dir, "key"), filepath.Join(dir, "ssh", "known_hosts"), filepath.Join(dir, "ctl.json")
	if err := os.WriteFile(key, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSH_AUTH_SOCK", "")
	t.Setenv("HOME", filepath.Join(dir, "home"))
	one := new(host).serve(t, "127.0.0.1:0", signer.PublicKey())
	_, port, _ := net.SplitHostPort(one.address)
	two := new(host).serve(t, "127.0.0.2:"+port, signer.PublicKey())
	run := func(stdin, args string) (out string, code int) {
		t.Helper()
		var b strings.Builder
		c := root(strings.NewReader(stdin), &b, &b)
		c.SetArgs(append(strings.Fields(args), "--profile", profile))
		err := c.ExecuteContext(t.Context())
		if err != nil {
			fmt.Fprintln(&b, "error:", err)
		}
		for _, h := range []*host{one, two} {
			if h.token != "" && strings.Contains(b.String(), h.token) {
				t.Errorf("%s: a join token is in the output", args)
			}
		}
		return b.String(), fault.Exit(err)
	}
	want := func(stdin, args string, code int, words ...string) string {
		t.Helper()
		out, got := run(stdin, args)
		if got != code {
			t.Errorf("%s: exit %d\n%s", args, got, out)
		}
		for _, w := range words {
			if !strings.Contains(out, w) {
				t.Errorf("%s does not say %q:\n%s", args, w, out)
			}
		}
		return out
	}
	want("", "deploy web", fault.ExitRefused, "sign in first")
	want(password+"\n", "login "+server+" --ca "+ca, 0)
	inventory := "# two hosts\n127.0.0.[1-2] role=web\n"
	with := " --wait 0 --port " + port + " --known-hosts " + known + " --identity " + key

	for args, words := range map[string]string{
		"deploy":                          "name hosts",
		"deploy web[1-":                   "[ without ]",
		"deploy web --sudo su":            "--sudo",
		"deploy web --concurrency 0":      "--concurrency",
		"deploy web --jump @":             "--jump",
		"deploy web --server 10.0.0.1":    "--server",
		"deploy web --inventory /no/such": "read the inventory",
		"deploy web --identity /no/such":  "read the key",
		"deploy web --known-hosts " + key: "known hosts",
		"deploy web":                      "ssh-add",
		"deploy x@web --sudo password":    "no terminal",
		"deploy web --identity " + dir + "/komainu-agent_1.2.3_amd64.deb": "no private key",
	} {
		want("", args, fault.ExitUsage, words)
	}
	want("", "deploy web --environment mars", fault.ExitFailed, "no environment")

	// Keys of hosts that nobody knows are not taken by themselves.
	out := want(inventory, "deploy --inventory -"+with, fault.ExitFailed, "127.0.0.1\tfailed\tconnect: ", "ssh-ed25519 SHA256:", "--accept-new", "2 of 2 hosts failed")
	if _, err := os.Stat(known); err == nil || strings.Contains(out, "\x1b") {
		t.Errorf("%v\n%s", err, out)
	}
	out = want(inventory, "deploy --inventory - --dry-run --accept-new"+with, 0, "127.0.0.2\tok\tinstall 1.2.3, enrol (")
	if one.installs+two.installs != 0 {
		t.Errorf("a dry run has installed:\n%s", out)
	}
	out = want(inventory, "deploy --inventory - 127.0.0.1"+with, 0, "127.0.0.1\tconnect\t"+one.address, "127.0.0.2\tinstall\tapt-get, process 7", "127.0.0.2\tok\tinstall 1.2.3, enrol (")
	if one.installs != 1 || two.installs != 1 || one.token == "" || one.token == two.token || one.force {
		t.Errorf("%+v\n%s", one, out)
	}
	// The agent there is one of another control plane: it has not enrolled.
	out = want(inventory, "deploy -o json --inventory -"+with, fault.ExitFailed)
	results := 0
	for line := range strings.Lines(out) {
		var o outcome
		if json.Unmarshal([]byte(line), &o) != nil {
			continue
		}
		if results++; o.OK || o.Reason == nil || o.Reason.ID != "enrolled_elsewhere" || o.Device != two.device || !strings.Contains(o.Reason.Remedy, "--take") || o.OS != "Debian GNU/Linux 12" {
			t.Errorf("%s", line)
		}
	}
	if results != 2 {
		t.Errorf("%d results:\n%s", results, out)
	}
	want("", "deploy 127.0.0.2 --take"+with, 0, "keep 1.2.3, enrol anew")
	if !two.force || two.installs != 2 {
		t.Errorf("%+v", two)
	}
	// It never connects.
	two.agent = ""
	want("", "deploy 127.0.0.2"+strings.Replace(with, "--wait 0", "--wait 1ms", 1), fault.ExitFailed, "127.0.0.2\treport\t", "not within 1ms")
	// The host is another one.
	_, two.key = newSigner(t)
	want("", "deploy 127.0.0.2 --accept-new"+with, fault.ExitFailed, "another host key", known+":", "ssh-keygen -R")
	// The real script judges this machine as it is.
	here := (&host{real: true}).serve(t, "127.0.0.3:"+port, signer.PublicKey())
	if out, code := run("", "deploy 127.0.0.3 --dry-run --accept-new -o json --server "+strings.TrimPrefix(server, "https://")+with); !strings.Contains(out, `"step":"preflight"`) {
		t.Errorf("%s: %d\n%s", here.address, code, out)
	}

	t.Run("keys_of_an_agent", func(t *testing.T) {
		ring := agent.NewKeyring()
		if err := ring.Add(agent.AddedKey{PrivateKey: private}); err != nil {
			t.Fatal(err)
		}
		socket := filepath.Join(dir, "agent")
		l, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() { _ = agent.ServeAgent(ring, c) }()
			}
		}()
		t.Setenv("SSH_AUTH_SOCK", socket)
		one.agent = ""
		want("", "deploy 127.0.0.1"+strings.Replace(with, " --identity "+key, "", 1), 0, "ok")
		if err := ring.RemoveAll(); err != nil {
			t.Fatal(err)
		}
		want("", "deploy 127.0.0.1"+strings.Replace(with, " --identity "+key, "", 1), fault.ExitFailed, "ssh-add -l")
	})
}
