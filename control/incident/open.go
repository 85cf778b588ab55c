package incident

import (
	"context"
	"slices"

	"github.com/uptrace/bun"

	"komainu/finding"
)

// StatusOpen selects what is not resolved, whatever its status is.
const StatusOpen = "Open"

func ofStatus(sel *bun.SelectQuery, status string) *bun.SelectQuery {
	list := values(status)
	switch {
	case len(list) == 0:
		return sel
	case slices.Contains(list, StatusOpen):
		return sel.Where("status != ?", StatusResolved)
	default:
		return sel.Where("status IN (?)", bun.List(list))
	}
}

// incidentSeverity is the severity of an incident in SQL, as add sums it up: what
// somebody has set, or what the alerts say.
const incidentSeverity = "coalesce(nullif(incident_row.severity, 0), (SELECT max(a.severity) FROM alerts AS a WHERE a.incident_id = incident_row.id), 1)"

// Open counts what is not resolved, by severity.
type Open struct {
	Total      int                      `json:"total"`
	BySeverity map[finding.Severity]int `json:"bySeverity" doc:"severities that occur"`
	Unassigned int                      `json:"unassigned"`
}

// OpenIncidents counts the incidents that are not resolved.
func (d *Desk) OpenIncidents(ctx context.Context, organization string) (Open, error) {
	return open(ctx, d.db.NewSelect().Model((*incidentRow)(nil)).ColumnExpr(incidentSeverity+" AS severity, assignee = '' AS free, count(*) AS n").
		Where("organization_id = ? AND merged_into IS NULL", organization))
}

// OpenAlerts counts the alerts that are not resolved; those of self-tests do
// not count.
func (d *Desk) OpenAlerts(ctx context.Context, organization string) (Open, error) {
	return open(ctx, d.db.NewSelect().Model((*alertRow)(nil)).ColumnExpr("severity, FALSE AS free, count(*) AS n").
		Where("organization_id = ? AND merged_into IS NULL AND NOT test", organization))
}

func open(ctx context.Context, sel *bun.SelectQuery) (Open, error) {
	var rows []struct {
		Severity finding.Severity
		Free     bool
		N        int
	}
	o := Open{BySeverity: map[finding.Severity]int{}}
	err := ofStatus(sel, StatusOpen).GroupExpr("1, 2").Scan(ctx, &rows)
	for _, r := range rows {
		o.Total += r.N
		o.BySeverity[r.Severity] += r.N
		if r.Free {
			o.Unassigned += r.N
		}
	}
	return o, err
}
