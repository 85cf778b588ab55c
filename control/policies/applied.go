package policies

import (
	"context"
	"encoding/json"
	"time"

	"komainu/event"
	"komainu/health"
	"komainu/policy"
)

// Applied is what applies to a device.
type Applied struct {
	Version          uint64     `json:"version" doc:"of the document; 0 before the first"`
	ComposedAt       *time.Time `json:"composedAt"`
	ConfirmedVersion uint64     `json:"confirmedVersion"`
	ConfirmedAt      *time.Time `json:"confirmedAt"`
	Pending          bool       `json:"pending" doc:"the agent has not answered to this version yet"`
	Error            string     `json:"error" doc:"why the agent refuses this version"`
	Groups           []string   `json:"groups" doc:"names of the device's groups, the one that counts first"`
	Settings         []Setting  `json:"settings"`
}

// Setting is one setting of a device.
type Setting struct {
	Name       string          `json:"name"`
	Section    policy.Section  `json:"section"`
	Value      json.RawMessage `json:"value"`
	Source     Source          `json:"source"`
	United     []Source        `json:"united" doc:"further policies that the list is made of"`
	Overridden []Value         `json:"overridden" doc:"what weaker policies say"`
	Confirmed  bool            `json:"confirmed" doc:"the agent applies this value"`
	Since      *time.Time      `json:"since" doc:"since when the agent applies it; none for what no policy sets"`
}

// Of returns what applies to a device, setting by setting.
func (p *Policies) Of(ctx context.Context, id event.DeviceID) (Applied, error) {
	d, err := p.cfg.Device(id)
	if err != nil {
		return Applied{}, err
	}
	doc, c, err := p.current(ctx, d)
	if err != nil {
		return Applied{}, err
	}
	names, err := p.cfg.Environments(ctx, d.Organization)
	if err != nil {
		return Applied{}, err
	}
	pending, failed := doc.state()
	v := Applied{Version: doc.Version, ComposedAt: &doc.ComposedAt, ConfirmedVersion: doc.ConfirmedVersion, ConfirmedAt: doc.ConfirmedAt, Pending: pending, Groups: append([]string{}, c.groups...)}
	if failed {
		v.Error = doc.Error
	}
	catalogue := append([]policy.Setting{{Name: "filesystems", Section: policy.SectionAntivirus, Default: []policy.FilesystemRule{{Path: "*", Mode: policy.Block}}, Engine: true}}, policy.Catalogue()...)
	for _, s := range catalogue {
		if !s.Engine {
			continue
		}
		line, err := c.line(s, &d, doc)
		if err != nil {
			return Applied{}, err
		}
		if line.Source.Kind == FromPlan {
			line.Source.Name = names[line.Source.ID]
		}
		v.Settings = append(v.Settings, line)
	}
	return v, nil
}

// line describes one setting. What no policy sets is left to the device, whose
// agent reports what was set there.
func (c *composed) line(s policy.Setting, d *Device, doc *document) (Setting, error) {
	line := Setting{Name: s.Name, Section: s.Section, United: []Source{}, Overridden: []Value{}}
	confirmed, known := doc.Confirmed[s.Name]
	device := Source{Kind: FromDevice, ID: string(d.ID), Name: d.Name}
	own, reported := d.own(s.Name)
	if a, set := c.settings[s.Name]; set {
		line.Value, line.Source = a.value, a.source
		line.United, line.Overridden = append(line.United, a.united...), append(line.Overridden, a.overridden...)
		switch {
		case !reported:
		case s.United:
			line.United = append(line.United, device)
		case own != nil:
			line.Overridden = append(line.Overridden, Value{device, own})
		}
		if line.Confirmed = known && confirmed.Digest == a.digest; line.Confirmed {
			line.Since = &confirmed.Since
		}
		return line, nil
	}
	// As long as the agent has not taken the policy back that it had, it says
	// nothing of what it does without.
	line.Source.Kind, line.Confirmed = FromDefault, !known && doc.ConfirmedVersion > 0
	if reported && !known {
		line.Source, line.Value = device, orNull(own)
		return line, nil
	}
	var err error
	line.Value, err = json.Marshal(s.Default)
	return line, err
}

// own returns what was set on the device, if its agent says that something
// was. The value is nil when it is too long for a report.
func (d *Device) own(name string) (value json.RawMessage, reported bool) {
	for _, s := range d.Settings {
		if s.Name == name && (s.Local != nil || s.Origin == health.ByDevice) {
			return s.Local, true
		}
	}
	return nil, false
}

// count returns how far the devices of each policy of an organization are.
func (p *Policies) count(ctx context.Context, v *view, organization string) (map[string]Counts, error) {
	counts := map[string]Counts{}
	for _, d := range p.cfg.Devices() {
		if d.Organization != organization {
			continue
		}
		c, err := p.compose(ctx, v, &d)
		if err != nil {
			return nil, err
		}
		doc := p.documents.get(d.ID)
		pending, failed := doc.state()
		for _, id := range c.policies {
			n := counts[id]
			n.Assigned++
			switch {
			case failed && doc.Digest == c.digest:
				n.Failed++
			case pending || doc.Digest != c.digest:
				n.Pending++
			default:
				n.Confirmed++
			}
			counts[id] = n
		}
	}
	return counts, nil
}

// Version returns the version of the document of a device, 0 before the
// first.
func (p *Policies) Version(id event.DeviceID) uint64 { return p.documents.get(id).Version }

// InForce reports whether a device has confirmed the document that applies to
// it now.
func (p *Policies) InForce(id event.DeviceID) bool {
	d := p.documents.get(id)
	return d.Version > 0 && d.ConfirmedVersion == d.Version
}
