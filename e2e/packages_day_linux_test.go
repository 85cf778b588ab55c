package e2e

import (
	"encoding/json"
	"strings"
)

// firstDay joins the agent of this machine to its control plane and sees that
// what is installed protects, confined as its unit says: only a folder of the
// machine that is a filesystem of its own is guarded.
func (c *console) firstDay(agent string) {
	c.t.Helper()
	c.run("sh", "-c", "mkdir -p /srv/demo && mount -t tmpfs komainu-demo /srv/demo")
	if strings.HasSuffix(agent, ".deb") {
		c.install(agent)
	} else {
		c.run("sh", "-c", "mkdir /srv/archive && tar -xzf "+c.bring(agent)+" -C /srv/archive && sh /srv/archive/*/install.sh install")
	}
	var list struct{ Items []struct{ ID string } }
	c.must(json.Unmarshal([]byte(c.call("GET", "/api/v1/environments", "")), &list))
	environment := "/api/v1/environments/" + list.Items[0].ID
	var plan struct{ Version uint64 }
	c.must(json.Unmarshal([]byte(c.call("GET", environment+"/plan", "")), &plan))
	body, err := json.Marshal(map[string]any{"version": plan.Version, "servers": true, "filesystems": []map[string]string{{"path": "*", "mode": "ignore"}, {"path": "/srv/demo", "mode": "block"}}})
	c.must(err)
	c.call("PUT", environment+"/plan", string(body))
	var token struct{ Token string }
	c.must(json.Unmarshal([]byte(c.call("POST", environment+"/join-tokens", `{"label":"machine"}`)), &token))
	c.run("komainu", "enrol", token.Token)
	c.eventually("the folder is protected", func() bool {
		out, _ := c.try("komainu", "health", "--field", "real_time_protection_scope")
		return strings.Contains(out, "1 blocking")
	})
	c.eventually("the agent is healthy", func() bool {
		out, _ := c.try("komainu", "health", "--field", "healthy")
		return strings.TrimSpace(out) == "true"
	})
	// Tests of behaviour are not for a container: the kernel names processes by
	// other numbers than those that the agent sees in there.
	// The control plane has a new machine prove itself with the same test.
	c.eventually("the detection test arrives", func() bool {
		out, _ := c.try("komainu", "test", "run", "eicar")
		return strings.Contains(out, "It arrived")
	})
}
