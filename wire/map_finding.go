package wire

import (
	"komainu/event"
	"komainu/finding"
	"komainu/wire/wirepb"
)

func findingTo(f *finding.Finding) *wirepb.Finding {
	return &wirepb.Finding{
		Id: text(string(f.ID)), Time: timeTo(f.Time), Title: text(f.Title), Severity: uint32(f.Severity), Category: text(string(f.Category)),
		Techniques: texts(clip(f.Techniques, maxTechniques)), Source: text(string(f.Source)),
		Rule:   &wirepb.Rule{Id: text(f.Rule.ID), Name: text(f.Rule.Name), Version: text(f.Rule.Version)},
		Threat: threatTo(f.Threat), State: text(string(f.State)), Summary: text(f.Summary),
		Evidence: each(clip(f.Evidence, maxEvidence), evidenceTo),
		Tree:     each(clip(f.Tree, maxTree), func(p event.Process) *wirepb.Process { return processTo(&p) }),
		Events:   each(clip(f.Events, maxEvents), func(e event.Event) *wirepb.Event { return eventTo(&e) }),
		Test:     f.Test,
	}
}

func findingOf(device event.DeviceID, f *wirepb.Finding) *finding.Finding {
	return &finding.Finding{
		ID: finding.ID(f.GetId()), Device: device, Time: timeOf(f.GetTime()), Title: f.GetTitle(), Severity: finding.Severity(min(f.GetSeverity(), 255)),
		Category: finding.Category(f.GetCategory()), Techniques: f.GetTechniques(), Source: finding.DetectionSource(f.GetSource()),
		Rule:   finding.Rule{ID: f.GetRule().GetId(), Name: f.GetRule().GetName(), Version: f.GetRule().GetVersion()},
		Threat: threatOf(f.GetThreat()), State: finding.State(f.GetState()), Summary: f.GetSummary(),
		Evidence: each(f.GetEvidence(), evidenceOf),
		Tree:     each(f.GetTree(), func(p *wirepb.Process) event.Process { return *processOf(p) }),
		Events:   each(f.GetEvents(), func(e *wirepb.Event) event.Event { return *eventOf(device, e) }),
		Test:     f.GetTest(),
	}
}

func evidenceTo(e finding.Evidence) *wirepb.Evidence {
	var user *wirepb.User
	if e.User != nil {
		// An empty user is still a user here: root has no name on some hosts.
		if user = userTo(*e.User); user == nil {
			user = &wirepb.User{}
		}
	}
	return &wirepb.Evidence{
		Role: text(string(e.Role)), Verdict: text(e.Verdict), State: text(e.State),
		File: fileTo(e.File), Process: processTo(e.Process), User: user, Network: networkTo(e.Network),
	}
}

func evidenceOf(e *wirepb.Evidence) finding.Evidence {
	out := finding.Evidence{
		Role: finding.Role(e.GetRole()), Verdict: e.GetVerdict(), State: e.GetState(),
		File: fileOf(e.GetFile()), Process: processOf(e.GetProcess()), Network: networkOf(e.GetNetwork()),
	}
	if e.GetUser() != nil {
		out.User = new(userOf(e.GetUser()))
	}
	return out
}
