package agent

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"komainu/agent/content"
	"komainu/agent/link"
	"komainu/agent/localapi"
	"komainu/agent/upgrade"
	"komainu/deploy"
	"komainu/fault"
	"komainu/health"
)

// agentPackage is the name of the agent's packages in the repository.
const agentPackage = "komainu-agent"

// openUpgrades makes the runner of upgrades. It knows how the last one went.
func (w *worker) openUpgrades() {
	w.form = sync.OnceValue(func() string {
		if w.cfg.State != DefaultState {
			return ""
		}
		return upgrade.Form(context.Background())
	})
	w.upgrades = upgrade.New(upgrade.Config{
		Dir: w.cfg.upgrades(), Version: Version, Stage: w.stage,
		Ready: func() (string, error) {
			if w.cfg.State != DefaultState {
				return "", fault.New(fault.Unsupported, "this agent keeps its state in %s: only an installed one upgrades itself", w.cfg.State)
			}
			return upgrade.Installed(context.Background())
		},
		Told: func() { w.link.Upgraded() },
		Log:  w.log.With("component", "upgrade"),
	})
}

func (c Config) upgrades() string { return c.path("upgrade") }

// repository returns the client of the signed repository for the identity that
// the device has now.
func (c Config) repository() (*content.Client, error) {
	id, err := link.Load(c.State)
	if err != nil {
		return nil, err
	}
	return content.New(content.Config{Dir: c.path("content"), Root: id.ContentRoot}), nil
}

// source is where the files of the repository come from: the control plane, a
// mirror, or a folder.
func (w *worker) source(from string) (content.Source, error) {
	switch {
	case from == "":
		return content.SourceFunc(w.link.Open), nil
	case strings.Contains(from, "://"):
		return content.Mirror(from, nil)
	case filepath.IsAbs(from):
		return content.Folder(from), nil
	}
	return nil, fault.New(fault.Invalid, "%q is neither an absolute path nor the address of a mirror", from)
}

// packages asks a source what there is.
func (w *worker) packages(ctx context.Context, from content.Source) ([]content.Package, error) {
	w.refreshing.Lock()
	defer w.refreshing.Unlock()
	c, err := w.cfg.repository()
	if err != nil {
		return nil, err
	}
	if err := c.Refresh(ctx, from); err != nil {
		return nil, err
	}
	return c.Packages(time.Now())
}

// stage brings the package of a version into a folder.
func (w *worker) stage(ctx context.Context, from, version, format string, dir *os.Root, name string) (upgrade.Package, error) {
	source, err := w.source(from)
	if err != nil {
		return upgrade.Package{}, err
	}
	list, err := w.packages(ctx, source)
	if content.Expired(err) {
		// It may be the clock of this host: the upgrades of others must not halt
		// as for a package that is not what was signed.
		return upgrade.Package{}, fault.Wrap(fault.Conflict, err, "by the clock of this host (%s)", time.Now().UTC().Format(time.RFC3339))
	}
	if err != nil {
		return upgrade.Package{}, err
	}
	p, ok := content.Find(list, agentPackage, version, runtime.GOARCH, format)
	if !ok {
		return upgrade.Package{}, fault.New(fault.NotFound, "the repository has no %s of %s %s for %s", format, agentPackage, version, runtime.GOARCH)
	}
	err = content.Fetch(ctx, source, p, dir, name)
	return upgrade.Package{Version: p.Version, Arch: p.Arch, Format: p.Format, SHA256: p.SHA256, Target: p.Target, Size: p.Size}, err
}

// beginUpgrade is what the control plane can ask for.
func (w *worker) beginUpgrade(u deploy.Upgrade) error {
	w.log.Info("the control plane asks for an upgrade", "id", u.ID, "version", u.Version, "downgrade", u.Downgrade)
	return w.upgrades.Begin(upgrade.Request{Upgrade: u})
}

// Upgrade implements localapi.Upgrades.
func (l *local) Upgrade(context.Context) (localapi.Upgrade, error) {
	u := localapi.Upgrade{Running: Version}
	if s, ok := l.w.upgrades.Status(); ok {
		u.Last = &s
	}
	return u, nil
}

// CheckUpgrade implements localapi.Upgrades.
func (l *local) CheckUpgrade(ctx context.Context, from string) (localapi.Offer, error) {
	o := localapi.Offer{Running: Version, Versions: []string{}}
	source, err := l.w.source(from)
	if err != nil {
		return o, err
	}
	list, err := l.w.packages(ctx, source)
	if err != nil {
		return o, err
	}
	o.Form, err = upgrade.Installed(ctx)
	if err != nil {
		o.Note = err.Error()
	}
	for _, p := range list {
		if p.Name == agentPackage && p.Arch == runtime.GOARCH && (o.Form == "" || p.Format == o.Form) {
			o.Versions = append(o.Versions, p.Version)
		}
	}
	return o, nil
}

// ApplyUpgrade implements localapi.Upgrades.
func (l *local) ApplyUpgrade(ctx context.Context, req localapi.UpgradeRequest) (deploy.UpgradeStatus, error) {
	q := upgrade.Request{Upgrade: deploy.Upgrade{ID: "local-" + string(newFindingID()), Version: req.Version, Downgrade: req.Downgrade}, From: req.From}
	if q.Version == "" {
		o, err := l.CheckUpgrade(ctx, req.From)
		if err != nil {
			return deploy.UpgradeStatus{}, err
		}
		if len(o.Versions) == 0 {
			return deploy.UpgradeStatus{}, fault.New(fault.NotFound, "the repository has no package of the agent for this host")
		}
		q.Version = o.Versions[0]
	}
	if err := l.w.upgrades.Begin(q); err != nil {
		return deploy.UpgradeStatus{}, err
	}
	s, _ := l.w.upgrades.Status()
	return s, nil
}

// protected notes for an upgrade when protection begins and ends.
func (w *worker) protected(up bool) { upgrade.Protected(w.cfg.upgrades(), up) }

// beginsToProtect waits until there is somebody to judge, and notes it.
func (w *worker) beginsToProtect(ctx context.Context) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !w.scanner.Status().Up {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
	w.protected(true)
}

// runUpgrade is the unit that upgrades the agent. It runs beside the agent,
// from a copy of the program.
func runUpgrade(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("komainud upgrade", flag.ContinueOnError)
	state := flags.String("state", DefaultState, "folder of the agent's state")
	if err := flags.Parse(args); err != nil || flags.NArg() != 0 {
		return fault.New(fault.Invalid, "upgrade takes the flag --state only: %q, %w", flags.Args(), err)
	}
	log, _ := newLog("upgrade")
	cfg := Config{State: *state, Socket: socketFor(*state)}
	in := upgrade.NewInstaller(upgrade.InstallerConfig{
		Dir: cfg.upgrades(), Verify: cfg.verifyStaged, Manager: upgrade.ManagerOf, Service: upgrade.ServiceNow, Start: upgrade.StartService, Reach: cfg.reach, Drop: dropCopy, Log: log,
		Probe: func(ctx context.Context) (health.Report, error) {
			c, err := localapi.Dial(ctx, cfg.Socket)
			if err != nil {
				return health.Report{}, err
			}
			defer c.Close()
			return c.Health(ctx)
		},
	})
	return in.Run(ctx)
}

// reach tries whether the control plane answers this program. An identity that
// cannot be used is nothing that would pass by itself: it is no error here.
func (c Config) reach(ctx context.Context, proxy string) error {
	way, err := link.ParseProxy(proxy)
	if err != nil {
		return nil
	}
	var unanswered error
	enough := errors.New("what comes after that does not matter")
	_ = link.Test(ctx, c.State, way, time.Now, func(s link.Step) error {
		if !s.OK {
			unanswered = fault.New(fault.Unavailable, "%s %s: %s", s.Name, s.Target, s.Detail)
		}
		if !s.OK || s.Name == "protocol" {
			return enough
		}
		return nil
	})
	return unanswered
}

// verifyStaged checks a package once more, against what was signed: the agent
// that has fetched it is not taken at its word.
func (c Config) verifyStaged(p upgrade.Package, staged time.Time, dir *os.Root, name string) error {
	repository, err := c.repository()
	if err != nil {
		return err
	}
	list, err := repository.Packages(staged)
	if err != nil {
		return err
	}
	signed, ok := content.Find(list, agentPackage, p.Version, runtime.GOARCH, p.Format)
	if !ok || signed.SHA256 != p.SHA256 {
		return fault.New(fault.Unauthentic, "the package %s is not what the repository has under that name", p.Target)
	}
	return content.Verify(signed, dir, name)
}

// upgradeCopy is the program that makes upgrades: the unit copies it there
// before it begins, so that it is what it was until the end.
const upgradeCopy = "/usr/libexec/komainu-upgrade"

func dropCopy() error {
	self, err := os.Executable()
	if err != nil || self != upgradeCopy {
		return nil
	}
	if err := os.Remove(upgradeCopy); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the copy that has made the upgrade: %w", err)
	}
	return nil
}
