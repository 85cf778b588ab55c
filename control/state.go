package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/uptrace/bun"

	"komainu/control/access"
	"komainu/control/audit"
	"komainu/control/connector"
	"komainu/control/db"
	"komainu/control/device"
	"komainu/control/enrol"
	"komainu/control/incident"
	"komainu/control/machine"
	"komainu/control/notify"
	"komainu/control/onboard"
	"komainu/control/plan"
	"komainu/control/policies"
	"komainu/control/selftest"
	"komainu/control/upgrade"
	"komainu/fault"
)

// migrations are the tables of all slices.
func migrations() []fs.FS {
	return []fs.FS{access.Migrations, audit.Migrations, enrol.Migrations, device.Migrations, plan.Migrations, policies.Migrations, incident.Migrations, notify.Migrations, selftest.Migrations,
		machine.Migrations, connector.Migrations, onboard.Migrations, upgrade.Migrations}
}

// openState opens the database of a state folder and brings it up to date; a
// copy of it as it was before is kept. The caller holds the lock of the folder.
func openState(ctx context.Context, dir string, log *slog.Logger) (*bun.DB, error) {
	return openWith(dir, func(state *bun.DB) error { return upgradeState(ctx, state, dir, log) })
}

func upgradeState(ctx context.Context, state *bun.DB, dir string, log *slog.Logger) error {
	done, err := db.Upgrade(ctx, state, dir, migrations()...)
	if len(done) > 0 {
		log.Info("the state was brought up to this version", "migrations", len(done), "last", done[len(done)-1])
	}
	return err
}

// openRestored is openState for what was unpacked from a backup, which is the
// copy itself.
func openRestored(ctx context.Context, dir string) (*bun.DB, error) {
	return openWith(dir, func(state *bun.DB) error { return db.Migrate(ctx, state, migrations()...) })
}

// openBeside opens the database of a state folder that a control plane may be
// using. If that is of an older version, its tables are left alone.
func openBeside(ctx context.Context, dir string, log *slog.Logger) (*bun.DB, error) {
	return openWith(dir, func(state *bun.DB) error {
		status, err := db.Look(ctx, dir, migrations()...)
		if err != nil || len(status.Pending) == 0 {
			return err
		}
		lock, err := lockState(dir)
		if err != nil {
			return fault.Wrap(fault.KindOf(err), err, "the state is still that of an older version; restart the control plane first")
		}
		defer lock.Close()
		return upgradeState(ctx, state, dir, log)
	})
}

func openWith(dir string, ready func(*bun.DB) error) (*bun.DB, error) {
	state, err := db.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := ready(state); err != nil {
		return nil, errors.Join(err, state.Close())
	}
	return state, nil
}

// migrateState is the command migrate: it brings the state of a control plane
// that does not run up to date, says what would be done, or goes back to the
// copy from before the last upgrade.
func migrateState(ctx context.Context, cfg Config, env Env, check, rollback bool) error {
	if check && rollback {
		return fault.New(fault.Invalid, "--check and --rollback exclude each other")
	}
	if _, err := os.Stat(cfg.State); err != nil {
		return fault.Wrap(fault.NotFound, err, "there is no state in %s; name the folder with --state", cfg.State)
	}
	if check {
		return checkState(ctx, cfg, env)
	}
	lock, err := lockState(cfg.State)
	if err != nil {
		return err
	}
	defer lock.Close()
	if rollback {
		c, err := db.Rollback(ctx, cfg.State, migrations()...)
		if err != nil {
			return err
		}
		fmt.Fprintf(env.Stdout, "the state is again that of the copy %s; what it was until now is beside the copies, as undone.db\nInstall and start the version that made the copy. Devices that enrolled since then have to enrol again.\n", filepath.Base(c.Path))
		return nil
	}
	if _, err := os.Stat(filepath.Join(cfg.State, db.File)); err != nil {
		return fault.Wrap(fault.NotFound, err, "there is no state in %s; name the folder with --state", cfg.State)
	}
	state, err := openState(ctx, cfg.State, cfg.Log.logger(env.Stderr))
	if err != nil {
		return err
	}
	fmt.Fprintln(env.Stdout, "the state is up to date")
	return state.Close()
}

func checkState(ctx context.Context, cfg Config, env Env) error {
	s, err := db.Look(ctx, cfg.State, migrations()...)
	if err == nil {
		fmt.Fprintf(env.Stdout, "migrations applied  %d\nmigrations to come  %d\n", s.Applied, len(s.Pending))
		for _, name := range s.Pending {
			fmt.Fprintln(env.Stdout, "  "+name)
		}
	}
	fmt.Fprintf(env.Stdout, "copies              %d\n", len(s.Copies))
	for _, c := range s.Copies {
		fmt.Fprintf(env.Stdout, "  %s  made %s, %d migrations, %d bytes\n", c.Path, c.Made.UTC().Format(time.RFC3339), c.Migrations, c.Size)
	}
	return err
}
