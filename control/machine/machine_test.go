package machine_test

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/uptrace/bun"
	"pgregory.net/rapid"

	"komainu/control/access"
	"komainu/control/db"
	"komainu/control/machine"
	"komainu/deploy"
	"komainu/event"
	"komainu/fault"
	"komainu/policy"
)

const (
	org = "org"
	env = "env"
)

// naive is a machine as somebody with a sheet of paper would note it.
type naive struct {
	Connector, Key string
	Device         event.DeviceID
	Gone           bool
	Offboarded     bool
	OffboardedAt   time.Time
	Plan           machine.Setting
	Version        uint64
	State          deploy.State
	Waits          bool // to be worked on again later
	Tags           int
}

// paper is the model of a registry.
type paper struct {
	state    *bun.DB
	registry *machine.Registry
	all      map[string]*naive // by id
	clock    time.Time
	devices  int
	audited  int
	told     int // changes that were audited
}

func (p *paper) open(t *rapid.T) {
	var err error
	p.registry, err = machine.Open(context.Background(), p.state, machine.Config{
		Now:    func() time.Time { return p.clock },
		Record: func(context.Context, bun.IDB, access.Change) error { p.audited++; return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
}

// any draws one of the machines.
func (p *paper) any(t *rapid.T) string {
	if len(p.all) == 0 {
		t.Skip("no machine")
	}
	return rapid.SampledFrom(slices.Sorted(maps.Keys(p.all))).Draw(t, "machine")
}

func (p *paper) fresh() event.DeviceID {
	p.devices++
	return event.DeviceID(fmt.Sprintf("device-%d", p.devices))
}

// sync takes an inventory over: what it names is there, what it does not name
// any more is gone, unless it could not look there.
func (p *paper) sync(t *rapid.T) {
	connector := rapid.SampledFrom([]string{"ssh", "other"}).Draw(t, "connector")
	keys := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "d", "e"}), 0, 5, rapid.ID[string]).Draw(t, "keys")
	missed := rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "missed")
	inventory := machine.Inventory{Missed: func(key string) bool { return key == missed }}
	for _, k := range keys {
		inventory.Machines = append(inventory.Machines, machine.Known{Key: k, Name: k, Address: k + ":22", System: "linux"})
	}
	got, err := p.registry.Sync(context.Background(), org, env, connector, "ssh", inventory)
	if err != nil {
		t.Fatal(err)
	}
	want := machine.Synced{Known: len(keys)}
	there := map[string]bool{}
	for _, m := range p.all {
		if m.Connector != connector {
			continue
		}
		there[m.Key] = true
		switch {
		case slices.Contains(keys, m.Key):
			m.Gone = false
		case !m.Gone && m.Key != missed:
			m.Gone = true
			want.Gone++
		}
	}
	for _, k := range keys {
		if !there[k] {
			want.Added++
		}
	}
	for _, m := range p.registry.All(env) {
		if p.all[m.ID] == nil {
			p.all[m.ID] = &naive{Connector: connector, Key: m.ExternalID, Version: 1, State: deploy.None}
		}
	}
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
}

func (p *paper) enrolByItself(t *rapid.T) {
	device := p.fresh()
	if err := p.registry.Enrolled(context.Background(), org, env, "", device, machine.Known{Name: string(device)}, time.Time{}); err != nil {
		t.Fatal(err)
	}
	m, ok := p.registry.Of(device)
	if !ok || p.all[m.ID] != nil {
		t.Fatalf("%s has no machine of its own", device)
	}
	p.all[m.ID] = &naive{Device: device, Version: 1, State: deploy.Waiting}
}

func (p *paper) enrolOn(t *rapid.T) {
	id, device := p.any(t), p.fresh()
	err := p.registry.Enrolled(context.Background(), org, env, id, device, machine.Known{}, time.Time{})
	if p.all[id].Offboarded {
		if !fault.Is(err, fault.Denied) {
			t.Fatalf("it was offboarded: %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	p.all[id].Device = device
}

// merge makes one machine of one that an inventory names and one whose agent
// enrolled by itself.
func (p *paper) merge(t *rapid.T) {
	id, other := p.any(t), p.any(t)
	into, from := p.all[id], p.all[other]
	if id == other {
		t.Skip("one machine")
	}
	err := p.registry.Merge(context.Background(), id, other)
	if from.Connector != "" || from.Device == "" {
		if !fault.Is(err, fault.Conflict) {
			t.Fatalf("what an inventory names, or has no agent: %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	into.Waits = false
	into.Device, into.Version, into.Tags = from.Device, into.Version+1, max(into.Tags, from.Tags)
	if into.Plan == machine.Inherit {
		into.Plan = from.Plan
	}
	delete(p.all, other)
	p.told++
}

func (p *paper) change(t *rapid.T) {
	id := p.any(t)
	m := p.all[id]
	to := rapid.SampledFrom([]machine.Setting{machine.Inherit, policy.Off, policy.P1, policy.P2, "P9"}).Draw(t, "plan")
	version := m.Version - uint64(rapid.IntRange(0, 1).Draw(t, "stale"))
	tags := make([]machine.Tag, rapid.IntRange(0, 3).Draw(t, "tags"))
	for i := range tags {
		tags[i] = machine.Tag{Key: fmt.Sprint(i)}
	}
	err := p.registry.Save(context.Background(), org, id, machine.Change{Version: version, Plan: &to, Tags: &tags})
	switch {
	case to == "P9":
		if !fault.Is(err, fault.Invalid) {
			t.Fatalf("plan P9: %v", err)
		}
	case version != m.Version:
		if !fault.Is(err, fault.Conflict) {
			t.Fatalf("a stale version: %v", err)
		}
	case err != nil:
		t.Fatal(err)
	default:
		m.Plan, m.Tags, m.Version = to, len(tags), m.Version+1
		p.told++
	}
}

func (p *paper) offboard(t *rapid.T) {
	id := p.any(t)
	if err := p.registry.Offboard(context.Background(), org, id, "retired"); err != nil {
		t.Fatal(err)
	}
	m := p.all[id]
	if !m.Offboarded {
		m.Offboarded, m.OffboardedAt = true, p.clock
	}
	if m.Connector != "" {
		m.State, m.Waits = deploy.Removing, false
	}
	p.told++
}

// expire lets days pass. What was offboarded for as long as it is kept is
// forgotten, unless an inventory names it.
func (p *paper) expire(t *rapid.T) {
	p.clock = p.clock.AddDate(0, 0, rapid.IntRange(0, 20).Draw(t, "days"))
	kept := time.Duration(rapid.SampledFrom([]int{0, 10, 30}).Draw(t, "kept")) * 24 * time.Hour
	if err := p.registry.Expire(context.Background(), func(string) time.Duration { return kept }); err != nil {
		t.Fatal(err)
	}
	for id, m := range p.all {
		if kept > 0 && m.Offboarded && p.clock.Sub(m.OffboardedAt) >= kept && (m.Connector == "" || m.Gone) {
			delete(p.all, id)
			p.told++
		}
	}
}

func (p *paper) request(t *rapid.T) {
	id := p.any(t)
	m := p.all[id]
	err := p.registry.Request(context.Background(), org, id, false, false)
	if m.State == deploy.Creating || m.State == deploy.Removing && !m.Waits {
		if !fault.Is(err, fault.Conflict) {
			t.Fatalf("it is worked on already: %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if m.State == deploy.Removing {
		m.State = deploy.Waiting
	}
	m.Offboarded, m.OffboardedAt, m.Waits = false, time.Time{}, false
	p.told++
}

func (p *paper) note(t *rapid.T) {
	id := p.any(t)
	state := rapid.SampledFrom(deploy.States()).Draw(t, "state")
	var next time.Time
	if rapid.Bool().Draw(t, "later") {
		next = p.clock.Add(time.Hour)
	}
	if err := p.registry.Note(context.Background(), id, machine.Line{Step: deploy.Connect, State: machine.LineOK}, func(x *machine.Extension) { x.State, x.Next = state, next }); err != nil {
		t.Fatal(err)
	}
	p.all[id].State, p.all[id].Waits = state, !next.IsZero()
}

// noteAll notes the states of several machines, one of which is not there.
func (p *paper) noteAll(t *rapid.T) {
	ids := []string{"nobody"}
	if len(p.all) > 0 {
		ids = append(ids, rapid.SliceOfDistinct(rapid.SampledFrom(slices.Sorted(maps.Keys(p.all))), rapid.ID[string]).Draw(t, "machines")...)
	}
	state := rapid.SampledFrom(deploy.States()).Draw(t, "state")
	var notes []machine.Noted
	for _, id := range ids {
		notes = append(notes, machine.Noted{Machine: id, Change: func(x *machine.Extension) { x.State = state }})
		if m := p.all[id]; m != nil {
			m.State = state
		}
	}
	if err := p.registry.NoteAll(context.Background(), notes); err != nil {
		t.Fatal(err)
	}
}

func (p *paper) delete(t *rapid.T) {
	id := p.any(t)
	m := p.all[id]
	err := p.registry.Delete(context.Background(), org, id)
	if m.Device != "" && !m.Offboarded || m.Connector != "" && !m.Gone {
		if !fault.Is(err, fault.Conflict) {
			t.Fatalf("%+v: %v", m, err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	delete(p.all, id)
	p.told++
}

func (p *paper) abandon(t *rapid.T) {
	connector := rapid.SampledFrom([]string{"ssh", "other"}).Draw(t, "connector")
	if err := p.registry.Abandon(context.Background(), connector); err != nil {
		t.Fatal(err)
	}
	for _, m := range p.all {
		if m.Connector == connector {
			m.Connector, m.Gone = "", m.Device == ""
		}
	}
}

// restart opens the registry anew. What was in the middle of something is
// taken up again.
func (p *paper) restart(t *rapid.T) {
	p.open(t)
	for _, m := range p.all {
		if m.State == deploy.Creating {
			m.State, m.Waits = deploy.Waiting, false
		}
	}
}

func (p *paper) check(t *rapid.T) {
	got := map[string]*naive{}
	devices := map[event.DeviceID]string{}
	for _, m := range p.registry.All(env) {
		got[m.ID] = &naive{Connector: m.Connector, Key: m.ExternalID, Device: m.Device, Gone: m.Gone, Offboarded: m.Offboarded, OffboardedAt: m.OffboardedAt, Plan: m.Plan, Version: m.Version, State: m.Extension.State, Waits: !m.Extension.Next.IsZero(), Tags: len(m.OwnTags)}
	}
	if diff := gocmp.Diff(p.all, got, cmpopts.EquateEmpty()); diff != "" {
		t.Fatal(diff)
	}
	counts := machine.Counts{}
	for id, m := range p.all {
		if m.Device != "" {
			devices[m.Device] = id
		}
		if m.Gone {
			continue
		}
		counts.Machines++
		*map[deploy.State]*int{
			deploy.None: &counts.None, deploy.Waiting: &counts.Waiting, deploy.Creating: &counts.Creating, deploy.Succeeded: &counts.Protected, deploy.Failed: &counts.Failed,
			deploy.NotApplicable: &counts.NotApplicable, deploy.Removing: &counts.Removing,
		}[m.State]++
	}
	if diff := gocmp.Diff(counts, p.registry.Count(org)[env]); diff != "" {
		t.Fatal(diff)
	}
	for n := range p.devices {
		id := event.DeviceID(fmt.Sprintf("device-%d", n+1))
		m, _ := p.registry.Of(id)
		if m.ID != devices[id] {
			t.Fatalf("%s is on %q, not on %q", id, m.ID, devices[id])
		}
	}
	if p.audited != p.told {
		t.Fatalf("%d changes by people, %d in the audit log", p.told, p.audited)
	}
	if _, err := p.registry.Get("foreign", cmp.Or(slices.Collect(maps.Keys(p.all))...)); len(p.all) > 0 && !fault.Is(err, fault.NotFound) {
		t.Fatalf("another organization sees a machine: %v", err)
	}
}

// TestRegistryLikeANaiveOne does what inventories, agents, people and the
// engine do, in any order, also over restarts.
func TestRegistryLikeANaiveOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		state, err := db.OpenMemory()
		if err != nil {
			t.Fatal(err)
		}
		defer state.Close()
		if err := db.Migrate(context.Background(), state, machine.Migrations); err != nil {
			t.Fatal(err)
		}
		p := &paper{state: state, all: map[string]*naive{}, clock: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
		p.open(t)
		t.Repeat(map[string]func(*rapid.T){
			"": p.check, "sync": p.sync, "enrol": p.enrolByItself, "enrolOn": p.enrolOn, "change": p.change, "offboard": p.offboard, "request": p.request,
			"note": p.note, "noteAll": p.noteAll, "expire": p.expire, "merge": p.merge, "delete": p.delete, "abandon": p.abandon, "restart": p.restart,
		})
	})
}
