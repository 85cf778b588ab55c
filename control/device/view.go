package device

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/uptrace/bun"

	"komainu/control/db"
	"komainu/control/rest"
	"komainu/event"
	"komainu/fault"
	"komainu/health"
	"komainu/policy"
)

// SensorHealth says whether a device reports what it should.
type SensorHealth string

// The states of sensor health, as the inventory shows them.
const (
	Active                SensorHealth = "Active"
	Inactive              SensorHealth = "Inactive"     // silent for seven days
	NoSensorData          SensorHealth = "NoSensorData" // has not reported yet
	ImpairedCommunication SensorHealth = "ImpairedCommunication"
	Misconfigured         SensorHealth = "Misconfigured" // reports, but says that it is not healthy
)

// When silence counts.
const (
	impairedAfter = 2 * time.Minute
	inactiveAfter = 7 * 24 * time.Hour
	newFor        = 7 * 24 * time.Hour // a device is newly found
)

// Protection is the state of real-time protection.
type Protection struct {
	RealTime string `json:"realTime" doc:"on, off, passive, unavailable or unknown"`
	Mode     string `json:"mode" doc:"what is blocked and what is only watched, in words"`
	Healthy  bool   `json:"healthy"`
	Licensed bool   `json:"licensed"`
}

// Device is a line of the inventory.
type Device struct {
	ID               string       `json:"id"`
	Name             string       `json:"name"`
	Environment      rest.Ref     `json:"environment"`
	OSPlatform       string       `json:"osPlatform"`
	OSDistribution   string       `json:"osDistribution"`
	OSVersion        string       `json:"osVersion"`
	OSName           string       `json:"osName"`
	Kernel           string       `json:"kernel"`
	Arch             string       `json:"arch"`
	AgentVersion     string       `json:"agentVersion"`
	IPAddresses      []string     `json:"ipAddresses"`
	FirstSeen        time.Time    `json:"firstSeen"`
	LastSeen         time.Time    `json:"lastSeen"`
	OnboardingStatus string       `json:"onboardingStatus" doc:"Onboarded or Offboarded"`
	SensorHealth     SensorHealth `json:"sensorHealth"`
	Connected        bool         `json:"connected"`
	RiskLevel        string       `json:"riskLevel" doc:"None, Informational, Low, Medium or High, from active alerts"`
	ActiveAlerts     int          `json:"activeAlerts"`
	ExposureLevel    string       `json:"exposureLevel"`
	Protection       Protection   `json:"protection"`
	Tags             []string     `json:"tags" doc:"NAME=VALUE; the value alone for GROUP"`
	Plan             policy.Tier  `json:"plan"`
	Coverage         Coverage     `json:"coverage" doc:"whether it is protected, and why not"`
}

// Extension shows the agent the way cloud portals show an extension.
type Extension struct {
	Name              string `json:"name"`
	Version           string `json:"version"`
	ProvisioningState string `json:"provisioningState" doc:"Creating, Succeeded or Failed"`
	Message           string `json:"message"`
}

// PolicyState says which policy a device has confirmed.
type PolicyState struct {
	Version          uint64     `json:"version" doc:"of the policy that applies now"`
	ConfirmedVersion uint64     `json:"confirmedVersion"`
	ConfirmedAt      *time.Time `json:"confirmedAt"`
	Error            string     `json:"error"`
}

// Details is the page of one device.
type Details struct {
	Device
	Health      *health.Report     `json:"health"`
	HealthAt    *time.Time         `json:"healthAt"`
	Conditions  []health.Condition `json:"conditions" doc:"the parts of the agent"`
	Extension   Extension          `json:"extension"`
	Certificate *Certificate       `json:"certificate" doc:"the newest one of the device"`
	Policy      PolicyState        `json:"policy"`
}

// Certificate is what the portal shows of a client certificate; the caller of
// Get fills it in.
type Certificate struct {
	Serial   string    `json:"serial"`
	NotAfter time.Time `json:"notAfter"`
	Revoked  bool      `json:"revoked"`
}

// Query selects devices.
type Query struct {
	rest.Paging
	Environment  string        `query:"environment" doc:"id of an environment"`
	Text         string        `query:"q" maxLength:"253" doc:"part of a name, or the beginning of an address"`
	Health       SensorHealth  `query:"health" enum:"Active,Inactive,NoSensorData,ImpairedCommunication,Misconfigured" required:"false"`
	Onboarding   string        `query:"onboarding" enum:"Onboarded,Offboarded" required:"false"`
	Coverage     CoverageState `query:"coverage" enum:"protected,watching,unprotected,unlicensed" required:"false" doc:"offboarded devices have none"`
	Reason       Reason        `query:"reason" maxLength:"64" doc:"why a device is covered as it is"`
	RealTime     string        `query:"realTime" enum:"on,off,passive,unavailable,unknown" required:"false"`
	Risk         string        `query:"risk" enum:"None,Informational,Low,Medium,High" required:"false"`
	Platform     string        `query:"platform" maxLength:"64" doc:"Linux or Windows"`
	Distribution string        `query:"distribution" maxLength:"64"`
	AgentVersion string        `query:"agentVersion" maxLength:"64"`
	Tag          string        `query:"tag" maxLength:"512" doc:"NAME=VALUE; the value alone for GROUP"`
	New          bool          `query:"new" doc:"only what was seen first within seven days"`
	Sort         string        `query:"sort" enum:"name,-name,risk,-risk,lastSeen,-lastSeen,firstSeen,-firstSeen,health,-health,agentVersion,-agentVersion" required:"false" doc:"name when left out"`
}

// Risk is what active alerts say of a device. The registry does not know
// alerts: who lists devices brings it along.
type Risk struct {
	Active int
	Level  string
	Rank   int // orders levels, 0 for none
}

// List returns a page. Environment names are another slice's and are filled
// in by the caller.
func (r *Registry) List(ctx context.Context, organization string, q Query, risks map[event.DeviceID]Risk) (rest.List[Device], error) {
	offset, err := q.Offset()
	if err != nil {
		return rest.List[Device]{}, err
	}
	ids := r.find(organization, q, risks)
	total := len(ids)
	ids = ids[min(offset, total):min(offset+q.Limit, total)]
	items := make([]Device, 0, len(ids))
	if len(ids) > 0 {
		var rows []row
		if err := r.db.NewSelect().Model(&rows).ExcludeColumn("health").Where("id IN (?)", bun.List(ids)).Scan(ctx); err != nil {
			return rest.List[Device]{}, err
		}
		byID := make(map[event.DeviceID]*row, len(rows))
		for i := range rows {
			byID[rows[i].ID] = &rows[i]
		}
		for _, id := range ids {
			d := byID[id]
			if d == nil {
				continue
			}
			v := r.view(d).Device
			if k, ok := risks[id]; ok {
				v.ActiveAlerts, v.RiskLevel = k.Active, k.Level
			}
			items = append(items, v)
		}
	}
	return rest.NewList(items, total, q.Next(offset, len(items), total)), nil
}

// hit is a device that a query selects, with what it is ordered by.
type hit struct {
	id     event.DeviceID
	name   string
	text   string
	number int64
}

// find returns the ids of the devices that a query selects, in its order.
func (r *Registry) find(organization string, q Query, risks map[event.DeviceID]Risk) []event.DeviceID {
	text := strings.ToLower(strings.TrimSpace(q.Text))
	now := r.now()
	key, descending := strings.CutPrefix(q.Sort, "-")
	var hits []hit
	r.mu.Lock()
	for id, e := range r.entries {
		switch {
		case e.organization != organization || e.expired:
		case q.Environment != "" && e.environment != q.Environment:
		case q.Onboarding != "" && (q.Onboarding == "Offboarded") != e.offboarded:
		case q.Platform != "" && e.platform != q.Platform:
		case q.Distribution != "" && e.distribution != q.Distribution:
		case q.AgentVersion != "" && e.agentVersion != q.AgentVersion:
		case q.New && now.Sub(e.firstSeen) > newFor:
		case q.Risk != "" && cmp.Or(risks[id].Level, "None") != q.Risk:
		case text != "" && !e.matches(text):
		case q.Tag != "" && (e.report == nil || !slices.Contains(tagsOf(e.report.EDRDeviceTags), q.Tag)):
		case q.RealTime != "" && e.protection().RealTime != q.RealTime:
		case q.Health != "" && r.sensorHealth(e, now) != q.Health:
		case (q.Coverage != "" || q.Reason != "") && !r.covered(e, now, q.Coverage, q.Reason):
		default:
			h := hit{id: id, name: strings.ToLower(e.name)}
			switch key {
			case "risk":
				h.number = int64(risks[id].Rank)
			case "lastSeen":
				h.number = e.seen(now).UnixNano()
			case "firstSeen":
				h.number = e.firstSeen.UnixNano()
			case "health":
				h.text = string(r.sensorHealth(e, now))
			case "agentVersion":
				h.text = e.agentVersion
			case "name":
				h.text = h.name
			}
			hits = append(hits, h)
		}
	}
	r.mu.Unlock()
	slices.SortFunc(hits, func(a, b hit) int {
		by := cmp.Or(cmp.Compare(a.number, b.number), cmp.Compare(a.text, b.text))
		if descending {
			by = -by
		}
		return cmp.Or(by, cmp.Compare(a.name, b.name), cmp.Compare(a.id, b.id))
	})
	ids := make([]event.DeviceID, len(hits))
	for i, h := range hits {
		ids[i] = h.id
	}
	return ids
}

func (e *entry) matches(text string) bool {
	return strings.Contains(strings.ToLower(e.name), text) || slices.ContainsFunc(e.addresses, func(a string) bool { return strings.HasPrefix(a, text) })
}

// Counts are the devices of an environment that are not offboarded.
type Counts struct {
	Total     int `json:"total"`
	Active    int `json:"active" doc:"of sensor health Active"`
	Protected int `json:"protected" doc:"connected, licensed, with real-time protection on"`
}

// Counts counts the devices of every environment.
func (r *Registry) Counts(organization string) map[string]Counts {
	now := r.now()
	counts := map[string]Counts{}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.entries {
		if e.organization != organization || e.offboarded {
			continue
		}
		c := counts[e.environment]
		c.Total++
		if r.sensorHealth(e, now) == Active {
			c.Active++
		}
		if r.coverage(e, now).State == Protected {
			c.Protected++
		}
		counts[e.environment] = c
	}
	return counts
}

// Get returns one device.
func (r *Registry) Get(ctx context.Context, organization string, id event.DeviceID) (Details, error) {
	var d row
	if err := r.db.NewSelect().Model(&d).Where("id = ? AND organization_id = ?", id, organization).Scan(ctx); err != nil {
		return Details{}, db.NotFound(err, "device", id)
	}
	if d.ExpiredAt != nil {
		return Details{}, fault.New(fault.NotFound, "nothing but its name is kept of device %s: it was offboarded on %s, and its environment keeps such records for a time only", d.Name, d.OffboardedAt.UTC().Format(time.DateOnly))
	}
	return r.view(&d), nil
}

func (r *Registry) view(d *row) Details {
	now := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.entries[d.ID]
	if e == nil {
		e = d.entry()
	}
	v := Details{
		Device: Device{
			ID: string(d.ID), Name: d.Name, Environment: rest.Ref{ID: d.EnvironmentID}, OSPlatform: platform(d.Facts.OS), OSDistribution: d.Facts.Distribution,
			OSVersion: d.Facts.OSVersion, OSName: d.Facts.OSName, Kernel: d.Facts.Kernel, Arch: d.Facts.Arch, AgentVersion: d.Facts.AgentVersion,
			IPAddresses: notNil(d.Facts.IPAddresses), FirstSeen: d.FirstSeen, LastSeen: e.seen(now), OnboardingStatus: "Onboarded", Connected: e.connected,
			RiskLevel: "None", ExposureLevel: "No data available", Tags: []string{}, SensorHealth: r.sensorHealth(e, now),
			Protection: e.protection(), Plan: r.cfg.Tier(d.EnvironmentID, d.ID), Coverage: r.coverage(e, now),
		},
		Health: e.report,
		Policy: PolicyState{ConfirmedVersion: d.PolicyConfirmed, ConfirmedAt: d.PolicyConfirmedAt, Error: d.PolicyError},
	}
	if e.offboarded {
		v.OnboardingStatus = "Offboarded"
	}
	if e.report != nil {
		v.HealthAt = new(e.reportedAt)
		v.Conditions = e.report.Conditions
		v.Tags = tagsOf(e.report.EDRDeviceTags)
	}
	v.Conditions = notNil(v.Conditions)
	v.Extension = extensionOf(&v)
	return v
}

func notNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// seen is when the device was last heard of: now while it is connected.
func (e *entry) seen(now time.Time) time.Time {
	if e.connected {
		return now
	}
	return e.lastSeen
}

func platform(os string) string {
	switch os {
	case "linux":
		return "Linux"
	case "windows":
		return "Windows"
	default:
		return os
	}
}

func tagsOf(tags []health.Tag) []string {
	list := make([]string, len(tags))
	for i, t := range tags {
		list[i] = t.Value
		if t.Key != "GROUP" {
			list[i] = t.Key + "=" + t.Value
		}
	}
	return list
}

// protection is what the latest report says of real-time protection.
func (e *entry) protection() Protection {
	h := e.report
	if h == nil {
		return Protection{RealTime: "unknown"}
	}
	p := Protection{RealTime: "off", Mode: h.RealTimeScope, Healthy: h.Healthy, Licensed: h.Licensed}
	switch {
	case h.RealTimeEnabled:
		p.RealTime = "on"
	case !h.RealTimeAvailable:
		p.RealTime = "unavailable"
	case h.PassiveMode:
		p.RealTime = "passive"
	}
	return p
}

// sensorHealth derives the state from what is in memory; the caller holds mu.
func (r *Registry) sensorHealth(e *entry, now time.Time) SensorHealth {
	silent := now.Sub(e.seen(now))
	switch {
	case e.offboarded || silent > inactiveAfter:
		return Inactive
	case silent > impairedAfter:
		return ImpairedCommunication
	case e.report == nil:
		return NoSensorData
	case r.cfg.Tier(e.environment, e.id) == policy.Off:
		return Active // it reports, and is told to do nothing else
	case !e.report.Licensed || !e.report.Healthy:
		return Misconfigured
	default:
		return Active
	}
}

// extensionOf says how far the agent has come, in the words of the portals
// that people know.
func extensionOf(d *Details) Extension {
	e := Extension{Name: "Komainu." + d.OSPlatform, Version: d.AgentVersion, ProvisioningState: "Succeeded"}
	switch {
	case d.OnboardingStatus == "Offboarded":
		e.ProvisioningState, e.Message = "Failed", "the device is offboarded"
	case d.Health == nil:
		e.ProvisioningState, e.Message = "Creating", "the agent has enrolled and has not reported yet"
	case d.Policy.Error != "":
		e.ProvisioningState, e.Message = "Failed", "the agent refuses its policy: "+d.Policy.Error
	case d.Policy.ConfirmedVersion == 0:
		e.ProvisioningState, e.Message = "Creating", "the agent has not confirmed its policy yet"
	case d.Health.Licensed && !d.Health.Healthy:
		e.ProvisioningState, e.Message = "Failed", strings.Join(d.Health.Issues, "; ")
	}
	return e
}
