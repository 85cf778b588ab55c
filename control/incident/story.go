package incident

import (
	"context"
	"strconv"

	"github.com/uptrace/bun"
)

// Bounds of what a page shows.
const (
	maxTold     = 200  // alerts of an incident whose findings are read
	maxActivity = 1000 // the newest
)

// Work is what people did with an alert or an incident.
type Work struct {
	Comments []Comment  `json:"comments" doc:"oldest first"`
	Activity []Activity `json:"activity" doc:"who changed what, newest first, at most 1000"`
}

func (d *Desk) work(ctx context.Context, column string, id any) (Work, error) {
	var comments []commentRow
	w := Work{Comments: []Comment{}, Activity: []Activity{}}
	if err := d.db.NewSelect().Model(&comments).Where("? = ?", bun.Ident(column), id).Order("at", "id").Scan(ctx); err != nil {
		return w, err
	}
	for i := range comments {
		w.Comments = append(w.Comments, comments[i].view())
	}
	var rows []activityRow
	if err := d.db.NewSelect().Model(&rows).Where("? = ?", bun.Ident(column), id).Order("id DESC").Limit(maxActivity).Scan(ctx); err != nil {
		return w, err
	}
	for _, r := range rows {
		a := Activity{ID: strconv.FormatInt(r.ID, 10), At: r.At, Actor: r.Actor, Action: r.Action, From: r.Was, To: r.Became}
		if r.AlertID != nil {
			a.Alert = *r.AlertID
		}
		w.Activity = append(w.Activity, a)
	}
	return w, nil
}

// AlertWork returns comments and activity of an alert.
func (d *Desk) AlertWork(ctx context.Context, a Alert) (Work, error) {
	return d.work(ctx, "alert_id", a.ID)
}

// IncidentWork returns comments and activity of an incident.
func (d *Desk) IncidentWork(ctx context.Context, in Incident) (Work, error) {
	return d.work(ctx, "incident_id", in.ID)
}

// Told returns the alerts of an incident with what tells most of each, in the
// order of time.
func (d *Desk) Told(ctx context.Context, p IncidentPage) ([]Told, error) {
	var rows []alertRow
	err := d.db.NewSelect().Model(&rows).Where("incident_id = ?", p.ID).Order("first_activity", "id").Limit(maxTold).Scan(ctx)
	list := make([]Told, len(rows))
	for i := range rows {
		list[i] = Told{rows[i].view(), rows[i].Finding}
	}
	return list, err
}
