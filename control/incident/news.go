package incident

import (
	"context"
	"maps"
	"slices"

	"github.com/uptrace/bun"

	"komainu/finding"
)

// What there is to tell of alerts and incidents.
const (
	AlertCreated    = "alert.created"
	AlertRaised     = "alert.raised" // its severity rose
	AlertChanged    = "alert.changed"
	IncidentCreated = "incident.created"
	IncidentRaised  = "incident.raised"
	IncidentChanged = "incident.changed"
)

// News is something that people may want to be told of. Exactly one of Alert
// and Incident is set, with the values that it has now.
type News struct {
	Event    string
	Alert    *Alert
	Incident *Incident
	// Test says that all of it comes from self-tests.
	Test bool
	// Was is the severity before it rose.
	Was finding.Severity
	// From is the status before it changed, By who changed it.
	From, By string
}

// tell hands news on, within the transaction that makes them.
func (d *Desk) tell(ctx context.Context, tx bun.IDB, organization string, n News) error {
	if d.cfg.Tell == nil {
		return nil
	}
	if n.Alert != nil {
		n.Test = n.Alert.Test
	}
	return d.cfg.Tell(ctx, tx, organization, n)
}

func (d *Desk) tellIncident(ctx context.Context, tx bun.IDB, in incidentRow, n News) error {
	if d.cfg.Tell == nil {
		return nil
	}
	list, err := pages(ctx, tx, []incidentRow{in})
	if err != nil {
		return err
	}
	n.Incident = &list[0].Incident
	return d.tell(ctx, tx, in.OrganizationID, n)
}

// before remembers how severe what a list of findings touches was, 0 for what
// it makes.
type before struct {
	alerts    map[string]finding.Severity
	incidents map[int64]finding.Severity
}

func newBefore() *before {
	return &before{map[string]finding.Severity{}, map[int64]finding.Severity{}}
}

func (b *before) alert(id string, s finding.Severity) {
	if _, ok := b.alerts[id]; !ok {
		b.alerts[id] = s
	}
}

func (b *before) incident(id int64, s finding.Severity) {
	if _, ok := b.incidents[id]; !ok {
		b.incidents[id] = s
	}
}

// report tells what is new or has become more severe, once everything is in
// its place.
func (d *Desk) report(ctx context.Context, tx bun.Tx, organization string, b *before) error {
	for _, id := range slices.Sorted(maps.Keys(b.alerts)) {
		a := alertRow{ID: id}
		if err := tx.NewSelect().Model(&a).ExcludeColumn("finding").WherePK().Scan(ctx); err != nil {
			return err
		}
		n := News{Event: AlertCreated, Alert: new(a.view()), Was: b.alerts[id]}
		if n.Was != 0 {
			n.Event = AlertRaised
		}
		if a.MergedInto != nil || a.Severity <= n.Was {
			continue
		}
		if err := d.tell(ctx, tx, organization, n); err != nil {
			return err
		}
	}
	for _, id := range slices.Sorted(maps.Keys(b.incidents)) {
		in := incidentRow{ID: id}
		if err := tx.NewSelect().Model(&in).WherePK().Scan(ctx); err != nil {
			return err
		}
		if in.MergedInto != nil {
			continue
		}
		list, err := pages(ctx, tx, []incidentRow{in})
		if err != nil {
			return err
		}
		n := News{Event: IncidentCreated, Incident: &list[0].Incident, Was: b.incidents[id]}
		if n.Was != 0 {
			n.Event = IncidentRaised
		}
		if n.Incident.Severity <= n.Was {
			continue
		}
		if err := d.tell(ctx, tx, organization, n); err != nil {
			return err
		}
	}
	return nil
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
