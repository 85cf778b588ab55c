package notify

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"komainu/finding"
)

// Message is what people are told. Its JSON is the body of a webhook, which
// docs/notifications.md describes; a field that receivers may rely on is not
// taken away.
type Message struct {
	// ID is the same in every attempt: receivers drop what they have already.
	ID       string           `json:"id"`
	Version  int              `json:"version"`
	Event    string           `json:"event"`
	Time     time.Time        `json:"time"`
	Severity finding.Severity `json:"severity"`
	// Was is the severity before it rose.
	Was     finding.Severity `json:"-"`
	Title   string           `json:"title"`
	Summary string           `json:"summary"`
	Status  string           `json:"status"`
	Test    bool             `json:"test"`
	Subject Subject          `json:"subject"`
	Devices []Device         `json:"devices"`
	Change  *Change          `json:"change,omitempty"`
	Link    string           `json:"link"`
}

// Subject is what a message is about.
type Subject struct {
	Kind            string    `json:"kind"` // alert, incident, upgrade, device or test
	ID              string    `json:"id"`
	Incident        string    `json:"incident,omitempty"`
	Categories      []string  `json:"categories"`
	DetectionSource []string  `json:"detectionSources"`
	FirstActivity   time.Time `json:"firstActivity,omitzero"`
	LastActivity    time.Time `json:"lastActivity,omitzero"`
	Assignee        string    `json:"assignee"`
	ThreatName      string    `json:"threatName,omitempty"`
	Rule            string    `json:"rule,omitempty"`
}

// Device is a device that takes part.
type Device struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// Change is what was changed and by whom.
type Change struct {
	From string `json:"from"`
	To   string `json:"to"`
	By   string `json:"by"`
}

// messageVersion is that of the JSON.
const messageVersion = 1

// EventTest is the event of a message that somebody has asked for.
const EventTest = "test"

// Trigger is what a notification is sent for.
type Trigger string

// The triggers. An alert or incident that was below the severity that is
// asked for and has risen to it counts as new.
const (
	OnAlert    Trigger = "newAlert"
	OnIncident Trigger = "newIncident"
	OnStatus   Trigger = "statusChange"
)

var triggers = []Trigger{OnAlert, OnIncident, OnStatus}

// trigger of a message.
func (m *Message) trigger() Trigger {
	switch {
	case strings.HasSuffix(m.Event, ".changed"):
		return OnStatus
	case strings.HasPrefix(m.Event, "alert."):
		return OnAlert
	default:
		return OnIncident
	}
}

// wants reports whether a notification is to be sent for a message.
func (r *row) wants(m *Message) bool {
	return r.Enabled && m.Severity >= r.MinSeverity && (r.IncludeTests || !m.Test) && slices.Contains(r.Triggers, m.trigger()) &&
		(m.Was == 0 || m.Was < r.MinSeverity)
}

// line says a message in one line.
func (m *Message) line() string {
	var what string
	switch m.Event {
	case EventTest:
		return "Komainu test message: if you read this, notifications arrive."
	case "alert.created":
		what = "New alert"
	case "alert.raised":
		what = "Alert is more severe"
	case "alert.changed":
		what = "Alert changed"
	case "incident.created":
		what = "New incident"
	case "incident.raised":
		what = "Incident is more severe"
	case "incident.changed":
		what = "Incident changed"
	case "upgrade.halted":
		what = "Upgrade halted"
	case "device.offboarded":
		what = "Protection ended"
	default:
		what = m.Event
	}
	if m.Test {
		what = "[Test] " + what
	}
	line := fmt.Sprintf("%s (%s): %s", what, m.Severity, m.Title)
	if names := m.deviceNames(); names != "" {
		line += " on " + names
	}
	if m.Change != nil {
		line += fmt.Sprintf(" – %s → %s by %s", m.Change.From, m.Change.To, m.Change.By)
	}
	return oneLine(line)
}

func (m *Message) deviceNames() string {
	var names []string
	for _, d := range m.Devices {
		names = append(names, d.Name)
	}
	return strings.Join(names, ", ")
}

// oneLine keeps what a host has named from beginning a header or a line of
// its own.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\u2028' || r == '\u2029' }), " ")
}
