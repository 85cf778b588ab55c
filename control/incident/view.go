package incident

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/uptrace/bun"

	"komainu/control/access"
	"komainu/control/db"
	"komainu/control/rest"
	"komainu/event"
	"komainu/fault"
	"komainu/finding"
)

// Rule names what decided.
type Rule struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Version string `json:"version"`
}

// Alert is a line of the queue.
type Alert struct {
	ID              string           `json:"id"`
	Title           string           `json:"title"`
	Severity        finding.Severity `json:"severity"`
	Status          string           `json:"status" doc:"New, InProgress or Resolved"`
	Category        string           `json:"category"`
	Techniques      []string         `json:"techniques"`
	DetectionSource string           `json:"detectionSource"`
	Device          rest.Ref         `json:"device"`
	IncidentID      string           `json:"incidentId"`
	FirstActivity   time.Time        `json:"firstActivity"`
	LastActivity    time.Time        `json:"lastActivity"`
	CreatedAt       time.Time        `json:"createdAt"`
	ThreatName      string           `json:"threatName"`
	State           string           `json:"state" doc:"what became of it: detected, blocked, quarantined, …"`
	Summary         string           `json:"summary"`
	Occurrences     int              `json:"occurrences" doc:"findings that this alert stands for"`
	Rule            Rule             `json:"rule"`
	Test            bool             `json:"test"`
}

// Incident is a line of the incident queue.
type Incident struct {
	ID               string           `json:"id"`
	Name             string           `json:"name"`
	Severity         finding.Severity `json:"severity"`
	Status           string           `json:"status" doc:"Active, InProgress or Resolved"`
	Assignee         string           `json:"assignee"`
	Alerts           AlertCounts      `json:"alerts"`
	Devices          []rest.Ref       `json:"devices"`
	Categories       []string         `json:"categories"`
	DetectionSources []string         `json:"detectionSources"`
	FirstActivity    time.Time        `json:"firstActivity"`
	LastActivity     time.Time        `json:"lastActivity"`
	CreatedAt        time.Time        `json:"createdAt"`
}

// AlertCounts counts the alerts of an incident.
type AlertCounts struct {
	Active int `json:"active"`
	Total  int `json:"total"`
}

// IncidentPage is an incident with its alerts, in the order of time.
type IncidentPage struct {
	Incident
	AlertItems []Alert `json:"alertItems"`
}

// AlertQuery selects alerts.
type AlertQuery struct {
	rest.Paging
	Device   string `query:"device"`
	Incident string `query:"incident"`
	Status   string `query:"status" doc:"New, InProgress, Resolved, or Open for what is not resolved"`
	Severity string `query:"severity"`
}

// IncidentQuery selects incidents.
type IncidentQuery struct {
	rest.Paging
	Status   string `query:"status" doc:"Active, InProgress, Resolved, or Open for what is not resolved"`
	Severity string `query:"severity"`
	Device   string `query:"device"`
}

func (a *alertRow) view() Alert {
	v := Alert{
		ID: a.ID, Title: a.Title, Severity: a.Severity, Status: a.Status, Category: string(a.Category), Techniques: a.Brief.Techniques,
		DetectionSource: string(a.DetectionSource), Device: rest.Ref{ID: string(a.DeviceID)}, FirstActivity: a.FirstActivity, LastActivity: a.LastActivity,
		CreatedAt: a.CreatedAt, ThreatName: a.ThreatName, State: string(a.State), Summary: a.Brief.Summary, Occurrences: a.Occurrences,
		Rule: Rule(a.Brief.Rule), Test: a.Test,
	}
	if v.Techniques == nil {
		v.Techniques = []string{}
	}
	if a.IncidentID != nil {
		v.IncidentID = strconv.FormatInt(*a.IncidentID, 10)
	}
	return v
}

// Alerts returns a page, newest activity first.
func (d *Desk) Alerts(ctx context.Context, organization string, q AlertQuery) (rest.List[Alert], error) {
	offset, err := q.Offset()
	if err != nil {
		return rest.List[Alert]{}, err
	}
	var rows []alertRow
	sel := d.db.NewSelect().Model(&rows).ExcludeColumn("finding").Where("organization_id = ? AND merged_into IS NULL", organization).Order("last_activity DESC", "id")
	if q.Device != "" {
		sel = sel.Where("device_id = ?", q.Device)
	}
	if q.Incident != "" {
		sel = sel.Where("incident_id = ?", q.Incident)
	}
	sel = ofStatus(sel, q.Status)
	if q.Severity != "" {
		s, err := finding.ParseSeverity(q.Severity)
		if err != nil {
			return rest.List[Alert]{}, fault.New(fault.Invalid, "%w", err)
		}
		sel = sel.Where("severity = ?", s)
	}
	total, err := sel.Limit(int64(q.Limit)).Offset(int64(offset)).ScanAndCount(ctx)
	if err != nil {
		return rest.List[Alert]{}, err
	}
	items := make([]Alert, len(rows))
	for i := range rows {
		items[i] = rows[i].view()
	}
	return rest.NewList(items, int(total), q.Next(offset, len(items), int(total))), nil
}

// Alert returns one alert and the finding that tells most of it.
func (d *Desk) Alert(ctx context.Context, organization, id string) (Alert, finding.Finding, error) {
	a, err := alert(ctx, d.db, organization, id)
	if err != nil {
		return Alert{}, finding.Finding{}, err
	}
	return a.view(), a.Finding, nil
}

func alert(ctx context.Context, b bun.IDB, organization, id string) (*alertRow, error) {
	for {
		a := new(alertRow)
		if err := b.NewSelect().Model(a).Where("id = ? AND organization_id = ?", id, organization).Scan(ctx); err != nil {
			return nil, db.NotFound(err, "alert", id)
		}
		if a.MergedInto == nil {
			return a, nil
		}
		id = *a.MergedInto
	}
}

// SetAlertStatus changes the status of an alert. An incident whose alerts are
// all resolved stays as it is: resolving it is a decision of its own.
func (d *Desk) SetAlertStatus(ctx context.Context, organization, id, status string) error {
	if !slices.Contains([]string{StatusNew, StatusInProgress, StatusResolved}, status) {
		return fault.New(fault.Invalid, "status %q: want New, InProgress or Resolved", status)
	}
	var changed Changed
	err := d.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		a, err := alert(ctx, tx, organization, id)
		if err != nil {
			return err
		}
		changed = Changed{Alerts: []string{a.ID}, Devices: []event.DeviceID{a.DeviceID}}
		if a.IncidentID != nil {
			changed.Incidents = []int64{*a.IncidentID}
		}
		was := a.Status
		if was == status {
			return nil
		}
		a.Status = status
		if _, err := tx.NewUpdate().Model(a).Column("status").WherePK().Exec(ctx); err != nil {
			return err
		}
		return d.cfg.Record(ctx, tx, access.Change{Action: "alert.change", Target: a.ID, Name: a.Title, Detail: map[string]any{"status": []string{was, status}}})
	})
	if err == nil {
		d.cfg.Changed(changed)
	}
	return err
}

// Incidents returns a page, newest activity first.
func (d *Desk) Incidents(ctx context.Context, organization string, q IncidentQuery) (rest.List[Incident], error) {
	offset, err := q.Offset()
	if err != nil {
		return rest.List[Incident]{}, err
	}
	var rows []incidentRow
	sel := d.db.NewSelect().Model(&rows).Where("organization_id = ? AND merged_into IS NULL", organization).Order("last_activity DESC", "id DESC")
	sel = ofStatus(sel, q.Status)
	if q.Device != "" {
		sel = sel.Where("device_id = ?", q.Device)
	}
	if q.Severity != "" {
		s, err := finding.ParseSeverity(q.Severity)
		if err != nil {
			return rest.List[Incident]{}, fault.New(fault.Invalid, "%w", err)
		}
		sel = sel.Where(incidentSeverity+" = ?", s)
	}
	total, err := sel.Limit(int64(q.Limit)).Offset(int64(offset)).ScanAndCount(ctx)
	if err != nil {
		return rest.List[Incident]{}, err
	}
	pages, err := d.pages(ctx, rows)
	if err != nil {
		return rest.List[Incident]{}, err
	}
	items := make([]Incident, len(pages))
	for i, p := range pages {
		items[i] = p.Incident
	}
	return rest.NewList(items, int(total), q.Next(offset, len(items), int(total))), nil
}

// Incident returns one incident with its alerts. The id of an incident that
// was joined into another leads to that one.
func (d *Desk) Incident(ctx context.Context, organization, id string) (IncidentPage, error) {
	in, err := incident(ctx, d.db, organization, id)
	if err != nil {
		return IncidentPage{}, err
	}
	pages, err := d.pages(ctx, []incidentRow{in})
	if err != nil {
		return IncidentPage{}, err
	}
	return pages[0], nil
}

func incident(ctx context.Context, b bun.IDB, organization, id string) (incidentRow, error) {
	for {
		var in incidentRow
		if err := b.NewSelect().Model(&in).Where("id = ? AND organization_id = ?", id, organization).Scan(ctx); err != nil {
			return in, db.NotFound(err, "incident", id)
		}
		if in.MergedInto == nil {
			return in, nil
		}
		id = strconv.FormatInt(*in.MergedInto, 10)
	}
}

// pages reads the alerts of incidents in one query and sums them up.
func (d *Desk) pages(ctx context.Context, rows []incidentRow) ([]IncidentPage, error) {
	if len(rows) == 0 {
		return nil, nil
	}
	ids := make([]int64, len(rows))
	for i, r := range rows {
		ids[i] = r.ID
	}
	var alerts []alertRow
	if err := d.db.NewSelect().Model(&alerts).ExcludeColumn("finding").Where("incident_id IN (?)", bun.List(ids)).Order("first_activity", "id").Scan(ctx); err != nil {
		return nil, err
	}
	pages := make([]IncidentPage, len(rows))
	for i, r := range rows {
		p := IncidentPage{AlertItems: []Alert{}, Incident: Incident{
			ID: strconv.FormatInt(r.ID, 10), Severity: finding.Informational, Status: r.Status, Assignee: r.Assignee, Devices: []rest.Ref{{ID: string(r.DeviceID)}},
			Categories: []string{}, DetectionSources: []string{}, FirstActivity: r.FirstActivity, LastActivity: r.LastActivity, CreatedAt: r.CreatedAt,
		}}
		for j := range alerts {
			if alerts[j].IncidentID != nil && *alerts[j].IncidentID == r.ID {
				p.add(alerts[j].view())
			}
		}
		p.Name = name(p.AlertItems)
		pages[i] = p
	}
	return pages, nil
}

func (p *IncidentPage) add(a Alert) {
	p.AlertItems = append(p.AlertItems, a)
	p.Severity = max(p.Severity, a.Severity)
	p.Alerts.Total++
	if a.Status != StatusResolved {
		p.Alerts.Active++
	}
	if !slices.Contains(p.Categories, a.Category) {
		p.Categories = append(p.Categories, a.Category)
	}
	if !slices.Contains(p.DetectionSources, a.DetectionSource) {
		p.DetectionSources = append(p.DetectionSources, a.DetectionSource)
	}
}

// name says what an incident is about, the way its alerts do.
func name(alerts []Alert) string {
	var titles, categories []string
	for _, a := range alerts {
		if !slices.Contains(titles, a.Title) {
			titles = append(titles, a.Title)
		}
		if !slices.Contains(categories, a.Category) {
			categories = append(categories, a.Category)
		}
	}
	switch len(titles) {
	case 0:
		return "Incident"
	case 1:
		return titles[0] + " on one endpoint"
	default:
		slices.Sort(categories)
		return "Multi-stage incident involving " + strings.Join(categories, " & ") + " on one endpoint"
	}
}

// UpdateIncident changes status or assignee; nil leaves as it is. Resolving
// an incident resolves its alerts.
func (d *Desk) UpdateIncident(ctx context.Context, organization, id string, status, assignee *string) (IncidentPage, error) {
	if status != nil && !slices.Contains([]string{StatusActive, StatusInProgress, StatusResolved}, *status) {
		return IncidentPage{}, fault.New(fault.Invalid, "status %q: want Active, InProgress or Resolved", *status)
	}
	var in incidentRow
	err := d.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		var err error
		if in, err = incident(ctx, tx, organization, id); err != nil {
			return err
		}
		detail := map[string][]string{}
		if assignee != nil && *assignee != in.Assignee {
			detail["assignee"] = []string{in.Assignee, *assignee}
			in.Assignee = *assignee
		}
		if status != nil && *status != in.Status {
			detail["status"] = []string{in.Status, *status}
			in.Status = *status
			if *status == StatusResolved {
				if _, err := tx.NewUpdate().Model((*alertRow)(nil)).Set("status = ?", StatusResolved).Where("incident_id = ?", in.ID).Exec(ctx); err != nil {
					return err
				}
			}
		}
		if len(detail) == 0 {
			return nil
		}
		if _, err := tx.NewUpdate().Model(&in).WherePK().Exec(ctx); err != nil {
			return err
		}
		return d.cfg.Record(ctx, tx, access.Change{Action: "incident.change", Target: strconv.FormatInt(in.ID, 10), Detail: detail})
	})
	if err != nil {
		return IncidentPage{}, err
	}
	d.cfg.Changed(Changed{Incidents: []int64{in.ID}, Devices: []event.DeviceID{in.DeviceID}})
	return d.Incident(ctx, organization, strconv.FormatInt(in.ID, 10))
}

// Risk is what active alerts say of a device.
type Risk struct {
	Active   int
	Severity finding.Severity // the highest, 0 when none
}

// Risks returns the risk of every device that has active alerts.
func (d *Desk) Risks(ctx context.Context, organization string) (map[event.DeviceID]Risk, error) {
	var rows []struct {
		DeviceID event.DeviceID
		Active   int
		Severity finding.Severity
	}
	err := d.db.NewSelect().Model((*alertRow)(nil)).ColumnExpr("device_id, count(*) AS active, max(severity) AS severity").
		Where("organization_id = ? AND status != ? AND NOT test AND merged_into IS NULL", organization, StatusResolved).Group("device_id").Scan(ctx, &rows)
	risks := make(map[event.DeviceID]Risk, len(rows))
	for _, r := range rows {
		risks[r.DeviceID] = Risk{r.Active, r.Severity}
	}
	return risks, err
}
