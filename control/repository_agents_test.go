package control_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	repository "komainu/agent/content"
	"komainu/agent/link"
	"komainu/control/client"
	"komainu/wire"
)

// TestAgentsReadTheRepository goes the way of an agent: the root comes with
// the enrolment, the files over the connection that only agents can make.
func TestAgentsReadTheRepository(t *testing.T) {
	packages := t.TempDir()
	if err := os.WriteFile(filepath.Join(packages, "komainu-agent_1.2.3_amd64.deb"), []byte("!<arch>\npackage"), 0o644); err != nil {
		t.Fatal(err)
	}
	p := start(t, filepath.Join(t.TempDir(), "state"), "--packages", packages)
	c := p.admin(t)
	environments, err := c.Environments(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	token, err := c.CreateJoinToken(t.Context(), environments.Items[0].ID, client.JoinTokenRequest{Label: "servers"})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	id, err := link.Enrol(t.Context(), link.EnrolOptions{Dir: dir, Token: token.Token, Facts: wire.Facts{Hostname: "web-1", OS: "linux", AgentVersion: "test"}})
	if err != nil {
		t.Fatal(err)
	}
	l := link.New(link.Config{Dir: dir})
	reader := repository.New(repository.Config{Dir: filepath.Join(dir, "content"), Root: id.ContentRoot})
	if err := reader.Refresh(t.Context(), repository.SourceFunc(l.Open)); err != nil {
		t.Fatal(err)
	}
	list, err := reader.Packages(time.Now())
	if err != nil || len(list) != 1 || list[0].Version != "1.2.3" {
		t.Fatalf("packages %+v, %v", list, err)
	}
	to, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	if err := repository.Fetch(t.Context(), repository.SourceFunc(l.Open), list[0], to, "agent.deb"); err != nil {
		t.Error(err)
	}
}
