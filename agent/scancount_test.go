package agent

import (
	"fmt"
	"testing"

	"komainu/event"
)

func TestScansAreCountedByProgram(t *testing.T) {
	var c scanCounts
	if got := c.list(); got == nil || len(got) != 0 {
		t.Errorf("nothing was scanned: %+v", got)
	}
	git := []event.Process{{Name: "git", Path: "/usr/bin/git"}, {Name: "bash", Path: "/bin/bash"}}
	for range 3 {
		c.add(git)
	}
	c.add(nil) // a process that has ended
	for i := range 2 * maxCounted {
		c.add([]event.Process{{Name: "p", Path: fmt.Sprintf("/opt/%d", i)}})
	}
	got := c.list()
	if len(got) != maxCounted+1 {
		t.Fatalf("%d programs are listed, want %d and the others", len(got), maxCounted)
	}
	if got[0].Name != "(others)" || got[0].Files != maxCounted+2 || got[1].Path != "/usr/bin/git" || got[1].Files != 3 || got[1].ID != 2 {
		t.Errorf("%+v %+v", got[0], got[1])
	}
}
