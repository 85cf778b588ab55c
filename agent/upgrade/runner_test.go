package upgrade_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"komainu/agent/content"
	"komainu/agent/upgrade"
	server "komainu/control/content"
	"komainu/deploy"
	"komainu/fault"
)

// house is an agent of version 1.1.0 and the real repository of its control
// plane.
type house struct {
	t      *testing.T
	dir    string
	repo   *server.Repository
	client *content.Client
	from   content.Source
	hold   chan struct{} // fetching waits for it, when set
	fails  error         // of fetching

	mu     sync.Mutex
	states []deploy.UpgradeState
	runner *upgrade.Runner
}

func newHouse(t *testing.T, versions ...string) *house {
	t.Helper()
	h := &house{t: t, dir: filepath.Join(t.TempDir(), "upgrade")}
	base := t.TempDir()
	if err := os.Mkdir(filepath.Join(base, "keys"), 0o700); err != nil {
		t.Fatal(err)
	}
	repo, err := server.Open(server.Config{Dir: filepath.Join(base, "repository"), Keys: filepath.Join(base, "keys"), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { repo.Close() })
	h.repo, h.from = repo, content.Folder(filepath.Join(base, "repository"))
	for _, v := range versions {
		file := filepath.Join(base, "komainu-agent_"+v+"_amd64.deb")
		if err := os.WriteFile(file, []byte("!<arch>\npackage "+v), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := repo.Add(file); err != nil {
			t.Fatal(err)
		}
	}
	root, err := repo.Root()
	if err != nil {
		t.Fatal(err)
	}
	h.client = content.New(content.Config{Dir: filepath.Join(base, "content"), Root: root})
	h.start()
	return h
}

// start starts the agent's part, as after a restart of the agent.
func (h *house) start() (stop func()) {
	h.runner = upgrade.New(upgrade.Config{
		Dir: h.dir, Version: "1.1.0", Stage: h.stage, Told: h.told, Log: slog.New(slog.NewTextHandler(h.t.Output(), nil)),
		Ready: func() (string, error) { return "deb", nil },
	})
	ctx, cancel := context.WithCancel(h.t.Context())
	var running sync.WaitGroup
	r := h.runner
	running.Go(func() { _ = r.Run(ctx) })
	stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	h.t.Cleanup(stop)
	return stop
}

func (h *house) told() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s, ok := h.runner.Status(); ok {
		h.states = append(h.states, s.State)
	}
}

func (h *house) stage(ctx context.Context, _, version, format string, dir *os.Root, name string) (upgrade.Package, error) {
	if h.hold != nil {
		select {
		case <-h.hold:
		case <-ctx.Done():
			return upgrade.Package{}, ctx.Err()
		}
	}
	if h.fails != nil {
		return upgrade.Package{}, h.fails
	}
	if err := h.client.Refresh(ctx, h.from); err != nil {
		return upgrade.Package{}, err
	}
	list, err := h.client.Packages(time.Now())
	if err != nil {
		return upgrade.Package{}, err
	}
	p, ok := content.Find(list, "komainu-agent", version, "amd64", format)
	if !ok {
		return upgrade.Package{}, fault.New(fault.NotFound, "no package of %s", version)
	}
	return upgrade.Package{Version: p.Version, Arch: p.Arch, Format: p.Format, SHA256: p.SHA256, Target: p.Target, Size: p.Size}, content.Fetch(ctx, h.from, p, dir, name)
}

func request(id, version string) upgrade.Request {
	return upgrade.Request{Upgrade: deploy.Upgrade{ID: id, Version: version}}
}

// becomes waits for a state.
func (h *house) becomes(want deploy.UpgradeState) deploy.UpgradeStatus {
	h.t.Helper()
	limit := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		s, _ := h.runner.Status()
		if s.State == want {
			return s
		}
		select {
		case <-limit:
			h.t.Fatalf("the upgrade is %+v, want %s", s, want)
		case <-tick.C:
		}
	}
}

func (h *house) files() string {
	h.t.Helper()
	entries, err := os.ReadDir(h.dir)
	if err != nil {
		h.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

func TestHandsOverWithAWayBack(t *testing.T) {
	h := newHouse(t, "1.1.0", "1.2.0")
	if err := h.runner.Begin(request("u", "1.2.0")); err != nil {
		t.Fatal(err)
	}
	s := h.becomes(deploy.UpgradeStateReady)
	if s.From != "1.1.0" || s.To != "1.2.0" || s.ID != "u" {
		t.Errorf("%+v", s)
	}
	limit := time.After(10 * time.Second)
	for h.files() != "go journal.json new old" {
		select {
		case <-limit:
			t.Fatalf("handed over are %s", h.files())
		default:
		}
	}
	for name, want := range map[string]string{"new": "!<arch>\npackage 1.2.0", "old": "!<arch>\npackage 1.1.0"} {
		if text, err := os.ReadFile(filepath.Join(h.dir, name)); err != nil || string(text) != want {
			t.Errorf("%s holds %q, %v", name, text, err)
		}
	}
	// The same again is the same; another one has to wait.
	if err := h.runner.Begin(request("u", "1.2.0")); err != nil {
		t.Errorf("the same upgrade again: %v", err)
	}
	if err := h.runner.Begin(request("v", "1.2.0")); !fault.Is(err, fault.Conflict) {
		t.Errorf("another upgrade meanwhile: %v", err)
	}
}

func TestWhatIsNotBegun(t *testing.T) {
	h := newHouse(t, "1.0.0", "1.1.0")
	for _, c := range []struct {
		id, version string
		want        fault.Kind
	}{
		{"", "1.2.0", fault.Invalid}, {"u", "", fault.Invalid}, {"u", "newest", fault.Invalid}, {"u", "1.2.0; reboot", fault.Invalid},
		{"../u", "1.2.0", fault.Invalid}, {"-_lMLrRAVqYgEQP1", "1.1.0", fault.Conflict}, {"u", "1.1.0", fault.Conflict}, {"u", "1.0.0", fault.Conflict},
	} {
		if err := h.runner.Begin(request(c.id, c.version)); !fault.Is(err, c.want) {
			t.Errorf("upgrade %q to %q: %v, want %v", c.id, c.version, err, c.want)
		}
	}
	if s, ok := h.runner.Status(); ok {
		t.Errorf("a status of nothing: %+v", s)
	}
	down := request("down", "1.0.0")
	down.Downgrade = true
	if err := h.runner.Begin(down); err != nil {
		t.Fatal(err)
	}
	h.becomes(deploy.UpgradeStateReady)
}

func TestWhatCannotBeHad(t *testing.T) {
	for name, c := range map[string]struct {
		versions []string
		source   content.Source
		want     deploy.ReasonID
	}{
		"no_such_version": {[]string{"1.1.0"}, nil, deploy.NoPackage},
		"no_way_back":     {[]string{"1.2.0"}, nil, deploy.UpgradeNoWayBack},
		"not_signed":      {[]string{"1.1.0", "1.2.0"}, newHouse(t, "1.1.0", "1.2.0").from, deploy.UpgradeUntrusted},
		"out_of_reach":    {[]string{"1.1.0", "1.2.0"}, content.Folder("/nowhere"), deploy.NoPackage},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, c.versions...)
			if c.source != nil {
				h.from = c.source
			}
			if err := h.runner.Begin(request("u", "1.2.0")); err != nil {
				t.Fatal(err)
			}
			s := h.becomes(deploy.UpgradeStateFailed)
			if s.Reason == nil || s.Reason.ID != c.want || s.Ended.IsZero() {
				t.Errorf("%+v, %+v; want %s", s, s.Reason, c.want)
			}
			if got := h.files(); got != "journal.json" {
				t.Errorf("left behind: %s", got)
			}
			// It is known after a restart too, and does not stand in the way.
			h.start()
			if again, ok := h.runner.Status(); !ok || again.ID != s.ID || again.State != s.State {
				t.Errorf("after a restart: %+v", again)
			}
			if err := h.runner.Begin(request("v", "1.3.0")); err != nil {
				t.Errorf("the next one: %v", err)
			}
		})
	}
}

// TestHostDoesNotBegin: what keeps a host from beginning is no failure of the
// version.
func TestHostDoesNotBegin(t *testing.T) {
	rootless := content.New(content.Config{Dir: t.TempDir()}).Refresh(t.Context(), content.Folder("/nowhere"))
	for name, c := range map[string]struct {
		err  error
		want deploy.ReasonID
	}{
		"full":     {fmt.Errorf("keep what is trusted: %w", syscall.ENOSPC), deploy.DiskFull},
		"quota":    {fmt.Errorf("keep what is trusted: %w", syscall.EDQUOT), deploy.DiskFull},
		"rootless": {rootless, deploy.UpgradeRefused},
		"read":     {fmt.Errorf("read what is trusted: %w", syscall.EIO), deploy.UpgradeRefused},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, "1.1.0", "1.2.0")
			h.fails = c.err
			if err := h.runner.Begin(request("u", "1.2.0")); err != nil {
				t.Fatal(err)
			}
			if s := h.becomes(deploy.UpgradeStateFailed); s.Reason == nil || s.Reason.ID != c.want {
				t.Errorf("%v is told as %+v, want %s", c.err, s.Reason, c.want)
			}
		})
	}
}

// TestStoppedWhileFetching: nothing was changed, and that is told.
func TestStoppedWhileFetching(t *testing.T) {
	h := newHouse(t, "1.1.0", "1.2.0")
	h.hold = make(chan struct{})
	if err := h.runner.Begin(request("u", "1.2.0")); err != nil {
		t.Fatal(err)
	}
	h.becomes(deploy.UpgradeStateFetching)
	// The journal is there from the first moment; a killed agent leaves it.
	limit := time.After(10 * time.Second)
	for {
		if _, err := os.Stat(filepath.Join(h.dir, "journal.json")); err == nil {
			break
		} else if !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		select {
		case <-limit:
			t.Fatal("no journal")
		default:
		}
	}
	h.start()
	s, _ := h.runner.Status()
	if s.State != deploy.UpgradeStateFailed || s.Reason == nil || s.Reason.ID != deploy.UpgradeInterrupted {
		t.Errorf("after the restart: %+v, %+v", s, s.Reason)
	}
}

// TestFollows: what the installer notes is told, also by an agent that was
// started meanwhile.
func TestFollows(t *testing.T) {
	h := newHouse(t, "1.1.0", "1.2.0")
	if err := os.MkdirAll(h.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	write := func(state deploy.UpgradeState) {
		text := fmt.Sprintf(`{"status":{"id":"u","from":"1.1.0","to":"1.2.0","state":%q,"started":"2026-11-29T00:00:00Z","gap":7},"step":"probe"}`, state)
		if err := os.WriteFile(filepath.Join(h.dir, "journal.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(deploy.UpgradeStateProbation)
	if err := os.WriteFile(filepath.Join(h.dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	h.start()
	if s, ok := h.runner.Status(); !ok || s.State != deploy.UpgradeStateProbation {
		t.Errorf("after the restart: %+v", s)
	}
	write(deploy.UpgradeStateRolledBack)
	h.start()
	if s, _ := h.runner.Status(); s.State != deploy.UpgradeStateProbation {
		t.Errorf("before the installer has let go: %+v", s)
	}
	if err := os.Remove(filepath.Join(h.dir, "go")); err != nil {
		t.Fatal(err)
	}
	if s := h.becomes(deploy.UpgradeStateRolledBack); s.Gap != 7 {
		t.Errorf("%+v", s)
	}
	if err := h.runner.Begin(request("v", "1.2.0")); err != nil {
		t.Errorf("the next one: %v", err)
	}
}
