package machine_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/uptrace/bun"
	"pgregory.net/rapid"

	"komainu/control/access"
	"komainu/control/db"
	"komainu/control/machine"
	"komainu/deploy/remote"
)

// listed is a registry with the list of an SSH connector.
type listed struct {
	registry *machine.Registry
	clock    time.Time
}

func newListed(t interface {
	Fatal(...any)
	Cleanup(func())
}) *listed {
	state, err := db.OpenMemory()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { state.Close() })
	if err := db.Migrate(context.Background(), state, machine.Migrations); err != nil {
		t.Fatal(err)
	}
	l := &listed{clock: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	l.registry, err = machine.Open(context.Background(), state, machine.Config{
		Now:    func() time.Time { return l.clock },
		Record: func(context.Context, bun.IDB, access.Change) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// take takes a list over. Keys are written as they were before there was a
// form for them when old is set.
func (l *listed) take(list string, old bool) error {
	l.clock = l.clock.Add(time.Minute)
	entries, err := remote.ParseInventory(list, 0)
	if err != nil {
		return err
	}
	i := machine.Inventory{Place: remote.Place}
	for _, e := range entries {
		k := machine.Known{Key: e.Key(0), Name: e.Name, Address: e.Address(0)}
		if old {
			k.Key, i.Place = k.Address, nil
		}
		i.Machines = append(i.Machines, k)
	}
	_, err = l.registry.Sync(context.Background(), org, env, "way", "ssh", i)
	return err
}

// by returns the machines by their addresses; gone ones have a - before it.
func (l *listed) by() map[string]string {
	all := map[string]string{}
	for _, m := range l.registry.All(env) {
		address := m.Address
		if m.Gone {
			address = "-" + address
		}
		all[address] = m.ID
	}
	return all
}

// A machine keeps its record, and with it its plan, its tags, its journal and
// whether it is offboarded, when its port or the case of its name changes.
func TestMachinesAreFollowed(t *testing.T) {
	for name, c := range map[string]struct {
		before string // taken over with keys as they were
		lists  []string
		want   map[string]int // which of before it is, counted from 1; 0 for a new one
	}{
		"port":                  {"web", []string{"web:2222"}, map[string]int{"web:2222": 1}},
		"port_and_back":         {"web", []string{"web:2222", "web:22"}, map[string]int{"web:22": 1}},
		"case":                  {"Web.Example", []string{"web.example"}, map[string]int{"web.example:22": 1}},
		"dot":                   {"web.example", []string{"web.example."}, map[string]int{"web.example.:22": 1}},
		"case_and_port":         {"Web:2222", []string{"web"}, map[string]int{"web:22": 1}},
		"form_of_an_address":    {"2001:DB8:0::5", []string{"[2001:db8::5]:22"}, map[string]int{"[2001:db8::5]:22": 1}},
		"another_name":          {"web", []string{"db"}, map[string]int{"-web:22": 1, "db:22": 0}},
		"came_back":             {"web", []string{"db", "web:2222"}, map[string]int{"web:2222": 1, "-db:22": 0}},
		"swapped":               {"a:22 b:2222", []string{"b:22 a:2222"}, map[string]int{"a:2222": 1, "b:22": 2}},
		"second_port":           {"nat", []string{"nat:2222 nat"}, map[string]int{"nat:22": 1, "nat:2222": 0}},
		"first_goes":            {"nat:22 nat:2222", []string{"nat:2222"}, map[string]int{"-nat:22": 1, "nat:2222": 2}},
		"second_goes":           {"nat:22 nat:2222", []string{"nat"}, map[string]int{"nat:22": 1, "-nat:2222": 2}},
		"goes_and_comes":        {"nat:22 nat:2222", []string{"nat:2222", "nat:2222 nat:22"}, map[string]int{"nat:22": 1, "nat:2222": 2}},
		"goes_and_moves":        {"nat:22 nat:2222", []string{"nat:2222", "nat:2200"}, map[string]int{"-nat:22": 1, "nat:2200": 2}},
		"one_of_two_moves":      {"nat:22 nat:2222", []string{"NAT:2200 nat:22"}, map[string]int{"nat:22": 1, "NAT:2200": 2}},
		"a_third_is_new":        {"nat:22 nat:2222", []string{"nat:2222", "nat:2222 nat:2200"}, map[string]int{"-nat:22": 1, "nat:2222": 2, "nat:2200": 0}},
		"ports_change_places":   {"nat:22 nat:2222", []string{"nat:2222 nat:22"}, map[string]int{"nat:22": 1, "nat:2222": 2}},
		"all_go_and_one_comes":  {"nat:22 nat:2222", []string{"", "nat:2222"}, map[string]int{"-nat:22": 1, "nat:2222": 2}},
		"one_more_way_to_write": {"web", []string{"WEB", "web.", "Web:2222", "web"}, map[string]int{"web:22": 1}},
	} {
		t.Run(name, func(t *testing.T) {
			l := newListed(t)
			if err := l.take(strings.ReplaceAll(c.before, " ", "\n"), true); err != nil {
				t.Fatal(err)
			}
			number := map[string]int{}
			before := l.by()
			for i, host := range strings.Fields(c.before) {
				entries, _ := remote.ParseInventory(host, 0)
				number[before[entries[0].Address(0)]] = i + 1
			}
			for _, list := range c.lists {
				if err := l.take(list, false); err != nil {
					t.Fatal(err)
				}
			}
			got := map[string]int{}
			for address, id := range l.by() {
				got[address] = number[id]
			}
			if diff := gocmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// An upgrade finds two machines where the list had one: the one that was left
// when its port changed, and the one that was made then. The list means the
// latter.
func TestMachinesThatWereTwoStayThat(t *testing.T) {
	l := newListed(t)
	for _, list := range []string{"Web:22", "web:2222"} {
		if err := l.take(list, true); err != nil {
			t.Fatal(err)
		}
	}
	before := l.by()
	for _, list := range []string{"web:2222", "web:2200"} {
		if err := l.take(list, false); err != nil {
			t.Fatal(err)
		}
	}
	if diff := gocmp.Diff(map[string]string{"-Web:22": before["-Web:22"], "web:2200": before["web:2222"]}, l.by()); diff != "" {
		t.Error(diff)
	}
}

// Whatever becomes of the others: an entry that stays keeps its record, and a
// host that every list names once has one.
func TestMachinesAreFollowedThroughAnyLists(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := newListed(t)
		stays, once := "", ""
		for n := range rapid.IntRange(1, 6).Draw(t, "lists") {
			ports := rapid.SliceOfNDistinct(rapid.IntRange(2201, 2205), 0, 4, rapid.ID[int]).Draw(t, "others")
			list := []string{"nat:2200", fmt.Sprintf("%s:%d", rapid.SampledFrom([]string{"once", "Once", "ONCE."}).Draw(t, "name"), rapid.IntRange(1, 5).Draw(t, "port"))}
			for _, p := range ports {
				list = append(list, fmt.Sprintf("nat:%d", p))
			}
			if err := l.take(strings.Join(rapid.Permutation(list).Draw(t, "order"), "\n"), false); err != nil {
				t.Fatal(err)
			}
			by := l.by()
			isOnce := func(a string) bool { return strings.Contains(strings.ToLower(a), "once") }
			named := slices.DeleteFunc(slices.Collect(maps.Keys(by)), func(a string) bool { return !isOnce(a) })
			if len(named) != 1 || n > 0 && (by["nat:2200"] != stays || by[named[0]] != once) {
				t.Fatalf("%v, was %s and %s", by, stays, once)
			}
			stays, once = by["nat:2200"], by[named[0]]
			keys := map[string]bool{}
			for _, m := range l.registry.All(env) {
				if keys[m.ExternalID] {
					t.Fatalf("the key %s is there twice", m.ExternalID)
				}
				keys[m.ExternalID] = true
			}
		}
	})
}
