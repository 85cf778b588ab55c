package agent

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"komainu/agent/link"
	"komainu/agent/localapi"
	"komainu/agent/realtime"
	"komainu/agent/scan"
	"komainu/agent/sensor"
	"komainu/fault"
	"komainu/health"
	"komainu/policy"
)

// healthKeeper makes the report on the agent's state. What it says is looked
// up when it is asked; only since when a part is in its state is remembered.
type healthKeeper struct {
	w *worker

	mu        sync.Mutex
	since     map[string]health.Condition // last condition of each part
	marks     []realtime.Mark
	markError error
	last      string // what the last heartbeat said, to send the next when it differs
}

func newHealthKeeper(w *worker) *healthKeeper {
	return &healthKeeper{w: w, since: map[string]health.Condition{}}
}

// marked notes which filesystems are watched.
func (h *healthKeeper) marked(marks []realtime.Mark) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.marks = slices.Clone(marks)
}

func (h *healthKeeper) marksFailed(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.markError = err
}

// run sends a heartbeat when what matters has changed.
func (h *healthKeeper) run(ctx context.Context) error {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		h.changed()
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// changed beats if the report says something new.
func (h *healthKeeper) changed() {
	r := h.report()
	var b strings.Builder
	fmt.Fprint(&b, r.Healthy, r.Licensed, r.RealTimeEnabled, r.RealTimeScope, r.PassiveMode, r.SupplementaryEvents, r.EDRDeviceTags, r.Managed, r.Settings, r.Issues)
	for _, c := range r.Conditions {
		fmt.Fprint(&b, c.Part, c.State, c.Reason)
	}
	text := b.String()
	h.mu.Lock()
	fresh := h.last != text
	h.last = text
	h.mu.Unlock()
	if fresh {
		h.w.link.Beat()
	}
}

// productLife is how long a version is meant to be used.
const productLife = 9 * 30 * 24 * time.Hour

// report returns the state as of now.
func (h *healthKeeper) report() health.Report {
	w := h.w
	now := w.settings.Now()
	state := w.link.State()
	defs := scan.Embedded()
	r := health.Report{
		Licensed: now.Licensed, EngineVersion: scan.EngineVersion, EngineLoadStatus: "Engine not loaded", AppVersion: Version, OrgID: "unavailable",
		LogLevel: levelName(w.cfg.Level), MachineGUID: machineID(), ReleaseRing: "Production",
		ProductExpiration: defs.Updated().Add(productLife).UTC().Format(time.DateOnly),
		PassiveMode:       now.EnforcementLevel == policy.Passive, BehaviorMonitoring: enabled(now.BehaviorMonitoring),
		RealTimeAvailable: w.realtime != nil, RealTimeSubsystem: "unavailable", SupplementaryEvents: string(sensor.Unavailable),
		AutomaticDefinitions: false, DefinitionsUpdated: defs.Updated().UTC().Format(time.RFC3339), DefinitionsMinutes: int64(time.Since(defs.Updated()).Minutes()),
		DefinitionsVersion: defs.Version(), DefinitionsStatus: "up_to_date", EDRClientVersion: Version, EDRConfiguration: fmt.Sprint(now.Version),
		EDRDeviceTags: []health.Tag{}, EDRMachineID: string(w.deviceID()), Conflicting: []string{}, Proxy: now.Proxy, Issues: []string{}, Managed: managedFields(now), Settings: settingsOf(now, w.settings.Local()),
		PackageForm: w.form(), Time: time.Now().UTC(),
	}
	if id := w.device.Load(); id != nil {
		r.OrgID = id.Organization
	}
	for _, t := range now.Tags {
		r.EDRDeviceTags = append(r.EDRDeviceTags, health.Tag(t))
		if t.Key == localapi.GroupIDs {
			r.EDRGroupIDs = t.Value
		}
	}
	if w.scanner.Status().Up || w.scanning.Status().Up {
		r.EngineLoadStatus = "Engine load succeeded"
	}
	if w.realtime != nil {
		r.RealTimeSubsystem = "fanotify"
	}
	if s := w.sensor.Load(); s != nil {
		r.SupplementaryEvents = string(s.Status().Subsystem)
	}
	h.conditions(&r, now, state)
	r.Healthy = now.Licensed && len(r.Issues) == 0
	return r
}

func enabled(on bool) string {
	if on {
		return "enabled"
	}
	return "disabled"
}

// managedFields names the fields whose value policy decides.
func managedFields(e policy.Effective) []string {
	fields := []string{}
	for setting, names := range map[string][]string{
		"enforcementLevel":   {"passive_mode_enabled", "real_time_protection_enabled"},
		"filesystems":        {"real_time_protection_scope"},
		"behaviorMonitoring": {"behavior_monitoring"},
		"tags":               {"edr_device_tags", "edr_group_ids"},
		"logLevel":           {"log_level"},
		"ebpfSupplementary":  {"supplementary_events_subsystem"},
	} {
		if e.Managed(setting) {
			fields = append(fields, names...)
		}
	}
	slices.Sort(fields)
	return fields
}

// conditions adds the state of every part, and what is the matter.
func (h *healthKeeper) conditions(r *health.Report, now policy.Effective, state link.State) {
	add := func(c health.Condition) {
		h.remember(&c)
		r.Conditions = append(r.Conditions, c)
		// What does not protect yet is no health, however short it lasts.
		notYet := c.State == health.Starting && now.Licensed && slices.Contains(protecting, c.Part)
		if c.State == health.Failed || c.State == health.Degraded || notYet {
			r.Issues = append(r.Issues, c.Part+": "+c.Reason)
		}
	}
	if !now.Licensed {
		r.Issues = append(r.Issues, "missing license")
	}
	add(licence(now, state))
	add(h.realTime(r, now))
	add(h.scanner())
	for _, c := range h.sensors(now) {
		add(c)
	}
	behaviour := health.Condition{Part: "behavior_monitoring", State: health.OK}
	if !now.Licensed || !now.BehaviorMonitoring || !now.EndpointDetection {
		behaviour.State, behaviour.Reason, behaviour.Code = health.Off, "switched off by a setting or the plan", health.SwitchedOff
	}
	add(behaviour)
	add(h.w.joinCondition(linkCondition(state)))
	if c, ok := certificateCondition(state, time.Now()); ok {
		add(c)
	}
	add(h.spool())
	if n, reason := h.w.protect.owed(); n > 0 {
		add(health.Condition{Part: "quarantine", State: health.Degraded, Code: health.QuarantineWaiting, Detail: fmt.Sprint(n), Reason: fmt.Sprintf("%d malicious files are blocked where they are and could not be put into quarantine: %s", n, reason),
			Remedy: "make room in the state folder; it is tried again every few seconds"})
	}
	add(health.Condition{Part: "definitions", State: health.OK, Reason: "embedded in this version", Code: health.DefinitionsBuiltIn})
}

// remember gives a condition the time since which it holds.
func (h *healthKeeper) remember(c *health.Condition) {
	h.mu.Lock()
	defer h.mu.Unlock()
	before, known := h.since[c.Part]
	if known && before.State == c.State && before.Reason == c.Reason {
		c.Since = before.Since
	} else if c.Since.IsZero() {
		c.Since = time.Now().UTC()
	}
	h.since[c.Part] = *c
}

// protecting are the parts that must work before a device is protected.
var protecting = []string{"real_time_protection", "scanner", "sensor"}

func licence(now policy.Effective, state link.State) health.Condition {
	c := health.Condition{Part: "licence", State: health.OK, Reason: "plan " + string(now.Plan)}
	switch {
	case !state.Enrolled:
		c.Code = health.NotEnrolled
		c.State, c.Reason, c.Remedy = health.Off, "this device is not enrolled", "run: komainu enrol TOKEN, with a join token from the portal"
	case now.Version == 0:
		c.Code = health.NoPolicyYet
		c.State, c.Reason, c.Remedy = health.Starting, "no policy has arrived yet", "wait for the link to the control plane; see komainu connectivity test"
	case !now.Licensed:
		c.Code = health.PlanOff
		c.State, c.Reason, c.Remedy = health.Off, "the plan of this environment is off", "switch the Servers plan on in the portal, environment settings"
	}
	return c
}

func (h *healthKeeper) realTime(r *health.Report, now policy.Effective) health.Condition {
	c := health.Condition{Part: "real_time_protection", State: health.Off}
	h.mu.Lock()
	marks, markError := slices.Clone(h.marks), h.markError
	h.mu.Unlock()
	block, watch := 0, 0
	for _, m := range marks {
		if m.Mode == policy.Block {
			block++
		} else {
			watch++
		}
	}
	r.RealTimeScope = fmt.Sprintf("%d blocking, %d watching", block, watch)
	switch {
	case h.w.realtime == nil:
		c.Code, c.Detail = health.RealTimeMissing, h.w.rtError.Error()
		c.Reason, c.Remedy = h.w.rtError.Error(), "see the agent's log"
		switch fault.KindOf(h.w.rtError) {
		case fault.NeedsRoot:
			c.Code, c.Remedy = health.NeedsRoot, "run the agent as root: as a service, or with sudo"
		case fault.Unsupported:
			c.Remedy = "use Linux 5.10 or later with fanotify permission events; scans on request work here too"
		}
		if now.Licensed {
			c.State = health.Failed
		}
	case !now.Licensed:
		c.Reason, c.Code = "no licence", health.NoLicence
	case now.EnforcementLevel != policy.RealTime:
		c.Code, c.Detail = health.EnforcementLevel, string(now.EnforcementLevel)
		c.Reason, c.Remedy = "the enforcement level is "+string(now.EnforcementLevel), "run: komainu config real-time-protection --value enabled"
	case markError != nil:
		c.Code, c.Detail = health.PartlyMarked, markError.Error()
		c.State, c.Reason, c.Remedy = health.Degraded, "not every filesystem could be marked: "+markError.Error(), "look at the agent's log"
		r.RealTimeEnabled = block+watch > 0
	case len(marks) == 0 && len(wantedMarks(now)) == 0:
		c.Reason, c.Code = "no filesystem of this host is to be protected", health.SwitchedOff
	case len(marks) == 0:
		c.State, c.Reason, c.Code = health.Starting, "filesystems are being marked", health.Marking
	default:
		c.State = health.OK
		r.RealTimeEnabled = true
		if s := h.w.realtime.Stats(); s.Unscanned() > 0 || s.Dropped > 0 {
			c.Remedy = fmt.Sprintf("%d opens were allowed without a scan since the start, %d written files were not scanned", s.Unscanned(), s.Dropped)
		}
	}
	return c
}

// scannerSilent is for how long the scanner may give no sign of life until it
// is said so: more than one sign has not come.
const scannerSilent = 900 * time.Millisecond

func (h *healthKeeper) scanner() health.Condition {
	s := h.w.scanner.Status()
	c := health.Condition{Part: "scanner", State: health.OK}
	switch {
	case !s.Up && s.Problem == "" && !h.w.keepScanner():
		// It is started for a scan, and ends with it.
		c.Code, c.Reason = health.EngineResting, "the engine is loaded when something is scanned: there is no real-time protection now"
	case !s.Up:
		c.State, c.Code, c.Detail, c.Reason = health.Starting, health.ScannerStarting, s.Problem, cmp.Or(s.Problem, "it is being started")
	case s.Silent > scannerSilent:
		c.State, c.Code, c.Reason = health.Degraded, health.ScannerSilent, "it gives no sign of life; opens go on unjudged after their deadline"
		c.Remedy = "it is replaced after a few seconds"
	case !s.Confined():
		c.Code, c.Detail, c.Reason, c.Remedy = health.SandboxIncomplete, s.Problem, s.Problem, "its sandbox is not complete on this kernel"
	}
	return c
}

func (h *healthKeeper) sensors(now policy.Effective) []health.Condition {
	s := h.w.sensor.Load()
	if s == nil {
		c := health.Condition{Part: "sensor", State: health.Off, Reason: "switched off by a setting or the plan", Code: health.SwitchedOff}
		if now.Licensed && now.EndpointDetection {
			c.State, c.Reason, c.Code = health.Starting, "kernel programs are being loaded", health.SensorLoading
		}
		return []health.Condition{c}
	}
	return s.Status().Conditions(h.w.started)
}

func (h *healthKeeper) spool() health.Condition {
	c := health.Condition{Part: "spool", State: health.OK}
	if err := cmp.Or(h.w.record.events.Stats().Err, h.w.record.findings.Stats().Err); err != nil {
		c.Code, c.Detail = health.SpoolInMemory, err.Error()
		c.State, c.Reason, c.Remedy = health.Degraded, "events wait in memory: "+err.Error(), "free space on the disk of "+h.w.cfg.State
	}
	if err := h.w.record.numbers.Unnoted(); err != nil && c.State == health.OK {
		c.State, c.Code, c.Detail, c.Reason = health.Degraded, health.EpochNotNoted, err.Error(), "the epoch of event numbers is not on disk: "+err.Error()
		c.Remedy = "free space on the disk of " + h.w.cfg.State
	}
	if lost := h.w.record.lost.Load(); lost > 0 {
		c.Remedy = fmt.Sprintf("%d records were dropped since the start", lost)
	}
	return c
}
