package connector

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"

	"komainu/control/access"
)

// namedHosts is how many hosts an entry of the audit log names; it counts all.
const namedHosts = 20

// hostList is a list of hosts in the audit log.
type hostList struct {
	Count int      `json:"count"`
	Names []string `json:"names"` // the first of them
}

func listOf(hosts []string) hostList {
	return hostList{len(hosts), hosts[:min(len(hosts), namedHosts)]}
}

// entry is what the audit log keeps of a connector: nothing secret. With the
// settings from before, which are nil for a new one, it says what has changed.
func (c *Connectors) entry(action string, r *row, before json.RawMessage) access.Change {
	k := c.kinds[r.Kind]
	detail, hosts := k.described(r.Settings)
	var had []string
	if before != nil {
		var old map[string]any
		old, had = k.described(before)
		was := map[string]any{}
		for name, value := range old {
			if !reflect.DeepEqual(value, detail[name]) {
				was[name] = value
			}
		}
		if len(was) > 0 {
			detail["was"] = was
		}
	}
	if added := without(hosts, had); len(added) > 0 {
		detail["added"] = listOf(added)
	}
	if removed := without(had, hosts); len(removed) > 0 {
		detail["removed"] = listOf(removed)
	}
	detail["kind"], detail["environment"] = r.Kind, r.EnvironmentID
	return access.Change{Action: action, Target: r.ID, Name: r.Name, Detail: detail}
}

// tested is the entry for a test, which names the hosts that it logs in to.
func (c *Connectors) tested(t trial) access.Change {
	detail, hosts := c.kinds[t.Kind].described(t.Settings)
	if hosts != nil {
		detail["tried"] = listOf(hosts[:min(len(hosts), maxTried)])
	}
	detail["kind"], detail["environment"] = t.Kind, t.EnvironmentID
	detail["saved"] = bytes.Equal(t.Settings, t.saved)
	entry := access.Change{Action: "connector.test", Target: t.ID, Name: t.Name, Detail: detail}
	if t.saved == nil {
		entry.Target = "" // there is none yet
	}
	return entry
}

// without returns those of a list that another one does not have.
func without(list, other []string) []string {
	there := make(map[string]bool, len(other))
	for _, h := range other {
		there[h] = true
	}
	return slices.DeleteFunc(slices.Clone(list), func(h string) bool { return there[h] })
}
