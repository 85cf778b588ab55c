package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"komainu/control"
	"komainu/control/access"
	"komainu/control/client"
	"komainu/fault"
)

// plane starts a control plane and returns its address and the password of
// the administrator, who has chosen it.
func plane(t *testing.T, more ...string) (server, ca, password string) {
	t.Helper()
	state := t.TempDir()
	out, in := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		control.Command(ctx, append([]string{"run", "--state", state, "--listen", "127.0.0.1:0"}, more...),
			control.Env{Version: "test", Stdout: in, Stderr: t.Output(), Secret: in, Hashing: access.Hashing{Passes: 1, Memory: 64, Threads: 1}})
		in.Close()
	}()
	t.Cleanup(func() { cancel(); <-done })
	var oneTime string
	for lines := bufio.NewScanner(out); server == "" && lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "admin one-time password: "); ok {
			oneTime = rest
		}
		if rest, ok := strings.CutPrefix(lines.Text(), "ready "); ok {
			server = rest
		}
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	ca = filepath.Join(state, "keys", "ca.pem")
	text, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(client.Options{Server: server, CA: text})
	if err != nil {
		t.Fatal(err)
	}
	password = "correct horse battery"
	if _, err := c.SignIn(t.Context(), "admin", oneTime); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ChangePassword(t.Context(), oneTime, password); err != nil {
		t.Fatal(err)
	}
	return server, ca, password
}

func TestCommands(t *testing.T) {
	server, ca, password := plane(t)
	profile := filepath.Join(t.TempDir(), "sub", "ctl.json")
	run := func(stdin string, args ...string) (out string, code int, message string) {
		t.Helper()
		var stdout, stderr strings.Builder
		c := root(strings.NewReader(stdin), &stdout, &stderr)
		c.SetArgs(append(args, "--profile", profile))
		err := c.ExecuteContext(t.Context())
		if err != nil {
			message = err.Error()
		}
		return stdout.String(), fault.Exit(err), message + stderr.String()
	}
	for _, c := range []struct {
		stdin, args string
		code        int
		want        string
	}{
		{"", "device list", fault.ExitRefused, "sign in first"},
		{"", "fly", fault.ExitUsage, `no command "fly"`},
		{"", "device fly", fault.ExitUsage, `no command "fly"`},
		{"", "device list x", fault.ExitUsage, "takes 0 arguments"},
		{"", "device list -o xml", fault.ExitUsage, "table or json"},
		{"", "device list --colour", fault.ExitUsage, "--colour"},
		{"x\n", "login " + server, fault.ExitRefused, "cannot be trusted"},
		{"wrong\n", "login " + server + " --ca " + ca, fault.ExitRefused, "name or the password is wrong"},
		{"", "login https://127.0.0.1:1 --ca " + ca, fault.ExitUsage, "no password"},
		{"x\n", "login https://127.0.0.1:1 --ca " + ca, fault.ExitUnreachable, "cannot be reached"},
		{password + "\n", "login " + server + " --ca " + ca, 0, "signed in"},
		{"", "device revoke x", fault.ExitFailed, "no device x"},
	} {
		if out, code, text := run(c.stdin, strings.Fields(c.args)...); code != c.code || !strings.Contains(out+text, c.want) {
			t.Errorf("%s: %d %s%s", c.args, code, out, text)
		}
	}
	for args, header := range map[string]string{"device list": "SENSOR", "alert list": "SEVERITY", "incident list": "ALERTS", "environment list": "On-premises", "token create --label siem": "kmt_"} {
		if out, code, text := run("", strings.Fields(args)...); code != 0 || !strings.Contains(out, header) {
			t.Errorf("%s: %d %s%s", args, code, out, text)
		}
	}
	out, code, text := run("", "environment", "list", "-o", "json")
	var list client.List[client.Environment]
	if err := json.Unmarshal([]byte(out), &list); err != nil || code != 0 || len(list.Items) != 1 {
		t.Errorf("%d %s%s, %v", code, out, text, err)
	}
	for args, header := range map[string]string{
		"machine list": "STATE", "connector list On-premises": "LAST SYNC", "join-token create On-premises --as line --uses 3": "sh install --token-file -)",
		"join-token create On-premises --as cloud-init": "#cloud-config\n", "join-token create On-premises --as ansible": "hosts: all", "join-token create On-premises --as image": "sh install --image --token-file -)",
		"join-token create On-premises --as token": "kmj1.", "join-token create On-premises -o json": `"snippets"`} {
		if out, code, text := run("", strings.Fields(args)...); code != 0 || !strings.Contains(out, header) {
			t.Errorf("%s: %d %s%s", args, code, out, text)
		}
	}
	for args, message := range map[string]string{
		"machine show nobody": "no machine", "machine offboard nobody": "no machine", "connector list Elsewhere": "no environment", "connector sync nothing": "no connector",
		"join-token create On-premises --as tape": "want token, line", "join-token revoke On-premises x": "no join token",
	} {
		if out, code, text := run("", strings.Fields(args)...); code == 0 || !strings.Contains(text, message) {
			t.Errorf("%s: %d %s%s", args, code, out, text)
		}
	}
	if info, err := os.Stat(profile); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the profile can be read by others: %v, %v", info.Mode(), err)
	}
}

func TestCellsCannotMoveTheCursor(t *testing.T) {
	if got := cells("a\x1b[2Jb\nc\td"); strings.ContainsAny(got, "\x1b\n\t") {
		t.Errorf("%q", got)
	}
}
