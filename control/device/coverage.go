package device

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"komainu/event"
	"komainu/health"
	"komainu/policy"
)

// CoverageState says what stands between a device and malware.
type CoverageState string

// The states. Every device that is not offboarded is in one of them.
const (
	Protected   CoverageState = "protected"   // malware is stopped
	Watching    CoverageState = "watching"    // malware is seen and not stopped, as somebody chose
	Unprotected CoverageState = "unprotected" // it should be protected and is not
	Unlicensed  CoverageState = "unlicensed"  // its plan is off
)

// CoverageStates lists the states, best first.
func CoverageStates() []CoverageState {
	return []CoverageState{Protected, Watching, Unprotected, Unlicensed}
}

// Reason says why a device is covered as it is. A name never changes its
// meaning.
type Reason string

// The reasons.
const (
	PlanOff             Reason = "plan_off"              // unlicensed
	NoLicence           Reason = "no_licence"            // unlicensed: the agent does not know its plan yet
	NotReported         Reason = "not_reported"          // unprotected: enrolled, and never reported
	Silent              Reason = "silent"                // unprotected: not heard of, at most seven days
	LongSilent          Reason = "long_silent"           // unprotected: not heard of for longer
	PolicyRefused       Reason = "policy_refused"        // unprotected: it does not obey what applies now
	RealTimeUnavailable Reason = "real_time_unavailable" // unprotected: the host cannot, or it failed
	RealTimeOff         Reason = "real_time_off"         // unprotected: switched off
	Unhealthy           Reason = "unhealthy"             // unprotected: a part that protection needs does not work
	Passive             Reason = "passive"               // watching: the enforcement level
	OnlyWatching        Reason = "only_watching"         // watching: no filesystem is blocked on
	PartlyWatching      Reason = "partly_watching"       // protected, on some filesystems
	PartImpaired        Reason = "part_impaired"         // protected; another part works with less than it should
)

// Coverage is the state of one device with its reasons.
type Coverage struct {
	State   CoverageState `json:"state" doc:"protected, watching, unprotected, unlicensed; empty for an offboarded device"`
	Reasons []Reason      `json:"reasons"`
}

// needed are the parts of the agent without which nothing is protected.
var needed = []string{"real_time_protection", "scanner", "broker"}

// coverage derives the state from what is in memory; the caller holds mu.
func (r *Registry) coverage(e *entry, now time.Time) Coverage {
	because := func(s CoverageState, why ...Reason) Coverage { return Coverage{s, notNil(why)} }
	silent := now.Sub(e.seen(now))
	h := e.report
	switch {
	case e.offboarded:
		return because("")
	case r.cfg.Tier(e.environment, e.id) == policy.Off:
		return because(Unlicensed, PlanOff)
	case silent > inactiveAfter:
		return because(Unprotected, LongSilent)
	case silent > impairedAfter:
		// Protection goes on without a connection, but nobody can say so.
		return because(Unprotected, Silent)
	case h == nil:
		return because(Unprotected, NotReported)
	case e.refused:
		return because(Unprotected, PolicyRefused)
	case !h.Licensed:
		return because(Unlicensed, NoLicence)
	case h.PassiveMode:
		return because(Watching, Passive)
	case !h.RealTimeAvailable:
		return because(Unprotected, RealTimeUnavailable)
	case !h.RealTimeEnabled:
		return because(Unprotected, RealTimeOff)
	}
	var why []Reason
	for _, c := range h.Conditions {
		switch bad := c.State == health.Failed || c.State == health.Starting; {
		case bad && slices.Contains(needed, c.Part):
			return because(Unprotected, Unhealthy)
		case (bad || c.State == health.Degraded) && !slices.Contains(why, PartImpaired):
			why = append(why, PartImpaired)
		}
	}
	blocking, watching := filesystems(h.RealTimeScope)
	switch {
	case blocking == 0:
		return because(Watching, OnlyWatching)
	case watching > 0:
		why = append(why, PartlyWatching)
	}
	return because(Protected, why...)
}

// filesystems reads "2 blocking, 3 watching". A scope in other words blocks.
func filesystems(scope string) (blocking, watching int) {
	b, w, ok := strings.Cut(scope, " blocking, ")
	blocking, err := strconv.Atoi(b)
	if !ok || err != nil {
		return 1, 0
	}
	watching, err = strconv.Atoi(strings.TrimSuffix(w, " watching"))
	if err != nil {
		return blocking, 0
	}
	return blocking, watching
}

func (r *Registry) covered(e *entry, now time.Time, state CoverageState, reason Reason) bool {
	c := r.coverage(e, now)
	return (state == "" || c.State == state) && (reason == "" || slices.Contains(c.Reasons, reason))
}

// Count is how many devices there are of one value.
type Count struct {
	Value string `json:"value"`
	Count int    `json:"count"`
}

// CoverageCount is how many devices are in one state, and why.
type CoverageCount struct {
	State   CoverageState `json:"state"`
	Count   int           `json:"count"`
	Reasons []Count       `json:"reasons" doc:"most frequent first; a device may have several"`
}

// Totals are the devices of an organization by what a home page shows. Every
// number is the total of the list that the same value selects.
type Totals struct {
	Total         int             `json:"total" doc:"without offboarded devices"`
	Offboarded    int             `json:"offboarded"`
	Connected     int             `json:"connected"`
	New           int             `json:"new" doc:"seen first within seven days"`
	Coverage      []CoverageCount `json:"coverage" doc:"one for each state, also when nobody is in it"`
	Health        []Count         `json:"health"`
	RealTime      []Count         `json:"realTime"`
	Risk          []Count         `json:"risk"`
	Definitions   []Count         `json:"definitions" doc:"by state of the definitions, of devices that have reported"`
	Platforms     []Count         `json:"platforms"`
	Distributions []Count         `json:"distributions"`
	AgentVersions []Count         `json:"agentVersions"`
	Tags          []Count         `json:"tags"`
}

// Totals counts the devices of an organization.
func (r *Registry) Totals(organization string, risks map[event.DeviceID]Risk) Totals {
	now := r.now()
	var t Totals
	states := map[CoverageState]int{}
	reasons := map[CoverageState]map[string]int{}
	for _, s := range CoverageStates() {
		reasons[s] = map[string]int{}
	}
	healths, realTime, risk, definitions := map[string]int{}, map[string]int{}, map[string]int{}, map[string]int{}
	platforms, distributions, versions, tags := map[string]int{}, map[string]int{}, map[string]int{}, map[string]int{}
	r.mu.Lock()
	for id, e := range r.entries {
		switch {
		case e.organization != organization || e.expired:
			continue
		case e.offboarded:
			t.Offboarded++
			continue
		}
		t.Total++
		if e.connected {
			t.Connected++
		}
		if now.Sub(e.firstSeen) <= newFor {
			t.New++
		}
		c := r.coverage(e, now)
		states[c.State]++
		for _, why := range c.Reasons {
			reasons[c.State][string(why)]++
		}
		healths[string(r.sensorHealth(e, now))]++
		realTime[e.protection().RealTime]++
		level := "None"
		if k, ok := risks[id]; ok {
			level = k.Level
		}
		risk[level]++
		platforms[e.platform]++
		distributions[e.distribution]++
		versions[e.agentVersion]++
		if e.report != nil {
			definitions[e.report.DefinitionsStatus]++
			for _, tag := range tagsOf(e.report.EDRDeviceTags) {
				tags[tag]++
			}
		}
	}
	r.mu.Unlock()
	for _, s := range CoverageStates() {
		t.Coverage = append(t.Coverage, CoverageCount{s, states[s], ranked(reasons[s])})
	}
	t.Health, t.RealTime, t.Risk, t.Definitions = ranked(healths), ranked(realTime), ranked(risk), ranked(definitions)
	t.Platforms, t.Distributions, t.AgentVersions, t.Tags = ranked(platforms), ranked(distributions), ranked(versions), ranked(tags)
	return t
}

// maxValues bounds the values of one kind: the rest is found by searching.
const maxValues = 200

// ranked orders counts, most frequent first.
func ranked(counts map[string]int) []Count {
	list := []Count{}
	for _, v := range slices.Sorted(maps.Keys(counts)) {
		if v != "" {
			list = append(list, Count{v, counts[v]})
		}
	}
	slices.SortStableFunc(list, func(a, b Count) int { return b.Count - a.Count })
	return list[:min(len(list), maxValues)]
}
