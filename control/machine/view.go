package machine

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"komainu/control/rest"
	"komainu/deploy"
	"komainu/policy"
)

// Effective is the plan that a machine has, and why.
type Effective struct {
	Plan     policy.Tier
	From     string // environment, machine or tag
	Excluded string // the tag that excludes it, NAME=VALUE
}

// PlanView is the plan of a machine as it is shown.
type PlanView struct {
	Effective policy.Tier `json:"effective" doc:"off, P1 or P2"`
	Setting   string      `json:"setting" doc:"inherit, off, P1 or P2"`
	From      string      `json:"from" doc:"environment, machine or tag"`
}

// ExtensionView is the extension of a machine as it is shown.
type ExtensionView struct {
	Name         string         `json:"name"`
	State        deploy.State   `json:"state" doc:"none, waiting, creating, succeeded, failed, not_applicable or removing"`
	Step         deploy.Step    `json:"step" doc:"connect, preflight, transfer, install, enrol, report or self_test, while it is creating"`
	Waits        string         `json:"waits" doc:"what the step waits for"`
	Reason       *deploy.Reason `json:"reason"`
	Since        time.Time      `json:"since"`
	StartedAt    *time.Time     `json:"startedAt"`
	Seconds      float64        `json:"seconds" doc:"that the latest successful deployment took"`
	Attempt      int            `json:"attempt"`
	NextAttempt  *time.Time     `json:"nextAttemptAt"`
	AgentVersion string         `json:"agentVersion"`
	SelfTest     string         `json:"selfTestRun" doc:"id of the run that proved the protection"`
	Alert        string         `json:"alert" doc:"id of the alert that it raised"`
	ProtectedAt  *time.Time     `json:"protectedAt"`
	Observing    bool           `json:"observing" doc:"whether malware is reported, not blocked, for now"`
	ObserveUntil *time.Time     `json:"observeUntil"`
}

// View is a line of the list of machines.
type View struct {
	ID           string        `json:"id"`
	Name         string        `json:"name"`
	Environment  rest.Ref      `json:"environment"`
	Source       string        `json:"source" doc:"ssh, azure, aws, gcp, or agent for one that enrolled by itself"`
	Connector    *rest.Ref     `json:"connector"`
	Address      string        `json:"address"`
	ExternalID   string        `json:"externalId"`
	System       string        `json:"system"`
	OS           string        `json:"os"`
	Arch         string        `json:"arch"`
	Tags         []Tag         `json:"tags" doc:"of the inventory and of people"`
	OwnTags      []Tag         `json:"ownTags" doc:"that people gave here"`
	Plan         PlanView      `json:"plan"`
	ExcludedBy   string        `json:"excludedBy"`
	Device       *rest.Ref     `json:"device"`
	FirstSeen    time.Time     `json:"firstSeen"`
	LastSeen     time.Time     `json:"lastSeen"`
	Gone         bool          `json:"gone" doc:"its inventory does not name it any more"`
	Offboarded   bool          `json:"offboarded"`
	Left         bool          `json:"offboardedByHost" doc:"its own host has offboarded it"`
	OffboardedAt *time.Time    `json:"offboardedAt"`
	Extension    ExtensionView `json:"extension"`
	Protected    bool          `json:"protected"`
	Version      uint64        `json:"version"`
}

// View returns what is shown of a machine; names of others are the caller's
// to fill in.
func (m *Machine) View(e Effective, now time.Time) View {
	x := m.Extension
	v := View{
		ID: m.ID, Name: m.Name, Environment: rest.Ref{ID: m.Environment}, Source: m.Source, Address: m.Address, ExternalID: m.ExternalID, System: m.System, OS: m.OS,
		Arch: m.Arch, Tags: m.AllTags(), OwnTags: m.OwnTags, Plan: PlanView{e.Plan, SettingName(m.Plan), e.From}, ExcludedBy: e.Excluded, FirstSeen: m.FirstSeen, LastSeen: m.LastSeen,
		Gone: m.Gone, Offboarded: m.Offboarded, Left: m.Left, OffboardedAt: when(m.OffboardedAt), Version: m.Version, Protected: x.State == deploy.Succeeded,
		Extension: ExtensionView{
			Name: deploy.Extension, State: x.State, Step: x.Step, Waits: x.Waits, Reason: x.Reason, Since: x.Since, StartedAt: when(x.StartedAt), Seconds: x.Seconds,
			Attempt: x.Attempt, NextAttempt: when(x.Next), AgentVersion: x.AgentVersion, SelfTest: x.SelfTest, Alert: x.Alert, ProtectedAt: when(x.Protected),
			Observing: m.Observing(now), ObserveUntil: when(x.Observe),
		},
	}
	if v.Tags == nil {
		v.Tags = []Tag{}
	}
	if v.OwnTags == nil {
		v.OwnTags = []Tag{}
	}
	if m.Connector != "" {
		v.Connector = &rest.Ref{ID: m.Connector}
	}
	if m.Device != "" {
		v.Device = &rest.Ref{ID: string(m.Device), Name: m.Name}
	}
	return v
}

// Observing reports whether a machine is only watched for now.
func (m *Machine) Observing(now time.Time) bool { return m.Extension.Observe.After(now) }

func when(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// Query selects machines.
type Query struct {
	rest.Paging
	Environment string `query:"environment" doc:"id of an environment"`
	State       string `query:"state" enum:"none,waiting,creating,succeeded,failed,not_applicable,removing,gone" required:"false"`
	Reason      string `query:"reason" maxLength:"64" doc:"id of a reason"`
	Connector   string `query:"connector" doc:"id of a connector; none for machines without one"`
	Tag         string `query:"tag" maxLength:"400" doc:"NAME=VALUE, or NAME for any value"`
	Plan        string `query:"plan" enum:"off,P1,P2" required:"false" doc:"the plan in effect"`
	Setting     string `query:"setting" enum:"inherit,off,P1,P2" required:"false"`
	Text        string `query:"q" maxLength:"253" doc:"part of a name, or the beginning of an address"`
	Sort        string `query:"sort" enum:"name,-name,state,-state,since,-since" required:"false" doc:"name when left out"`
}

// Find returns the machines of an organization that a query selects, in its
// order. effective tells the plan of a machine. Machines that are gone are
// left out unless the query asks for them.
func (r *Registry) Find(organization string, q Query, effective func(*Machine) Effective) []*Machine {
	text := strings.ToLower(strings.TrimSpace(q.Text))
	key, value, exact := strings.Cut(q.Tag, "=")
	if !exact {
		value = "*"
	}
	found := slices.DeleteFunc(r.All(q.Environment), func(m *Machine) bool {
		switch {
		case m.Organization != organization:
		case m.Gone != (q.State == "gone"):
		case q.State != "" && q.State != "gone" && string(m.Extension.State) != q.State:
		case q.Reason != "" && (m.Extension.Reason == nil || string(m.Extension.Reason.ID) != q.Reason):
		case q.Connector == "none" && m.Connector != "":
		case q.Connector != "" && q.Connector != "none" && m.Connector != q.Connector:
		case q.Setting != "" && SettingName(m.Plan) != q.Setting:
		case q.Plan != "" && string(effective(m).Plan) != q.Plan:
		case text != "" && !strings.Contains(strings.ToLower(m.Name), text) && !strings.HasPrefix(m.Address, text):
		case q.Tag != "" && !m.tagged(Tag{key, value}):
		default:
			return false
		}
		return true
	})
	by, descending := strings.CutPrefix(q.Sort, "-")
	slices.SortFunc(found, func(a, b *Machine) int {
		order := 0
		switch by {
		case "state":
			order = cmp.Or(cmp.Compare(a.Extension.State, b.Extension.State), cmp.Compare(reasonOf(a), reasonOf(b)))
		case "since":
			order = a.Extension.Since.Compare(b.Extension.Since)
		case "name":
			order = cmp.Compare(a.Name, b.Name)
		}
		if descending {
			order = -order
		}
		return cmp.Or(order, cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	return found
}

func (m *Machine) tagged(t Tag) bool {
	_, ok := m.Has([]Tag{t})
	return ok
}

func reasonOf(m *Machine) deploy.ReasonID {
	if m.Extension.Reason == nil {
		return ""
	}
	return m.Extension.Reason.ID
}

// Counts are the machines of an environment by the state of the extension.
type Counts struct {
	Machines      int `json:"machines"`
	Protected     int `json:"protected"`
	Waiting       int `json:"waiting"`
	Creating      int `json:"creating"`
	Failed        int `json:"failed"`
	NotApplicable int `json:"not_applicable"`
	None          int `json:"none"`
	Removing      int `json:"removing"`
}

// ReasonCount says how many machines are as they are for a reason.
type ReasonCount struct {
	deploy.Reason
	State deploy.State `json:"state"`
	Count int          `json:"count"`
}

// Count counts the machines of every environment of an organization.
func (r *Registry) Count(organization string) map[string]Counts {
	counts := map[string]Counts{}
	for _, m := range r.All("") {
		if m.Organization != organization || m.Gone {
			continue
		}
		c := counts[m.Environment]
		c.Machines++
		switch m.Extension.State {
		case deploy.Succeeded:
			c.Protected++
		case deploy.Waiting:
			c.Waiting++
		case deploy.Creating:
			c.Creating++
		case deploy.Failed:
			c.Failed++
		case deploy.NotApplicable:
			c.NotApplicable++
		case deploy.Removing:
			c.Removing++
		default:
			c.None++
		}
		counts[m.Environment] = c
	}
	return counts
}

// Reasons counts why machines of an environment are not protected, the most
// frequent first.
func (r *Registry) Reasons(environment string) []ReasonCount {
	type key struct {
		id    deploy.ReasonID
		state deploy.State
	}
	counts := map[key]int{}
	for _, m := range r.All(environment) {
		if m.Extension.Reason != nil && !m.Gone {
			counts[key{m.Extension.Reason.ID, m.Extension.State}]++
		}
	}
	list := []ReasonCount{}
	for k, n := range counts {
		list = append(list, ReasonCount{deploy.ReasonOf(k.id, ""), k.state, n})
	}
	slices.SortFunc(list, func(a, b ReasonCount) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.ID, b.ID), cmp.Compare(a.State, b.State))
	})
	return list
}
