package control

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"komainu/control/device"
	"komainu/control/machine"
	"komainu/event"
)

// TestOffboardedDeviceStaysOff offboards by the page of the device. The plan
// is on, and must not bring the agent back.
func TestOffboardedDeviceStaysOff(t *testing.T) {
	b := newBench(t)
	id := b.device("web-1")
	if err := b.api.known.machines.Enrolled(t.Context(), b.org, b.env, "", id, machine.Known{Name: "web-1", System: "linux"}, time.Time{}); err != nil {
		t.Fatal(err)
	}
	want[device.Details](b, 200, "POST", "/devices/"+string(id)+"/revoke", `{"reason":"sold"}`)
	m, ok := b.api.known.machines.Of(id)
	if !ok || !m.Offboarded {
		t.Errorf("%+v, %v", m, ok)
	}
	// Somebody who wants it protected again says so.
	want[machine.View](b, 200, "POST", "/machines/"+m.ID+"/deploy", `{}`)
	if m, _ = b.api.known.machines.Of(id); m.Offboarded {
		t.Error("it stays offboarded")
	}
}

// TestLinkEndsWhatAMachineWas says that another device runs on a machine. The
// one that it had before can never come back; if it is connected all the same,
// it is another server.
func TestLinkEndsWhatAMachineWas(t *testing.T) {
	for _, alive := range []bool{false, true} {
		b := newBench(t)
		want[any](b, 200, "PUT", "/environments/"+b.env+"/plan", `{"version":1,"servers":true}`)
		old, now := b.device("web-1"), b.device("web-1")
		machines := b.api.known.machines
		if _, err := machines.Sync(t.Context(), b.org, b.env, "way", "ssh", machine.Inventory{Machines: []machine.Known{{Key: "web-1", Name: "web-1", Address: "web-1:22", System: "linux"}}}); err != nil {
			t.Fatal(err)
		}
		listed, _ := machines.Found("way", "web-1")
		for m, d := range map[string]event.DeviceID{listed.ID: old, "": now} {
			if err := machines.Enrolled(t.Context(), b.org, b.env, m, d, machine.Known{Name: "web-1", System: "linux"}, time.Time{}); err != nil {
				t.Fatal(err)
			}
		}
		if alive {
			if err := b.api.devices.Connected(t.Context(), old, device.Facts{Hostname: "web-1", OS: "linux"}); err != nil {
				t.Fatal(err)
			}
		}
		want[machine.View](b, 200, "POST", "/machines/"+listed.ID+"/device", `{"device":"`+string(now)+`"}`)
		if m, _ := machines.Of(now); m.ID != listed.ID {
			t.Errorf("the device is on %+v", m)
		}
		if d, _ := b.api.devices.State(now); d.Offboarded {
			t.Error("the device of the server is offboarded")
		}
		d, _ := b.api.devices.State(old)
		if m, known := machines.Of(old); d.Offboarded == alive || known != alive || alive && m.ID == listed.ID {
			t.Errorf("connected is %t: the device from before is %+v, on the machine %q", alive, d, m.ID)
		}
	}
}

// TestEnrolledWhileItIsOffboarded has an agent enrol at the moment at which
// somebody offboards its machine: it stays out.
func TestEnrolledWhileItIsOffboarded(t *testing.T) {
	b := newBench(t)
	machines := b.api.known.machines
	for i := range 100 {
		name := fmt.Sprint("web-", i)
		old, now := b.device(name), b.device(name)
		if err := machines.Enrolled(t.Context(), b.org, b.env, "", old, machine.Known{Name: name, System: "linux"}, time.Time{}); err != nil {
			t.Fatal(err)
		}
		m, _ := machines.Of(old)
		var enrols sync.WaitGroup
		enrols.Go(func() {
			for range i {
				runtime.Gosched()
			}
			// It fails when it is too late.
			_ = machines.Enrolled(t.Context(), b.org, b.env, m.ID, now, machine.Known{}, time.Time{})
		})
		want[machine.View](b, 200, "POST", "/machines/"+m.ID+"/offboard", `{}`)
		enrols.Wait()
		m, _ = machines.Get(b.org, m.ID)
		if d, _ := b.api.devices.State(m.Device); !m.Offboarded || !d.Offboarded {
			t.Fatalf("%s is offboarded, and its device %s is not", m.Name, m.Device)
		}
	}
}
