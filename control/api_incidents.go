package control

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"komainu/content/rules"
	"komainu/control/access"
	"komainu/control/eventstore"
	"komainu/control/incident"
	"komainu/control/rest"
	"komainu/event"
	"komainu/finding"
)

// EvidenceView is an entity that took part in an alert.
type EvidenceView struct {
	Role    finding.Role            `json:"role"`
	Verdict string                  `json:"verdict"`
	State   string                  `json:"state"`
	File    *eventstore.FileView    `json:"file,omitempty"`
	Process *eventstore.ProcessView `json:"process,omitempty"`
	User    *eventstore.UserView    `json:"user,omitempty"`
	Network *eventstore.NetworkView `json:"network,omitempty"`
}

func evidenceView(e finding.Evidence) EvidenceView {
	// An event shows what takes part in it the same way.
	seen := eventstore.ViewOf(&event.Event{File: e.File, Process: e.Process, Network: e.Network})
	v := EvidenceView{Role: e.Role, Verdict: e.Verdict, State: e.State, File: seen.File, Process: seen.Process, Network: seen.Network}
	if e.User != nil {
		v.User = &eventstore.UserView{UID: e.User.UID, EUID: e.User.EUID, Name: e.User.Name}
	}
	return v
}

// RuleView is the rule that decided, and what it has found.
type RuleView struct {
	incident.Rule
	About          string            `json:"about" doc:"what the rule is about"`
	Logic          string            `json:"logic" doc:"what the rule looks for"`
	FalsePositives []string          `json:"falsePositives" doc:"what else looks like it"`
	Matched        map[string]string `json:"matched" doc:"what it has found here, field by field"`
}

// AlertView is an alert with its story.
type AlertView struct {
	incident.Alert
	incident.Work
	Rule               RuleView                 `json:"rule"`
	Evidence           []EvidenceView           `json:"evidence" doc:"the first one is the main one"`
	Tree               []eventstore.ProcessView `json:"tree" doc:"the acting process, its ancestors, and others that took part"`
	Events             []eventstore.View        `json:"events" doc:"what led to it, in order"`
	RecommendedActions []string                 `json:"recommendedActions"`
	Effects            []incident.Effect        `json:"effects,omitempty" doc:"what else the change has done"`
}

// IncidentEvidence is an entity with the alert that tells of it.
type IncidentEvidence struct {
	EvidenceView
	Alert  string   `json:"alert"`
	Device rest.Ref `json:"device"`
}

// IncidentView is an incident with its story.
type IncidentView struct {
	incident.IncidentPage
	incident.Work
	Graph           incident.Graph     `json:"graph"`
	Evidence        []IncidentEvidence `json:"evidence" doc:"every entity once, at most 500"`
	EvidenceLeftOut int                `json:"evidenceLeftOut" doc:"entities beyond the limit"`
	Effects         []incident.Effect  `json:"effects,omitempty" doc:"what else the change has done"`
}

// maxEvidence bounds the evidence of an incident.
const maxEvidence = 500

// signature is the logic of what the scan engine decides.
const signature = "The content of the file matches this signature of the definitions."

// ruleView says what the rule of a finding is about. The texts are those of
// this version; a rule that it does not know keeps its name.
func (a *api) ruleView(r incident.Rule, f *finding.Finding) RuleView {
	v := RuleView{Rule: r, FalsePositives: []string{}, Matched: incident.Matched(f)}
	if f.Source == finding.SourceAntivirus {
		v.Logic = signature
		return v
	}
	metas, err := shippedRules()
	if err != nil {
		a.log.Error("the texts of the rules cannot be read", "error", err)
		return v
	}
	if m, ok := metas[r.ID]; ok {
		v.About, v.Logic = strings.TrimSpace(m.Description), strings.TrimSpace(m.Logic)
		v.FalsePositives = append(v.FalsePositives, m.FalsePositives...)
	}
	return v
}

// shippedRules reads the texts once; they are part of the program.
var shippedRules = sync.OnceValues(rules.All)

func (a *api) listAlerts(ctx context.Context, in *incident.AlertQuery) (rest.List[incident.Alert], error) {
	list, err := a.desk.Alerts(ctx, access.ActorOf(ctx).Organization, *in)
	a.nameAlerts(list.Items)
	return list, err
}

func (a *api) nameAlerts(alerts []incident.Alert) {
	for i := range alerts {
		a.nameDevice(&alerts[i].Device)
	}
}

func (a *api) nameDevice(r *rest.Ref) {
	id := event.DeviceID(r.ID)
	r.Name = a.devices.Names(id)[id]
}

type byID struct {
	ID string `path:"id"`
}

func (a *api) alert(ctx context.Context, in *byID) (AlertView, error) {
	alert, f, err := a.desk.Alert(ctx, access.ActorOf(ctx).Organization, in.ID)
	if err != nil {
		return AlertView{}, err
	}
	work, err := a.desk.AlertWork(ctx, alert)
	if err != nil {
		return AlertView{}, err
	}
	v := AlertView{
		Alert: alert, Work: work, Rule: a.ruleView(alert.Rule, &f), Evidence: make([]EvidenceView, len(f.Evidence)), Tree: make([]eventstore.ProcessView, len(f.Tree)), Events: eventstore.Views(f.Events),
		RecommendedActions: incident.Recommended(&f),
	}
	a.nameDevice(&v.Device)
	for i := range f.Evidence {
		v.Evidence[i] = evidenceView(f.Evidence[i])
	}
	for i := range f.Tree {
		v.Tree[i] = eventstore.ProcessViewOf(f.Tree[i])
	}
	return v, nil
}

type changeInput struct {
	ID   string `path:"id"`
	Body incident.Triage
}

func (a *api) changeAlert(ctx context.Context, in *changeInput) (AlertView, error) {
	effects, err := a.desk.ChangeAlert(ctx, access.ActorOf(ctx).Organization, in.ID, in.Body)
	if err != nil {
		return AlertView{}, err
	}
	v, err := a.alert(ctx, &byID{in.ID})
	v.Effects = effects
	return v, err
}

type commentInput struct {
	ID   string `path:"id"`
	Body struct {
		Text string `json:"text" minLength:"1" maxLength:"4000"`
	}
}

func (a *api) commentAlert(ctx context.Context, in *commentInput) (incident.Comment, error) {
	return a.desk.CommentAlert(ctx, access.ActorOf(ctx).Organization, in.ID, in.Body.Text)
}

func (a *api) commentIncident(ctx context.Context, in *commentInput) (incident.Comment, error) {
	return a.desk.CommentIncident(ctx, access.ActorOf(ctx).Organization, in.ID, in.Body.Text)
}

func (a *api) listIncidents(ctx context.Context, in *incident.IncidentQuery) (rest.List[incident.Incident], error) {
	list, err := a.desk.Incidents(ctx, access.ActorOf(ctx).Organization, *in)
	for i := range list.Items {
		for j := range list.Items[i].Devices {
			a.nameDevice(&list.Items[i].Devices[j])
		}
	}
	return list, err
}

func (a *api) incident(ctx context.Context, in *byID) (IncidentView, error) {
	page, err := a.desk.Incident(ctx, access.ActorOf(ctx).Organization, in.ID)
	if err != nil {
		return IncidentView{}, err
	}
	for i := range page.Devices {
		a.nameDevice(&page.Devices[i])
	}
	a.nameAlerts(page.AlertItems)
	v := IncidentView{IncidentPage: page, Evidence: []IncidentEvidence{}}
	if v.Work, err = a.desk.IncidentWork(ctx, page.Incident); err != nil {
		return v, err
	}
	told, err := a.desk.Told(ctx, page)
	if err != nil {
		return v, err
	}
	for i := range told {
		a.nameDevice(&told[i].Alert.Device)
	}
	v.Graph = incident.GraphOf(told)
	v.Evidence, v.EvidenceLeftOut = evidenceOf(told)
	return v, nil
}

// evidenceOf lists every entity of alerts once, with the newest state of it.
func evidenceOf(told []incident.Told) (list []IncidentEvidence, leftOut int) {
	list = []IncidentEvidence{}
	seen := map[string]int{}
	for _, t := range told {
		for _, e := range t.Finding.Evidence {
			item := IncidentEvidence{EvidenceView: evidenceView(e), Alert: t.Alert.ID, Device: t.Alert.Device}
			key := item.Device.ID + "\x00" + entityOf(&item.EvidenceView)
			at, known := seen[key]
			switch {
			case known && at >= 0:
				list[at] = item
			case known:
			case len(list) >= maxEvidence:
				seen[key] = -1
				leftOut++
			default:
				seen[key] = len(list)
				list = append(list, item)
			}
		}
	}
	return list, leftOut
}

// entityOf names what a piece of evidence is about.
func entityOf(e *EvidenceView) string {
	switch {
	case e.File != nil:
		return "file:" + e.File.Path + ":" + e.File.SHA256
	case e.Process != nil:
		return "process:" + e.Process.Key
	case e.User != nil:
		return fmt.Sprint("user:", e.User.UID, e.User.EUID, e.User.Name)
	case e.Network != nil:
		return fmt.Sprint("network:", e.Network.Protocol, e.Network.RemoteIP, e.Network.RemotePort, e.Network.URL, e.Network.Query)
	}
	return ""
}

func (a *api) changeIncident(ctx context.Context, in *changeInput) (IncidentView, error) {
	effects, err := a.desk.ChangeIncident(ctx, access.ActorOf(ctx).Organization, in.ID, in.Body)
	if err != nil {
		return IncidentView{}, err
	}
	v, err := a.incident(ctx, &byID{in.ID})
	v.Effects = effects
	return v, err
}
