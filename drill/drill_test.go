package drill_test

import (
	"testing"
	"time"

	"komainu/drill"
)

func TestRunEndsWithAnAnswer(t *testing.T) {
	at := time.Date(2026, time.January, 2, 3, 4, 5, 0, time.UTC)
	r := drill.New("1", "eicar", at)
	if r.Settle() || r.First() != drill.Kernel {
		t.Fatalf("a new run is %+v", r)
	}
	for _, id := range drill.Stages() {
		r.Reach(id, at, "")
		at = at.Add(time.Second)
	}
	r.Reach(drill.Kernel, at, "more")
	if s := r.Stage(drill.Kernel); !s.At.Equal(r.Started) || s.Detail != "more" {
		t.Errorf("reached again it is %+v", s)
	}
	if !r.Settle() || r.Outcome != drill.Passed {
		t.Errorf("outcome %s", r.Outcome)
	}

	r = drill.New("2", "eicar", at)
	r.Reach(drill.Kernel, at, "")
	copied := r.Clone()
	r.Explain(drill.Reason{ID: drill.Excluded})
	if !r.Settle() || r.Outcome != drill.Explained || r.Stage(drill.Kernel).State != drill.OK || r.Stage(drill.Agent).State != drill.Missing {
		t.Errorf("explained it is %+v", r)
	}
	if copied.Outcome != drill.Running || copied.Stage(drill.Agent).State != drill.Waiting || copied.Reason != nil {
		t.Errorf("its copy is %+v", copied)
	}
}

func TestNamesAreUnique(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range drill.Scenarios() {
		found, ok := drill.Find(s.ID)
		if seen[s.ID] || !ok || found.Name != s.Name || s.About == "" || len(s.Needs) == 0 {
			t.Errorf("scenario %+v", s)
		}
		seen[s.ID] = true
	}
	for _, id := range drill.Reasons() {
		if seen[string(id)] {
			t.Errorf("reason %s twice", id)
		}
		seen[string(id)] = true
	}
	if _, ok := drill.Find("format-disk"); ok {
		t.Error("a scenario that is none")
	}
}
