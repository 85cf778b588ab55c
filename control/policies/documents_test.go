package policies_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"komainu/control/policies"
	"komainu/event"
	"komainu/fault"
	"komainu/policy"
)

func TestWhatApplies(t *testing.T) {
	b := open(t)
	doc := b.plans["prod"]
	doc.Managed.EnforcementLevel = new(policy.OnDemand)
	b.plans["prod"] = doc
	id := b.host("web-1", "prod")
	g := b.group(t, "web", 1, policies.Match{Name: "web-*"})
	weak := b.make(t, "weak", 0, `{"enforcementLevel":"real_time","scanArchives":true,"allowedThreats":["A","B"],"maximumOnDemandScanThreads":4}`, all)
	strong := b.make(t, "strong", 9, `{"scanArchives":false,"allowedThreats":["B","C"]}`, toGroup(g))
	managed := b.document(t, id).Managed
	if *managed.EnforcementLevel != policy.OnDemand || *managed.ScanArchives || *managed.OnDemandScanThreads != 4 || !slices.Equal(managed.AllowedThreats, []string{"B", "C", "A"}) {
		t.Errorf("%+v", managed)
	}
	if s := b.setting(t, id, "enforcementLevel"); s.Source.Kind != "plan" || s.Source.Name != "Production" || len(s.Overridden) != 1 || s.Overridden[0].ID != weak.ID {
		t.Errorf("%+v", s)
	}
	if s := b.setting(t, id, "scanArchives"); s.Source.ID != strong.ID || s.Source.Name != "strong" || string(s.Value) != "false" || string(s.Overridden[0].Value) != "true" || s.Confirmed || s.Since != nil {
		t.Errorf("%+v", s)
	}
	if s := b.setting(t, id, "allowedThreats"); s.Source.ID != strong.ID || len(s.United) != 1 || s.United[0].ID != weak.ID || len(s.Overridden) != 0 {
		t.Errorf("%+v", s)
	}
	if s := b.setting(t, id, "logLevel"); s.Source.Kind != "default" || string(s.Value) != `"info"` || s.Confirmed {
		t.Errorf("%+v", s)
	}
	// A draft is for nobody.
	b.make(t, "draft", 0, `{"scanHistoryMaximumItems":100}`)
	if m := b.document(t, id).Managed; m.ScanHistory != nil {
		t.Error("a draft applies")
	}
}

func TestVersionRisesWithTheContentAlone(t *testing.T) {
	b := open(t)
	web, prod := b.host("web-1", "prod"), b.host("db-1", "prod")
	compose := func() []event.DeviceID {
		t.Helper()
		b.Refresh()
		ids, err := b.Recompose(t.Context(), b.devices)
		if err != nil {
			t.Fatal(err)
		}
		return ids
	}
	if ids := compose(); len(ids) != 2 {
		t.Fatalf("at first %v", ids)
	}
	if ids := compose(); len(ids) != 0 {
		t.Errorf("again %v", ids)
	}
	g := b.group(t, "web", 1, policies.Match{Name: "web-*"})
	p := b.make(t, "p", 0, `{"scanArchives":false}`, toGroup(g))
	if ids := compose(); !slices.Equal(ids, []event.DeviceID{web}) {
		t.Errorf("a policy of one: %v", ids)
	}
	if a, c := b.document(t, web).Version, b.document(t, prod).Version; a != 2 || c != 1 {
		t.Errorf("versions %d, %d", a, c)
	}
	if _, err := b.Save(t.Context(), org, p.ID, policies.Change{Version: 1, Name: "renamed", Type: "antivirus", Settings: raw(t, `{"scanArchives":false}`), Assignments: []policies.Assignment{toGroup(g)}}); err != nil {
		t.Fatal(err)
	}
	if ids := compose(); len(ids) != 0 {
		t.Errorf("a new name alone: %v", ids)
	}
	b.reopen(t)
	if ids := compose(); len(ids) != 0 {
		t.Errorf("after a restart: %v", ids)
	}
	doc := b.plans["prod"]
	doc.Licensed, doc.Plan = false, policy.Off
	b.plans["prod"] = doc
	if ids := compose(); len(ids) != 2 {
		t.Errorf("after a change of the plan: %v", ids)
	}
	if err := b.Forget(t.Context(), web); err != nil {
		t.Fatal(err)
	}
	if b.Version(web) != 0 || b.Version(prod) == 0 {
		t.Errorf("with web-1 forgotten the versions are %d, %d", b.Version(web), b.Version(prod))
	}
	b.reopen(t)
	if b.Version(web) != 0 || b.Version(prod) == 0 {
		t.Errorf("after another restart they are %d, %d", b.Version(web), b.Version(prod))
	}
}

func TestARestoredBackupIsListenedTo(t *testing.T) {
	b := open(t)
	id := b.host("web-1", "prod")
	version := b.document(t, id).Version
	b.confirm(t, id, version, "")
	report := func(v uint64) uint64 {
		t.Helper()
		if err := b.Reported(t.Context(), id, v); err != nil {
			t.Fatal(err)
		}
		return b.document(t, id).Version
	}
	if got := report(version); got != version {
		t.Errorf("what is confirmed became version %d", got)
	}
	if got := report(0); got != version {
		t.Errorf("an agent without a policy got version %d", got)
	}
	// The agent has versions from after the backup.
	if got := report(40); got != 41 {
		t.Errorf("after 40 came %d", got)
	}
	// The same number, but not what this control plane knows to be confirmed.
	if got := report(41); got != 42 {
		t.Errorf("after 41 came %d", got)
	}
	b.reopen(t)
	if got := b.document(t, id).Version; got != 42 {
		t.Errorf("after a restart %d", got)
	}
	if err := b.Reported(t.Context(), id, 1<<63); !fault.Is(err, fault.Invalid) {
		t.Errorf("a version that cannot be: %v", err)
	}
}

func TestConfirmation(t *testing.T) {
	b := open(t)
	id := b.host("web-1", "prod")
	p := b.make(t, "p", 0, `{"scanArchives":false,"maximumOnDemandScanThreads":4}`, all)
	counts := func() policies.Counts {
		t.Helper()
		p, err := b.Get(t.Context(), org, p.ID)
		if err != nil {
			t.Fatal(err)
		}
		return p.Devices
	}
	version := b.document(t, id).Version
	if c := counts(); c != (policies.Counts{Assigned: 1, Pending: 1}) {
		t.Errorf("%+v", c)
	}
	first := b.now
	b.confirm(t, id, version, "")
	if s := b.setting(t, id, "scanArchives"); !s.Confirmed || !s.Since.Equal(first) {
		t.Errorf("%+v", s)
	}
	if s := b.setting(t, id, "logLevel"); !s.Confirmed || s.Since != nil {
		t.Errorf("%+v", s)
	}
	if c := counts(); c != (policies.Counts{Assigned: 1, Confirmed: 1}) {
		t.Errorf("%+v", c)
	}
	if _, err := b.Save(t.Context(), org, p.ID, policies.Change{Version: 1, Name: "p", Type: "antivirus", Settings: raw(t, `{"scanArchives":false,"maximumOnDemandScanThreads":8}`), Assignments: []policies.Assignment{all}}); err != nil {
		t.Fatal(err)
	}
	if c := counts(); c != (policies.Counts{Assigned: 1, Pending: 1}) {
		t.Errorf("%+v", c)
	}
	b.now = b.now.Add(time.Hour)
	// What did not change stays confirmed while the new version is on its way.
	if a, c := b.setting(t, id, "scanArchives"), b.setting(t, id, "maximumOnDemandScanThreads"); !a.Confirmed || c.Confirmed {
		t.Errorf("%+v, %+v", a, c)
	}
	if newest, err := b.Confirmed(t.Context(), id, version, ""); err != nil || newest {
		t.Errorf("an answer to an old version counts: %v", err)
	}
	version = b.document(t, id).Version
	b.confirm(t, id, version, "it is too strict")
	a, err := b.Of(t.Context(), id)
	if err != nil || a.Error != "it is too strict" || a.Pending || a.ConfirmedVersion != version-1 {
		t.Errorf("%+v, %v", a, err)
	}
	if c := counts(); c != (policies.Counts{Assigned: 1, Failed: 1}) {
		t.Errorf("%+v", c)
	}
	b.reopen(t)
	b.confirm(t, id, version, "")
	if s := b.setting(t, id, "scanArchives"); !s.Since.Equal(first) {
		t.Errorf("what did not change is confirmed anew: %+v", s)
	}
	if s := b.setting(t, id, "maximumOnDemandScanThreads"); !s.Confirmed || !s.Since.Equal(b.now) {
		t.Errorf("%+v", s)
	}
	if a, err := b.Of(t.Context(), id); err != nil || a.Error != "" || a.Pending {
		t.Errorf("%+v, %v", a, err)
	}
}

// TestChangesWhileAgentsConnect has everything happen at once: what an agent
// is sent only ever rises, and in the end everybody has the last word.
func TestChangesWhileAgentsConnect(t *testing.T) {
	b := open(t)
	for i := range 8 {
		b.host(fmt.Sprint("web-", i), "prod")
	}
	p := b.make(t, "p", 0, `{"maximumOnDemandScanThreads":1}`, all)
	var running sync.WaitGroup
	stop := make(chan struct{})
	for _, d := range b.devices {
		running.Go(func() {
			last := uint64(0)
			for {
				doc := b.document(t, d.ID)
				if doc.Version < last {
					t.Errorf("version %d after %d", doc.Version, last)
				}
				last = doc.Version
				if _, err := b.Confirmed(t.Context(), d.ID, doc.Version, ""); err != nil {
					t.Error(err)
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	for i := range 20 {
		var err error
		p, err = b.Save(t.Context(), org, p.ID, policies.Change{Version: p.Version, Name: "p", Type: "antivirus",
			Settings: raw(t, fmt.Sprintf(`{"maximumOnDemandScanThreads":%d}`, i+2)), Assignments: []policies.Assignment{all}})
		if err != nil {
			t.Fatal(err)
		}
		b.Refresh()
		if _, err := b.Recompose(t.Context(), b.devices); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	running.Wait()
	for _, d := range b.devices {
		if doc := b.document(t, d.ID); *doc.Managed.OnDemandScanThreads != 21 {
			t.Errorf("%s has %d threads", d.Name, *doc.Managed.OnDemandScanThreads)
		}
	}
}
