package agent

import (
	"context"

	"komainu/agent/link"
	"komainu/agent/localapi"
	"komainu/fault"
)

// Prove implements localapi.Enrolment. The start has put an identity away that
// is not this machine's; a machine that was copied while it ran has not started.
func (l *local) Prove(_ context.Context, req localapi.ProofRequest) (localapi.ProofResult, error) {
	id, err := link.Load(l.w.cfg.State)
	if err != nil {
		return localapi.ProofResult{}, err
	}
	return prove(id, thisMachine(), req)
}

func prove(id link.Identity, here fingerprint, req localapi.ProofRequest) (localapi.ProofResult, error) {
	if parseFingerprint(id.Machine).another(here) {
		return localapi.ProofResult{}, fault.New(fault.Conflict, "this machine is a copy of the one that is device %s; restart the agent, which puts the identity away", id.Device)
	}
	p, err := id.Prove(req.Nonce)
	if err != nil {
		return localapi.ProofResult{}, err
	}
	return localapi.ProofResult{Device: string(id.Device), Proof: p.String()}, nil
}
