// Package audit keeps who changed what. Entries are written in the
// transaction that makes the change, so there is no change without its entry
// and no entry without its change; they are never altered.
package audit

import (
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"komainu/control/access"
	"komainu/control/db"
	"komainu/control/rest"
)

// Migrations are the tables of this slice.
//
//go:embed migrations/*.sql
var Migrations embed.FS

// Log is the audit log.
type Log struct {
	db  *bun.DB
	now func() time.Time
}

// New returns the log over a migrated database.
func New(b *bun.DB, now func() time.Time) *Log { return &Log{b, now} }

type entry struct {
	bun.BaseModel `bun:"table:audit_log"`
	ID            int64 `bun:",pk,autoincrement"`
	Time          time.Time
	ActorKind     access.Kind
	ActorID       string
	ActorName     string
	Address       string
	Action        string
	Target        string
	TargetName    string
	Detail        string

	OrganizationID string
}

// Record writes a change; it is an access.Recorder.
func (l *Log) Record(ctx context.Context, tx bun.IDB, c access.Change) error {
	detail := []byte("{}")
	if c.Detail != nil {
		var err error
		if detail, err = json.Marshal(c.Detail); err != nil {
			return fmt.Errorf("record %s: %w", c.Action, err)
		}
	}
	who := access.ActorOf(ctx)
	e := &entry{
		Time: l.now().UTC().Truncate(time.Millisecond), ActorKind: who.Kind, ActorID: who.ID, ActorName: who.Name, Address: who.Address,
		Action: c.Action, Target: c.Target, TargetName: c.Name, Detail: string(detail), OrganizationID: who.Organization,
	}
	if _, err := tx.NewInsert().Model(e).Exec(ctx); err != nil {
		return fmt.Errorf("record %s: %w", c.Action, err)
	}
	return nil
}

// Entry is an entry of the log as the API shows it.
type Entry struct {
	ID     string          `json:"id"`
	Time   time.Time       `json:"time"`
	Actor  Actor           `json:"actor"`
	Action string          `json:"action" doc:"what was done, like plan.change"`
	Target Target          `json:"target"`
	Detail json.RawMessage `json:"detail"`
}

// Actor is who did it.
type Actor struct {
	Kind    access.Kind `json:"kind" enum:"user,token,system,device"`
	ID      string      `json:"id"`
	Name    string      `json:"name"`
	Address string      `json:"address"`
}

// Target is what it was done to.
type Target struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// ListInput filters the log.
type ListInput struct {
	rest.Paging
	Action string `query:"action" doc:"only this action"`
	Actor  string `query:"actor" doc:"only users and tokens whose name holds this"`
	Target string `query:"target" doc:"only this target, by id"`
}

// List answers GET /audit, newest first.
func (l *Log) List(ctx context.Context, in *ListInput) (rest.List[Entry], error) {
	offset, err := in.Offset()
	if err != nil {
		return rest.List[Entry]{}, err
	}
	var rows []entry
	// What the host itself did belongs to the organization that was there first.
	who := access.ActorOf(ctx).Organization
	q := l.db.NewSelect().Model(&rows).
		Where("(organization_id = ? OR organization_id = '' AND ? = (SELECT id FROM organizations ORDER BY created_at, id LIMIT 1))", who, who)
	for column, value := range map[string]string{"action": in.Action, "target": in.Target} {
		if value != "" {
			q.Where("? = ?", bun.Ident(column), value)
		}
	}
	if in.Actor != "" {
		q.Where("instr(lower(actor_name), lower(?)) > 0", in.Actor)
	}
	total, err := db.Page(ctx, q.Order("id DESC"), in.Limit, offset)
	if err != nil {
		return rest.List[Entry]{}, err
	}
	var items []Entry
	for _, e := range rows {
		items = append(items, Entry{
			ID: fmt.Sprint(e.ID), Time: e.Time,
			Actor:  Actor{e.ActorKind, e.ActorID, e.ActorName, e.Address},
			Action: e.Action, Target: Target{e.Target, e.TargetName}, Detail: json.RawMessage(e.Detail),
		})
	}
	return rest.NewList(items, total, in.Next(offset, len(items), total)), nil
}
