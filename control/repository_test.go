package control_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata/config"
	"github.com/theupdateframework/go-tuf/v2/metadata/updater"

	"komainu/control/access"
	"komainu/control/client"
	"komainu/control/db"
	"komainu/fault"
)

// deb writes what looks like a package of the agent.
func deb(t *testing.T, version, content string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), fmt.Sprintf("komainu-agent_%s_amd64.deb", version))
	if err := os.WriteFile(file, []byte("!<arch>\n"+content), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// mirror is a client of TUF over the network, of somebody else's making, that
// remembers what it has seen.
type mirror struct {
	root []byte
	memo string
	seen int64
}

// offered returns the versions that a control plane offers, after it has
// fetched them.
func (m *mirror) offered(t *testing.T, p *plane) (versions []string, err error) {
	t.Helper()
	ca, err := os.ReadFile(filepath.Join(p.state, "keys", "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	via := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	defer via.CloseIdleConnections()
	if m.memo == "" {
		m.memo = t.TempDir()
		answer, err := via.Get(p.url + "/repository/metadata/1.root.json")
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		var text bytes.Buffer
		if _, err := text.ReadFrom(answer.Body); err != nil || answer.StatusCode != 200 {
			t.Fatal(answer.Status, err)
		}
		m.root = text.Bytes()
	} else if newer, err := os.ReadFile(filepath.Join(m.memo, "root.json")); err == nil {
		m.root = newer
	}
	cfg, err := config.New(p.url+"/repository/metadata", m.root)
	if err != nil {
		t.Fatal(err)
	}
	cfg.RemoteTargetsURL, cfg.LocalMetadataDir, cfg.LocalTargetsDir = p.url+"/repository/targets", m.memo, m.memo
	if err := cfg.SetDefaultFetcherHTTPClient(via); err != nil {
		t.Fatal(err)
	}
	u, err := updater.New(cfg)
	if err != nil {
		return nil, err
	}
	if err := u.Refresh(); err != nil {
		return nil, err
	}
	m.seen = u.GetTrustedMetadataSet().Timestamp.Signed.Version
	for name, info := range u.GetTopLevelTargets() {
		if _, _, err := u.DownloadTarget(info, filepath.Join(m.memo, "package"), ""); err != nil {
			return nil, err
		}
		versions = append(versions, strings.Split(name, "/")[1])
	}
	slices.Sort(versions)
	return versions, nil
}

func (m *mirror) must(t *testing.T, p *plane, want ...string) {
	t.Helper()
	if got, err := m.offered(t, p); err != nil || !slices.Equal(got, want) {
		t.Errorf("offered %v, %v; want %v", got, err, want)
	}
}

// content runs a command about the repository and wants it to end well.
func content(t *testing.T, p *plane, args ...string) string {
	t.Helper()
	code, out, text := command(t, append(append([]string{"content"}, args...), "--state", p.state)...)
	if code != 0 {
		t.Fatalf("content %q: %d %s%s", args, code, out, text)
	}
	return out
}

// TestContentCommands goes through all of them, while the control plane runs
// and while it does not.
func TestContentCommands(t *testing.T) {
	state := t.TempDir()
	p := start(t, state)
	c := p.admin(t)
	var m mirror
	m.must(t, p)
	content(t, p, "add", deb(t, "1.0.0", "one"), deb(t, "1.1.0", "two"))
	m.must(t, p, "1.0.0", "1.1.0")
	content(t, p, "remove", "1.0.0")
	m.must(t, p, "1.1.0")
	if out := content(t, p, "list"); !strings.Contains(out, "1.1.0") || strings.Contains(out, "1.0.0") || !strings.Contains(out, "on the control plane") {
		t.Error(out)
	}
	key := filepath.Join(t.TempDir(), "root.pem")
	content(t, p, "rotate", "--root-key-out", key)
	m.must(t, p, "1.1.0")
	if info, err := os.Stat(key); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if _, err := c.RotateRepository(t.Context()); !fault.Is(err, fault.Managed) {
		t.Errorf("rotated over the API without the root key: %v", err)
	}
	if code, _, text := command(t, "content", "rotate", "--state", state); code != fault.ExitRefused || !strings.Contains(text, "--root-key") {
		t.Errorf("%d %s", code, text)
	}
	if code, _, text := command(t, "content", "rotate", "--root-key", key, "--root-key-out", key, "--state", state); code != fault.ExitFailed {
		t.Errorf("the key is written over: %d %s", code, text)
	}
	refused := filepath.Join(t.TempDir(), "refused.pem")
	if code, _, text := command(t, "content", "rotate", "--root-key-out", refused, "--state", state); code != fault.ExitRefused || !strings.Contains(text, refused+" is not the root key") {
		t.Errorf("%d %s", code, text)
	}
	medium := t.TempDir()
	within := func(out string, days int) {
		t.Helper()
		_, date, _ := strings.Cut(out, "good until ")
		date, _, _ = strings.Cut(date, " UTC")
		want := time.Now().AddDate(0, 0, days)
		if until, err := time.Parse(time.DateTime, date); err != nil || until.Before(want.Add(-time.Minute)) || until.After(want) {
			t.Errorf("%s%v, want %d days", out, err, days)
		}
	}
	within(content(t, p, "export", medium, "--days", "10"), 10)
	within(content(t, p, "export", medium), 2)
	m.must(t, p, "1.1.0")
	for args, want := range map[string]int{"add /nonexistent": fault.ExitFailed, "add " + deb(t, "1.1.0", "other"): fault.ExitFailed, "add " + key: fault.ExitUsage, "remove 7.0.0": fault.ExitFailed, "add": fault.ExitUsage, "export": fault.ExitUsage, "export /nonexistent --days 1": fault.ExitUsage, "export /nonexistent --days 15": fault.ExitUsage} {
		if code, out, text := command(t, append(append([]string{"content"}, strings.Fields(args)...), "--state", state)...); code != want || text == "" {
			t.Errorf("content %s: %d, want %d: %s%s", args, code, want, out, text)
		}
	}
	m.must(t, p, "1.1.0")

	// Another control plane imports what was exported.
	other := start(t, t.TempDir())
	var n mirror
	n.must(t, other)
	root := filepath.Join(t.TempDir(), "root.json")
	if err := os.WriteFile(root, m.root, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, text := command(t, "content", "import", medium, "--state", other.state); code != fault.ExitUsage || !strings.Contains(text, "--root") {
		t.Errorf("imported on trust: %d %s", code, text)
	}
	content(t, other, "import", medium, "--root", root)
	n.must(t, other, "1.1.0")
	p.stop()
	other.stop()

	// And all of it once more with nothing that runs.
	content(t, p, "add", deb(t, "2.0.0", "three"))
	content(t, p, "rotate", "--root-key", key)
	within(content(t, p, "export", medium), 2)
	content(t, other, "import", medium, "--root", root)
	if out := content(t, p, "list"); !strings.Contains(out, "2.0.0") || strings.Contains(out, "not on") {
		t.Error(out)
	}
	again, elsewhere := start(t, state), start(t, other.state)
	m.must(t, again, "1.1.0", "2.0.0")
	n.must(t, elsewhere, "1.1.0", "2.0.0")

	b, err := db.Open(state)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for action, want := range map[string]int64{"content.add": 3, "content.remove": 1, "content.rotate": 2, "content.export": 1} {
		if n, err := b.NewSelect().Table("audit_log").Where("action = ? AND actor_name = 'host'", action).Count(t.Context()); err != nil || n != want {
			t.Errorf("%s is in the audit log %d times, %v", action, n, err)
		}
	}
}

// TestRemovedIsNotFilledIn removes a version whose file stays in the folder that
// the repository is filled from at each start.
func TestRemovedIsNotFilledIn(t *testing.T) {
	state, file := t.TempDir(), deb(t, "1.0.0", "one")
	run := func() *plane { return start(t, state, "--packages", filepath.Dir(file)) }
	p := run()
	var m mirror
	m.must(t, p, "1.0.0")
	content(t, p, "remove", "1.0.0")
	p.stop()
	p = run()
	m.must(t, p)
	content(t, p, "add", file)
	p.stop()
	if said := p.said.String(); !strings.Contains(said, "is left out of the repository, because it was removed") || !strings.Contains(said, file) {
		t.Errorf("nobody says why it is not offered:\n%s", said)
	}
	p = run()
	m.must(t, p, "1.0.0")
}

// TestExportWithoutKeys exports from a control plane that is stopped and whose
// keys are not here: what there is, for as long as it lasts.
func TestExportWithoutKeys(t *testing.T) {
	p := start(t, t.TempDir())
	content(t, p, "add", deb(t, "1.0.0", "one"))
	p.stop()
	if err := os.RemoveAll(filepath.Join(p.state, "keys", "content")); err != nil {
		t.Fatal(err)
	}
	medium := t.TempDir()
	if code, out, text := command(t, "content", "export", medium, "--state", p.state); code != 0 || !strings.Contains(text, "as it is") || !strings.Contains(out, "good until") {
		t.Errorf("%d %s%s", code, out, text)
	}
	if left, _ := filepath.Glob(filepath.Join(medium, "targets", "*", "*", "*")); len(left) != 1 {
		t.Errorf("copied %q", left)
	}
	if code, out, text := command(t, "content", "export", medium, "--days", "5", "--state", p.state); code == 0 {
		t.Errorf("longer than it was signed for: %s%s", out, text)
	}
}

// TestRepositoryOverTheAPI adds and removes packages as people do.
func TestRepositoryOverTheAPI(t *testing.T) {
	p := start(t, t.TempDir())
	c := p.admin(t)
	var m mirror
	m.must(t, p)
	add := func(c *client.Client, name, content string) (bool, error) {
		return c.AddPackage(t.Context(), name, strings.NewReader(content))
	}
	large := "!<arch>\n" + strings.Repeat("0123456789", 300_000) // more than other bodies may have
	if isNew, err := add(c, "komainu-agent_1.0.0_amd64.deb", large); err != nil || !isNew {
		t.Fatal(isNew, err)
	}
	if isNew, err := add(c, "komainu-agent_1.0.0_amd64.deb", large); err != nil || isNew {
		t.Errorf("the same again: %v, %v", isNew, err)
	}
	if _, err := add(c, "komainu-agent_1.0.0_amd64.deb", large+"x"); !fault.Is(err, fault.Conflict) {
		t.Errorf("with another content: %v", err)
	}
	for _, name := range []string{"x.deb", "../komainu-agent_1.0.0_amd64.deb", "a/komainu-agent_2.0.0_amd64.deb", ""} {
		if _, err := add(c, name, large); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", name, err)
		}
	}
	m.must(t, p, "1.0.0")
	token, err := c.CreateToken(t.Context(), "operator", string(access.Operator), 3600)
	if err != nil {
		t.Fatal(err)
	}
	operator := p.client(t, token.Token)
	if _, err := add(operator, "komainu-agent_2.0.0_amd64.deb", large); !fault.Is(err, fault.Denied) {
		t.Errorf("an operator adds packages: %v", err)
	}
	if _, err := operator.RotateRepository(t.Context()); !fault.Is(err, fault.Denied) {
		t.Errorf("an operator rotates: %v", err)
	}
	r, err := c.RotateRepository(t.Context())
	if err != nil || r.Root.Version != 3 {
		t.Errorf("%+v, %v", r.Root, err)
	}
	m.must(t, p, "1.0.0")
	if n, err := c.RemovePackages(t.Context(), "1.0.0"); n != 1 || err != nil {
		t.Error(n, err)
	}
	m.must(t, p)
	left, err := os.ReadDir(filepath.Join(p.state, "repository", "incoming"))
	if err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestRestoredRepositoryIsFollowed restores a backup from before the last
// packages: clients do not take that for a replay.
func TestRestoredRepositoryIsFollowed(t *testing.T) {
	p := start(t, t.TempDir())
	content(t, p, "add", deb(t, "1.0.0", "one"))
	content(t, p, "rotate")
	var m mirror
	m.must(t, p, "1.0.0")
	file := filepath.Join(t.TempDir(), "komainu.backup")
	code, out, text := command(t, "backup", "--state", p.state, "--to", file)
	if code != 0 || !strings.Contains(out, "packages         1") {
		t.Fatalf("%d %s%s", code, out, text)
	}
	content(t, p, "add", deb(t, "2.0.0", "two"))
	m.must(t, p, "1.0.0", "2.0.0")
	p.stop()
	eventually(t, func() string { // versions are seconds
		if time.Now().Unix() <= m.seen {
			return "the clock stands still"
		}
		return ""
	})
	again := &plane{state: t.TempDir()}
	if code, out, text := command(t, "restore", "--state", again.state, "--from", file); code != 0 {
		t.Fatalf("%d %s%s", code, out, text)
	}
	again = start(t, again.state)
	m.must(t, again, "1.0.0")
	content(t, again, "rotate")
	content(t, again, "add", deb(t, "3.0.0", "three"))
	m.must(t, again, "1.0.0", "3.0.0")
	var fresh mirror
	fresh.must(t, again, "1.0.0", "3.0.0")
}
