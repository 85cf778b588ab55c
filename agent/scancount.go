package agent

import (
	"slices"
	"strings"
	"sync"

	"komainu/agent/localapi"
	"komainu/event"
)

// maxCounted bounds the programs that are counted by name; the scans of all
// others are counted together.
const maxCounted = 1024

// scanCounts says for which programs real-time protection scans, since the
// agent started: who asks why a host is busy finds the program that opens new
// files all the time. Its methods may be called concurrently.
type scanCounts struct {
	mu     sync.Mutex
	by     map[string]*scanCount // by path
	others uint64
}

type scanCount struct {
	name  string
	files uint64
}

// add counts a scan that was made for a process, given with its ancestors.
func (c *scanCounts) add(tree []event.Process) {
	path, name := "", "(ended)"
	if len(tree) > 0 {
		path, name = tree[0].Path, tree[0].Name
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.by[path]
	if n == nil {
		if len(c.by) >= maxCounted {
			c.others++
			return
		}
		if c.by == nil {
			c.by = map[string]*scanCount{}
		}
		n = &scanCount{name: name}
		c.by[path] = n
	}
	n.files++
}

// list returns the counts, the highest first.
func (c *scanCounts) list() []localapi.ScanCounter {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]localapi.ScanCounter, 0, len(c.by)+1)
	for path, n := range c.by {
		list = append(list, localapi.ScanCounter{Path: path, Name: n.name, Files: n.files})
	}
	if c.others > 0 {
		list = append(list, localapi.ScanCounter{Name: "(others)", Files: c.others})
	}
	slices.SortFunc(list, func(a, b localapi.ScanCounter) int {
		if a.Files != b.Files {
			return map[bool]int{true: -1, false: 1}[a.Files > b.Files]
		}
		return strings.Compare(a.Path, b.Path)
	})
	for i := range list {
		list[i].ID = uint64(i + 1)
	}
	return list
}
