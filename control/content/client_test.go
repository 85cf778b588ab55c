package content

import (
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata/config"
	"github.com/theupdateframework/go-tuf/v2/metadata/updater"
)

// clock is moved by hand.
type clock struct{ time.Time }

func (c *clock) now() time.Time          { return c.Time }
func (c *clock) forward(d time.Duration) { c.Time = c.Add(d) }
func newClock() *clock                   { return &clock{time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)} }

// place is a state folder with a repository.
type place struct {
	dir   string
	clock *clock
	step  func(string) error
}

func newPlace(t *testing.T) *place { return &place{dir: tempDir(t), clock: newClock()} }

// tempDir is in memory where that is possible: these tests write thousands of
// files, and what they try is the order of writes, not the disk.
func tempDir(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "komainu-content-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (p *place) repository() string { return filepath.Join(p.dir, "repository") }

func (p *place) config() Config {
	return Config{Dir: p.repository(), Keys: filepath.Join(p.dir, "keys"), Log: slog.New(slog.DiscardHandler), Now: p.clock.now, step: p.step}
}

func (p *place) open(t testing.TB) *Repository {
	t.Helper()
	r, err := Open(p.config())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// pkg writes a file that looks like a package.
func pkg(t testing.TB, version, content string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), fmt.Sprintf("%s_%s_amd64.deb", Agent, version))
	if err := os.WriteFile(file, []byte("!<arch>\n"+content), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func add(t testing.TB, r *Repository, versions ...string) {
	t.Helper()
	var files []string
	for _, v := range versions {
		files = append(files, pkg(t, v, "package "+v))
	}
	if _, err := r.Add(files...); err != nil {
		t.Fatal(err)
	}
}

// tuf is a client of somebody else's making: go-tuf, over a folder. It keeps
// what it has seen, as an agent does.
type tuf struct {
	dir   string // of the repository
	memo  string
	root  []byte
	clock *clock
	seen  int64 // the newest timestamp
}

func newClient(t testing.TB, dir string, root []byte, c *clock) *tuf {
	return &tuf{dir: dir, memo: tempDir(t), root: root, clock: c}
}

func (c *tuf) updater() (*updater.Updater, error) {
	root := c.root
	if newer, err := os.ReadFile(filepath.Join(c.memo, "root.json")); err == nil {
		root = newer
	}
	cfg, err := config.New("https://folder/metadata", root)
	if err != nil {
		return nil, err
	}
	dir, err := os.OpenRoot(c.dir)
	if err != nil {
		return nil, err
	}
	cfg.RemoteTargetsURL = "https://folder/targets"
	cfg.LocalMetadataDir, cfg.LocalTargetsDir, cfg.Fetcher = c.memo, filepath.Join(c.memo, "targets"), &folderFetcher{dir: dir}
	u, err := updater.New(cfg)
	if err != nil {
		return nil, err
	}
	u.UnsafeSetRefTime(c.clock.now())
	return u, u.Refresh()
}

// look refreshes and returns what is offered, version → content. Everything
// that is offered has to be there, whole.
func (c *tuf) look() (map[string]string, error) {
	u, err := c.updater()
	if err != nil {
		return nil, err
	}
	now := u.GetTrustedMetadataSet().Timestamp.Signed.Version
	if now < c.seen {
		return nil, fmt.Errorf("timestamp %d after %d", now, c.seen)
	}
	c.seen = now
	all := map[string]string{}
	for name, info := range u.GetTopLevelTargets() {
		_, data, err := u.DownloadTarget(info, filepath.Join(c.memo, "targets", hex.EncodeToString(info.Hashes["sha256"])), "")
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all[strings.Split(name, "/")[1]] = string(data)
	}
	return all, nil
}

func (c *tuf) must(t testing.TB, want ...string) {
	t.Helper()
	got, err := c.look()
	if err != nil {
		t.Fatalf("the client is refused: %v", err)
	}
	if len(got) != len(want) {
		t.Fatalf("offered %v, want %v", got, want)
	}
	for _, v := range want {
		if got[v] != "!<arch>\npackage "+v {
			t.Fatalf("%s is %q", v, got[v])
		}
	}
}

func rootOf(t testing.TB, r *Repository) []byte {
	t.Helper()
	root, err := r.Root()
	if err != nil {
		t.Fatal(err)
	}
	return root
}
