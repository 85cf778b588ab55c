package plan

import (
	"slices"

	"komainu/policy"
)

// Capability is something that a plan provides. Engine says whether this
// version really has it: a promise without an engine is shown as such and
// cannot be switched on.
type Capability struct {
	ID     string
	Name   string // English; the portal translates by ID
	Tiers  []policy.Tier
	Engine bool
	// Setting says that it can be switched, and Default what it is when a plan
	// is switched on.
	Setting bool
	Default bool
}

var both, p2 = []policy.Tier{policy.P1, policy.P2}, []policy.Tier{policy.P2}

// capabilities is the one table of what plans provide and what this version
// has.
var capabilities = []Capability{
	{ID: "endpoint_protection", Name: "Endpoint protection", Tiers: both, Engine: true, Setting: true, Default: true},
	{ID: "endpoint_detection", Name: "Endpoint detection: process, network and file telemetry with behaviour rules", Tiers: both, Engine: true},
	{ID: "alerts_incidents", Name: "Alerts and incidents in one portal", Tiers: both, Engine: true},
	{ID: "multi_environment", Name: "Servers of every origin in one inventory", Tiers: both, Engine: true},
	{ID: "automatic_deployment", Name: "Automatic deployment of the agent", Tiers: both, Engine: true},
	{ID: "software_inventory", Name: "Software inventory", Tiers: both},
	{ID: "vulnerability_assessment", Name: "Vulnerability assessment for machines", Tiers: both, Setting: true},
	{ID: "regulatory_compliance", Name: "Regulatory compliance assessment", Tiers: both},
	{ID: "agentless_scanning", Name: "Agentless scanning for machines", Tiers: p2, Setting: true},
	{ID: "file_integrity_monitoring", Name: "File integrity monitoring", Tiers: p2, Setting: true},
	{ID: "os_baseline", Name: "Operating system baseline assessment", Tiers: p2},
	{ID: "os_updates", Name: "Operating system updates", Tiers: p2},
	{ID: "dns_alerts", Name: "DNS alerts", Tiers: p2},
	{ID: "just_in_time_access", Name: "Just-in-time access to management ports", Tiers: p2},
}

// In reports whether a tier provides the capability.
func (c Capability) In(t policy.Tier) bool { return slices.Contains(c.Tiers, t) }

// Reasons why a setting cannot be changed.
const (
	ReasonPlanOff    = "plan_off"
	ReasonRequiresP2 = "requires_p2"
	ReasonNoEngine   = "not_in_this_version"
)

// reason returns why a setting cannot be switched under a plan, "" if it can.
func (c Capability) reason(servers bool, tier policy.Tier) string {
	switch {
	case !servers:
		return ReasonPlanOff
	case !c.In(tier):
		return ReasonRequiresP2
	case !c.Engine:
		return ReasonNoEngine
	default:
		return ""
	}
}

// Compared is a row of the comparison of plans.
type Compared struct {
	ID            string `json:"id"`
	Name          string `json:"name"`
	P1            bool   `json:"P1"`
	P2            bool   `json:"P2"`
	InThisVersion bool   `json:"inThisVersion"`
}

// Compare returns what each plan provides.
func Compare() []Compared {
	rows := make([]Compared, len(capabilities))
	for i, c := range capabilities {
		rows[i] = Compared{ID: c.ID, Name: c.Name, P1: c.In(policy.P1), P2: c.In(policy.P2), InThisVersion: c.Engine}
	}
	return rows
}
