package onboard

import (
	"context"

	"komainu/control/machine"
	"komainu/deploy"
)

// decide says what should be with a machine, of a connector that nobody but a
// person uses too: the control plane waits for that person, looks after the
// agent that they bring, and tries nothing by itself.
func (e *Engine) decide(ctx context.Context, m *machine.Machine, p Plan, s Settings) (decision, error) {
	device := e.device(m)
	command, err := e.cfg.Pushed(ctx, m)
	if err != nil || command == "" {
		return decide(m, p, s, device), err
	}
	alone := *m
	alone.Connector = ""
	d := decide(&alone, p, s, device)
	switch {
	case d.reason == nil:
	case d.reason.ID == deploy.NoWay:
		return stay(deploy.Waiting, deploy.CredentialMissing, command), nil
	case d.reason.ID == deploy.NoReport && m.Extension.State != deploy.Succeeded && device.Awaited < silentFor:
		return decision{work: verify}, nil // it has just enrolled, and connects
	case d.reason.ID == deploy.NoReport:
		d.reason.Detail += "; to install it anew: " + command
	}
	return d, nil
}

// Unwanted says why nobody is to deploy to a machine, nil when somebody may.
func (e *Engine) Unwanted(ctx context.Context, m *machine.Machine) (*deploy.Reason, error) {
	p, err := e.cfg.Plan(ctx, m.Organization, m.Environment)
	if err != nil {
		return nil, err
	}
	d := decide(m, p, e.Settings(m.Environment).Settings, e.device(m))
	switch {
	case m.Gone && !m.Offboarded:
		return new(deploy.ReasonOf(deploy.NoWay, "its connector does not list it any more")), nil
	case m.Offboarded, d.work == nothing && (d.state == deploy.None || d.state == deploy.NotApplicable):
		return d.reason, nil
	}
	return nil, nil
}
