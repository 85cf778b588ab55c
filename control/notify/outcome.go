package notify

import (
	"context"
	"time"
)

// Outcome is what became of telling people of one thing.
type Outcome struct {
	Wanted  int       // notifications that are set up for such news
	Waiting int       // of these have not been delivered yet
	Failed  int       // of these were given up
	At      time.Time // of the last delivery
	Detail  string    // why one has failed, or what was answered
}

// Of says what became of telling people of m, which was made at a time. Only
// its event, severity and subject matter.
func (n *Notifier) Of(ctx context.Context, organization string, m Message, made time.Time) (Outcome, error) {
	var rows []row
	if err := n.db.NewSelect().Model(&rows).Where("organization_id = ? AND enabled", organization).Order("name").Scan(ctx); err != nil {
		return Outcome{}, err
	}
	var o Outcome
	for i := range rows {
		// One that was set up later has nothing to do with it.
		if r := &rows[i]; !r.wants(&m) || r.CreatedAt.After(made) {
			continue
		}
		o.Wanted++
		var queued []outboxRow
		err := n.db.NewSelect().Model(&queued).Where("notification_id = ? AND json_extract(message, '$.subject.id') = ? AND json_extract(message, '$.event') = ?", rows[i].ID, m.Subject.ID, m.Event).Scan(ctx)
		if err != nil {
			return Outcome{}, err
		}
		for _, q := range queued {
			if q.Dead {
				o.Failed++
			} else {
				o.Waiting++
			}
			if q.Detail != "" {
				o.Detail = rows[i].Name + ": " + q.Detail
			}
		}
		if at := rows[i].LastAt; len(queued) == 0 && at != nil && at.After(o.At) {
			o.At = *at
		}
	}
	return o, nil
}
