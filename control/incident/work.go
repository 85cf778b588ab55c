package incident

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/uptrace/bun"

	"komainu/control/access"
	"komainu/event"
	"komainu/fault"
	"komainu/finding"
)

// Triage is what to set of an alert or an incident; nil leaves as it is.
//
// Two people may work on one incident: a change is refused only where it would
// overwrite what its author has not seen. Was holds, by the name of the field,
// the values that the author saw; a field that has another value by now, and
// not the wanted one either, is a fault.Conflict. Fields without an entry are
// set whatever they hold.
type Triage struct {
	Name           *string           `json:"name,omitempty" maxLength:"200" doc:"of an incident; an empty one lets the alerts name it again"`
	Status         *string           `json:"status,omitempty" doc:"New (alert) or Active (incident), InProgress, Resolved"`
	Severity       *finding.Severity `json:"severity,omitempty" enum:"Informational,Low,Medium,High" doc:"of an incident"`
	Assignee       *string           `json:"assignee,omitempty" maxLength:"64" doc:"empty for nobody"`
	Classification *string           `json:"classification,omitempty" enum:"NotSet,TruePositive,InformationalExpectedActivity,FalsePositive"`
	Determination  *string           `json:"determination,omitempty" maxLength:"64" doc:"what goes with the classification; empty for none"`
	Was            map[string]string `json:"was,omitempty" doc:"the values that the change is based on, by field; refused with 409 where another value would be lost"`
}

// Effect is what a change has done beyond what was asked for.
type Effect struct {
	Kind   string `json:"kind" enum:"alerts,incident"`
	ID     string `json:"id,omitempty" doc:"of the incident"`
	Field  string `json:"field"`
	To     string `json:"to"`
	Count  int    `json:"count" doc:"how many alerts"`
	Reason string `json:"reason"`
}

// Activity is a change of an alert or an incident.
type Activity struct {
	ID     string    `json:"id"`
	At     time.Time `json:"at"`
	Actor  string    `json:"actor"`
	Action string    `json:"action" doc:"the field that was changed, or created, joined, comment"`
	From   string    `json:"from"`
	To     string    `json:"to"`
	Alert  string    `json:"alert,omitempty" doc:"the alert that it was done to"`
}

type activityRow struct {
	bun.BaseModel `bun:"table:incident_activity"`

	ID         int64 `bun:",pk,autoincrement"`
	IncidentID *int64
	AlertID    *string
	At         time.Time
	Actor      string
	Action     string
	Was        string
	Became     string
}

// field is one thing that can be changed.
type field struct {
	name string
	to   *string
	was  string
	set  func(string)
}

// apply sets what differs and returns it by field: what it was and became.
func (c *Triage) apply(fields []field) (map[string][]string, error) {
	done := map[string][]string{}
	for _, f := range fields {
		if f.to == nil || *f.to == f.was {
			continue
		}
		if seen, ok := c.Was[f.name]; ok && seen != f.was {
			return nil, fault.New(fault.Conflict, "%s has become %q since you looked (it was %q); look again and decide", f.name, f.was, seen)
		}
		f.set(*f.to)
		done[f.name] = []string{f.was, *f.to}
	}
	return done, nil
}

// classified completes the pair of classification and determination that a
// change asks for: another classification drops the determination of the old
// one.
func (c *Triage) classified(classification, determination string) error {
	if c.Classification == nil && c.Determination == nil {
		return nil
	}
	wanted := classification
	if c.Classification != nil {
		wanted = *c.Classification
	}
	switch {
	case c.Determination != nil:
		determination = *c.Determination
	case wanted != classification:
		determination = ""
	}
	kept, err := classify(wanted, determination)
	c.Determination = &kept
	return err
}

func trimmed(s *string) *string {
	if s == nil {
		return nil
	}
	return new(strings.Join(strings.Fields(*s), " "))
}

// note writes to the activity of an alert or an incident.
func (d *Desk) note(ctx context.Context, tx bun.IDB, incident *int64, alert *string, actor, action, was, became string) error {
	_, err := tx.NewInsert().Model(&activityRow{IncidentID: incident, AlertID: alert, At: d.now(), Actor: actor, Action: action, Was: was, Became: became}).Exec(ctx)
	return err
}

// noteAll writes a line for each field, in the order of their names.
func (d *Desk) noteAll(ctx context.Context, tx bun.IDB, incident *int64, alert *string, done map[string][]string) error {
	for _, name := range sortedKeys(done) {
		if err := d.note(ctx, tx, incident, alert, access.ActorOf(ctx).Name, name, done[name][0], done[name][1]); err != nil {
			return err
		}
	}
	return nil
}

// ChangeAlert changes an alert. Statuses roll up: work on the first alert
// makes an incident InProgress, resolving the last open one resolves it, and
// opening an alert of a resolved incident opens that again.
func (d *Desk) ChangeAlert(ctx context.Context, organization, id string, c Triage) ([]Effect, error) {
	if c.Name != nil || c.Severity != nil {
		return nil, fault.New(fault.Invalid, "name and severity of an alert come from what was found; those of its incident can be changed")
	}
	if c.Status != nil && !slices.Contains([]string{StatusNew, StatusInProgress, StatusResolved}, *c.Status) {
		return nil, fault.New(fault.Invalid, "status %q: want New, InProgress or Resolved", *c.Status)
	}
	var changed Changed
	var effects []Effect
	err := d.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		changed, effects = Changed{}, nil
		c := c
		a, err := alert(ctx, tx, organization, id)
		if err != nil {
			return err
		}
		c.Assignee = trimmed(c.Assignee)
		if err := c.classified(a.Classification, a.Determination); err != nil {
			return err
		}
		done, err := c.apply([]field{
			{name: "status", to: c.Status, was: a.Status, set: func(v string) { a.Status = v }},
			{name: "assignee", to: c.Assignee, was: a.Assignee, set: func(v string) { a.Assignee = v }},
			{name: "classification", to: c.Classification, was: a.Classification, set: func(v string) { a.Classification = v }},
			{name: "determination", to: c.Determination, was: a.Determination, set: func(v string) { a.Determination = v }},
		})
		if err != nil || len(done) == 0 {
			return err
		}
		if _, err := tx.NewUpdate().Model(a).Column("status", "assignee", "classification", "determination").WherePK().Exec(ctx); err != nil {
			return err
		}
		if err := d.noteAll(ctx, tx, a.IncidentID, &a.ID, done); err != nil {
			return err
		}
		changed = Changed{Alerts: []string{a.ID}, Devices: []event.DeviceID{a.DeviceID}}
		detail := map[string]any{}
		for name, values := range done {
			detail[name] = values
		}
		if a.IncidentID != nil {
			changed.Incidents = []int64{*a.IncidentID}
			if done["status"] != nil {
				if effects, err = d.rollUp(ctx, tx, *a.IncidentID); err != nil {
					return err
				}
				for _, e := range effects {
					detail["incident"] = map[string]string{"id": e.ID, e.Field: e.To}
				}
			}
		}
		if done["status"] != nil {
			if err := d.tell(ctx, tx, organization, News{Event: AlertChanged, Alert: new(a.view()), From: done["status"][0], By: access.ActorOf(ctx).Name}); err != nil {
				return err
			}
		}
		return d.cfg.Record(ctx, tx, access.Change{Action: "alert.change", Target: a.ID, Name: a.Title, Detail: detail})
	})
	if err != nil {
		return nil, err
	}
	if len(changed.Alerts) > 0 {
		d.cfg.Changed(organization, changed)
	}
	return effects, nil
}

// rollUp gives an incident the status that its alerts have come to.
func (d *Desk) rollUp(ctx context.Context, tx bun.Tx, id int64) ([]Effect, error) {
	in := incidentRow{ID: id}
	if err := tx.NewSelect().Model(&in).WherePK().Scan(ctx); err != nil {
		return nil, err
	}
	var statuses []string
	if err := tx.NewSelect().Model((*alertRow)(nil)).Column("status").Where("incident_id = ?", id).Scan(ctx, &statuses); err != nil {
		return nil, err
	}
	open := slices.ContainsFunc(statuses, func(s string) bool { return s != StatusResolved })
	worked := slices.ContainsFunc(statuses, func(s string) bool { return s != StatusNew })
	status, reason := in.Status, ""
	switch {
	case !open:
		status, reason = StatusResolved, "all of its alerts are resolved"
	case in.Status == StatusResolved:
		status, reason = StatusInProgress, "one of its alerts was opened again"
	case in.Status == StatusActive && worked:
		status, reason = StatusInProgress, "somebody works on one of its alerts"
	}
	if status == in.Status {
		return nil, nil
	}
	was := in.Status
	in.Status = status
	if _, err := tx.NewUpdate().Model(&in).Column("status").WherePK().Exec(ctx); err != nil {
		return nil, err
	}
	if err := d.note(ctx, tx, &id, nil, systemActor, "status", was, status); err != nil {
		return nil, err
	}
	if err := d.tellIncident(ctx, tx, in, News{Event: IncidentChanged, From: was, By: access.ActorOf(ctx).Name}); err != nil {
		return nil, err
	}
	return []Effect{{Kind: "incident", ID: strconv.FormatInt(id, 10), Field: "status", To: status, Reason: reason}}, nil
}

// systemActor is the actor of what follows by itself.
const systemActor = "system"

// ChangeIncident changes an incident. Resolving it resolves its alerts, and a
// classification also goes to the alerts that have none; the effects say so.
func (d *Desk) ChangeIncident(ctx context.Context, organization, id string, c Triage) ([]Effect, error) {
	if c.Status != nil && !slices.Contains([]string{StatusActive, StatusInProgress, StatusResolved}, *c.Status) {
		return nil, fault.New(fault.Invalid, "status %q: want Active, InProgress or Resolved", *c.Status)
	}
	var changed Changed
	var effects []Effect
	err := d.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		changed, effects = Changed{}, nil
		c := c
		in, err := incident(ctx, tx, organization, id)
		if err != nil {
			return err
		}
		pages, err := pages(ctx, tx, []incidentRow{in})
		if err != nil {
			return err
		}
		shown := pages[0].Incident
		c.Name, c.Assignee = trimmed(c.Name), trimmed(c.Assignee)
		if err := c.classified(in.Classification, in.Determination); err != nil {
			return err
		}
		var severity *string
		if c.Severity != nil {
			severity = new(c.Severity.String())
		}
		done, err := c.apply([]field{
			{name: "name", to: c.Name, was: shown.Name, set: func(v string) { in.Name = v }},
			{name: "status", to: c.Status, was: in.Status, set: func(v string) { in.Status = v }},
			{name: "severity", to: severity, was: shown.Severity.String(), set: func(string) { in.Severity = *c.Severity }},
			{name: "assignee", to: c.Assignee, was: in.Assignee, set: func(v string) { in.Assignee = v }},
			{name: "classification", to: c.Classification, was: in.Classification, set: func(v string) { in.Classification = v }},
			{name: "determination", to: c.Determination, was: in.Determination, set: func(v string) { in.Determination = v }},
		})
		if err != nil || len(done) == 0 {
			return err
		}
		if _, err := tx.NewUpdate().Model(&in).WherePK().Exec(ctx); err != nil {
			return err
		}
		if err := d.noteAll(ctx, tx, &in.ID, nil, done); err != nil {
			return err
		}
		changed = Changed{Incidents: []int64{in.ID}, Devices: []event.DeviceID{in.DeviceID}}
		if effects, err = d.spread(ctx, tx, &in, done, &changed); err != nil {
			return err
		}
		if done["status"] != nil {
			if err := d.tellIncident(ctx, tx, in, News{Event: IncidentChanged, From: done["status"][0], By: access.ActorOf(ctx).Name}); err != nil {
				return err
			}
		}
		detail := map[string]any{}
		for name, values := range done {
			detail[name] = values
		}
		if len(effects) > 0 {
			detail["effects"] = effects
		}
		return d.cfg.Record(ctx, tx, access.Change{Action: "incident.change", Target: strconv.FormatInt(in.ID, 10), Name: shown.Name, Detail: detail})
	})
	if err != nil {
		return nil, err
	}
	if len(changed.Incidents) > 0 {
		d.cfg.Changed(organization, changed)
	}
	return effects, nil
}

// spread passes on to its alerts what was decided for an incident.
func (d *Desk) spread(ctx context.Context, tx bun.Tx, in *incidentRow, done map[string][]string, changed *Changed) ([]Effect, error) {
	resolve := done["status"] != nil && in.Status == StatusResolved
	classify := done["classification"] != nil && in.Classification != NotSet
	if !resolve && !classify {
		return nil, nil
	}
	var rows []alertRow
	if err := tx.NewSelect().Model(&rows).ExcludeColumn("finding").Where("incident_id = ?", in.ID).Scan(ctx); err != nil {
		return nil, err
	}
	var resolved, classified int
	for i := range rows {
		a, touched := &rows[i], map[string][]string{}
		if resolve && a.Status != StatusResolved {
			touched["status"] = []string{a.Status, StatusResolved}
			a.Status = StatusResolved
			resolved++
		}
		if classify && a.Classification == NotSet {
			touched["classification"] = []string{NotSet, in.Classification}
			a.Classification, a.Determination = in.Classification, in.Determination
			classified++
		}
		if len(touched) == 0 {
			continue
		}
		if _, err := tx.NewUpdate().Model(a).Column("status", "classification", "determination").WherePK().Exec(ctx); err != nil {
			return nil, err
		}
		if err := d.noteAll(ctx, tx, &in.ID, &a.ID, touched); err != nil {
			return nil, err
		}
		changed.Alerts = append(changed.Alerts, a.ID)
	}
	var effects []Effect
	if resolved > 0 {
		effects = append(effects, Effect{Kind: "alerts", Field: "status", To: StatusResolved, Count: resolved, Reason: "their incident was resolved"})
	}
	if classified > 0 {
		effects = append(effects, Effect{Kind: "alerts", Field: "classification", To: in.Classification, Count: classified, Reason: "they had no classification of their own"})
	}
	return effects, nil
}
