package control

import (
	"komainu/control/access"
	"komainu/control/downloads"
	"komainu/control/rest"
)

// routes is the table of the API: what it answers and who may use it.
func (a *api) routes() []rest.Route {
	routes := []rest.Route{
		rest.Full("POST /api/v1/session", rest.Public, "Sign in", a.access.SignIn),
		rest.JSON("GET /api/v1/session", rest.SignedIn, "Who is signed in", a.access.Session),
		rest.Full("DELETE /api/v1/session", rest.SignedIn, "Sign out", a.access.SignOut),
		rest.JSON("POST /api/v1/session/password", rest.SignedIn, "Change one's own password", a.access.ChangePassword),
		rest.JSON("GET /api/v1/users", access.ManageUsers, "List users", a.access.ListUsers),
		rest.JSON("POST /api/v1/users", access.ManageUsers, "Create a user with a one-time password", a.access.CreateUser),
		rest.JSON("PATCH /api/v1/users/{id}", access.ManageUsers, "Change the role of a user, or reset the password", a.access.ChangeUser),
		rest.Empty("DELETE /api/v1/users/{id}", access.ManageUsers, "Delete a user", a.access.DeleteUser),
		rest.JSON("GET /api/v1/tokens", access.ManageTokens, "List API tokens", a.access.ListTokens),
		rest.JSON("POST /api/v1/tokens", access.ManageTokens, "Create an API token", a.access.CreateToken),
		rest.Empty("DELETE /api/v1/tokens/{id}", access.ManageTokens, "Delete an API token", a.access.DeleteToken),
		rest.JSON("GET /api/v1/audit", access.ReadAudit, "List changes by people and tokens, newest first", a.audit.List),
		rest.JSON("GET /api/v1/organization", access.ReadPlans, "The organization", a.access.GetOrganization),

		rest.JSON("GET /api/v1/environments", access.ReadPlans, "List environments", a.listEnvironments),
		rest.JSON("POST /api/v1/environments", access.ManagePlans, "Create an environment", a.createEnvironment),
		rest.JSON("GET /api/v1/environments/{id}", access.ReadPlans, "An environment", a.environment),
		rest.JSON("PATCH /api/v1/environments/{id}", access.ManagePlans, "Rename an environment", a.renameEnvironment),
		rest.Empty("DELETE /api/v1/environments/{id}", access.ManagePlans, "Delete an environment that is off and has nothing in it", a.deleteEnvironment),
		rest.JSON("GET /api/v1/environments/{id}/plan", access.ReadPlans, "The plan of an environment with its settings", a.plan),
		rest.JSON("PUT /api/v1/environments/{id}/plan", access.ManagePlans, "Change the plan of an environment", a.savePlan),
		rest.JSON("GET /api/v1/environments/{id}/join-tokens", access.ManageEnrolment, "List join tokens, newest first", a.listJoinTokens),
		rest.JSON("POST /api/v1/environments/{id}/join-tokens", access.ManageEnrolment, "Create a join token", a.createJoinToken),
		rest.Empty("DELETE /api/v1/environments/{id}/join-tokens/{token}", access.ManageEnrolment, "Revoke a join token; devices that have used it stay", a.revokeJoinToken),
		rest.JSON("GET /api/v1/plans", access.ReadPlans, "What each plan provides", a.comparePlans),

		rest.JSON("GET /api/v1/summary", access.ReadDevices, "Devices, incidents and alerts counted, for a home page", a.summary),
		rest.JSON("GET /api/v1/devices", access.ReadDevices, "List devices by name", a.listDevices),
		rest.JSON("GET /api/v1/devices/{id}", access.ReadDevices, "A device with its health, policy and certificate", a.device),
		rest.JSON("POST /api/v1/devices/{id}/revoke", access.ManageDevices, "Offboard a device: its certificates stop working", a.revokeDevice),
		rest.JSON("GET /api/v1/devices/{id}/timeline", access.ReadDevices, "Events of a device, newest first", a.deviceTimeline),

		rest.JSON("GET /api/v1/detection-tests", access.ReadDevices, "Detection tests that a device can run", a.listTests),
		rest.JSON("POST /api/v1/devices/{id}/detection-tests", access.RunTests, "Run a detection test on a device", a.runTest),
		rest.JSON("GET /api/v1/detection-tests/runs", access.ReadDevices, "List runs of detection tests, newest first", a.listTestRuns),
		rest.JSON("GET /api/v1/detection-tests/runs/{id}", access.ReadDevices, "How far a run of a detection test is, and why not further", a.testRun),

		rest.JSON("GET /api/v1/alerts", access.ReadAlerts, "List alerts, newest activity first", a.listAlerts),
		rest.JSON("GET /api/v1/alerts/{id}", access.ReadAlerts, "An alert with evidence, process tree and events", a.alert),
		rest.JSON("PATCH /api/v1/alerts/{id}", access.TriageAlerts, "Change status, assignee or classification of an alert", a.changeAlert),
		rest.JSON("POST /api/v1/alerts/{id}/comments", access.TriageAlerts, "Comment on an alert", a.commentAlert),
		rest.JSON("GET /api/v1/incidents", access.ReadAlerts, "List incidents, newest activity first", a.listIncidents),
		rest.JSON("GET /api/v1/incidents/{id}", access.ReadAlerts, "An incident with its alerts, graph, evidence, comments and activity", a.incident),
		rest.JSON("PATCH /api/v1/incidents/{id}", access.TriageAlerts, "Change name, status, severity, assignee or classification of an incident", a.changeIncident),
		rest.JSON("POST /api/v1/incidents/{id}/comments", access.TriageAlerts, "Comment on an incident", a.commentIncident),
		rest.JSON("GET /api/v1/notifications", access.ManageNotices, "List notifications by name", a.notices.List),
		rest.JSON("POST /api/v1/notifications", access.ManageNotices, "Create a notification by webhook, mail or syslog", a.notices.Create),
		rest.JSON("GET /api/v1/notifications/{id}", access.ManageNotices, "A notification with how its deliveries go", a.notices.Get),
		rest.JSON("PUT /api/v1/notifications/{id}", access.ManageNotices, "Change a notification", a.notices.Update),
		rest.Empty("DELETE /api/v1/notifications/{id}", access.ManageNotices, "Delete a notification and what waits for it", a.notices.Delete),
		rest.JSON("POST /api/v1/notifications/{id}/test", access.ManageNotices, "Send a test message now", a.notices.Test),
		rest.JSON("GET /api/v1/assignees", access.ReadAlerts, "Who can be given alerts and incidents", a.access.ListAssignees),

		rest.Plain("GET /api/v1/stream", rest.SignedIn, "Changes as server-sent events: device, alert, incident, plan, policy, group", "text/event-stream", a.stream),

		rest.Plain("GET /metrics", access.ReadMetrics, "Figures for Prometheus", "text/plain", a.metrics),
		rest.Plain("GET /healthz", rest.Public, "Whether the process lives", "application/json", a.healthz),
		rest.Plain("GET /readyz", rest.Public, "Whether requests can be served", "application/json", a.readyz),
		rest.Plain("GET /ca.pem", rest.Public, "The certificate of the control plane's CA", "application/x-pem-file", a.ca),
	}
	routes = append(routes, a.policyRoutes()...)
	routes = append(routes, a.machineRoutes()...)
	routes = append(routes, a.repositoryRoutes()...)
	routes = append(routes, a.upgradeRoutes()...)
	routes = append(routes, a.installRoutes()...)
	for _, f := range downloads.Files() {
		routes = append(routes, rest.Plain("GET /downloads/"+f.Name, rest.Public, f.About, f.Media, f.ServeHTTP))
	}
	return routes
}
