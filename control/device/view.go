package device

import (
	"context"
	"strings"
	"time"

	"github.com/uptrace/bun"

	"komainu/control/db"
	"komainu/control/rest"
	"komainu/event"
	"komainu/health"
	"komainu/policy"
)

// Ref names something by id and name.
type Ref struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

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
)

// Protection is the state of real-time protection.
type Protection struct {
	RealTime string `json:"realTime" doc:"on, off, passive, unavailable or unknown"`
	Scope    string `json:"scope" doc:"what is blocked and what is only watched"`
	Healthy  bool   `json:"healthy"`
	Licensed bool   `json:"licensed"`
}

// Device is a line of the inventory.
type Device struct {
	ID               string       `json:"id"`
	Name             string       `json:"name"`
	Environment      Ref          `json:"environment"`
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
	Tags             []health.Tag `json:"tags"`
	Plan             policy.Tier  `json:"plan"`
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
	Health    *health.Report `json:"health"`
	HealthAt  *time.Time     `json:"healthAt"`
	Extension Extension      `json:"extension"`
	Policy    PolicyState    `json:"policy"`
}

// Query selects devices.
type Query struct {
	rest.Paging
	Environment string `query:"environment" doc:"id of an environment"`
	Text        string `query:"q" doc:"part of a name or address"`
	Health      string `query:"health" doc:"a sensor health state"`
}

// List returns a page by name. Environment names, plans and alert counts are
// other slices' and are filled in by the caller.
func (r *Registry) List(ctx context.Context, q Query) (rest.List[Device], error) {
	offset, err := q.Offset()
	if err != nil {
		return rest.List[Device]{}, err
	}
	var rows []row
	sel := r.db.NewSelect().Model(&rows).Order("name", "id")
	if q.Environment != "" {
		sel = sel.Where("environment_id = ?", q.Environment)
	}
	if q.Text != "" {
		like := "%" + likeEscape(strings.ToLower(q.Text)) + "%"
		sel = sel.WhereGroup(" AND ", func(s *bun.SelectQuery) *bun.SelectQuery {
			return s.Where(`lower(name) LIKE ? ESCAPE '\'`, like).WhereOr(`lower(facts) LIKE ? ESCAPE '\'`, like)
		})
	}
	if q.Health == "" {
		total, err := sel.Limit(int64(q.Limit)).Offset(int64(offset)).ScanAndCount(ctx)
		if err != nil {
			return rest.List[Device]{}, err
		}
		items := r.views(rows)
		return rest.NewList(items, int(total), q.Next(offset, len(items), int(total))), nil
	}
	// Health is derived from memory, so it is filtered after reading.
	if err := sel.Scan(ctx); err != nil {
		return rest.List[Device]{}, err
	}
	var matching []Device
	for _, d := range r.views(rows) {
		if string(d.SensorHealth) == q.Health {
			matching = append(matching, d)
		}
	}
	page := matching[min(offset, len(matching)):min(offset+q.Limit, len(matching))]
	return rest.NewList(page, len(matching), q.Next(offset, len(page), len(matching))), nil
}

func likeEscape(s string) string {
	return strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(s)
}

func (r *Registry) views(rows []row) []Device {
	items := make([]Device, len(rows))
	for i := range rows {
		items[i] = r.view(&rows[i]).Device
	}
	return items
}

// Get returns one device.
func (r *Registry) Get(ctx context.Context, id event.DeviceID) (Details, error) {
	var d row
	if err := r.db.NewSelect().Model(&d).Where("id = ?", id).Scan(ctx); err != nil {
		return Details{}, db.NotFound(err, "device", id)
	}
	return r.view(&d), nil
}

func (r *Registry) view(d *row) Details {
	r.mu.Lock()
	var l live
	if known := r.live[d.ID]; known != nil {
		l = *known
	}
	r.mu.Unlock()
	report, reportedAt := d.Health, d.HealthAt
	if l.report != nil {
		report, reportedAt = l.report, &l.reportedAt
	}
	seen := d.LastSeen
	if l.lastSeen.After(seen) {
		seen = l.lastSeen
	}
	if l.connected {
		seen = r.now().UTC()
	}
	v := Details{
		Device: Device{
			ID: string(d.ID), Name: d.Name, Environment: Ref{ID: d.EnvironmentID}, OSPlatform: platform(d.Facts.OS), OSDistribution: d.Facts.Distribution,
			OSVersion: d.Facts.OSVersion, OSName: d.Facts.OSName, Kernel: d.Facts.Kernel, Arch: d.Facts.Arch, AgentVersion: d.Facts.AgentVersion,
			IPAddresses: d.Facts.IPAddresses, FirstSeen: d.FirstSeen, LastSeen: seen, OnboardingStatus: "Onboarded", Connected: l.connected,
			RiskLevel: "None", ExposureLevel: "No data available", Tags: []health.Tag{},
			Protection: Protection{RealTime: "unknown"},
		},
		Health: report, HealthAt: reportedAt,
		Policy: PolicyState{ConfirmedVersion: d.PolicyConfirmed, ConfirmedAt: d.PolicyConfirmedAt, Error: d.PolicyError},
	}
	if v.IPAddresses == nil {
		v.IPAddresses = []string{}
	}
	if d.OffboardedAt != nil {
		v.OnboardingStatus = "Offboarded"
	}
	if report != nil {
		v.Protection = protectionOf(report)
		if report.EDRDeviceTags != nil {
			v.Tags = report.EDRDeviceTags
		}
	}
	v.SensorHealth = r.sensorHealth(seen, l, report)
	v.Extension = extensionOf(&v)
	return v
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

func protectionOf(h *health.Report) Protection {
	p := Protection{RealTime: "off", Scope: h.RealTimeScope, Healthy: h.Healthy, Licensed: h.Licensed}
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

func (r *Registry) sensorHealth(seen time.Time, l live, report *health.Report) SensorHealth {
	silent := r.now().Sub(seen)
	switch {
	case !l.connected && silent > inactiveAfter:
		return Inactive
	case !l.connected && silent > impairedAfter:
		return ImpairedCommunication
	case report == nil:
		return NoSensorData
	case report.Licensed && !report.Healthy:
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
