package policies

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"komainu/fault"
	"komainu/policy"
)

// Raw are settings as somebody sends them: values by name, not yet looked at,
// so that what is wrong can be said by the name of the setting.
type Raw map[string]json.RawMessage

// sections are the types of policies.
var sections = []policy.Section{policy.SectionAntivirus, policy.SectionExclusions, policy.SectionEDR}

// take checks what a policy is to be, by itself.
func (r *row) take(c Change) error {
	r.Name, r.Description, r.Type, r.Priority = strings.TrimSpace(c.Name), strings.TrimSpace(c.Description), policy.Section(c.Type), c.Priority
	if err := checkName("policy", r.Name); err != nil {
		return err
	}
	if !slices.Contains(sections, r.Type) {
		return fault.New(fault.Invalid, "type %q: want antivirus, exclusions or edr", c.Type)
	}
	settings, problems := c.Settings.settings(r.Type)
	if problems != nil {
		return fault.New(fault.Invalid, "%s", strings.Join(problems, "; "))
	}
	r.Settings = settings
	if len(c.Assignments) > maxAssignments {
		return fault.New(fault.Invalid, "assignments: %d are too many, %d is the limit; make a device group", len(c.Assignments), maxAssignments)
	}
	r.Assignments = []Assignment{}
	for _, a := range c.Assignments {
		a.Name = ""
		if a.Kind == ToAll {
			a.ID = ""
		}
		if !slices.Contains(r.Assignments, a) {
			r.Assignments = append(r.Assignments, a)
		}
	}
	return nil
}

func checkName(what, name string) error {
	if name == "" || len([]rune(name)) > 100 || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fault.New(fault.Invalid, "name: a %s has a name of 1 to 100 characters, without line breaks", what)
	}
	return nil
}

// settings decodes what a policy of a type may hold, and says of everything
// else what is wrong with it and what to do.
func (raw Raw) settings(section policy.Section) (policy.Settings, []string) {
	catalogue := policy.Catalogue()
	var problems []string
	var all policy.Settings
	for _, name := range sorted(raw) {
		i := slices.IndexFunc(catalogue, func(s policy.Setting) bool { return s.Name == name })
		switch {
		case i < 0 && name == "filesystems":
			problems = append(problems, "filesystems: set this with the plan of the environment, not with a policy")
			continue
		case i < 0:
			problems = append(problems, fmt.Sprintf("%s: there is no such setting; /api/v1/policies/catalogue lists them", name))
			continue
		}
		s := catalogue[i]
		if s.Section != section {
			problems = append(problems, fmt.Sprintf("%s: belongs into a policy of type %s, this one is of type %s", name, s.Section, section))
			continue
		}
		if !s.Engine {
			problems = append(problems, fmt.Sprintf("%s: is not available in this version; leave it out", name))
			continue
		}
		if problem := decode(&all, s, raw[name]); problem != "" {
			problems = append(problems, problem)
		}
	}
	if problems == nil {
		if err := errors.Join(all.Validate(), all.Unfit()); err != nil {
			problems = append(problems, strings.Split(err.Error(), "\n")...)
		}
	}
	return all, problems
}

// decode lays one value into the settings.
func decode(all *policy.Settings, s policy.Setting, value json.RawMessage) string {
	text, err := json.Marshal(map[string]json.RawMessage{s.Name: value})
	if err == nil {
		d := json.NewDecoder(strings.NewReader(string(text)))
		d.DisallowUnknownFields()
		err = d.Decode(all)
	}
	if err != nil {
		return fmt.Sprintf("%s: want %s", s.Name, wanted(s))
	}
	return ""
}

// wanted says what the value of a setting looks like.
func wanted(s policy.Setting) string {
	of := ""
	if len(s.Values) > 0 {
		of = " (" + strings.Join(s.Values, ", ") + ")"
	}
	switch s.Kind {
	case policy.KindBool:
		return "true or false"
	case policy.KindInt:
		return fmt.Sprintf("a number from %d to %d", s.Min, s.Max)
	case policy.KindEnum:
		return "one of " + strings.Join(s.Values, ", ")
	case policy.KindStrings:
		return "a list of texts" + of
	case policy.KindActions:
		return "an object of threat types with an action each" + of
	case policy.KindExclusions:
		return `a list of objects like {"type":"folder","value":"/srv/cache","scope":"epp"}`
	case policy.KindSchedules:
		return `a list of objects like {"kind":"quick","days":["mon"],"at":"02:30"}`
	case policy.KindTags:
		return `a list of objects like {"key":"GROUP","value":"web"}`
	}
	return string(s.Kind)
}

// admit checks a policy against everything else that there is.
func (v *view) admit(r *row, environments map[string]string) error {
	n, size := 0, encodedSize(r.Settings)
	for _, other := range v.policies {
		if other.OrganizationID != r.OrganizationID || other.ID == r.ID {
			continue
		}
		n++
		size += encodedSize(other.Settings)
		if other.Name == r.Name {
			return fault.New(fault.Conflict, "there is a policy %q already; choose another name", r.Name)
		}
	}
	if n >= MaxPolicies {
		return fault.New(fault.Exhausted, "there are %d policies already; delete one that is not needed", n)
	}
	if size > maxSettings {
		return fault.New(fault.Exhausted, "all policies together would hold %d bytes of settings, %d is the limit; replace lists of files by folders", size, maxSettings)
	}
	for _, a := range r.Assignments {
		switch a.Kind {
		case ToAll:
		case ToEnvironment:
			if _, ok := environments[a.ID]; !ok {
				return fault.New(fault.Invalid, "assignments: there is no environment %s", a.ID)
			}
		case ToGroup:
			g := v.group(a.ID)
			if g == nil || g.OrganizationID != r.OrganizationID {
				return fault.New(fault.Invalid, "assignments: there is no device group %s", a.ID)
			}
			if len(r.Settings.Tags) > 0 && len(g.Match.Tags) > 0 {
				return circle(r.Name, g.Name)
			}
		default:
			return fault.New(fault.Invalid, "assignments: kind %q: want all, environment or group", a.Kind)
		}
	}
	return nil
}

// circle is refused because such a group could lose its devices by the tags
// that it gives them, and get them back when they are gone.
func circle(policy, group string) error {
	return fault.New(fault.Invalid, "tags: the policy %q sets tags and the device group %q selects by tags; select by name or environment, or set the tags for an environment", policy, group)
}

func encodedSize(s policy.Settings) int {
	text, err := json.Marshal(s)
	if err != nil {
		return 0 // plain data: cannot be
	}
	return len(text)
}

// differences says what a change did, for the audit log. old may be nil.
func differences(old, r *row) map[string]any {
	d := map[string]any{"version": r.Version}
	if old == nil {
		old = &row{}
	}
	was, is := values(old.Settings), values(r.Settings)
	for _, name := range sorted(was, is) {
		if string(was[name]) != string(is[name]) {
			d[name] = []json.RawMessage{orNull(was[name]), orNull(is[name])}
		}
	}
	if old.Name != r.Name {
		d["name"] = []string{old.Name, r.Name}
	}
	if old.Priority != r.Priority {
		d["priority"] = []int{old.Priority, r.Priority}
	}
	if !reflect.DeepEqual(old.Assignments, r.Assignments) {
		d["assignments"] = [][]Assignment{old.Assignments, r.Assignments}
	}
	return d
}

func orNull(v json.RawMessage) json.RawMessage {
	if v == nil {
		return json.RawMessage("null")
	}
	return v
}

// values are the settings that say something, by name.
func values(s policy.Settings) map[string]json.RawMessage {
	m := map[string]json.RawMessage{}
	if text, err := json.Marshal(s); err == nil {
		_ = json.Unmarshal(text, &m) // what was encoded is an object
	}
	return m
}

func sorted[V any, M ~map[string]V](maps ...M) []string {
	var names []string
	for _, m := range maps {
		for name := range m {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
