package control

import (
	"testing"
	"time"

	"komainu/control/device"
	"komainu/control/machine"
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
