package device_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"komainu/control/access"
	"komainu/control/db"
	"komainu/control/device"
	"komainu/control/rest"
	"komainu/event"
	"komainu/fault"
	"komainu/health"
	"komainu/policy"
)

const org, env = "org", "env"

// bench is a registry with a clock and a plan of its own.
type bench struct {
	*device.Registry
	db      *bun.DB
	now     time.Time
	tier    policy.Tier
	changed int
}

func open(t testing.TB) *bench {
	t.Helper()
	d, err := db.OpenMemory()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	if err := db.Migrate(t.Context(), d, device.Migrations); err != nil {
		t.Fatal(err)
	}
	b := &bench{db: d, now: time.Date(2026, 11, 1, 9, 0, 0, 0, time.UTC), tier: policy.P2}
	b.reopen(t)
	return b
}

// reopen is a restart of the control plane.
func (b *bench) reopen(t testing.TB) {
	t.Helper()
	r, err := device.Open(t.Context(), b.db, device.Config{
		Log: slog.Default(), Now: func() time.Time { return b.now }, Tier: func(string, event.DeviceID) policy.Tier { return b.tier },
		Record:  func(context.Context, bun.IDB, access.Change) error { return nil },
		Changed: func(string, event.DeviceID) { b.changed++ },
	})
	if err != nil {
		t.Fatal(err)
	}
	b.Registry = r
}

func facts(name string) device.Facts {
	return device.Facts{Hostname: name, OS: "linux", Distribution: "debian", OSVersion: "12", AgentVersion: "1.2.3", IPAddresses: []string{"192.0.2.7", "2001:db8::7"}}
}

func (b *bench) register(t testing.TB, name string) event.DeviceID {
	t.Helper()
	id, err := b.Register(t.Context(), org, env, facts(name))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func (b *bench) get(t testing.TB, id event.DeviceID) device.Details {
	t.Helper()
	d, err := b.Get(t.Context(), org, id)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

var good = health.Report{Healthy: true, Licensed: true, RealTimeEnabled: true, RealTimeAvailable: true, RealTimeScope: "all_filesystems", EDRDeviceTags: []health.Tag{{Key: "GROUP", Value: "web"}}}

// TestPackageOfADevice: which package fits a device is known from its facts
// and its reports.
func TestPackageOfADevice(t *testing.T) {
	b := open(t)
	id := b.register(t, "web-1")
	f := facts("web-1")
	f.Arch = "arm64"
	if err := b.Connected(t.Context(), id, f); err != nil {
		t.Fatal(err)
	}
	report := good
	report.PackageForm = "rpm"
	b.Report(id, report)
	if s, _ := b.State(id); s.Arch != "arm64" || s.Form != "rpm" {
		t.Errorf("%+v", s)
	}
}

func TestSensorHealth(t *testing.T) {
	b := open(t)
	id := b.register(t, "web-1")
	state := func(want device.SensorHealth) {
		t.Helper()
		if got := b.get(t, id).SensorHealth; got != want {
			t.Errorf("sensor health %s, want %s", got, want)
		}
		list, err := b.List(t.Context(), org, device.Query{Paging: rest.Paging{Limit: 10}, Health: want}, nil)
		if err != nil || list.Total != 1 {
			t.Errorf("%d devices of health %s, %v", list.Total, want, err)
		}
	}
	state(device.NoSensorData) // enrolled just now
	if err := b.Connected(t.Context(), id, facts("web-1")); err != nil {
		t.Fatal(err)
	}
	b.now = b.now.Add(time.Hour)
	state(device.NoSensorData)
	b.Report(id, good)
	state(device.Active)
	unlicensed := good
	unlicensed.Licensed = false
	b.Report(id, unlicensed)
	state(device.Misconfigured)
	b.tier = policy.Off
	state(device.Active) // as the plan wants it
	b.tier = policy.P1
	ill := good
	ill.Healthy, ill.Issues = false, []string{"the sensor is off"}
	b.Report(id, ill)
	state(device.Misconfigured)
	if d := b.get(t, id); d.Protection.Healthy || d.Conditions == nil {
		t.Errorf("device %+v", d)
	}
	b.Report(id, good)
	b.Disconnected(id)
	b.now = b.now.Add(2 * time.Minute)
	state(device.Active)
	b.now = b.now.Add(time.Second)
	state(device.ImpairedCommunication)
	b.now = b.now.Add(7 * 24 * time.Hour)
	state(device.Inactive)
	if err := b.Offboard(t.Context(), org, id, "sold"); err != nil {
		t.Fatal(err)
	}
	state(device.Inactive)
}

func TestExtension(t *testing.T) {
	b := open(t)
	id := b.register(t, "web-1")
	state := func(want string) {
		t.Helper()
		if e := b.get(t, id).Extension; e.ProvisioningState != want || e.Name != "Komainu.Linux" || e.Version != "1.2.3" || (want == "Succeeded") != (e.Message == "") {
			t.Errorf("extension %+v, want %s", e, want)
		}
	}
	state("Creating")
	b.Report(id, good)
	state("Creating")
	if err := b.PolicyConfirmed(t.Context(), id, 3, ""); err != nil {
		t.Fatal(err)
	}
	state("Succeeded")
	if err := b.PolicyConfirmed(t.Context(), id, 4, "format 9 is not known"); err != nil {
		t.Fatal(err)
	}
	state("Failed")
	if p := b.get(t, id).Policy; p.ConfirmedVersion != 3 || p.Error == "" {
		t.Errorf("policy %+v", p)
	}
	if err := b.PolicyConfirmed(t.Context(), id, 5, ""); err != nil {
		t.Fatal(err)
	}
	state("Succeeded")
}

func TestSearch(t *testing.T) {
	b := open(t)
	for _, name := range []string{"web-2", "WEB-1", "db_1", "db%1"} {
		b.register(t, name)
	}
	names := func(q device.Query) []string {
		t.Helper()
		q.Limit = max(q.Limit, 2)
		var names []string
		for {
			page, err := b.List(t.Context(), org, q, nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range page.Items {
				names = append(names, d.Name)
			}
			if q.Cursor = page.Next; q.Cursor == "" {
				return names
			}
		}
	}
	for _, c := range []struct {
		q    device.Query
		want []string
	}{
		{device.Query{}, []string{"db%1", "db_1", "WEB-1", "web-2"}},
		{device.Query{Text: "Web"}, []string{"WEB-1", "web-2"}},
		{device.Query{Text: "db%"}, []string{"db%1"}},
		{device.Query{Text: "192.0.2"}, []string{"db%1", "db_1", "WEB-1", "web-2"}},
		{device.Query{Text: "0.2.7"}, nil}, // the beginning of an address only
		{device.Query{Environment: "other"}, nil},
		{device.Query{Onboarding: "Offboarded"}, nil},
	} {
		if got := names(c.q); !slices.Equal(got, c.want) {
			t.Errorf("%+v found %q, want %q", c.q, got, c.want)
		}
	}
	if list, err := b.List(t.Context(), "another", device.Query{Paging: rest.Paging{Limit: 10}}, nil); err != nil || list.Total != 0 {
		t.Errorf("another organization sees %d devices, %v", list.Total, err)
	}
}

func TestARestartKeepsWhatWasFlushed(t *testing.T) {
	b := open(t)
	id := b.register(t, "web-1")
	if err := b.Connected(t.Context(), id, facts("renamed")); err != nil {
		t.Fatal(err)
	}
	b.now = b.now.Add(time.Minute)
	b.Report(id, good)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Run(ctx); err != nil { // a clean end writes
		t.Fatal(err)
	}
	b.reopen(t)
	d := b.get(t, id)
	if d.Name != "renamed" || d.Connected || !d.LastSeen.Equal(b.now) || d.Health == nil || d.Health.RealTimeScope != "all_filesystems" || d.Protection.RealTime != "on" || !slices.Equal(d.Tags, []string{"web"}) {
		t.Errorf("device %+v", d)
	}
	if c := b.Counts(org)[env]; c != (device.Counts{Total: 1, Active: 1, Protected: 1}) {
		t.Errorf("counts %+v", c)
	}
}

func TestOnlyWhatChangedIsTold(t *testing.T) {
	b := open(t)
	id := b.register(t, "web-1")
	before := b.changed
	for range 5 {
		b.now = b.now.Add(30 * time.Second)
		r := good
		r.Time, r.DefinitionsMinutes = b.now, int64(b.now.Minute())
		b.Report(id, r)
	}
	if got := b.changed - before; got != 1 {
		t.Errorf("told %d times", got)
	}
}

func TestOffboarded(t *testing.T) {
	b := open(t)
	id := b.register(t, "web-1")
	if err := b.Offboard(t.Context(), "another", id, ""); !fault.Is(err, fault.NotFound) {
		t.Errorf("by another organization: %v", err)
	}
	if err := b.Offboard(t.Context(), org, id, ""); err != nil {
		t.Fatal(err)
	}
	if err := b.Offboard(t.Context(), org, id, ""); !fault.Is(err, fault.Conflict) {
		t.Errorf("twice: %v", err)
	}
	if err := b.Connected(t.Context(), id, facts("web-1")); !fault.Is(err, fault.Unauthentic) {
		t.Errorf("it connects: %v", err)
	}
	if len(b.Members()) != 0 || b.Counts(org)[env].Total != 0 {
		t.Error("it counts")
	}
	if _, _, err := b.Place(id); err != nil {
		t.Errorf("what it sent before has no place: %v", err)
	}
}

// What is known of an offboarded device goes when its time is over, but its
// name, and stays gone over a restart.
func TestExpired(t *testing.T) {
	b := open(t)
	id, other := b.register(t, "web-1"), b.register(t, "web-2")
	b.Report(id, good)
	if err := b.Offboard(t.Context(), org, id, "sold"); err != nil {
		t.Fatal(err)
	}
	listed := func() int {
		t.Helper()
		var q device.Query
		q.Limit = 10
		list, err := b.List(t.Context(), org, q, nil)
		if err != nil {
			t.Fatal(err)
		}
		return len(list.Items)
	}
	var forgotten []event.DeviceID
	for _, c := range []struct {
		days, kept, listed int
	}{{9, 10, 2}, {300, 0, 2}, {0, 10, 1}, {0, 10, 1}} {
		b.now = b.now.AddDate(0, 0, c.days)
		keep := func(environment string) time.Duration {
			if environment != env {
				t.Errorf("asked for environment %q", environment)
			}
			return time.Duration(c.kept) * 24 * time.Hour
		}
		// What others keep cannot be deleted at first: nothing is over yet.
		broken := fault.New(fault.Unavailable, "the disk is full")
		err := b.Expire(t.Context(), keep, func(context.Context, event.DeviceID) error { return broken })
		if over := c.listed == 1 && !slices.Contains(forgotten, id); over != errors.Is(err, broken) {
			t.Errorf("%+v: %v", c, err)
		}
		err = b.Expire(t.Context(), keep, func(_ context.Context, id event.DeviceID) error {
			forgotten = append(forgotten, id)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := listed(); got != c.listed {
			t.Errorf("%+v: %d devices are listed", c, got)
		}
	}
	if !slices.Equal(forgotten, []event.DeviceID{id}) {
		t.Errorf("forgotten are %q, want %q once", forgotten, id)
	}
	b.reopen(t)
	if got := listed(); got != 1 {
		t.Errorf("after a restart %d devices are listed", got)
	}
	if _, err := b.Get(t.Context(), org, id); !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "web-1") {
		t.Errorf("its page: %v", err)
	}
	if got := b.Names(id, other); got[id] != "web-1" || got[other] != "web-2" {
		t.Errorf("names %v", got)
	}
	var kept string
	if err := b.db.NewRaw("SELECT facts || coalesce(health, '') FROM devices WHERE id = ?", id).Scan(t.Context(), &kept); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(kept, "192.0.2.7") || strings.Contains(kept, "web_1") {
		t.Errorf("it is kept: %s", kept)
	}
	if got := b.Totals(org, nil); got.Offboarded != 0 || got.Total != 1 {
		t.Errorf("%d offboarded of %d", got.Offboarded, got.Total)
	}
}

func TestRegisterRefusesNamelessHosts(t *testing.T) {
	b := open(t)
	for _, name := range []string{"", "  ", fmt.Sprintf("%0254d", 1)} {
		if _, err := b.Register(t.Context(), org, env, facts(name)); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// BenchmarkList10k is the first page and a search over ten thousand devices.
func BenchmarkList10k(b *testing.B) {
	r := open(b)
	for i := range 10_000 {
		id := r.register(b, fmt.Sprintf("host-%05d", i*7919%10_000))
		r.Report(id, good)
	}
	for b.Loop() {
		for _, q := range []device.Query{{}, {Text: "77"}, {Health: device.Active}} {
			q.Limit = 100
			if page, err := r.List(b.Context(), org, q, nil); err != nil || page.Total == 0 {
				b.Fatal(page.Total, err)
			}
		}
	}
}
