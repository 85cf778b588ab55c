package agent

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"komainu/agent/link"
	"komainu/agent/spool"
	"komainu/event"
	"komainu/wire"
)

func openTestRecorder(t *testing.T) *recorder {
	t.Helper()
	dir := t.TempDir()
	numbers, err := spool.OpenNumbers(filepath.Join(dir, "epoch"))
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{log: discard(), device: func() event.DeviceID { return "d1" }, numbers: numbers}
	for name, s := range map[string]**spool.Spool{"events": &r.events, "findings": &r.findings} {
		if *s, err = spool.Open(filepath.Join(dir, name), spool.Limits{}); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = r.Close() })
	r.licensed.Store(true)
	return r
}

// waitingEvents decodes what waits in the spool of events.
func waitingEvents(t *testing.T, r *recorder) (list []event.Event) {
	t.Helper()
	for after := uint64(0); r.events.Stats().Waiting > uint64(len(list)); {
		b, err := r.events.Next(t.Context(), after, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for _, record := range b.Records {
			decoded, err := wire.DecodeRecord("d1", record)
			if err != nil || decoded.Event == nil {
				t.Fatalf("%+v, %v", decoded, err)
			}
			list = append(list, *decoded.Event)
		}
		after = b.Last()
	}
	return list
}

// TestRecordsStayInTheirEnvironment moves a device: what waits goes with it
// only within its environment, and what does not is counted.
func TestRecordsStayInTheirEnvironment(t *testing.T) {
	home := link.Identity{Device: "d1", Organization: "o", Environment: "home"}
	again, other := home, home
	again.Device, other.Environment = "d2", "other"
	otherPlane := home
	otherPlane.Organization = "somebody else"
	r := openTestRecorder(t)
	file := filepath.Join(t.TempDir(), "owner")
	claim := func(id link.Identity) {
		t.Helper()
		if err := (&claimer{file: file, discard: r.Discard}).Claim(id); err != nil { // a new one: as after a restart
			t.Fatal(err)
		}
	}
	r.Event(&event.Event{Action: event.AgentStarted})
	claim(home)
	r.Event(&event.Event{Action: event.ProcessCreated, Process: &event.Process{Path: "/bin/true"}})
	if err := r.findings.Append(0, []byte("seen at home")); err != nil {
		t.Fatal(err)
	}
	claim(home)
	claim(again)
	if list := waitingEvents(t, r); len(list) != 2 || r.findings.Stats().Waiting != 1 {
		t.Fatalf("within the environment something was lost: %d events, %+v", len(list), r.findings.Stats())
	}
	for _, id := range []link.Identity{other, otherPlane} {
		claim(id)
		claim(id) // once is enough
		lost := map[event.Source]uint64{}
		for _, e := range waitingEvents(t, r) {
			if e.Action != event.EventsLost || e.Loss.Where != "enrolment" {
				t.Errorf("%s went to %s in %s", e.Action, id.Environment, id.Organization)
				continue
			}
			lost[e.Loss.Source] += e.Loss.Count
		}
		if moved := id.Organization == "o"; moved && (lost[""] != 1 || lost[event.FromAgent] != 1 || lost[event.FromProcess] != 1) || !moved && lost[event.FromAgent] != 3 {
			t.Errorf("%s in %s learns of losses %v", id.Environment, id.Organization, lost)
		}
		if n := r.findings.Stats().Waiting; n != 0 {
			t.Errorf("%d findings went along", n)
		}
	}
	if err := os.WriteFile(file, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.Event(&event.Event{Action: event.ProcessCreated, Process: &event.Process{Path: "/bin/false"}})
	claim(otherPlane)
	for _, e := range waitingEvents(t, r) {
		if e.Action == event.ProcessCreated {
			t.Error("whose records they are was not known, and they were sent")
		}
	}
}

func TestClaimWhenTheRecordsCannotBeRemoved(t *testing.T) {
	file := filepath.Join(t.TempDir(), "owner")
	fails := error(nil)
	c := &claimer{file: file, discard: func() error { return fails }}
	if err := c.Claim(link.Identity{Environment: "a"}); err != nil {
		t.Fatal(err)
	}
	fails = syscall.EIO
	for range 2 {
		if err := c.Claim(link.Identity{Environment: "b"}); !errors.Is(err, syscall.EIO) {
			t.Errorf("a session would begin: %v", err)
		}
	}
	fails = nil
	if err := c.Claim(link.Identity{Environment: "b"}); err != nil {
		t.Error(err)
	}
}
