package control

import (
	"context"
	"time"

	"komainu/control/access"
	"komainu/control/connector"
	"komainu/control/enrol"
	"komainu/control/machine"
	"komainu/control/onboard"
	"komainu/control/rest"
	"komainu/deploy"
	"komainu/event"
	"komainu/fault"
	"komainu/policy"
)

// machineRoutes are the routes of machines, connectors and onboarding.
func (a *api) machineRoutes() []rest.Route {
	return []rest.Route{
		rest.JSON("GET /api/v1/machines", access.ReadDevices, "List machines, with an agent or without one", a.listMachines),
		rest.JSON("GET /api/v1/machines/{id}", access.ReadDevices, "A machine, with what happened on its way to protection", a.machine),
		rest.JSON("PATCH /api/v1/machines/{id}", access.ManagePlans, "Change the plan or the tags of a machine", a.changeMachine),
		rest.JSON("POST /api/v1/machines/{id}/deploy", access.ManageDevices, "Bring a machine under protection now", a.deployMachine),
		rest.JSON("POST /api/v1/machines/{id}/offboard", access.ManageDevices, "Revoke the identity of a machine's agent and remove it; what is known of it stays", a.offboardMachine),
		rest.JSON("POST /api/v1/machines/{id}/join-token", access.ManageEnrolment, "Create a join token with which the agent enrols as that of this machine: good once, for a quarter of an hour", a.createMachineToken),
		rest.JSON("POST /api/v1/machines/{id}/device", access.ManageDevices, "Say which device runs on a machine, where somebody has looked; the machine that it was until then is the same one", a.linkMachine),
		rest.Empty("DELETE /api/v1/machines/{id}", access.ManageDevices, "Forget a machine that has no agent and that no inventory names", a.deleteMachine),
		rest.JSON("GET /api/v1/deployment-reasons", access.ReadDevices, "Every reason why a machine may not be protected, with what to do about it", a.deploymentReasons),

		rest.JSON("GET /api/v1/environments/{id}/onboarding", access.ReadPlans, "How machines are brought under protection, and how far they are", a.onboarding),
		rest.JSON("PUT /api/v1/environments/{id}/onboarding", access.ManagePlans, "Change how machines are brought under protection", a.saveOnboarding),
		rest.JSON("POST /api/v1/environments/{id}/onboarding/preview", access.ReadPlans, "What would be done with each machine; nothing is changed", a.previewOnboarding),
		rest.JSON("GET /api/v1/environments/{id}/coverage", access.ReadPlans, "How many machines were protected, over time", a.coverage),

		rest.JSON("GET /api/v1/environments/{id}/connectors", access.ReadPlans, "List connectors by name", a.listConnectors),
		rest.JSON("POST /api/v1/environments/{id}/connectors", access.ManagePlans, "Create a connector and take its inventory over", a.createConnector),
		rest.JSON("POST /api/v1/environments/{id}/connectors/test", access.ManagePlans, "Try a connector that is not saved yet: log in and look, change nothing", a.testNewConnector),
		rest.JSON("GET /api/v1/connectors/{id}", access.ReadPlans, "A connector, without its secrets", a.connector),
		rest.JSON("PUT /api/v1/connectors/{id}", access.ManagePlans, "Change a connector; secrets that are left out stay", a.saveConnector),
		rest.Empty("DELETE /api/v1/connectors/{id}", access.ManagePlans, "Delete a connector with its secrets; its machines stay", a.deleteConnector),
		rest.JSON("POST /api/v1/connectors/{id}/test", access.ManagePlans, "Try a connector, with changes or as it is: log in and look, change nothing", a.testConnector),
		rest.JSON("POST /api/v1/connectors/{id}/sync", access.ManageDevices, "Take the inventory of a connector over now", a.syncConnector),
		rest.JSON("GET /api/v1/connectors/{id}/host-keys", access.ReadPlans, "List the pinned keys of hosts, those that have changed first", a.listHostKeys),
		rest.Empty("POST /api/v1/connectors/{id}/host-keys/accept", access.ManagePlans, "Pin the key that a host offers now in the place of the one that it had", a.acceptHostKey),
	}
}

// effective tells the plan of machines.
func (a *api) effective(m *machine.Machine) machine.Effective {
	return onboard.Effective(m, a.plans.Tier(m.Environment), a.known.engine.Settings(m.Environment).Exclude)
}

// named are the names that views of machines carry.
type named struct{ environments, connectors map[string]string }

func (a *api) named(ctx context.Context, organization string) (n named, err error) {
	if n.environments, err = a.environmentNames(ctx, organization); err != nil {
		return n, err
	}
	n.connectors, err = a.known.connectors.Names(ctx, organization)
	return n, err
}

func (a *api) machineView(m *machine.Machine, n named) machine.View {
	v := m.View(a.effective(m), time.Now())
	v.Environment.Name = n.environments[m.Environment]
	if v.Connector != nil {
		v.Connector.Name = n.connectors[m.Connector]
	}
	return v
}

func (a *api) listMachines(ctx context.Context, in *machine.Query) (rest.List[machine.View], error) {
	organization := access.ActorOf(ctx).Organization
	n, err := a.named(ctx, organization)
	if err != nil {
		return rest.List[machine.View]{}, err
	}
	found, err := page(&in.Paging, a.known.machines.Find(organization, *in, a.effective))
	if err != nil {
		return rest.List[machine.View]{}, err
	}
	items := make([]machine.View, len(found.Items))
	for i, m := range found.Items {
		items[i] = a.machineView(m, n)
	}
	return rest.NewList(items, found.Total, found.Next), nil
}

// MachineDetails is the page of one machine.
type MachineDetails struct {
	machine.View
	Journal []machine.Line `json:"journal" doc:"what happened lately, the oldest first"`
}

type machineInput struct {
	ID string `path:"id" doc:"id of a machine"`
}

func (a *api) machine(ctx context.Context, in *machineInput) (MachineDetails, error) {
	organization := access.ActorOf(ctx).Organization
	m, err := a.known.machines.Get(organization, in.ID)
	if err != nil {
		return MachineDetails{}, err
	}
	n, err := a.named(ctx, organization)
	if err != nil {
		return MachineDetails{}, err
	}
	lines, err := a.known.machines.Journal(ctx, in.ID)
	return MachineDetails{a.machineView(&m, n), lines}, err
}

type changeMachineInput struct {
	ID   string `path:"id" doc:"id of a machine"`
	Body struct {
		Version uint64         `json:"version" doc:"version that the change is based on"`
		Plan    *string        `json:"plan,omitempty" enum:"inherit,off,P1,P2"`
		Tags    *[]machine.Tag `json:"tags,omitempty" doc:"all tags that people gave; those of the inventory stay"`
	}
}

func (a *api) changeMachine(ctx context.Context, in *changeMachineInput) (MachineDetails, error) {
	c := machine.Change{Version: in.Body.Version, Tags: in.Body.Tags}
	if in.Body.Plan != nil {
		c.Plan = new(policy.Tier(*in.Body.Plan))
		if *in.Body.Plan == "inherit" {
			c.Plan = new(machine.Inherit)
		}
	}
	if err := a.known.machines.Save(ctx, access.ActorOf(ctx).Organization, in.ID, c); err != nil {
		return MachineDetails{}, err
	}
	return a.machine(ctx, &machineInput{in.ID})
}

type deployMachineInput struct {
	ID   string `path:"id" doc:"id of a machine"`
	Body struct {
		Despite bool `json:"despiteConflict,omitempty" doc:"also beside another product that decides on file accesses"`
		Take    bool `json:"takeOver,omitempty" doc:"also when the agent belongs to another control plane"`
	}
}

func (a *api) deployMachine(ctx context.Context, in *deployMachineInput) (MachineDetails, error) {
	if err := a.known.machines.Request(ctx, access.ActorOf(ctx).Organization, in.ID, in.Body.Despite, in.Body.Take); err != nil {
		return MachineDetails{}, err
	}
	return a.machine(ctx, &machineInput{in.ID})
}

// deployable refuses a machine that nobody is to deploy to, and says why.
func (a *api) deployable(ctx context.Context, id string) (machine.Machine, error) {
	m, err := a.known.machines.Get(access.ActorOf(ctx).Organization, id)
	if err != nil {
		return m, err
	}
	why, err := a.known.engine.Unwanted(ctx, &m)
	if err == nil && why != nil {
		err = fault.New(fault.Conflict, "%s is not to get an agent: %w", m.Name, &deploy.Failure{Reason: *why})
	}
	return m, err
}

// createMachineToken lets whoever logs in to a machine enrol it as what it is
// here, not as one more.
func (a *api) createMachineToken(ctx context.Context, in *machineInput) (JoinToken, error) {
	m, err := a.deployable(ctx, in.ID)
	if err != nil {
		return JoinToken{}, err
	}
	return a.newJoinToken(ctx, enrol.TokenRequest{Environment: m.Environment, Machine: m.ID, Label: m.Name, Lasts: deployTokenLife, MaxUses: 1})
}

type linkMachineInput struct {
	ID   string `path:"id" doc:"id of a machine"`
	Body struct {
		Device event.DeviceID `json:"device" minLength:"1" maxLength:"64" doc:"id of the device, as the agent on the machine says it"`
	}
}

func (a *api) linkMachine(ctx context.Context, in *linkMachineInput) (MachineDetails, error) {
	m, err := a.deployable(ctx, in.ID)
	if err != nil {
		return MachineDetails{}, err
	}
	d, ok := a.devices.State(in.Body.Device)
	switch {
	case !ok || d.Organization != m.Organization:
		return MachineDetails{}, fault.New(fault.NotFound, "there is no device %s", in.Body.Device)
	case d.Offboarded:
		return MachineDetails{}, fault.New(fault.Conflict, "the device %s is offboarded; enrol its host anew", in.Body.Device)
	}
	if err := a.known.machines.Link(ctx, m.Organization, m.ID, in.Body.Device); err != nil {
		return MachineDetails{}, err
	}
	if err := a.moved(ctx, m.Device, in.Body.Device); err != nil {
		return MachineDetails{}, err
	}
	return a.machine(ctx, &machineInput{in.ID})
}

// moved is for the device that a machine was until somebody has found another
// one there. It can never come back; if it is connected all the same, it is
// another server.
func (a *api) moved(ctx context.Context, old, by event.DeviceID) error {
	if before, ok := a.devices.State(old); !ok || !before.Connected || before.Offboarded {
		return succession{a.devices, a.ids, a.agents}.replaced(ctx, old, by)
	}
	d, err := a.devices.Member(old)
	if err != nil {
		return err
	}
	return a.known.adoptOne(ctx, d)
}

type offboardMachineInput struct {
	ID   string `path:"id" doc:"id of a machine"`
	Body struct {
		Reason string `json:"reason,omitempty" maxLength:"500"`
	}
}

// offboardMachine ends the protection of a machine. The machine goes first, or
// a plan that is on would bring the agent back.
func (a *api) offboardMachine(ctx context.Context, in *offboardMachineInput) (MachineDetails, error) {
	organization := access.ActorOf(ctx).Organization
	if err := a.known.machines.Offboard(ctx, organization, in.ID, in.Body.Reason); err != nil {
		return MachineDetails{}, err
	}
	// Only now: until then its agent could enrol anew.
	m, err := a.known.machines.Get(organization, in.ID)
	if err != nil {
		return MachineDetails{}, err
	}
	// Nor may somebody who is on the way to it bring it back.
	if err := a.ids.RevokeMachine(ctx, m.ID); err != nil {
		return MachineDetails{}, err
	}
	if m.Device != "" {
		revoke := &revokeInput{ID: m.Device}
		revoke.Body.Reason = in.Body.Reason
		if _, err := a.revokeDevice(ctx, revoke); err != nil && !fault.Is(err, fault.Conflict) {
			return MachineDetails{}, err
		}
	}
	a.known.engine.Offboarded(m.ID)
	return a.machine(ctx, &machineInput{in.ID})
}

func (a *api) deleteMachine(ctx context.Context, in *machineInput) error {
	return a.known.machines.Delete(ctx, access.ActorOf(ctx).Organization, in.ID)
}

// ReasonsView lists the reasons of the catalogue.
type ReasonsView struct {
	Reasons []deploy.Reason `json:"reasons"`
}

func (a *api) deploymentReasons(context.Context, *struct{}) (ReasonsView, error) {
	var v ReasonsView
	for _, id := range deploy.ReasonIDs() {
		v.Reasons = append(v.Reasons, deploy.ReasonOf(id, ""))
	}
	return v, nil
}

// OnboardingView says how an environment's machines are brought under
// protection, and how far they are.
type OnboardingView struct {
	Environment string `json:"environment"`
	onboard.Saved
	Counts  machine.Counts        `json:"counts"`
	Reasons []machine.ReasonCount `json:"reasons" doc:"why machines are not protected, the most frequent first"`
	Working []machine.View        `json:"working" doc:"machines that are worked on now, at most 100"`
}

func (a *api) onboarding(ctx context.Context, in *environmentInput) (OnboardingView, error) {
	organization := access.ActorOf(ctx).Organization
	if _, err := a.plans.Get(ctx, organization, in.ID); err != nil {
		return OnboardingView{}, err
	}
	n, err := a.named(ctx, organization)
	if err != nil {
		return OnboardingView{}, err
	}
	v := OnboardingView{Environment: in.ID, Saved: a.known.engine.Settings(in.ID), Counts: a.known.machines.Count(organization)[in.ID], Reasons: a.known.machines.Reasons(in.ID), Working: []machine.View{}}
	for _, state := range []deploy.State{deploy.Creating, deploy.Removing} {
		for _, m := range a.known.machines.Find(organization, machine.Query{Environment: in.ID, State: string(state), Sort: "since"}, a.effective) {
			if len(v.Working) < 100 {
				v.Working = append(v.Working, a.machineView(m, n))
			}
		}
	}
	return v, nil
}

type saveOnboardingInput struct {
	ID   string `path:"id" doc:"id of an environment"`
	Body onboard.Change
}

func (a *api) saveOnboarding(ctx context.Context, in *saveOnboardingInput) (OnboardingView, error) {
	organization := access.ActorOf(ctx).Organization
	e, err := a.plans.Get(ctx, organization, in.ID)
	if err != nil {
		return OnboardingView{}, err
	}
	if _, err := a.known.engine.Save(ctx, organization, e.ID, e.Name, in.Body); err != nil {
		return OnboardingView{}, err
	}
	return a.onboarding(ctx, &environmentInput{in.ID})
}

// PreviewLine says what would be done with a machine.
type PreviewLine struct {
	Machine rest.Ref       `json:"machine"`
	Address string         `json:"address"`
	Would   string         `json:"would" doc:"install, repair, verify, nothing or skip"`
	Reason  *deploy.Reason `json:"reason" doc:"why it would be skipped"`
}

type previewInput struct {
	ID string `path:"id" doc:"id of an environment"`
	rest.Paging
}

// previewOnboarding answers for the plan as it would be when it is on.
func (a *api) previewOnboarding(ctx context.Context, in *previewInput) (rest.List[PreviewLine], error) {
	if _, err := a.plans.Get(ctx, access.ActorOf(ctx).Organization, in.ID); err != nil {
		return rest.List[PreviewLine]{}, err
	}
	tier := a.plans.Tier(in.ID)
	if tier == policy.Off {
		tier = policy.P2
	}
	machines, err := page(&in.Paging, a.known.engine.Considered(in.ID))
	if err != nil {
		return rest.List[PreviewLine]{}, err
	}
	lines := make([]PreviewLine, len(machines.Items))
	for i, m := range machines.Items {
		would, reason, err := a.known.engine.Preview(ctx, m, onboard.Plan{Tier: tier, Protect: true})
		if err != nil {
			return rest.List[PreviewLine]{}, err
		}
		lines[i] = PreviewLine{rest.Ref{ID: m.ID, Name: m.Name}, m.Address, would, reason}
	}
	return rest.List[PreviewLine]{Items: lines, Total: machines.Total, Next: machines.Next}, nil
}

type coverageInput struct {
	ID   string `path:"id" doc:"id of an environment"`
	Days int    `query:"days" minimum:"1" maximum:"400" default:"30"`
}

// CoverageView is how many machines were protected, over time.
type CoverageView struct {
	Points []machine.Sample `json:"points"`
}

// coveragePoints is more than a chart shows.
const coveragePoints = 400

func (a *api) coverage(ctx context.Context, in *coverageInput) (CoverageView, error) {
	if _, err := a.plans.Get(ctx, access.ActorOf(ctx).Organization, in.ID); err != nil {
		return CoverageView{}, err
	}
	points, err := a.known.machines.Coverage(ctx, in.ID, time.Now().AddDate(0, 0, -in.Days), coveragePoints)
	return CoverageView{points}, err
}

func (a *api) listConnectors(ctx context.Context, in *connector.Query) (rest.List[connector.Connector], error) {
	organization := access.ActorOf(ctx).Organization
	if _, err := a.plans.Get(ctx, organization, in.ID); err != nil {
		return rest.List[connector.Connector]{}, err
	}
	list, err := a.known.connectors.List(ctx, organization, *in)
	for i := range list.Items {
		a.countMachines(organization, &list.Items[i])
	}
	return list, err
}

func (a *api) countMachines(organization string, c *connector.Connector) {
	c.Machines = len(a.known.machines.Find(organization, machine.Query{Environment: c.Environment, Connector: c.ID}, a.effective))
}

type createConnectorInput struct {
	ID   string `path:"id" doc:"id of an environment"`
	Body connector.Change
}

func (a *api) createConnector(ctx context.Context, in *createConnectorInput) (connector.Connector, error) {
	organization := access.ActorOf(ctx).Organization
	if _, err := a.plans.Get(ctx, organization, in.ID); err != nil {
		return connector.Connector{}, err
	}
	c, err := a.known.connectors.Create(ctx, organization, in.ID, in.Body)
	if err != nil {
		return c, err
	}
	return a.synced(ctx, organization, c.ID)
}

// synced takes the inventory of a connector over and returns it. Where that
// is not possible now, the connector says why.
func (a *api) synced(ctx context.Context, organization, id string) (connector.Connector, error) {
	if _, err := a.known.connectors.Sync(ctx, organization, id); err != nil && !fault.Is(err, fault.Conflict) {
		return connector.Connector{}, err
	}
	c, err := a.known.connectors.Get(ctx, organization, id)
	a.countMachines(organization, &c)
	return c, err
}

func (a *api) testNewConnector(ctx context.Context, in *createConnectorInput) (connector.Report, error) {
	organization := access.ActorOf(ctx).Organization
	if _, err := a.plans.Get(ctx, organization, in.ID); err != nil {
		return connector.Report{}, err
	}
	return a.known.connectors.Test(ctx, organization, "", &in.Body)
}

type connectorInput struct {
	ID string `path:"id" doc:"id of a connector"`
}

func (a *api) connector(ctx context.Context, in *connectorInput) (connector.Connector, error) {
	organization := access.ActorOf(ctx).Organization
	c, err := a.known.connectors.Get(ctx, organization, in.ID)
	a.countMachines(organization, &c)
	return c, err
}

type saveConnectorInput struct {
	ID   string `path:"id" doc:"id of a connector"`
	Body connector.Change
}

func (a *api) saveConnector(ctx context.Context, in *saveConnectorInput) (connector.Connector, error) {
	organization := access.ActorOf(ctx).Organization
	c, err := a.known.connectors.Update(ctx, organization, in.ID, in.Body)
	if err != nil {
		return c, err
	}
	// What failed for the old settings is tried with the new ones.
	if err := a.known.engine.Retry(ctx, in.ID); err != nil {
		return c, err
	}
	return a.synced(ctx, organization, in.ID)
}

func (a *api) deleteConnector(ctx context.Context, in *connectorInput) error {
	return a.known.connectors.Delete(ctx, access.ActorOf(ctx).Organization, in.ID)
}

type testConnectorInput struct {
	ID   string            `path:"id" doc:"id of a connector"`
	Body *connector.Change `required:"false"`
}

func (a *api) testConnector(ctx context.Context, in *testConnectorInput) (connector.Report, error) {
	return a.known.connectors.Test(ctx, access.ActorOf(ctx).Organization, in.ID, in.Body)
}

func (a *api) syncConnector(ctx context.Context, in *connectorInput) (machine.Synced, error) {
	return a.known.connectors.Sync(ctx, access.ActorOf(ctx).Organization, in.ID)
}

func (a *api) listHostKeys(ctx context.Context, in *connector.Query) (rest.List[connector.HostKey], error) {
	return a.known.connectors.HostKeys(ctx, access.ActorOf(ctx).Organization, *in)
}

type acceptHostKeyInput struct {
	ID   string `path:"id" doc:"id of a connector"`
	Body struct {
		Host        string `json:"host" minLength:"1" maxLength:"300" doc:"host:port"`
		Fingerprint string `json:"fingerprint" minLength:"1" maxLength:"200" doc:"of the offered key, as it was compared with the host's console"`
	}
}

func (a *api) acceptHostKey(ctx context.Context, in *acceptHostKeyInput) error {
	if err := a.known.connectors.Accept(ctx, access.ActorOf(ctx).Organization, in.ID, in.Body.Host, in.Body.Fingerprint); err != nil {
		return err
	}
	return a.known.engine.Retry(ctx, in.ID)
}
