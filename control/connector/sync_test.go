package connector

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"komainu/control/access"
	"komainu/control/db"
	"komainu/control/machine"
	"komainu/deploy"
	"komainu/fault"
)

const (
	org = "org"
	env = "env"
)

// bench are connectors and machines over a database of their own.
type bench struct {
	*Connectors
	machines *machine.Registry
	audit    []access.Change
}

func newBench(t *testing.T) *bench {
	t.Helper()
	state, err := db.OpenMemory()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { state.Close() })
	if err := db.Migrate(t.Context(), state, machine.Migrations, Migrations); err != nil {
		t.Fatal(err)
	}
	b := &bench{}
	record := func(_ context.Context, _ bun.IDB, c access.Change) error {
		b.audit = append(b.audit, c)
		return nil
	}
	if b.machines, err = machine.Open(t.Context(), state, machine.Config{Record: record}); err != nil {
		t.Fatal(err)
	}
	b.Connectors, err = Open(Config{
		DB: state, Dir: t.TempDir(), Record: record, Synced: b.machines.Sync, Gone: b.machines.Abandon, Changed: func(string, string) {},
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// made is a connector for a list of hosts.
func (b *bench) made(t *testing.T, s SSH, secret *Secret) Connector {
	t.Helper()
	c, err := b.Create(t.Context(), org, env, Change{Name: "ours", Kind: KindSSH, SSH: &s, Secret: secret})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// slow is a kind whose inventory takes its time.
type slow struct {
	servers
	meanwhile func()
}

func (s slow) inventory(ctx context.Context, r *row, secret sealed) (machine.Inventory, *deploy.Failure) {
	found, failed := s.servers.inventory(ctx, r, secret)
	s.meanwhile()
	return found, failed
}

// While an inventory is asked for, its connector is deleted: nothing comes of
// it, and nothing is left that nobody could delete.
func TestDeletedWhileItsInventoryIsAskedFor(t *testing.T) {
	b := newBench(t)
	c := b.made(t, SSH{Hosts: "web\ndb", Sudo: "none", Credential: Push, HostKeys: FirstUse}, nil)
	if counts, err := b.Sync(t.Context(), org, c.ID); err != nil || counts.Added != 2 {
		t.Fatalf("%+v %v", counts, err)
	}
	b.kinds[KindSSH] = slow{servers{b.Connectors}, func() {
		if err := b.Delete(t.Context(), org, c.ID); err != nil {
			t.Error(err)
		}
	}}
	if _, err := b.Sync(t.Context(), org, c.ID); !fault.Is(err, fault.NotFound) {
		t.Errorf("a connector that is deleted has an inventory: %v", err)
	}
	for _, m := range b.machines.All(env) {
		if err := b.machines.Delete(t.Context(), org, m.ID); err != nil {
			t.Errorf("%s of %q: %v", m.Name, m.Connector, err)
		}
	}
	if left := b.machines.All(""); len(left) != 0 {
		t.Errorf("%d machines are left", len(left))
	}
}

// While an inventory is asked for, somebody saves another list: that one
// counts.
func TestChangedWhileItsInventoryIsAskedFor(t *testing.T) {
	b := newBench(t)
	s := SSH{Hosts: "old", Sudo: "none", Credential: Push, HostKeys: FirstUse}
	c := b.made(t, s, nil)
	changes := 0
	b.kinds[KindSSH] = slow{servers{b.Connectors}, func() {
		if changes++; changes > 1 {
			return
		}
		s.Hosts = "new"
		if _, err := b.Update(t.Context(), org, c.ID, Change{Version: 1, Name: "ours", Kind: KindSSH, SSH: &s}); err != nil {
			t.Error(err)
		}
	}}
	if counts, err := b.Sync(t.Context(), org, c.ID); err != nil || counts != (machine.Synced{Known: 1, Added: 1}) {
		t.Fatalf("%+v %v", counts, err)
	}
	if all := b.machines.All(env); len(all) != 1 || all[0].Name != "new" {
		t.Errorf("%d machines, the first is %s", len(all), all[0].Name)
	}
	if got, err := b.Get(t.Context(), org, c.ID); err != nil || got.LastSync == nil {
		t.Errorf("%+v %v", got, err)
	}
}

// What is changed again and again is not asked for without end.
func TestChangedAllTheTime(t *testing.T) {
	b := newBench(t)
	s := SSH{Hosts: "web", Sudo: "none", Credential: Push, HostKeys: FirstUse}
	c := b.made(t, s, nil)
	version := c.Version
	b.kinds[KindSSH] = slow{servers{b.Connectors}, func() {
		if _, err := b.Update(t.Context(), org, c.ID, Change{Version: version, Name: "ours", Kind: KindSSH, SSH: &s}); err != nil {
			t.Error(err)
		}
		version++
	}}
	if _, err := b.Sync(t.Context(), org, c.ID); !fault.Is(err, fault.Conflict) {
		t.Error(err)
	}
	if version != c.Version+syncTries || len(b.machines.All("")) != 0 {
		t.Errorf("version %d, %d machines", version, len(b.machines.All("")))
	}
}

// Who saves a list may be gone, or the control plane ended, before its
// machines are taken over: they are then.
func TestSavedAndNotTakenOver(t *testing.T) {
	b := newBench(t)
	at := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	b.cfg.Now = func() time.Time { return at }
	s := SSH{Hosts: "web", Sudo: "none", Credential: Push, HostKeys: FirstUse}
	c := b.made(t, s, nil)
	names := func() (all []string) {
		t.Helper()
		at = at.Add(time.Hour)
		if err := b.syncDue(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, m := range b.machines.All(env) {
			all = append(all, m.Name)
		}
		return slices.Sorted(slices.Values(all))
	}
	if got := names(); !slices.Equal(got, []string{"web"}) {
		t.Errorf("of a new connector there are %q", got)
	}
	at = at.Add(time.Second)
	s.Hosts = "web\ndb"
	if _, err := b.Update(t.Context(), org, c.ID, Change{Version: 1, Name: "ours", Kind: KindSSH, SSH: &s}); err != nil {
		t.Fatal(err)
	}
	if got := names(); !slices.Equal(got, []string{"db", "web"}) {
		t.Errorf("of a changed connector there are %q", got)
	}
	taken := 0
	b.kinds[KindSSH] = slow{servers{b.Connectors}, func() { taken++ }}
	if names(); taken != 0 {
		t.Error("a list that is taken over is taken over again")
	}
}
