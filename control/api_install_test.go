package control

import (
	"net/http"
	"strings"
	"testing"

	"komainu/control/access"
	"komainu/deploy"
)

// factsOf is what the script says of a host that can get the agent.
func factsOf(more ...string) string {
	lines := []string{"uid 0", "os debian", "os_version 12", "os_name Debian GNU/Linux 12 (bookworm)", "system Linux", "kernel 6.1.0-18-cloud-amd64", "arch x86_64", "init systemd", "container none",
		"memory_kb 2000000", "var_kb 9000000", "usr_kb 9000000", "manager deb", "reach ok"}
	var b strings.Builder
	for _, l := range append(lines, more...) {
		b.WriteString(deploy.Prefix + "fact " + l + "\n")
	}
	return b.String() + deploy.Prefix + "done\n"
}

func TestInstallPlan(t *testing.T) {
	b := newBench(t)
	id := string(b.device("web-1"))
	gone := string(b.device("web-2"))
	want[any](b, 200, "POST", "/devices/"+gone+"/revoke", `{"reason":"x"}`)
	for name, c := range map[string]struct {
		query, body, want string
		status            int
	}{
		"no_package":      {"", factsOf(), "fail no_package deb for amd64", 200},
		"wrong_processor": {"", factsOf("arch riscv64"), "fail arch_unsupported riscv64", 200},
		"not_root":        {"", factsOf("uid 1000"), "fail not_root", 200},
		"clock":           {"", factsOf("clock 1000000"), "fail clock_off", 200},
		"conflict":        {"", factsOf("others mdatp"), "fail conflicting_agent mdatp", 200},
		"despite":         {"?despiteConflict=yes", factsOf("others mdatp"), "fail no_package", 200},
		"there":           {"", factsOf("agent 1.0.0", "service active", "device "+id), "device " + id + "\nenrol no\nversion 1.0.0\n", 200},
		"forced":          {"?force=yes", factsOf("agent 1.0.0", "service active", "device "+id), "enrol force\n", 200},
		"offboarded":      {"", factsOf("agent 1.0.0", "service active", "device "+gone), "enrol force\n", 200},
		"elsewhere":       {"", factsOf("agent 1.0.0", "service active", "device 00000000-0000-4000-8000-000000000000"), "fail enrolled_elsewhere", 200},
		"image":           {"?image=yes", factsOf("agent 1.0.0", "image yes", "device "+id), "enrol boot\nversion 1.0.0\n", 200},
		"prepared":        {"", factsOf("image yes"), "fail image", 200},
		"not_verified":    {"", factsOf("agent 1.0.0", "os rhel", "os_version 9", "os_name RHEL 9"), "note Releases are not tried on RHEL 9", 200},
		"cut_off":         {"", strings.TrimSuffix(factsOf(), deploy.Prefix+"done\n"), "cut off", 422},
		"nonsense":        {"", "hello", "not understood", 422},
		"too_long":        {"", strings.Repeat("komainu:fact os x\n", 10_000), "not understood", 422},
		"one_line":        {"", strings.Repeat("x", 100_000), "not understood", 422},
	} {
		status, text := b.as(caller{}, "POST", "/install/plan"+c.query, c.body)
		if status != c.status || !strings.Contains(text, c.want) {
			t.Errorf("%s: %d %s, want %d %q", name, status, text, c.status, c.want)
		}
	}
	status, text := b.as(caller{}, "GET", "/install", "")
	if status != http.StatusOK || text != deploy.Installer() || !strings.Contains(text, deploy.Script) {
		t.Errorf("the installer: %d, %d bytes", status, len(text))
	}
}

// TestJoinTokenIsShownOnce looks for the secret in every later answer, and in
// the database.
func TestJoinTokenIsShownOnce(t *testing.T) {
	b := newBench(t)
	path := "/environments/" + b.env + "/join-tokens"
	made := want[JoinToken](b, 200, "POST", path, `{"label":"fleet","maxUses":50}`)
	w := made.Snippets
	if w == nil || made.Token == "" || made.MaxUses != 50 {
		t.Fatalf("%+v", made)
	}
	for way, text := range map[string]string{"line": w.Line, "cloud-init": w.CloudInit, "ansible": w.Ansible, "image": w.Image} {
		if !strings.Contains(text, made.Token) || !strings.Contains(text, b.api.address) {
			t.Errorf("%s: %s", way, text)
		}
	}
	for _, later := range []string{path, "/audit"} {
		if _, text := b.send(access.Admin, "GET", "/api/v1"+later, ""); strings.Contains(text, made.Token) || strings.Contains(text, "snippets") {
			t.Errorf("%s: %s", later, text)
		}
	}
	if strings.Contains(b.log.String(), made.Token) {
		t.Error("the log holds the token")
	}
}
