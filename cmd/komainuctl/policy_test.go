package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"komainu/fault"
)

func TestPolicyCommands(t *testing.T) {
	server, ca, password := plane(t)
	dir := t.TempDir()
	profile := filepath.Join(dir, "ctl.json")
	run := func(stdin string, args ...string) (string, int) {
		t.Helper()
		var out strings.Builder
		c := root(strings.NewReader(stdin), &out, &out)
		c.SetArgs(append(args, "--profile", profile))
		err := c.ExecuteContext(t.Context())
		if err != nil {
			out.WriteString(err.Error())
		}
		return out.String(), fault.Exit(err)
	}
	managed := filepath.Join(dir, "mdatp_managed.json")
	if err := os.WriteFile(managed, []byte(`{"antivirusEngine":{"scanArchives":false,"nonExecMountPolicy":"mute"},"edr":{"tags":[{"key":"GROUP","value":"web"}]},"x":{}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	const group = `{"name":"web","rank":1,"match":{"name":"web-*","environment":"On-premises"}}`
	const two = `[{"name":"a","type":"antivirus","priority":3,"assignments":[{"kind":"group","name":"web"},{"kind":"environment","name":"On-premises"}],"settings":{"scanArchives":true}},
		{"name":"b","type":"exclusions","assignments":[{"kind":"all"}],"settings":{"exclusions":[{"type":"folder","value":"/srv/x","scope":"epp"}]}}]`
	for _, c := range []struct {
		stdin, args string
		code        int
		want        []string
	}{
		{password + "\n", "login " + server + " --ca " + ca, 0, nil},
		{group, "group apply -f -", 0, []string{"web", "name web-*"}},
		{group, "group apply -f -", 0, []string{"web"}}, // changed this time
		{two, "policy apply -f -", 0, []string{"group web, environment On-premises", "exclusions"}},
		{"", "policy list", 0, []string{"PRIORITY", "a", "b"}},
		{strings.Replace(two, "true", `"yes"`, 1), "policy apply -f -", fault.ExitUsage, []string{`policy "a"`, "scanArchives: want true or false"}},
		{strings.Replace(two, `"web"`, `"mars"`, 1), "policy apply -f -", fault.ExitFailed, []string{`no group "mars"`}},
		{"{", "policy apply -f -", fault.ExitUsage, []string{"cannot be read"}},
		{"", "policy apply", fault.ExitUsage, []string{"--file"}},
		{"", "policy get a", 0, []string{`"scanArchives": true`, `"name": "web"`}},
		{"", "policy get c", fault.ExitFailed, []string{`no policy "c"`}},
		{"", "policy export b", 0, []string{`"excludedPath"`, `"/srv/x"`}},
		{"", "group get web", 0, []string{`"web-*"`}},
		{"", "group delete web", fault.ExitFailed, []string{"used by the policies a"}},
		{"", "policy delete a", fault.ExitFailed, []string{"assigned to group web"}},
		{"", "policy delete a --force", 0, []string{"is deleted"}},
		{"", "group delete web", 0, []string{"is deleted"}},
		{"", "policy import --mdatp-managed " + managed + " --dry-run", 0, []string{"antivirusEngine.scanArchives", "taken", "antivirusEngine.nonExecMountPolicy", "no engine", "unknown"}},
		{"", "policy import --mdatp-managed " + managed + " --assign all --name Old", 0, []string{"taken"}},
		{"", "policy list", 0, []string{"Old antivirus", "Old edr"}},
		{"", "device policy x", fault.ExitFailed, []string{"no device x"}},
	} {
		out, code := run(c.stdin, strings.Fields(c.args)...)
		if code != c.code {
			t.Errorf("%s: exit %d\n%s", c.args, code, out)
		}
		for _, want := range c.want {
			if !strings.Contains(out, want) {
				t.Errorf("%s does not say %q:\n%s", c.args, want, out)
			}
		}
	}
	if out, _ := run("", "policy", "list"); strings.Contains(out, "Imported") {
		t.Errorf("a dry run has saved something:\n%s", out)
	}
	// What get prints, apply takes: it is the same policy afterwards.
	text, _ := run("", "policy", "get", "Old edr")
	if out, code := run(text, "policy", "apply", "-f", "-"); code != 0 || !strings.Contains(out, "Old edr") {
		t.Errorf("%d %s", code, out)
	}
	if again, _ := run("", "policy", "get", "Old edr"); again != text {
		t.Errorf("%s became %s", text, again)
	}
}
