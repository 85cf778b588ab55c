package eventstore

import (
	"cmp"

	"komainu/event"
	"komainu/fault"
)

// The limits of the parts of an event's identity. They are wide; what is
// beyond them is not an identity that a control plane or an agent made.
const (
	maxName    = 128 // bytes
	maxActions = 200 // of a query
)

// CheckEntry refuses what no engine can store.
func CheckEntry(e Entry) error {
	switch {
	case e.Event == nil:
		return fault.New(fault.Invalid, "entry without an event")
	case e.Organization == "" || e.Event.ID.Device == "":
		return fault.New(fault.Invalid, "event %s: no organization or device", e.Event.ID)
	case e.Event.ID.Seq == 0 || e.Event.ID.Source == "":
		return fault.New(fault.Invalid, "event %s: no source or sequence number", e.Event.ID)
	case len(e.Organization) > maxName || len(e.Event.ID.Device) > maxName || len(e.Event.ID.Source) > maxName:
		return fault.New(fault.Invalid, "event of device %.40q: an identity longer than %d bytes", e.Event.ID.Device, maxName)
	}
	return nil
}

// CheckOrganization refuses to read without a tenant.
func CheckOrganization(organization string) error {
	if organization == "" {
		return fault.New(fault.Internal, "query of events without an organization")
	}
	return nil
}

// Check refuses what no engine can answer and returns the query with its
// defaults filled in, and the position that it continues from.
func (q Query) Check() (Query, *Position, error) {
	if err := CheckOrganization(q.Organization); err != nil {
		return q, nil, err
	}
	if q.Device == "" {
		return q, nil, fault.New(fault.Invalid, "timeline: which device?")
	}
	q.Limit = cmp.Or(q.Limit, DefaultLimit)
	if q.Limit < 0 || q.Limit > MaxLimit {
		return q, nil, fault.New(fault.Invalid, "limit %d: want 1 to %d", q.Limit, MaxLimit)
	}
	if len(q.Text) > MaxText {
		return q, nil, fault.New(fault.Invalid, "the text to look for has %d bytes, the limit is %d", len(q.Text), MaxText)
	}
	if len(q.Actions) > maxActions {
		return q, nil, fault.New(fault.Invalid, "%d actions are too many", len(q.Actions))
	}
	if q.Cursor == "" {
		return q, nil, nil
	}
	p, err := ParsePosition(q.Cursor)
	if err != nil {
		return q, nil, err
	}
	return q, &p, nil
}

// CheckIDs refuses a Get that no engine answers.
func CheckIDs(organization string, ids []event.ID) error {
	if err := CheckOrganization(organization); err != nil {
		return err
	}
	if len(ids) > MaxLimit {
		return fault.New(fault.Invalid, "%d events at once, the limit is %d", len(ids), MaxLimit)
	}
	return nil
}
