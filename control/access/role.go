package access

import (
	"slices"

	"komainu/control/rest"
	"komainu/fault"
)

// Role is what a user or an API token may do.
type Role string

// The roles. Each may do what the one before it may.
const (
	Reader   Role = "reader"
	Operator Role = "operator"
	Admin    Role = "admin"
)

// The permissions that routes ask for.
const (
	ReadDevices     rest.Permission = "devices.read"
	ReadAlerts      rest.Permission = "alerts.read"
	ReadPlans       rest.Permission = "plans.read"
	ReadPolicies    rest.Permission = "policies.read"
	ReadMetrics     rest.Permission = "metrics.read"
	TriageAlerts    rest.Permission = "alerts.triage"
	ManageEnrolment rest.Permission = "enrolment.manage"
	ManageDevices   rest.Permission = "devices.manage"
	RunTests        rest.Permission = "tests.run"
	ManagePolicies  rest.Permission = "policies.manage"
	ManagePlans     rest.Permission = "plans.manage"
	ManageUsers     rest.Permission = "users.manage"
	ManageTokens    rest.Permission = "tokens.manage"
	ReadAudit       rest.Permission = "audit.read"
	ManageNotices   rest.Permission = "notifications.manage"
)

// grants says from which role on a permission is held.
var grants = []struct {
	permission rest.Permission
	from       Role
}{
	{ReadDevices, Reader},
	{ReadAlerts, Reader},
	{ReadPlans, Reader},
	{ReadPolicies, Reader},
	{ReadMetrics, Reader},
	{TriageAlerts, Operator},
	{ManageEnrolment, Operator},
	{ManageDevices, Operator},
	{RunTests, Operator},
	{ManagePolicies, Operator},
	{ManagePlans, Admin},
	{ManageUsers, Admin},
	{ManageTokens, Admin},
	{ReadAudit, Admin},
	{ManageNotices, Admin},
}

// ranks orders the roles.
var ranks = []Role{Reader, Operator, Admin}

// ParseRole returns the role with this name.
func ParseRole(name string) (Role, error) {
	if r := Role(name); slices.Contains(ranks, r) {
		return r, nil
	}
	return "", fault.New(fault.Invalid, "role %q: want reader, operator or admin", name)
}

// May reports whether the role holds a permission. A permission that the table
// does not know is held by nobody.
func (r Role) May(p rest.Permission) bool {
	return slices.Contains(r.Permissions(), p)
}

// Permissions lists what the role may do.
func (r Role) Permissions() []rest.Permission {
	var list []rest.Permission
	for _, g := range grants {
		if rank := slices.Index(ranks, r); rank >= 0 && rank >= slices.Index(ranks, g.from) {
			list = append(list, g.permission)
		}
	}
	return list
}
