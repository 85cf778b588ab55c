package machine

import (
	"cmp"
	"slices"
)

// match finds the machines of an inventory among those that its connector has
// brought before. found has one for each of the inventory, nil for one that
// is new; missing are the others.
//
// Who has the key of a machine is that machine. Where keys are addresses, a
// host whose port nobody has is the machine that it was with another port: an
// inventory that names the host once means the one that was named last, also
// when it was gone meanwhile. Of several behind one host, which are told apart
// by their ports, only one that goes with this inventory can have moved.
func (i Inventory) match(there []*Machine) (found, missing []*Machine) {
	place := i.Place
	if place == nil {
		place = func(key string) (string, string) { return key, key }
	}
	hosts := map[string]int{}
	for _, k := range i.Machines {
		host, _ := place(k.Key)
		hosts[host]++
	}
	missing = slices.SortedFunc(slices.Values(there), func(a, b *Machine) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), b.LastSeen.Compare(a.LastSeen), cmp.Compare(a.ID, b.ID))
	})
	found = make([]*Machine, len(i.Machines))
	take := func(name func(key string) string, may func(*Machine) bool) {
		left := map[string][]*Machine{}
		for _, m := range missing {
			if may(m) {
				left[name(m.ExternalID)] = append(left[name(m.ExternalID)], m)
			}
		}
		taken := map[*Machine]bool{}
		for n, k := range i.Machines {
			if list := left[name(k.Key)]; found[n] == nil && len(list) > 0 {
				found[n], left[name(k.Key)] = list[0], list[1:]
				taken[list[0]] = true
			}
		}
		missing = slices.DeleteFunc(missing, func(m *Machine) bool { return taken[m] })
	}
	take(func(key string) string { _, written := place(key); return written }, func(*Machine) bool { return true })
	take(func(key string) string { host, _ := place(key); return host }, func(m *Machine) bool {
		host, _ := place(m.ExternalID)
		return !m.Gone || hosts[host] == 1
	})
	return found, missing
}

// rank puts those first that an inventory names.
func rank(m *Machine) int {
	if m.Gone {
		return 1
	}
	return 0
}
