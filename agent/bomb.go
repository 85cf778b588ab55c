package agent

import (
	"komainu/finding"
	"komainu/policy"
)

// bombNames are what archive bombs are called, by how they exhaust.
var bombNames = map[finding.Bomb]finding.ThreatName{
	finding.BombRatio: "ArchiveBomb:Any/Ratio",
	finding.BombSize:  "ArchiveBomb:Any/Size",
	finding.BombCount: "ArchiveBomb:Any/Count",
	finding.BombDepth: "ArchiveBomb:Any/Depth",
}

// bombAction is what policy wants to be done about archive bombs. A device
// without a word on it reports them.
func bombAction(e *policy.Effective) policy.ThreatAction {
	if a, ok := e.ThreatTypes[policy.ArchiveBomb]; ok {
		return a
	}
	return policy.ActionAudit
}

// rated makes a threat of an archive bomb, unless policy does not want to know
// of them.
func (p *protector) rated(v finding.Verdict) finding.Verdict {
	if v.Bomb != "" && bombAction(p.now.Load()) != policy.ActionOff {
		return named(v)
	}
	return v
}

// named makes a threat of an archive bomb. The reason stays: it says which
// limit the archive breaks.
func named(v finding.Verdict) finding.Verdict {
	if v.Bomb != "" {
		v.Outcome, v.Threat, v.Type = finding.Malicious, bombNames[v.Bomb], finding.ThreatType(policy.ArchiveBomb)
	}
	return v
}

// onlyReported tells what is found and left alone whatever the filesystem and
// the enforcement level say.
func (p *protector) onlyReported(v finding.Verdict) bool {
	return v.Bomb != "" && bombAction(p.now.Load()) != policy.ActionBlock
}
