package access

import (
	"context"

	"github.com/uptrace/bun"

	"komainu/control/db"
	"komainu/control/rest"
)

// Assignee is somebody who can be given an incident.
type Assignee struct {
	Name string `json:"name"`
	Role Role   `json:"role"`
}

// ListAssignees answers GET /assignees: the users who may work on incidents,
// by name.
func (a *Access) ListAssignees(ctx context.Context, in *rest.Paging) (rest.List[Assignee], error) {
	offset, err := in.Offset()
	if err != nil {
		return rest.List[Assignee]{}, err
	}
	var may []Role
	for _, r := range ranks {
		if r.May(TriageAlerts) {
			may = append(may, r)
		}
	}
	var rows []user
	total, err := db.Page(ctx, a.db.NewSelect().Model(&rows).Where("organization_id = ? AND role IN (?)", ActorOf(ctx).Organization, bun.List(may)).Order("name"), in.Limit, offset)
	if err != nil {
		return rest.List[Assignee]{}, err
	}
	var items []Assignee
	for _, u := range rows {
		items = append(items, Assignee{u.Name, u.Role})
	}
	return rest.NewList(items, total, in.Next(offset, len(items), total)), nil
}
