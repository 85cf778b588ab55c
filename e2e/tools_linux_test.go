package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestAnsibleAndCloudInit has the tools that people have bring the agent, with
// the texts that the portal shows for them.
func TestAnsibleAndCloudInit(t *testing.T) {
	m := onMachine(t, func(dir string) {
		controlPackages(t, dir)
		agentPackages(t, dir)
	}, "ansible-core", "cloud-init")
	if m == nil {
		return
	}
	c, environment := switchedOn(m)
	write := func(name, text string) {
		c.must(os.MkdirAll(filepath.Dir(filepath.Join(m.root, name)), 0o755))
		c.must(os.WriteFile(filepath.Join(m.root, name), []byte(text), 0o600))
	}

	write("root/komainu.yaml", c.join(environment, `{"label":"ansible"}`).Snippets.Ansible)
	play := func(want string) {
		t.Helper()
		if out := c.run("ansible-playbook", "-i", "localhost,", "-c", "local", "/root/komainu.yaml"); !strings.Contains(out, want) || !strings.Contains(out, "failed=0") {
			t.Errorf("want %s:\n%s", want, out)
		}
	}
	play("changed=1")
	c.becomesLicensed("with Ansible")
	play("changed=0")
	c.keepsTheSecret()
	c.leaves()
	c.run("dpkg", "--purge", "komainu-agent")

	// The first boot of a server that gets its user data from a disk.
	write("etc/cloud/cloud.cfg.d/90_small.cfg", "locale: false\n") // no locales are installed
	write("var/lib/cloud/seed/nocloud/meta-data", "instance-id: first\nlocal-hostname: cloudy\n")
	write("var/lib/cloud/seed/nocloud/user-data", c.join(environment, `{"label":"cloud"}`).Snippets.CloudInit)
	m.crash()
	if out, err := c.try("cloud-init", "status", "--wait", "--long"); err != nil {
		said, _ := c.try("tail", "-n", "40", "/var/log/cloud-init-output.log")
		t.Errorf("cloud-init: %v\n%s%s", err, out, said)
	}
	c.becomesLicensed("with cloud-init")
	c.keepsTheSecret()
	c.run("sh", "-c", "! test -e /run/komainu-join")
	if id := c.run("komainu", "health", "--field", "edr_machine_id"); strings.TrimSpace(id) == "" {
		t.Error("it has no identity")
	}
}

func (c *console) becomesLicensed(how string) {
	c.t.Helper()
	c.eventually("the server is protected "+how, func() bool {
		out, _ := c.try("komainu", "health", "--field", "licensed")
		return strings.TrimSpace(out) == "true"
	})
}

// keepsTheSecret looks for join tokens where others than root read.
func (c *console) keepsTheSecret() {
	c.t.Helper()
	if j := c.run("journalctl", "--no-pager", "-o", "cat"); strings.Contains(j, "kmj1.") {
		c.t.Error("a token is in the journal")
	}
	if found, err := c.try("grep", "-rl", "kmj1[.]", "/var/log", "/tmp", "/var/tmp", "/run/cloud-init"); err == nil {
		c.t.Errorf("a token is in %s", found)
	}
}
