package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"komainu/event"
)

// TestAccount shows the oracle what it has to find.
func TestAccount(t *testing.T) {
	created := func(seq int, marker string) soakEvent {
		e := soakEvent{ID: fmt.Sprintf("device/7/process/%d", seq), Action: string(event.ProcessCreated)}
		e.Process = &struct{ Args []string }{[]string{"/bin/true", marker}}
		return e
	}
	lost := func(seq int, source, count string) soakEvent {
		return soakEvent{ID: fmt.Sprintf("device/7/agent/%d", seq), Action: string(event.EventsLost), Fields: map[string]string{"lost_source": source, "lost_count": count}}
	}
	for _, c := range []struct {
		name    string
		stored  []soakEvent
		markers map[string]bool
		want    string // part of the complaint, "" for none
	}{
		{"all there", []soakEvent{created(1, "a"), created(2, "b")}, map[string]bool{"a": true, "b": true}, ""},
		{"stored twice", []soakEvent{created(1, "a"), created(1, "a")}, nil, "stored twice"},
		{"seen twice", []soakEvent{created(1, "a"), created(2, "a")}, map[string]bool{"a": true}, "ran once and is there 2 times"},
		{"a gap nobody told of", []soakEvent{created(1, "a"), created(3, "b")}, nil, "numbers that are missing: map[process:1]"},
		{"a gap at the front", []soakEvent{created(2, "a")}, nil, "numbers that are missing"},
		{"a gap that was told of", []soakEvent{created(1, "a"), created(3, "b"), lost(1, "process", "1")}, nil, ""},
		{"too little was told", []soakEvent{created(1, "a"), created(4, "b"), lost(1, "process", "1")}, nil, "numbers that are missing"},
		{"told of another source", []soakEvent{created(1, "a"), created(3, "b"), lost(1, "file", "1")}, nil, "numbers that are missing"},
		{"a loss that knows no source", []soakEvent{created(1, "a"), created(3, "b"), lost(1, "", "1")}, nil, ""},
		{"unseen in quiet times", []soakEvent{created(1, "a")}, map[string]bool{"a": true, "b": true}, "is not there"},
		{"unseen while broken", []soakEvent{created(1, "a")}, map[string]bool{"a": true, "b": false}, ""},
	} {
		s := &soaker{oracle: &oracle{markers: c.markers}}
		_, err := s.account(c.stored)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v; want %q", c.name, err, c.want)
		}
	}
}

// TestStood adds up when the machine stood still.
func TestStood(t *testing.T) {
	at := func(ms int) time.Time { return time.UnixMilli(int64(ms)) }
	o := &oracle{stalls: []stall{{at(0), at(100)}, {at(200), at(300)}, {at(900), at(1000)}}}
	if got := o.stood(at(50), at(950)); got != 200*time.Millisecond {
		t.Errorf("stood still for %s, want 200ms", got)
	}
}
