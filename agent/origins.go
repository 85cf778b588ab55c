package agent

import (
	"encoding/json"
	"maps"
	"slices"

	"komainu/health"
	"komainu/policy"
)

// maxLocal bounds what the report tells of one setting of the device. Lists
// can be longer than a heartbeat should be.
const maxLocal = 4 << 10

// settingsOf says who set each setting that is not at its default, by name.
func settingsOf(now policy.Effective, local policy.Settings) []health.Setting {
	own := map[string]json.RawMessage{}
	if text, err := json.Marshal(local); err == nil { // plain data: can be
		_ = json.Unmarshal(text, &own)
	}
	if now.ExclusionsAdminOnly {
		delete(own, "exclusions") // they do not count
	}
	var list []health.Setting
	for _, name := range slices.Sorted(maps.Keys(now.Values())) {
		s := health.Setting{Name: name, Local: own[name]}
		switch now.Origins[name] {
		case policy.FromPolicy:
			s.Origin = health.ByPolicy
			if sources := now.Sources[name]; len(sources) > 0 {
				s.Origin, s.By = health.SettingOrigin(sources[0].Kind), sources[0].Name
			}
		case policy.FromLocal:
			s.Origin = health.ByDevice
		default:
			continue
		}
		if len(s.Local) > maxLocal {
			s.Local = nil
		}
		list = append(list, s)
	}
	return list
}
