package agent

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"komainu/agent/localapi"
	"komainu/fault"
	"komainu/policy"
)

// localSettings answers the parts of the local API that read and change
// settings. What policy decides cannot be changed here.
type localSettings struct {
	settings *settings
	logLevel func(level string) error
	changed  func(name, from, to string) // told of every change of protection
}

// ApplySetting implements localapi.Settings.
func (l *localSettings) ApplySetting(_ context.Context, name localapi.Setting, value string) error {
	before := l.settings.Now()
	err := l.settings.Change(func(now policy.Effective, local *policy.Settings) error {
		if now.Managed(name.Key()) {
			return managed(now, name.Key(), string(name))
		}
		patch, err := name.Patch(now, value)
		if err != nil {
			return err
		}
		overlay(local, patch)
		return nil
	})
	if err == nil {
		l.changed(string(name), valueOf(before, name), value)
	}
	return err
}

// valueOf returns what a setting was before it was changed, for the record.
func valueOf(e policy.Effective, name localapi.Setting) string {
	switch name {
	case localapi.RealTimeProtection, localapi.PassiveMode:
		return string(e.EnforcementLevel)
	case localapi.ArchiveBombs:
		return string(bombAction(&e))
	}
	switch v := e.Values()[name.Key()].(type) {
	case bool:
		return enabled(v)
	default:
		return fmt.Sprint(v)
	}
}

// overlay puts what patch says over s.
func overlay(s *policy.Settings, patch policy.Settings) {
	set(&s.EnforcementLevel, patch.EnforcementLevel)
	set(&s.BehaviorMonitoring, patch.BehaviorMonitoring)
	set(&s.ScanArchives, patch.ScanArchives)
	set(&s.OnDemandScanThreads, patch.OnDemandScanThreads)
	set(&s.FileHashComputation, patch.FileHashComputation)
	set(&s.SupplementaryProvider, patch.SupplementaryProvider)
	set(&s.ScanAfterUpdate, patch.ScanAfterUpdate)
	set(&s.LogLevel, patch.LogLevel)
	if set(&s.Proxy, patch.Proxy); s.Proxy != nil && *s.Proxy == "" {
		s.Proxy = nil
	}
	if patch.ThreatTypes != nil {
		types := maps.Clone(s.ThreatTypes) // what is in effect shares the old one
		if types == nil {
			types = map[policy.ThreatType]policy.ThreatAction{}
		}
		maps.Copy(types, patch.ThreatTypes)
		s.ThreatTypes = types
	}
}

func set[T any](dst **T, value *T) {
	if value != nil {
		*dst = value
	}
}

// managed refuses a change of what policy decides, and says who decides. key
// is the JSON name of the setting.
func managed(now policy.Effective, key, what string) error {
	key, _, _ = strings.Cut(key, ".")
	sources := now.Sources[key]
	var names []string
	for _, s := range sources {
		if s.Kind == policy.SourcePolicy {
			names = append(names, fmt.Sprintf("%q", s.Name))
		}
	}
	switch {
	case len(names) == 1:
		return fault.New(fault.Managed, "%s is managed by the policy %s; change it in the portal", what, names[0])
	case len(names) > 1:
		return fault.New(fault.Managed, "%s is managed by the policies %s; change them in the portal", what, strings.Join(names, ", "))
	case len(sources) > 0:
		return fault.New(fault.Managed, "%s is managed by the plan of this environment; change it in the portal", what)
	default:
		return fault.New(fault.Managed, "%s is managed by policy; change it in the portal", what)
	}
}

// SetTag implements localapi.Settings.
func (l *localSettings) SetTag(_ context.Context, tag policy.Tag) error {
	return l.changeTags(func(tags []policy.Tag) ([]policy.Tag, error) {
		if i := slices.IndexFunc(tags, func(t policy.Tag) bool { return t.Key == tag.Key }); i >= 0 {
			tags[i] = tag
			return tags, nil
		}
		return append(tags, tag), nil
	})
}

// RemoveTag implements localapi.Settings.
func (l *localSettings) RemoveTag(_ context.Context, key string) error {
	return l.changeTags(func(tags []policy.Tag) ([]policy.Tag, error) {
		i := slices.IndexFunc(tags, func(t policy.Tag) bool { return t.Key == key })
		if i < 0 {
			return nil, fault.New(fault.NotFound, "there is no tag %q", key)
		}
		return slices.Delete(tags, i, i+1), nil
	})
}

func (l *localSettings) changeTags(edit func([]policy.Tag) ([]policy.Tag, error)) error {
	return l.settings.Change(func(now policy.Effective, local *policy.Settings) error {
		if now.Managed("tags") {
			return managed(now, "tags", "the list of tags")
		}
		tags, err := edit(slices.Clone(local.Tags))
		if err != nil {
			return err
		}
		local.Tags = tags
		return nil
	})
}

// SetLogLevel implements localapi.Settings. The level holds until the agent
// starts again.
func (l *localSettings) SetLogLevel(_ context.Context, level string) error {
	if now := l.settings.Now(); now.Managed("logLevel") {
		return managed(now, "logLevel", "the log level")
	}
	return l.logLevel(level)
}

// ThreatTypes implements localapi.Settings.
func (l *localSettings) ThreatTypes(context.Context) ([]localapi.ThreatType, error) {
	now := l.settings.Now()
	bombs := localapi.ThreatType{Type: policy.ArchiveBomb, Action: bombAction(&now), Origin: now.Origins[localapi.ArchiveBombs.Key()], Engine: true}
	return []localapi.ThreatType{bombs, {Type: policy.PUA, Action: policy.ActionOff, Origin: policy.FromDefault}}, nil
}

// Exclusions implements localapi.Exclusions.
func (l *localSettings) Exclusions(context.Context) ([]localapi.Exclusion, error) {
	managed := l.settings.Managed().Exclusions
	var list []localapi.Exclusion
	for _, x := range distinct(l.settings.Now().Exclusions) {
		list = append(list, localapi.Exclusion{Exclusion: x, Origin: originOf(managed, x)})
	}
	return list, nil
}

// originOf says who put an item into a list to which both can add: what both
// have put there stays when the device takes its own away.
func originOf[T comparable](managed []T, item T) policy.Origin {
	if slices.Contains(managed, item) {
		return policy.FromPolicy
	}
	return policy.FromLocal
}

// distinct returns each item once.
func distinct[T comparable](list []T) []T {
	var once []T
	for _, item := range list {
		if !slices.Contains(once, item) {
			once = append(once, item)
		}
	}
	return once
}

// AddExclusion implements localapi.Exclusions.
func (l *localSettings) AddExclusion(_ context.Context, x policy.Exclusion) error {
	return l.settings.Change(func(now policy.Effective, local *policy.Settings) error {
		if now.ExclusionsAdminOnly {
			return managed(now, "exclusionsAdminOnly", "the list of exclusions")
		}
		if !slices.Contains(local.Exclusions, x) {
			local.Exclusions = append(slices.Clone(local.Exclusions), x)
		}
		return nil
	})
}

// RemoveExclusion implements localapi.Exclusions.
func (l *localSettings) RemoveExclusion(_ context.Context, x policy.Exclusion) error {
	return l.settings.Change(func(now policy.Effective, local *policy.Settings) error {
		i := slices.Index(local.Exclusions, x)
		switch {
		case i >= 0:
			local.Exclusions = slices.Delete(slices.Clone(local.Exclusions), i, i+1)
			return nil
		case slices.Contains(now.Exclusions, x):
			return managed(now, "exclusions", "this exclusion")
		default:
			return fault.New(fault.NotFound, "there is no %s exclusion %q in the scope %s", x.Type, x.Value, x.Scope)
		}
	})
}

// AllowedThreats implements localapi.Allowed.
func (l *localSettings) AllowedThreats(context.Context) ([]localapi.AllowedThreat, error) {
	managed := l.settings.Managed().AllowedThreats
	var list []localapi.AllowedThreat
	for _, name := range distinct(l.settings.Now().AllowedThreats) {
		list = append(list, localapi.AllowedThreat{Name: name, Origin: originOf(managed, name)})
	}
	return list, nil
}

// AllowThreat implements localapi.Allowed.
func (l *localSettings) AllowThreat(_ context.Context, name string) error {
	return l.settings.Change(func(now policy.Effective, local *policy.Settings) error {
		if err := mayDo(now, "allow"); err != nil {
			return err
		}
		if !slices.Contains(local.AllowedThreats, name) {
			local.AllowedThreats = append(slices.Clone(local.AllowedThreats), name)
		}
		return nil
	})
}

// DisallowThreat implements localapi.Allowed.
func (l *localSettings) DisallowThreat(_ context.Context, name string) error {
	return l.settings.Change(func(now policy.Effective, local *policy.Settings) error {
		i := slices.Index(local.AllowedThreats, name)
		switch {
		case i >= 0:
			local.AllowedThreats = slices.Delete(slices.Clone(local.AllowedThreats), i, i+1)
			return nil
		case slices.Contains(now.AllowedThreats, name):
			return managed(now, "allowedThreats", "this allowed threat")
		default:
			return fault.New(fault.NotFound, "%q is not an allowed threat", name)
		}
	})
}
