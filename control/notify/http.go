package notify

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/uptrace/bun"

	"komainu/control/access"
	"komainu/control/db"
	"komainu/control/rest"
	"komainu/fault"
	"komainu/finding"
)

// gone makes nothing of a row that is not there any more.
func gone(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	return err
}

// Notification is a rule with its target as the API shows it.
type Notification struct {
	ID           string           `json:"id"`
	Name         string           `json:"name"`
	Kind         Kind             `json:"kind" enum:"webhook,smtp,syslog"`
	Enabled      bool             `json:"enabled"`
	MinSeverity  finding.Severity `json:"minSeverity" enum:"Informational,Low,Medium,High"`
	IncludeTests bool             `json:"includeTests" doc:"also of self-tests"`
	On           []Trigger        `json:"on" enum:"newAlert,newIncident,statusChange"`
	Target       Target           `json:"target"`
	SecretSet    bool             `json:"secretSet"`
	Version      int              `json:"version"`
	LastDelivery *Delivery        `json:"lastDelivery" doc:"null before the first"`
	Pending      int              `json:"pending" doc:"messages that wait"`
	Failed       int              `json:"failed" doc:"messages that were given up"`
	FailedDetail string           `json:"failedDetail" doc:"why the last of them was given up"`
	Dropped      int              `json:"dropped" doc:"messages that did not fit into the queue"`
}

// Delivery is how the last delivery went.
type Delivery struct {
	At     time.Time `json:"at"`
	Ok     bool      `json:"ok"`
	Detail string    `json:"detail"`
}

// Wanted is what a notification is to be.
type Wanted struct {
	Name         string            `json:"name" minLength:"1" maxLength:"100"`
	Kind         Kind              `json:"kind" enum:"webhook,smtp,syslog"`
	Enabled      *bool             `json:"enabled,omitempty" doc:"true when left out"`
	MinSeverity  *finding.Severity `json:"minSeverity,omitempty" enum:"Informational,Low,Medium,High" doc:"Informational when left out"`
	IncludeTests bool              `json:"includeTests,omitempty"`
	On           []Trigger         `json:"on,omitempty" enum:"newAlert,newIncident,statusChange" doc:"newAlert and newIncident when left out"`
	Target       Target            `json:"target"`
	// Secret is never returned. Nil keeps the one that there is.
	Secret  *string `json:"secret,omitempty" maxLength:"1000" doc:"key of a webhook's signature, or password of a mail server; never returned; left out: as it is; empty: none"`
	Version int     `json:"version,omitempty" doc:"that the change is based on; another one by now is refused"`
}

func (n *Notifier) view(ctx context.Context, r *row) (Notification, error) {
	v := Notification{
		ID: r.ID, Name: r.Name, Kind: r.Kind, Enabled: r.Enabled, MinSeverity: r.MinSeverity, IncludeTests: r.IncludeTests, On: r.Triggers,
		Target: r.Target, SecretSet: len(r.Secret) > 0, Version: r.Version, Dropped: r.Dropped,
	}
	if r.LastAt != nil {
		v.LastDelivery = &Delivery{*r.LastAt, r.LastOk, r.LastDetail}
	}
	var counts []struct {
		Dead   bool
		N      int
		Detail string
		Last   int64
	}
	// SQLite takes the other columns from the row with the maximum.
	err := n.db.NewRaw("SELECT dead, count(*) AS n, detail, max(seq) AS last FROM notification_outbox WHERE notification_id = ? GROUP BY dead", r.ID).Scan(ctx, &counts)
	for _, c := range counts {
		if c.Dead {
			v.Failed, v.FailedDetail = c.N, c.Detail
		} else {
			v.Pending = c.N
		}
	}
	return v, err
}

// ListInput is the input of the list.
type ListInput struct{ rest.Paging }

// List answers GET /notifications, by name.
func (n *Notifier) List(ctx context.Context, in *ListInput) (rest.List[Notification], error) {
	offset, err := in.Offset()
	if err != nil {
		return rest.List[Notification]{}, err
	}
	var rows []row
	total, err := db.Page(ctx, n.db.NewSelect().Model(&rows).Where("organization_id = ?", access.ActorOf(ctx).Organization).Order("name"), in.Limit, offset)
	if err != nil {
		return rest.List[Notification]{}, err
	}
	items := make([]Notification, len(rows))
	for i := range rows {
		if items[i], err = n.view(ctx, &rows[i]); err != nil {
			return rest.List[Notification]{}, err
		}
	}
	return rest.NewList(items, total, in.Next(offset, len(items), total)), nil
}

// apply makes of a row what is wanted of it, and returns the secret that it
// has then.
func (n *Notifier) apply(r *row, w *Wanted) (err error) {
	secret := ""
	if w.Secret != nil {
		secret = *w.Secret
	} else if secret, err = n.seal.Open(r.ID, r.Secret); err != nil {
		return err
	}
	if err := w.Target.check(w.Kind, secret); err != nil {
		return err
	}
	if r.Kind != "" && w.Secret == nil && len(r.Secret) > 0 && (r.Kind != w.Kind || r.Target.endpoint() != w.Target.endpoint()) {
		// Whoever may change a target must not get a secret out that way.
		return fault.New(fault.Invalid, "secret: the notification would go to another place; enter the secret of that place, or an empty one")
	}
	if w.Name = oneLine(strings.TrimSpace(w.Name)); w.Name == "" {
		return fault.New(fault.Invalid, "name: give one")
	}
	if len(w.On) == 0 {
		w.On = []Trigger{OnAlert, OnIncident}
	}
	for _, t := range w.On {
		if !slices.Contains(triggers, t) {
			return fault.New(fault.Invalid, "on %q: want newAlert, newIncident or statusChange", t)
		}
	}
	r.Name, r.Kind, r.Enabled, r.MinSeverity, r.IncludeTests, r.Triggers, r.Target = w.Name, w.Kind, true, finding.Informational, w.IncludeTests, w.On, w.Target
	if w.Enabled != nil {
		r.Enabled = *w.Enabled
	}
	if w.MinSeverity != nil {
		r.MinSeverity = *w.MinSeverity
	}
	if w.Secret != nil {
		r.Secret = n.seal.Seal(r.ID, secret)
	}
	return nil
}

// CreateInput is the body of a new notification.
type CreateInput struct{ Body Wanted }

// Create answers POST /notifications.
func (n *Notifier) Create(ctx context.Context, in *CreateInput) (Notification, error) {
	r := &row{ID: rest.NewID(), OrganizationID: access.ActorOf(ctx).Organization, Version: 1, CreatedAt: n.now()}
	if err := n.apply(r, &in.Body); err != nil {
		return Notification{}, err
	}
	err := n.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		count, err := tx.NewSelect().Model((*row)(nil)).Where("organization_id = ?", r.OrganizationID).Count(ctx)
		if err != nil {
			return err
		}
		if count >= maxTargets {
			return fault.New(fault.Exhausted, "there are %d notifications already; delete one first", count)
		}
		if err := n.free(ctx, tx, r); err != nil {
			return err
		}
		if _, err := tx.NewInsert().Model(r).Exec(ctx); err != nil {
			return err
		}
		return n.cfg.Record(ctx, tx, access.Change{Action: "notification.create", Target: r.ID, Name: r.Name, Detail: r.audit()})
	})
	if err != nil {
		return Notification{}, err
	}
	n.cfg.Changed(r.OrganizationID, r.ID)
	return n.view(ctx, r)
}

// free refuses a name that another notification has.
func (n *Notifier) free(ctx context.Context, tx bun.Tx, r *row) error {
	taken, err := tx.NewSelect().Model((*row)(nil)).Where("organization_id = ? AND name = ? AND id <> ?", r.OrganizationID, r.Name, r.ID).Exists(ctx)
	if err == nil && taken {
		return fault.New(fault.Conflict, "there is a notification named %q already", r.Name)
	}
	return err
}

// audit is what the audit log says of a notification: no secret, and of a URL
// the host alone.
func (r *row) audit() map[string]any {
	return map[string]any{"kind": r.Kind, "enabled": r.Enabled, "minSeverity": r.MinSeverity, "includeTests": r.IncludeTests, "on": r.Triggers, "to": r.Target.where(), "secretSet": len(r.Secret) > 0}
}

// UpdateInput is the body of a change.
type UpdateInput struct {
	ID   string `path:"id"`
	Body Wanted
}

// Update answers PUT /notifications/{id}.
func (n *Notifier) Update(ctx context.Context, in *UpdateInput) (Notification, error) {
	var r *row
	err := n.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		var err error
		if r, err = find(ctx, tx, in.ID); err != nil {
			return err
		}
		if in.Body.Version != 0 && in.Body.Version != r.Version {
			return fault.New(fault.Conflict, "the notification was changed in the meantime (version %d by now, yours is based on %d); look again and decide", r.Version, in.Body.Version)
		}
		was := r.audit()
		if err := n.apply(r, &in.Body); err != nil {
			return err
		}
		if err := n.free(ctx, tx, r); err != nil {
			return err
		}
		r.Version++
		if _, err := tx.NewUpdate().Model(r).ExcludeColumn("last_at", "last_ok", "last_detail", "dropped").WherePK().Exec(ctx); err != nil {
			return err
		}
		return n.cfg.Record(ctx, tx, access.Change{Action: "notification.change", Target: r.ID, Name: r.Name, Detail: map[string]any{"from": was, "to": r.audit(), "newSecret": in.Body.Secret != nil}})
	})
	if err != nil {
		return Notification{}, err
	}
	// Somebody has mended it, perhaps: no waiting for the next attempt.
	n.mu.Lock()
	delete(n.wait, r.ID)
	n.mu.Unlock()
	n.Wake()
	n.cfg.Changed(r.OrganizationID, r.ID)
	return n.view(ctx, r)
}

// ByID names a notification.
type ByID struct {
	ID string `path:"id"`
}

// Get answers GET /notifications/{id}.
func (n *Notifier) Get(ctx context.Context, in *ByID) (Notification, error) {
	r, err := find(ctx, n.db, in.ID)
	if err != nil {
		return Notification{}, err
	}
	return n.view(ctx, r)
}

// Delete answers DELETE /notifications/{id}. What waits for it goes too.
func (n *Notifier) Delete(ctx context.Context, in *ByID) error {
	err := n.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		r, err := find(ctx, tx, in.ID)
		if err != nil {
			return err
		}
		if _, err := tx.NewDelete().Model(r).WherePK().Exec(ctx); err != nil {
			return err
		}
		return n.cfg.Record(ctx, tx, access.Change{Action: "notification.delete", Target: r.ID, Name: r.Name})
	})
	if err == nil {
		n.mu.Lock()
		delete(n.wait, in.ID)
		n.mu.Unlock()
		n.cfg.Changed(access.ActorOf(ctx).Organization, in.ID)
	}
	return err
}

// TestResult is how a test went.
type TestResult struct {
	Ok         bool   `json:"ok"`
	Detail     string `json:"detail"`
	DurationMs int64  `json:"durationMs"`
}

// Test answers POST /notifications/{id}/test: one attempt, now, beside what
// waits.
func (n *Notifier) Test(ctx context.Context, in *ByID) (TestResult, error) {
	r, err := find(ctx, n.db, in.ID)
	if err != nil {
		return TestResult{}, err
	}
	m := Message{
		ID: rest.NewID(), Version: messageVersion, Event: EventTest, Time: n.now(), Severity: finding.Informational, Title: "Test of a notification",
		Summary: "Somebody has pressed the test button of this notification.", Test: true, Devices: []Device{},
		Subject: Subject{Kind: "test", ID: r.ID, Categories: []string{}, DetectionSource: []string{}},
	}
	body, err := json.Marshal(m)
	if err != nil {
		return TestResult{}, err
	}
	start := time.Now()
	detail, sendErr := n.send(ctx, r, body)
	result := TestResult{Ok: sendErr == nil, Detail: detail, DurationMs: time.Since(start).Milliseconds()}
	if sendErr != nil {
		result.Detail = sendErr.Error()
	}
	err = n.db.RunInTx(context.WithoutCancel(ctx), nil, func(ctx context.Context, tx bun.Tx) error {
		if err := n.last(ctx, tx, r.ID, result.Ok, result.Detail); err != nil {
			return err
		}
		return n.cfg.Record(ctx, tx, access.Change{Action: "notification.test", Target: r.ID, Name: r.Name, Detail: map[string]any{"ok": result.Ok}})
	})
	n.cfg.Changed(r.OrganizationID, r.ID)
	return result, err
}

func find(ctx context.Context, b bun.IDB, id string) (*row, error) {
	r := new(row)
	err := b.NewSelect().Model(r).Where("id = ? AND organization_id = ?", id, access.ActorOf(ctx).Organization).Scan(ctx)
	return r, db.NotFound(err, "notification", id)
}

// Outbox counts the messages of all organizations that wait, and those that
// were given up.
func (n *Notifier) Outbox(ctx context.Context) (pending, dead int, err error) {
	err = n.db.NewSelect().Model((*outboxRow)(nil)).ColumnExpr("coalesce(sum(NOT dead), 0), coalesce(sum(dead), 0)").Scan(ctx, &pending, &dead)
	return pending, dead, err
}
