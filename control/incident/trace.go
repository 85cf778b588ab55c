package incident

import (
	"context"
	"database/sql"
	"errors"

	"komainu/event"
	"komainu/finding"
)

// OfFinding returns the alert that a finding of a device went into, and
// whether there is one yet.
func (d *Desk) OfFinding(ctx context.Context, organization string, device event.DeviceID, id finding.ID) (Alert, bool, error) {
	a := new(alertRow)
	err := d.db.NewSelect().Model(a).ExcludeColumn("finding").
		Where("id IN (SELECT alert_id FROM findings WHERE id = ?) AND organization_id = ? AND device_id = ?", id, organization, device).Limit(1).Scan(ctx)
	if errors.Is(err, sql.ErrNoRows) {
		return Alert{}, false, nil
	}
	return a.view(), err == nil, err
}
