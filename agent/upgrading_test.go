package agent

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"komainu/agent/link"
	"komainu/control/content"
	"komainu/fault"
)

// TestClockThatIsAhead: a host by whose clock the repository has expired cannot
// upgrade itself, which is no matter of the package.
func TestClockThatIsAhead(t *testing.T) {
	base := t.TempDir()
	if err := os.Mkdir(filepath.Join(base, "keys"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		ahead time.Duration
		want  bool
	}{"right": {0, true}, "ahead": {3 * 24 * time.Hour, false}} {
		t.Run(name, func(t *testing.T) {
			repository := filepath.Join(base, name)
			r, err := content.Open(content.Config{
				Dir: repository, Keys: filepath.Join(base, "keys"), Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return time.Now().Add(-c.ahead) },
			})
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			file := filepath.Join(t.TempDir(), "komainu-agent_1.2.0_"+runtime.GOARCH+".deb")
			if err := os.WriteFile(file, []byte("!<arch>\npackage"), 0o644); err != nil {
				t.Fatal(err)
			}
			if _, err := r.Add(file); err != nil {
				t.Fatal(err)
			}
			id := link.Identity{Device: "d1", PolicyKey: newSigner(t).pub, Certificate: "c", Key: "k"}
			if id.ContentRoot, err = r.Root(); err != nil {
				t.Fatal(err)
			}
			text, err := json.Marshal(id)
			if err != nil {
				t.Fatal(err)
			}
			w := &worker{cfg: Config{State: t.TempDir()}}
			if err := os.WriteFile(filepath.Join(w.cfg.State, "identity.json"), text, 0o600); err != nil {
				t.Fatal(err)
			}
			to, err := os.OpenRoot(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			defer to.Close()
			_, err = w.stage(t.Context(), repository, "1.2.0", "deb", to, "new")
			if c.want != (err == nil) || err != nil && (!fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "by the clock of this host (20")) {
				t.Errorf("%v", err)
			}
		})
	}
}
