// Package audit keeps who changed what. Entries are only ever added.
package audit

import (
	"context"
	"embed"
	"time"

	"github.com/uptrace/bun"

	"komainu/control/access"
	"komainu/control/rest"
)

// Migrations are the tables of this package.
//
//go:embed migrations
var Migrations embed.FS

// Entry is one change by a person, a token, or the host's administrator.
type Entry struct {
	bun.BaseModel `bun:"table:audit"`

	ID      int64     `bun:",pk,autoincrement" json:"id"`
	Time    time.Time `json:"time"`
	ActorID string    `json:"actorId"`
	Actor   string    `json:"actor"`
	Action  string    `json:"action" doc:"what was done, as area.verb"`
	Target  string    `json:"target" doc:"what it was done to"`
	Detail  string    `json:"detail"`
}

// Log is the audit log.
type Log struct{ db *bun.DB }

// New returns the log over a migrated database.
func New(d *bun.DB) *Log { return &Log{db: d} }

// Add records a change that the actor of the context has made.
func (l *Log) Add(ctx context.Context, action, target, detail string) error {
	a := access.ActorOf(ctx)
	e := Entry{Time: time.Now().UTC(), ActorID: a.ID, Actor: a.Name, Action: action, Target: target, Detail: detail}
	_, err := l.db.NewInsert().Model(&e).Exec(ctx)
	return err
}

// List returns a page, newest first.
func (l *Log) List(ctx context.Context, p rest.Paging) (rest.List[Entry], error) {
	offset, err := p.Offset()
	if err != nil {
		return rest.List[Entry]{}, err
	}
	var list []Entry
	total, err := l.db.NewSelect().Model(&list).Order("id DESC").Limit(int64(p.Limit)).Offset(int64(offset)).ScanAndCount(ctx)
	return rest.NewList(list, int(total), p.Next(offset, len(list), int(total))), err
}
