package incident

import (
	"context"
	"strings"
	"time"

	"github.com/uptrace/bun"

	"komainu/control/rest"
	"komainu/fault"
	"komainu/finding"
)

// Selection is what both queues are filtered by. Lists of values are separated
// by commas: any of them counts.
type Selection struct {
	Status         string    `query:"status" doc:"statuses, or Open for what is not resolved"`
	Severity       string    `query:"severity" doc:"severities"`
	Category       string    `query:"category" doc:"categories"`
	Classification string    `query:"classification" doc:"classifications"`
	Assignee       string    `query:"assignee" doc:"names, or - for nobody"`
	Device         string    `query:"device" doc:"id of a device"`
	Since          time.Time `query:"since" doc:"last activity at or after this"`
	Until          time.Time `query:"until" doc:"first activity at or before this"`
	Q              string    `query:"q" maxLength:"200" doc:"part of the name"`
	Sort           string    `query:"sort" enum:"lastActivity,firstActivity,severity,status,name" default:"lastActivity"`
	Order          string    `query:"order" enum:"asc,desc" default:"desc"`
}

// AlertQuery selects alerts.
type AlertQuery struct {
	rest.Paging
	Selection
	Incident string `query:"incident" doc:"id of an incident"`
	Test     string `query:"test" enum:"all,only,none" default:"all" doc:"alerts of self-tests"`
}

// IncidentQuery selects incidents.
type IncidentQuery struct {
	rest.Paging
	Selection
}

// nobody stands for no assignee in a query.
const nobody = "-"

func values(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' })
}

// severities reads a list of severities.
func severities(list string) ([]finding.Severity, error) {
	var all []finding.Severity
	for _, v := range values(list) {
		s, err := finding.ParseSeverity(v)
		if err != nil {
			return nil, fault.New(fault.Invalid, "%w", err)
		}
		all = append(all, s)
	}
	return all, nil
}

// where adds what alerts and incidents are filtered by alike.
func (s *Selection) where(sel *bun.SelectQuery, severity string) (*bun.SelectQuery, error) {
	sel = ofStatus(sel, s.Status)
	wanted, err := severities(s.Severity)
	if err != nil {
		return nil, err
	}
	if len(wanted) > 0 {
		sel = sel.Where(severity+" IN (?)", bun.List(wanted))
	}
	if list := values(s.Classification); len(list) > 0 {
		sel = sel.Where("classification IN (?)", bun.List(list))
	}
	if list := values(s.Assignee); len(list) > 0 {
		for i := range list {
			if list[i] == nobody {
				list[i] = ""
			}
		}
		sel = sel.Where("assignee IN (?)", bun.List(list))
	}
	if s.Device != "" {
		sel = sel.Where("device_id = ?", s.Device)
	}
	if !s.Since.IsZero() {
		sel = sel.Where("last_activity >= ?", s.Since.UTC())
	}
	if !s.Until.IsZero() {
		sel = sel.Where("first_activity <= ?", s.Until.UTC())
	}
	return sel, nil
}

// order sorts by a column that is one of ours, and then by what makes the
// order complete, so that pages neither repeat nor leave out.
func (s *Selection) order(sel *bun.SelectQuery, severity, name string) *bun.SelectQuery {
	column := map[string]string{"firstActivity": "first_activity", "severity": severity, "status": "status", "name": name}[s.Sort]
	if column == "" {
		column = "last_activity"
	}
	direction := "DESC"
	if s.Order == "asc" {
		direction = "ASC"
	}
	return sel.OrderExpr(column + " " + direction + ", last_activity " + direction + ", id " + direction)
}

// like makes a pattern of a part of a text.
func like(part string) string {
	return "%" + strings.NewReplacer(`\`, `\\`, "%", `\%`, "_", `\_`).Replace(part) + "%"
}

// Alerts returns a page, newest activity first unless asked for otherwise.
func (d *Desk) Alerts(ctx context.Context, organization string, q AlertQuery) (rest.List[Alert], error) {
	offset, err := q.Offset()
	if err != nil {
		return rest.List[Alert]{}, err
	}
	var rows []alertRow
	sel, err := q.where(d.db.NewSelect().Model(&rows).ExcludeColumn("finding").Where("organization_id = ? AND merged_into IS NULL", organization), "severity")
	if err != nil {
		return rest.List[Alert]{}, err
	}
	if q.Incident != "" {
		sel = sel.Where("incident_id = ?", q.Incident)
	}
	if list := values(q.Category); len(list) > 0 {
		sel = sel.Where("category IN (?)", bun.List(list))
	}
	if q.Q != "" {
		sel = sel.Where(`title LIKE ? ESCAPE '\'`, like(q.Q))
	}
	switch q.Test {
	case "only":
		sel = sel.Where("test")
	case "none":
		sel = sel.Where("NOT test")
	}
	total, err := q.order(sel, "severity", "title").Limit(int64(q.Limit)).Offset(int64(offset)).ScanAndCount(ctx)
	if err != nil {
		return rest.List[Alert]{}, err
	}
	items := make([]Alert, len(rows))
	for i := range rows {
		items[i] = rows[i].view()
	}
	return rest.NewList(items, int(total), q.Next(offset, len(items), int(total))), nil
}

// Incidents returns a page, newest activity first unless asked for otherwise.
func (d *Desk) Incidents(ctx context.Context, organization string, q IncidentQuery) (rest.List[Incident], error) {
	offset, err := q.Offset()
	if err != nil {
		return rest.List[Incident]{}, err
	}
	var rows []incidentRow
	sel, err := q.where(d.db.NewSelect().Model(&rows).Where("organization_id = ? AND merged_into IS NULL", organization), incidentSeverity)
	if err != nil {
		return rest.List[Incident]{}, err
	}
	if list := values(q.Category); len(list) > 0 {
		sel = sel.Where("EXISTS (SELECT 1 FROM alerts AS a WHERE a.incident_id = incident_row.id AND a.category IN (?))", bun.List(list))
	}
	if q.Q != "" {
		sel = sel.Where(`(incident_row.name LIKE ? ESCAPE '\' OR EXISTS (SELECT 1 FROM alerts AS a WHERE a.incident_id = incident_row.id AND a.title LIKE ? ESCAPE '\'))`, like(q.Q), like(q.Q))
	}
	// A name that nobody has given is made of the titles of the alerts.
	name := "coalesce(nullif(incident_row.name, ''), (SELECT min(a.title) FROM alerts AS a WHERE a.incident_id = incident_row.id))"
	total, err := q.order(sel, incidentSeverity, name).Limit(int64(q.Limit)).Offset(int64(offset)).ScanAndCount(ctx)
	if err != nil {
		return rest.List[Incident]{}, err
	}
	list, err := pages(ctx, d.db, rows)
	if err != nil {
		return rest.List[Incident]{}, err
	}
	items := make([]Incident, len(list))
	for i, p := range list {
		items[i] = p.Incident
	}
	return rest.NewList(items, int(total), q.Next(offset, len(items), int(total))), nil
}
