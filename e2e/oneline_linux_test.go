package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestOneLine has somebody paste what the portal shows into a server that has
// nothing: as it should be, and with everything that goes wrong.
func TestOneLine(t *testing.T) {
	m := onMachine(t, func(dir string) {
		controlPackages(t, dir)
		agentPackages(t, dir)
	})
	if m == nil {
		return
	}
	m.run("sh", "-c", "mkdir /srv/demo && mount -t tmpfs komainu-demo /srv/demo && mount -t tmpfs -o noexec none /tmp && mount -t tmpfs -o noexec none /var/tmp")
	c, environment := switchedOn(m)

	// Nothing is changed on a host that does not trust, or is not fit.
	good := c.join(environment, `{"label":"good","maxUses":2}`)
	c.refuses(strings.ReplaceAll(good.Snippets.Shell, good.Token, c.foreign(good.Token)), 6, "its CA is another one")
	uname := filepath.Join(m.root, "usr/local/sbin/uname")
	c.must(os.WriteFile(uname, []byte("#!/bin/sh\n[ \"$1\" != -m ] || { echo riscv64; exit; }\nexec /usr/bin/uname \"$@\"\n"), 0o755))
	c.refuses(good.Snippets.Shell, 7, "there is no agent for this kind of processor (riscv64)")
	c.must(os.Remove(uname))
	c.run("sh", "-c", "! dpkg-query -W komainu-agent 2>/dev/null && ! test -e /usr/bin/komainud && ! ls -d /var/tmp/komainu*")
	// Nobody is let in by a token that has ended.
	ended := c.join(environment, `{"label":"ended"}`)
	c.call("DELETE", environment+"/join-tokens/"+ended.ID, "")
	c.refuses(ended.Snippets.Shell, 6, "was revoked")
	c.run("dpkg", "--purge", "komainu-agent")

	out := c.run("sh", "-c", good.Snippets.Shell)
	if !strings.Contains(out, "enrolled as device") || strings.Contains(out, "device .") {
		t.Errorf("the installation says\n%s", out)
	}
	c.eventually("the folder is protected", func() bool {
		out, _ := c.try("komainu", "health", "--field", "real_time_protection_scope")
		return strings.Contains(out, "1 blocking")
	})
	// Again nothing is changed, and no use is spent; by somebody who is not root,
	// and without telling anybody the token. Where the Debian was made, sudo may
	// not have got its bit.
	c.run("sh", "-c", "chmod 4755 /usr/bin/sudo && useradd ada && echo 'ada ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/ada")
	c.must(os.WriteFile(filepath.Join(m.root, "srv/line"), []byte(good.Snippets.Shell+"\n"), 0o644))
	if out := c.run("su", "ada", "-s", "/bin/sh", "-c", ". /srv/line"); !strings.Contains(out, "Nothing was changed") {
		t.Errorf("again: %s", out)
	}
	if j := m.run("journalctl", "--no-pager", "-o", "cat"); !strings.Contains(j, "COMMAND=/usr/bin/sh install --token-file -") || strings.Contains(j, "kmj1.") {
		t.Errorf("the journal does not say what sudo was called for, or holds the token:\n%s", j)
	}
	c.run("sh", "-c", "! ls -d /tmp/tmp.*")
	c.run("sh", "-c", "curl -fsSk https://localhost:8443/install >/root/install && sh /root/install --uninstall && ! test -e /usr/bin/komainud && ! test -e /var/lib/komainu/agent")
	// From standard input, as Ansible gives it.
	if out := c.run("sh", "-c", "echo "+good.Token+" | sh /root/install --token-file -"); !strings.Contains(out, "enrolled as device") {
		t.Errorf("from standard input: %s", out)
	}
	c.leaves()
	c.run("sh", "/root/install", "--uninstall")
	c.refuses("sh /root/install "+good.Token, 6, "is used up (2 of 2 uses)")
	if out := c.run("sh", "/root/install", "--image", good.Token); !strings.Contains(out, "make the image of it") {
		t.Errorf("an image: %s", out)
	}
	c.run("sh", "-c", "test -s /etc/komainu/join-token && test -e /etc/komainu/image && ! ls /var/lib/komainu/agent/identity* 2>/dev/null && ! systemctl is-active -q komainu-agent")
}

// switchedOn installs a control plane that has a package of the agent, and
// switches the plan of its environment on. environment is the path of that in
// the API.
func switchedOn(m *machine) (c *console, environment string) {
	m.t.Helper()
	agent := deb("komainu-agent", thisVersion)
	text, err := os.ReadFile(agent)
	m.must(err)
	packages := filepath.Join(m.root, "usr/share/komainu/packages")
	m.must(os.MkdirAll(packages, 0o755))
	m.must(os.WriteFile(filepath.Join(packages, filepath.Base(agent)), text, 0o644))
	m.install(deb("komainu-control", thisVersion))
	c = &console{machine: m}
	c.token = strings.TrimSpace(m.run("komainu-control", "admin", "token"))
	var list struct{ Items []struct{ ID string } }
	c.must(json.Unmarshal([]byte(c.call("GET", "/api/v1/environments", "")), &list))
	environment = "/api/v1/environments/" + list.Items[0].ID
	c.call("PUT", environment+"/plan", `{"version":1,"servers":true,"filesystems":[{"path":"*","mode":"ignore"},{"path":"/srv/demo","mode":"block"}]}`)
	return c, environment
}

// leaves has root on the host take it out of protection.
func (c *console) leaves() {
	c.t.Helper()
	if out := c.run("komainu", "offboard", "--yes"); !strings.Contains(out, "offboarded") {
		c.t.Errorf("offboard says %s", out)
	}
	type machine struct {
		Offboarded bool
		ByHost     bool `json:"offboardedByHost"`
		Extension  struct{ Reason *struct{ ID string } }
	}
	c.eventually("the control plane knows that the host has left", func() bool {
		var list struct{ Items []machine }
		c.must(json.Unmarshal([]byte(c.call("GET", "/api/v1/machines?state=none", "")), &list))
		return slices.ContainsFunc(list.Items, func(m machine) bool {
			return m.Offboarded && m.ByHost && m.Extension.Reason != nil && m.Extension.Reason.ID == "offboarded_by_host"
		})
	})
	if out, _ := c.try("komainu", "health", "--field", "licensed"); strings.TrimSpace(out) != "false" {
		c.t.Errorf("offboarded, licensed is %s", out)
	}
}

type joinToken struct {
	ID, Token string
	Snippets  struct{ Shell, CloudInit, Ansible string }
}

func (c *console) join(environment, body string) (j joinToken) {
	c.t.Helper()
	c.must(json.Unmarshal([]byte(c.call("POST", environment+"/join-tokens", body)), &j))
	return j
}

// foreign is a token with the pin of another CA.
func (c *console) foreign(token string) string {
	c.t.Helper()
	body, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(token, "kmj1."))
	c.must(err)
	var parts map[string]string
	c.must(json.Unmarshal(body, &parts))
	parts["p"] = strings.Repeat("0", 64)
	body, err = json.Marshal(parts)
	c.must(err)
	return "kmj1." + base64.RawURLEncoding.EncodeToString(body)
}

// refuses runs a line that is to end with a code and a text.
func (c *console) refuses(line string, code int, says string) {
	c.t.Helper()
	out, _ := c.try("sh", "-c", "("+line+") 2>&1; echo code $?")
	if !strings.Contains(out, says) || !strings.HasSuffix(strings.TrimSpace(out), fmt.Sprint("code ", code)) {
		c.t.Errorf("want code %d and %q:\n%s", code, says, out)
	}
}
