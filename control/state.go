package control

import (
	"context"
	"errors"
	"io/fs"

	"github.com/uptrace/bun"

	"komainu/control/access"
	"komainu/control/audit"
	"komainu/control/db"
	"komainu/control/device"
	"komainu/control/enrol"
	"komainu/control/incident"
	"komainu/control/notify"
	"komainu/control/plan"
	"komainu/control/policies"
	"komainu/control/selftest"
)

// migrations are the tables of all slices.
func migrations() []fs.FS {
	return []fs.FS{access.Migrations, audit.Migrations, enrol.Migrations, device.Migrations, plan.Migrations, policies.Migrations, incident.Migrations, notify.Migrations, selftest.Migrations}
}

// openState opens the database of a state folder and brings it up to date.
func openState(ctx context.Context, dir string) (*bun.DB, error) {
	state, err := db.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := db.Migrate(ctx, state, migrations()...); err != nil {
		return nil, errors.Join(err, state.Close())
	}
	return state, nil
}
