package incident

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/uptrace/bun"

	"komainu/control/db"
	"komainu/control/rest"
	"komainu/event"
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
	Test            bool             `json:"test" doc:"a self-test of the product, kept out of incidents"`
	Assignee        string           `json:"assignee"`
	Classification  string           `json:"classification" doc:"NotSet, TruePositive, InformationalExpectedActivity or FalsePositive"`
	Determination   string           `json:"determination" doc:"what goes with the classification, empty when not said"`
}

// Incident is a line of the incident queue.
type Incident struct {
	ID               string           `json:"id"`
	Name             string           `json:"name"`
	Severity         finding.Severity `json:"severity"`
	Status           string           `json:"status" doc:"Active, InProgress or Resolved"`
	Assignee         string           `json:"assignee"`
	Classification   string           `json:"classification" doc:"NotSet, TruePositive, InformationalExpectedActivity or FalsePositive"`
	Determination    string           `json:"determination" doc:"what goes with the classification, empty when not said"`
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

func (a *alertRow) view() Alert {
	v := Alert{
		ID: a.ID, Title: a.Title, Severity: a.Severity, Status: a.Status, Category: string(a.Category), Techniques: a.Brief.Techniques,
		DetectionSource: string(a.DetectionSource), Device: rest.Ref{ID: string(a.DeviceID)}, FirstActivity: a.FirstActivity, LastActivity: a.LastActivity,
		CreatedAt: a.CreatedAt, ThreatName: a.ThreatName, State: string(a.State), Summary: a.Brief.Summary, Occurrences: a.Occurrences,
		Rule: Rule(a.Brief.Rule), Test: a.Test, Assignee: a.Assignee, Classification: a.Classification, Determination: a.Determination,
	}
	if v.Techniques == nil {
		v.Techniques = []string{}
	}
	if a.IncidentID != nil {
		v.IncidentID = strconv.FormatInt(*a.IncidentID, 10)
	}
	return v
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

// Incident returns one incident with its alerts. The id of an incident that
// was joined into another leads to that one.
func (d *Desk) Incident(ctx context.Context, organization, id string) (IncidentPage, error) {
	in, err := incident(ctx, d.db, organization, id)
	if err != nil {
		return IncidentPage{}, err
	}
	pages, err := pages(ctx, d.db, []incidentRow{in})
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
func pages(ctx context.Context, b bun.IDB, rows []incidentRow) ([]IncidentPage, error) {
	if len(rows) == 0 {
		return nil, nil
	}
	ids := make([]int64, len(rows))
	for i, r := range rows {
		ids[i] = r.ID
	}
	var alerts []alertRow
	if err := b.NewSelect().Model(&alerts).ExcludeColumn("finding").Where("incident_id IN (?)", bun.List(ids)).Order("first_activity", "id").Scan(ctx); err != nil {
		return nil, err
	}
	pages := make([]IncidentPage, len(rows))
	for i, r := range rows {
		p := IncidentPage{AlertItems: []Alert{}, Incident: Incident{
			ID: strconv.FormatInt(r.ID, 10), Severity: finding.Informational, Status: r.Status, Assignee: r.Assignee, Classification: r.Classification, Determination: r.Determination, Devices: []rest.Ref{{ID: string(r.DeviceID)}},
			Categories: []string{}, DetectionSources: []string{}, FirstActivity: r.FirstActivity, LastActivity: r.LastActivity, CreatedAt: r.CreatedAt,
		}}
		for j := range alerts {
			if alerts[j].IncidentID != nil && *alerts[j].IncidentID == r.ID {
				p.add(alerts[j].view())
			}
		}
		if p.Name = r.Name; p.Name == "" {
			p.Name = name(p.AlertItems)
		}
		if r.Severity != 0 {
			p.Severity = r.Severity
		}
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
