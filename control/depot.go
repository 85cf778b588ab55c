package control

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/uptrace/bun"

	"komainu/control/access"
	"komainu/control/content"
)

// depot changes the signed repository, for the API and for commands on this
// host, and records who did.
type depot struct {
	content *content.Repository
	record  access.Recorder
	state   *bun.DB
	changed func() // nil when nobody is to hear of it
}

// openRepository opens the repository of a state folder.
func openRepository(cfg Config, log *slog.Logger) (*content.Repository, error) {
	return content.Open(content.Config{
		Dir: filepath.Join(cfg.State, repositoryFolder), Keys: filepath.Join(cfg.State, keysFolder, contentKeys), Log: part(log, "content"),
	})
}

// openDepot opens the repository, fills it and publishes it anew. Neither a
// damaged folder of packages nor a full disk keeps the control plane down.
func (o *onboarding) openDepot(cfg Config, n neighbours) (err error) {
	if o.repository, err = openRepository(cfg, n.log); err != nil {
		return err
	}
	o.depot = &depot{o.repository, n.trail.Record, n.state, func() { n.changes.publish(n.organization, topicUpgrade, "") }}
	if added, err := o.repository.Fill(cfg.Content.Packages); err != nil {
		n.log.Error("the repository could not be filled", "folder", cfg.Content.Packages, "error", err)
	} else if len(added) > 0 {
		n.log.Info("packages were added to the repository", "packages", len(added), "version", added[0].Version)
	}
	if err := o.repository.Renew(); err != nil {
		n.log.Error("the repository could not be signed again; agents refuse it when it expires", "error", err)
	}
	return nil
}

// noted records what was done to the repository. What was done stays done
// when that fails, and the caller hears of it.
func (d *depot) noted(ctx context.Context, action, target string, detail any) error {
	if d.changed != nil {
		d.changed()
	}
	return d.record(ctx, d.state, access.Change{Action: action, Target: target, Detail: detail})
}

// add takes one package in: the file of this name with this SHA-256, "" for
// any. It returns what is new.
func (d *depot) add(ctx context.Context, name string, in io.Reader, sum string) ([]content.Package, error) {
	staged, err := d.content.Stage(name, in, sum)
	if err != nil {
		return nil, err
	}
	added, err := d.content.Take(staged)
	if err != nil {
		return nil, err
	}
	for _, p := range added {
		err = errors.Join(err, d.noted(ctx, "content.add", p.Version, map[string]string{"target": p.Target, "sha256": p.SHA256}))
	}
	return added, err
}

func (d *depot) remove(ctx context.Context, version string) (int, error) {
	n, err := d.content.Remove(version)
	if err != nil {
		return 0, err
	}
	return n, d.noted(ctx, "content.remove", version, map[string]int{"packages": n})
}

func (d *depot) rotate(ctx context.Context, keys content.RootKeys) error {
	if err := d.content.Rotate(keys); err != nil {
		return err
	}
	return d.noted(ctx, "content.rotate", "", map[string]bool{"rootKeyOffline": keys.Next != nil})
}

// signCopy signs the repository anew for a copy of it, and returns the
// timestamp of that copy. One that is good for longer than usual is recorded:
// whoever gets hold of it can hide what is new from agents for as long.
func (d *depot) signCopy(ctx context.Context, days int) ([]byte, error) {
	timestamp, err := d.content.SignCopy(time.Duration(days) * 24 * time.Hour)
	if err != nil || days <= usualCopy {
		return timestamp, err
	}
	return timestamp, d.record(ctx, d.state, access.Change{Action: "content.export", Detail: map[string]int{"days": days}})
}
