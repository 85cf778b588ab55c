package client

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"komainu/fault"
	"komainu/policy"
)

// What became of a key of a managed file.
const (
	Taken    = "taken"
	NoEngine = "no engine" // known, and nothing here does it
	Unknown  = "unknown"
	Refused  = "refused" // known, with a value that cannot be taken
)

// Line says what became of one key of a managed file.
type Line struct {
	Key    string `json:"key"`
	Result string `json:"result"`
	Detail string `json:"detail,omitempty"`
}

// maxManaged is the largest managed file that is read, in bytes.
const maxManaged = 4 << 20

// managedKey is what a key of a managed file becomes.
type managedKey struct {
	section policy.Section
	setting string
	convert func(json.RawMessage) (any, []string, error) // value, remarks
}

// managedKeys are the keys of mdatp_managed.json that something here obeys.
var managedKeys = map[string]managedKey{
	"antivirusEngine.enforcementLevel":           {policy.SectionAntivirus, "enforcementLevel", plain[string]},
	"antivirusEngine.behaviorMonitoring":         {policy.SectionAntivirus, "behaviorMonitoring", enabled},
	"antivirusEngine.scanAfterDefinitionUpdate":  {policy.SectionAntivirus, "scanAfterDefinitionUpdate", plain[bool]},
	"antivirusEngine.scanArchives":               {policy.SectionAntivirus, "scanArchives", plain[bool]},
	"antivirusEngine.maximumOnDemandScanThreads": {policy.SectionAntivirus, "maximumOnDemandScanThreads", plain[int]},
	"antivirusEngine.enableFileHashComputation":  {policy.SectionAntivirus, "enableFileHashComputation", plain[bool]},
	"antivirusEngine.allowedThreats":             {policy.SectionAntivirus, "allowedThreats", plain[[]string]},
	"antivirusEngine.disallowedThreatActions":    {policy.SectionAntivirus, "disallowedThreatActions", plain[[]string]},
	"antivirusEngine.scanResultsRetentionDays":   {policy.SectionAntivirus, "scanResultsRetentionDays", plain[int]},
	"antivirusEngine.scanHistoryMaximumItems":    {policy.SectionAntivirus, "scanHistoryMaximumItems", plain[int]},
	"antivirusEngine.unmonitoredFilesystems":     {policy.SectionAntivirus, "unmonitoredFilesystems", lowerCase},
	"antivirusEngine.threatTypeSettings":         {policy.SectionAntivirus, "threatTypeSettings", threatTypes},
	"antivirusEngine.exclusions":                 {policy.SectionExclusions, "exclusions", exclusionsOf(policy.ScopeEPP)},
	"antivirusEngine.exclusionsMergePolicy":      {policy.SectionExclusions, "exclusionsAdminOnly", adminOnly},
	"exclusionSettings.exclusions":               {policy.SectionExclusions, "exclusions", exclusionsOf(policy.ScopeGlobal)},
	"exclusionSettings.mergePolicy":              {policy.SectionExclusions, "exclusionsAdminOnly", adminOnly},
	"features.ebpfSupplementaryEventProvider":    {policy.SectionEDR, "ebpfSupplementary", enabled},
	"edr.tags": {policy.SectionEDR, "tags", plain[[]policy.Tag]},
}

// managedSections are the sections of mdatp_managed.json; a key of theirs that
// is none of managedKeys is one that nothing here obeys.
var managedSections = []string{"antivirusEngine", "cloudService", "features", "networkProtection", "edr", "exclusionSettings"}

// knownKeys are the keys of those sections that are documented.
var knownKeys = strings.Fields(`antivirusEngine.nonExecMountPolicy antivirusEngine.threatTypeSettingsMergePolicy
	antivirusEngine.scanFileModifyPermissions antivirusEngine.scanFileModifyOwnership antivirusEngine.scanNetworkSocketEvent antivirusEngine.offlineDefinitionUpdate
	antivirusEngine.offlineDefinitionUpdateUrl antivirusEngine.offlineDefinitionUpdateFallbackToCloud cloudService.enabled cloudService.diagnosticLevel
	cloudService.cloudBlockLevel cloudService.automaticSampleSubmissionConsent cloudService.automaticDefinitionUpdateEnabled cloudService.definitionUpdatesInterval
	cloudService.proxy features.moduleLoad features.supplementarySensorConfigurations features.offlineDefinitionUpdateVerifySig features.remediateInfectedFile
	networkProtection.enforcementLevel networkProtection.disableIcmpInspection edr.groupIds`)

// ReadManaged reads a file in the shape of mdatp_managed.json. It returns the
// settings that were taken by the type of policy that holds them, and a line
// for every key, so that nothing is left out in silence.
func ReadManaged(text []byte) (map[string]policy.Settings, []Line, error) {
	if len(text) > maxManaged {
		return nil, nil, fault.New(fault.Invalid, "the file is larger than %d bytes", maxManaged)
	}
	var file map[string]json.RawMessage
	if err := json.Unmarshal(text, &file); err != nil {
		return nil, nil, fault.Wrap(fault.Invalid, err, "the file is no managed configuration in JSON")
	}
	settings, lines := map[policy.Section]map[string]any{}, []Line(nil)
	for _, section := range slices.Sorted(maps.Keys(file)) {
		var keys map[string]json.RawMessage
		if err := json.Unmarshal(file[section], &keys); err != nil || !slices.Contains(managedSections, section) {
			lines = append(lines, Line{Key: section, Result: Unknown})
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(keys)) {
			lines = append(lines, takeManaged(settings, section+"."+name, keys[name])...)
		}
	}
	taken := map[string]policy.Settings{}
	for section, values := range settings {
		text, err := json.Marshal(values)
		if err != nil {
			return nil, nil, err
		}
		var s policy.Settings
		if err := json.Unmarshal(text, &s); err != nil {
			return nil, nil, err
		}
		taken[string(section)] = s
	}
	return taken, lines, nil
}

// takeManaged takes one key, and says what became of it.
func takeManaged(settings map[policy.Section]map[string]any, key string, value json.RawMessage) []Line {
	k, obeyed := managedKeys[key]
	i := slices.IndexFunc(policy.Catalogue(), func(s policy.Setting) bool { return s.Name == k.setting })
	switch {
	case slices.Contains(knownKeys, key) || obeyed && (i < 0 || !policy.Catalogue()[i].Engine):
		return []Line{{Key: key, Result: NoEngine}}
	case !obeyed:
		return []Line{{Key: key, Result: Unknown}}
	}
	v, remarks, err := k.convert(value)
	if err == nil {
		err = fits(k.setting, v)
	}
	if err != nil {
		return []Line{{Key: key, Result: Refused, Detail: err.Error()}}
	}
	if settings[k.section] == nil {
		settings[k.section] = map[string]any{}
	}
	of := settings[k.section]
	switch v := v.(type) {
	case []policy.Exclusion:
		// Both places of exclusions count together.
		before, _ := of[k.setting].([]policy.Exclusion)
		of[k.setting] = append(before, v...)
	case bool:
		// Either place may say that only these exclusions count.
		before, _ := of[k.setting].(bool)
		of[k.setting] = v || before && k.setting == "exclusionsAdminOnly"
	default:
		of[k.setting] = v
	}
	lines := []Line{{Key: key, Result: Taken, Detail: string(k.section) + ": " + k.setting}}
	for _, r := range remarks {
		result := Taken
		if what, refused := strings.CutPrefix(r, "!"); refused {
			result, r = Refused, what
		}
		lines = append(lines, Line{Key: key, Result: result, Detail: r})
	}
	return lines
}

// fits reports what is wrong with the value of one setting.
func fits(setting string, value any) error {
	text, err := json.Marshal(map[string]any{setting: value})
	if err != nil {
		return err
	}
	var s policy.Settings
	if err := json.Unmarshal(text, &s); err != nil {
		return fmt.Errorf("the value is of another kind than %s has", setting)
	}
	return s.Validate()
}

func plain[T any](value json.RawMessage) (any, []string, error) {
	var v T
	if err := json.Unmarshal(value, &v); err != nil {
		return nil, nil, fmt.Errorf("the value %s is not of the kind that the key has", short(value))
	}
	return v, nil, nil
}

func short(value json.RawMessage) string {
	if len(value) > 60 {
		return string(value[:60]) + "…"
	}
	return string(value)
}

func lowerCase(value json.RawMessage) (any, []string, error) {
	v, _, err := plain[[]string](value)
	if err != nil {
		return nil, nil, err
	}
	list := v.([]string)
	for i := range list {
		list[i] = strings.ToLower(list[i])
	}
	return list, nil, nil
}

// either takes one of two words for true and false.
func either(value json.RawMessage, yes, no string) (any, []string, error) {
	var word string
	if err := json.Unmarshal(value, &word); err != nil || word != yes && word != no {
		return nil, nil, fmt.Errorf("the value %s: want %s or %s", short(value), yes, no)
	}
	return word == yes, nil, nil
}

func enabled(value json.RawMessage) (any, []string, error) {
	return either(value, "enabled", "disabled")
}

func adminOnly(value json.RawMessage) (any, []string, error) {
	return either(value, "admin_only", "merge")
}

func threatTypes(value json.RawMessage) (any, []string, error) {
	var list []struct {
		Key   policy.ThreatType
		Value policy.ThreatAction
	}
	if err := json.Unmarshal(value, &list); err != nil {
		return nil, nil, fmt.Errorf("the value %s: want a list of key and value", short(value))
	}
	types := map[policy.ThreatType]policy.ThreatAction{}
	var remarks []string
	for _, t := range list {
		if t.Key == policy.PUA {
			remarks = append(remarks, fmt.Sprintf("!%s: this version does not look for them", t.Key))
			continue
		}
		types[t.Key] = t.Value
	}
	return types, remarks, nil
}

// managedExclusion is an exclusion in a managed file.
type managedExclusion struct {
	Type        string         `json:"$type"`
	Path        string         `json:"path,omitempty"`
	IsDirectory bool           `json:"isDirectory,omitempty"`
	Extension   string         `json:"extension,omitempty"`
	Name        string         `json:"name,omitempty"`
	Scopes      []policy.Scope `json:"scopes,omitempty"`
}

// exclusionsOf converts exclusions of a place where those without a scope
// have the scope given. One that cannot be taken is left out and said.
func exclusionsOf(scope policy.Scope) func(json.RawMessage) (any, []string, error) {
	return func(value json.RawMessage) (any, []string, error) {
		var list []managedExclusion
		if err := json.Unmarshal(value, &list); err != nil {
			return nil, nil, fmt.Errorf("the value %s: want a list of exclusions", short(value))
		}
		var taken []policy.Exclusion
		var remarks []string
		byDefault := 0
		for i, m := range list {
			x, ok := m.exclusion()
			if !ok {
				remarks = append(remarks, fmt.Sprintf("!exclusion %d: $type %q is not known", i+1, m.Type))
				continue
			}
			scopes := m.Scopes
			if len(scopes) == 0 {
				byDefault++
				scopes = []policy.Scope{scope}
			}
			for _, x.Scope = range scopes {
				if err := x.Validate(); err != nil {
					remarks = append(remarks, "!"+err.Error())
				} else if !slices.Contains(taken, x) {
					taken = append(taken, x)
				}
			}
		}
		if byDefault > 0 && scope == policy.ScopeGlobal {
			remarks = append(remarks, fmt.Sprintf("%d exclusions without a scope are global in this file, and are taken as that", byDefault))
		}
		return taken, remarks, nil
	}
}

func (m managedExclusion) exclusion() (policy.Exclusion, bool) {
	switch m.Type {
	case "excludedPath":
		if m.IsDirectory {
			return policy.Exclusion{Type: policy.ExcludeFolder, Value: m.Path}, true
		}
		return policy.Exclusion{Type: policy.ExcludeFile, Value: m.Path}, true
	case "excludedFileExtension":
		return policy.Exclusion{Type: policy.ExcludeExtension, Value: "." + strings.TrimPrefix(m.Extension, ".")}, true
	case "excludedFileName":
		return policy.Exclusion{Type: policy.ExcludeProcess, Value: m.Name}, true
	}
	return policy.Exclusion{}, false
}

// WriteManaged returns settings in the shape of mdatp_managed.json, and the
// names of those that the shape has no key for.
func WriteManaged(s policy.Settings) ([]byte, []string, error) {
	file := map[string]map[string]any{}
	put := func(key string, value any) {
		section, name, _ := strings.Cut(key, ".")
		if file[section] == nil {
			file[section] = map[string]any{}
		}
		file[section][name] = value
	}
	text, err := json.Marshal(s)
	if err != nil {
		return nil, nil, err
	}
	var values map[string]json.RawMessage
	if err := json.Unmarshal(text, &values); err != nil {
		return nil, nil, err
	}
	var left []string
	for _, name := range slices.Sorted(maps.Keys(values)) {
		switch name {
		case "behaviorMonitoring":
			put("antivirusEngine."+name, word(*s.BehaviorMonitoring, "enabled", "disabled"))
		case "ebpfSupplementary":
			put("features.ebpfSupplementaryEventProvider", word(*s.SupplementaryProvider, "enabled", "disabled"))
		case "exclusionsAdminOnly":
			put("exclusionSettings.mergePolicy", word(*s.ExclusionsAdminOnly, "admin_only", "merge"))
		case "exclusions":
			var list []managedExclusion
			for _, x := range s.Exclusions {
				list = append(list, managedOf(x))
			}
			put("exclusionSettings.exclusions", list)
		case "threatTypeSettings":
			var list []map[string]string
			for _, t := range slices.Sorted(maps.Keys(s.ThreatTypes)) {
				list = append(list, map[string]string{"key": string(t), "value": string(s.ThreatTypes[t])})
			}
			put("antivirusEngine."+name, list)
		case "tags":
			put("edr.tags", s.Tags)
		default:
			if _, same := managedKeys["antivirusEngine."+name]; !same {
				left = append(left, name)
				continue
			}
			put("antivirusEngine."+name, values[name])
		}
	}
	out, err := json.MarshalIndent(file, "", "  ")
	return append(out, '\n'), left, err
}

func word(v bool, yes, no string) string {
	if v {
		return yes
	}
	return no
}

func managedOf(x policy.Exclusion) managedExclusion {
	m := managedExclusion{Scopes: []policy.Scope{x.Scope}}
	switch x.Type {
	case policy.ExcludeExtension:
		m.Type, m.Extension = "excludedFileExtension", strings.TrimPrefix(x.Value, ".")
	case policy.ExcludeProcess:
		m.Type, m.Name = "excludedFileName", x.Value
	default:
		m.Type, m.Path, m.IsDirectory = "excludedPath", x.Value, x.Type == policy.ExcludeFolder
	}
	return m
}
