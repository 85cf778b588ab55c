package incident

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/uptrace/bun"

	"komainu/control/access"
	"komainu/control/rest"
	"komainu/fault"
)

// Comment is what a person said.
type Comment struct {
	ID     string    `json:"id"`
	Author string    `json:"author"`
	At     time.Time `json:"at"`
	Text   string    `json:"text"`
}

// Bounds of comments.
const (
	maxComment  = 4000 // characters
	maxComments = 500  // of one alert or incident
)

type commentRow struct {
	bun.BaseModel `bun:"table:incident_comments"`

	ID         string `bun:",pk"`
	IncidentID *int64
	AlertID    *string
	At         time.Time
	Author     string
	Text       string
}

func (d *Desk) comment(ctx context.Context, tx bun.Tx, row *commentRow, text string) error {
	text = strings.TrimSpace(text)
	if n := utf8.RuneCountInString(text); n == 0 || n > maxComment {
		return fault.New(fault.Invalid, "a comment has 1 to %d characters; this one has %d", maxComment, n)
	}
	count := tx.NewSelect().Model((*commentRow)(nil))
	if row.AlertID != nil {
		count = count.Where("alert_id = ?", *row.AlertID)
	} else {
		count = count.Where("incident_id = ?", *row.IncidentID)
	}
	n, err := count.Count(ctx)
	if err != nil {
		return err
	}
	if n >= maxComments {
		return fault.New(fault.Exhausted, "there are %d comments already, which is the limit", n)
	}
	row.ID, row.At, row.Author, row.Text = rest.NewID(), d.now(), access.ActorOf(ctx).Name, text
	_, err = tx.NewInsert().Model(row).Exec(ctx)
	return err
}

func (r *commentRow) view() Comment { return Comment{r.ID, r.Author, r.At, r.Text} }

// CommentAlert adds a comment to an alert.
func (d *Desk) CommentAlert(ctx context.Context, organization, id, text string) (Comment, error) {
	row, changed := commentRow{}, Changed{}
	err := d.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		a, err := alert(ctx, tx, organization, id)
		if err != nil {
			return err
		}
		row, changed = commentRow{AlertID: &a.ID}, Changed{Alerts: []string{a.ID}}
		if err := d.comment(ctx, tx, &row, text); err != nil {
			return err
		}
		return d.cfg.Record(ctx, tx, access.Change{Action: "alert.comment", Target: a.ID, Name: a.Title, Detail: map[string]string{"comment": row.ID}})
	})
	if err != nil {
		return Comment{}, err
	}
	d.cfg.Changed(organization, changed)
	return row.view(), nil
}

// CommentIncident adds a comment to an incident.
func (d *Desk) CommentIncident(ctx context.Context, organization, id, text string) (Comment, error) {
	row, changed := commentRow{}, Changed{}
	err := d.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		in, err := incident(ctx, tx, organization, id)
		if err != nil {
			return err
		}
		row, changed = commentRow{IncidentID: &in.ID}, Changed{Incidents: []int64{in.ID}}
		if err := d.comment(ctx, tx, &row, text); err != nil {
			return err
		}
		return d.cfg.Record(ctx, tx, access.Change{Action: "incident.comment", Target: fmt.Sprint(in.ID), Name: in.Name, Detail: map[string]string{"comment": row.ID}})
	})
	if err != nil {
		return Comment{}, err
	}
	d.cfg.Changed(organization, changed)
	return row.view(), nil
}
