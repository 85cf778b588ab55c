package device_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"komainu/control/device"
	"komainu/control/rest"
	"komainu/event"
	"komainu/health"
	"komainu/policy"
)

func TestCoverage(t *testing.T) {
	b := open(t)
	with := func(edit func(*health.Report)) *health.Report {
		r := good
		r.RealTimeScope = "2 blocking, 0 watching"
		edit(&r)
		return &r
	}
	part := func(name string, state health.State) func(*health.Report) {
		return func(r *health.Report) { r.Conditions = []health.Condition{{Part: name, State: state}} }
	}
	for name, c := range map[string]struct {
		report *health.Report
		silent time.Duration
		refuse string
		tier   policy.Tier
		want   device.CoverageState
		why    []device.Reason
	}{
		"all well":                      {report: with(func(*health.Report) {}), want: device.Protected},
		"in words of an older agent":    {report: &good, want: device.Protected},
		"some filesystems watched":      {report: with(func(r *health.Report) { r.RealTimeScope = "1 blocking, 3 watching" }), want: device.Protected, why: []device.Reason{device.PartlyWatching}},
		"nothing blocks":                {report: with(func(r *health.Report) { r.RealTimeScope = "0 blocking, 4 watching" }), want: device.Watching, why: []device.Reason{device.OnlyWatching}},
		"passive":                       {report: with(func(r *health.Report) { r.PassiveMode, r.RealTimeEnabled = true, false }), want: device.Watching, why: []device.Reason{device.Passive}},
		"switched off":                  {report: with(func(r *health.Report) { r.RealTimeEnabled = false }), want: device.Unprotected, why: []device.Reason{device.RealTimeOff}},
		"no root":                       {report: with(func(r *health.Report) { r.RealTimeEnabled, r.RealTimeAvailable = false, false }), want: device.Unprotected, why: []device.Reason{device.RealTimeUnavailable}},
		"the scanner is down":           {report: with(part("scanner", health.Starting)), want: device.Unprotected, why: []device.Reason{device.Unhealthy}},
		"the sensor lacks something":    {report: with(part("sensor", health.Degraded)), want: device.Protected, why: []device.Reason{device.PartImpaired}},
		"no licence yet":                {report: with(func(r *health.Report) { r.Licensed = false }), want: device.Unlicensed, why: []device.Reason{device.NoLicence}},
		"the plan is off":               {report: &good, tier: policy.Off, want: device.Unlicensed, why: []device.Reason{device.PlanOff}},
		"never reported":                {want: device.Unprotected, why: []device.Reason{device.NotReported}},
		"silent":                        {report: &good, silent: time.Hour, want: device.Unprotected, why: []device.Reason{device.Silent}},
		"silent for long":               {report: &good, silent: 8 * 24 * time.Hour, want: device.Unprotected, why: []device.Reason{device.LongSilent}},
		"silent, and the plan is off":   {report: &good, silent: time.Hour, tier: policy.Off, want: device.Unlicensed, why: []device.Reason{device.PlanOff}},
		"a policy that it cannot apply": {report: &good, refuse: "format 9", want: device.Unprotected, why: []device.Reason{device.PolicyRefused}},
	} {
		t.Run(name, func(t *testing.T) {
			b := open(t)
			id := b.register(t, "web")
			b.tier = policy.P2
			if c.tier != "" {
				b.tier = c.tier
			}
			if c.report != nil {
				b.Report(id, *c.report)
			}
			if err := b.PolicyConfirmed(t.Context(), id, 1, c.refuse); err != nil {
				t.Fatal(err)
			}
			b.now = b.now.Add(c.silent)
			got := b.get(t, id).Coverage
			if got.State != c.want || !slices.Equal(got.Reasons, c.why) {
				t.Errorf("coverage %+v, want %s because %v", got, c.want, c.why)
			}
			// The list behind the number holds it, and the one of another state does not.
			for _, s := range device.CoverageStates() {
				want := 0
				if s == c.want {
					want = 1
				}
				if n := b.count(t, device.Query{Coverage: s}, nil); n != want {
					t.Errorf("%d devices are %s, want %d", n, s, want)
				}
			}
			// It survives a restart.
			b.reopen(t)
			if again := b.get(t, id).Coverage; c.report == nil && again.State != c.want {
				t.Errorf("after a restart %+v", again)
			}
		})
	}
	if b.count(t, device.Query{}, nil) != 0 {
		t.Error("the benches share devices")
	}
}

func (b *bench) count(t testing.TB, q device.Query, risks map[event.DeviceID]device.Risk) int {
	t.Helper()
	q.Paging = rest.Paging{Limit: 1}
	list, err := b.List(t.Context(), org, q, risks)
	if err != nil {
		t.Fatal(err)
	}
	return list.Total
}

// TestTotalsAreTheTotalsOfTheLists compares every number of the home page
// with the list that it leads to.
func TestTotalsAreTheTotalsOfTheLists(t *testing.T) {
	b := open(t)
	var ids []event.DeviceID
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		ids = append(ids, b.register(t, name))
	}
	b.now = b.now.Add(8 * 24 * time.Hour)
	fresh := b.register(t, "fresh")
	b.Report(fresh, good)
	b.Report(ids[0], good)
	passive := good
	passive.PassiveMode, passive.RealTimeEnabled, passive.EDRDeviceTags = true, false, []health.Tag{{Key: "team", Value: "pay"}}
	b.Report(ids[1], passive)
	broken := good
	broken.Healthy, broken.RealTimeEnabled, broken.RealTimeAvailable = false, false, false
	b.Report(ids[2], broken)
	b.Report(ids[3], good)
	if err := b.Offboard(t.Context(), org, ids[3], "gone"); err != nil {
		t.Fatal(err)
	}
	risks := map[event.DeviceID]device.Risk{ids[0]: {Active: 3, Level: "High", Rank: 4}, ids[1]: {Active: 1, Level: "Low", Rank: 2}}
	totals := b.Totals(org, risks)
	if totals.Total != 6 || totals.Offboarded != 1 || totals.New != 1 {
		t.Errorf("%d devices, %d offboarded, %d new", totals.Total, totals.Offboarded, totals.New)
	}
	same := func(name string, want int, q device.Query) {
		t.Helper()
		q.Onboarding = "Onboarded"
		if got := b.count(t, q, risks); got != want {
			t.Errorf("%s: the number is %d, the list has %d", name, want, got)
		}
	}
	same("new", totals.New, device.Query{New: true})
	sum := 0
	for _, c := range totals.Coverage {
		sum += c.Count
		same(string(c.State), c.Count, device.Query{Coverage: c.State})
		for _, why := range c.Reasons {
			same(why.Value, why.Count, device.Query{Coverage: c.State, Reason: device.Reason(why.Value)})
		}
	}
	if sum != totals.Total {
		t.Errorf("%d devices have a coverage, of %d", sum, totals.Total)
	}
	for name, list := range map[string]struct {
		counts []device.Count
		q      func(string) device.Query
	}{
		"health":       {totals.Health, func(v string) device.Query { return device.Query{Health: device.SensorHealth(v)} }},
		"real time":    {totals.RealTime, func(v string) device.Query { return device.Query{RealTime: v} }},
		"risk":         {totals.Risk, func(v string) device.Query { return device.Query{Risk: v} }},
		"platform":     {totals.Platforms, func(v string) device.Query { return device.Query{Platform: v} }},
		"distribution": {totals.Distributions, func(v string) device.Query { return device.Query{Distribution: v} }},
		"version":      {totals.AgentVersions, func(v string) device.Query { return device.Query{AgentVersion: v} }},
		"tag":          {totals.Tags, func(v string) device.Query { return device.Query{Tag: v} }},
	} {
		if len(list.counts) == 0 {
			t.Errorf("%s is not counted", name)
		}
		for _, c := range list.counts {
			same(name+" "+c.Value, c.Count, list.q(c.Value))
		}
	}
}

func TestSort(t *testing.T) {
	b := open(t)
	risks := map[event.DeviceID]device.Risk{}
	for i, name := range []string{"b", "c", "a"} {
		id := b.register(t, name)
		b.now = b.now.Add(time.Minute)
		risks[id] = device.Risk{Active: 1, Level: []string{"Low", "High", "Low"}[i], Rank: []int{2, 4, 2}[i]}
	}
	for order, want := range map[string]string{"": "abc", "name": "abc", "-name": "cba", "firstSeen": "bca", "-lastSeen": "acb", "-risk": "cab", "risk": "abc"} {
		list, err := b.List(t.Context(), org, device.Query{Paging: rest.Paging{Limit: 10}, Sort: order}, risks)
		if err != nil {
			t.Fatal(err)
		}
		var got strings.Builder
		for _, d := range list.Items {
			got.WriteString(d.Name)
		}
		if got.String() != want {
			t.Errorf("sorted by %q: %s, want %s", order, got.String(), want)
		}
	}
}
